"""The machine: its memory, the appliance's state folder, and its listening socket."""

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

from appliance.errors import HostError, PortTaken, SettingsError
from appliance.launch import Extras

MEMINFO = Path("/proc/meminfo")
_MEMORY = ("MemTotal", "MemAvailable", "MemFree", "SwapFree", "Shmem")


def memory_snapshot(path: Path = MEMINFO) -> dict[str, int]:
    """Return the machine's memory by the kernel's names, in bytes; {} when not readable."""
    rows = counts(path)
    return {name: rows[f"{name}:"] * 1024 for name in _MEMORY if f"{name}:" in rows}


def counts(path: Path) -> dict[str, int]:
    """Return the rows "name number" of one of the kernel's files; {} when not readable."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    fields = [line.split() for line in lines]
    return {row[0]: int(row[1]) for row in fields if len(row) > 1 and row[1].isdecimal()}


def find_extras() -> Extras:
    """Return the template and the parser: of the clone, or as packed into the wheel."""
    package = Path(__file__).parent
    for folder in (package.parent / "extras", package / "_extras"):
        template = folder / "chat_template.jinja"
        if template.is_file():
            return Extras(template, folder / "minimax_m2_optthink_reasoning_parser.py")
    raise SettingsError("extras/chat_template.jinja is not installed", "reinstall the appliance")


class StateFolder:
    """The appliance's own folder (0700): keys, control socket, and a lock that says it is in use.

    Raises HostError when it cannot be made, PortTaken when another appliance holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("a+", encoding="ascii")
        except OSError as cause:
            raise HostError(
                f"the state folder {self.path} cannot be used: {cause.strerror}",
                "set APPLIANCE_STATE_DIR to a folder of yours",
            ) from cause
        self._take()

    def close(self) -> None:
        """Let go of the folder: another appliance may take it."""
        self._lock.close()

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (self.path / "lock").read_text(encoding="ascii").strip() or "unknown"
            self._lock.close()
            raise PortTaken(
                f"another appliance (pid {holder}) uses the state folder {self.path}",
                "stop it, or give this one its own APPLIANCE_STATE_DIR and APPLIANCE_PORT",
                code="state_dir_taken",
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    @property
    def client_key(self) -> Path:
        """File of the client key."""
        return self.path / "api_key"

    @property
    def client_keys(self) -> Path:
        """File of the named client keys."""
        return named_keys(self.path)

    @property
    def operator_key(self) -> Path:
        """File of the operator key."""
        return self.path / "operator_key"

    @property
    def evidence(self) -> Path:
        """Folder for what the engine's processes tell of themselves before they are killed."""
        folder = self.path / "evidence"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def swap_lock(self) -> Path:
        """File that says that force_swap runs."""
        return self.path / "force_swap.lock"

    @property
    def address(self) -> Path:
        """File that names the address of the running appliance."""
        return self.path / "address"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return control_socket(self.path)


def control_socket(state_dir: Path) -> Path:
    """Return where the control socket of a state folder is."""
    return state_dir.expanduser() / "control.sock"


def named_keys(state_dir: Path) -> Path:
    """Return where a state folder keeps the named client keys."""
    return state_dir.expanduser() / "client_keys.toml"


def free_port() -> int:
    """Return a TCP port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bind(host: str, port: int) -> socket.socket:
    """Return a listening-ready TCP socket. Raises PortTaken, or SettingsError for a bad address."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as cause:  # UnicodeError: a name that IDNA cannot write
        raise SettingsError(
            f"APPLIANCE_HOST={host!r} is no address: {cause}", "use 127.0.0.1 or 0.0.0.0"
        ) from cause
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as cause:
        listener.close()
        if cause.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} on {host} is taken by another program",
                f"set APPLIANCE_PORT to another one; ss -ltnp 'sport = :{port}' tells who has it",
            ) from cause
        raise SettingsError(
            f"APPLIANCE_HOST={host!r}, APPLIANCE_PORT={port}: {cause.strerror}",
            "use an address of this machine, and a port that you may open",
        ) from cause
    return listener
