"""Each start compares the engine's tokens with its tokenizer.json, beside its work."""

from pathlib import Path
from textwrap import indent

from tests.appliances import WITHIN_S, RunAppliance, metric
from tests.engines import FAKE, wait_until
from tests.idreaders import BYTES, program

HANGS = "import time\nwhile True: time.sleep(1)\n"


def command(folder: Path, reads: str) -> str:
    """Return an engine command whose Python reads the reference as ``reads`` says."""
    body = (
        "import os, sys\n"
        "if sys.argv[-1].endswith('rawtokenizer.py'):\n"
        f"{indent(reads, '    ')}"
        "else:\n"
        "    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    return f"{program(folder, body)} {FAKE}"


def test_a_drift_is_warned_of_and_counted_and_the_engine_serves(
    run: RunAppliance, tmp_path: Path
) -> None:
    appliance = run(engine_command=command(tmp_path, BYTES))
    (tmp_path / "box0" / "model" / "tokenizer.json").write_text("{}")
    appliance.until("ready")
    with appliance.http() as http:

        def counted() -> bool:
            text = http.get("/metrics").text
            return metric(text, "appliance_tokenizer_mismatches") >= 100

        wait_until(counted, WITHIN_S, "the mismatches of the fake engine's own tokens")
    assert "tokenizer.drift" in appliance.err
    assert "tokenizer_config.json" in appliance.err
    assert appliance.status()["state"] == "ready"


def test_what_was_not_compared_is_no_zero(run: RunAppliance) -> None:
    appliance = run()  # its Python has no tokenizers library
    appliance.until("ready")
    wait_until(lambda: "tokenizer.not_checked" in appliance.err, WITHIN_S, "the reason")
    with appliance.http() as http:
        assert "appliance_tokenizer_mismatches NaN" in http.get("/metrics").text


def test_the_appliance_ends_in_the_middle_of_a_check(run: RunAppliance, tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    reads = f"open({str(mark)!r}, 'w').close()\n{HANGS}"
    appliance = run(engine_command=command(tmp_path, reads))
    (tmp_path / "box0" / "model" / "tokenizer.json").write_text("{}")
    appliance.until("ready")
    wait_until(mark.exists, WITHIN_S, "the check to begin")
    appliance.process.terminate()
    assert appliance.code() == 0  # and the leak check finds no program
