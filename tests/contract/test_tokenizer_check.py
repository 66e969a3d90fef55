"""The tokenizer check with the real library, on real files, and with the real engine."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.tokenizercheck import check, engine_python, read_reference
from appliance.tokenizerdrift import prompts, texts_of
from appliance.tokenizerwatch import engine_ids
from appliance.upstream import Upstream
from tests.engines import CHECKPOINT, ENGINE_PYTHON, ROOT, EngineHandle, require_real

pytestmark = pytest.mark.engine

# What transformers 5.3.0 puts in the place of the file's own one for "GPT2Tokenizer".
GPT2: dict[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}

SCRIPT = ROOT / "appliance" / "rawtokenizer.py"
READ = (
    "import json, runpy, sys; script = runpy.run_path(sys.argv[1]); "
    "asked = json.load(sys.stdin); json.dump(script['read'](**asked), sys.stdout)"
)


@pytest.fixture
def python() -> Path:
    require_real()
    return ENGINE_PYTHON


@pytest.fixture
def drifted(tmp_path: Path) -> Path:
    """A model folder whose tokenizer.json has another pre-tokenizer than the engine uses."""
    told = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))
    told["pre_tokenizer"] = GPT2
    (tmp_path / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
    return tmp_path


def read(python: Path, file: Path, texts: list[str]) -> list[list[int]]:
    """Return how the real library reads the texts."""
    told = subprocess.run(
        [str(python), "-c", READ, str(SCRIPT)],
        input=json.dumps({"file": str(file), "texts": texts}).encode(),
        capture_output=True,
        check=True,
    )
    ids: list[list[int]] = json.loads(told.stdout)
    return ids


async def test_a_drifted_tokenizer_is_found_and_an_equal_one_is_not(
    python: Path, drifted: Path
) -> None:
    texts = texts_of(prompts())
    ids = dict(zip(texts, read(python, drifted / "tokenizer.json", texts), strict=True))

    async def ask(text: str) -> Sequence[int]:
        return ids[text]

    found = await check(ask, python, CHECKPOINT)
    assert found.mismatches >= 100
    assert set(found.versions) == {"vllm", "transformers", "tokenizers"}
    same = await check(ask, python, drifted)
    assert (same.compared, same.mismatches) == (1000, 0)


@pytest.mark.parametrize("text", ["{}", "no JSON", "", '{"model": {"type": "BPE"}}'])
async def test_a_file_that_is_no_tokenizer_is_named(
    python: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    found = await read_reference(python, tmp_path / "tokenizer.json", ["/a"])
    assert found.why.startswith(f"{tmp_path / 'tokenizer.json'} cannot be read: ")


def test_the_engines_command_leads_to_its_python(python: Path) -> None:
    found = engine_python([str(python.parent / "vllm"), "serve"])
    assert found is not None
    assert found.resolve() == python.resolve()
    assert found.parent.resolve() == python.parent.resolve()


async def test_the_real_engine_reads_a_thousand_paths_as_its_file_says(
    real_engine: EngineHandle, drifted: Path
) -> None:
    upstream = Upstream(real_engine.base_url, real_engine.key)

    async def ask(text: str) -> Sequence[int]:
        return await engine_ids(upstream, text)

    right = await check(ask, ENGINE_PYTHON, CHECKPOINT)
    wrong = await check(ask, ENGINE_PYTHON, drifted)
    await upstream.close()
    assert (right.compared, right.mismatches, right.why) == (1000, 0, "")
    assert wrong.mismatches >= 100
