"""What is gathered for a report: settings with their origins, lines once more sifted, samples."""

import json
import threading
from pathlib import Path

import pytest

from appliance.accept.gather import in_force, shown_lines
from appliance.accept.keptstate import read_kept
from appliance.accept.run import read_doctor
from appliance.accept.sampler import Sampler
from appliance.errors import SettingsError
from appliance.settings import SECRETS, load_settings
from appliance.statefile import ENGINE_FILE, Kept, StateFile


def rows(**chosen: object) -> dict[str, tuple[object, str]]:
    settings = load_settings({}, {"profile": "demo", **chosen})
    told = in_force(settings.model_dump(mode="json"))
    return {row["name"]: (row["value"], row["origin"]) for row in told}


def test_a_running_appliances_settings_say_where_they_can_only_be_from() -> None:
    found = rows(port=9100)
    assert found["port"] == (9100, "chosen")
    assert found["profile"] == ("demo", "chosen")
    assert found["max_num_seqs"][1].startswith("box profile demo")
    assert found["listen"] == ("loopback", "default")


def test_a_key_among_the_settings_is_only_said_to_be_set() -> None:
    found = rows(api_key="k3y-0123456789", operator_key="0p3rator-key-0123456789")
    assert found["api_key"][0] == found["operator_key"][0] == "(set)"
    assert found["engine_key"][0] is None
    shown = json.dumps(list(found.values()))
    assert "k3y" not in shown
    assert "0p3r" not in shown
    assert set(SECRETS) <= set(found)


def test_lines_of_an_engine_that_logs_prompts_are_sifted_once_more() -> None:
    lines = ["INFO 11-23 10:00:00 [logger.py:40] Received request: prompt: 'my secret merger'"]
    assert shown_lines(lines, talks=False) == lines
    (sifted,) = shown_lines(lines, talks=True)
    assert "merger" not in sifted


def test_a_damaged_state_is_read_as_none_and_left_as_it_is(tmp_path: Path) -> None:
    assert read_kept(tmp_path) is None
    file = tmp_path / ENGINE_FILE
    StateFile(file).save(Kept(rung=2))
    kept = read_kept(tmp_path)
    assert kept is not None
    assert kept.rung == 2
    file.write_bytes(b"{half")
    assert read_kept(tmp_path) is None
    assert file.read_bytes() == b"{half"


def test_the_doctors_answer_of_another_host_is_taken_and_another_text_refused(
    tmp_path: Path,
) -> None:
    row = {"name": "disk", "level": "ok", "value": "50 GiB", "next": ""}
    file = tmp_path / "doctor.json"
    file.write_text(json.dumps({"ok": True, "rows": [row]}))
    assert list(read_doctor(str(file))) == [row]
    for text in ("", "[]", '{"rows": [{"name": "disk"}]}'):
        file.write_text(text)
        with pytest.raises(SettingsError, match="not the doctor's answer"):
            read_doctor(str(file))


def test_samples_have_both_ends_and_what_lies_between() -> None:
    values = iter(range(100, -(10**9), -1))
    seen = threading.Event()

    def read() -> int | None:
        value = next(values)
        if value == 95:
            seen.set()
        return value

    with Sampler(read, every_s=0.001) as sampler:
        assert seen.wait(10)
    sizes = [available for _, available in sampler.samples]
    assert sizes[0] == 100
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) >= 6


def test_a_memory_that_cannot_be_seen_has_no_low_water() -> None:
    with Sampler(lambda: None) as sampler:
        assert sampler.low_water is None
    assert sampler.samples == ()
