"""ENGINE.json: what an engine was made from. The appliance reads it (appliance/enginefacts.py)."""

import json
from collections.abc import Sequence
from pathlib import Path

from unglitched_vllm.source.patches import Patch
from unglitched_vllm.source.upstream import Artifact, sha256_of

FORMAT = 1
NAME = "ENGINE.json"


def write(
    out: Path,
    *,
    source: str,
    vllm: str,
    patches: Sequence[Patch] = (),
    made_from: Artifact | None = None,
    wheel: Path | None = None,
    target: str = "",
    arch_list: str = "",
) -> Path:
    """Write ENGINE.json into the folder ``out``; return it.

    ``source`` is ``wheel``, ``build`` or ``cpu``; ``vllm`` the release that it comes from.
    The same input gives the same bytes.
    """
    facts = {
        "format": FORMAT,
        "source": source,
        "vllm": vllm,
        "target": target,
        "arch_list": arch_list,
        "patches": [patch.name for patch in patches],
        "patch_sha256": {patch.name: patch.sha256 for patch in patches},
        "made_from": {"file": made_from.file, "sha256": made_from.sha256} if made_from else None,
        "wheel": {"file": wheel.name, "sha256": sha256_of(wheel)} if wheel else None,
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / NAME
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path
