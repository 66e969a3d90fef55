"""One box's part of an engine that spans two: the flags and the environment of its rank. Pure.

vLLM's own executor does the distributing (``mp``, measured on its CPU engine across two network
namespaces). The head has rank 0 and the HTTP side; the worker is headless. Each part names its
own address and interface, so that nothing of it goes over another network than the cable.
"""

from dataclasses import dataclass

from appliance.settings import Settings

NODES = 2


@dataclass(frozen=True)
class Part:
    """The rank of one box, and where on the cable it and the head are."""

    rank: int
    ranks: int  # tensor parallel size, over both boxes
    own_addr: str
    interface: str
    master_addr: str
    master_port: int
    execute_timeout_s: float
    executor: str = "mp"

    @property
    def is_headless(self) -> bool:
        """Whether it serves nobody: the head has the HTTP side."""
        return self.rank > 0

    def flags(self) -> tuple[str, ...]:
        """Return what vLLM's command line gets of it."""
        size = ("--tensor-parallel-size", str(self.ranks))
        if self.executor == "ray":  # its operator has told Ray of the boxes
            return (*size, "--distributed-executor-backend", "ray")
        return (
            *size,
            *("--distributed-executor-backend", "mp"),
            *("--nnodes", str(NODES), "--node-rank", str(self.rank)),
            *("--master-addr", self.master_addr, "--master-port", str(self.master_port)),
            *(("--headless",) if self.is_headless else ()),
        )

    def env(self, *, on_cpu: bool) -> dict[str, str]:
        """Return what vLLM's environment gets of it."""
        common = {
            "VLLM_HOST_IP": self.own_addr,
            "GLOO_SOCKET_IFNAME": self.interface,
            # a step that waits for a dead box or cable ends with it, and so does the engine
            "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(max(1, round(self.execute_timeout_s))),
        }
        if on_cpu:
            # else each part looks for a NUMA node of its own, for each rank of both boxes
            return {**common, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        return {**common, "NCCL_SOCKET_IFNAME": self.interface}


def part_of(settings: Settings) -> Part | None:
    """Return this box's part, None where it serves alone."""
    if settings.cluster_role == "off":
        return None
    is_head = settings.cluster_role == "head"
    own = settings.cluster_head if is_head else settings.cluster_worker
    return Part(
        rank=0 if is_head else 1,
        ranks=settings.tensor_parallel_size,
        own_addr=own or "",
        interface=settings.cluster_interface or "",
        master_addr=settings.cluster_head or "",
        master_port=settings.cluster_master_port,
        execute_timeout_s=settings.cluster_execute_timeout_s,
        executor=settings.cluster_executor,
    )
