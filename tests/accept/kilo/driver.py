"""The real Kilo Code, without its editor: one prompt, and what it told of the turn."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.accept.kilo.table import Tale
from tests.accept.stage import Stage
from tests.engines import MODEL, ROOT

Json = dict[str, Any]
VERSION = "7.7.9"
PACKAGE = f"@kilocode/cli-linux-x64@{VERSION}"
INSTALLED = ROOT / "build" / "kilo"
BINARY = INSTALLED / "node_modules" / "@kilocode" / "cli-linux-x64" / "bin" / "kilo"
INSTALL_S = 300
TURN_S = 600.0  # a start takes 10 to 20 s of CPU, and a busy machine has little of it

# Nothing is asked of anybody but the endpoint.
QUIET = {
    "KILO_TELEMETRY_LEVEL": "off",
    "KILO_DISABLE_AUTOUPDATE": "1",
    "KILO_DISABLE_MODELS_FETCH": "1",
    "KILO_DISABLE_LSP_DOWNLOAD": "1",
    "KILO_DISABLE_SHARE": "1",
    "KILO_DISABLE_DEFAULT_PLUGINS": "1",
}
DENIED = {"external_directory": "deny", "webfetch": "deny", "websearch": "deny"}


def install() -> Path:
    """Return the binary; npm fetches it once."""
    if not BINARY.exists():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]
        subprocess.run([*npm, str(INSTALLED), PACKAGE], check=True, timeout=INSTALL_S)
    return BINARY


@dataclass(frozen=True)
class Told:
    """What one ``kilo run`` said: its exit code and its events."""

    code: int
    events: list[Json]
    stderr: str

    def parts(self, kind: str) -> list[Json]:
        """Return the parts of one kind: text, reasoning, tool_use, error, ..."""
        return [event.get("part", event) for event in self.events if event["type"] == kind]

    @property
    def end(self) -> str:
        """How it ended, in a few words."""
        errors = [error_text(event.get("error", {})) for event in self.parts("error")]
        return "; ".join([f"exit {self.code}", *errors])

    @property
    def text(self) -> str:
        """All that it showed as text."""
        return "".join(part["text"] for part in self.parts("text"))

    @property
    def reasoning(self) -> str:
        """All that it showed as thinking."""
        return "".join(part["text"] for part in self.parts("reasoning"))

    @property
    def tools(self) -> list[tuple[str, str]]:
        """Each tool it ran, and how that ended."""
        return [(part["tool"], part["state"]["status"]) for part in self.parts("tool_use")]


def error_text(error: Json) -> str:
    """Return an error of Kilo's in its own words."""
    return str(error.get("data", {}).get("message") or error.get("name"))


@dataclass(frozen=True)
class Kilo:
    """Kilo in a workspace and a home of its own, configured by the appliance's preset."""

    binary: Path
    stage: Stage
    folder: Path
    tale: Tale
    options: Mapping[str, object] = field(default_factory=dict)
    limited: bool = True  # by the preset's limits
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        """Where it works."""
        return self.folder / "work space"

    def config(self) -> Json:
        """Return the preset that the appliance serves, with what this story changes."""
        with self.stage.appliance.http() as http:
            reply = http.get("/kilo.json")
        assert reply.status_code == 200, reply.text
        config: Json = reply.json()
        (provider,) = config["provider"].values()
        provider["options"] |= self.options
        if not self.limited:
            del provider["models"][MODEL]["limit"]  # an empty one spoils the whole file
        return {**config, "permission": DENIED, "share": "disabled", "autoupdate": False}

    def environment(self) -> dict[str, str]:
        """Return its variables: none of ours, none of this machine's user."""
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        config = self.folder / "kilo.json"
        config.write_text(json.dumps(self.config()))
        kept = {name: os.environ[name] for name in ("PATH", "UNGLITCHED_TEST_RUN")}
        return {
            **kept,
            **QUIET,
            **self.variables,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_STATE_HOME": str(home / "state"),
            "KILO_CONFIG": str(config),
            "UNGLITCHED_API_KEY": self.stage.appliance.key("client"),
        }

    def prepare(self) -> None:
        """Make the workspace a repository: else Kilo takes the whole disk for its root."""
        if not self.workspace.exists():
            self.workspace.mkdir(parents=True)
            subprocess.run(["git", "init", "-q", self.workspace], check=True)

    @contextmanager
    def told_of(self) -> Iterator[None]:
        """Put what is asked of the engine meanwhile, and the time that it takes, into the tale."""
        began = len(self.stage.script.noted())
        with self.tale.timed():
            yield
        self.tale.kinds.update(note["kind"] for note in self.stage.script.noted()[began:])

    def ask(self, prompt: str, *, within_s: float = TURN_S, resume: bool = False) -> Told:
        """Give it one prompt; return what it told when it ended."""
        self.prepare()
        words = ["run", "--auto", "--thinking", "--format", "json"]
        words += ["--continue"] if resume else []
        argv = [str(self.binary), *words, "--dir", str(self.workspace)]
        log = self.folder / "kilo.log"
        with self.told_of(), log.open("wb") as err:
            done = subprocess.run(
                argv,
                input=prompt.encode(),
                stdout=subprocess.PIPE,
                stderr=err,
                env=self.environment(),
                cwd=self.workspace,
                timeout=within_s,
                check=False,
            )
        lines = done.stdout.decode().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        told = Told(done.returncode, events, log.read_text(errors="replace"))
        self.tale.ends.append(told.end)
        return told
