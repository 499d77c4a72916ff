"""Versions that are not whole, and pointers to nothing: what a disk, a half copy or a stranger can leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from batchinfer.core.home import JobData
from batchinfer.versions.extents import MAGIC, Extents
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import CHECKS, INDEX, LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.pointers import CURRENT
from batchinfer.versions.tree import PageTree, page_checks

Damage = Callable[[Path], object]
"""Does something to a version's folder."""


def next_version(data: JobData, like: int, number: int, damage: Damage | None = None) -> None:
    """Publishes a copy of a version under a new number; `damage` comes first, and CURRENT names what it leaves."""
    folder = folder_of(data, number)
    shutil.copytree(folder_of(data, like), folder)
    edit_manifest(folder, version=number)
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    if damage is not None:
        damage(folder)
        if (folder / MANIFEST).is_file() and damage in HONEST:
            digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    point(data, number, digest)


def point(data: JobData, number: int, digest: str | None = None, name: str = CURRENT) -> None:
    """Makes CURRENT or PIN name a version, whole or not."""
    if digest is None:
        digest = hashlib.sha256((folder_of(data, number) / MANIFEST).read_bytes()).hexdigest()
    draft = data.folder / ".draft"
    draft.write_text(json.dumps({"version": number, "manifest_sha256": digest}), encoding="utf-8")
    draft.rename(data.folder / name)


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Changes what a manifest says."""
    path = folder / MANIFEST
    content = json.loads(path.read_bytes()) | changes
    path.write_text(json.dumps(content), encoding="utf-8")


def without(name: str) -> Damage:
    """Half-copied: a file has not come yet."""
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Damage:
    """Truncated: a file ends in its middle."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def emptied(name: str) -> Damage:
    """A file has no content, as after a power cut."""
    return lambda folder: (folder / name).write_bytes(b"")


def flipped(name: str) -> Damage:
    """One bit of a file is wrong; its size is right."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return damage


def piped(name: str) -> Damage:
    """A pipe that nobody writes into is in a file's place."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def zeroed(name: str) -> Damage:
    """A file of the right size was never written."""
    return lambda folder: (folder / name).write_bytes(bytes((folder / name).stat().st_size))


def unknown_format(folder: Path) -> None:
    """Made by a batchinfer to come."""
    edit_manifest(folder, format=2)


def of_another_job(folder: Path) -> None:
    """Somebody copied the folder of another job here."""
    edit_manifest(folder, job="shoes")


def unknown_kind(folder: Path) -> None:
    """A key column of a kind that this program does not know."""
    edit_manifest(folder, key=[{"name": "id", "kind": "colour"}])


def no_list(folder: Path) -> None:
    """A manifest that is JSON, and none."""
    (folder / MANIFEST).write_text("[]", encoding="utf-8")


def nested(folder: Path) -> None:
    """A manifest that no parser takes."""
    (folder / MANIFEST).write_bytes(b"[" * 200_000)


def odd_max_age(folder: Path) -> None:
    """What clients may keep for how long is no number of seconds."""
    content = json.loads((folder / MANIFEST).read_bytes())
    edit_manifest(folder, spec=content["spec"] | {"serve": {"max_age": "5m"}})


def undated(folder: Path) -> None:
    """When it was made is no time."""
    edit_manifest(folder, created_at="soon")


def escaping(folder: Path) -> None:
    """One of its files lies elsewhere."""
    content = json.loads((folder / MANIFEST).read_bytes())
    edit_manifest(folder, files=content["files"] | {"../../CURRENT": content["files"][LOOKUP]})


def other_key(folder: Path) -> None:
    """No damage: a version that is looked up by another column."""
    edit_manifest(folder, key=[{"name": "size", "kind": "integer"}])


def fewer_entries(folder: Path) -> None:
    """The lookup file has other entries than the manifest counts, and all checksums are right."""
    content = json.loads((folder / MANIFEST).read_bytes())
    edit_manifest(folder, rows=content["rows"] + 1)


def other_entries(folder: Path) -> None:
    """The lookup file holds something other than predictions, and all checksums are right."""
    path = folder / LOOKUP
    path.unlink()
    content = json.loads((folder / MANIFEST).read_bytes())
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number in range(content["rows"]):
            transaction.put(b"%016d" % number, b'{"no": "prediction"}')
    checks = page_checks(path)
    (folder / CHECKS).write_bytes(checks)
    Extents.of(PageTree(path, checks)).write(folder / INDEX)
    made_to_fit(folder)


def made_to_fit(folder: Path) -> None:
    """The manifest has the sizes and checksums of the files as they are."""
    facts = {
        path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
        if path.name != MANIFEST
    }
    edit_manifest(folder, files=facts)


def as_before(folder: Path) -> None:
    """No damage: a version as it was made before lookup files had an index, and checksums for their pages."""
    (folder / CHECKS).unlink()
    (folder / INDEX).unlink()
    made_to_fit(folder)


