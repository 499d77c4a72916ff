"""Keeps the version of a job that is served open, and picks up another when CURRENT or PIN change, without a restart.

    CURRENT or PIN changed ─► open by its new path ─► checksums ─► probe ─► matcher ─► prepare ─► swap one reference
                                     └────── anything wrong: the old one stays, and `problem` says why

A reader takes the reference once and uses it to its end; the old version is closed when its last reader lets go of it.

An open version in which something damaged was found, or whose files somebody wrote to, is opened and checked again as a
whole, and left for the newest whole one if it does not pass. Where there is no whole one, look-ups go on with what they need
of a damaged one: a student or a matcher that is damaged takes only itself away.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from batchinfer.core.files import why_damaged
from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError, MissingExtra, StoreError
from batchinfer.match.version import MATCHER, IncompatibleMatcher
from batchinfer.student.version import NewerStudent
from batchinfer.versions import folders, pointers
from batchinfer.versions.checksums import verify_again, verify_once
from batchinfer.versions.layout import STUDENT
from batchinfer.versions.openings import Awaited, Opening, Openings
from batchinfer.versions.pointers import CURRENT, PIN, Pointer
from batchinfer.versions.snapshot import Snapshot

LOOK_SECONDS = 0.5  # between two looks for a new version, of a service and of a Lookup
RETRY_SECONDS = 10.0  # between two looks at the files of a version that could not be opened
MOST_RETRY_SECONDS = 600.0  # between two openings of one of which no file changed: each reads all that there is


@dataclass(frozen=True, slots=True)
class FollowedVersion:
    """What a follower has open of its job.

    snapshot: the version that is open; None if none can be, or none was ever published.
    pointer: its number and its manifest's digest.
    pinned: whether PIN, rather than CURRENT, names it.
    problem: why this is not what PIN or CURRENT name, a sentence.
    """

    snapshot: Snapshot | None = None
    pointer: Pointer | None = None
    pinned: bool = False
    problem: str | None = None

    @property
    def degraded(self) -> bool:
        """Whether something else is open than what should be."""
        return self.problem is not None


Prepare = Callable[[Snapshot, Pointer], object]


class Follower:
    """Follows the version that is served of one job. One thread calls `refresh` now and then; any may read `followed`.

    matching: whether texts are matched too. A version's matcher is then loaded before it is picked up, so that no
    request waits for that.
    prepare: called with a version that is whole, before it is picked up. What it raises counts as any other fault.
    openings: where other processes that follow the job leave word of versions that end them; one that does is damaged.
    """

    def __init__(
        self, data: JobData, *, matching: bool = False, prepare: Prepare | None = None, openings: Openings | None = None
    ) -> None:
        self.data = data
        self.matching = matching
        self.followed = FollowedVersion()
        self.failed_loads = 0
        self._prepare = prepare
        self._openings = openings
        self._seen: object = None
        self._distrusted = set[Pointer]()  # were found damaged, and have not passed a check of all of them since
        self._judged: Snapshot | None = None  # the last that was
        self._retries = _Retries(data)

    def refresh(self) -> bool:
        """Looks at CURRENT and PIN, and picks up what they name; returns whether anything changed. Raises nothing."""
        seen = tuple(_signature(self.data, name) for name in (PIN, CURRENT))
        due = self.followed.degraded and self._retries.are_due()
        if seen == self._seen and not due and not self._is_newly_suspect():
            return False
        before, files = self.followed, _files_of(self.data)
        try:
            self.followed, self._seen = self._look(), seen
        except Awaited:
            self._seen = None  # looked at again next time
            return False
        if self.followed.degraded:
            self._retries.failed(files)
        if self._judged is not self.followed.snapshot:
            self._judged = None  # its files are closed with the last reference
        return self.followed != before

    def _is_newly_suspect(self) -> bool:
        """Whether what is open was found damaged since the last look."""
        opened = self.followed.snapshot
        if opened is None or opened is self._judged or not opened.is_suspect:
            return False
        self._judged = opened
        assert self.followed.pointer is not None  # it has one with its snapshot
        self._distrusted.add(self.followed.pointer)
        return True

    def _look(self) -> FollowedVersion:
        pin, named = False, None
        try:
            pinned = pointers.pointer(self.data, PIN)
            pin, named = pinned is not None, pinned or pointers.pointer(self.data)
            if named is None:
                return self._without_name()
            if self._is_sound and named == self.followed.pointer:
                return replace(self.followed, pinned=pin, problem=None)
            return FollowedVersion(self._open(named), named, pin)
        except Awaited:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a version, what is open must go on
            self.failed_loads += 1
            pin = pin or _signature(self.data, PIN) is not None
            return self._fall_back(self._sentence(exc), named, pin=pin)

    @property
    def _is_sound(self) -> bool:
        """Whether a version is open in which nothing damaged was found."""
        opened = self.followed.snapshot
        return opened is not None and not opened.left_out and self.followed.pointer not in self._distrusted

    def _sentence(self, exc: Exception) -> str:
        if isinstance(exc, BatchinferError):
            return str(exc)
        if isinstance(exc, OSError):
            return f"{exc.filename or self.data.folder} cannot be read: {exc.strerror}."
        return f"{self.data.folder} cannot be used: {why_damaged(exc)}."

    def _without_name(self) -> FollowedVersion:
        """CURRENT is missing: nothing was ever published, or somebody took it away."""
        if self.followed.snapshot is None and not folders.numbers(self.data):
            return FollowedVersion()
        self.failed_loads += 1
        return self._fall_back(f"{self.data.folder / CURRENT} is missing.", pin=False)

    def _fall_back(self, problem: str, named: Pointer | None = None, *, pin: bool) -> FollowedVersion:
        """What was open stays, if it is sound. Otherwise the newest whole version is picked up, but never in place of a pin.

        If there is none, a damaged one stays if each of its pages has a checksum: what is whole of it can be served. Or one is
        picked up of which nothing is damaged that look-ups need. named: by CURRENT or PIN.
        """
        if self._is_sound:
            return replace(self.followed, problem=problem)
        others = [] if pin else list(self._pointers())
        for pointer in others:
            with _passing_over():  # the one before it may be whole
                return FollowedVersion(self._open(pointer), pointer, problem=problem)
        opened = self.followed.snapshot
        if opened is not None and (opened.entries.is_checked or opened.left_out):
            return replace(self.followed, problem=problem)
        for pointer in [*([] if named is None else [named]), *others]:
            with contextlib.suppress(Exception):
                return FollowedVersion(self._open_lookups(pointer), pointer, pin, problem)
        return FollowedVersion(problem=problem)

    def _pointers(self) -> Iterator[Pointer]:
        """Those to the complete versions, the newest first."""
        for number in reversed(self._numbers()):
            with contextlib.suppress(Exception):
                yield pointers.pointer_to(self.data, number)

    def _numbers(self) -> list[int]:
        """The complete versions; none where their folder cannot be read."""
        try:
            return folders.numbers(self.data)
        except OSError:
            return []

    def _open(self, named: Pointer) -> Snapshot:
        """Raises StoreError; Awaited where another process opens it, and this one has something to serve meanwhile."""
        with self._opening(named):
            return self._opened(named)

    def _opening(self, named: Pointer, opening: Opening | None = None) -> contextlib.AbstractContextManager[None]:
        """opening: if not of all of it."""
        if self._openings is None:
            return contextlib.nullcontext()
        whole = Opening.ALONE if self.followed.snapshot is None else Opening.BESIDE
        return self._openings.opening(named, opening or whole)

    def _opened(self, named: Pointer) -> Snapshot:
        """Raises StoreError."""
        snapshot = self._named(named)
        for fault in snapshot.left_out.values():  # of what it opened without
            raise StoreError(fault)
        if named in self._distrusted:
            verify_again(snapshot)
        else:
            verify_once(snapshot)
        snapshot.probe()
        with contextlib.suppress(MissingExtra, NewerStudent):  # the log says so
            _ = snapshot.manifest.spec.asks_student and snapshot.student  # opened now, so that no query waits for it
        if self.matching and snapshot.matches:
            with contextlib.suppress(MissingExtra, IncompatibleMatcher):  # a request for a match says so
                _ = snapshot.matcher
        if self._prepare is not None:
            self._prepare(snapshot, named)
        self._distrusted.discard(named)
        return snapshot

    def _open_lookups(self, named: Pointer) -> Snapshot:
        """A version without what is damaged of it, as far as look-ups can do without that. Raises StoreError."""
        with self._opening(named, Opening.LOOKUPS):
            snapshot = self._named(named)
            snapshot.verify_lookups()
            snapshot.probe()
        wanted = self._wanted_beside_lookups(snapshot)
        try:
            with self._opening(named):
                _open_whole_ones(snapshot, wanted)
        except StoreError as exc:
            snapshot.left_out.update(dict.fromkeys(wanted, str(exc)))
        if self._prepare is not None:
            self._prepare(snapshot, named)
        return snapshot

    def _wanted_beside_lookups(self, snapshot: Snapshot) -> dict[str, Callable[[], object]]:
        """How each is opened."""
        wanted = dict[str, Callable[[], object]]()
        if snapshot.manifest.spec.asks_student:
            wanted[STUDENT] = lambda: snapshot.student
        if self.matching and snapshot.matches:
            wanted[MATCHER] = lambda: snapshot.matcher
        return wanted

    def _named(self, named: Pointer) -> Snapshot:
        """Raises StoreError."""
        snapshot = Snapshot(folders.folder_of(self.data, named.version), digest=named.digest)
        if snapshot.manifest.job != self.data.name:
            raise StoreError(
                f"{snapshot.folder} is a version of the job {snapshot.manifest.job}, not of {self.data.name}."
            )
        return snapshot


def _open_whole_ones(snapshot: Snapshot, wanted: dict[str, Callable[[], object]]) -> None:
    """Those that are damaged are left out, so that no request tries them again."""
    for name, opening in wanted.items():
        try:
            opening()
        except (MissingExtra, NewerStudent, IncompatibleMatcher):
            pass
        except StoreError as exc:
            snapshot.left_out[name] = str(exc)


@contextlib.contextmanager
def _passing_over() -> Iterator[None]:
    """Whatever is wrong with a version; but not one that is waited for."""
    try:
        yield
    except Awaited:
        raise
    except Exception:  # noqa: BLE001, S110 - as for the version that should be served
        pass


class _Retries:
    """When a version that could not be opened is tried again: soon if a file changed, ever more rarely if none did."""

    def __init__(self, data: JobData) -> None:
        self._data = data
        self._files: object = None  # as they were when it was tried last
        self._wait = self._look_at = self._try_at = 0.0

    def are_due(self) -> bool:
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + RETRY_SECONDS
        return now >= self._try_at or _files_of(self._data) != self._files

    def failed(self, files: object) -> None:
        """Notes a try. files: as they were before it."""
        self._wait = min(2 * self._wait, MOST_RETRY_SECONDS) if files == self._files else RETRY_SECONDS
        now = time.monotonic()
        self._files, self._look_at, self._try_at = files, now + RETRY_SECONDS, now + self._wait


def _files_of(data: JobData) -> list[tuple[object, ...]]:
    """What changes when a file of any version does, or comes, goes, or may be read."""
    found = list[tuple[object, ...]]()
    for path in itertools.chain.from_iterable(map(_below, _below(data.versions))):
        with contextlib.suppress(OSError):
            facts = path.stat()
            found.append((path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
    return found


def _below(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing where that cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _signature(data: JobData, name: str) -> tuple[int, int, int] | None:
    """What changes when the file is replaced; None without one."""
    try:
        facts = (data.folder / name).stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
