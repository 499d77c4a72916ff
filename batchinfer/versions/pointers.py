"""Which version is served: CURRENT and PIN, and the list of those there are. Imports neither duckdb nor pyarrow."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchinfer.core.files import readable_faults, sync_folder, write_atomically
from batchinfer.core.home import JobHome
from batchinfer.errors import NotFound, StoreError
from batchinfer.versions.snapshot import MANIFEST, Manifest, Snapshot

CURRENT = "CURRENT"
PIN = "PIN"
DRAFT = ".building-"  # what the names of unfinished folders begin with
LISTED = ("version", "created_at", "rows", "current", "pinned", "gate")


class Unreadable(StoreError):
    """CURRENT or PIN is there, and may be right, but cannot be read: nothing is guessed in its place."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """What CURRENT or PIN says: a version's number and its manifest's SHA-256."""

    version: int
    manifest: str


def folder_of(home: JobHome, version: int) -> Path:
    """Where a version lies."""
    return home.versions / f"{version:06d}"


def pointer(home: JobHome, name: str = CURRENT) -> Pointer | None:
    """What the file CURRENT or PIN says, or None without one. Raises StoreError if it is damaged or Unreadable."""
    path = home.folder / name
    try:
        content = json.loads(path.read_bytes())
        return Pointer(int(content["version"]), str(content["manifest_sha256"]))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Unreadable(f"{path} cannot be read: {exc.strerror}.") from exc
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        advice = f"batchinfer {'unpin' if name == PIN else 'publish'} {home.name} mends it"
        raise StoreError(f"{path} is damaged: {exc!r}. {advice}.") from exc


def served(home: JobHome) -> Pointer:
    """The version that is served: the pinned one, else the current one. Raises NotFound."""
    found = pointer(home, PIN) or pointer(home)
    if found is None:
        raise NotFound(f"The job {home.name} has no published version in {home.root}: batchinfer run makes one.")
    return found


def numbers(home: JobHome) -> list[int]:
    """The complete versions, oldest first: a manifest means that a version is complete."""
    if not home.versions.is_dir():
        return []
    return sorted(
        int(path.name) for path in home.versions.iterdir() if path.name.isdigit() and (path / MANIFEST).is_file()
    )


def newest_number(home: JobHome) -> int:
    """The highest number that the data folder knows of, also where the version is gone or not whole; 0 without one."""
    found = [int(path.name) for path in home.versions.glob("[0-9]*") if path.name.isdigit()]
    for name in (CURRENT, PIN):
        with contextlib.suppress(StoreError):
            named = pointer(home, name)
            found += [named.version] if named else []
    return max(found, default=0)


def previous(home: JobHome) -> tuple[int | None, str | None]:
    """The version that a new one follows, and what is wrong where it is not the one that CURRENT names.

    That is the newest whole one if CURRENT is missing or damaged, or what it names is: it must not block the next.
    Raises Unreadable.
    """
    current = None
    try:
        current = pointer(home)
        if current is not None:
            verify(home, current.version, digest=current.manifest)
            return current.version, None
        fault = f"{home.folder / CURRENT} is missing."
    except Unreadable:
        raise
    except StoreError as exc:
        fault = str(exc)
    for number in reversed(numbers(home)):
        if current is None or number != current.version:
            with contextlib.suppress(StoreError):
                verify(home, number)
                return number, fault
    return None, fault if newest_number(home) else None  # before the first version nothing is wrong


def verify(home: JobHome, number: int, *, digest: str | None = None) -> None:
    """Whether a version is this job's, and whole. Raises StoreError."""
    with Snapshot(folder_of(home, number), digest=digest) as snapshot:
        said = (snapshot.manifest.job, snapshot.manifest.version)
        if said != (home.name, number):
            raise StoreError(
                f"{snapshot.folder} holds version {said[1]} of the job {said[0]}, not what its place says."
            )
        snapshot.verify()


@contextlib.contextmanager
def draft_folder(home: JobHome) -> Iterator[Path]:
    """A new folder to build a version in, removed at the end if it was not moved to its place.

    Its user holds the run lock, so what lies there from before is of a process that was killed: it is removed.
    """
    with readable_faults(home.versions):
        home.versions.mkdir(parents=True, exist_ok=True)
        remove_drafts(home)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=home.versions)) / "version"
    try:
        draft.mkdir()
        yield draft
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)