def without_index(folder: Path) -> None:
    """No damage: a version as it was made before lookup files had an index."""
    (folder / INDEX).unlink()
    made_to_fit(folder)


def foreign_index(folder: Path) -> None:
    """An index that leads nowhere, of the right size."""
    path = folder / INDEX
    path.write_bytes(MAGIC + bytes(path.stat().st_size - len(MAGIC)))


def rot(path: Path, share: float = 1.0) -> None:
    """Flips bits in place all over a file, as a disk may, and keeps its size. share: of the pages."""
    with path.open("r+b") as file:
        pages = range(2, path.stat().st_size // 4096)
        for page in pages[: max(1, int(len(pages) * share))]:
            for place in range(page * 4096 + 20, (page + 1) * 4096, 97):
                file.seek(place)
                [byte] = file.read(1)
                file.seek(place)
                file.write(bytes([byte ^ 4]))


HONEST = (unknown_format, of_another_job, unknown_kind, no_list, nested, odd_max_age, undated, escaping, fewer_entries,
          other_entries, other_key, as_before, without_index)  # fmt: skip
"""Damages after which the manifest is still the one that CURRENT names."""

VERSIONS: dict[str, tuple[Damage, str]] = {
    "half-copied: no manifest yet": (without(MANIFEST), "manifest.json is missing"),
    "half-copied: no lookup file yet": (without(LOOKUP), "lookup.lmdb cannot be opened"),
    "half-copied: no predictions yet": (without(PREDICTIONS), "predictions.parquet is missing or cannot be read"),
    "truncated manifest": (cut(MANIFEST), "manifest.json is damaged"),
    "truncated lookup file": (cut(LOOKUP), "lookup.lmdb is truncated or corrupt: its size differs from the manifest's"),
    "truncated predictions": (cut(PREDICTIONS), "predictions.parquet is damaged: its checksum differs"),
    "empty manifest": (emptied(MANIFEST), "manifest.json is damaged"),
    "empty lookup file": (emptied(LOOKUP), "lookup.lmdb is truncated or corrupt"),
    "wrong checksum of the lookup file": (flipped(LOOKUP), "lookup.lmdb is damaged: "),
    "wrong checksum of the predictions": (flipped(PREDICTIONS), "predictions.parquet is damaged: its checksum"),
    "wrong checksum of the manifest": (flipped(MANIFEST), "manifest.json is"),
    "lookup file of zeros": (zeroed(LOOKUP), "lookup.lmdb cannot be opened"),
    "a pipe for a manifest": (piped(MANIFEST), "manifest.json cannot be read: It is no plain file"),
    "a pipe for predictions": (
        piped(PREDICTIONS),
        "predictions.parquet is missing or cannot be read: It is no plain file",
    ),
    "a pipe for checksums": (piped(CHECKS), "It is no plain file"),
    "unknown format": (unknown_format, "has format 2, and this batchinfer knows 1: upgrade it"),
    "a manifest of another job": (of_another_job, "is a version of the job shoes, not of shop"),
    "unknown kind of a key column": (unknown_kind, "has the unknown kind colour"),
    "a manifest that is none": (no_list, "manifest.json is damaged"),
    "a manifest that cannot be parsed": (nested, "manifest.json is damaged"),
    "an odd time to keep": (odd_max_age, "serve.max_age is '5m'"),
    "no time at which it was made": (undated, "manifest.json is damaged: "),
    "a file elsewhere": (escaping, "'../../CURRENT' is not the name of a file in it"),
    "other entries than counted": (fewer_entries, "the manifest says"),
    "something else than predictions": (other_entries, "holds something other than predictions"),
}
"""By name: what is done to a version's folder, and what is said of it."""

INDEXES: dict[str, tuple[Damage, str]] = {
    "no index, where the manifest has one": (without(INDEX), "lookup.index is missing or cannot be read: No such file"),
    "truncated index": (cut(INDEX), "lookup.index is truncated or corrupt: its size differs"),
    "an index of other bytes": (flipped(INDEX), "lookup.index is damaged: its checksum differs"),
    "an index of another version": (foreign_index, "lookup.index is damaged: its checksum differs"),
}
"""The same of the index, without which look-ups take longer and no more."""

POINTERS: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"\xff{",
    "half written": b'{"version": 3, "manifest',
    "a list": b"[3]",
    "no version": b'{"manifest_sha256": "0"}',
    "no number": b'{"version": "three", "manifest_sha256": "0"}',
    "an infinite number": b'{"version": Infinity, "manifest_sha256": "0"}',
    "too deep": b"[" * 200_000,
    "nowhere": b'{"version": 99, "manifest_sha256": "0"}',
    "another manifest": b'{"version": 3, "manifest_sha256": "0"}',
}
"""What CURRENT or PIN can hold that names no version."""
