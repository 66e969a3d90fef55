"""A path that a reply emits, compared with the ledger: exact, new, or a glitch. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from appliance.partdiff import (
    DOUBTFUL,
    FAINT,
    FAIR,
    LIKELY,
    PLAIN,
    STYLE,
    STYLES,
    WEAK,
    Difference,
    Kind,
    is_odd,
)
from appliance.pathdiff import difference, is_common
from appliance.pathledger import USER, Ledger
from appliance.paths import PathName, composed, parse, spell, without_line

_QUOTES = "\"'`"
_AFTER_DRIVE = re.compile(r"(?<=^[A-Za-z]:)\s+(?=[\\/])")
# Confidence below which a difference is taken for what somebody meant; of a folder whose file
# nobody has seen.
_LEAST, _LEAST_OF_A_FOLDER = FAINT, STYLES
_FOR_A_NEW_NAME = 0.35  # taken off where the file need not be there yet
_IN_A_FOLDER = 0.25  # taken off where it may be another file, in a folder that is known
_NEAR = 0.1  # two meanings whose confidence is nearer than that are two


@dataclass(frozen=True)
class Verdict:
    """What a path is. A glitch has a ``kind``; ``meant`` is the path that was, ``target``,
    spelled alike.

    ``confidence`` is 0 to 1; ``is_sole``: nothing else in the ledger can be meant. ``evidence``
    are the kinds of it for what is known of ``meant``; ``tail_known`` says that this is all of
    it, its last part too; ``tail_changed`` that the last part is another. ``changed`` are the
    emitted parts that would go.
    """

    kind: Kind | None = None
    meant: str = ""
    target: PathName | None = None
    confidence: float = 0.0
    evidence: int = 0
    is_known: bool = False
    is_sole: bool = True
    tail_known: bool = True
    tail_changed: bool = False
    changed: tuple[str, ...] = ()

    @property
    def is_glitch(self) -> bool:
        """Whether the path was not meant as it came."""
        return self.kind is not None


EXACT = Verdict(is_known=True)
NEW = Verdict()


def compare(text: str, ledger: Ledger, *, creates: bool = False) -> Verdict:
    """Compare an emitted path with the ledger; ``creates``: its file need not be there yet."""
    bare = _AFTER_DRIVE.sub("", text.strip())
    if bare != text:
        return _bared(text, bare, Kind.INSERTED_SPACE, ledger, creates=creates)
    if len(bare) > 2 and bare[0] in _QUOTES and bare[-1] == bare[0]:
        return _bared(text, bare[1:-1], Kind.OTHER, ledger, creates=creates)
    path = parse(text)
    if path is None or not path.parts:
        return NEW
    if _is_known(path, ledger):
        return _if_doubled(text, path, ledger)
    if (line := without_line(text)) != text:
        return compare(line, ledger, creates=creates)
    found = _nearest(path, ledger, creates=creates) or _by_folder(path, ledger, creates=creates)
    if found is None or found.target is None:
        return NEW
    if creates and any(map(ledger.user_said, found.changed)):
        return NEW  # a user named it so
    return replace(found, meant=spell(found.target, text))


def _bared(text: str, bare: str, kind: Kind, ledger: Ledger, *, creates: bool) -> Verdict:
    """Judge a path with space around it, as a model's newline at the end, or with quotes."""
    inner = compare(bare, ledger, creates=creates) if bare else NEW
    if ledger.user_said(text) or not (inner.is_known or inner.is_glitch):
        return NEW
    if inner.is_glitch:
        return replace(inner, kind=kind, changed=(text,))
    path = parse(without_line(bare))
    return Verdict(
        kind,
        bare,
        confidence=PLAIN,
        evidence=_kinds(path, ledger),
        tail_changed=True,
        changed=(text,),
    )


