"""Fetches a whole repository into a folder: resumed, verified, and never looking whole too early.

A file grows beneath the folder's work folder, and gets its name once its hash is the one that the
hub names. ``config.json`` and the index come last: before them nothing takes it for a checkpoint.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.checksum import Checksum, read_through
from appliance.checkpoint.destination import WORK, Destination
from appliance.checkpoint.failures import CheckpointError, DestinationError
from appliance.checkpoint.faults import NoRanges
from appliance.checkpoint.folder import INDEX
from appliance.checkpoint.hub import HubFile, HubName, Listing, hub_source, read_listing
from appliance.checkpoint.jobs import side_by_side
from appliance.checkpoint.layout import CONFIG
from appliance.checkpoint.pullrecord import RECORD, PullRecord
from appliance.checkpoint.remote import RemoteFile, RemoteSource
from appliance.checkpoint.rewrite import left_out
from appliance.checkpoint.source import forget, write_all
from appliance.checkpoint.sourcefacts import shard_names
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import WebUrl
from appliance.checkpoint.write import write_error

SYNC_BYTES = 64 * 2**20  # at most so much of a file stands in memory, waiting for the disk
TRIES = 2
LAST = (CONFIG, INDEX)


@dataclass(frozen=True)
class PullPlan:
    """What is to be fetched. ``left`` says of each other file why it is not taken."""

    asked: HubName
    listing: Listing
    source: RemoteSource
    files: tuple[HubFile, ...]
    left: Mapping[str, str]

    @property
    def total_bytes(self) -> int:
        """Return what the files take."""
        return sum(file.size for file in self.files)


def plan_pull(
    web: Web,
    endpoint: WebUrl,
    asked: HubName,
    folder: Path,
    *,
    keep_code: bool = False,
    adopt: bool = False,
) -> PullPlan:
    """Return what a pull into ``folder`` will fetch. An interrupted one stays at its commit.

    With ``adopt`` the folder may be somebody else's: what has the right hash in it will stay.
    Raises SourceError; CheckpointError for a repository that is none of a checkpoint;
    DestinationError for a folder that holds something else.
    """
    record = PullRecord.read(folder)
    if record is None and not adopt:
        _refuse_foreign(folder)
    named = asked
    if record and not record.is_whole and record.asked == str(asked):
        named = HubName(asked.owner, asked.name, record.commit)
    listing = read_listing(web, endpoint, named)
    if record and record.commit != listing.named.revision:
        raise DestinationError(
            f"{folder} holds commit {record.commit[:12]} of {record.asked}, and not "
            f"{listing.named.revision[:12]} of {asked}",
            "fetch it into another folder (--out), or name that commit",
        )
    source = hub_source(web, endpoint, listing)
    shards = {*shard_names(source)}
    there = {file.name for file in listing.files}
    if missing := sorted({CONFIG, *shards} - there):
        raise CheckpointError(
            f"{listing.named} lacks {len(missing)} files of a checkpoint: {missing[0]}",
            "name a repository with a whole checkpoint in safetensors",
            code="model_incomplete",
        )
    left = dict.fromkeys(listing.left_out, "hidden")
    for name in sorted(there - shards):
        why = left_out(name)
        if why and not (keep_code and not name.endswith(".safetensors")):
            left[name] = why
    files = tuple(file for file in listing.files if file.name not in left)
    return PullPlan(asked, listing, source, files, left)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise DestinationError(
            f"{folder} holds files that no pull has fetched",
            "name an empty folder with --out; --adopt keeps what is right in this one",
        )


class Pull:
    """Carries one plan out."""

    def __init__(
        self, web: Web, plan: PullPlan, folder: Path, *, jobs: int, sync_bytes: int = SYNC_BYTES
    ) -> None:
        self._web, self._plan, self._jobs, self._sync_bytes = web, plan, jobs, sync_bytes
        self._folder = folder.resolve()
        self._record = PullRecord.read(folder) or PullRecord(
            self._folder, str(plan.asked), plan.listing.named.revision, {}, whole=False
        )
        self._destination = _destination(self._folder, self._record)

    def run(self, bar: Bar) -> None:
        """Fetch what is not there yet.

        Raises SourceError, CheckpointError for a hash that stays wrong, DestinationError when it
        will not fit, WriteError when it does not fit; what is fetched stays for the next time.
        """
        try:
            missing = self._missing(bar)
            self._refuse_full(missing)
            if missing:
                self._record.begin()
            for wave in (
                [file for file in missing if file.name not in LAST],
                [file for file in missing if file.name in LAST],
            ):
                side_by_side([partial(self._file, file, bar) for file in wave], self._jobs,
                             self._web.close)  # fmt: skip
            self._record.finish()
            self._destination.finish()
        except OSError as cause:
            raise write_error(self._destination, RECORD, cause) from cause
        finally:
            bar.close()
            self._destination.close()

    def _missing(self, bar: Bar) -> list[HubFile]:
        """Return what is not there as the hub has it. What nobody remembers is read, and hashed."""
        rest = [f for f in self._plan.files if not self._record.has(f.name, f.sha256 or f.blob)]
        unsure = [file for file in rest if self._destination.has(file.name, file.size, b"")]
        right = self._right(unsure) if unsure else set()
        missing = [file for file in rest if file.name not in right]
        bar.skip(self._plan.total_bytes - sum(file.size for file in missing))
        return missing

    def _right(self, unsure: list[HubFile]) -> set[str]:
        """Return the names of those files that are there as the hub has them."""
        right: set[str] = set()
        with Bar("checking", sum(file.size for file in unsure)) as bar:
            tasks = [partial(self._check, file, bar, right) for file in unsure]
            side_by_side(tasks, self._jobs, self._web.close)
        return right

    def _check(self, file: HubFile, bar: Bar, right: set[str]) -> None:
        checksum = Checksum(file)

        def take(part: bytes) -> None:
            self._take(checksum, part)
            bar.add(len(part))

        try:
            with (self._folder / file.name).open("rb", buffering=0) as there:
                read_through(there.fileno(), file.size, take)
        except OSError:
            return  # what cannot be read is fetched again
        if checksum.is_right():
            self._record.add(file.name, file.sha256 or file.blob)
            right.add(file.name)

    def _refuse_full(self, missing: list[HubFile]) -> None:
        begun = sum(path.lstat().st_size for path in (self._folder / WORK).iterdir())
        needed = sum(file.size for file in missing) - begun
        if (free := self._destination.free_bytes()) < needed:
            raise DestinationError(
                f"{self._folder} has {free:,} bytes free, and {needed:,} are still needed",
                "make room, or name a folder on another disk with --out",
                code="disk_full",
            )

    # ---- one file

    def _file(self, file: HubFile, bar: Bar) -> None:
        try:
            fd = self._destination.open_part(file.name)
            try:
                self._fill(fd, file, bar)
                os.fsync(fd)
                forget(fd, 0, file.size)
            finally:
                os.close(fd)
            self._destination.publish(file.name)
            self._record.add(file.name, file.sha256 or file.blob)
        except OSError as cause:
            raise write_error(self._destination, file.name, cause) from cause

    def _fill(self, fd: int, file: HubFile, bar: Bar) -> None:
        """Bring a growing file to its end. One that ends with a wrong hash is fetched once more."""
        remote = self._plan.source.file(file.name)
        for tries in range(1, TRIES + 1):
            checksum = Checksum(file)
            try:
                self._grow(fd, file, remote, checksum, bar)
            except NoRanges:
                if tries == TRIES:
                    raise
            else:
                if checksum.is_right():
                    return
            bar.skip(-os.fstat(fd).st_size)
            os.ftruncate(fd, 0)
        raise CheckpointError(
            f"{file.name} came {TRIES} times with {checksum.difference()}",
            "type the same again; if it stays, something between you and the hub changes files",
            code="checkpoint_corrupt",
        )

    def _grow(
        self, fd: int, file: HubFile, remote: RemoteFile, checksum: Checksum, bar: Bar
    ) -> None:
        done = synced = min(os.fstat(fd).st_size, file.size)
        os.ftruncate(fd, done)
        read_through(fd, done, partial(self._take, checksum))
        bar.skip(done)
        for part in remote.pieces(done, file.size):
            write_all(fd, part, done)
            checksum.update(part)
            done += len(part)
            bar.add(len(part))
            if done - synced >= self._sync_bytes:
                os.fdatasync(fd)
                forget(fd, 0, done)
                synced = done

    def _take(self, checksum: Checksum, part: bytes) -> None:
        self._web.go_on()
        checksum.update(part)


def _destination(folder: Path, record: PullRecord) -> Destination:
    """Return the folder, made if need be. The record is first: by it the folder is ours."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / RECORD).exists():
            record.begin()
        (folder / WORK).mkdir(exist_ok=True)
    except OSError as cause:
        raise DestinationError(
            f"{folder} cannot be made: {cause.strerror}", "name another folder with --out"
        ) from cause
    return Destination(folder, resume=True)
