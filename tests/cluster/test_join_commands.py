"""``appliance node`` and ``appliance cluster`` as people type them, in two namespaces."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.appliances import COMMAND, clean_environment, environment
from tests.cluster.wires import CABLE, HEAD_ADDR, WORKER_ADDR, Wires, wired
from tests.engines import ROOT, wait_until

pytestmark = pytest.mark.cluster
CODE = re.compile(r"appliance cluster join ([0-9A-Z-]{20})\n")
PAIR = {"cluster_head": HEAD_ADDR, "cluster_worker": WORKER_ADDR, "cluster_interface": CABLE}


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with wired() as made:
        yield made


@dataclass
class Boxes:
    """The commands of both boxes."""

    wires: Wires
    folder: Path

    def env(self, role: str, **settings: object) -> dict[str, str]:
        folder = self.folder / role
        folder.mkdir(exist_ok=True)
        own = environment(folder, **PAIR, **settings, cluster_role=role)
        return {**clean_environment(), **own, "PYTHONPATH": str(ROOT)}

    def type(self, role: str, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Type one of our commands on a box."""
        namespace = self.wires.head if role == "head" else self.wires.worker
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *COMMAND, *words],
            env=self.env(role, **settings), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def shown(self) -> str:
        """What the worker shows."""
        return (self.folder / "node.log").read_text()

    def code(self) -> str:
        """Return the last code that the worker showed."""
        wait_until(lambda: CODE.search(self.shown()) is not None, 20, "a code")
        return str(CODE.findall(self.shown())[-1])


@pytest.fixture
def boxes(wires: Wires, tmp_path: Path) -> Iterator[Boxes]:
    made = Boxes(wires, tmp_path)
    with (tmp_path / "node.log").open("wb") as log:
        node = subprocess.Popen(
            ["ip", "netns", "exec", wires.worker, *COMMAND, "node"],
            env=made.env("worker"), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield made
        finally:
            node.terminate()
            assert node.wait(timeout=20) == 0


def compared(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(done.stdout)["compared"]}


def test_two_commands_join_two_boxes_and_show_them_side_by_side(boxes: Boxes) -> None:
    done = boxes.type("head", "cluster", "join", boxes.code())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"joined the worker at {WORKER_ADDR}:9001" in done.stdout
    assert re.search(r"checkpoint +([0-9a-f]{16}) +\1 +fine", done.stdout)
    wait_until(lambda: "joined: orders come from" in boxes.shown(), 20, "the worker to say so")
    key = json.loads((boxes.folder / "head/state/cluster/worker.json").read_text())["key"]
    assert key not in boxes.shown() + done.stdout


def test_a_difference_that_breaks_is_shown_with_what_to_type(boxes: Boxes) -> None:
    boxes.type("head", "cluster", "join", boxes.code())
    shown = boxes.type("head", "cluster", "show", "--json", kv_cache_dtype="fp8")
    assert shown.returncode == 1
    row = compared(shown)["APPLIANCE_KV_CACHE_DTYPE"]
    assert (row["head"], row["worker"], row["verdict"]) == ("fp8", "auto", "breaks")
    assert row["next"] == "set APPLIANCE_KV_CACHE_DTYPE alike on both boxes"
    assert compared(shown)["checkpoint"]["verdict"] == "fine"


def test_a_head_that_joins_again_is_told_how(boxes: Boxes) -> None:
    boxes.type("head", "cluster", "join", boxes.code())
    again = boxes.type("head", "cluster", "join", boxes.code())
    assert again.returncode == 1
    assert "appliance cluster join CODE --replace" in again.stderr
    replaced = boxes.type("head", "cluster", "join", "--replace", boxes.code())
    assert replaced.returncode == 1
    assert "this node has a head already" in replaced.stderr
    assert "appliance node --forget" in replaced.stderr
    assert boxes.type("head", "cluster", "show").returncode == 0  # the join there was still holds


def test_a_node_that_runs_is_not_made_to_forget_its_head(boxes: Boxes) -> None:
    boxes.code()
    forget = boxes.type("worker", "node", "--forget")
    assert forget.returncode == 75
    assert "another appliance" in forget.stderr


@pytest.mark.parametrize(
    ("role", "words", "says"),
    [
        ("head", ("node",), "this box is no worker"),
        ("worker", ("cluster", "show"), "type it on the head"),
        ("head", ("cluster", "show"), "this box has no worker"),
        ("head", ("cluster", "join"), "arguments are required: CODE"),
        ("head", ("cluster", "join", "ABC"), "the code has 3 letters, not 18"),
    ],
)
def test_what_is_typed_on_the_wrong_box_or_too_early_says_what_to_type(
    wires: Wires, tmp_path: Path, role: str, words: tuple[str, ...], says: str
) -> None:
    done = Boxes(wires, tmp_path).type(role, *words)
    assert done.returncode != 0
    assert says in done.stderr
