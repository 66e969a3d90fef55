"""From last lines to a cause. The lines are vLLM 0.32's own: seen, or read in its source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.diagnosis import CAUSES, diagnose_exit, known_words
from appliance.redaction import RedactionGate
from appliance.restart import Grade

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
    ("out_of_memory", f"{CORE}RuntimeError: CUDA error: out of memory"),
    ("out_of_memory", "terminate called after throwing an instance of 'std::bad_alloc'"),
    # read: vllm/reasoning/basic_parsers.py, transformers
    (
        "bad_tokenizer",
        "RuntimeError: MiniMaxM2ReasoningParser reasoning parser could not locate think start/end "
        "tokens in the tokenizer!",
    ),
    (
        "bad_tokenizer",
        "OSError: Can't load tokenizer for '/models/m2'. If you were trying to load it from",
    ),
    ("bad_tokenizer", "ValueError: Couldn't instantiate the backend tokenizer from one of: "),
    (
        "bad_tokenizer",
        "Exception: data did not match any variant of untagged enum ModelWrapper at line 3 "
        "column 1",
    ),
    # read: vllm/renderers/chat_utils.py, weight_utils.py; transformers
    (
        "engine_file_missing",
        "FileNotFoundError: the supplied chat template path doesn't exist",
    ),
    (
        "engine_file_missing",
        "vllm.exceptions.VLLMValidationError: The supplied chat template (/x/t.jinja) looks like a "
        "file path, but it failed to be opened. Tried: /x/t.jinja and /y. Reason: [Errno 2]",
    ),
    (
        "engine_file_missing",
        "(APIServer pid=1) ERROR 11-23 01:27:27 [import_utils.py:96] FileNotFoundError: [Errno 2] "
        "No such file or directory: '/x/plugin.py'",
    ),
    (
        "engine_file_missing",
        "OSError: /models/m2 does not appear to have a file named pytorch_model.bin or "
        "model.safetensors.",
    ),
    (
        "engine_file_missing",
        f"{WORKER}FileNotFoundError: Weight files referenced in index but missing: {{'a.st'}}",
    ),
    ("bad_engine_flag", "TypeError: Error: --enable-log-outputs requires --enable-log-requests"),
    # read: vllm/model_executor/model_loader/weight_utils.py
    (
        "bad_checkpoint",
        f"{WORKER}AssertionError: Attempted to load weight (torch.Size([640, 128])) into "
        "parameter (torch.Size([581, 128]))",
    ),
    # read: vllm/config/model.py, vllm.py
    (
        "model_not_supported",
        "  Value error, Quantization method specified in the model config (modelopt_fp4) does not "
        "match the quantization method specified in the `quantization` argument (fp8).",
    ),
    (
        "model_not_supported",
        "ValueError: torch.float32 is not supported for quantization method modelopt_fp4. "
        "Supported dtypes: [torch.bfloat16]",
    ),
    # seen in public reports, of boxes that are not here: expected
    (
        "kernel_not_supported",
        f"{WORKER}torch.AcceleratorError: CUDA error: no kernel image is available for execution "
        "on the device",
    ),
    (
        "kernel_not_supported",
        f"{WORKER}RuntimeError: [FP4 gemm Runner] Failed to run cutlass FP4 gemm on sm120. Error: "
        "Error Internal",
    ),
    ("kernel_not_supported", f"{WORKER}RuntimeError: sm_110a is not supported by this build"),
    (
        "kernel_not_supported",
        "ValueError: The quantization method modelopt_fp4 is not supported for the current GPU. "
        "Minimum capability: 89. Current capability: 80.",
    ),
    ("ptxas_failed", "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'"),
    (
        "ptxas_failed",
        f"{WORKER}triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error",
    ),
    ("ptxas_failed", "`ptxas` failed with error code 255"),
    ("jit_failed", f"{WORKER}RuntimeError: Ninja build failed. Ninja output:"),
    ("jit_failed", f"{WORKER}RuntimeError: Error building extension 'fused_moe_120'"),
    ("jit_failed", "ninja: build stopped: subcommand failed."),
    (
        "jit_failed",
        f"{WORKER}FileNotFoundError: [Errno 2] No such file or directory: "
        "'/usr/local/cuda/bin/nvcc'",
    ),
    (
        "gpu_fault",
        f"{CORE}torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
    ),
    ("cuda_missing", "ImportError: libcuda.so.1: cannot open shared object file: No such file"),
    # read: vllm/v1/engine/exceptions.py, core.py, utils.py, multiproc_executor.py
    (
        "engine_core_died",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack "
        "trace (above) for the root cause.",
    ),
    ("engine_core_died", f"{CORE}EngineCore encountered a fatal error."),
    ("engine_core_died", "RuntimeError: Engine core process EngineCore_DP0 died unexpectedly."),
    (
        "engine_core_died",
        f"{CORE}Worker proc VllmWorker-0 died unexpectedly (exit code: -11), shutting down "
        "executor.",
    ),
    (
        "engine_core_died",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core "
        "proc(s): {'EngineCore': -9}",
    ),
    ("import_failed", "ModuleNotFoundError: No module named 'vllm'"),
    ("import_failed", "ImportError: libcudart.so.13: cannot open shared object file"),
]

PERMANENT, TRANSIENT, MEMORY = Grade.PERMANENT, Grade.TRANSIENT, Grade.MEMORY
GRADES = {
    "memory_short": MEMORY,
    "kv_cache_short": MEMORY,
    "out_of_memory": MEMORY,
    "engine_port_taken": TRANSIENT,
    "jit_failed": TRANSIENT,
    "gpu_fault": TRANSIENT,
    "engine_core_died": TRANSIENT,
    "engine_killed": TRANSIENT,
    "context_too_long": PERMANENT,
    "bad_engine_flag": PERMANENT,
    "engine_file_missing": PERMANENT,
    "bad_parser": PERMANENT,
    "bad_tokenizer": PERMANENT,
    "bad_checkpoint": PERMANENT,
    "model_not_supported": PERMANENT,
    "kernel_not_supported": PERMANENT,
    "ptxas_failed": PERMANENT,
    "cuda_missing": PERMANENT,
    "import_failed": PERMANENT,
}


@pytest.mark.parametrize(("code", "line"), SAID)
def test_what_the_engine_says_is_understood(code: str, line: str) -> None:
    pointers = [] if code == "engine_core_died" else POINTERS
    reason = diagnose_exit(1, ["INFO earlier", line, *pointers], was_ready=False)
    assert (reason.code, reason.grade) == (code, GRADES[code])
    assert line.strip()[:200] in reason.what
    assert reason.hint


def test_every_cause_is_shown_by_a_line_and_has_its_grade() -> None:
    codes = {cause.code for cause in CAUSES}
    assert {code for code, _ in SAID} == codes - {"engine_killed"}  # told by the exit alone
    assert set(GRADES) == codes


def test_every_cause_is_one_sentence_and_says_what_to_type_next() -> None:
    for cause in CAUSES:
        assert cause.what == cause.what.rstrip(".")
        assert cause.hint
    assert len({cause.code for cause in CAUSES}) == len(CAUSES)


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
    reason = diagnose_exit(1, [line, "bye"], was_ready=False)
    assert (reason.code, reason.grade) == ("engine_died_loading", TRANSIENT)


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


# ---- why before that

DEAD = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."
FATAL = f"{CORE}EngineCore encountered a fatal error."


@pytest.mark.parametrize(
    "code", ["out_of_memory", "kernel_not_supported", "ptxas_failed", "jit_failed", "gpu_fault"]
)
@pytest.mark.parametrize("was_ready", [True, False])
def test_what_killed_the_core_goes_before_that_it_died(code: str, was_ready: bool) -> None:
    line = next(line for known, line in SAID if known == code)
    reason = diagnose_exit(0, [FATAL, line, DEAD], was_ready=was_ready)
    assert (reason.code, reason.grade) == (code, GRADES[code])


def test_a_dead_core_shows_what_it_said_itself() -> None:
    why = f"{CORE}RuntimeError: start (0) + length (128) exceeds dimension size (3)."
    reason = diagnose_exit(0, [FATAL, why, f"{DEAD} See root cause above."], was_ready=True)
    assert reason.code == "engine_core_died"
    assert why in reason.what


def test_a_missing_build_tool_is_no_missing_file() -> None:
    line = f"{WORKER}FileNotFoundError: [Errno 2] No such file or directory: 'ninja'"
    assert diagnose_exit(1, [line], was_ready=False).grade is TRANSIENT


@pytest.mark.parametrize(
    "name", ["/psm_ab12", "/mp-x1", "/dev/shm/sem.mp", "/tmp/abc", "/x/a.sock"]
)
def test_what_is_missed_in_the_tear_down_is_no_missing_file(name: str) -> None:
    line = f"FileNotFoundError: [Errno 2] No such file or directory: '{name}'"
    assert diagnose_exit(1, [line], was_ready=False).code == "engine_died_loading"


@pytest.mark.parametrize(
    "code",
    [cause.code for cause in CAUSES if cause.grade is PERMANENT and not cause.while_serving],
)
def test_what_only_a_start_can_die_of_never_bricks_an_engine_that_served(code: str) -> None:
    for line in (line for known, line in SAID if known == code):
        reason = diagnose_exit(0, [line, "bye"], was_ready=True)
        assert (reason.code, reason.grade) == ("engine_died", TRANSIENT)


# ---- killed


@pytest.mark.parametrize("returncode", [-9, 137])
@pytest.mark.parametrize("was_ready", [True, False])
def test_a_kill_is_called_one(returncode: int, was_ready: bool) -> None:
    reason = diagnose_exit(returncode, ["INFO up"], was_ready=was_ready)
    assert (reason.code, reason.grade) == ("engine_killed", TRANSIENT)
    assert "oom" in reason.hint


@pytest.mark.parametrize("returncode", [-9, 137])
@pytest.mark.parametrize("lines", [[], ["bye"], ["ImportError: x"], [DEAD]])
def test_a_kill_by_the_kernel_is_a_matter_of_memory(returncode: int, lines: list[str]) -> None:
    reason = diagnose_exit(returncode, lines, was_ready=True, oom_killed=True)
    assert (reason.code, reason.grade) == ("out_of_memory", MEMORY)
    assert "kernel" in reason.what


def test_a_core_killed_by_the_kernel_is_a_matter_of_memory_though_the_server_exits_with_0() -> None:
    reason = diagnose_exit(0, [DEAD], was_ready=True, oom_killed=True)
    assert (reason.code, reason.grade) == ("out_of_memory", MEMORY)


@pytest.mark.parametrize("returncode", [0, 1, 2, -11, -15, 139])
def test_another_programs_oom_kill_is_not_ours(returncode: int) -> None:
    reason = diagnose_exit(returncode, ["bye"], was_ready=True, oom_killed=True)
    assert reason.code == "engine_died"


@given(st.integers(-64, 255), st.lists(st.text(max_size=40), max_size=5), st.booleans())
def test_every_end_has_a_code_a_sentence_and_a_next_step(
    returncode: int, lines: list[str], was_ready: bool
) -> None:
    reason = diagnose_exit(returncode, lines, was_ready=was_ready)
    assert reason.code
    assert reason.what.startswith("the engine ended")
    assert reason.hint


# ---- what may be shown where all else is hidden

SERVING = {cause.code for cause in CAUSES if cause.while_serving} - {"engine_killed"}
# their phrase has a gap, where the name of a process or of a file stands
GAPPED = ("Failed core proc", "No such file")


@pytest.mark.parametrize(
    ("code", "line"),
    [row for row in SAID if row[0] in SERVING and not any(gap in row[1] for gap in GAPPED)],
)
def test_a_cause_is_still_known_after_the_gate(code: str, line: str) -> None:
    gate = RedactionGate(known=known_words)
    gate.strict = True
    reason = diagnose_exit(1, [gate.pass_line(line)], was_ready=True)
    assert (reason.code, reason.grade) == (code, GRADES[code])


@given(st.sampled_from(SAID), st.text("qzQZ ", max_size=20))
def test_known_words_are_the_phrase_and_nothing_around_it(
    row: tuple[str, str], canary: str
) -> None:
    words = known_words(row[1])
    assert words in row[1]
    assert known_words(f"{canary}|{row[1]}|{canary}") == words
