"""The fake machines that the table names, and the fake kernels that answer on them."""

import errno
from collections.abc import Callable
from pathlib import Path

from tests.helper.driving import plain_kernel
from tests.helper.machine import GIB, MIB, PARENT, SELF, Group, Kernel, Machine, Proc, Swap

SESSION = "user.slice/user-1000.slice/session-2.scope"
GDM = "system.slice/gdm.service"
ENGINE = "system.slice/docker-aaaa.scope"
SIDECAR = "system.slice/docker-bbbb.scope"
ENGINE_PID = 4242
SMAPS = (
    "7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n"
    "Size: 1048576 kB\nAnonymous: 1048576 kB\nVmFlags: rd wr mr mw me ac\n"
    "7f1000000000-7f1010000000 rw-p 00000000 00:00 0 \n"
    "Anonymous: 262144 kB\nVmFlags: rd wr lo\n"
    "7f2000000000-7f2000100000 r-xp 00000000 08:01 77 /lib/x.so\nAnonymous: 4 kB\nVmFlags: rd ex\n"
)


def spark(root: Path) -> Machine:
    """A DGX Spark with a desktop session, gdm, an idle sidecar and the usual services."""
    machine = Machine(root)
    machine.procs = {
        1: Proc("systemd", ("/sbin/init",), ppid=0, cgroup="/init.scope"),
        700: Proc("sshd", ("sshd: /usr/sbin/sshd -D",)),
        701: Proc("dbus-daemon", ("/usr/bin/dbus-daemon",)),
        702: Proc("systemd-journal", ("/lib/systemd/systemd-journald",)),
        2001: Proc("bash", ("-bash",), cgroup=f"/{SESSION}"),
        2002: Proc("firefox", ("/usr/bin/firefox",), cgroup=f"/{SESSION}", smaps=SMAPS),
        2100: Proc("gnome-shell", ("/usr/bin/gnome-shell",), cgroup=f"/{GDM}"),
        PARENT: Proc("python3", ("python3", "-m", "appliance", "serve"), cgroup=f"/{SIDECAR}"),
        SELF: Proc("force_swap", ("force_swap",), ppid=PARENT, cgroup=f"/{SIDECAR}"),
    }
    machine.groups = {
        "init.scope": Group(inactive=8 * MIB, pids=(1,)),
        "system.slice/ssh.service": Group(inactive=8 * MIB, pids=(700,)),
        "system.slice/dbus.service": Group(inactive=8 * MIB, pids=(701,)),
        "system.slice/systemd-journald.service": Group(inactive=8 * MIB, pids=(702,)),
        SESSION: Group(inactive=3 * GIB, active=GIB, pids=(2001, 2002)),
        GDM: Group(inactive=GIB, active=256 * MIB, pids=(2100,)),
        SIDECAR: Group(inactive=64 * MIB, pids=(PARENT, SELF)),
    }
    return machine


def _with_engine(machine: Machine) -> None:
    machine.procs[ENGINE_PID] = Proc("VLLM::EngineCor", ("VLLM::EngineCore",))
    machine.groups[ENGINE] = Group(inactive=4 * GIB, pids=(ENGINE_PID,))


def _quiet_engine(machine: Machine) -> None:
    machine.procs[ENGINE_PID] = Proc("python3", ("python3", "server.py"), cgroup=f"/{ENGINE}")
    machine.groups[ENGINE] = Group(inactive=4 * GIB, pids=(ENGINE_PID,))


def _zombie_engine(machine: Machine) -> None:
    machine.procs[ENGINE_PID] = Proc("VLLM::EngineCor", state="Z")


def _add_proc(machine: Machine, comm: str, *argv: str) -> None:
    machine.procs[3000] = Proc(comm, argv)
    machine.groups[GDM].pids = (2100, 3000)


