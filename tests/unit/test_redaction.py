"""What leaves the gate. The lines are vLLM 0.32's own: seen, or read in its logger calls."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.diagnosis import known_words
from appliance.redaction import HIDDEN, HIDDEN_LINE, RedactionGate, debug_switches, redact

MODEL = "/models/My Model"
API = "(APIServer pid=3169) "
CORE = "(EngineCore pid=16885) ERROR 11-23 01:27:27 [core.py:1512] "
STATS = (
    "Engine 000: Avg prompt throughput: 487.8 tokens/s, Avg generation throughput: 114.0 tokens/s,"
    " Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.4%, Prefix cache hit rate: 42.3%"
)


def serving_gate() -> RedactionGate:
    """A gate as it stands while requests are served."""
    gate = RedactionGate(known_paths=(MODEL, "/srv/engine"), known=known_words)
    gate.strict = True
    return gate


def passed(*lines: str) -> list[str]:
    gate = serving_gate()
    return [gate.pass_line(line) for line in lines]


# ---- always: keys

KEY = "s3cr3t-Key_0123456789abcdef"


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {KEY}",
        f"{{'authorization': 'Bearer {KEY}'}}",
        f"authorization=bearer {KEY}",
        f"curl -H 'x-api-key: {KEY}'",
        f"non-default args: {{'api_key': ['{KEY}'], 'port': 1}}",
        f"non-default args: {{'api_key': ['one', '{KEY}'], 'port': 1}}",
        f'{{"api_key": "{KEY}", "port": 1}}',
        f"VLLM_API_KEY={KEY}",
        f"--api-key={KEY}",
        f"password='two words {KEY}'",
        f"HF_TOKEN: {KEY}",
        f"login with hf_{KEY}",
        f"login with sk-{KEY}",
        f"https://user:{KEY}@example.org/model",
        f"https://{KEY}@example.org/model",
        f"token: '{KEY}",
        f"api key: {KEY}",
        f"tokens: hf_\x00{KEY}",
        f"\x1b[31mtoken\x1b[0m={KEY}",
    ],
)
def test_what_looks_like_a_key_is_hidden(line: str) -> None:
    shown = redact(line)
    assert KEY not in shown
    assert "(hidden)" in shown
    assert redact(shown) == shown


@given(st.text(max_size=20), st.text(max_size=20), st.text("abcXYZ012-_", min_size=16, max_size=40))
def test_a_known_secret_is_hidden_wherever_it_stands(before: str, after: str, key: str) -> None:
    assert key not in redact(f"{before}{key}{after}", (key,))


@pytest.mark.parametrize(
    "line",
    [
        "GPU KV cache size: 57,344 tokens, Maximum concurrency for 49,152 tokens per request: 1.2x",
        "Chunked prefill is enabled with max_num_batched_tokens=2048.",
        'INFO:     127.0.0.1:41536 - "POST /v1/chat/completions HTTP/1.1" 401 Unauthorized',
        "Loading safetensors checkpoint shards:  37% Completed | 9/24 [00:10<00:17,  1.1s/it]",
        "model hf-internal-testing/tiny",
    ],
)
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    assert redact(line) == line


def test_terminal_codes_are_taken_out() -> None:
    assert redact("\x1b[1;36mINFO\x1b[0m up\x1b[K") == "INFO up"


def test_an_empty_secret_hides_nothing() -> None:
    assert redact("plain", ("",)) == "plain"


def test_a_secret_that_begins_like_another_leaves_no_rest() -> None:
    assert redact("key-and-more", ("key", "key-and-more")) == "(hidden)"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("debug", [True, False])
def test_a_key_is_hidden_whatever_the_mode(strict: bool, debug: bool) -> None:
    gate = serving_gate()
    gate.secrets = (KEY,)
    gate.strict, gate.debug = strict, debug
    for line in (f"{CORE}with {KEY}", f"token={KEY}", f'INFO:     1 - "GET /{KEY} HTTP/1.1" 200'):
        assert KEY not in gate.pass_line(line)


# ---- while loading: all but keys

LOADING = [
    "W1123 04:15:09.076000 17687 torch/_library/triton.py:53] Triton not available",
    f"{API}INFO 11-23 04:15:09 [api_utils.py:286] non-default args: {{'model_tag': '/x/y z'}}",
    f"{API}INFO 11-23 04:15:09 [model.py:733] Resolved architecture: MiniMaxM2ForCausalLM",
    "(EngineCore pid=1) INFO 11-23 04:15:20 [core.py:133] Initializing a V1 LLM engine (v0.32.0) "
    "with config: model='/x', tokenizer='/x', tokenizer_mode=auto",
    "(Worker pid=2) INFO 11-23 04:15:33 [cpu_model_runner.py:68] Starting to load model /x/y...",
    "Loading safetensors checkpoint shards:  37% Completed | 9/24 [00:10<00:17,  1.1s/it]",
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  57%|█████▋    | 4/7 [00:01<00:01]",
    "(Worker pid=2) INFO 11-23 04:15:33 [default_loader.py:501] Loading weights took 0.02 seconds",
    f"{API}INFO 11-23 04:15:37 [launcher.py:195] Route: /v1/chat/completions, Methods: POST",
    "INFO:     Application startup complete.",
    "ValueError: There is no module or parameter named 'layers.0.strange' in MiniMaxM2Model.",
    "main.py: error: unrecognized arguments: --nosuch-flag 3",
    "FileNotFoundError: [Errno 2] No such file or directory: '/home/u/My Templates/x.jinja'",
]


@pytest.mark.parametrize("line", LOADING)
def test_a_line_of_the_loading_passes_unchanged(line: str) -> None:
    assert RedactionGate(known=known_words).pass_line(line) == line


def test_debugging_shows_the_lines_of_serving_too() -> None:
    gate = serving_gate()
    gate.debug = True
    assert gate.pass_line("any words at all") == "any words at all"


# ---- while serving: what is known to be the engine's own

SHOWN = [
    f"{API}INFO 11-23 02:39:39 [loggers.py:335] {STATS}",
    f"INFO 11-23 02:39:39 [loggers.py:335] {STATS}",
    "(EngineCore pid=1) INFO 11-23 02:39:27 [core.py:402] init engine (profile, create kv cache, "
    "warmup model) took 0.79 s",
    "(EngineCore pid=1) INFO 11-23 02:39:27 [core.py:1635] [shutdown] EngineCore: start mode=abort "
    "timeout=0s",
    f"{API}INFO 11-23 02:39:27 [core_client.py:770] [shutdown] MPClient: start timeout=5s",
    f"{API}INFO 11-23 02:39:27 [launcher.py:254] [shutdown] API server: shutdown triggered",
    "(EngineCore pid=1) INFO 11-23 02:39:27 [shm_broadcast.py:681] No available shared memory "
    "broadcast block found in 60 seconds. This typically happens when some processes are hanging "
    "or doing some time-consuming work (e.g. compilation, weight/kv cache quantization).",
    f"{CORE}EngineCore encountered a fatal error.",
    f"{CORE}Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
    "(Worker pid=2) INFO 11-23 04:15:33 [gpu_worker.py:759] Available KV cache memory: 12.5 GiB",
    "(Worker pid=2) INFO 11-23 04:15:33 [gpu_worker.py:759] sizes [1, 2, 4] and {3}",
    "(Worker pid=2) INFO 11-23 04:15:33 [gpu_worker.py:9] the model's cache at /srv/engine/x.bin",
    f"{API}INFO 11-23 04:15:37 [launcher.py:99] serving on http://127.0.0.1:35845",
    'INFO:     127.0.0.1:48040 - "GET /health HTTP/1.1" 200 OK',
    'INFO:     127.0.0.1:48040 - "POST /v1/chat/completions HTTP/1.1" 500 Internal Server Error',
    "INFO:     Started server process [17687]",
    "INFO:     Waiting for connections to close. (CTRL+C to force quit)",
    "ERROR:    Exception in ASGI application",
    "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 46.71it/s]",
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  57%|█████▋    | 4/7 [00:01<00:01]",
    "Traceback (most recent call last):",
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
    "Process EngineCore_DP0:",
    f"{API}INFO 11-23 04:15:09 [api_utils.py:347]",
    "",
]


@pytest.mark.parametrize("line", SHOWN)
def test_the_engines_own_words_pass_while_it_serves(line: str) -> None:
    assert passed(line) == [line]


AT = "(EngineCore pid=1) INFO 11-23 02:39:27 [gpu_worker.py:7] "
ERROR_AT = f"{API}ERROR 11-23 02:39:27 "
CUT = [
    # where somebody's text may begin, the rest of the message is hidden
    (f"{AT}saved to '/home/u/x' as 'it's'", f"{AT}saved to (hidden)"),
    (f'{AT}named "x y" twice', f"{AT}named (hidden)"),
    (f"{AT}keys {{'a': 1}} of it", f"{AT}keys (hidden)"),
    (f"{AT}tags ['a'] set", f"{AT}tags (hidden)"),
    (f"{AT}at /home/u/My Project/x.py now", f"{AT}at (hidden)"),
    (f"{AT}at ~/My Project/x.py now", f"{AT}at (hidden)"),
    (f"{AT}at C:\\Users\\My Project now", f"{AT}at (hidden)"),
    (f"{AT}at /srv/engine/../../home/u", f"{AT}at (hidden)"),
    (f"{AT}at /srv/engine/x y/z now", f"{AT}at /srv/engine/x (hidden)"),
    (f"{AT}at /srv/engine-of-another/x", f"{AT}at (hidden)"),
    (f"{AT}got https://example.org/x y", f"{AT}got (hidden)"),
    (f"{AT}got data:image/png;base64,AAAA x", f"{AT}got (hidden)"),
    (f"{AT}got file:///home/u/My Project", f"{AT}got (hidden)"),
    (f"{AT}http://127.0.0.1:80/v1 of x", f"{AT}http://127.0.0.1:80/v1 (hidden)"),
    (f"{AT}http://127.0.0.1.example.org/x", f"{AT}(hidden)"),
    (f"{AT}Request r-1 details: prompt: hello", f"{AT}Request r-1 details: prompt: (hidden)"),
    (f"{AT}with params: SamplingParams(n=1)", f"{AT}with params: (hidden)"),
    (f"{AT}Received request r-1: x", f"{AT}Received request (hidden)"),
    # what handles requests says where, and no more
    (
        f"{ERROR_AT}[granite_20b_fc_tool_parser.py:109] Error in extracting tool call from "
        "response rm -r My Project",
        f"{ERROR_AT}[granite_20b_fc_tool_parser.py:109] (hidden)",
    ),
    (
        f"{API}INFO 11-23 02:39:27 [request_logger.py:65] Received request r-1: params: "
        "SamplingParams(n=1), lora_request: None.",
        f"{API}INFO 11-23 02:39:27 [request_logger.py:65] (hidden)",
    ),
    (
        f"{ERROR_AT}[serving.py:274] Error with model error=ErrorInfo(message='The model `x` does "
        "not exist.')",
        f"{ERROR_AT}[serving.py:274] (hidden)",
    ),
    (
        f"{ERROR_AT}[async_llm.py:1] vllm.v1.engine.exceptions.EngineDeadError: EngineCore "
        "encountered an issue. See stack trace (above) for the root cause.",
        f"{ERROR_AT}[async_llm.py:1] EngineDeadError (hidden)",
    ),
    # uvicorn
    (
        'INFO:     127.0.0.1:1 - "GET /v1/files?name=My%20Project HTTP/1.1" 200 OK',
        'INFO:     127.0.0.1:1 - "GET /v1/files HTTP/1.1" 200 OK',
    ),
    (
        'INFO:     127.0.0.1:1 - "GET /v1/My%20Project HTTP/1.1" 404 Not Found',
        'INFO:     127.0.0.1:1 - "GET (hidden) HTTP/1.1" 404 Not Found',
    ),
    # the rest
    ("the user asked for the moon", HIDDEN_LINE),
    ("ValueError: no traceback before it", HIDDEN_LINE),
    ('  File "/usr/lib/python3.11/x.py", line 1, in y', HIDDEN_LINE),
    ("ptxas fatal   : Value 'sm_121a' is not defined", "ptxas fatal (hidden)"),
    ("Loading the user's thing: 50% Completed | 1/2 [00:01<00:01, 1s/it]", HIDDEN_LINE),
]


@pytest.mark.parametrize(("line", "shown"), CUT)
def test_somebodys_text_is_hidden_while_it_serves(line: str, shown: str) -> None:
    assert passed(line) == [shown]
    assert passed(shown) == [shown]


# ---- tracebacks

TRACEBACK = [
    ("Traceback (most recent call last):", None),
    ('  File "<frozen runpy>", line 198, in _run_module_as_main', None),
    ('  File "/srv/engine/lib/vllm/v1/engine/core.py", line 9, in run_busy_loop', None),
    ("    self._process_input_queue(x='y')", HIDDEN_LINE),
    ("    ^^^^^^^^^^^^~~~~", None),
    (
        '  File "/home/u/venv/lib/python3.11/site-packages/vllm/x.py", line 3, in <module>',
        '  File "(hidden)/site-packages/vllm/x.py", line 3, in <module>',
    ),
    ("    raise ValueError(prompt)", HIDDEN_LINE),
    ('  File "/home/u/My Project/plugin.py", line 3, in f', '  File "(hidden)", line 3'),
    ("    raise ValueError('my own words')", HIDDEN_LINE),
    ("  [Previous line repeated 3 more times]", None),
    ("ValueError: cannot render my own words", "ValueError: (hidden)"),
    ("and a second line of them", HIDDEN_LINE),
    ("Traceback (most recent call last):", HIDDEN_LINE),
    ('  File "/usr/lib/python3.11/x.py", line 3, in f', HIDDEN_LINE),
    ("    my own words", HIDDEN_LINE),
    ("", None),
    ("During handling of the above exception, another exception occurred:", None),
    ("", None),
    ("Traceback (most recent call last):", None),
    ('  File "/usr/lib/python3.11/x.py", line 3, in f', None),
    ("    g()", HIDDEN_LINE),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. my own words",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (hidden)",
    ),
]
PYDANTIC = [
    ("Traceback (most recent call last):", None),
    ('  File "/usr/lib/python3.11/x.py", line 3, in f', None),
    (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for M",
        "pydantic_core._pydantic_core.ValidationError: (hidden)",
    ),
    ("messages.0.content", HIDDEN_LINE),
    ("  Input should be [type=string_type, input_value=['my'], input_type=list]", HIDDEN_LINE),
]
GROUP = [
    ("  + Exception Group Traceback (most recent call last):", None),
    ('  |   File "/usr/lib/python3.11/x.py", line 3, in f', None),
    ("  |     g()", HIDDEN_LINE),
    ("  | ExceptionGroup: my words (1 sub-exception)", "  | ExceptionGroup: (hidden)"),
    ("  +-+---------------- 1 ----------------", None),
    ("    | Traceback (most recent call last):", None),
    ('    |   File "/usr/lib/python3.11/x.py", line 3, in f', None),
    ('    |   File "/home/u/x.py", line 3, in f', '    |   File "(hidden)", line 3'),
    ("    | KeyError: 'my words'", "    | KeyError: (hidden)"),
    ("    +------------------------------------", None),
]


@pytest.mark.parametrize("told", [TRACEBACK, PYDANTIC, GROUP])
def test_a_traceback_keeps_its_bones(told: list[tuple[str, str | None]]) -> None:
    shown = passed(*(line for line, _ in told))
    assert shown == [line if kept is None else kept for line, kept in told]
    assert passed(*shown) == shown


@pytest.mark.parametrize("told", [TRACEBACK, PYDANTIC, GROUP])
@pytest.mark.parametrize("tag", [CORE, "(EngineCore_DP0 pid=12) "])
def test_a_traceback_under_a_header_keeps_its_bones(
    told: list[tuple[str, str | None]], tag: str
) -> None:
    hidden = HIDDEN if tag is CORE else HIDDEN_LINE
    shown = passed(*(f"{tag}{line}" for line, _ in told))
    kept = [line if kept is None else kept for line, kept in told]
    assert shown == [f"{tag}{hidden if line == HIDDEN_LINE else line}" for line in kept]
    assert passed(*shown) == shown


def test_two_processes_tell_their_tracebacks_at_once() -> None:
    other = "(Worker pid=7) ERROR 11-23 01:27:27 [multiproc_executor.py:959] "
    lines = [
        f"{CORE}Traceback (most recent call last):",
        f"{other}Traceback (most recent call last):",
        f'{CORE}  File "/usr/lib/x.py", line 1, in f',
        f'{other}  File "/home/u/x.py", line 1, in f',
        f"{CORE}    theirs()",
        f"{other}    my_own_words()",
    ]
    assert passed(*lines)[2:] == [
        lines[2],
        f'{other}  File "(hidden)", line 1',
        f"{CORE}{HIDDEN}",
        f"{other}{HIDDEN}",
    ]


def test_a_traceback_of_unknown_files_printed_raw_may_be_somebodys_and_keeps_no_name() -> None:
    told = [
        "Traceback (most recent call last):",
        '  File "/home/User/My Project/secret.py", line 3, in my_words',
        "MyWordsError: more of my words",
    ]
    assert passed(*told) == [told[0], '  File "(hidden)", line 3', HIDDEN_LINE]


def test_a_crash_after_another_is_told_once_a_line_stood_between_them() -> None:
    frame = '  File "/usr/lib/python3.11/x.py", line 3, in f'
    crash = ["Traceback (most recent call last):", frame, "ValueError: (hidden)"]
    between = "INFO:     Shutting down"
    assert passed(*crash, between, *crash) == [*crash, between, *crash]


def test_many_writers_are_forgotten_in_turn() -> None:
    frame = f'{CORE}  File "/usr/lib/x.py", line 1, in f'
    others = [f"(Worker pid={n}) ERROR 11-23 01:27:27 [core.py:9] up" for n in range(500)]
    shown = passed(f"{CORE}Traceback (most recent call last):", frame, *others, frame)
    assert shown[1] == frame
    assert shown[2:-1] == others
    assert shown[-1] != frame


def test_the_rest_of_a_hidden_message_is_hidden_with_it() -> None:
    shown = passed(
        f"{AT}with prompt: one", f"{AT}two three", f"{AT}Traceback (most recent call last):"
    )
    assert shown == [f"{AT}with prompt: (hidden)", f"{AT}(hidden)", f"{AT}(hidden)"]


# ---- the law: a mark in what a client sent, or the model wrote, never comes out

MARK = "cAnArY7"
SCRAPS = [
    *("'", '"', "`", "{", "}", "[", "]", "(", ")", "\\", " ", "\n", ": ", "= ", ", ", "/", "?"),
    *("it's ", 'say "hi" ', "/home/u/My Project/", "data:image/png;base64,", "http://127.0.0.1/"),
    *("prompt: ", "[1, 2]", "out of memory ", "ValueError: ", "    ", "/usr/lib/python3/", "~/"),
    "Traceback (most recent call last):",
    '\n  File "/usr/lib/python3.11/x.py", line 3, in run\n    ',
    "\nsite-packages/",
]
# nothing here makes a name that a frame could bear: its file and function are shown
SOUP = st.lists(st.sampled_from(SCRAPS) | st.text(max_size=6), max_size=8).map("".join)
TEXT = st.tuples(SOUP, SOUP).map(lambda ends: f"{ends[0]} {MARK} {ends[1]}")

# read in the logger calls of vllm: what interpolates a request's or the model's text
CALLS = [
    ("request_logger.py:52", "Request r-1 details: prompt: {!r}, prompt_token_ids: [1], x."),
    ("request_logger.py:65", "Received request r-1: params: SamplingParams(stop=[{!r}]), lora."),
    ("request_logger.py:74", "Request r-1 JSON body: {json}"),
    ("request_logger.py:108", "Generated response r-1: output: {!r}, finish_reason: stop"),
    ("log_response.py:141", "response_body={{{}}}"),
    ("granite_20b_fc_tool_parser.py:109", "Error in extracting tool call from response {}"),
    ("poolside_v1_tool_parser.py:204", "Failed to parse tool call details from: {}"),
    ("hy_v3_tool_parser.py:97", "No tool named '{}'."),
    ("utils.py:530", "Non-JSON-representable constant in tool call arguments: {}"),
    ("backend_guidance.py:231", "LLMatcher error: {}"),
    ("async_llm.py:795", "Request r-1 failed (bad request): {}."),
    ("hf.py:839", "Chat template rejected the request: {}"),
    ("harmony.py:279", "Invalid JSON in browser tool call, using error placeholder: {json}"),
    ("api_router.py:75", "Error in create_messages: {}"),
    ("chat_utils.py:1931", "Skipping multimodal part '{}' (type: '{}') with empty content."),
    ("serving.py:274", "Error with model error=ErrorInfo(message='The model `{}` does not exist.'"),
    ("dump_input.py:76", "Dumping scheduler output for model execution: SchedulerOutput('{}')"),
    # modules whose messages pass, if they ever quoted one
    ("core.py:99", "Request details: prompt: {}"),
    ("core.py:99", "got {!r} for it"),
    ("core.py:99", "got '{}' for it"),
    ("core.py:99", "got {json} for it"),
    ("gpu_worker.py:99", "saved to /home/u/{} now"),
    ("gpu_worker.py:99", "fetched https://example.org/{} now"),
    ("gpu_worker.py:99", "fetched data:image/png;base64,{} now"),
]


def record(header: str, message: str) -> list[str]:
    """A record as vLLM's formatter writes it: the header on each line."""
    return [f"{header}{line}" for line in message.split("\n")]


