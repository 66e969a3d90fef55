"""What is seen of a machine: of a made-up one, of this one, and of one that shows nothing."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from appliance.errors import HostError
from appliance.facts import EarlyOom, Evictable, HostFacts, SwapDevice
from appliance.observe import observe

GIB = 1 << 30
BASE = Path("/host/cgroup")
MEMINFO = """\
MemTotal:       127601452 kB
MemFree:        94371840 kB
MemAvailable:   121634816 kB
SwapTotal:      16777212 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
Hugetlb:               0 kB
"""


class Machine:
    """A made-up /, without anything but meminfo."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", MEMINFO)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))

    def process(
        self, pid: int, name: str, parent: int = 1, opens: Sequence[str] = (), line: str = ""
    ) -> None:
        self.write(f"proc/{pid}/comm", f"{name}\n")
        self.write(f"proc/{pid}/stat", f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 0")
        self.write(f"proc/{pid}/cmdline", line.replace(" ", "\0") + "\0")
        for number, target in enumerate(opens):
            link = self.root / f"proc/{pid}/fd/{number}"
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(target)

    def observe(self, *cgroups: str) -> HostFacts:
        return observe(cgroups, BASE, self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# ---- this machine


def test_the_facts_are_those_of_this_machine() -> None:
    facts = observe((), Path("/sys/fs/cgroup"))
    assert facts.machine == platform.machine()
    assert facts.cpu_count == len(os.sched_getaffinity(0))
    assert facts.memory_total_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < facts.memory_available_bytes <= facts.memory_total_bytes
    assert 0 < facts.memory_free_bytes <= facts.memory_total_bytes
    assert facts.kernel == platform.release()


def test_an_earlyoom_that_runs_is_found_by_its_name(tmp_path: Path) -> None:
    program = tmp_path / "earlyoom"
    program.symlink_to("/bin/sh")  # a real process that the kernel calls so, and that waits
    with subprocess.Popen([program, "-c", "read line"], stdin=subprocess.PIPE):
        facts = observe((), BASE)
    assert facts.earlyoom is not None
    assert facts.earlyoom.term_bytes == facts.memory_total_bytes // 10


# ---- what shows nothing


def test_a_machine_that_shows_nothing_but_memory_has_empty_facts(machine: Machine) -> None:
    facts = machine.observe("user.slice")
    assert facts == HostFacts(
        machine=platform.machine(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_total_bytes=127601452 * 1024,
        memory_available_bytes=121634816 * 1024,
        memory_free_bytes=94371840 * 1024,
    )


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemAvailable: 5 kB\n", "\0"])
def test_a_machine_without_its_memory_s_size_is_an_error(machine: Machine, text: str) -> None:
    machine.write("proc/meminfo", text)
    with pytest.raises(HostError, match="meminfo cannot be read") as caught:
        machine.observe()
    assert "Linux" in caught.value.hint


def test_a_machine_without_meminfo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="meminfo cannot be read"):
        observe((), BASE, tmp_path)


def test_garbage_in_every_file_is_no_error(machine: Machine) -> None:
    garbage = "\udcff\udcc0 9 \n\n(x) ) -1 99999999999999999999 kB\n"
    for path in ("swaps", "sys/kernel/osrelease", "7/comm", "7/stat", "7/cmdline", "8/stat"):
        machine.write(f"proc/{path}", garbage)
    machine.write("proc/9", "a file where a folder should be")
    machine.write("host/cgroup/a/memory.stat", garbage)
    machine.write("sys/block/zram0", "")
    facts = machine.observe("a")
    assert (facts.swap, facts.evictable, facts.gpu_users) == ((), (), ())


# ---- swap


def test_swap_is_told_by_its_kind(machine: Machine) -> None:
    lines = (
        *("Filename Type Size Used Priority", "/swap.img file 1024 0 -2"),
        *("/dev/nvme0n1p3 partition 2048 512 -3", "/dev/zram0 partition 4096 0 100"),
        *("/dev/dm-1 partition 8 0 1", "/dev/dm-2 partition 8 0 1"),
    )
    machine.write("proc/swaps", "\n".join(lines) + "\n")
    machine.write("sys/block/dm-1/slaves/zram1/size", "1")
    machine.write("sys/block/dm-2/slaves/sda1/size", "1")
    assert machine.observe().swap == (
        SwapDevice("/swap.img", "file", 1 << 20, 0),
        SwapDevice("/dev/nvme0n1p3", "disk", 2 << 20, 512 << 10),
        SwapDevice("/dev/zram0", "zram", 4 << 20, 0),
        SwapDevice("/dev/dm-1", "zram", 8 << 10, 0),
        SwapDevice("/dev/dm-2", "disk", 8 << 10, 0),
    )


def test_a_zram_disk_with_another_name_is_told_by_what_it_can_do(machine: Machine) -> None:
    machine.write("proc/swaps", "Filename Type Size Used Priority\n/dev/fast partition 8 0 1\n")
    machine.write("sys/block/fast/comp_algorithm", "lzo [zstd]")
    assert [swap.kind for swap in machine.observe().swap] == ["zram"]


def test_huge_pages_that_were_set_aside_are_told(machine: Machine) -> None:
    machine.write("proc/meminfo", MEMINFO.replace("Total:       0", "Total:    1024"))
    assert machine.observe().hugepages_bytes == 2 * GIB


# ---- who else is there


def test_an_earlyoom_is_told_with_its_thresholds(machine: Machine) -> None:
    machine.process(800, "earlyoom", line="/usr/bin/earlyoom -M 8388608,4194304 -s 100")
    assert machine.observe().earlyoom == EarlyOom(8 * GIB, 4 * GIB)


def test_a_process_that_is_called_nearly_so_is_no_earlyoom(machine: Machine) -> None:
    machine.process(800, "earlyoom-watch", line="earlyoom")
    machine.process(801, "vi", line="vi /etc/default/earlyoom")
    assert machine.observe().earlyoom is None


def test_the_processes_of_a_desktop_are_named(machine: Machine) -> None:
    machine.process(1500, "gnome-shell")
    machine.process(900, "gdm3")
    machine.process(1400, "Xwayland")
    machine.process(1600, "gnome-shell-cal")
    machine.process(1, "systemd", parent=0)
    assert machine.observe().desktop == ("gdm3 (900)", "Xwayland (1400)", "gnome-shell (1500)")


@pytest.mark.parametrize(
    "device", ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvgpu/igpu0/as"]
)
def test_who_holds_the_gpu_open_is_named(machine: Machine, device: str) -> None:
    machine.process(2000, "ollama", opens=["/dev/null", "socket:[7]", device])
    machine.process(2001, "bash", opens=["/dev/pts/0", "/home/dev/nvidia0", "/tmp/dev/nvidia0"])
    assert machine.observe().gpu_users == ("ollama (2000)",)


def test_our_own_process_and_its_offspring_are_no_other_users(machine: Machine) -> None:
    us = os.getpid()
    machine.process(us, "appliance", opens=["/dev/nvidiactl"])
    machine.process(us + 1, "vllm", parent=us, opens=["/dev/nvidia0"])
    machine.process(us + 2, "VLLM::Worker", parent=us + 1, opens=["/dev/nvidia0"])
    machine.process(us + 3, "ollama", parent=1, opens=["/dev/nvidia0"])
    assert machine.observe().gpu_users == (f"ollama ({us + 3})",)


def test_the_desktop_is_named_once_and_the_driver_s_keeper_never(machine: Machine) -> None:
    machine.process(700, "nvidia-persiste", opens=["/dev/nvidia0"])
    machine.process(900, "Xorg", opens=["/dev/nvidia0"])
    facts = machine.observe()
    assert facts.desktop == ("Xorg (900)",)
    assert facts.gpu_users == ()


def test_a_loop_of_parents_is_no_loop_of_ours(machine: Machine) -> None:
    us = os.getpid()
    machine.process(us, "appliance", parent=us + 1)
    machine.process(us + 1, "x", parent=us, opens=["/dev/nvidia0"])
    assert machine.observe().gpu_users == ()


def test_a_name_cannot_write_to_the_terminal(machine: Machine) -> None:
    machine.process(2000, "a\x1b[31m\nb", opens=["/dev/nvidia0"])
    assert machine.observe().gpu_users == ("a?[31m?b (2000)",)


# ---- what could be pushed out


def test_cgroups_are_told_in_the_order_of_the_settings_and_those_that_are_not_there_are_not(
    machine: Machine,
) -> None:
    stat = "anon 9\ninactive_anon {} \nactive_anon 100\nunevictable 10\n"
    machine.write("host/cgroup/user.slice/memory.stat", stat.format(500))
    machine.write("host/cgroup/b.slice/c.scope/memory.stat", stat.format(900))
    facts = machine.observe("user.slice", "gone.slice", "/b.slice/c.scope")
    assert facts.evictable == (Evictable("user.slice", 590), Evictable("/b.slice/c.scope", 990))