def _child_group(machine: Machine) -> None:
    """gdm is no leaf: a child holds an sshd."""
    _add_proc(machine, "sshd")
    machine.groups[GDM].pids = (2100,)
    machine.put(f"cgroup/{GDM}/session/cgroup.procs", "3000\n")
    machine.put(f"cgroup/{GDM}/session/cgroup.events", "populated 1\n")


def _linked(machine: Machine) -> None:
    (machine.root / "cgroup/linked.slice").symlink_to("user.slice")


def _no_meminfo(machine: Machine) -> None:
    (machine.root / "proc/meminfo").unlink()


def _linked_knob(machine: Machine) -> None:
    knob = machine.root / "cgroup" / GDM / "memory.reclaim"
    knob.unlink()
    knob.symlink_to(machine.root / "elsewhere")
    machine.put("elsewhere", "")


def _set(**fields: object) -> Callable[[Machine], None]:
    def change(machine: Machine) -> None:
        for name, value in fields.items():
            assert hasattr(machine, name)
            setattr(machine, name, value)

    return change


def _gdm(**fields: object) -> Callable[[Machine], None]:
    def change(machine: Machine) -> None:
        for name, value in fields.items():
            setattr(machine.groups[GDM], name, value)

    return change


def _parent_limit(machine: Machine) -> None:
    machine.put("cgroup/system.slice/memory.swap.max", "0\n")
    machine.put("cgroup/system.slice/memory.current", "0\n")


# Name -> what is different from the Spark before its files are written.
CHANGES: dict[str, Callable[[Machine], None]] = {
    "spark": _set(),
    "no swap": _set(swaps=[]),
    "zram": _set(swaps=[Swap("/dev/zram0", size=8 * GIB, rotational=False)]),
    "zram and disk": _set(swaps=[Swap("/dev/zram0", size=8 * GIB), Swap()]),
    "slow disk": _set(swaps=[Swap("/dev/sda2", rotational=True)]),
    "network swap": _set(swaps=[Swap("/dev/nbd0", rotational=False)]),
    "swap file": _set(swaps=[Swap("/no/such\\040swap.img", "file", rotational=None)]),
    "little swap": _set(swaps=[Swap(used=13 * GIB)]),
    "cgroup v1": _set(version="v1", groups={}),
    "no cgroup": _set(version="none", groups={}),
    "engine": _with_engine,
    "quiet engine": _quiet_engine,
    "zombie engine": _zombie_engine,
    "huge pages": _set(meminfo_more="HugePages_Total:      16\nHugepagesize:  2048 kB\n"),
    "low memory": _set(available=3 * GIB, free=GIB),
    "gdm may not swap": _gdm(swap_max=0),
    "gdm may swap 128M": _gdm(swap_max=192 * MIB, swapped=64 * MIB),
    "system may not swap": _parent_limit,
    "gdm is locked": _gdm(inactive=0, active=0, unevictable=512 * MIB),
    "gdm has no reclaim": _gdm(reclaim=False),
    "gdm holds sshd": lambda machine: _add_proc(machine, "sshd", "sshd: nikola [priv]"),
    "gdm holds pid 1": lambda machine: setattr(machine.groups[GDM], "pids", (1, 2100)),
    "gdm holds dbus": lambda machine: _add_proc(machine, "dbus-broker-lau"),
    "gdm holds systemd": lambda machine: _add_proc(machine, "(sd-pam)"),
    "gdm holds the sidecar": lambda machine: _add_proc(
        machine, "python3", "/usr/bin/python3", "-m", "appliance"
    ),
    "gdm holds vllm": lambda machine: _add_proc(
        machine, "vllm", "/usr/bin/python3", "/usr/bin/vllm", "serve"
    ),
    "gdm holds sshd in a child": _child_group,
    "another user": _set(uid=10001),
    "a container": _set(pid_namespace="pid:[4026532999]"),
    "firefox in the root": lambda machine: setattr(machine.procs[2002], "cgroup", "/"),
}
# What is different after the files are written.
AFTERWARDS: dict[str, Callable[[Machine], None]] = {
    "a linked slice": _linked,
    "a linked knob": _linked_knob,
    "no meminfo": _no_meminfo,
}


