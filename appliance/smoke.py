"""The smoke checks: what must hold for a coding agent to work against this server.

Each check is one function that returns a detail for people, or raises CheckFailed. They run in
order against any appliance, over its public API alone.
"""

import json
import ssl
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import httpx

from appliance import probes
from appliance.openai import INJECTION_HEADER

TIMEOUT_S = 300.0
FREE_WITHIN_S = 2.0  # after a hang-up, until the engine's counts are back


class CheckFailed(Exception):
    """What was expected, and what came instead."""


@dataclass(frozen=True)
class Result:
    """One check's verdict. ``seconds`` is its own time."""

    name: str
    passed: bool
    seconds: float
    detail: str


class Client:
    """A small OpenAI client over one appliance."""

    def __init__(self, base_url: str, key: str, expect_glitch: bool, trust: ssl.SSLContext) -> None:
        self.base_url = base_url
        self.expect_glitch = expect_glitch
        self.model = ""
        headers = {"authorization": f"Bearer {key}"}
        self.http = httpx.Client(
            base_url=base_url, headers=headers, timeout=TIMEOUT_S, trust_env=False, verify=trust
        )

    def get(self, path: str) -> httpx.Response:
        """Return the reply to a GET."""
        return self.http.get(path)

    def body(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return a greedy chat request."""
        base = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 2048}
        return {**base, **more}

    def chat(self, question: str, *, injected: bool = True, **more: Any) -> dict[str, Any]:
        """Return the whole reply to one question."""
        return self.chat_messages([probes.user(question)], injected=injected, **more)

    def chat_messages(
        self, messages: list[dict[str, Any]], *, injected: bool = True, **more: Any
    ) -> dict[str, Any]:
        """Return the whole reply to a conversation. Raises CheckFailed unless 200."""
        headers = {INJECTION_HEADER: "on" if injected else "off"}
        body = self.body(messages, **more)
        response = self.http.post("/v1/chat/completions", json=body, headers=headers)
        expect(response.status_code == 200, f"status {response.status_code}: {response.text[:200]}")
        reply: dict[str, Any] = response.json()
        return reply

    def stream(self, question: str, **more: Any) -> Generator[dict[str, Any] | str, None, None]:
        """Yield each event's data: parsed, or the text ``[DONE]``. Leaving early hangs up."""
        body = self.body([probes.user(question)], stream=True, **more)
        with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            expect(response.status_code == 200, f"status {response.status_code}")
            for line in response.iter_lines():
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    yield data if data == "[DONE]" else json.loads(data)


def expect(holds: bool, otherwise: str) -> None:
    """Raise CheckFailed with ``otherwise`` unless ``holds``."""
    if not holds:
        raise CheckFailed(otherwise)


def _message(reply: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = reply["choices"][0]["message"]
    return message


THINKING_OFF: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}


def check_live(client: Client) -> str:
    """The appliance itself answers."""
    response = client.get("/health/live")
    expect(response.status_code == 200, f"status {response.status_code}")
    return "200"


def check_ready(client: Client) -> str:
    """The engine is ready, and its warm-up answer was right."""
    response = client.get("/health")
    health = response.json()
    state = f"{health['state']}, reason {health['reason']}"
    expect(response.status_code == 200, f"status {response.status_code}: {state}")
    expect(not health["degraded"], f"ready, but degraded: {', '.join(health['degraded'])}")
    return f"ready since {health['since']}"


def check_models(client: Client) -> str:
    """One model is served; the other checks ask for it by this name."""
    data = client.get("/v1/models").json()["data"]
    expect(len(data) > 0, "the list is empty")
    client.model = data[0]["id"]
    return f"{client.model}, context {data[0].get('max_model_len')}"


def check_chat(client: Client) -> str:
    """A question gets an answer."""
    content = _message(client.chat(probes.GREETING))["content"] or ""
    expect(bool(content.strip()), "the answer is empty")
    return content.strip()[:60]


def check_stream_order(client: Client) -> str:
    """Role, reasoning, content, finish, usage, [DONE]: each once its turn has come."""
    rank = {"role": 0, "reasoning": 1, "content": 2, "finish": 3, "usage": 4, "[DONE]": 5}
    seen: list[str] = []
    for event in client.stream(probes.GREETING, stream_options={"include_usage": True}):
        kinds = [event] if isinstance(event, str) else _kinds(event)
        for kind in kinds:
            if not seen or seen[-1] != kind:
                seen.append(kind)
    expect(seen == sorted(seen, key=rank.__getitem__), f"out of order: {' '.join(seen)}")
    expect(seen[-1] == "[DONE]", f"no [DONE] at the end: {' '.join(seen)}")
    missing = {"content", "finish", "usage"} - set(seen)
    expect(not missing, f"missing: {', '.join(sorted(missing))}")
    return " ".join(seen)


def _kinds(event: dict[str, Any]) -> list[str]:
    kinds = []
    for choice in event.get("choices", []):
        delta = choice.get("delta", {})
        if delta.get("role") and not (delta.get("content") or delta.get("reasoning")):
            kinds.append("role")
        kinds += [name for name in ("reasoning", "content") if delta.get(name)]
        if choice.get("finish_reason"):
            kinds.append("finish")
    return kinds or (["usage"] if event.get("usage") else [])


def check_reasoning(client: Client) -> str:
    """Reasoning comes apart from content, under both names, without tags."""
    message = _message(client.chat(probes.GREETING))
    reasoning = message.get("reasoning") or ""
    expect(bool(reasoning), "no reasoning")
    expect(reasoning == message.get("reasoning_content"), "reasoning_content differs")
    for name in ("reasoning", "content"):
        expect("think>" not in message[name], f"a think tag is in {name}: {message[name][:80]!r}")
    return f"{len(reasoning)} characters, under both names"


def check_thinking_off(client: Client) -> str:
    """With enable_thinking false all is content."""
    message = _message(client.chat(probes.GREETING, **THINKING_OFF))
    expect(not message.get("reasoning"), f"reasoning came: {message['reasoning']!r}")
    expect(bool(message["content"]), "the answer is empty")
    return "plain content"


def check_tool_call(client: Client) -> str:
    """A tool call carries the exact path, spaces and capitals included."""
    message = _message(client.chat(probes.TOOL_QUESTION, tools=[probes.READ_FILE]))
    calls = message.get("tool_calls") or []
    expect(len(calls) == 1, f"{len(calls)} tool calls; content {message.get('content')!r}")
    arguments = json.loads(calls[0]["function"]["arguments"])
    expect(arguments == {"path": probes.TOOL_PATH}, f"arguments {arguments}")
    return probes.TOOL_PATH


def check_tool_round_trip(client: Client) -> str:
    """The call and its result go back, reasoning included, and an answer comes."""
    asked = probes.user(probes.TOOL_QUESTION)
    call = _message(client.chat_messages([asked], tools=[probes.READ_FILE]))
    calls = call.get("tool_calls") or []
    expect(len(calls) == 1, f"{len(calls)} tool calls")
    assistant = {
        "role": "assistant",
        "content": call.get("content") or "",
        "reasoning_content": call.get("reasoning_content"),
        "tool_calls": calls,
    }
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": probes.TOOL_RESULT}
    reply = client.chat_messages([asked, assistant, result], tools=[probes.READ_FILE])
    content = _message(reply)["content"] or ""
    expect(bool(content.strip()), "the answer is empty")
    return content.strip()[:60]


def check_prompt(client: Client) -> str:
    """The path-preservation prompt reaches the model, and the path comes back exact."""
    on = client.chat(probes.PATH_QUESTION, **THINKING_OFF)
    off = client.chat(probes.PATH_QUESTION, injected=False, **THINKING_OFF)
    more = on["usage"]["prompt_tokens"] - off["usage"]["prompt_tokens"]
    expect(more > 0, "the prompt is no longer with injection than without")
    answer = (_message(on)["content"] or "").strip()
    expect(answer == probes.PATH, f"with the prompt it answered {answer!r}")
    return f"exact; {more} prompt tokens more"


def check_prompt_off(client: Client) -> str:
    """The same question without the prompt: what the model does on its own."""
    reply = client.chat(probes.PATH_QUESTION, injected=False, **THINKING_OFF)
    answer = (_message(reply)["content"] or "").strip()
    if answer == probes.PATH:
        expect(not client.expect_glitch, "the demo model should glitch here, and did not")
        return "exact too: this model did not need the prompt here"
    return f"glitched: {answer[:70]}"


def check_hang_up(client: Client) -> str:
    """A client that leaves in mid-stream frees the engine."""
    before = _engine_load(client)
    stream = client.stream(probes.COUNT_QUESTION, ignore_eos=True, max_tokens=4096)
    for _ in range(3):
        next(stream)
    busy = _engine_load(client)
    expect(busy > before, "the engine's count did not rise with a request")
    stream.close()
    left_at = time.monotonic()
    while (load := _engine_load(client)) > before:
        waited = time.monotonic() - left_at
        expect(waited < FREE_WITHIN_S, f"{load:.0f} requests still run after {waited:.1f} s")
        time.sleep(0.05)
    return f"free after {(time.monotonic() - left_at) * 1000:.0f} ms"


def _engine_load(client: Client) -> float:
    text = client.get("/metrics").text
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting{")
    rows = [line for line in text.splitlines() if line.startswith(names)]
    expect(bool(rows), "the engine's request counts are not in /metrics")
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


def check_metrics(client: Client) -> str:
    """Ours and the engine's metrics are there, no family twice."""
    text = client.get("/metrics").text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    twice = {name for name in families if families.count(name) > 1}
    expect(not twice, f"families twice: {', '.join(sorted(twice))}")
    for prefix in ("appliance_", "vllm:"):
        expect(any(name.startswith(prefix) for name in families), f"no {prefix} metrics")
    return f"{len(families)} families"


def check_error(client: Client) -> str:
    """A wrong request gets an error that clients can read."""
    body = {"model": "no-such-model", "messages": [probes.user("x")]}
    response = client.http.post("/v1/chat/completions", json=body)
    expect(response.status_code == 404, f"status {response.status_code}, not 404")
    error = response.json().get("error", {})
    expect(error.get("code") == "model_not_found", f"error {error}")
    return "404 model_not_found"


CHECKS: tuple[tuple[str, Callable[[Client], str]], ...] = (
    ("live", check_live),
    ("ready", check_ready),
    ("models", check_models),
    ("chat", check_chat),
    ("stream order", check_stream_order),
    ("reasoning split", check_reasoning),
    ("thinking off", check_thinking_off),
    ("tool call exact path", check_tool_call),
    ("tool round trip", check_tool_round_trip),
    ("prompt injected", check_prompt),
    ("path without the prompt", check_prompt_off),
    ("hang-up frees the engine", check_hang_up),
    ("metrics present", check_metrics),
    ("error envelope", check_error),
)


def run_smoke(
    base_url: str,
    key: str,
    *,
    expect_glitch: bool,
    trust: ssl.SSLContext,
    tell: Callable[[Result], None],
) -> bool:
    """Run every check, tell each result as it comes; True if all passed.

    ``expect_glitch`` is for the demo's model, which is trained to glitch without the prompt.
    """
    client = Client(base_url, key, expect_glitch, trust)
    passed = True
    with client.http:
        for name, check in CHECKS:
            result = _run(client, name, check)
            passed = passed and result.passed
            tell(result)
    return passed


def _run(client: Client, name: str, check: Callable[[Client], str]) -> Result:
    started = time.monotonic()
    try:
        detail, passed = check(client), True
    except CheckFailed as cause:
        detail, passed = str(cause), False
    except (httpx.HTTPError, json.JSONDecodeError, LookupError, TypeError, StopIteration) as cause:
        detail, passed = f"{type(cause).__name__}: {cause}", False
    return Result(name, passed, time.monotonic() - started, detail)
