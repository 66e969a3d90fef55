"""What lies between a path and the question for it: the text of a long session. Pure."""

from functools import cache
from random import Random

from appliance.samplepaths import mixed_paths

CHARS_PER_TOKEN = 3.2  # of such text, as byte-level tokenizers go; the report tells what it was
_POOL = 400
_SAID = (
    "The failing assertion compares a cached value with one that was computed afterwards.",
    "Nothing here changes the public interface, so the callers can stay as they are.",
    "I would rather split this function than give it one more flag.",
    "The retry loop hides the first error, which is the one that people need to see.",
    "Two of the three fixtures are not used by any test since the last release.",
    "This comment describes what the code did a year ago.",
)


@cache
def distractor(tokens: int, seed: int) -> str:
    """Return about ``tokens`` tokens of listings, log lines, code and talk, paths among them."""
    rng = Random(f"{seed}/distractor/{tokens}")  # noqa: S311 - a draw that can be repeated
    paths = mixed_paths(_POOL, rng.randrange(2**32))
    lines: list[str] = []
    length, wanted = 0, tokens * CHARS_PER_TOKEN
    while length < wanted:
        line = _line(rng, paths)
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)


def _line(rng: Random, paths: tuple[str, ...]) -> str:
    path, number = rng.choice(paths), rng.randint(1, 9999)
    shapes = (
        f"{number:>8} {path}",
        f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:17 INFO read {path} in {number} ms",
        f"    value_{number} = load({path!r}, limit={rng.randint(1, 64)})",
        rng.choice(_SAID),
        f"test_{number} passed",
    )
    return rng.choice(shapes)
