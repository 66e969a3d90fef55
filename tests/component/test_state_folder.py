"""What an appliance keeps in its state folder: keys, socket, address, and the lock on it."""

import socket
import stat
from pathlib import Path

import pytest

from appliance.errors import HostError, PortTaken, SettingsError
from tests.appliance_tasks import running_here
from tests.appliances import CONTROL


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_keys_are_made_once_differ_and_are_for_their_owner_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running_here(tmp_path, "--never-ready") as first:
        keys = first.running.keys
        assert keys.client != keys.operator
        assert min(len(keys.client), len(keys.operator)) >= 32
        for name in ("api_key", "operator_key", "control.sock"):
            assert mode(state / name) == 0o600
        assert mode(state) == 0o700
        assert (state / "address").read_text() == first.running.base_url + "\n"
    assert not (state / "control.sock").exists()
    async with running_here(tmp_path, "--never-ready") as again:
        kept = again.running.keys
        assert (kept.client, kept.operator) == (keys.client, keys.operator)


async def test_a_key_file_that_others_may_read_is_shut_again(tmp_path: Path) -> None:
    kept = tmp_path / "state" / "api_key"
    kept.parent.mkdir()
    kept.write_text("chosen-by-hand\n")
    kept.chmod(0o644)
    async with running_here(tmp_path, "--never-ready") as box:
        assert box.running.keys.client == "chosen-by-hand"
        assert mode(kept) == 0o600


async def test_given_keys_are_used_and_not_kept(tmp_path: Path) -> None:
    given = tmp_path / "operator.txt"
    given.write_text("operator-from-file\n")
    keys = {"api_key": "client-from-env", "operator_key_file": given}
    async with running_here(tmp_path, "--never-ready", **keys) as box:
        for key, status in (("client-from-env", 403), ("operator-from-file", 200)):
            headers = {"authorization": f"Bearer {key}"}
            assert (
                await box.client.get(f"{CONTROL}/status", headers=headers)
            ).status_code == status
    assert not (tmp_path / "state" / "api_key").exists()
    assert not (tmp_path / "state" / "operator_key").exists()


async def test_keys_that_are_the_same_are_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "operator_key").write_text("same\n")
    with pytest.raises(SettingsError, match="are the same"):
        async with running_here(tmp_path, api_key="same"):
            pass


async def test_an_empty_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "api_key").touch()
    with pytest.raises(HostError, match="api_key is empty"):
        async with running_here(tmp_path):
            pass


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(HostError, match="state"):
        async with running_here(tmp_path):
            pass


async def test_a_socket_left_by_a_killed_appliance_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "state" / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running_here(tmp_path, "--never-ready"):
        assert mode(path) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_a_folder_too_deep_for_a_socket_still_serves_over_tcp(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    async with running_here(tmp_path, "--never-ready", state_dir=deep) as box:
        assert not (deep / "control.sock").exists()
        assert (await box.operator.get(f"{CONTROL}/status")).status_code == 200


async def test_a_refused_start_lets_go_of_folder_and_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken):
            async with running_here(tmp_path, port=port):
                pass
    async with running_here(tmp_path, "--never-ready", port=port) as box:
        assert box.running.base_url.endswith(f":{port}")
