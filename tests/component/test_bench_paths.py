"""``appliance bench paths`` as it is typed, against an engine that glitches as often as told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from appliance.bench.journal import NAME
from appliance.cli import main
from tests import engines
from tests.appliances import COMMAND, WEB, RunAppliance, attached_to, clean_environment
from tests.engines import MODEL, ROOT, EngineHandle, wait_until

FAKE = ROOT / "tests" / "fakes" / "glitching.py"
RATES = {"case": 0.08, "inserted_space": 0.12, "dropped_component": 0.06}
GLITCHING = tuple(word for kind, rate in RATES.items() for word in ("--glitch", f"{kind}={rate}"))
QUICK = ("--tasks", "echo,tool,edit,join")
ONE_ARM = ("--prompt", "off", "--guard", "off")
WIDE = ("--max-model-len", "131072")

Start = Callable[..., EngineHandle]
Bench = Callable[..., dict[str, Any]]


@pytest.fixture
def glitching(tmp_path: Path) -> Iterator[Start]:
    """Start glitching engines with these flags; all are killed at the end."""
    with ExitStack() as stack:

        def start(*flags: str) -> EngineHandle:
            log = tmp_path / f"glitching-{len(list(tmp_path.glob('glitching-*.log')))}.log"
            argv = [sys.executable, str(FAKE), *flags, "serve", "tiny"]
            argv += ["--served-model-name", MODEL, *WIDE]
            engine = stack.enter_context(engines.running(argv, log))
            engine.wait_ready(within_s=20)
            return engine

        yield start


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def bench(out: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Measure an engine, and return the report for programs."""

    def run(engine: EngineHandle, *flags: str) -> dict[str, Any]:
        monkeypatch.setenv("APPLIANCE_API_KEY", engine.key)
        code = main(["bench", "paths", "--base-url", engine.base_url, "--out", str(out), *flags])
        assert code == 0
        told: dict[str, Any] = json.loads((out / "report.json").read_text())
        return told

    return run


def done(engine: EngineHandle) -> dict[str, Any]:
    told: dict[str, Any] = WEB.get(f"{engine.base_url}/fake/glitches").json()
    return told


def test_a_perfect_endpoint_scores_one_hundred_percent_on_the_whole_suite(
    glitching: Start, bench: Bench
) -> None:
    report = bench(glitching(), *ONE_ARM, "--concurrency", "8")
    (arm,) = report["arms"]
    assert arm["exact"] | {"low": 0} == {"count": 315, "of": 315, "share": 1, "low": 0, "high": 1}
    assert arm["exact"]["low"] > 0.98
    assert arm["kinds"] == {}
    assert len(arm["strata"]) == 9
    assert len(arm["tasks"]) == 7


def test_the_rates_found_are_those_that_the_engine_was_given(
    glitching: Start, bench: Bench
) -> None:
    engine = glitching(*GLITCHING)
    report = bench(engine, *QUICK, *ONE_ARM, "--cases", "360", "--concurrency", "8")
    (arm,) = report["arms"]
    true = done(engine)
    assert arm["kinds"] == true["glitches"]  # to the last one
    assert true["answers"] == arm["exact"]["of"] == 360
    assert arm["glitched"]["low"] <= sum(RATES.values()) <= arm["glitched"]["high"]
    for kind, rate in RATES.items():
        assert abs(arm["kinds"][kind] - rate * 360) < 3 * (rate * 360) ** 0.5


def test_an_interrupted_run_goes_on_and_reports_the_same(
    glitching: Start, bench: Bench, out: Path, tmp_path: Path
) -> None:
    engine = glitching(*GLITCHING)
    whole = bench(engine, *QUICK, "--guard", "off", "--cases", "60")
    kept = (out / NAME).read_text().splitlines(keepends=True)
    (out / NAME).write_text("".join(kept[:31]) + kept[31][:20])  # a crash: 30 and a half
    before = done(engine)["answers"]
    resumed = bench(engine, *QUICK, "--guard", "off", "--cases", "60", "--resume")
    assert resumed == whole
    assert done(engine)["answers"] - before == 120 - 30


