"""What is chosen now, as the start and the plan both take it; and what was learned by it."""

from pathlib import Path
from typing import Any

import pytest

from appliance import __version__
from appliance.keeper import open_keeper
from appliance.overheads import Learned
from appliance.settings import load_settings
from appliance.statefile import (
    ENGINE_FILE,
    checkpoint_id,
    choice_hash,
    choice_of,
    kept_overheads,
)
from tests.checkpoints import TINY, write_checkpoint

LEARNED = Learned(weights_bytes=5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", {"BF16": 2048}, **TINY)


def choice(model: Path, image: str = "i", **changes: Any) -> str:
    settings = load_settings({}, {"model_dir": model, **changes})
    return choice_of(settings, {"UNGLITCHED_IMAGE": image})


def test_the_choice_is_of_settings_checkpoint_and_image(model: Path) -> None:
    settings = load_settings({}, {"model_dir": model})
    dump = settings.model_dump(mode="json")
    assert choice(model) == choice_hash(dump, checkpoint_id(model), f"{__version__} i")
    others = {choice(model, "j"), choice(model, max_num_seqs=3), choice_of(settings, {})}
    assert len(others | {choice(model)}) == 4


def test_another_checkpoint_in_the_same_folder_is_another_choice(model: Path) -> None:
    before = choice(model)
    (model / "config.json").write_text("{}")
    assert choice(model) != before


def test_what_a_start_keeps_is_what_the_plan_finds(tmp_path: Path, model: Path) -> None:
    keeper = open_keeper(tmp_path, choice(model))
    keeper.learn(LEARNED)
    keeper.save_now()
    assert keeper.file.path == tmp_path / ENGINE_FILE
    assert kept_overheads(tmp_path, choice(model)) == LEARNED.as_dict()
    assert kept_overheads(tmp_path, choice(model, "j")) == {}


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"\xff", b'{"version": 99}', b" " * (2**20 + 1), b"[" * 100_000]
)
def test_what_cannot_be_read_has_taught_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / ENGINE_FILE).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    assert kept_overheads(tmp_path, "") == {}
    assert sorted(tmp_path.iterdir()) == before
