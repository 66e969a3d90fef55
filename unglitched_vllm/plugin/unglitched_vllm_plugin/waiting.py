"""Short naps for vLLM's busy readers, on CPU.

EngineCore and Worker hand each other work through shared memory, and wait for it by calling
``sched_yield`` in a loop, for up to a second. On Linux 6.18 that starves whatever else shares
their processors: beside one streamed request on two cores, processes that were ready to run
waited for 2 s on an otherwise quiet machine and for up to 39 s on a busy one (2026-11-23, tokens
and /metrics standing still meanwhile); with naps the longest wait was 0.06 s, and the stream took
the same time. A GPU's EngineCore works in one process and does not wait in this way.
"""

import importlib
import time

READER_MODULE = "vllm.distributed.device_communicators.shm_broadcast"
NAP_S = 0.0002  # a step of the tiny model takes 5 ms


def register() -> None:
    """Entry point: make the readers nap on a CPU platform; do nothing elsewhere.

    Where vLLM's readers no longer call ``sched_yield``, nothing is left to mend.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    module = importlib.import_module(READER_MODULE)
    if hasattr(module, "sched_yield"):
        module.sched_yield = nap  # type: ignore[attr-defined]


def nap() -> None:
    """Let go of the processor for a moment, and of the interpreter with it."""
    time.sleep(NAP_S)