def no_mark(lines: list[str]) -> None:
    gate = serving_gate()
    for line in lines:
        assert MARK not in gate.pass_line(line)


@given(st.sampled_from(CALLS), TEXT)
def test_no_record_of_the_engine_tells_a_requests_text(call: tuple[str, str], text: str) -> None:
    place, template = call
    message = template.format(*[text] * template.count("{"), json=json.dumps({"path": text}))
    if "'{}'" in template or "/{}" in template:
        message = message.replace("\n", " ")  # a file's name, a tool's name
    no_mark(record(f"{API}WARNING 11-23 02:39:27 [{place}] ", message))


@given(
    st.sampled_from(
        [
            "ValueError: {}",
            "KeyError: {!r}",
            "jinja2.exceptions.TemplateError: {}",
            "vllm.exceptions.VLLMValidationError: The image {} is broken",
            "torch.OutOfMemoryError: CUDA out of memory. {}",
            "RuntimeError: CUDA error: {}",
            "ValueError: [FP4 gemm Runner] Failed {}",
        ]
    ),
    TEXT,
    st.sampled_from(["", CORE, "(EngineCore pid=12) ", f"{ERROR_AT}[serving.py:203] "]),
)
def test_no_exception_tells_a_requests_text(kind: str, text: str, header: str) -> None:
    said = (
        f'Traceback (most recent call last):\n  File "/usr/lib/x.py", line 1, in f\n    g()\n{kind}'
    )
    no_mark(record(header, said.replace("{!r}", "{0!r}").format(text)))


