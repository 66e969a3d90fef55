"""Whether an engine reads paths as its tokenizer.json says: what is asked, and the verdict. Pure.

transformers may build another tokenizer than the file holds. The model then reads paths in pieces
that it was not trained on, and writes them back wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from appliance.samplepaths import mixed_paths

PATHS = 1000
_SEED = 1
_ALONE = 40  # the rest goes as lines of longer prompts: 60 questions in all, and not 1,000
_LINES = 48  # of a prompt: 3 kB, which fits any context


@dataclass(frozen=True)
class Drift:
    """What was found: how many of the ``compared`` paths come in other tokens.

    ``example`` is one of these, ``versions`` are those of the engine's libraries by name.
    ``why`` says why less than all was compared.
    """

    compared: int = 0
    mismatches: int = 0
    example: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    @property
    def is_drifted(self) -> bool:
        """Whether the engine reads paths otherwise."""
        return self.mismatches > 0

    @property
    def is_known(self) -> bool:
        """Whether anything was compared."""
        return self.compared > 0

    @property
    def what(self) -> str:
        """What was found, in one sentence."""
        told = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        by = f" ({told})" if told else ""
        if not self.is_known:
            return f"not compared: {self.why}{by}"
        rest = f"; {self.why}" if self.why else ""
        if not self.is_drifted:
            return f"{self.compared:,} paths read as tokenizer.json says{by}{rest}"
        return (
            f"{self.mismatches:,} of {self.compared:,} paths are read in other tokens than "
            f"tokenizer.json says, such as {self.example!r}{by}{rest}"
        )

    @property
    def cure(self) -> str:
        """What to type when it has drifted."""
        return (
            'put "tokenizer_class": "PreTrainedTokenizerFast" into the model folder\'s '
            "tokenizer_config.json, or install transformers 5.4 or newer for the engine; "
            "then: appliance restart"
        )


def unknown(why: str, versions: Mapping[str, str] | None = None) -> Drift:
    """Return that nothing was compared, and why."""
    return Drift(why=why, versions=versions or {})


@dataclass(frozen=True)
class Prompt:
    """One text for both tokenizers, and the paths in it."""

    paths: tuple[str, ...]

    @property
    def text(self) -> str:
        """The paths, one a line."""
        return "\n".join(self.paths)

    @property
    def parts(self) -> tuple["Prompt", ...]:
        """Each of its paths alone."""
        return tuple(Prompt((path,)) for path in self.paths)


def prompts() -> tuple[Prompt, ...]:
    """Return all 1,000 paths in few prompts, the same every time."""
    paths = mixed_paths(PATHS, _SEED)
    alone = Prompt(paths[:_ALONE]).parts
    starts = range(_ALONE, len(paths), _LINES)
    return (*alone, *(Prompt(paths[at : at + _LINES]) for at in starts))


def texts_of(asked: Sequence[Prompt]) -> list[str]:
    """Return each text that may be asked for: the prompts, and each path alone."""
    alone = [part.text for prompt in asked for part in prompt.parts]
    return list(dict.fromkeys((*(prompt.text for prompt in asked), *alone)))
