"""What outlives the sidecar is whole or not there, and speaks of this boot and this choice."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from appliance.restart import Grade, History, Reason
from appliance.settings import Settings, load_settings
from appliance.statefile import (
    MISSING,
    UNRELATED,
    Kept,
    KeptEngine,
    StateFile,
    checkpoint_id,
    choice_hash,
    fresh,
    to_json,
    write_private,
)
from tests.engines import wait_until

REPOSITORY = Path(__file__).parents[2]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
reasons = st.builds(Reason, texts, texts, texts, st.sampled_from(Grade))
moments = st.floats(0, 1e12, allow_nan=False)
ticks = st.integers(0, 2**62)
children = st.builds(KeptEngine, st.integers(0, 2**22), ticks, texts, ticks)
histories = st.builds(
    Kept,
    boot_id=texts,
    choice=texts,
    failures=st.lists(moments, max_size=5).map(tuple),
    rung=st.integers(0, 5),
    gave_up=st.none() | reasons,
    wanted=st.booleans(),
    engine=st.none() | children,
)
FULL = Kept(
    boot_id="boot",
    choice="choice",
    failures=(1.5, 2.5),
    rung=1,
    gave_up=Reason("gave_up", "what", "hint", Grade.MEMORY),
    wanted=False,
    engine=KeptEngine(1234, 5678, "token", 9),
)


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "engine.json")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- what is kept


@given(kept=histories)
def test_what_was_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, kept: Kept) -> None:
    file = StateFile(tmp_path_factory.getbasetemp() / "round-trip.json")
    assert file.save(kept) == ""
    assert file.load() == kept
    assert file.note == ""


def test_a_first_start_finds_the_defaults_and_leaves_no_trace(state: StateFile) -> None:
    with capture_logs() as logs:
        assert state.load() == Kept()
    assert (logs, state.note, names(state.path.parent)) == ([], "", set())
    assert Kept().wanted


def test_the_history_is_what_the_life_cycle_reads() -> None:
    assert FULL.history == History(FULL.failures, FULL.rung, FULL.gave_up)
    assert Kept().history == History()


def test_the_file_is_for_its_owner_alone_whatever_was_left_there(state: StateFile) -> None:
    left = state.path.with_name(".engine.json.tmp")
    left.write_text("half of something longer than the whole" * 100)
    left.chmod(0o644)
    assert state.save(FULL) == ""
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o600
    assert names(state.path.parent) == {"engine.json"}
    assert state.load() == FULL


def test_a_file_name_that_is_no_text_can_be_kept(state: StateFile) -> None:
    strange = os.fsdecode(b"/models/\xff\xfe")
    assert state.save(Kept(gave_up=Reason("model_missing", strange))) == ""
    assert state.load().gave_up == Reason("model_missing", "/models/??")


# ---- damage


def text_of(**changes: Any) -> bytes:
    return json.dumps({**msgspec.to_builtins(FULL), **changes}).encode()


ENGINE = msgspec.to_builtins(FULL.engine)
DAMAGED = {
    "empty": b"",
    "half": to_json(FULL)[:40],
    "zeros": bytes(200),
    "no text": b"\xff\xfe{}",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "huge": b" " * (2**20) + to_json(FULL),
    "version missing": b"{}",
    "version 2": text_of(version=2),
    "version true": text_of(version=True),
    "wrong type": text_of(failures="often"),
    "a null among the failures": text_of(failures=[None]),
    "a failure before the boot": text_of(failures=[-1.0]),
    "a rung below the first": text_of(rung=-1),
    "an unknown grade": text_of(gave_up={"code": "x", "grade": "fatal"}),
    "every process": text_of(engine={**ENGINE, "pid": -1}),
    "a process without a start": text_of(engine={"pid": 1234, "token": "token"}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_set_aside_noted_once_and_never_obeyed(
    state: StateFile, content: bytes
) -> None:
    state.path.write_bytes(content)
    with capture_logs() as logs:
        assert state.load() == Kept()
        assert "engine.json.damaged" in state.note
        assert state.load() == Kept()
        assert state.note == ""
    assert [entry["event"] for entry in logs] == ["state.not_read"]
    assert state.path.with_name("engine.json.damaged").read_bytes() == content
    assert state.save(FULL) == ""
    assert state.load() == FULL


@given(data=st.binary(max_size=200))
def test_no_bytes_whatever_end_the_appliance(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = StateFile(tmp_path_factory.getbasetemp() / "any-bytes.json")
    file.path.write_bytes(data)
    assert isinstance(file.load(), Kept)


@given(where=st.integers(0, len(to_json(FULL)) - 1), what=st.integers(0, 255))
def test_a_flipped_byte_gives_a_whole_state_or_the_defaults(
    tmp_path_factory: pytest.TempPathFactory, where: int, what: int
) -> None:
    file = StateFile(tmp_path_factory.getbasetemp() / "flipped.json")
    data = bytearray(to_json(FULL))
    data[where] = what
    file.path.write_bytes(data)
    kept = file.load()
    assert kept == Kept() if file.note else kept.version == 1


def test_a_field_of_a_later_minor_version_is_no_damage(state: StateFile) -> None:
    state.path.write_bytes(text_of(mood="good"))
    assert state.load() == FULL


def test_a_file_that_cannot_be_read_or_set_aside_gives_the_defaults(state: StateFile) -> None:
    state.path.mkdir()
    assert state.load() == Kept()
    assert "cannot be read" in state.note
    state.path.rmdir()
    state.path.write_text("damaged")
    in_the_way = state.path.with_name("engine.json.damaged")
    in_the_way.mkdir()
    assert state.load() == Kept()
    assert "cannot be set aside" in state.note


# ---- a folder that does not take it


def test_a_save_that_fails_leaves_the_old_state_and_says_so_once(state: StateFile) -> None:
    state.save(FULL)
    in_the_way = state.path.with_name(".engine.json.tmp")
    in_the_way.mkdir()
    with capture_logs() as logs:
        said = {state.save(Kept(rung=rung)) for rung in range(5)}
    assert said == {f"{state.path} cannot be written: Is a directory"}
    assert [entry["event"] for entry in logs] == ["state.not_written"]
    assert state.load() == FULL
    in_the_way.rmdir()
    assert state.save(Kept()) == ""
    assert state.load() == Kept()


def test_each_kind_of_trouble_is_logged(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state" / "engine.json")
    with capture_logs() as logs:
        assert "No such file" in state.save(FULL)
        state.path.parent.touch()
        assert "Not a directory" in state.save(FULL)
        assert state.save(FULL)
    assert len(logs) == 2


def test_a_folder_in_the_place_of_the_file_is_no_crash_and_leaves_no_rest(
    state: StateFile,
) -> None:
    state.path.mkdir()
    assert "cannot be written" in state.save(FULL)
    assert names(state.path.parent) == {"engine.json"}


def test_a_symlink_under_the_temporary_name_is_not_followed(state: StateFile) -> None:
    victim = state.path.with_name("victim")
    victim.write_text("precious")
    state.path.with_name(".engine.json.tmp").symlink_to(victim)
    assert "cannot be written" in state.save(FULL)
    assert victim.read_text() == "precious"


LIMITED = """
import resource, sys
from pathlib import Path
from appliance.statefile import Kept, StateFile
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
print(StateFile(Path(sys.argv[1])).save(Kept(choice="x" * 1000)))
"""


def test_a_write_that_ends_in_the_middle_leaves_the_old_state(state: StateFile) -> None:
    state.save(FULL)
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, str(state.path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "File too large" in said
    assert state.load() == FULL
    assert names(state.path.parent) == {"engine.json"}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount program")
    if done.returncode:
        pytest.skip("this user may not mount a tmpfs")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(folder)], timeout=30, check=True)
        yield folder


def test_a_full_or_read_only_disk_leaves_the_old_state(tiny_disk: Path) -> None:
    state = StateFile(tiny_disk / "engine.json")
    state.save(FULL)
    hog = tiny_disk / "hog"
    with hog.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert "No space left" in state.save(Kept())
    assert state.load() == FULL
    assert names(tiny_disk) == {"engine.json", "hog"}
    hog.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], timeout=30, check=True)
    assert "Read-only file system" in state.save(Kept())
    assert state.load() == FULL


WRITER = """
import sys
from pathlib import Path
from appliance.statefile import Kept, StateFile
file = StateFile(Path(sys.argv[1]))
n = 0
while not file.save(Kept(rung=n, choice=str(n) * (n % 5000))):
    n += 1
