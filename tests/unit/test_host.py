"""The machine, the state folder and its lock, and the listening socket."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import HostError, PortTaken, SettingsError
from appliance.host import StateFolder, bind, control_socket

# ---- the state folder


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFolder]:
    with closing(StateFolder(tmp_path / "deep" / "state")) as folder:
        yield folder


def test_the_folder_is_made_for_its_owner_alone(state: StateFolder) -> None:
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


def test_the_lock_names_the_process_that_holds_it(state: StateFolder) -> None:
    assert (state.path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_second_appliance_is_told_who_has_the_folder(state: StateFolder) -> None:
    with pytest.raises(PortTaken, match=f"pid {os.getpid()}") as caught:
        StateFolder(state.path)
    assert caught.value.code == "state_dir_taken"
    assert caught.value.exit_code == 75
    assert "APPLIANCE_STATE_DIR" in caught.value.hint


def test_a_refused_second_appliance_leaves_the_lock_as_it_was(state: StateFolder) -> None:
    for _ in range(2):
        with pytest.raises(PortTaken, match=f"pid {os.getpid()}"):
            StateFolder(state.path)


def test_a_folder_that_was_left_can_be_taken_again(tmp_path: Path) -> None:
    StateFolder(tmp_path).close()
    (tmp_path / "lock").write_text("4194304 of long ago\n")
    StateFolder(tmp_path).close()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HostError, match="cannot be used: Not a directory") as caught:
        StateFolder(tmp_path / "file" / "state")
    assert caught.value.exit_code == 1
    assert "APPLIANCE_STATE_DIR" in caught.value.hint


def test_a_folder_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(HostError, match="cannot be used"):
        StateFolder(Path("/proc/self"))


def test_the_files_of_the_folder_lie_in_it(state: StateFolder) -> None:
    files = [state.client_key, state.operator_key, state.address, state.socket]
    assert {file.parent for file in files} == {state.path}
    assert len(set(files)) == 4
    assert state.socket == control_socket(state.path)


# ---- the socket


def test_port_zero_picks_a_free_port_that_listens() -> None:
    with bind("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, timeout=5):
            assert address[1] > 0


def test_a_taken_port_is_named_with_how_to_find_who_has_it() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken") as caught:
            bind("127.0.0.1", port)
    assert caught.value.exit_code == 75
    assert "APPLIANCE_PORT" in caught.value.hint
    assert f"ss -ltnp 'sport = :{port}'" in caught.value.hint


def test_a_port_that_was_just_left_can_be_taken_again() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            listener.accept()[0].close()
    with bind("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "::1%no-such-device"])
def test_what_is_no_address_is_a_settings_error(host: str) -> None:
    with pytest.raises(SettingsError, match="APPLIANCE_HOST") as caught:
        bind(host, 0)
    assert repr(host) in caught.value.what
    assert caught.value.exit_code == 78
    assert "127.0.0.1" in caught.value.hint


def test_an_address_of_another_machine_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"APPLIANCE_HOST='192\.0\.2\.1'") as caught:
        bind("192.0.2.1", 0)  # TEST-NET-1: nobody's
    assert "address of this machine" in caught.value.hint
