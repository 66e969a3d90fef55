"""What a token reads, as plan, doctor and model info say it, and as the README's table has it.

``UPDATE_GOLDEN=1 pytest tests/unit/test_decodeview.py`` writes the README's table anew.
"""

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.folder import read_model_facts
from appliance.checkpoint.source import LocalSource
from appliance.checkpoint.sourcefacts import source_facts
from appliance.decode import GB, DecodePlan, plan_decode
from appliance.decodeview import COMPUTED, decode_line, decode_text, format_decimal
from appliance.doctor.modelrows import decode_row
from appliance.doctor.row import Level
from appliance.modelinfo import print_info
from appliance.planview import print_plan
from appliance.settings import load_settings
from tests.checkpointbox import SMALL, build
from tests.engines import ROOT
from tests.plans import GOLDEN, golden_model
from tests.trueshapes import true_facts, write_headers

README = ROOT / "README.md"
BEGIN, END = "<!-- bytes table -->\n", "<!-- end of bytes table -->\n"
FP8 = "fp8-per-channel"
ROWS = (
    ("bf16, as published", "bf16", "bf16"),
    ("FP8 by channel, head in bf16", FP8, "bf16"),
    ("FP8 by channel", FP8, FP8),
    ("MXFP8", "mxfp8", "mxfp8"),
    ("NVFP4 weight-only, head in bf16", "nvfp4-weight-only", "bf16"),
    ("NVFP4 weight-only", "nvfp4-weight-only", "nvfp4-weight-only"),
)
CONTEXT = 27_648  # of the golden Spark's plan
SETTINGS = load_settings({})


def decode(attention: str = "bf16", head: str = "bf16", **variables: str) -> DecodePlan:
    model = true_facts(attention, head)
    chosen = load_settings({f"APPLIANCE_{name}": value for name, value in variables.items()})
    made = plan_decode(chosen, model, CONTEXT)
    assert made is not None
    return made


