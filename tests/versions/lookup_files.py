"""Lookup files as publishing writes them, and as versions of other times have them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import lmdb

from batchinfer.versions.entries import EntryFile
from batchinfer.versions.extents import Extents
from batchinfer.versions.tree import PageTree, page_checks

AGES = {"oldest": (), "old": ("lookup.crc",), "now": ("lookup.crc", "lookup.index")}
"""Of versions, and what they have beside lookup.lmdb."""


def key_of(number: int) -> bytes:
    """As lookup keys are hashed."""
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def body_of(number: int) -> bytes:
    """Bodies of all lengths; some have pages of their own."""
    return f"{number:06d}".encode() * (number % 50 if number % 100 else 4000)


def write(folder: Path, bodies: Mapping[bytes, bytes], age: str = "now", at_once: int = 700) -> EntryFile:
    """A lookup file as publishing writes it, some entries at a time, opened. age: of its version, one of AGES."""
    path, checks, index = folder / "lookup.lmdb", folder / "lookup.crc", folder / "lookup.index"
    entries = sorted(bodies.items())
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 28, sync=False) as environment:
        for begin in range(0, len(entries), at_once):
            with environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(entries[begin : begin + at_once], append=True)
    checks.write_bytes(page_checks(path))
    Extents.of(PageTree(path, checks.read_bytes())).write(index)
    return reopen(folder, age)


def reopen(folder: Path, age: str = "now") -> EntryFile:
    """The same, as it is by now."""
    checks, index = (folder / name for name in ("lookup.crc", "lookup.index"))
    return EntryFile(
        folder / "lookup.lmdb",
        checks.read_bytes() if checks.name in AGES[age] else None,
        Extents.read(index.read_bytes(), index) if index.name in AGES[age] else None,
    )
