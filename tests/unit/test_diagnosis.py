"""From last lines to a cause. The lines are vLLM 0.32's own: seen, or read in its source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.diagnosis import CAUSES, diagnose_exit, redact

WORKER = "(Worker pid=17010) ERROR 11-23 01:27:23 [multiproc_executor.py:953] "
CORE = "(EngineCore pid=16885) ERROR 11-23 01:27:27 [core.py:1510] "
POINTERS = [
    f"{CORE}Exception: WorkerProc initialization failed due to an exception in a background "
    "process. See stack trace for root cause.",
    "    raise RuntimeError(",
    "RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {}",
]
FREE = "Free memory on device cuda:0 (98.12/121.69 GiB) on startup is less than"
KV = "To serve at least one request with the model's max seq len (49152), (5.88 GiB KV cache is"

SAID = [
    # seen: vLLM 0.32 on a CPU, 2026-11-23
    ("engine_port_taken", "OSError: [Errno 98] Address already in use"),
    ("bad_parser", "KeyError: 'invalid tool call parser: nosuch (chose from { glm45,hermes })'"),
    (
        "bad_parser",
        "KeyError: \"Reasoning parser 'nosuch' not found. Available parsers: glm45, qwen3\"",
    ),
    ("bad_engine_flag", "main.py: error: unrecognized arguments: --nosuch-flag 3"),
    (
        "bad_engine_flag",
        "main.py serve: error: argument --moe-backend: invalid choice: 'nosuch' (choose from 'a')",
    ),
    (
        "bad_engine_flag",
        "main.py serve: error: argument --max-num-seqs: invalid int value: 'abc'",
    ),
    (
        "bad_checkpoint",
        f"{WORKER}safetensors._safetensors_rust.SafetensorError: Error while deserializing header: "
        "invalid header length",
    ),
    (
        "bad_checkpoint",
        f"{WORKER}ValueError: There is no module or parameter named 'layers.0.strange' in "
        "MiniMaxM2Model. The available parameters belonging to layers.0 are: {}",
    ),
    (
        "context_too_long",
        "  Value error, User-specified max_model_len (10000000) is greater than the derived "
        "max_model_len (max_position_embeddings=131072.0 or model_max_length=None in model's "
        "config.json).",
    ),
    # read: vllm/v1/worker/utils.py, vllm/v1/worker/cpu_worker.py
    (
        "memory_short",
        f"{CORE}ValueError: {FREE} desired GPU memory utilization (0.88, 107.09 GiB). Decrease "
        "GPU memory utilization or reduce GPU memory used by other processes.",
    ),
    (
        "memory_short",
        f"{CORE}ValueError: {FREE} the engine's budget after excluding external process's weights "
        "(0.88, 107.09 GiB).",
    ),
    (
        "memory_short",
        f"{CORE}ValueError: Available memory on node 0 (0.5/8.96 GiB) on kv cache allocation is "
        "less than requested memory for kv (4.0/4.48 GiB).",
    ),
    # read: vllm/v1/core/kv_cache_utils.py
    ("kv_cache_short", f"{CORE}ValueError: No available memory for the cache blocks. Try incr"),
    (
        "kv_cache_short",
        f"{CORE}ValueError: {KV} needed, which is larger than the available KV cache memory "
        "(2.91 GiB). Based on the available memory, the estimated maximum model length is 24320.",
    ),
    # read: vllm/entrypoints/launchers/launcher.py, vllm/parser/parser_manager.py
    ("bad_parser", "KeyError: 'invalid reasoning parser: nosuch (chose from { glm45,qwen3 })'"),
    ("bad_parser", "TypeError: reasoning_parser_name='nosuch' has not been registered"),
    ("bad_parser", "KeyError: \"Tool parser 'nosuch' not found.\""),
    # read: vllm/model_executor
    (
        "bad_checkpoint",
        f"{WORKER}ValueError: Following weights were not initialized from checkpoint: {{'a.b'}}",
    ),
    (
        "model_not_supported",
        "ValueError: Model architectures ['NoSuchForCausalLM'] are not supported for now. "
        "Supported architectures: dict_keys([])",
    ),
    ("model_not_supported", "  Value error, Unknown quantization method: nosuch. Must be one of"),
    # read: vllm/config/device.py; PyTorch's own words
    ("cuda_missing", "RuntimeError: Failed to infer device type, please set the environment var"),
    ("cuda_missing", f"{WORKER}RuntimeError: No CUDA GPUs are available"),
    (
        "out_of_memory",
        f"{WORKER}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    ),
    ("out_of_memory", f"{WORKER}OSError: [Errno 12] Cannot allocate memory"),
    ("out_of_memory", "NVRM: nvCheckOkFailedNoLog: Check failed: Out of memory [NV_ERR_NO_MEMORY]"),
    ("import_failed", "ModuleNotFoundError: No module named 'vllm'"),
    ("import_failed", "ImportError: libcudart.so.13: cannot open shared object file"),
]


@pytest.mark.parametrize(("code", "line"), SAID)
def test_what_the_engine_says_is_understood(code: str, line: str) -> None:
    reason = diagnose_exit(1, ["INFO earlier", line, *POINTERS], was_ready=False)
    assert reason.code == code
    assert line.strip()[:200] in reason.what
    assert reason.hint


def test_every_cause_is_shown_by_a_line() -> None:
    assert {code for code, _ in SAID} == {cause.code for cause in CAUSES}


@pytest.mark.parametrize(
    "line",
    [
        "(APIServer pid=1) WARNING 11-23 01:09:57 [interface.py:371] Failed to import from "
        "vllm._C: ImportError('libcudart.so.12: cannot open shared object file')",
        "(EngineCore pid=2) WARNING 11-23 01:09:57 [parallel.py:746] Address already in use. "
        "Retrying with a new port. [Errno 98]",
        "(Worker pid=3) WARNING 11-23 01:09:57 [weight_utils.py:1151] prefetch (9 GiB). This may "
        "cause out of memory errors.",
    ],
)
def test_a_warning_is_no_cause_of_death(line: str) -> None:
    reason = diagnose_exit(-9, [line, "Killed"], was_ready=False)
    assert reason.code == "engine_died_loading"


def test_the_particular_goes_before_the_general() -> None:
    lines = ["ImportError: while handling", f"ValueError: {FREE} desired", "out of memory"]
    assert diagnose_exit(1, lines, was_ready=False).code == "memory_short"


def test_of_several_lines_of_one_cause_the_last_is_shown() -> None:
    lines = ["ImportError: first", "ImportError: second"]
    assert diagnose_exit(1, lines, was_ready=False).what.endswith("It said: ImportError: second")


@pytest.mark.parametrize(
    ("returncode", "how"), [(0, "exit code 0"), (1, "exit code 1"), (-9, "signal 9")]
)
def test_an_exit_code_is_told_from_a_signal(returncode: int, how: str) -> None:
    reason = diagnose_exit(returncode, ["bye"], was_ready=True)
    assert f"while serving ({how})" in reason.what


@pytest.mark.parametrize(
    ("was_ready", "code"), [(True, "engine_died"), (False, "engine_died_loading")]
)
def test_an_unknown_end_is_named_by_when_it_came(was_ready: bool, code: str) -> None:
    assert diagnose_exit(1, ["bye"], was_ready=was_ready).code == code


def test_an_unknown_end_shows_the_exception_and_not_who_points_at_it() -> None:
    cause = f"{WORKER}RuntimeError: start (0) + length (128) exceeds dimension size (3)."
    warning = "  warnings.warn('resource_tracker: There appear to be %d '"
    reason = diagnose_exit(1, [cause, *POINTERS, warning], was_ready=False)
    assert cause in reason.what


def test_an_unknown_end_without_an_exception_shows_the_last_line() -> None:
    assert diagnose_exit(0, ["one", "two"], was_ready=True).what.endswith("It said: two")


def test_an_end_without_a_word_is_said_to_be_one() -> None:
    assert "nothing" in diagnose_exit(-11, [], was_ready=False).what


def test_a_long_line_is_clipped() -> None:
    what = diagnose_exit(1, ["ImportError: " + "x" * 5000], was_ready=False).what
    assert len(what) < 500
    assert what.endswith("x…")


# ---- redaction

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
        f"\x1b[31mtoken\x1b[0m={KEY}",
    ],
)
def test_what_looks_like_a_key_is_hidden(line: str) -> None:
    shown = redact(line)
    assert KEY not in shown
    assert "(hidden)" in shown


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
