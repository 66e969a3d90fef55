"""A join over real TLS: who gets the key, who does not, and what nobody may do twice."""

import asyncio
import stat
from pathlib import Path

import httpx
import pytest

from appliance.cluster.identity import pinned
from appliance.cluster.joincode import head_proof, spell
from appliance.cluster.joindesk import JoinDesk
from appliance.cluster.joining import join
from appliance.cluster.membership import WorkerKept
from appliance.cluster.nodeclient import NodeClient
from appliance.cluster.peer import Idle, PeerError, PeerLost
from appliance.cluster.wire import JOIN, JoinAsk, JoinReply, encode
from tests.nodes import Worker, worker

SECRET = bytes(range(10))
CODE, WRONG = spell(SECRET), spell(SECRET[::-1])


def show_code(box: Worker, secret: bytes = SECRET) -> None:
    box.desk.issue(secret, asyncio.get_running_loop().time())


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def joined(box: Worker, code: str = CODE) -> WorkerKept:
    return await asyncio.to_thread(join, "127.0.0.1", box.port, code, "head")


async def refused(box: Worker, code: str = CODE) -> PeerError:
    with pytest.raises(PeerError) as error:
        await joined(box, code)
    return error.value


async def test_who_types_the_code_is_the_head_from_then_on(tmp_path: Path) -> None:
    async with worker(tmp_path, joined=False) as box:
        show_code(box)
        known = await joined(box)
        async with NodeClient(known) as peer:
            assert await peer.state() == Idle()
    async with worker(tmp_path, joined=False) as box:  # started again
        assert box.node.knows(known.key)


async def test_the_worker_keeps_no_key_and_shows_its_files_to_nobody(tmp_path: Path) -> None:
    async with worker(tmp_path, joined=False) as box:
        show_code(box)
        known = await joined(box)
        files = files_in(tmp_path)
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert not any(known.key in path.read_text() for path in files)
        assert known.key not in repr(known)


async def test_a_second_head_is_refused_with_what_to_type(tmp_path: Path) -> None:
    async with worker(tmp_path, joined=False) as box:
        show_code(box)
        await joined(box)
        show_code(box)
        error = await refused(box)
        assert error.code == "has_a_head"
        assert "appliance node --forget" in error.hint


async def test_a_wrong_code_is_refused_and_the_right_one_still_counts(tmp_path: Path) -> None:
    async with worker(tmp_path, joined=False) as box:
        show_code(box)
        error = await refused(box, WRONG)
        assert (error.code, box.node.head) == ("wrong_code", None)
        assert (await refused(box)).code == "join_too_soon"


async def test_without_a_code_nobody_joins(tmp_path: Path) -> None:
    async with worker(tmp_path, joined=False) as box:
        assert (await refused(box)).code == "no_code"


async def test_a_recorded_join_sent_again_gets_no_key(tmp_path: Path) -> None:
    nonce = b"\x07" * 32
    async with (
        worker(tmp_path, joined=False) as box,
        httpx.AsyncClient(verify=pinned(box.certificate), trust_env=False) as http,
    ):
        show_code(box)
        proof = head_proof(SECRET, box.identity.fingerprint, nonce, "head")
        recorded = encode(JoinAsk("head", nonce.hex(), proof.hex()))
        url = f"https://{box.address}{JOIN}"
        first = await http.post(url, content=recorded)
        assert first.status_code == 200
        again = await http.post(url, content=recorded)
        assert (again.status_code, again.json()["code"]) == (403, "has_a_head")
        box.kept.forget_head()
    async with worker(tmp_path, joined=False) as box:  # a new life, the same certificate, no head
        show_code(box, b"\x09" * 10)
        async with httpx.AsyncClient(verify=pinned(box.certificate), trust_env=False) as http:
            later = await http.post(f"https://{box.address}{JOIN}", content=recorded)
        assert (later.status_code, later.json()["code"]) == (403, "wrong_code")
        assert box.node.head is None


class Between(JoinDesk):
    """Stands between: passes on to the worker what it hears, and gives back what that says."""

    def __init__(self, box: Worker) -> None:
        super().__init__(b"", bytes)
        self._box = box
        self.heard: list[str] = []

    def answer(self, ask: JoinAsk, now: float) -> JoinReply:
        try:
            return self._box.desk.answer(ask, now)
        except PeerError as error:
            self.heard.append(error.code)
            raise


class SaysYes(JoinDesk):
    """Takes each head, and does not know the code."""

    def answer(self, ask: JoinAsk, now: float) -> JoinReply:
        return JoinReply("22" * 32, "33" * 32)


async def test_who_stands_between_gets_no_key_and_is_named_as_that(tmp_path: Path) -> None:
    async with worker(tmp_path / "a", joined=False) as box:
        show_code(box)
        desk = Between(box)
        async with worker(tmp_path / "b", joined=False, desk=desk) as between:
            error = await refused(between)
        assert "stands between" in error.hint
        assert desk.heard == ["wrong_code"]
        assert box.node.head is None


async def test_who_answers_without_the_code_is_not_believed(tmp_path: Path) -> None:
    desk = SaysYes(b"", bytes)
    async with worker(tmp_path, joined=False, desk=desk) as box:
        assert (await refused(box)).code == "not_the_worker"


async def test_nobody_at_the_address_is_told_so(tmp_path: Path) -> None:
    async with worker(tmp_path, joined=False) as box:
        port = box.port
    with pytest.raises(PeerLost, match="no worker answers"):
        await asyncio.to_thread(join, "127.0.0.1", port, CODE, "head")
