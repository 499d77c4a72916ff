"""Which version is served: CURRENT and PIN, and the list of those there are. Imports neither duckdb nor pyarrow."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batchinfer.core.clock import iso
from batchinfer.core.files import DAMAGE, os_errors, read_small, sync_folder, why_damaged, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.errors import NotFound, NotPublished, StoreError
from batchinfer.versions.folders import folder_of, numbers, verify
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.snapshot import Snapshot

CURRENT = "CURRENT"
PIN = "PIN"


class PointerUnreadable(StoreError):
    """CURRENT or PIN is there, and may be right, but cannot be read: nothing is guessed in its place."""


@dataclass(frozen=True, slots=True)
class PinReport:
    """What is served after a change of the pin.

    job: its name.
    version: what is served; None where nothing is published, or CURRENT is damaged.
    pinned: the same if a pin says so.
    before: for a rollback, what was served before.
    was_pinned: for an unpin, whether there was a pin, damaged or not.
    problem: why it is not known what is served.
    """

    job: str
    version: int | None
    pinned: int | None
    before: int | None = None
    was_pinned: bool = False
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"job": self.job, "version": self.version, "pinned": self.pinned}


@dataclass(frozen=True, slots=True)
class Pointer:
    """What CURRENT or PIN says.

    version: the number of a version.
    digest: the SHA-256 of its manifest.
    """

    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One line of the list of versions.

    version: its number.
    created_at: when it was made, as text; None where its manifest is damaged.
    rows: how many entries it has; None where its manifest is damaged.
    served: whether clients get it: the pinned version if there is a pin, else the current one.
    current: whether CURRENT names it.
    pinned: whether PIN names it.
    gate: what the gate said, or damaged.
    """

    version: int
    created_at: str | None
    rows: int | None
    served: bool
    current: bool
    pinned: bool
    gate: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pointer(data: JobData, name: str = CURRENT) -> Pointer | None:
    """What the file CURRENT or PIN says, or None without one. Raises StoreError if it is damaged or cannot be read."""
    path = data.folder / name
    try:
        content = json.loads(read_small(path))
        return Pointer(int(content["version"]), str(content["manifest_sha256"]))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PointerUnreadable(f"{path} cannot be read: {exc.strerror}.") from exc
    except DAMAGE as exc:
        advice = f"batchinfer {'unpin' if name == PIN else 'publish'} {data.name} fixes it"
        raise StoreError(f"{path} is damaged: {why_damaged(exc)}. {advice}.") from exc


def served(data: JobData) -> Pointer:
    """The version that is served: the pinned one, else the current one. Raises NotFound."""
    found = pointer(data, PIN) or pointer(data)
    if found is None:
        raise nothing_published(data)
    return found


def nothing_published(data: JobData) -> NotPublished:
    """The error for a job without versions. Raises NotFound where there is no such job, or no data folder."""
    data.require()
    return NotPublished(
        f"The job {data.name} has no published version in {data.root}",
        fix="batchinfer run makes one, or choose another data folder with --home.",
    )


def open_served(data: JobData) -> Snapshot:
    """The version that is served, open: it is not removed before it is closed. Raises NotFound or StoreError."""
    found = served(data)
    return Snapshot(folder_of(data, found.version), digest=found.digest)


@contextlib.contextmanager
def open_if_served(data: JobData) -> Iterator[Snapshot | None]:
    """The version that is served, open, or None before the first one. Raises StoreError."""
    with contextlib.ExitStack() as stack:
        try:
            snapshot = stack.enter_context(open_served(data))
        except NotFound:
            snapshot = None
        yield snapshot


def newest_number(data: JobData) -> int:
    """The highest number that the data folder knows of, also where the version is gone or not whole; 0 without one."""
    found = [int(path.name) for path in data.versions.glob("[0-9]*") if path.name.isdigit()]
    for name in (CURRENT, PIN):
        with contextlib.suppress(StoreError):
            named = pointer(data, name)
            found += [named.version] if named else []
    return max(found, default=0)


def previous(data: JobData) -> tuple[int | None, str | None]:
    """The version that a new one follows, and what is wrong where it is not the one that CURRENT names.

    That is the newest whole one if CURRENT is missing or damaged, or what it names is: it must not block the next.
    Raises PointerUnreadable.
    """
    current = None
    try:
        current = pointer(data)
        if current is not None:
            verify(data, current.version, digest=current.digest)
            return current.version, None
        fault = f"{data.folder / CURRENT} is missing."
    except PointerUnreadable:
        raise
    except StoreError as exc:
        fault = str(exc)
    for number in reversed(numbers(data)):
        if current is None or number != current.version:
            with contextlib.suppress(StoreError):
                verify(data, number)
                return number, fault
    return None, fault if newest_number(data) else None  # before the first version nothing is wrong


