"""Facts from a file: read as they are written, or refused with the field and the value."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from appliance.errors import SettingsError
from appliance.facts import EarlyOom, Evictable, HostFacts, SwapDevice
from appliance.factsfile import read_host, read_model
from tests.plans import golden_model

GIB = 2**30
HOST = HostFacts(
    machine="aarch64",
    cpu_count=20,
    memory_total_bytes=120 * GIB,
    memory_available_bytes=100 * GIB,
    memory_free_bytes=50 * GIB,
    swap=(SwapDevice("/swap.img", "file", 16 * GIB, 1 * GIB),),
    hugepages_bytes=GIB,
    earlyoom=EarlyOom(2 * GIB, GIB),
    desktop=("gnome-shell (1)",),
    gpu_users=("python (2)",),
    evictable=(Evictable("user.slice", 3 * GIB),),
    kernel="6.17.0",
)


def refusal(**changes: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        read_host(json.dumps({**asdict(HOST), **changes}), "spark.json")
    assert caught.value.hint
    assert caught.value.what.startswith("spark.json: ")
    return caught.value.what


def test_a_host_is_read_as_it_was_written() -> None:
    assert read_host(json.dumps(asdict(HOST)), "f") == HOST


@pytest.mark.parametrize("name", ["nikola", "demo", "qwen3.5-122b"])
def test_a_model_is_read_as_it_was_written(name: str) -> None:
    model = golden_model(name)
    text = json.dumps({**asdict(model), "folder": str(model.folder)})
    assert read_model(text, "f") == model


def test_what_is_left_out_is_as_if_it_were_not_seen() -> None:
    names = ("machine", "cpu_count", "memory_total_bytes", "memory_available_bytes")
    least = {name: getattr(HOST, name) for name in names}
    assert read_host(json.dumps(least), "f") == HostFacts(*least.values())


def test_a_size_may_have_a_unit_and_the_file_may_say_what_it_is_about() -> None:
    text = json.dumps({**asdict(HOST), "memory_total_bytes": "121.69 GiB", "about": "a Spark"})
    assert read_host(text, "f").memory_total_bytes == round(121.69 * GIB)


def test_nothing_to_see_is_null() -> None:
    assert read_host(json.dumps({**asdict(HOST), "earlyoom": None}), "f").earlyoom is None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"memory": 3}, "memory is not known; known: machine, cpu_count"),
    "a text": ({"cpu_count": "many"}, "cpu_count='many' is no number"),
    "a fraction": ({"cpu_count": 1.5}, "cpu_count=1.5 is no number"),
    "truth": ({"cpu_count": True}, "cpu_count=True is no number"),
    "negative": ({"memory_free_bytes": -1}, "memory_free_bytes=-1 is no number of 0 or more"),
    "no size": ({"memory_free_bytes": "lots"}, "memory_free_bytes: 'lots' is no size"),
    "null": ({"machine": None}, "machine=None is no text"),
    "a list for a text": ({"kernel": ["6"]}, "kernel=['6'] is no text"),
    "too large": ({"memory_free_bytes": "9" * 400}, "memory_free_bytes: '9999"),
    "a number too large": ({"cpu_count": 10**400}, "cpu_count is too large"),
    "no list": ({"swap": {}}, "swap={} is no list"),
    "no object in it": ({"swap": ["/swap.img"]}, "swap[0] is no JSON object"),
    "unknown in it": ({"swap": [{"name": "a", "path": "b"}]}, "swap[0].path is not known"),
    "missing in it": ({"swap": [{"name": "a"}]}, "swap[0].kind is missing"),
    "ill-typed in it": ({"desktop": ["a", 1]}, "desktop[1]=1 is no text"),
    "negative in it": ({"earlyoom": {"term_bytes": -1}}, "earlyoom.term_bytes=-1"),
    "no kind of swap": (
        {"swap": [{"name": "a", "kind": "Zram", "size_bytes": 1}]},
        "swap[0].kind='Zram' is none of disk, file, zram",
    ),
    "more than all": ({"memory_available_bytes": 121 * GIB}, "is more than memory_total_bytes"),
    "none at all": ({"memory_total_bytes": 0, "memory_available_bytes": 0}, "is 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_value_is_named_with_its_place(case: str) -> None:
    changes, says = REFUSED[case]
    assert says in refusal(**changes)


def test_what_must_be_there_is_named() -> None:
    with pytest.raises(SettingsError, match="machine is missing"):
        read_host("{}", "f")


@pytest.mark.parametrize("text", ["", "{", "\0", "[" * 100_000])
def test_a_file_that_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(SettingsError, match="f: is no JSON"):
        read_host(text, "f")


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"'])
def test_a_file_that_is_no_object_is_said_to_be_none(text: str) -> None:
    with pytest.raises(SettingsError, match="f: it is no JSON object"):
        read_host(text, "f")


def layers(**changes: Any) -> str:
    cache = [{"kind": "full", "count": 62, **changes}]
    return json.dumps({**asdict(golden_model("nikola")), "folder": "/m", "cache": cache})


def test_a_kind_of_layers_that_is_none_is_named() -> None:
    with pytest.raises(SettingsError, match="'whole' is none of full, sliding, linear"):
        read_model(layers(kind="whole"), "f")


def test_a_pair_of_the_wrong_length_is_named() -> None:
    facts = {**asdict(golden_model("nikola")), "folder": "/m", "weights_by_dtype": [["U8"]]}
    with pytest.raises(SettingsError, match="has 1 entries instead of 2"):
        read_model(json.dumps(facts), "f")
