"""Reads texts as ``tokenizer.json`` says, and nothing else: the reference of the tokenizer check.

A script, run by the engine's own Python, where the ``tokenizers`` library is. On stdin
``{"file": PATH, "texts": [...]}``; on stdout ``{"digests": [...], "versions": {...}}``, a digest
of each text's ids, or ``{"why": TEXT}`` where it cannot. Nothing of ours is imported, and nothing
imports it.
"""

import hashlib
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("vllm", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Return the versions of those who decide how the engine reads a text."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read(file: str, texts: list[str]) -> list[list[int]]:
    """Return the ids of each text. Raises what the library does for a file that it cannot read."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    # kept in the file by some, and no part of how a text is read
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [list(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]


def digest(ids: list[int]) -> str:
    """Return what stands for a text's ids: who asks must not hold 60,000 numbers."""
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:16]


def main() -> None:
    """Answer what stands on stdin."""
    os.nice(19)  # the engine serves meanwhile
    asked = json.load(sys.stdin)
    told: dict[str, Any] = {"versions": versions()}
    try:
        told["digests"] = list(map(digest, read(asked["file"], asked["texts"])))
    except ImportError:
        told["why"] = f"{sys.executable} has no tokenizers library"
    except Exception as cause:  # the library raises Exception itself
        told["why"] = f"{asked['file']} cannot be read: {cause}"
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
