"""Secrets: read from variables and files, and shown nowhere."""

from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.settings import SECRETS, Settings, load_settings

SECRET = "s3cr3t-Key_0123456789"


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert caught.value.__cause__ is None or SECRET not in repr(caught.value.__cause__)
    return str(caught.value)


def secret_of(settings: Settings, name: str) -> str | None:
    value = getattr(settings, name)
    return None if value is None else str(value.get_secret_value())


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_read_and_never_shown(name: str) -> None:
    environ = {f"APPLIANCE_{name.upper()}": SECRET}
    settings = load_settings(environ)
    assert secret_of(settings, name) == SECRET
    shown = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())]
    assert [text for text in shown if SECRET in text] == []


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_come_from_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    variable = f"APPLIANCE_{name.upper()}_FILE"
    settings = load_settings({variable: str(tmp_path / "key")})
    assert secret_of(settings, name) == SECRET
    assert settings.origin(name) == variable


@pytest.mark.parametrize("file_first", [True, False])
@pytest.mark.parametrize("key", ["", "another"])
def test_a_secrets_file_goes_before_its_variable(
    tmp_path: Path, file_first: bool, key: str
) -> None:
    (tmp_path / "key").write_text(SECRET)
    items = [("APPLIANCE_API_KEY_FILE", str(tmp_path / "key")), ("APPLIANCE_API_KEY", key)]
    settings = load_settings(dict(items if file_first else reversed(items)))
    assert secret_of(settings, "api_key") == SECRET


def test_an_empty_file_variable_is_as_if_unset() -> None:
    assert load_settings({"APPLIANCE_API_KEY_FILE": ""}).api_key is None


def test_only_secrets_are_read_from_files() -> None:
    assert "APPLIANCE_PORT_FILE is no setting" in refusal({"APPLIANCE_PORT_FILE": "/x"})


def test_the_prompt_file_is_a_setting_of_its_own() -> None:
    settings = load_settings({"APPLIANCE_PROMPT_FILE": "/x"})
    assert settings.prompt_file == Path("/x")


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"\n", "is empty")])
def test_a_secrets_file_without_a_secret_is_named(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    text = refusal({"APPLIANCE_API_KEY_FILE": str(path)})
    assert f"APPLIANCE_API_KEY_FILE={path} {said}" in text


def test_a_secrets_file_of_another_encoding_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(SECRET.encode() + b"\xff")
    text = refusal({"APPLIANCE_API_KEY_FILE": str(tmp_path / "key")})
    assert "cannot be read" in text
    assert SECRET not in text


def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'api_key = ["{SECRET}"]\n')
    text = refusal({"APPLIANCE_CONFIG": str(tmp_path / "a.toml")})
    assert "api_key" in text
    assert "(hidden)" in text
    assert SECRET not in text


def test_keys_that_are_the_same_are_refused_without_being_shown() -> None:
    text = refusal({"APPLIANCE_API_KEY": SECRET, "APPLIANCE_OPERATOR_KEY": SECRET})
    assert "APPLIANCE_API_KEY and APPLIANCE_OPERATOR_KEY must differ" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "environ",
    [
        {"APPLIANCE_ENGINE": "attach"},
        {"APPLIANCE_PORT": "abc"},
        {"APPLIANCE_PROFILE": "none"},
        {"APPLIANCE_NO_SUCH": "1"},
    ],
)
def test_no_other_fault_shows_a_secret(environ: dict[str, str]) -> None:
    keys = {f"APPLIANCE_{name.upper()}": f"{SECRET}-{name}" for name in SECRETS}
    assert SECRET not in refusal({**keys, **environ})


@pytest.mark.parametrize("spelling", ["--api-key={}", "--api-key {}", "--api_key={}"])
def test_a_key_among_the_engines_flags_is_refused_and_not_shown(spelling: str) -> None:
    text = refusal({"APPLIANCE_ENGINE_EXTRA_ARGS": spelling.format(SECRET)})
    assert SECRET not in text


@pytest.mark.parametrize("url", ["http://me:{}@host:1", "//me:{}@host", "ftp://{}@host"])
def test_a_password_in_the_engines_address_is_refused_and_not_shown(url: str) -> None:
    text = refusal({"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": url.format(SECRET)})
    assert "APPLIANCE_ENGINE_URL" in text
    assert SECRET not in text


@pytest.mark.parametrize("key", ["two words", "schlüssel-0123456789", "tab\tbed", "line\nbreak"])
@pytest.mark.parametrize("name", ["api_key", "operator_key"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(name: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({f"APPLIANCE_{name.upper()}": key})
    assert f"APPLIANCE_{name.upper()} must be printable ASCII" in caught.value.what
    assert key not in str(caught.value)