def _if_doubled(text: str, path: PathName, ledger: Ledger) -> Verdict:
    """Return the verdict on a known path, that may have a separator twice in a row."""
    tail = text[2:].replace("\\", "/")
    if "//" not in tail:
        return EXACT
    meant, kinds = spell(path, text), _kinds(path, ledger)
    return Verdict(Kind.DOUBLED_SEPARATOR, meant, confidence=PLAIN, evidence=kinds)


def _kinds(path: PathName | None, ledger: Ledger) -> int:
    """Return the kinds of evidence for a path in any of its forms."""
    kinds = 0
    for form in forms(path, ledger) if path is not None else ():
        kinds |= ledger.kinds(form)
    return kinds


def forms(path: PathName, ledger: Ledger) -> Iterator[PathName]:
    """Yield a path as it came, and as it is from the folders of the work, or below them."""
    yield path
    for root in ledger.roots:
        if not path.anchor:
            yield path.under(root)
        elif (below := path.relative_to(root)) is not None:
            yield below


def _is_known(path: PathName, ledger: Ledger) -> bool:
    if any(map(ledger.kinds, forms(path, ledger))):
        return True
    parts = tuple(map(composed, path.parts))
    for known in ledger.tails(path):
        theirs = tuple(map(composed, known.parts))
        if not ledger.roots and path.anchor != known.anchor:
            short, long = sorted((parts, theirs), key=len)
            if long[len(long) - len(short) :] == short:
                return True  # nothing tells where the shorter one begins
        is_named = len(theirs) == 1 and ledger.kinds(known) & USER
        if is_named and parts[-1:] == theirs and _has_folder(path, ledger):
            return True  # a user gave the file's name, and left the folder to the model
    return False


def _has_folder(path: PathName, ledger: Ledger) -> bool:
    return len(path.parts) > 1 and any(map(ledger.kinds, forms(path.parent, ledger)))


def _nearest(path: PathName, ledger: Ledger, *, creates: bool) -> Verdict | None:
    """Return the glitch that makes one known path this one; None for none."""
    found: dict[str, tuple[Difference, PathName, int]] = {}
    for form in forms(path, ledger):
        for known in ledger.alike(form):
            for here in _as_from(path, known, ledger):
                if (unlike := difference(path, here)) is None:
                    continue
                sure = _weighed(unlike, path, here, ledger, creates=creates)
                if sure >= _LEAST:
                    unlike, kinds = replace(unlike, confidence=sure), ledger.kinds(known)
                    if here.key in found:
                        kinds |= found[here.key][2]
                    found[here.key] = unlike, here, kinds
    if not found:
        return None
    best = max(found.values(), key=lambda one: (one[0].confidence, -len(one[0].parts)))
    rivals = [one for one in found.values() if _is_rival(one[0], best[0])]
    unlike, meant, kinds = best
    tail_changed = composed(meant.parts[-1]) != composed(path.parts[-1])
    return Verdict(
        unlike.kind,
        target=meant,
        confidence=unlike.confidence,
        evidence=kinds,
        is_sole=len(rivals) == 1 and not any(map(ledger.is_twofold, forms(meant, ledger))),
        tail_changed=tail_changed,
        changed=unlike.parts,
    )


def _as_from(path: PathName, known: PathName, ledger: Ledger) -> Iterator[PathName]:
    """Yield a known path as seen from where ``path`` is: absolute like it, or relative."""
    if bool(path.anchor) == bool(known.anchor):
        yield known
    elif path.anchor and ledger.roots:
        yield from (known.under(root) for root in ledger.roots)
    elif path.anchor and len(known.parts) < len(path.parts):
        # Nothing tells where the known path begins: the end of the emitted one is compared.
        yield PathName(path.anchor, path.parts[: -len(known.parts)] + known.parts)
    else:
        yield known
        below = (known.relative_to(root) for root in ledger.roots)
        yield from (one for one in below if one is not None)


