"""The last incidents are kept, bounded in number and size, and never in the way."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from appliance.incidents import (
    LIMIT_BYTES,
    LINE_CHARS,
    Incident,
    IncidentPlan,
    IncidentStore,
    encode,
    is_incident_id,
)

NIGHT = datetime(2026, 11, 23, 4, 15, tzinfo=UTC)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**60), 2**60)
incidents = st.builds(
    Incident,
    id=st.just("20261123T041500-3"),
    at=texts,
    spawn=numbers,
    state=texts,
    code=texts,
    grade=texts,
    what=texts,
    hint=texts,
    phase=texts,
    uptime_s=st.floats(0, 1e9),
    exit=texts,
    next=texts,
    memory=st.dictionaries(texts, st.dictionaries(texts, numbers, max_size=3), max_size=3),
    plan=st.builds(
        IncidentPlan,
        st.lists(texts, max_size=5).map(tuple),
        st.dictionaries(texts, texts, max_size=3),
    ),
    requests_running=numbers,
    requests_waiting=numbers,
    lines=st.lists(texts, max_size=5).map(tuple),
    stacks=st.dictionaries(texts, texts, max_size=3),
    metrics=st.dictionaries(texts, st.none() | st.floats(-1e300, 1e300), max_size=3),
)
# Small in characters, and six times as long as JSON; or file names that are no text.
LETTERS = ("x", "\x00", '"', "é", "🧠", "\udcff")


def incident(incident_id: str = "20261123T041500-3", **fields: Any) -> Incident:
    return Incident(
        id=incident_id,
        at="2026-11-23T04:15:00Z",
        spawn=3,
        state="ready",
        code="engine_died",
        grade="transient",
        what="the engine ended while serving",
        **fields,
    )


@pytest.fixture
def store(tmp_path: Path) -> IncidentStore:
    return IncidentStore(tmp_path / "incidents")


@pytest.fixture(scope="module")
def shared_store() -> Iterator[IncidentStore]:
    """A store for properties, which need no fresh one."""
    with ExitStack() as stack:
        yield IncidentStore(Path(stack.enter_context(TemporaryDirectory())) / "incidents")


def ids(store: IncidentStore) -> list[str]:
    return [one.id for one in store.list()]


# ---- round trip


@given(one=incidents)
def test_what_was_saved_is_found(shared_store: IncidentStore, one: Incident) -> None:
    assert shared_store.save(one) == ""
    assert shared_store.get(one.id) == one
    assert shared_store.list() == [one]


def test_folder_and_files_are_for_their_owner_alone(store: IncidentStore) -> None:
    store.folder.mkdir(mode=0o755)
    assert store.save(incident()) == ""
    (file,) = store.folder.iterdir()
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_bytes())["code"] == "engine_died"


def test_a_number_that_is_none_is_kept_as_unknown(store: IncidentStore) -> None:
    store.save(incident(metrics={"load": float("nan"), "rate": float("inf"), "ok": 1.0}))
    assert store.list()[0].metrics == {"load": None, "rate": None, "ok": 1.0}


# ---- bounded in size


@given(
    letters=st.lists(st.sampled_from(LETTERS), min_size=4, max_size=4),
    line_count=st.integers(0, 600),
    line_chars=st.integers(0, 5000),
    stack_count=st.integers(0, 60),
    stack_chars=st.integers(0, 60_000),
    word_count=st.integers(0, 300),
)
@settings(max_examples=30)
def test_no_incident_is_too_large_and_each_can_be_read(
    letters: list[str],
    line_count: int,
    line_chars: int,
    stack_count: int,
    stack_chars: int,
    word_count: int,
) -> None:
    line, stack, word, text = letters
    large = msgspec.structs.replace(
        incident(
            lines=(line * line_chars,) * line_count,
            stacks={f"{n}{stack * 300}": stack * stack_chars for n in range(stack_count)},
            plan=IncidentPlan((word * 300,) * word_count, {f"{n}": word for n in range(300)}),
            metrics={f"{word}{n}": 1.0 for n in range(word_count * 10)},
            memory={"before": {f"{word}{n}": n for n in range(word_count * 10)}},
            hint=text * 9000,
            phase=text * 9000,
            exit=text * 9000,
            next=text * 9000,
        ),
        **dict.fromkeys(("at", "state", "code", "grade", "what"), text * 9000),
    )
    data = encode(large)
    assert len(data) <= LIMIT_BYTES
    read = msgspec.json.decode(data, type=Incident)
    assert (read.id, read.spawn) == (large.id, large.spawn)
    # stacks as large as they like leave the log its share
    assert bool(read.lines) == bool(line_count)


def test_the_log_is_cut_from_its_front_to_fill_the_file() -> None:
    lines = tuple(f"line {n} {'x' * 1000}" for n in range(1000))
    data = encode(incident(lines=lines))
    kept = msgspec.json.decode(data, type=Incident).lines
    assert LIMIT_BYTES - 1100 < len(data) <= LIMIT_BYTES
    assert kept == lines[-len(kept) :]


def test_a_long_line_keeps_its_front() -> None:
    read = msgspec.json.decode(encode(incident(lines=("ab" * 2000,))), type=Incident)
    assert read.lines == ("ab" * (LINE_CHARS // 2 - 1) + "a…",)


def test_long_stacks_keep_their_end_and_each_process_its_share() -> None:
    stacks = {f"{n} VLLM::Worker": "old\n" * 50_000 + f"main thread {n}" for n in range(4)}
    read = msgspec.json.decode(encode(incident(stacks=stacks, lines=("last",))), type=Incident)
    assert read.stacks.keys() == stacks.keys()
    for n, text in enumerate(read.stacks.values()):
        assert text.startswith("(cut)\n")
        assert text.endswith(f"main thread {n}")
        assert len(text) > 20_000
    assert read.lines == ("last",)


def test_a_usual_incident_is_kept_word_for_word() -> None:
    usual = incident(
        hint="type this",
        lines=tuple(f"INFO 11-23 04:15:00 [core.py:{n}] loading" for n in range(200)),
        stacks={"12 VLLM::EngineCor": "Thread 0x1\n  File x\n" * 50},
        plan=IncidentPlan(("vllm", "serve", "/models/Nikola"), {"HF_HUB_OFFLINE": "1"}),
    )
    assert msgspec.json.decode(encode(usual), type=Incident) == usual


def test_file_names_that_are_no_text_are_kept_as_far_as_they_are(store: IncidentStore) -> None:
    strange = os.fsdecode(b"/models/\xff")
    assert store.save(incident(plan=IncidentPlan((strange,), {strange: strange}))) == ""
    assert store.list()[0].plan == IncidentPlan(("/models/?",), {"/models/?": "/models/?"})


# ---- bounded in number


@given(count=st.integers(0, 9), keep=st.integers(1, 6))
@settings(max_examples=20)
def test_the_newest_are_kept_and_come_first(count: int, keep: int) -> None:
    with TemporaryDirectory() as folder:
        store = IncidentStore(Path(folder) / "incidents", keep)
        saved = []
        for n in range(count):
            saved.append(store.new_id(NIGHT + timedelta(minutes=n), n))
            assert store.save(incident(saved[-1])) == ""
        assert ids(store) == saved[::-1][:keep]
        assert count == 0 or len(list(store.folder.iterdir())) == min(count, keep)


def test_what_is_not_an_incident_is_left_alone(store: IncidentStore) -> None:
    store.folder.mkdir()
    for name in ("notes.txt", "mine.json", "20261123T041500.json"):
        (store.folder / name).touch()
    for n in range(9):
        store.save(incident(store.new_id(NIGHT, n)))
    assert len(list(store.folder.iterdir())) == 3 + store.keep


def test_what_a_killed_appliance_left_half_written_is_deleted(store: IncidentStore) -> None:
    store.folder.mkdir()
    (store.folder / ".20261123T041400-2.json.tmp").write_text("{")
    store.save(incident())
    assert [path.name for path in store.folder.iterdir()] == ["20261123T041500-3.json"]


# ---- ids


def test_an_id_tells_the_moment_in_utc_and_the_spawn(store: IncidentStore) -> None:
    there = NIGHT.astimezone(timezone(timedelta(hours=9)))
    assert store.new_id(NIGHT, 3) == store.new_id(there, 3) == "20261123T041500-3"


@given(steps=st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 12)), max_size=15))
@settings(max_examples=50)
def test_ids_are_unique_and_in_order_whatever_the_clock_does(steps: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        store = IncidentStore(Path(folder) / "incidents", keep=3)
        saved: list[str] = []
        for seconds, spawn in steps:
            saved.append(store.new_id(NIGHT + timedelta(seconds=seconds), spawn))
            assert is_incident_id(saved[-1])
            store.save(incident(saved[-1]))
            assert ids(store) == saved[::-1][:3]
        assert len(set(saved)) == len(saved)


def test_a_tenth_spawn_is_newer_than_a_ninth_of_the_same_second(store: IncidentStore) -> None:
    for spawn in (9, 10):
        store.save(incident(store.new_id(NIGHT, spawn)))
    assert ids(store) == ["20261123T041500-10", "20261123T041500-9"]


OUTSIDE = (
    *("", ".", "..", "../outside", "../incidents/20261123T041500-3", "/etc/passwd"),
    *("20261123T041500-3.json", "20261123T041500-3\n", "20261123T041500-3\0", "20261123T041500-"),
    *(
        "20261123T041500-3/..",
        "2026112\N{FULLWIDTH DIGIT THREE}T041500-3",
        "20261123T041500--3",
        " 20261123T041500-3",
    ),
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_other_name_is_looked_up_or_written(store: IncidentStore, name: str) -> None:
    store.save(incident())
    (store.folder.parent / "outside.json").write_bytes(encode(incident("../outside")))
    assert store.get(name) is None
    with pytest.raises(ValueError, match="no incident id"):
        store.save(incident(name))


@given(name=st.text(max_size=40))
def test_an_id_is_safe_as_a_file_name(name: str) -> None:
    assert not is_incident_id(name) or set(name) <= set("0123456789T-")


def test_an_unknown_id_is_none(store: IncidentStore) -> None:
    assert store.get("20261123T041500-3") is None
    assert store.list() == []


# ---- damage, and a store that does not take it


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        encode(incident())[:100],
        encode(incident("20261123T041500-4")),
        encode(incident()) + b" " * LIMIT_BYTES,
    ],
    ids=["empty", "nothing", "no text", "deep", "half", "another's", "huge"],
)
def test_a_damaged_incident_is_skipped(store: IncidentStore, content: bytes) -> None:
    older = "20261123T041459-2"
    store.save(incident(older))
    (store.folder / "20261123T041500-3.json").write_bytes(content)
    assert ids(store) == [older]
    assert store.get("20261123T041500-3") is None


def test_a_folder_in_the_way_of_a_write_is_told_once_and_harms_no_other(
    store: IncidentStore,
) -> None:
    store.save(incident("20261123T041459-2"))
    (store.folder / ".20261123T041500-3.json.tmp").mkdir()
    with capture_logs() as logs:
        for _ in range(3):
            assert "Is a directory" in store.save(incident())
    assert [entry["event"] for entry in logs] == ["incident.not_written"]
    assert ids(store) == ["20261123T041459-2"]


def test_a_store_without_a_folder_never_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "a" / "b"):
        store = IncidentStore(folder)
        assert str(folder) in store.save(incident())
        assert store.list() == []
        assert store.get(store.new_id(NIGHT, 1)) is None
