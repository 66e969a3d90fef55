"""The memory budget for the console: the plan part by part, beside what was taken. Pure."""

from collections.abc import Mapping
from typing import Any

from appliance.memory import MemoryPlan


def budget_json(
    plan: MemoryPlan | None, actual: Mapping[str, int], memory: Mapping[str, int]
) -> dict[str, Any]:
    """Return the plan of the current spawn as JSON values, in bytes.

    ``parts`` sum to ``total_bytes`` in ``plan_bytes``; ``actual_bytes`` is what the engine logged
    of a part, null where it says nothing of it. ``actual`` is by part, ``memory`` by the kernel's
    names. Without a plan there are no parts.
    """
    rows = plan.rows if plan else ()
    return {
        "total_bytes": memory.get("MemTotal"),
        "parts": [
            {
                "name": row.name,
                "plan_bytes": row.bytes,
                "actual_bytes": actual.get(row.name),
                "note": row.how,
            }
            for row in rows
        ],
        "available_bytes": memory.get("MemAvailable"),
        "planned_available_bytes": plan.steady_available_bytes if plan else None,
        "floor_bytes": plan.floors.kill_bytes if plan else None,
    }