@given(TEXT)
def test_no_other_line_tells_anything(text: str) -> None:
    no_mark([text.replace("\n", " "), f"print {text}".replace("\n", " ")])


@given(TEXT)
def test_no_access_line_tells_a_query_or_a_name(text: str) -> None:
    quoted = text.replace("\n", " ")
    for target in (f"/v1/files?name={quoted}", f"/v1/files/{quoted}", f"/v1/files#{quoted}"):
        no_mark([f'INFO:     127.0.0.1:1 - "GET {target} HTTP/1.1" 200 OK'])


@given(
    st.lists(
        st.sampled_from([line for line, _ in TRACEBACK + PYDANTIC + GROUP] + SHOWN)
        | st.sampled_from([line for line, _ in CUT])
        | st.sampled_from([f"{CORE}{line}" for line, _ in TRACEBACK])
        | TEXT.map(lambda text: text.replace("\n", " ")),
        max_size=12,
    )
)
@example(["Traceback (most recent call last):", "  | ExceptionGroup: my words (1 sub-exception)"])
def test_what_passed_the_gate_passes_it_unchanged(lines: list[str]) -> None:
    shown = passed(*lines)
    assert passed(*shown) == shown


@given(st.text(max_size=60), st.booleans())
def test_a_line_stays_one_line(text: str, strict: bool) -> None:
    gate = serving_gate()
    gate.strict = strict
    assert "\n" not in gate.pass_line(text)


