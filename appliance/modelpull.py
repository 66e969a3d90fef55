"""What ``appliance model pull`` does: the plan is told, carried out, and told again."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.hub import HubName, parse_hub_name
from appliance.checkpoint.opening import open_hub
from appliance.checkpoint.pull import Pull, PullPlan, plan_pull
from appliance.errors import SettingsError
from appliance.settings import Settings
from appliance.sizes import format_size

# Where the checkpoints of the model profiles are published.
HOMES = {
    "nikola": "catplusplus/MiniMax-M2.7-REAP-172B-A10B-NVFP4",
    "qwen3.5-122b": "catplusplus/Qwen3.5-122B-A10B-heretic-v2-NVFP4",
}


@dataclass(frozen=True)
class Wish:
    """What was typed. None stands for the settings' own: the model profile's, its folder."""

    name: str | None
    revision: str | None
    folder: Path | None
    jobs: int
    keep_code: bool
    adopt: bool
    is_dry: bool
    as_json: bool


def run_pull(wish: Wish, settings: Settings) -> int:
    """Fetch what was wished for; return the exit code, which is 0.

    Raises SettingsError for a wish that names nothing, and what ``plan_pull`` and ``Pull`` raise.
    """
    asked = _asked(wish, settings)
    folder = wish.folder or settings.model_dir
    web, endpoint = open_hub()
    try:
        plan = plan_pull(web, endpoint, asked, folder, keep_code=wish.keep_code, adopt=wish.adopt)
        if not wish.as_json:
            print(_told(plan, folder), file=sys.stderr)
        if not wish.is_dry:
            bar = Bar("fetching", plan.total_bytes)
            Pull(web, plan, folder, jobs=wish.jobs).run(bar)
    finally:
        web.close()
    if wish.as_json:
        print(json.dumps(_view(plan, folder, is_there=not wish.is_dry), indent=2))
    elif not wish.is_dry:
        print(f"{folder} is whole: every hash is the hub's")
        print("  -> appliance model check looks into it, appliance plan says whether it fits")
    return 0


def _asked(wish: Wish, settings: Settings) -> HubName:
    name, revision = wish.name, wish.revision
    if not name:
        name = HOMES.get(settings.model_profile)
    if not name:
        raise SettingsError(
            f"the model profile {settings.model_profile} has no repository of its own",
            "appliance model pull owner/name",
        )
    if revision and "@" in name:
        raise SettingsError(f"{name} and --revision name two revisions", "leave one out")
    return parse_hub_name(f"{name}@{revision}" if revision else name)


def _told(plan: PullPlan, folder: Path) -> str:
    lines = [
        f"{plan.listing.named}",
        f"{len(plan.files)} files, {format_size(plan.total_bytes)}, into {folder}",
    ]
    by_reason: dict[str, list[str]] = {}
    for name, why in plan.left.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"left out: {shown} ({why})")
    return "\n".join(lines)


def _view(plan: PullPlan, folder: Path, *, is_there: bool) -> dict[str, Any]:
    return {
        "repository": str(plan.asked),
        "commit": plan.listing.named.revision,
        "folder": str(folder),
        "is_there": is_there,
        "bytes": plan.total_bytes,
        "files": {file.name: {"size": file.size, "sha256": file.sha256} for file in plan.files},
        "left_out": dict(plan.left),
    }
