"""Profiles are data: each row is a setting, fits it, and names its source."""

import pytest

from appliance.profiles import BOX_PROFILES, MODEL_PROFILES, Profile, Row
from appliance.settings import FLOORS, Settings, load_settings

PROFILES = [*BOX_PROFILES.values(), *MODEL_PROFILES.values()]
ROWS = [(profile, name, row) for profile in PROFILES for name, row in profile.rows.items()]
ENV_ROWS = [
    (profile, name, row) for profile in PROFILES for name, row in profile.engine_env.items()
]


def title(value: object) -> str:
    return value.name if isinstance(value, Profile) else str(value)


@pytest.mark.parametrize(("profile", "name", "row"), ROWS, ids=title)
def test_every_row_is_a_setting_with_a_source(profile: Profile, name: str, row: Row) -> None:
    assert name in Settings.model_fields
    assert row.source
    together = {name: row.value for name, row in profile.rows.items()}
    read = getattr(load_settings({}, together), name)
    assert read == row.value, f"{profile.name}: {name} is not what the setting makes of it"


@pytest.mark.parametrize(("profile", "name", "row"), ENV_ROWS, ids=title)
def test_every_engine_variable_has_a_source(profile: Profile, name: str, row: Row) -> None:
    assert name.isupper()
    assert row.source
    assert isinstance(row.value, str)


@pytest.mark.parametrize("box", BOX_PROFILES)
@pytest.mark.parametrize("model", MODEL_PROFILES)
def test_every_box_serves_every_model(box: str, model: str) -> None:
    settings = load_settings({"APPLIANCE_PROFILE": box, "APPLIANCE_MODEL_PROFILE": model})
    for profile in (BOX_PROFILES[box], MODEL_PROFILES[model]):
        origins = {settings.origin(name) for name in profile.rows}
        assert all(" profile " in origin for origin in origins)


@pytest.mark.parametrize("profile", PROFILES, ids=title)
def test_a_profile_says_what_it_is_and_how_far_it_is_proven(profile: Profile) -> None:
    assert profile.about
    assert profile.level in ("measured", "expected")


@pytest.mark.parametrize("profiles", [BOX_PROFILES, MODEL_PROFILES])
def test_a_profile_stands_under_its_own_name(profiles: dict[str, Profile]) -> None:
    assert [profile.name for profile in profiles.values()] == list(profiles)


@pytest.mark.parametrize("box", ["spark", "thor"])
def test_the_boxes_leave_memory_to_the_plan(box: str) -> None:
    settings = load_settings({"APPLIANCE_PROFILE": box})
    assert (settings.gpu_memory_utilization, settings.max_model_len) == (None, None)
    assert settings.max_num_seqs == 2


FLOORS_GIB = {"spark": (3, 3.5, 3, 2.5, 2), "thor": (3, 3.5, 3, 2.5, 2)} | {
    "demo": (0.25, 1, 0.75, 0.5, 0.25)
}


@pytest.mark.parametrize("box", BOX_PROFILES)
def test_growth_and_floors_are_rows_of_the_box(box: str) -> None:
    settings = load_settings({"APPLIANCE_PROFILE": box})
    names = ("memory_growth", *FLOORS)
    assert tuple(getattr(settings, name) / 2**30 for name in names) == FLOORS_GIB[box]
    assert all(settings.origin(name).startswith(f"box profile {box}") for name in names)


@pytest.mark.parametrize("box", ["spark", "thor"])
def test_the_boxes_use_no_kernels_that_are_known_for_garbage(box: str) -> None:
    assert load_settings({"APPLIANCE_PROFILE": box}).moe_backend == "marlin"


def test_a_model_named_nikola_samples_as_its_maker_recommends() -> None:
    sampling = load_settings({}).sampling
    assert sampling == {"temperature": 1.0, "top_p": 0.95, "top_k": 40}


def test_a_custom_model_gets_no_parsers() -> None:
    settings = load_settings({"APPLIANCE_MODEL_PROFILE": "custom"})
    assert (settings.tool_call_parser, settings.reasoning_parser) == (None, None)
    assert settings.sampling == {}


def test_the_licence_of_the_model_is_named_where_the_model_is() -> None:
    assert "Non-Commercial" in MODEL_PROFILES["nikola"].about