def _is_rival(one: Difference, best: Difference) -> bool:
    """Tell whether one meaning is about as good as the best; the best is its own rival."""
    is_simpler = len(one.parts) <= len(best.parts)
    return is_simpler and one.confidence > best.confidence - _NEAR


def _weighed(
    unlike: Difference, path: PathName, known: PathName, ledger: Ledger, *, creates: bool
) -> float:
    """Return how sure a difference is, by where it stands and what is done with the path."""
    if unlike.kind is Kind.DROPPED_COMPONENT:
        return _weighed_drop(unlike, path, known, ledger, creates=creates)
    sure = unlike.confidence
    if composed(known.parts[-1]) == composed(path.parts[-1]):
        is_of_the_work = unlike.by_letter and sure >= DOUBTFUL and _is_above(path, known, ledger)
        return max(sure, LIKELY) if is_of_the_work else sure
    if creates:  # a new name may be much like a known one
        return sure if sure == PLAIN else sure - _FOR_A_NEW_NAME if sure >= FAIR else 0.0
    is_listed = any(map(ledger.has_listed, forms(known.parent, ledger)))
    if unlike.by_letter:
        least = FAINT if is_listed else WEAK
        return min(sure, FAIR) if sure > least else 0.0
    if sure == STYLE:
        return LIKELY if is_listed else FAIR
    return sure


def _weighed_drop(
    unlike: Difference, path: PathName, known: PathName, ledger: Ledger, *, creates: bool
) -> float:
    sure, is_new = unlike.confidence, creates or is_common(path.parts[-1])
    if _is_above(path, known, ledger):
        return sure
    if _has_folder(path, ledger):  # the file may be new there
        return 0.0 if is_new else sure - _IN_A_FOLDER
    return sure - _FOR_A_NEW_NAME if is_new else sure


def _is_above(path: PathName, known: PathName, ledger: Ledger) -> bool:
    """Tell whether all that differs is above a folder of the work: what is below is the same."""
    parts = tuple(map(composed, path.parts))
    for root in ledger.roots:
        below = known.relative_to(root)
        rest = () if below is None else tuple(map(composed, below.parts))
        if (rest and parts[-len(rest) :] == rest) or known == root:
            return True
    return False


def _by_folder(path: PathName, ledger: Ledger, *, creates: bool) -> Verdict | None:
    """Return the glitch in the folders of a path whose end is not known."""
    for size in range(len(path.parts) - 1, 0, -1):
        folder = PathName(path.anchor, path.parts[:size])
        if _is_known(folder, ledger):
            return None  # a new name in a known folder
        found = _nearest(folder, ledger, creates=False)
        if found is None or found.target is None:
            continue
        if found.kind is Kind.DROPPED_COMPONENT and not _is_above(folder, found.target, ledger):
            continue
        meant = PathName(found.target.anchor, found.target.parts + path.parts[size:])
        if kinds := _kinds(meant, ledger):
            return replace(found, target=meant, evidence=kinds, tail_changed=False)
        if found.confidence < _LEAST_OF_A_FOLDER:
            return None  # another folder, with a name that is much like it
        return _of_new_tail(found, meant, len(found.target.parts), ledger, creates=creates)
    return None


def _of_new_tail(
    found: Verdict, meant: PathName, size: int, ledger: Ledger, *, creates: bool
) -> Verdict:
    """Judge a path whose first ``size`` parts are mended; its end is not known, and may be odd."""
    inner = _nearest(meant, ledger, creates=creates)
    if inner is None:
        tail = meant.parts[-1]
        is_plain = len(meant.parts) - 1 == size and not is_odd(tail)
        sure = found.confidence if is_plain else min(found.confidence, FAIR)
        return replace(found, target=meant, confidence=sure, tail_known=False, tail_changed=False)
    confidence = min(found.confidence, inner.confidence)
    changed = found.changed + inner.changed
    return replace(inner, kind=found.kind, confidence=confidence, changed=changed)