def test_ctrl_c_keeps_what_was_answered_and_says_how_to_go_on(
    glitching: Start, bench: Bench, out: Path, tmp_path: Path
) -> None:
    engine = glitching(*GLITCHING, "--chunk-delay", "0.02")
    words = [*QUICK, *ONE_ARM, "--cases", "40"]
    url = ["--base-url", engine.base_url, "--out", str(out)]
    process = subprocess.Popen(
        [*COMMAND, "bench", "paths", *url, *words, "--concurrency", "1"],
        env=clean_environment() | {"PYTHONPATH": str(ROOT), "APPLIANCE_API_KEY": engine.key},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    journal = out / NAME

    def begun() -> bool:
        return journal.exists() and journal.read_text().count("\n") > 3

    wait_until(begun, 20, "some answers")
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"--resume goes on" in said
    assert b"Traceback" not in said
    answered = journal.read_text().count("\n") - 1
    assert 0 < answered < 40
    report = bench(engine, *words, "--resume")
    assert report["answered"] == report["asked"] == 40


def test_a_busy_endpoint_is_asked_again_until_it_answers(glitching: Start, bench: Bench) -> None:
    report = bench(glitching("--busy", "3"), *QUICK, *ONE_ARM, "--cases", "12")
    assert report["arms"][0]["exact"]["count"] == 12


def test_a_question_that_does_not_fit_is_counted_apart(glitching: Start, bench: Bench) -> None:
    engine = glitching("--max-model-len", "8192")
    report = bench(engine, *ONE_ARM, "--tasks", "echo,recall-32k", "--cases", "18")
    (arm,) = report["arms"]
    assert arm["exact"]["of"] in (9, 18)
    assert arm["exact"]["of"] + arm["does_not_fit"] == 18


def test_the_report_is_written_for_people_too(
    glitching: Start, bench: Bench, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(glitching(*GLITCHING), *QUICK, *ONE_ARM, "--cases", "36")
    printed, said = capsys.readouterr()
    assert printed == (out / "report.md").read_text()
    assert "18 of 36: " in said  # where nobody sees a bar
    assert "| prompt off, guard off |" in printed
    assert (out / "chart.svg").read_text().startswith("<svg ")
    assert list(out.glob("*.draft")) == []


def test_in_front_of_an_appliance_the_prompt_makes_the_difference(
    glitching: Start, run: RunAppliance, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = glitching("--glitch", "inserted_space=0.5", "--with-prompt", "0")
    appliance = run(**attached_to(engine.base_url, engine.key))
    appliance.until("ready")
    for name, value in appliance.env.items():
        monkeypatch.setenv(name, value)
    assert main(["bench", "paths", *QUICK, "--guard", "off", "--cases", "36",
                 "--out", str(out)]) == 0  # fmt: skip
    on, off = json.loads((out / "report.json").read_text())["arms"]
    assert on["exact"]["share"] == 1.0
    assert off["glitched"]["high"] > 0.5 > off["glitched"]["low"]
    assert on["mean_prompt_tokens"] > off["mean_prompt_tokens"]


# ---- what people type wrong


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["bench", "paths", *arguments])
    printed = capsys.readouterr()
    assert code == 1
    assert printed.out == ""
    return printed.err


def test_a_wrong_address_a_wrong_key_and_an_unknown_model_are_told_apart(
    glitching: Start, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = glitching()
    to = ("--out", str(out), *QUICK, *ONE_ARM, "--cases", "1")
    nobody = f"http://127.0.0.1:{engines.free_port()}"
    assert "nobody answers at" in refused(capsys, "--base-url", nobody, "--key", "x", *to)
    here = ("--base-url", engine.base_url)
    assert "refuses the key (401)" in refused(capsys, *here, "--key", "wrong", *to)
    words = refused(capsys, *here, "--key", engine.key, "--model", "GPT-9", *to)
    assert f"it serves: {MODEL}" in words
    elsewhere = f"{engine.base_url}/fake"
    assert "serve" in refused(capsys, "--base-url", elsewhere, "--key", engine.key, *to)
    assert not (out / NAME).exists()


def test_a_kept_key_goes_to_nobody_else(
    glitching: Start, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = glitching()
    (tmp_path / "api_key").write_text("kept-at-home\n")
    (tmp_path / "address").write_text("http://127.0.0.1:9\n")
    state = ("--state-dir", str(tmp_path), "--out", str(out))
    assert "refuses the key" in refused(capsys, "--base-url", engine.base_url, *state)
    told = WEB.get(f"{engine.base_url}/fake/seen").json()
    sent = [request["headers"].get("authorization") for request in told["requests"]]
    assert set(sent) <= {None}


def test_a_key_may_come_from_a_file(
    glitching: Start, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = glitching()
    path = tmp_path / "key.txt"
    path.write_text(engine.key + "\n")
    words = ["bench", "paths", "--base-url", engine.base_url, "--key-file", str(path)]
    words += ["--out", str(out), *QUICK, *ONE_ARM, "--cases", "4"]
    assert main(words) == 0
    path.write_text("")
    assert main(words) == 78
    assert "is empty" in capsys.readouterr().err


def test_an_earlier_run_is_not_written_over(
    glitching: Start, bench: Bench, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = glitching()
    bench(engine, *QUICK, *ONE_ARM, "--cases", "4")
    capsys.readouterr()
    before = (out / NAME).read_bytes()
    again = ("--base-url", engine.base_url, "--out", str(out), *QUICK, *ONE_ARM, "--cases", "4")
    assert "go on with it: --resume" in refused(capsys, *again)
    other = refused(capsys, *again, "--seed", "2", "--resume")
    assert "seed was 1 and is 2" in other
    assert (out / NAME).read_bytes() == before


@pytest.mark.parametrize(
    "flags",
    [("--tasks", "sing"), ("--strata", ""), ("--cases", "0"), ("--guard", "on"), ("--prompt", "x")],
)
def test_a_wrong_word_is_answered_with_the_right_ones(
    flags: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "paths", *flags])
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err
