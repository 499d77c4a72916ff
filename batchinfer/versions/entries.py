"""Finds entries in lookup.lmdb: one read of a part of it, a slice, which is compared with its checksum before it is believed.

    key ─► bucket ─► slice: begin, size, checksum ─► its bytes ─► body, or the first of the body's own pages

All but the last two steps are in memory, read from lookup.index when the file is opened. Bodies that were asked for last are
kept. In an old version, which has no lookup.index, a slice is a whole leaf of the tree.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

from batchinfer.core.open_file import DamagedFile
from batchinfer.versions.kept_bodies import KeptBodies
from batchinfer.versions.slices import Buckets, Slices
from batchinfer.versions.tree import KEY, LEAF, NO_LIMIT, NODE, PageTree

ROOM = 4 << 20  # bytes of bodies that are kept
BESIDE = 200  # bytes that keeping a body takes beside it
KEY_LENGTH = struct.pack("=H", KEY)  # stands before each key; a body, which is JSON, has no NUL, so it is never in one
BEFORE_KEY, BEFORE_BODY = NODE - len(KEY_LENGTH), NODE + KEY  # bytes of a node before that, and before its body
_unpack_node = struct.Struct("=HHHH").unpack_from  # two halves of a number, flags, length of the key
_unpack_begin = struct.Struct(">I").unpack_from


class EntryFile:
    """An open lookup file. Any number of threads may ask it. Every fault of the file is a DamagedFile."""

    def __init__(self, path: Path, checks: Path | None, index: Path | None) -> None:
        """checks: the checksums of its pages; index: of its slices. None in an old version. Raises OSError or DamagedFile."""
        self._tree = PageTree(path, checks)
        self._index = index
        slices = Slices.of_leaves(self._tree) if index is None else Slices.read(index)
        self._begins, self._firsts, self._sizes = slices.begins, slices.firsts, slices.sizes
        self._checks = slices.checks if slices.checks or not slices.begins else None
        self._shift, self._starts = Buckets.of(self._firsts)
        self._pread = self._tree.file.pread
        self._kept = KeptBodies[bytes](ROOM)

    def __len__(self) -> int:
        return len(self._tree)

    @property
    def is_checked(self) -> bool:
        """Whether every page is compared with a checksum before it is believed."""
        return self._tree.checks is not None

    @property
    def is_suspect(self) -> bool:
        """Whether damage was found in the file, or somebody wrote to it."""
        return self._tree.file.is_suspect

    def get(self, key: bytes, most: int = NO_LIMIT) -> bytes | None:
        """The body of a key. Raises DamagedFile, or LongEntry before a body of more than `most` bytes is read."""
        body = self._kept.get(key)
        if body is None and (body := self._find(key, most)) is not None:
            self._keep(key, body)
        return body

    def get_many(self, keys: Iterable[bytes]) -> Iterator[bytes | None]:
        """The bodies of many keys, in their order, one by one. They are not kept: so many would displace what is asked for often."""
        kept, find = self._kept.get, self._find
        for key in keys:
            body = kept(key)
            yield find(key, NO_LIMIT) if body is None else body

    def _keep(self, key: bytes, body: bytes) -> None:
        """Keeps a body, as it was when it was compared with its checksum."""
        size = len(body) + BESIDE
        if size <= self._tree.page_size:
            self._kept.keep(key, body, size)

    def _find(self, key: bytes, most: int) -> bytes | None:
        begin: int = _unpack_begin(key)[0]
        bucket, starts, checks = begin >> self._shift, self._starts, self._checks
        place = bisect_right(self._firsts, begin, starts[bucket], starts[bucket + 1]) - 1
        while place >= 0:
            try:
                part = self._pread(self._sizes[place], self._begins[place])
            except (OSError, OverflowError):
                part = b""
            if checks is None or crc32(part) != checks[place]:
                part = self._judged(place)
            node = part.find(KEY_LENGTH + key, BEFORE_KEY) - BEFORE_KEY
            if node >= 0:
                low, high, flags, _ = _unpack_node(part, node)
                if flags or high:  # few
                    return self._tree.body(part, node, most)
                return part[node + BEFORE_BODY : node + BEFORE_BODY + low]
            if self._firsts[place] != begin:
                return None
            place -= 1  # the keys of two slices may begin alike
        return None

    def _judged(self, place: int) -> bytes:
        """A slice that is not what its checksum is of, or that has none. Raises DamagedFile."""
        begin, size = self._begins[place], self._sizes[place]
        if self._checks is None:
            return self._tree.read(begin // size, LEAF, 1)
        self._tree.file.read(begin, begin + size)
        raise self._tree.file.damaged("a part of it differs from its checksum")

    def first(self) -> bytes | None:
        """The body of the first entry, if there is one. Raises DamagedFile."""
        return next((body for _, body in self.read_all()), None)

    def read_all(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their bodies, by key. Raises DamagedFile."""
        return self._tree.read_all()

    def check(self) -> None:
        """Reads all of it: whether the keys are in order, as many as there should be, and each is found. Raises DamagedFile."""
        count, last = 0, b""
        for key, body in self.read_all():
            if key <= last:
                raise self._tree.file.damaged("its keys are not in order")
            if self._find(key, NO_LIMIT) != body:
                raise DamagedFile(f"{self._index or self._tree.file.path} is damaged: it does not lead to every entry.")
            count, last = count + 1, key
        if count != len(self):
            raise self._tree.file.damaged(f"it has {count:,} entries and says {len(self):,}")
