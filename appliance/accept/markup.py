"""The page's few shapes of markup. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def e(value: Any) -> str:
    """Return any value as text that is safe in a page; control characters are replaced."""
    text = "-" if value is None else str(value)
    shown = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return escape(shown)


def section(title: str, body: str, lead: str = "", *, is_long: bool = False) -> str:
    """Return one card of the page; ``body`` is markup, the others are texts."""
    first = f'<p class="lead">{e(lead)}</p>' if lead else ""
    kind = ' class="long"' if is_long else ""
    return f"<section{kind}><h2>{e(title)}</h2>{first}{body}</section>"


def table(head: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """Return a table; a head that begins with ">" stands right. ``rows`` are markup."""
    cells = "".join(
        f'<th class="r">{e(name[1:])}</th>' if name.startswith(">") else f"<th>{e(name)}</th>"
        for name in head
    )
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{of_kind}>{top}<tbody>{"".join(rows)}</tbody></table></div>'


def row(*cells: Any, kinds: str = "") -> str:
    """Return a row of texts; ``kinds`` has a letter for each cell: k name, r right, c code, ."""
    marked = []
    for place, cell in enumerate(cells):
        kind = kinds[place] if place < len(kinds) else "."
        marked.append(
            f"<td>{e(cell)}</td>" if kind == "." else f'<td class="{kind}">{e(cell)}</td>'
        )
    return f"<tr>{''.join(marked)}</tr>"


def pairs(values: Mapping[str, Any]) -> str:
    """Return names and values as a table without a head."""
    return table((), (row(name, value, kinds="k.") for name, value in values.items()))


def folded(summary: str, body: str) -> str:
    """Return what is shown once it is asked for; ``body`` is markup."""
    return f"<details><summary>{e(summary)}</summary>{body}</details>"


def lines(texts: Iterable[Any]) -> str:
    """Return lines as they were."""
    return f"<pre>{'&#10;'.join(e(text) for text in texts)}</pre>"


def chart(svg: str) -> str:
    """Return a chart that may be scrolled where it is wider than the page."""
    return f'<div class="wide">{svg}</div>'
