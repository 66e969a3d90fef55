"""What goes over the wire in the two gaps of a stream: as the contract says, and nothing else."""

import json
from typing import Any

import pytest

from tests.accept.gaps import CONTENT, QUESTION, REASONING, gappy
from tests.accept.stage import Stage
from tests.engines import MODEL

Json = dict[str, Any]
COMMENT = ": keep-alive"
USER = {"role": "user", "content": QUESTION}
BODIES: dict[str, Json] = {
    "/v1/chat/completions": {"messages": [USER], "stream_options": {"include_usage": True}},
    "/v1/completions": {"prompt": QUESTION, "max_tokens": 1000},
    "/v1/responses": {"input": QUESTION},
    "/v1/messages": {"messages": [USER], "max_tokens": 1000},
}
OPENAI = ["/v1/chat/completions", "/v1/completions"]


def events(stage: Stage, path: str) -> list[str]:
    """Return the blocks of the whole stream, each as it came."""
    stage.script.play(gappy())
    body = {"model": MODEL, "stream": True, **BODIES[path]}
    with (
        stage.appliance.http() as http,
        http.stream("POST", path, json=body, headers={"x-request-id": "mine-7"}) as reply,
    ):
        assert reply.status_code == 200, reply.read()
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.headers["x-request-id"] == "mine-7"
        text = "".join(reply.iter_text())
    assert text.endswith("\n\n")
    return text.removesuffix("\n\n").split("\n\n")


def data_of(block: str) -> Any:
    """Return the value of a block's data line, None of one that has none."""
    lines = [line for line in block.split("\n") if line.startswith("data: ")]
    if not lines or lines[0] == "data: [DONE]":
        return None
    return json.loads(lines[0].removeprefix("data: "))


@pytest.mark.parametrize("path", OPENAI)
def test_an_openai_stream_gets_comments_first_and_empty_chunks_after(
    gappy_stage: Stage, path: str
) -> None:
    blocks = events(gappy_stage, path)
    first = next(i for i, block in enumerate(blocks) if block.startswith("data: "))
    assert first >= 2
    assert set(blocks[:first]) == {COMMENT}
    assert COMMENT not in blocks[first:]
    assert blocks[-1] == "data: [DONE]"
    chunks = [data_of(block) for block in blocks[first:-1]]
    empty = [chunk for chunk in chunks if chunk["choices"] == [] and "usage" not in chunk]
    assert len(empty) >= 2
    for name in ("id", "object", "created", "model"):
        assert {chunk[name] for chunk in chunks} == {chunks[0][name]}, name
    full = [chunk for chunk in chunks if chunk["choices"]]
    assert full.index(chunks[0]) == 0  # no empty chunk before the first


def test_a_chat_stream_with_keep_alives_says_what_it_says_without(gappy_stage: Stage) -> None:
    blocks = events(gappy_stage, "/v1/chat/completions")
    values = [value for value in map(data_of, blocks) if value and value["choices"]]
    deltas = [value["choices"][0]["delta"] for value in values]
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == REASONING
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == REASONING
    assert "".join(delta.get("content") or "" for delta in deltas) == CONTENT
    assert [value["choices"][0]["finish_reason"] for value in values][-1] == "stop"


def test_a_messages_stream_gets_pings_in_both_gaps(gappy_stage: Stage) -> None:
    blocks = events(gappy_stage, "/v1/messages")
    pings = [i for i, block in enumerate(blocks) if block.startswith("event: ping\n")]
    start = next(i for i, block in enumerate(blocks) if block.startswith("event: message_start\n"))
    assert len([i for i in pings if i < start]) >= 2
    assert len([i for i in pings if i > start]) >= 2
    assert {json.dumps(data_of(blocks[i])) for i in pings} == {'{"type": "ping"}'}
    assert blocks[-1].startswith("event: message_stop\n")
    assert not any(block.startswith(":") for block in blocks)


def test_a_responses_stream_gets_comments_in_both_gaps(gappy_stage: Stage) -> None:
    blocks = events(gappy_stage, "/v1/responses")
    comments = [i for i, block in enumerate(blocks) if block == COMMENT]
    first = next(i for i, block in enumerate(blocks) if block.startswith("event: "))
    assert len([i for i in comments if i < first]) >= 2
    assert len([i for i in comments if i > first]) >= 2
    numbers = [v["sequence_number"] for v in map(data_of, blocks) if v is not None]
    assert numbers == list(range(len(numbers)))  # nothing of ours is counted as the engine's


def test_each_keep_alive_is_counted(gappy_stage: Stage) -> None:
    def told() -> float:
        with gappy_stage.appliance.http() as http:
            lines = http.get("/metrics").text.splitlines()
        name = "appliance_keepalives_total"
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = told()
    blocks = events(gappy_stage, "/v1/completions")
    empty = [b for b in blocks if b == COMMENT or '"choices":[]' in b.replace(" ", "")]
    assert told() - before == len(empty)