def remove_drafts(home: JobHome) -> None:
    """Removes what processes that were killed left in the versions' folder."""
    for left in home.versions.glob(f"{DRAFT}*"):
        shutil.rmtree(left, ignore_errors=True)


def install(home: JobHome, draft: Path, version: int) -> Path:
    """Moves a finished draft into place. It is not served yet."""
    target = folder_of(home, version)
    with readable_faults(target):
        draft.rename(target)
        sync_folder(target.parent)
    return target


def pointer_to(home: JobHome, version: int) -> Pointer:
    """What CURRENT or PIN would say to name this version. Raises StoreError."""
    path = folder_of(home, version) / MANIFEST
    try:
        return Pointer(version, hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror}.") from exc


def make_current(home: JobHome, version: int) -> None:
    """Flips CURRENT, atomically."""
    point(home, CURRENT, version)


def pin(home: JobHome, version: int) -> None:
    """Serves that version whatever is published, until it is unpinned. Raises NotFound or StoreError."""
    with home.versions_lock(f"batchinfer pin {home.name}"):
        if version not in numbers(home):
            there = ", ".join(map(str, numbers(home))) or "none"
            raise NotFound(f"The job {home.name} has no version {version}: there are {there}.")
        verify(home, version)
        point(home, PIN, version)


def unpin(home: JobHome) -> bool:
    """Serves the current version again. Returns whether there was a pin, damaged or not."""
    with home.versions_lock(f"batchinfer unpin {home.name}"), readable_faults(home.folder / PIN):
        try:
            (home.folder / PIN).unlink()
        except FileNotFoundError:
            return False
        sync_folder(home.folder)
        return True


def roll_back(home: JobHome) -> tuple[int, int]:
    """Pins the newest whole version below the one that is served; returns both numbers. Raises NotFound or StoreError."""
    with home.versions_lock(f"batchinfer rollback {home.name}"):
        now = served(home).version
        for number in reversed([number for number in numbers(home) if number < now]):
            with contextlib.suppress(StoreError):
                verify(home, number)
                break
        else:
            raise NotFound(f"The job {home.name} has no whole version below {now}, which is served.")
        point(home, PIN, number)
        return now, number


def pinned(home: JobHome) -> int | None:
    """The version that is pinned, if one is. Raises StoreError where PIN is damaged."""
    found = pointer(home, PIN)
    return None if found is None else found.version


def candidates(home: JobHome) -> list[str]:
    """The names of what the gate refused, in the order of their runs."""
    if not home.rejected.is_dir():
        return []
    names = [path.name for path in home.rejected.glob("r[0-9]*") if (path / MANIFEST).is_file()]
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def point(home: JobHome, name: str, version: int) -> None:
    """Makes CURRENT or PIN name that version, atomically; the caller holds the versions lock."""
    named = pointer_to(home, version)
    content = {"version": named.version, "manifest_sha256": named.manifest}
    write_atomically(home.folder / name, json.dumps(content).encode())


def listing(home: JobHome, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row a version, newest first, as `versions --json` prints it. One without a readable manifest is called damaged.

    A CURRENT or PIN that is damaged counts as none, and that is said: the list is where to look for what can be pinned.
    """
    named: dict[str, int] = {}
    for name in (CURRENT, PIN):
        try:
            if (found := pointer(home, name)) is not None:
                named[name] = found.version
        except StoreError as exc:
            say(str(exc))
    rows = []
    for number in reversed(numbers(home)):
        row: dict[str, Any] = {"version": number, "created_at": None, "rows": None, "gate": "damaged"}
        with contextlib.suppress(StoreError):
            manifest = Manifest.read(folder_of(home, number))
            content = manifest.content
            row |= {"created_at": content["created_at"], "rows": manifest.rows, "gate": content["gate"]["status"]}
        row |= {"current": named.get(CURRENT) == number, "pinned": named.get(PIN) == number}
        rows.append({name: row[name] for name in LISTED})
    return rows


def sync_files(folder: Path) -> None:
    """Makes every file of a draft durable before it is named in public."""
    with readable_faults(folder):
        for path in folder.iterdir():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(folder)