def build_machine(name: str, root: Path) -> Machine:
    """Make and save the machine of that name."""
    machine = spark(root)
    CHANGES.get(name, CHANGES["spark"])(machine)
    machine.save()
    AFTERWARDS.get(name, CHANGES["spark"])(machine)
    assert name in CHANGES or name in AFTERWARDS
    return machine


def _answers(code: int) -> Kernel:
    return lambda _machine, _target, _text: (code, 5)


def _old(forms: tuple[str, ...]) -> Kernel:
    """A kernel that refuses what is not among ``forms``."""

    def answer(machine: Machine, target: str, text: str) -> tuple[int, int]:
        form = text.partition(" ")[2]
        return plain_kernel(machine, target, text) if form in forms else (errno.EINVAL, 0)

    return answer


def _lies(_machine: Machine, _target: str, _text: str) -> tuple[int, int]:
    return 0, 5


def _half(machine: Machine, target: str, text: str) -> tuple[int, int]:
    machine.page_out(target, int(text.split()[0]) // 2)
    return errno.EAGAIN, 20


def _stalls(machine: Machine, target: str, text: str) -> tuple[int, int]:
    machine.psi_full_us += 400_000
    return plain_kernel(machine, target, text)[0], 1100


def _refaults(machine: Machine, target: str, text: str) -> tuple[int, int]:
    machine.swapped_in += 128 * MIB
    return plain_kernel(machine, target, text)[0], 1100


def _slow(machine: Machine, target: str, text: str) -> tuple[int, int]:
    return plain_kernel(machine, target, text)[0], 4000


def _eaten(machine: Machine, target: str, text: str) -> tuple[int, int]:
    """Somebody takes more than is freed."""
    plain_kernel(machine, target, text)
    machine.available -= 40 * GIB
    machine.free -= 20 * GIB
    machine.save_numbers()
    return 0, 20


def _swap_eaten(machine: Machine, target: str, text: str) -> tuple[int, int]:
    plain_kernel(machine, target, text)
    machine.swaps[0].used = machine.swaps[0].size - 2 * GIB
    machine.save_numbers()
    return 0, 20


def _incompressible(machine: Machine, target: str, text: str) -> tuple[int, int]:
    """What goes to zram stays in memory."""
    before = machine.available, machine.free
    plain_kernel(machine, target, text)
    machine.available, machine.free = before
    machine.save_numbers()
    return 0, 20


def _cached(machine: Machine, target: str, text: str) -> tuple[int, int]:
    """What is written stays in the swap cache; after 512 MiB all of that is dropped at once."""
    before = machine.available, machine.free
    plain_kernel(machine, target, text)
    machine.swap_cached += int(text.split()[0])
    if machine.swap_cached < 512 * MIB:
        machine.available, machine.free = before
    else:
        machine.available += machine.swap_cached - int(text.split()[0])
        machine.swap_cached = 0
    machine.save_numbers()
    return 0, 20


def _writes_for_ever(machine: Machine, target: str, text: str) -> tuple[int, int]:
    machine.writeback = 64 * MIB
    return plain_kernel(machine, target, text)[0], 20


# Name -> how writes are answered.
KERNELS: dict[str, Kernel] = {
    "6.17": plain_kernel,
    "6.12": _old(("swappiness=200", "")),
    "6.1": _old(("",)),
    "knows no form": _old(()),
    "lies": _lies,
    "gives half": _half,
    "again": _answers(errno.EAGAIN),
    "denied": _answers(errno.EACCES),
    "read-only": _answers(errno.EROFS),
    "gone": _answers(errno.ENODEV),
    "stalls": _stalls,
    "refaults": _refaults,
    "slow": _slow,
    "cached": _cached,
    "writes for ever": _writes_for_ever,
    "eaten": _eaten,
    "incompressible": _incompressible,
    "swap eaten": _swap_eaten,
}
