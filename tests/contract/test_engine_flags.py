"""Every flag that we send is one that each supported vLLM knows: asked of its own parser."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.plans import PAIRS, plan, serve_arguments

PROJECT = Path(__file__).parents[2]
GOLDEN = PROJECT / "tests" / "golden"
CHECK = Path(__file__).parent / "parser_check.py"
ENGINE = PROJECT / ".demo" / "engine" / "bin" / "python"


def engine_flags(*, path: Path | None = None) -> list[str]:
    """Return the flags of the engine's parser, after it has accepted all our commands."""
    argvs = [serve_arguments(plan(box, model)) for box, model in PAIRS]
    env = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"} | (
        {"PYTHONPATH": str(path)} if path else {}
    )
    result = subprocess.run(
        [str(ENGINE), str(CHECK)],
        input=json.dumps({"argvs": argvs}),
        capture_output=True,
        text=True,
        env=env,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    flags: list[str] = json.loads(result.stdout.splitlines()[-1])["flags"]
    return flags


def golden(version: str) -> list[str]:
    """Return the kept list of a version's flags."""
    return (GOLDEN / f"vllm-{version}-flags.txt").read_text(encoding="ascii").split()


@pytest.mark.parametrize("version", ["0.32", "0.33"])
@pytest.mark.parametrize(("box", "model"), PAIRS)
def test_every_flag_of_a_plan_is_known_to_each_supported_engine(
    version: str, box: str, model: str
) -> None:
    # 0.33 takes --no-enable-x, as 0.32 does, but lists --disable-x
    sent = {w.replace("--no-", "--") for w in plan(box, model).argv if w.startswith("--")}
    assert len(sent) > 5
    assert sent - set(golden(version)) == set()


@pytest.mark.engine
def test_the_engines_own_parser_accepts_our_commands_and_the_kept_list_is_its() -> None:
    assert engine_flags() == golden("0.32")


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.timeout(900)
def test_the_parser_of_0_33_accepts_our_commands_and_the_kept_list_is_its(tmp_path: Path) -> None:
    # its Python sources run over the demo engine's dependencies; its kernels are not needed
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "-d", str(tmp_path), "vllm==0.33.0"], check=True, timeout=600)
    (wheel,) = tmp_path.glob("vllm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith((".py", ".json"))]
        archive.extractall(tmp_path / "source", members=names)
    wheel.unlink()
    assert engine_flags(path=tmp_path / "source") == golden("0.33")
