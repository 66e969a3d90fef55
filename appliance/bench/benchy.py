"""llama-benchy in an environment of its own: uv makes it, a driver there does as it is told.

It brings transformers and matplotlib, 300 MB that the appliance must not carry. The lock file
beside this one holds every version and its hash; another lock file gets another environment.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from appliance.errors import HostError

LOCK = Path(__file__).with_name("serving.lock")
DRIVER = Path(__file__).with_name("servingdriver.py")
CHARTS = Path(__file__).with_name("servingcharts.py")
LOG = "benchy.log"
VERSION = "0.4.0"  # of llama-benchy, as the lock file has it
END_S = 10.0


def environment(folder: Path | None = None) -> Path:
    """Return the Python where llama-benchy is; make its environment where there is none yet.

    ``folder`` is where environments are kept; by default the user's cache. uv shows on stderr how
    far it is. Raises HostError when it cannot be made.
    """
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    kept = (folder or Path.home() / ".cache" / "unglitched") / f"bench-{digest}"
    python = Path("bin") / "python"
    if (kept / python).exists():
        return kept / python
    uv = _uv()
    draft = kept.with_name(f"{kept.name}.{os.getpid()}")
    made = [uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(draft)]
    # not uv run --with-requirements: it looks at no hash
    filled = [uv, "pip", "sync", "--require-hashes", "--python", str(draft / python), str(LOCK)]
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        for command in (made, filled):
            subprocess.run(command, check=True, stdout=sys.stderr)
        if not kept.exists():  # another run may have been faster
            draft.rename(kept)
    except (OSError, subprocess.CalledProcessError) as cause:
        raise HostError(
            f"llama-benchy's environment {kept} could not be made: {cause}",
            "the first run needs a Python package index, and 300 MB of disk",
        ) from cause
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return kept / python


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if not uv:
        raise HostError(
            "uv is not here: it makes llama-benchy's environment, apart from the appliance's",
            "pip install uv",
        )
    return uv


def _command(script: Path, *arguments: str) -> list[str]:
    # -I: neither our folder nor PYTHONPATH may stand before what is installed there
    return [str(environment()), "-I", str(script), *arguments]


class Benchy:
    """One driver that runs. ``variables`` are added to its environment; it prints to ``log``."""

    def __init__(
        self, setup: Mapping[str, Any], log: Path, variables: Mapping[str, str], *,
        command: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._log = log
        argv = [*command] or _command(DRIVER)
        argv = ["env", *(f"{name}={value}" for name, value in variables.items()), *argv]
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,  # Ctrl-C is ours; we end it, and what it started
            )
        try:
            self.ask(setup)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _fault: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._end()

    def ask(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return the driver's answer. Raises HostError for a batch that failed, or its end."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps(dict(told)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = self._process.stdout.readline()
        if not line:
            raise HostError(
                f"llama-benchy ended; {self._log} ends: {self._last_words()}",
                "what was measured is kept: the same command with --resume goes on",
            )
        answer: dict[str, Any] = json.loads(line)
        if why := answer.get("why"):
            raise HostError(
                f"llama-benchy could not measure: {why[:300]}",
                f"{self._log} tells more; the same command with --resume goes on",
            )
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:]) or "(nothing)"

    def _end(self) -> None:
        """End the driver, and whatever it started."""
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(END_S)
        except ProcessLookupError:
            self._process.wait()
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with suppress(BrokenPipeError):  # what it did not read any more
            self._process.stdin.close()
        self._process.stdout.close()


def draw(report: Path, chart: Path) -> None:
    """Draw the report as a PNG. Raises HostError when that fails."""
    drawn = subprocess.run(
        _command(CHARTS, str(report), str(chart)), capture_output=True, text=True
    )
    if drawn.returncode:
        raise HostError(
            f"{chart} could not be drawn: {drawn.stderr.strip()[-300:]}",
            "report.json and report.md hold all figures",
        )
