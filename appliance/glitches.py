"""A path that a reply emits, compared with the ledger: exact, new, or a glitch. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from appliance.pathdiff import SPLIT, Difference, Kind, difference, is_common
from appliance.pathledger import USER, Ledger
from appliance.paths import PathName, composed, parse, spell, without_line

_AFTER_DRIVE = re.compile(r"(?<=^[A-Za-z]:)\s+(?=[\\/])")
LEAST = 0.5  # confidence below which a difference is taken for what somebody meant
UNLIKE = 0.7  # the same, for a folder whose file nobody has seen
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
        return _padded(text, bare, ledger, creates=creates)
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
    return replace(found, meant=spell(found.target, text))


def _padded(text: str, bare: str, ledger: Ledger, *, creates: bool) -> Verdict:
    """Judge a path with space around it, as a model's newline at the end."""
    inner = compare(bare, ledger, creates=creates) if bare else NEW
    if ledger.user_said(text) or not (inner.is_known or inner.is_glitch):
        return NEW
    if inner.is_glitch:
        return replace(inner, kind=Kind.INSERTED_SPACE)
    path = parse(bare)
    kinds = 0 if path is None else max(map(ledger.kinds, forms(path, ledger)), default=0)
    return Verdict(
        Kind.INSERTED_SPACE,
        bare,
        confidence=SPLIT,
        evidence=kinds,
        tail_changed=True,
        changed=(text,),
    )


def _if_doubled(text: str, path: PathName, ledger: Ledger) -> Verdict:
    """Return the verdict on a known path, that may have a separator twice in a row."""
    tail = text[2:].replace("\\", "/")
    if "//" not in tail:
        return EXACT
    kinds = max(map(ledger.kinds, forms(path, ledger)), default=0)
    return Verdict(Kind.DOUBLED_SEPARATOR, spell(path, text), confidence=SPLIT, evidence=kinds)


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
                if sure >= LEAST:
                    unlike, kinds = replace(unlike, confidence=sure), ledger.kinds(known)
                    if here.key in found:
                        kinds |= found[here.key][2]
                    found[here.key] = unlike, here, kinds
    if not found:
        return None
    best = max(found.values(), key=lambda one: one[0].confidence)
    rivals = [one for one in found.values() if one[0].confidence > best[0].confidence - _NEAR]
    unlike, meant, kinds = best
    tail_changed = composed(meant.parts[-1]) != composed(path.parts[-1])
    return Verdict(
        unlike.kind,
        target=meant,
        confidence=unlike.confidence,
        evidence=kinds,
        is_sole=len(rivals) == 1,
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
        below = [known.relative_to(root) for root in ledger.roots]
        yield next((one for one in below if one is not None), known)


def _weighed(
    unlike: Difference, path: PathName, known: PathName, ledger: Ledger, *, creates: bool
) -> float:
    """Return how sure a difference is, by where it stands and what is done with the path."""
    sure = unlike.confidence
    tail_changed = composed(known.parts[-1]) != composed(path.parts[-1])
    if unlike.kind is Kind.DROPPED_COMPONENT:
        if _has_folder(path, ledger):
            return 0.0 if creates or is_common(path.parts[-1]) else sure - 0.25
        return sure - 0.3 if creates else sure
    if not tail_changed:
        return sure
    if creates:  # a new name may be much like a known one
        return sure if sure == SPLIT else sure - 0.35 if sure > 0.85 else 0.0
    if (sure < 0.9 and sure > 0.7) or (unlike.kind is Kind.SUBSTITUTED_CHARACTER and sure == 0.9):
        return sure - 0.05
    if sure <= 0.6 and not any(map(ledger.has_listed, forms(known.parent, ledger))):
        return 0.0
    if sure <= 0.5:  # singular and plural are two files, and one folder
        return 0.0
    return sure


def _by_folder(path: PathName, ledger: Ledger, *, creates: bool) -> Verdict | None:
    """Return the glitch in the folders of a path whose end is not known."""
    for size in range(len(path.parts) - 1, 0, -1):
        folder = PathName(path.anchor, path.parts[:size])
        if _is_known(folder, ledger):
            return None  # a new name in a known folder
        found = _nearest(folder, ledger, creates=False)
        if found is None or found.target is None or found.kind is Kind.DROPPED_COMPONENT:
            continue
        meant = PathName(found.target.anchor, found.target.parts + path.parts[size:])
        kinds = max(map(ledger.kinds, forms(meant, ledger)), default=0)
        if not kinds and found.confidence < UNLIKE:
            return None  # another folder, with a name that is much like it
        return replace(
            found,
            target=meant,
            evidence=kinds or found.evidence,
            tail_known=bool(kinds),
            tail_changed=False,
        )
    return None
