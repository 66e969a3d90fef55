"""What is read from ``docker compose config --format json``."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.doctor.composefacts import ComposeFacts, read_config
from appliance.doctor.dockerrows import compose_rows
from appliance.doctor.row import Level, Row

# As Compose 5.6.1 prints such a file.
SERVICE: dict[str, Any] = {
    "build": {"context": "/u", "dockerfile": "docker/Dockerfile", "target": "runtime",
              "args": {"BUILD_DIGEST": "", "RUNTIME_DIGEST": "@sha256:ab", "TARGET": "spark"}},
    "command": None,
    "entrypoint": None,
    "environment": {"APPLIANCE_PROFILE": "thor", "APPLIANCE_MODEL_DIR": "/models/Nikola",
                    "APPLIANCE_HOST": "0.0.0.0", "APPLIANCE_API_KEY_FILE": "/run/secrets/key",
                    "APPLIANCE_MAX_MODEL_LEN": "", "APPLIANCE_MEMORY_PROFILE": "safe",
                    "HOME": "/x", "APPLIANCE_LISTEN": None},
    "image": "unglitched:thor",
    "networks": {"default": None},
    "ports": [{"mode": "ingress", "host_ip": "127.0.0.1", "target": 9000, "published": "9000",
               "protocol": "tcp"}],
    "volumes": [{"type": "volume", "source": "state", "target": "/var/lib/unglitched"},
                {"type": "bind", "source": "/data/Nikola", "target": "/models/Nikola",
                 "read_only": True, "bind": {}}],
}  # fmt: skip
GRAFANA = {"image": "grafana/grafana:12.2.1"}


def read(profile: str = "spark", **services: Any) -> ComposeFacts:
    config = {"name": "unglitched", "services": services, "networks": {}}
    return ComposeFacts("2.26.1", folder=Path("/u"), **read_config(json.dumps(config), profile))


def rows(compose: ComposeFacts, *, is_wanted: bool = True) -> dict[str, Row]:
    return {row.name: row for row in compose_rows(compose, is_wanted=is_wanted)}


def test_the_service_tells_image_port_and_the_hosts_model_folder() -> None:
    compose = read(appliance=SERVICE)
    assert compose.image == "unglitched:thor"
    assert compose.ports == (("127.0.0.1", 9000),)
    assert compose.model_folder == Path("/data/Nikola")


def test_of_the_containers_settings_those_of_its_inside_are_left_out() -> None:
    assert read(appliance=SERVICE).settings == {"profile": "thor", "memory_profile": "safe"}


def test_https_is_known_by_its_certificate() -> None:
    tls = {"APPLIANCE_TLS_CERT": "/tls/cert.pem"}
    assert read(appliance={**SERVICE, "environment": tls}).is_https
    assert not read(appliance=SERVICE).is_https


def test_the_service_of_the_profile_goes_before_another_of_ours() -> None:
    both = {"appliance": SERVICE, "demo": {"image": "unglitched:demo"}}
    assert read("demo", **both).image == "unglitched:demo"
    assert read("spark", **both).image == "unglitched:thor"


def test_what_goes_by_a_tag_is_unpinned_and_what_is_built_here_is_not() -> None:
    pinned = {"image": "prom/prometheus:v3@sha256:ab"}
    compose = read(appliance=SERVICE, grafana=GRAFANA, prometheus=pinned)
    assert compose.unpinned == ("BUILD_DIGEST", "grafana/grafana:12.2.1")
    row = rows(compose)["digests"]
    assert (row.level, row.next.partition(",")[0]) == (Level.WARN, "make pin")
    assert rows(read(prometheus=pinned))["digests"].level is Level.OK


def test_a_file_without_our_service_tells_nothing_of_it() -> None:
    compose = read(grafana=GRAFANA)
    assert (compose.image, compose.ports, compose.model_folder) == ("", (), None)


@pytest.mark.parametrize("text", ["", "no", "[]", "{}", '{"services": []}', "null"])
def test_what_is_no_config_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_config(text, "spark")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(SERVICE)), JUNK)
def test_whatever_a_field_holds_nothing_is_raised(name: str, junk: Any) -> None:
    read(appliance={**SERVICE, name: junk})


# ---- the verdicts


def test_no_compose_fails_only_where_it_would_be_used() -> None:
    none = ComposeFacts(missing="neither is installed", folder=Path("/u"))
    assert rows(none)["compose"].level is Level.FAIL
    assert rows(none, is_wanted=False)["compose"].level is Level.WARN
    elsewhere = ComposeFacts(missing="neither is installed")
    assert rows(elsewhere)["compose"].level is Level.WARN


@pytest.mark.parametrize(
    ("version", "level"),
    [
        *(("1.29.2", Level.FAIL), ("2.20.3", Level.FAIL), ("", Level.FAIL)),
        *(("2.24.0", Level.OK), ("2.26.1-4", Level.OK), ("5.6.1", Level.OK)),
    ],
)
def test_a_compose_before_2_24_cannot_read_the_file(version: str, level: Level) -> None:
    assert rows(ComposeFacts(version, folder=Path("/u")))["compose"].level is level
    elsewhere = rows(ComposeFacts(version))["compose"].level
    assert elsewhere is (Level.OK if level is Level.OK else Level.WARN)


def test_files_that_compose_refuses_are_quoted() -> None:
    compose = ComposeFacts("2.26.1", folder=Path("/u"), trouble="MODEL_PATH is missing a value")
    row = rows(compose)["compose file"]
    assert (row.level, row.value) == (Level.FAIL, "MODEL_PATH is missing a value")
    assert ".env.example" in row.next
    assert rows(compose, is_wanted=False)["compose file"].level is Level.WARN
    assert "digests" not in rows(compose)
