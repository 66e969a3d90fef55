"""Asks every question that has no answer yet, several at once, and keeps each answer."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from appliance.bench.answers import Answer
from appliance.bench.endpoint import Endpoint
from appliance.bench.journal import Journal
from appliance.bench.questions import Question, Sampling
from appliance.bench.score import Outcome, Verdict, judge


async def ask_all(
    endpoint: Endpoint,
    asked: Sequence[Question],
    sampling: Sampling,
    journal: Journal,
    *,
    concurrency: int,
    tell: Callable[[Answer], None],
) -> None:
    """Ask what the journal has no answer for; ``tell`` is called with each new answer.

    Raises what the endpoint raises; what was answered by then is in the journal.
    """
    known = {answer.key for answer in journal.answers}
    left = iter([question for question in asked if question.key not in known])

    async def work(rest: Iterator[Question]) -> None:
        for question in rest:
            answer = await _ask(endpoint, question, sampling)
            journal.add(answer)
            tell(answer)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work(left))
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None  # one cause, told once; the others are its twins


async def _ask(endpoint: Endpoint, question: Question, sampling: Sampling) -> Answer:
    reply = await endpoint.ask(question.body(sampling), question.arm.headers)
    said = reply.said
    verdict = Verdict(Outcome.UNFIT) if said is None else judge(question.case, said)
    return Answer(*question.key, verdict, reply.prompt_tokens)