def pointer_to(data: JobData, version: int) -> Pointer:
    """What CURRENT or PIN would say to name this version. Raises StoreError."""
    path = folder_of(data, version) / MANIFEST
    try:
        return Pointer(version, hashlib.sha256(read_small(path)).hexdigest())
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror}.") from exc


def make_current(data: JobData, version: int) -> None:
    """Flips CURRENT, atomically."""
    point(data, CURRENT, version)


def pin(data: JobData, version: int) -> PinReport:
    """Serves that version whatever is published, until it is unpinned. Raises NotFound or StoreError."""
    data.require()
    with data.versions_lock(f"batchinfer pin {data.name}"):
        if version not in numbers(data):
            there = ", ".join(map(str, numbers(data))) or "none"
            raise NotFound(f"The job {data.name} has no version {version} in {data.root}: it has {there}.")
        verify(data, version)
        point(data, PIN, version)
        return PinReport(data.name, version, version)


def unpin(data: JobData) -> PinReport:
    """Serves the current version again. A damaged CURRENT is reported as the problem: the pin is gone anyway.

    Raises NotFound for a job that the data folder does not have.
    """
    data.require()
    with data.versions_lock(f"batchinfer unpin {data.name}"), os_errors(data.folder / PIN):
        was_pinned = (data.folder / PIN).exists()
        if was_pinned:
            (data.folder / PIN).unlink()
            sync_folder(data.folder)
    try:
        current = pointer(data)
    except StoreError as exc:
        return PinReport(data.name, None, None, was_pinned=was_pinned, problem=str(exc))
    return PinReport(data.name, None if current is None else current.version, None, was_pinned=was_pinned)


def roll_back(data: JobData) -> PinReport:
    """Pins the newest whole version below the one that is served. Raises NotFound or StoreError."""
    data.require()
    with data.versions_lock(f"batchinfer rollback {data.name}"):
        now = served(data).version
        for number in reversed([number for number in numbers(data) if number < now]):
            with contextlib.suppress(StoreError):
                verify(data, number)
                break
        else:
            raise NotFound(f"The job {data.name} has no whole version below {now}, which is served, in {data.root}.")
        point(data, PIN, number)
        return PinReport(data.name, number, number, before=now)


def pinned(data: JobData) -> int | None:
    """The version that is pinned, if one is. Raises StoreError where PIN is damaged."""
    found = pointer(data, PIN)
    return None if found is None else found.version


def point(data: JobData, name: str, version: int) -> None:
    """Makes CURRENT or PIN name that version, atomically; the caller holds the versions lock."""
    named = pointer_to(data, version)
    content = {"version": named.version, "manifest_sha256": named.digest}
    write_atomically(data.folder / name, json.dumps(content).encode())


def list_versions(data: JobData, warn: Info) -> list[VersionStatus]:
    """All versions, newest first. One without a readable manifest is called damaged.

    A CURRENT or PIN that is damaged is named in a warning: the list is where to look for what can be pinned. While PIN
    is damaged no version counts as served. Raises NotFound where nothing is published.
    """
    named: dict[str, int | None] = {}
    for name in (CURRENT, PIN):
        try:
            if (found := pointer(data, name)) is not None:
                named[name] = found.version
        except StoreError as exc:
            named[name] = None
            warn(str(exc))
    there = numbers(data)
    if not there:
        raise nothing_published(data)
    return [_status(data, number, named) for number in reversed(there)]


def _status(data: JobData, number: int, named: Mapping[str, int | None]) -> VersionStatus:
    """named: what CURRENT and PIN say, None for one that is damaged."""
    current, pinned = named.get(CURRENT) == number, named.get(PIN) == number
    is_served = pinned if PIN in named else current
    try:
        manifest = Manifest.read(folder_of(data, number))
    except StoreError:
        return VersionStatus(number, None, None, is_served, current, pinned, "damaged")
    gate = manifest.gate.status
    return VersionStatus(number, iso(manifest.created_at), manifest.rows, is_served, current, pinned, gate)
