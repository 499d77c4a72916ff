"""Which version is served: CURRENT and PIN, and the list of those there are. Imports neither duckdb nor pyarrow."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from batchinfer.core.clock import iso
from batchinfer.core.files import os_errors, sync_folder, write_atomically
from batchinfer.core.home import JobData
from batchinfer.errors import NotFound, StoreError
from batchinfer.versions.folders import folder_of, numbers, verify
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.snapshot import Snapshot

CURRENT = "CURRENT"
PIN = "PIN"
LISTED = ("version", "created_at", "rows", "current", "pinned", "gate")


class PointerUnreadable(StoreError):
    """CURRENT or PIN is there, and may be right, but cannot be read: nothing is guessed in its place."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """What CURRENT or PIN says: a version's number and its manifest's SHA-256."""

    version: int
    manifest: str


def pointer(data: JobData, name: str = CURRENT) -> Pointer | None:
    """What the file CURRENT or PIN says, or None without one. Raises StoreError if it is damaged or Unreadable."""
    path = data.folder / name
    try:
        content = json.loads(path.read_bytes())
        return Pointer(int(content["version"]), str(content["manifest_sha256"]))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PointerUnreadable(f"{path} cannot be read: {exc.strerror}.") from exc
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        advice = f"batchinfer {'unpin' if name == PIN else 'publish'} {data.name} mends it"
        raise StoreError(f"{path} is damaged: {exc!r}. {advice}.") from exc


def served(data: JobData) -> Pointer:
    """The version that is served: the pinned one, else the current one. Raises NotFound."""
    found = pointer(data, PIN) or pointer(data)
    if found is None:
        raise NotFound(f"The job {data.name} has no published version in {data.root}: batchinfer run makes one.")
    return found


def open_served(data: JobData) -> Snapshot:
    """The version that is served, open: it is not removed before it is closed. Raises NotFound or StoreError."""
    found = served(data)
    return Snapshot(folder_of(data, found.version), digest=found.manifest)


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
    Raises Unreadable.
    """
    current = None
    try:
        current = pointer(data)
        if current is not None:
            verify(data, current.version, digest=current.manifest)
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
        return Pointer(version, hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror}.") from exc


def make_current(data: JobData, version: int) -> None:
    """Flips CURRENT, atomically."""
    point(data, CURRENT, version)


def pin(data: JobData, version: int) -> None:
    """Serves that version whatever is published, until it is unpinned. Raises NotFound or StoreError."""
    with data.versions_lock(f"batchinfer pin {data.name}"):
        if version not in numbers(data):
            there = ", ".join(map(str, numbers(data))) or "none"
            raise NotFound(f"The job {data.name} has no version {version}: there are {there}.")
        verify(data, version)
        point(data, PIN, version)


def unpin(data: JobData) -> bool:
    """Serves the current version again. Returns whether there was a pin, damaged or not."""
    with data.versions_lock(f"batchinfer unpin {data.name}"), os_errors(data.folder / PIN):
        try:
            (data.folder / PIN).unlink()
        except FileNotFoundError:
            return False
        sync_folder(data.folder)
        return True


def roll_back(data: JobData) -> tuple[int, int]:
    """Pins the newest whole version below the one that is served; returns both numbers. Raises NotFound or StoreError."""
    with data.versions_lock(f"batchinfer rollback {data.name}"):
        now = served(data).version
        for number in reversed([number for number in numbers(data) if number < now]):
            with contextlib.suppress(StoreError):
                verify(data, number)
                break
        else:
            raise NotFound(f"The job {data.name} has no whole version below {now}, which is served.")
        point(data, PIN, number)
        return now, number


def pinned(data: JobData) -> int | None:
    """The version that is pinned, if one is. Raises StoreError where PIN is damaged."""
    found = pointer(data, PIN)
    return None if found is None else found.version


def point(data: JobData, name: str, version: int) -> None:
    """Makes CURRENT or PIN name that version, atomically; the caller holds the versions lock."""
    named = pointer_to(data, version)
    content = {"version": named.version, "manifest_sha256": named.manifest}
    write_atomically(data.folder / name, json.dumps(content).encode())


def listing(data: JobData, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row a version, newest first, as `versions --json` prints it. One without a readable manifest is called damaged.

    A CURRENT or PIN that is damaged counts as none, and that is said: the list is where to look for what can be pinned.
    """
    named: dict[str, int] = {}
    for name in (CURRENT, PIN):
        try:
            if (found := pointer(data, name)) is not None:
                named[name] = found.version
        except StoreError as exc:
            say(str(exc))
    rows = []
    for number in reversed(numbers(data)):
        row: dict[str, Any] = {"version": number, "created_at": None, "rows": None, "gate": "damaged"}
        with contextlib.suppress(StoreError):
            manifest = Manifest.read(folder_of(data, number))
            row |= {"created_at": iso(manifest.created_at), "rows": manifest.rows, "gate": manifest.gate.status}
        row |= {"current": named.get(CURRENT) == number, "pinned": named.get(PIN) == number}
        rows.append({name: row[name] for name in LISTED})
    return rows
