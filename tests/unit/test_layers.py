"""The pure rows are pure, and the environment has one reader: held by reading the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "appliance"
PURE = (
    *("errors", "sizes", "facts", "profiles", "lifecycle", "prompt", "sse", "openai", "wirebody"),
    *("launch", "diagnosis", "progress", "probes", "kilo", "restart", "events", "whatnext"),
    *("memory", "redaction", "wedge", "keepalive", "floors", "procfiles", "hostunit"),
    *("wirereply", "wireerror", "fairqueue", "runaway", "deadlines", "usage"),
    *("splice", "seen", "draft", "media", "history", "context", "conversation", "intake", "pieces"),
    *("sequences", "faults"),
    *("paths", "pathtext", "pathlisting", "pathtools", "pathledger", "pathwitness", "pathhistory"),
    *("partdiff", "pathdiff", "glitches", "pathrepair", "pathguard", "pathfresh", "pathgrammar"),
    *("patharguments", "pathwire", "pathstream"),
    *("doctor/row", "doctor/dockerfacts", "doctor/dockerrows", "doctor/composefacts"),
    *("doctor/machinefacts", "doctor/machinerows", "doctor/modelrows", "doctor/doorrows"),
    *("samplepaths", "bench/arms", "bench/cases", "bench/distractors", "bench/kinds"),
    *("bench/score", "bench/questions", "bench/answers", "bench/report", "bench/table"),
    *("accept/steps", "accept/judge", "accept/figures", "accept/anonymous"),
    *("accept/report", "accept/charts", "accept/markup", "accept/page", "accept/measured"),
    *("accept/evidencepage",),
    *("bench/chart", "tokenizerdrift", "doctor/tokenizerrows"),
    *("checkpoint/weburl", "checkpoint/patience", "checkpoint/proxies", "checkpoint/formats"),
    *("checkpoint/projections", "checkpoint/surveyed", "checkpoint/tokenbytes", "checkpoint/mixed"),
    *("checkpoint/surveytext", "checkpoint/layerchart", "checkpoint/flags"),
    *("budget", "budgetview", "kvcache", "overheads", "reckoning", "shortfalls", "factsfile"),
    *("decode", "decodeview", "speculation", "checkpoint/weigh"),
    *("plaintext", "topframe", "topview"),
    *("weblogin", "hostcheck", "figures", "budgetjson"),
    *("cluster/peer", "cluster/wire", "cluster/joincode", "cluster/joindesk"),
    *("cluster/compare", "cluster/portrule", "doctor/clusterrows"),
    *("clustersettings", "part", "shard"),
)
WORLD = {"asyncio", "os", "time", "subprocess", "httpx", "fastapi", "socket", "threading"}
# settings reads it; the roots hand it on to the plan, whole; the demo is a root of its own.
# opening reads the names that the Hub and proxies have for theirs.
READERS = {"settings.py", "assembly.py", "nodeserve.py", "planview.py", "opening.py"}


def imported(source: Path) -> set[str]:
    """Return the top-level names of all that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def environment_reads(source: Path) -> Iterator[int]:
    """Yield the lines that touch the process's environment."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for a in node.names if a.name in ("environ", "getenv"))


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "demo" not in path.parts]


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_imports_nothing_of_the_world(name: str) -> None:
    assert imported(PACKAGE / f"{name}.py") & WORLD == set()


def test_the_check_of_purity_sees_an_impure_module() -> None:
    assert imported(PACKAGE / "serve.py") >= {"asyncio", "os", "socket"}


def test_nobody_else_reads_the_environment() -> None:
    readers = {path.name for path in modules() if any(environment_reads(path))}
    assert readers == READERS


def test_the_questions_that_training_imports_are_standard_library_alone() -> None:
    for name in ("probes", "prompt"):
        assert imported(PACKAGE / f"{name}.py") <= sys.stdlib_module_names


def test_the_checkpoint_reader_brings_no_third_party_package() -> None:
    for path in sorted((PACKAGE / "checkpoint").glob("*.py")):
        assert imported(path) <= {*sys.stdlib_module_names, "appliance"}


def test_what_quantises_needs_numpy_and_nothing_else_of_others() -> None:
    brought = {*sys.stdlib_module_names, "appliance", "numpy"}
    for path in sorted((PACKAGE / "checkpoint" / "quantise").glob("*.py")):
        assert imported(path) <= brought


def test_the_sidecar_never_imports_the_engine() -> None:
    engine = {"vllm", "torch", "transformers", "safetensors", "tokenizers"}
    # a script for the engine's own Python, which nobody imports
    assert {path.name for path in modules() if imported(path) & engine} == {"rawtokenizer.py"}
    assert [path for path in modules() if "appliance.rawtokenizer" in path.read_text()] == []


def test_no_module_is_longer_than_400_lines() -> None:
    long = {p.name for p in modules() if len(p.read_text().splitlines()) > 400}
    assert long == set()
