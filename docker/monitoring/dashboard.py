#!/usr/bin/env python3
"""Writes Grafana's dashboard from the tables in serving.py and machine.py; needs Python alone.

docker/monitoring/dashboard.py            write grafana/dashboards/unglitched.json
docker/monitoring/dashboard.py --check    exit code 1 if that file is not what would be written
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from machine import MEMORY, PATHS, RESTARTS, SIDECAR
from panel import Panel
from serving import ENGINE, GLANCE, REQUESTS

OUT = Path(__file__).with_name("grafana") / "dashboards" / "unglitched.json"
SOURCE = {"type": "prometheus", "uid": "unglitched"}  # provisioning/datasources names it so
WIDTH = 24

Json = dict[str, Any]

ROWS: Mapping[str, tuple[Panel, ...]] = {
    "At a glance": GLANCE,
    "Requests": REQUESTS,
    "Engine": ENGINE,
    "Memory": MEMORY,
    "Paths": PATHS,
    "Restarts and incidents": RESTARTS,
    "The appliance itself": SIDECAR,
}


def dashboard(rows: Mapping[str, tuple[Panel, ...]]) -> Json:
    """Return Grafana's JSON model of the dashboard: rows of panels, from left to right."""
    panels: list[Json] = []
    y = 0
    for title, row in rows.items():
        panels.append(_row(title, len(panels) + 1, y))
        y, x, height = y + 1, 0, 0
        for panel in row:
            if x + panel.width > WIDTH:
                y, x, height = y + height, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            panels.append(_panel(panel, len(panels) + 1, place))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": "unglitched",
        "title": "Unglitched",
        "description": "One box: what it does, how fast, how close to the edge, what went wrong.",
        "tags": ["unglitched"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "15s",
        "graphTooltip": 1,  # one cross-hair through all panels
        "annotations": {"list": [_ALERTS]},
        "templating": {"list": []},
        "links": [],
        "panels": panels,
    }


# A red mark in every graph while an alert fires.
_ALERTS: Json = {
    "name": "Alerts",
    "datasource": SOURCE,
    "enable": True,
    "hide": False,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing"}',
    "step": "30s",
    "titleFormat": "{{alertname}}",
    "textFormat": "{{severity}}",
}


def _row(title: str, number: int, y: int) -> Json:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
        "panels": [],
    }


def _panel(panel: Panel, number: int, place: Json) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
        **_LOOKS[panel.kind](panel),
    }
    # A name that was there an hour ago must not stand beside the one that is there now.
    is_now = panel.shows_names or panel.kind == "bargauge"
    if panel.most is not None:
        defaults |= {"min": 0, "max": panel.most}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind] | ({"textMode": "name"} if panel.shows_names else {}),
        "targets": [
            {
                "refId": letter,
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": is_now,
                "range": not is_now,
            }
            for letter, (legend, expression) in zip(
                ascii_uppercase, panel.queries.items(), strict=False
            )
        ],
    }


def _steps(panel: Panel) -> list[Json]:
    first = "red" if panel.shows_names else "green"  # a name without a colour of its own is news
    return [
        {"color": first, "value": None},
        *({"color": colour, "value": value} for value, colour in panel.steps),
    ]


def _overrides(panel: Panel) -> list[Json]:
    if not panel.shows_names:
        return []
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in panel.colours.items()
    ]


# ---- how each kind of panel looks


def _lines(panel: Panel) -> Json:
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": stacking,
        "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
    }
    return {"color": {"mode": "palette-classic"}, "min": 0, "custom": custom}


def _number(_panel: Panel) -> Json:
    return {"color": {"mode": "thresholds"}, "noValue": "-"}


def _lights(panel: Panel) -> Json:
    lit = panel.colours.get("lit", "green")
    texts = {
        "0": {"text": "no", "color": "transparent", "index": 0},
        "1": {"text": "yes", "color": lit, "index": 1},
    }
    return {
        "color": {"mode": "thresholds"},
        "mappings": [{"type": "value", "options": texts}],
        "custom": {"lineWidth": 0, "fillOpacity": 80},
    }


_LOOKS = {
    "timeseries": _lines,
    "stat": _number,
    "bargauge": _number,
    "state-timeline": _lights,
}
_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_OPTIONS: dict[str, Json] = {
    "timeseries": {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {
        "reduceOptions": _LAST,
        "orientation": "auto",
        "textMode": "auto",
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
    },
    "bargauge": {
        "reduceOptions": _LAST,
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizWidth": 8,
        "minVizHeight": 10,
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {**_LEGEND, "showLegend": False},
        "tooltip": {"mode": "single", "sort": "none"},
    },
}


def main() -> int:
    """Write the file, or compare it; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    text = json.dumps(dashboard(ROWS), indent=2, ensure_ascii=False) + "\n"
    if not options.check:
        OUT.write_text(text, encoding="utf-8")
    elif not OUT.exists() or OUT.read_text(encoding="utf-8") != text:
        print(f"{OUT.name} is not what the tables say\n  -> docker/monitoring/dashboard.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
