"""``appliance bench speed`` without llama-benchy: its driver's place is taken by one of ours."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.bench.benchy import LOG, Benchy, environment
from appliance.bench.servingmeasure import asked_of, read_points
from appliance.bench.servingreport import SpeedReport
from appliance.bench.servingrun import Asked, Target, low_water, measure_speed
from appliance.bench.servingsample import Sample
from appliance.cli import build_parser, main
from appliance.commandline import settings_of
from appliance.errors import HostError, SettingsError
from tests.appliances import ApplianceProcess
from tests.engines import MODEL
from tests.unit.test_serving import TOLD, metric

GIB = 2**30


def target(name: str) -> Target:
    return Target(name, f"http://{name}.example/v1", f"key-of-{name}", MODEL, lambda: 4 * GIB)


def asked(*names: str, **changes: Any) -> Asked:
    targets = tuple(target(name) for name in names)
    grid = {"prompts": (256, 512), "concurrencies": (1,), "rounds": 2, "context": 4096}
    return Asked(targets, "/models/tokenizer.json", **{**grid, **changes})


class FakeBenchy:
    """Answers jobs; after ``until`` of them the endpoint fails."""

    def __init__(self, until: int = 1000) -> None:
        self.jobs: list[dict[str, Any]] = []
        self._until = until

    def ask(self, told: Mapping[str, Any]) -> dict[str, Any]:
        if len(self.jobs) == self._until:
            raise HostError("llama-benchy could not measure: HTTP 503: the engine is starting")
        self.jobs.append(dict(told))
        return TOLD | {"tg_throughput": metric(20.0 + len(self.jobs))}

    @contextmanager
    def start(self, _asked: Asked, _out: Path) -> Iterator["FakeBenchy"]:
        yield self


def _no_chart(_report: Path, chart: Path) -> None:
    chart.write_bytes(b"PNG")


def run(
    what: Asked, out: Path, benchy: FakeBenchy, **options: Any
) -> tuple[SpeedReport, list[tuple[int, Sample | None]]]:
    """Measure with ``benchy`` in the place of the real one; return the report and the progress."""
    told: list[tuple[int, Sample | None]] = []
    report = measure_speed(
        what,
        out,
        start=benchy.start,
        draws=_no_chart,
        tell=lambda done, sample: told.append((done, sample)),
        **options,
    )
    return report, told


# ---- a whole run


def test_a_run_leaves_every_file_and_tells_how_far_it_is(tmp_path: Path) -> None:
    report, told = run(asked("A", "B"), tmp_path / "out", FakeBenchy())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"samples.jsonl", "report.json", "report.md", "chart.png"}
    assert [done for done, _ in told] == list(range(9))
    assert report.low_water_bytes == 4 * GIB
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written == json.loads(json.dumps(report.as_json()))


def test_the_two_endpoints_take_turns_each_with_its_own_key(tmp_path: Path) -> None:
    benchy = FakeBenchy()
    run(asked("A", "B", prompts=(256,)), tmp_path, benchy)
    assert [job["key"] for job in benchy.jobs] == [f"key-of-{name}" for name in "ABBA"]
    assert [job["warm"] for job in benchy.jobs] == [True, True, False, False]


def test_no_key_is_written(tmp_path: Path) -> None:
    run(asked("A"), tmp_path, FakeBenchy())
    assert not [path for path in tmp_path.iterdir() if b"key-of-A" in path.read_bytes()]


def test_a_failure_loses_nothing_and_resuming_asks_only_what_is_left(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="503"):
        run(asked("A"), tmp_path, FakeBenchy(until=3))
    half = json.loads((tmp_path / "report.json").read_text())
    assert any("1 batches are not measured yet" in note for note in half["notes"])
    benchy = FakeBenchy()
    report, told = run(asked("A"), tmp_path, benchy, resume=True)
    assert len(benchy.jobs) == 1
    assert benchy.jobs[0]["warm"]  # what was warm then is cold now
    assert [done for done, _ in told] == [3, 4]
    assert [point.rounds for point in report.points] == [2, 2]
    assert report.notes == ()


def test_a_whole_run_resumed_asks_nothing_and_starts_nothing(tmp_path: Path) -> None:
    first, _ = run(asked("A"), tmp_path, FakeBenchy())
    benchy = FakeBenchy(until=0)
    again, _ = run(asked("A"), tmp_path, benchy, resume=True)
    assert again == first


def test_another_measurement_is_not_mixed_in(tmp_path: Path) -> None:
    run(asked("A"), tmp_path, FakeBenchy())
    with pytest.raises(HostError, match="--resume"):
        run(asked("A"), tmp_path, FakeBenchy())
    with pytest.raises(HostError, match="decode_tokens was 128 and is 64"):
        run(asked("A", decode_tokens=64), tmp_path, FakeBenchy(), resume=True)


def test_a_grid_that_does_not_fit_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no prompt fits the context of 100 tokens"):
        run(asked("A", context=100), tmp_path, FakeBenchy())


def test_an_earlier_run_can_be_compared_with(tmp_path: Path) -> None:
    run(asked("plain"), tmp_path / "plain", FakeBenchy())
    earlier = read_points(tmp_path / "plain")
    report, _ = run(asked("ngram"), tmp_path / "ngram", FakeBenchy(), earlier=earlier)
    assert report.arms == ("plain", "ngram")
    assert [ratio.paired for ratio in report.ratios] == [False, False]
    assert {point.arm for point in read_points(tmp_path / "ngram")} == {"ngram"}


def test_comparing_with_what_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"format": 1}')
    with pytest.raises(HostError, match="is no report of a speed"):
        read_points(tmp_path)


# ---- the memory meanwhile


def test_the_low_water_is_the_least_that_was_seen() -> None:
    values = iter([5, 3, 4])
    seen_all = threading.Event()

    def available() -> int | None:
        value = next(values, None)
        if value is None:
            seen_all.set()
        return value

    with low_water(available) as lowest:
        assert seen_all.wait(10)
    assert lowest() == 3


def test_a_machine_whose_memory_cannot_be_read_has_no_low_water() -> None:
    with low_water(lambda: None) as lowest:
        pass
    assert lowest() is None


# ---- the driver as a process


SCRIPT = """
import json, os, sys
for line in sys.stdin:
    told = json.loads(line)
    if told.get("end"):
        sys.exit("it ends here")
    print(json.dumps({"got": told, "no_proxy": os.environ.get("NO_PROXY"), "pid": os.getpid(),
                      **told.get("answer", {})}), flush=True)
