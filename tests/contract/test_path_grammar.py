"""The engine's own reader of grammars takes and leaves the same paths as the tests' interpreter."""

import json
import random
import subprocess

import pytest

from appliance.pathgrammar import structural_tag
from appliance.paths import PathName
from tests.engines import ENGINE_PYTHON, require_real
from tests.unit.test_pathgrammar import SIGNS, as_pattern, made

pytestmark = pytest.mark.engine

GRAMMARS, PATHS_EACH = 80, 25
# It runs in the engine's Python: which of the paths may stand in a call, by each tag.
READER = """
import json, sys
import xgrammar
vocabulary = [chr(code) for code in range(32, 127)] + ["\\n", "</s>"]
end = len(vocabulary) - 1
info = xgrammar.TokenizerInfo(
    vocabulary, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[end])
compiler = xgrammar.GrammarCompiler(info)
begin = 'So. <invoke name="read_file">\\n<parameter name="path">'
def takes(grammar, path):
    matcher = xgrammar.GrammarMatcher(grammar)
    text = begin + path + "</parameter>\\n</invoke>"
    return matcher.accept_string(text) and matcher.accept_token(end)
found = []
for tag, paths in json.load(sys.stdin):
    grammar = compiler.compile_structural_tag(tag)
    found.append([takes(grammar, path) for path in paths])
print(json.dumps(found))
"""


def some_paths(chance: random.Random) -> list[PathName]:
    def name() -> str:
        text = "".join(chance.choices(SIGNS, k=chance.randint(1, 4))).strip()
        return text if text.strip(".") else "a"

    def path() -> PathName:
        parts = tuple(name() for _ in range(chance.randint(1, 4)))
        return PathName(chance.choice(["/", "~/", ""]), parts)

    return [path() for _ in range(chance.randint(1, 6))]


def changed(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    inserted = text[:at] + chance.choice(SIGNS + "/<") + text[at:]
    return chance.choice([inserted, text[:at] + text[at + 1 :], text.swapcase(), text])


def test_the_engine_takes_the_same_paths() -> None:
    require_real()
    chance = random.Random(7)  # noqa: S311  (no secret)
    cases, wanted = [], []
    for _ in range(GRAMMARS):
        known = some_paths(chance)
        closed = [chance.choice(known).parent]
        grammar = made(known, closed, files_only=chance.random() < 0.5)
        paths = [changed(chance.choice(known).text, chance) for _ in range(PATHS_EACH)]
        cases.append((structural_tag({"read_file": {"path": grammar}}).decode(), paths))
        wanted.append([bool(as_pattern(grammar).fullmatch(path)) for path in paths])
    read = subprocess.run(
        [str(ENGINE_PYTHON), "-c", READER],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(read.stdout) == wanted
    flat = [one for some in wanted for one in some]
    assert 0 < sum(flat) < len(flat)
