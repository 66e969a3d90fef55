"""A wheel, patched without compiling anything, and packed so that equal input gives equal bytes."""

import base64
import csv
import hashlib
import io
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unglitched_vllm.source import patches as series
from unglitched_vllm.source.errors import SourceError

_CHUNK = 1 << 20
_INFO = re.compile(r"([^/]+)-([^/-]+)\.dist-info/METADATA")
_OWN_VERSION = re.compile(r"(?m)^(__version__ = version = )'[^']*'$")
_FILE, _PROGRAM = 0o100644, 0o100755


@dataclass(frozen=True)
class Identity:
    """A wheel's name and version, as its own METADATA says."""

    name: str
    version: str

    @property
    def info(self) -> str:
        """Its folder of metadata, with a slash."""
        return f"{self.name}-{self.version}.dist-info/"

    @property
    def data(self) -> str:
        """The folder of its files for elsewhere, with a slash; most wheels have none."""
        return f"{self.name}-{self.version}.data/"


def identify(wheel: Path) -> Identity:
    """Return what a wheel is. Raises SourceError for a file that is none."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [m for m in map(_INFO.fullmatch, archive.namelist()) if m]
    except (OSError, zipfile.BadZipFile) as cause:
        raise SourceError(f"{wheel} is no wheel: {cause}", "name a whole one") from cause
    if len(found) != 1:
        raise SourceError(f"{wheel} holds {len(found)} packages, not one", "name a whole one")
    return Identity(found[0][1], found[0][2])


def local_version(version: str, patch_count: int) -> str:
    """Return the version that says how many of our patches are in: 0.33.0+unglitched.2."""
    return f"{version}{'.' if '+' in version else '+'}unglitched.{patch_count}"


def repack(wheel: Path, out: Path, *, epoch: int, patches: Sequence[series.Patch] = ()) -> Path:
    """Write ``wheel`` to the folder ``out``, patched if there are patches; return the new file.

    Members are sorted, dated ``epoch`` and not compressed: their bytes then depend on no zlib.
    RECORD is made from what was written. Raises SourceError if a patch does not fit.
    """
    old = identify(wheel)
    version = local_version(old.version, len(patches)) if patches else old.version
    new = Identity(old.name, version)
    changed = _patched(wheel, patches)
    if patches:
        changed |= _renamed(wheel, old, new, changed)
    target = out / wheel.name.replace(f"-{old.version}-", f"-{new.version}-", 1)
    out.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(part, "w") as packed:
        _copy(source, packed, _Plan(old, new, changed, epoch))
    part.replace(target)
    return target


def _patched(wheel: Path, patches: Sequence[series.Patch]) -> dict[str, bytes]:
    """Return the members that the patches change. Only these are unpacked."""
    touched = sorted({file for patch in patches for file in patch.touches})
    with tempfile.TemporaryDirectory(prefix="unglitched-") as folder:
        tree = Path(folder) / wheel.stem
        with zipfile.ZipFile(wheel) as archive:
            absent = sorted(set(touched) - set(archive.namelist()))
            if absent:
                raise SourceError(
                    f"{wheel.name} has no {', '.join(absent)}",
                    "patch a vLLM wheel of the release that UPSTREAM pins",
                )
            for name in touched:
                archive.extract(name, tree)
        series.apply(patches, tree)
        return {name: (tree / name).read_bytes() for name in touched}


def _renamed(
    wheel: Path, old: Identity, new: Identity, changed: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the members that say the version, saying the new one."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(old.info + "METADATA").decode()
        head, _, body = metadata.partition("\n\n")
        head = re.sub(r"(?m)^Version: .*$", f"Version: {new.version}", head)
        renamed = {old.info + "METADATA": f"{head}\n\n{body}".encode()}
        own = "vllm/_version.py"
        if own in archive.namelist() and own not in changed:
            text = archive.read(own).decode()
            renamed[own] = _OWN_VERSION.sub(rf"\g<1>'{new.version}'", text).encode()
    return renamed


@dataclass(frozen=True)
class _Plan:
    old: Identity
    new: Identity
    changed: Mapping[str, bytes]
    epoch: int

    def name(self, name: str) -> str:
        for before, after in ((self.old.info, self.new.info), (self.old.data, self.new.data)):
            if name.startswith(before):
                return after + name.removeprefix(before)
        return name

    def info(self, name: str, mode: int) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, time.gmtime(self.epoch)[:6])
        info.create_system = 3  # Unix, so that the mode counts
        info.external_attr = (_PROGRAM if mode & 0o111 else _FILE) << 16
        return info


def _copy(source: zipfile.ZipFile, packed: zipfile.ZipFile, plan: _Plan) -> None:
    record: list[tuple[str, str, str]] = []
    record_name = plan.old.info + "RECORD"
    members = {m.filename: m for m in source.infolist() if not m.is_dir()}
    for name in sorted(members.keys() - {record_name}, key=plan.name):
        info = plan.info(plan.name(name), members[name].external_attr >> 16)
        digest, size = hashlib.sha256(), 0
        with packed.open(info, "w") as target:
            for chunk in _chunks(source, name, plan.changed):
                digest.update(chunk)
                size += len(chunk)
                target.write(chunk)
        coded = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        record.append((info.filename, f"sha256={coded}", str(size)))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([*record, (plan.name(record_name), "", "")])
    packed.writestr(plan.info(plan.name(record_name), _FILE), text.getvalue())


def _chunks(source: zipfile.ZipFile, name: str, changed: Mapping[str, bytes]) -> Iterator[bytes]:
    if name in changed:
        yield changed[name]
        return
    with source.open(name) as member:
        while chunk := member.read(_CHUNK):
            yield chunk


def copy(wheel: Path, out: Path) -> Path:
    """Put a stock wheel into ``out`` as it is; return the new file."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / wheel.name
    part = target.with_suffix(".part")
    shutil.copyfile(wheel, part)
    part.replace(target)
    return target