# ---- switches that undo all this


@pytest.mark.parametrize(
    "argv",
    [
        ["--enable-log-requests"],
        ["--enable_log_requests"],
        ["--enable-log-req"],
        ["--enable-log-outputs"],
        ["--enable-log-deltas"],
        ["--max-log-len", "5"],
        ["--max-log-len=5"],
        ["--max_log_le=5"],
        ["--log-error-stack"],
        ["--log-config-file", "/x.json"],
        ["--logging-config", "{}"],
        ["--logging-config.log_level", "DEBUG"],
        ["--log-level", "DEBUG"],
        ["--log_level=notset"],
        ["--uvicorn-log-level", "trace"],
    ],
)
def test_a_flag_that_logs_prompts_is_named_as_it_was_typed(argv: list[str]) -> None:
    typed = argv[0].partition("=")[0]
    assert debug_switches(["vllm", "serve", "/m", *argv, "--port", "1"], {}) == (typed,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_LOGGING_LEVEL", "DEBUG"),
        ("VLLM_LOGGING_LEVEL", "debug "),
        ("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "true"),
        ("VLLM_TRACE_FUNCTION", "1"),
        ("VLLM_LOGGING_CONFIG_PATH", "/x.json"),
        ("VLLM_SERVER_DEV_MODE", "1"),
    ],
)
def test_a_variable_that_logs_prompts_is_named(name: str, value: str) -> None:
    assert debug_switches([], {name: value, "HOME": "/root"}) == (name,)


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        ([], {}),
        (["serve", "/m", "--no-enable-log-requests", "--disable-log-stats", "--"], {}),
        (["--enable-prefix-caching", "--max-num-seqs", "4", "--max-model-len", "9"], {}),
        (["--log-level", "INFO", "--uvicorn-log-level=warning"], {}),
        (["--served-model-name", "max-log-len"], {}),
        (["--log-level"], {}),
        ([], {"VLLM_LOGGING_LEVEL": "INFO", "VLLM_TRACE_FUNCTION": "0"}),
        ([], {"VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "False", "VLLM_LOGGING_CONFIG_PATH": ""}),
    ],
)
def test_an_ordinary_command_has_no_such_switch(argv: list[str], env: dict[str, str]) -> None:
    assert debug_switches(argv, env) == ()


def test_each_switch_is_named_once_flags_first() -> None:
    argv = ["--max-log-len", "5", "--max-log-len=6", "--enable-log-requests"]
    found = debug_switches(argv, {"VLLM_TRACE_FUNCTION": "1"})
    assert found == ("--max-log-len", "--enable-log-requests", "VLLM_TRACE_FUNCTION")
