"""An appliance as a process of its own, in front of an engine that plays a script."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.appliances import ApplianceProcess, running_process
from tests.engines import ROOT
from tests.fakes.script import Script

SCRIPTED = ROOT / "tests" / "fakes" / "scripted_engine.py"
# No probe of an idle engine meets the script.
CALM = {"probe_every_s": 3600, "engine_command": f"{sys.executable} {SCRIPTED}"}


@dataclass(frozen=True)
class Stage:
    """The appliance, and what its engine will say."""

    appliance: ApplianceProcess
    script: Script


@contextmanager
def staged(folder: Path, *flags: str, ready: bool = True, **settings: object) -> Iterator[Stage]:
    """Run an appliance over a scripted engine with these flags."""
    folder.mkdir(parents=True, exist_ok=True)
    script = Script(folder / "script")
    script.play()
    chosen: dict[str, Any] = {**CALM, **settings}
    words = ("--script", str(script.path), *flags)
    with running_process(folder / "box", *words, **chosen) as appliance:
        stage = Stage(appliance, script)
        if ready:
            appliance.until("ready")
        yield stage