"""


def test_a_kill_in_the_middle_of_saves_never_leaves_half_a_state(state: StateFile) -> None:
    seen = -1
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(state.path)], cwd=REPOSITORY)
        try:
            wait_until(lambda: 20 < state.load().rung != seen, 60, "the writer to be at work")  # noqa: B023
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait(timeout=30)
        kept = state.load()
        assert (state.note, kept.choice) == ("", str(kept.rung) * (kept.rung % 5000))
        seen = kept.rung
        state.save(Kept())


def test_saves_of_many_threads_at_once_leave_one_of_them_whole(state: StateFile) -> None:
    saved = [Kept(choice=str(n) * 5000 * (n % 2 + 1)) for n in range(200)]
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(state.save, saved)) == {""}
    assert state.load() in saved
    assert names(state.path.parent) == {"engine.json"}


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"


# ---- what still holds


@given(kept=histories, boot_id=texts, choice=texts)
def test_what_is_fresh_stays_fresh_and_what_is_wanted_stays_wanted(
    kept: Kept, boot_id: str, choice: str
) -> None:
    now = fresh(kept, boot_id, choice)
    assert (now.boot_id, now.choice, now.wanted) == (boot_id, choice, kept.wanted)
    assert fresh(now, boot_id, choice) == now


@given(kept=histories)
def test_the_same_boot_and_choice_forgive_nothing(kept: Kept) -> None:
    assert fresh(kept, kept.boot_id, kept.choice) == kept


@given(kept=histories, other=texts)
def test_another_choice_forgives_and_still_knows_the_engine(kept: Kept, other: str) -> None:
    now = fresh(kept, kept.boot_id, kept.choice + "+" + other)
    assert now.history == History()
    assert now.engine == kept.engine


@given(kept=histories, other=texts)
def test_another_boot_forgives_and_forgets_the_engine(kept: Kept, other: str) -> None:
    now = fresh(kept, kept.boot_id + "+" + other, kept.choice)
    assert now.history == History()
    assert now.engine is None


# ---- the fingerprint of the choice

CHOSEN = load_settings({}).model_dump(mode="json")
values = st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=3)


def hash_of(**changes: Any) -> str:
    return choice_hash({**CHOSEN, **changes}, "checkpoint", "image")


@given(order=st.permutations(sorted(CHOSEN)))
def test_the_order_of_settings_does_not_matter(order: list[str]) -> None:
    assert choice_hash({name: CHOSEN[name] for name in order}, "checkpoint", "image") == hash_of()


def test_the_order_within_a_table_does_not_matter() -> None:
    one, other = {"temperature": 1.0, "top_p": 0.9}, {"top_p": 0.9, "temperature": 1.0}
    assert hash_of(sampling=one) == hash_of(sampling=other) != hash_of()


@pytest.mark.parametrize("name", sorted(set(CHOSEN) - set(UNRELATED)))
@given(value=values)
def test_each_setting_of_the_engine_is_part_of_the_choice(name: str, value: object) -> None:
    same = json.dumps(value) == json.dumps(CHOSEN[name])
    assert (hash_of(**{name: value}) == hash_of()) == same


@pytest.mark.parametrize("name", sorted(UNRELATED))
@given(value=values)
def test_secrets_and_the_appliances_own_settings_are_no_part_of_it(
    name: str, value: object
) -> None:
    assert hash_of(**{name: value}) == hash_of()
    assert UNRELATED[name], "each has its reason"


def test_what_is_left_out_are_settings() -> None:
    assert set(UNRELATED) <= set(Settings.model_fields)


def test_checkpoint_and_image_are_part_of_the_choice_each_in_its_place() -> None:
    pairs = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab"), ("a", "c"), ("c", "b")]
    assert len({choice_hash(CHOSEN, *pair) for pair in pairs}) == len(pairs)


def test_the_choice_is_the_same_in_every_process_and_of_every_dump() -> None:
    plain = choice_hash({"model_dir": "/models/Nikola", "args": ["a"]}, "c", "i")
    assert plain == choice_hash({"args": ("a",), "model_dir": Path("/models/Nikola")}, "c", "i")
    assert len(plain) == 64
    text = b'{"checkpoint":"c","image":"i","settings":{}}'
    assert choice_hash({}, "c", "i") == hashlib.sha256(text).hexdigest()


# ---- the fingerprint of the checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text("{}")
    for number in (1, 2):
        (folder / f"model-{number}.safetensors").write_bytes(b"x" * number)
    return folder


CHANGES = {
    "config": lambda folder: (folder / "config.json").write_text("{ }"),
    "config gone": lambda folder: (folder / "config.json").unlink(),
    "config empty": lambda folder: (folder / "config.json").write_text(""),
    "index": lambda folder: (folder / "model.safetensors.index.json").write_text("{ }"),
    "index gone": lambda folder: (folder / "model.safetensors.index.json").unlink(),
    "shard longer": lambda folder: (folder / "model-1.safetensors").write_bytes(b"xxx"),
    "shard gone": lambda folder: (folder / "model-1.safetensors").unlink(),
    "shard broken": lambda folder: (folder / "model-3.safetensors").symlink_to("nowhere"),
    "shard new": lambda folder: (folder / "model-3.safetensors").touch(),
    "shard renamed": lambda folder: (folder / "model-1.safetensors").rename(
        folder / "model-3.safetensors"
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_another_checkpoint_is_seen(checkpoint: Path, change: Any) -> None:
    before = checkpoint_id(checkpoint)
    change(checkpoint)
    assert checkpoint_id(checkpoint) != before


def test_what_the_engine_does_not_load_is_no_part_of_it(checkpoint: Path) -> None:
    before = checkpoint_id(checkpoint)
    (checkpoint / "README.md").touch()
    os.utime(checkpoint / "model-1.safetensors", (0, 0))
    assert checkpoint_id(checkpoint) == before
    moved = checkpoint.rename(checkpoint.with_name("elsewhere"))
    assert checkpoint_id(moved) == before


def test_a_shard_that_is_linked_counts_as_what_it_links_to(checkpoint: Path) -> None:
    before = checkpoint_id(checkpoint)
    blob = checkpoint.with_name("blob")
    (checkpoint / "model-1.safetensors").rename(blob)
    (checkpoint / "model-1.safetensors").symlink_to(blob)
    assert checkpoint_id(checkpoint) == before


def test_a_missing_folder_is_stable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert checkpoint_id(tmp_path / "none") == checkpoint_id(tmp_path / "file") == MISSING


def test_an_empty_folder_is_no_missing_one(tmp_path: Path) -> None:
    assert len(checkpoint_id(tmp_path)) == 64
