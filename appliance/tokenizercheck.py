"""Compares an engine's tokens with those of the raw tokenizer.json, over 1,000 paths.

The reference comes from the ``tokenizers`` library, which is in the engine's environment and not
in ours: a program of its own, in the engine's Python, reads the file and ends. So the sidecar
holds none of a vocabulary of 200,000 words. Nothing here raises for what it cannot learn.
"""

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import UpstreamError
from appliance.tokenizerdrift import Drift, Prompt, prompts, texts_of, unknown

REFERENCE_S = 60.0  # a disk that is busy with the next model, a vocabulary of 10 MB
ENGINE_S = 60.0  # all questions to the engine; it has more important ones
ENOUGH = 100  # mismatches: the verdict stands, and the engine is left alone
_SCRIPT = Path(__file__).with_name("rawtokenizer.py")
_SHEBANG_BYTES = 512
# One thread, as the engine serves on the others. Nothing else of our environment is its business.
_ENV = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

Ask = Callable[[str], Awaitable[Sequence[int]]]


@dataclass(frozen=True)
class Reference:
    """How the file has texts read, by their digests, and by which versions.

    ``why`` where it could not be read.
    """

    digests: Mapping[str, str]
    versions: Mapping[str, str]
    why: str = ""


def engine_python(command: Sequence[str]) -> Path | None:
    """Return the Python that the engine's ``command`` runs in; None where that cannot be told."""
    program = Path(shutil.which(command[0]) or "") if command else Path()
    if not program.is_file():
        return None
    if program.name.startswith("python"):
        return program
    named = _interpreter(program)
    if named and Path(named).name.startswith("python"):
        return Path(named)
    beside = program.parent / "python3"
    return beside if beside.is_file() else None


def _interpreter(script: Path) -> str | None:
    """Return the program that a script's first line names, also by way of env."""
    try:
        with script.open("rb") as file:
            first = file.readline(_SHEBANG_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        return None
    by_env = Path(words[0]).name == "env" and len(words) > 1
    return shutil.which(words[1] if by_env else words[0])


async def read_reference(
    python: Path, file: Path, texts: Sequence[str], within_s: float = REFERENCE_S
) -> Reference:
    """Return how ``file`` has the texts read, by a program in the engine's environment."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(python),
            "-I",  # nothing of the current folder or of our variables is imported
            str(_SCRIPT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_ENV,
        )
    except OSError as cause:
        return Reference({}, {}, f"{python} cannot be started: {cause.strerror}")
    asked = json.dumps({"file": str(file), "texts": list(texts)}).encode()
    try:
        async with asyncio.timeout(within_s):
            output, _ = await process.communicate(asked)
    except TimeoutError:
        return Reference({}, {}, f"{python} did not read {file} within {within_s:g} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return _parsed(output, process.returncode, texts, python)


def _parsed(output: bytes, code: int | None, texts: Sequence[str], python: Path) -> Reference:
    try:
        told = json.loads(output)
        versions = {str(name): str(number) for name, number in told["versions"].items()}
        if "why" in told:
            return Reference({}, versions, str(told["why"]))
        return Reference(dict(zip(texts, told["digests"], strict=True)), versions)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Reference({}, {}, f"{python} {_SCRIPT.name} ended with {code}, and told nothing")


def digest(ids: Sequence[int]) -> str:
    """Return what stands for a text's ids, as the script makes it."""
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:16]


def ids_of(status: int, told: object) -> list[int]:
    """Return the ids that an engine's ``/tokenize`` told. Raises UpstreamError for no such."""
    tokens = told.get("tokens") if isinstance(told, dict) else None
    if status != 200 or not isinstance(tokens, list):
        raise UpstreamError(f"the engine's /tokenize answers {status}: {str(told)[:100]}")
    return tokens


async def check(
    ask: Ask,
    python: Path,
    folder: Path,
    *,
    reference_s: float = REFERENCE_S,
    engine_s: float = ENGINE_S,
) -> Drift:
    """Return whether the engine that ``ask`` asks reads as ``folder``'s tokenizer.json says.

    ``ask`` gives the ids of a text, and raises UpstreamError. Takes ``reference_s`` and
    ``engine_s`` at most; what was compared by then counts.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return unknown(f"there is no {file}")
    asked = prompts()
    reference = await read_reference(python, file, texts_of(asked), reference_s)
    return await compare(ask, reference, asked, engine_s)


async def compare(
    ask: Ask, reference: Reference, asked: Sequence[Prompt], within_s: float = ENGINE_S
) -> Drift:
    """Return how the engine's ids differ from those of ``reference``, which has all texts."""
    if reference.why:
        return unknown(reference.why, reference.versions)
    count = _Count(reference)
    try:
        async with asyncio.timeout(within_s):
            for prompt in asked:
                if count.is_enough:
                    return count.drift("the rest was not asked for")
                await count.compare(ask, prompt)
    except TimeoutError:
        return count.drift(f"the engine took longer than {within_s:g} s for the rest")
    except UpstreamError as cause:
        return count.drift(cause.what)
    return count.drift()


class _Count:
    """How many paths were compared, and how many differ."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._compared = 0
        self._differing: list[str] = []

    @property
    def is_enough(self) -> bool:
        """Whether more would change nothing."""
        return len(self._differing) >= ENOUGH

    async def compare(self, ask: Ask, prompt: Prompt) -> None:
        """Compare a prompt; where it differs, each of its paths alone, to count these."""
        if await self._is_alike(ask, prompt):
            self._compared += len(prompt.paths)
            return
        if len(prompt.paths) == 1:
            self._compared += 1
            self._differing.append(prompt.text)
            return
        before = len(self._differing)
        for part in prompt.parts:
            await self.compare(ask, part)
        if len(self._differing) == before:  # the lines are alike alone, and not together
            self._differing.append(prompt.paths[0])

    async def _is_alike(self, ask: Ask, prompt: Prompt) -> bool:
        return digest(await ask(prompt.text)) == self._reference.digests[prompt.text]

    def drift(self, why: str = "") -> Drift:
        """Return the verdict on what was compared."""
        example = self._differing[0] if self._differing else ""
        versions = self._reference.versions
        return Drift(self._compared, len(self._differing), example, versions, why)