"""


def driver(tmp_path: Path) -> Benchy:
    command = (sys.executable, "-c", SCRIPT)
    return Benchy({"decode_tokens": 8}, tmp_path / LOG, {"NO_PROXY": "a.example"}, command=command)


def test_the_driver_answers_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with driver(tmp_path) as benchy:
        told = benchy.ask({"prompt_tokens": 5})
        assert (told["got"], told["no_proxy"]) == ({"prompt_tokens": 5}, "a.example")
    assert not Path(f"/proc/{told['pid']}").exists()


def test_what_the_driver_could_not_measure_is_said(tmp_path: Path) -> None:
    with driver(tmp_path) as benchy, pytest.raises(HostError, match="HTTP 400: too long"):
        benchy.ask({"answer": {"why": "HTTP 400: too long"}})


def test_a_driver_that_ends_is_said_with_its_last_words(tmp_path: Path) -> None:
    with driver(tmp_path) as benchy:
        with pytest.raises(HostError, match="it ends here"):
            benchy.ask({"end": True})
        with pytest.raises(HostError, match="--resume"):
            benchy.ask({"prompt_tokens": 5})


def test_an_environment_that_cannot_be_made_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="could not be made"):
        environment(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---- the command line


def chosen(*arguments: str) -> Asked:
    options = build_parser().parse_args(["bench", "speed", *arguments])
    return asked_of(options, settings_of(options))


@pytest.fixture
def here(box: ApplianceProcess, monkeypatch: pytest.MonkeyPatch) -> ApplianceProcess:
    for name, value in box.env.items():
        monkeypatch.setenv(name, value)
    return box


def test_our_own_appliance_is_asked_with_the_kept_key(
    here: ApplianceProcess, tmp_path: Path
) -> None:
    file = tmp_path / "tokenizer.json"
    what = chosen("--tokenizer", str(file), "--out", str(tmp_path / "plain"))
    (arm,) = what.targets
    assert (arm.name, arm.base_url, arm.model) == ("plain", f"{here.base_url}/v1", MODEL)
    assert arm.key == here.key("client")
    assert (what.context, what.demo, what.tokenizer) == (65536, True, str(file))
    low = arm.available()
    assert low is not None
    assert low > 0


def test_a_model_folder_without_a_tokenizer_is_said(here: ApplianceProcess) -> None:
    with pytest.raises(HostError, match="model folder") as refusal:
        chosen()
    assert str(here.folder / "model") in str(refusal.value)
    assert "--tokenizer" in str(refusal.value)


def test_the_kept_key_goes_to_no_endpoint_that_was_named(here: ApplianceProcess) -> None:
    with pytest.raises(HostError, match="refuses the key"):
        chosen(here.base_url, "--tokenizer", "x")


def test_two_endpoints_are_two_arms(here: ApplianceProcess, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(here.key("client"))
    url = here.base_url
    what = chosen("--tokenizer", "x", "--against", url, "--against-key-file", str(key))
    assert [arm.name for arm in what.targets] == ["A", "B"]
    assert what.variables == (("NO_PROXY", "127.0.0.1"),)
    with pytest.raises(SettingsError, match="--names has 1 for 2"):
        chosen("--tokenizer", "x", "--against", url, "--names", "one")
    with pytest.raises(SettingsError, match="second arm"):
        chosen("--against", url, "--compare", str(tmp_path))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--prompts", "512,none"), "'none' is no count"),
        (("--concurrency", "0"), "'0' is no count"),
        (("--names", "a,a"), "two that differ"),
    ],
    ids=["a word", "nobody", "one name twice"],
)
def test_a_wrong_flag_ends_with_2(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], named: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "speed", *flags])
    assert named in capsys.readouterr().err


def test_the_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "speed", "--help"])
    assert "  appliance bench speed --resume" in capsys.readouterr().out