def table() -> str:
    lines = [
        "| attention and head | experts | attention | head | routers | a token (computed) "
        "| tokens/s at most, expected (computed) | with 27,648 tokens in the cache | KV tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, attention, head in ROWS:
        plan = decode(attention, head)
        parts = " | ".join(f"{part.token_bytes / GB:.2f}" for part in plan.parts[:4])
        empty, full = (f"{rate.tokens_per_s:.1f}, {rate.expected_per_s:.1f}" for rate in plan.rates)
        gained = f"+{plan.more_kv_tokens:,}" if plan.more_kv_tokens else "0"
        total = format_decimal(plan.token_bytes)
        lines.append(f"| {name} | {parts} | {total} | {empty} | {full} | {gained} |")
    return "\n".join(lines) + "\n"


def test_the_readmes_table_is_the_computed_one() -> None:
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    shown, mark, tail = rest.partition(END)
    assert mark, "the README has lost the marks around its table of bytes"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        README.write_text(head + BEGIN + table() + END + tail, encoding="utf-8")
        return
    assert shown == table()


# ---- what is said


@pytest.mark.parametrize(("attention", "head"), [row[1:] for row in ROWS])
def test_all_that_is_said_is_called_computed(attention: str, head: str) -> None:
    plan = decode(attention, head)
    assert COMPUTED in decode_text(plan).splitlines()[0]
    assert decode_line(plan).endswith("; computed")


def test_an_empty_and_a_full_cache_have_a_line_each() -> None:
    text = decode_text(decode())
    assert "25.3 tokens/s at most, 17.7 expected, with nothing in the KV cache" in text
    assert "19.1 tokens/s at most, 13.4 expected, with 27,648 tokens in the KV cache" in text
    assert "APPLIANCE_MEMORY_BANDWIDTH_GB_S" in text


def test_the_types_of_a_part_are_those_that_are_stored() -> None:
    lines = {line.split()[0]: line for line in decode_text(decode(FP8, "mxfp8")).splitlines()}
    assert "F8_E4M3 + F32" in lines["attention"]
    assert "F8_E4M3 + U8" in lines["head"]
    assert "U8 + F8_E4M3, 8 of 192 a layer" in lines["experts"]


def test_what_is_saved_is_said_only_where_something_is() -> None:
    assert "against attention and head in bf16" not in decode_text(decode())
    assert "3.1 GiB against attention and head in bf16, room for 26,315 more" in (
        decode_text(decode(FP8, FP8))
    )


def test_what_drafts_cost_is_said_where_they_are_chosen() -> None:
    assert "drafts" not in decode_text(decode())
    text = decode_text(decode(SPECULATION="ngram"))
    assert "a step that checks 4 reads about 25.01 GB" in text
    assert "it pays from 2.3 tokens a step" in text


def test_another_memory_has_another_roofline() -> None:
    assert "50.6 tokens/s at most" in decode_text(decode(MEMORY_BANDWIDTH_GB_S="546"))


def test_without_a_bandwidth_no_speed_is_said() -> None:
    model = golden_model("demo")
    plan = plan_decode(load_settings({"APPLIANCE_PROFILE": "demo"}), model)
    assert plan is not None
    assert "tokens/s" not in decode_text(plan) + decode_line(plan)


@given(st.integers(0, 10**12))
def test_a_size_is_said_to_a_hundredth_of_its_unit(size: int) -> None:
    number, unit = format_decimal(size).split()
    scale = {"GB": 10**9, "MB": 10**6, "kB": 10**3}[unit]
    assert float(number) * scale == pytest.approx(size, abs=scale / 190)


# ---- the commands


def test_the_doctor_says_it_in_one_line() -> None:
    row = decode_row(SETTINGS, true_facts(FP8, FP8))
    assert row is not None
    assert (row.name, row.level) == ("decode", Level.OK)
    for words in ("7.45 GB a token", "attention 2.73 GB", "36.7 tokens/s at most at 273 GB/s"):
        assert words in row.value
    assert "26,315 more KV tokens" in row.value


def test_the_doctor_says_nothing_of_a_model_whose_parts_are_not_known() -> None:
    assert decode_row(SETTINGS, golden_model("qwen3.5-122b")) is None


def test_the_doctor_says_it_also_where_the_cache_is_not_computable() -> None:
    row = decode_row(SETTINGS, replace(true_facts(), cache=()))
    assert row is not None
    assert "10.79 GB a token" in row.value


def test_model_info_says_it_of_a_folder_whether_it_fits_this_machine_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_headers(tmp_path, FP8, FP8)  # 100 GB of holes, and the real model's headers
    assert print_info(str(tmp_path), SETTINGS, as_json=False) == 0
    out = capsys.readouterr().out
    assert COMPUTED in out
    assert "36.7 tokens/s at most, 25.7 expected, with nothing in the KV cache" in out
    assert "room for 26,315 more KV tokens" in out


def test_model_info_says_it_to_programs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(tmp_path / "box", replace(SMALL, form="nvfp4"))
    assert print_info(str(folder), SETTINGS, as_json=True) == 0
    view = json.loads(capsys.readouterr().out)
    read = sum(part["token_bytes"] for part in view["decode"]["parts"])
    empty, longest = view["decode"]["rates"]
    assert empty["bytes"] == read
    assert empty["tokens_per_s"] == pytest.approx(273 * GB / read)
    assert longest["context"] > 0
    assert view["model"]["parts"] == view["decode"]["parts"]


@pytest.mark.parametrize(("host", "code"), [("spark", 0), ("spark-bad-kit", 78)])
def test_the_plan_says_it_once_whether_the_model_fits_or_not(
    capsys: pytest.CaptureFixture[str], host: str, code: int
) -> None:
    files = (GOLDEN / "hosts" / f"{host}.json", GOLDEN / "models" / "nikola.json")
    assert print_plan(SETTINGS, "table", *files) == code
    assert capsys.readouterr().out.count("25.3 tokens/s at most") == 1


@pytest.mark.parametrize("form", ["bf16", "fp8", "nvfp4", "compressed"])
def test_a_folder_is_weighed_as_any_other_source(tmp_path: Path, form: str) -> None:
    folder = build(tmp_path / "box", replace(SMALL, form=form))
    with closing(LocalSource(folder)) as source:
        facts = source_facts(source)
    assert read_model_facts(folder) == facts
    assert sum(part.bytes for part in facts.parts) == facts.weights_bytes
    assert facts.experts_per_token == 2
