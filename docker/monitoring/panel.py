"""A panel of the dashboard, and the PromQL that several panels share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TOKENS = "suffix: tok/s"
EACH_S = "suffix: /s"
NO_GPU = "Empty on a machine without an NVIDIA GPU."
NOT_READY = "Empty while no engine is there."

MODEL_ROUTES = 'route=~"/v1/(chat/completions|completions|messages|responses)"'
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """One panel: it answers one question, which ``about`` says.

    ``queries`` are PromQL by legend; Grafana fills {{label}} in, and ``$__rate_interval``.
    ``steps``: from that value on, that colour; below the first it is green. ``width`` is of 24 in a
    line.
    """

    title: str
    about: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: str = "timeseries"  # or stat, bargauge, state-timeline
    width: int = 8
    height: int = 7
    steps: tuple[tuple[float, str], ...] = ()
    most: float | None = None
    stacked: bool = False
    shows_names: bool = False  # a stat whose answer is the series' name
    colours: Mapping[str, str] = field(default_factory=dict)  # by legend


def quantiles(family: str, *shares: float, where: str = "") -> dict[str, str]:
    """Return quantiles of a histogram over five minutes, named p50, p99."""
    counted = f"sum by (le) (rate({family}_bucket{{{where}}}[5m]))"
    return {f"p{share * 100:g}": f"histogram_quantile({share}, {counted})" for share in shares}


def by(label: str, counter: str) -> dict[str, str]:
    """Return how fast a counter grows, by label."""
    return _or_none(label, f"sum by ({label}) (rate({counter}[{RATE}]))")


def counted(label: str, counter: str) -> dict[str, str]:
    """Return a counter by label as it stands since the appliance began.

    For what is rare: ``increase`` does not see a series' first count, for before it there is none.
    """
    return _or_none(label, f"sum by ({label}) ({counter})")


def _or_none(label: str, query: str) -> dict[str, str]:
    """Show "none" at 0 for what was never counted."""
    none = f'label_replace(vector(0), "{label}", "none", "", "")'
    return {f"{{{{{label}}}}}": f"{query} or on() {none}"}
