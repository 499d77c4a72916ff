"""Finds entries in lookup.lmdb: one read of a part of it, an extent, which is compared with its checksum before it is believed.

    key ─► bucket ─► extent: begin, size, checksum ─► its bytes ─► body, or the first of the body's own pages

All but the last two steps are in memory, as lookup.index has them. Bodies that were asked for last are kept. A version without
lookup.index is read by whole leaves, each of which the tree judges as any page.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from zlib import crc32

from batchinfer.versions.extents import Buckets, Extents
from batchinfer.versions.kept_bodies import KeptBodies
from batchinfer.versions.tree import KEY, LEAF, NO_LIMIT, NODE, PageTree, unpack_node

ROOM = 4 << 20  # bytes of bodies that are kept
TOGETHER = 64  # keys of many that are looked up step by step; what is read for them is held
BESIDE = 200  # bytes that keeping a body takes beside it
KEY_LENGTH = struct.pack("=H", KEY)  # stands before each key; a body, which is JSON, has no NUL, so it is never in one
BEFORE_KEY, BEFORE_BODY = NODE - len(KEY_LENGTH), NODE + KEY  # bytes of a node before that, and before its body
_unpack_begin = struct.Struct(">I").unpack_from


class EntryFile:
    """An open lookup file. Any number of threads may ask it. Every fault of the file is a DamagedFile."""

    def __init__(self, path: Path, checks: bytes | None = None, extents: Extents | None = None) -> None:
        """checks: as lookup.crc has them; extents: of this very file; old versions have none. Raises OSError or DamagedFile."""
        self._tree = PageTree(path, checks)
        self._are_leaves = extents is None
        self._begins, self._firsts, self._checks, self._sizes = extents or Extents.of_leaves(self._tree)
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
        waiting = iter(keys)
        find = self._find_together if self._checks else self._find_each
        while some := list(islice(waiting, TOGETHER)):
            yield from find(some)

    def _find_each(self, keys: Sequence[bytes]) -> Iterator[bytes | None]:
        """One after the other."""
        return (self._find(key, NO_LIMIT) for key in keys)

    def _find_together(self, keys: Sequence[bytes]) -> Iterator[bytes | None]:
        """The same, each step for all keys before the next one, which is faster; `_find` does what is rare."""
        begins = struct.unpack(">" + "I12x" * len(keys), b"".join(keys))
        firsts, starts, shift = self._firsts, self._starts, self._shift
        places = [
            bisect_right(firsts, begin, starts[begin >> shift], starts[(begin >> shift) + 1]) - 1 for begin in begins
        ]
        try:
            parts = list(map(self._pread, [self._sizes[at] for at in places], [self._begins[at] for at in places]))
        except (OSError, OverflowError):
            parts = []
        if [crc32(part) for part in parts] != [self._checks[place] for place in places]:
            yield from self._find_each(keys)
            return
        nodes = [part.find(KEY_LENGTH + key, BEFORE_KEY) - BEFORE_KEY for part, key in zip(parts, keys, strict=True)]
        for part, node, key, place, begin in zip(parts, nodes, keys, places, begins, strict=True):
            if node >= 0:
                low, high, flags, _ = unpack_node(part, node)
                is_long = flags or high
                yield self._tree.body(part, node) if is_long else part[node + BEFORE_BODY : node + BEFORE_BODY + low]
            else:
                yield self._find(key, NO_LIMIT) if firsts[place] == begin else None

    def _keep(self, key: bytes, body: bytes) -> None:
        """Keeps a body, as it was when it was compared with its checksum."""
        size = len(body) + BESIDE
        if size <= self._tree.page_size:
            self._kept.keep(key, body, size)

    def _find(self, key: bytes, most: int) -> bytes | None:
        begin: int = _unpack_begin(key)[0]
        bucket, starts, are_leaves = begin >> self._shift, self._starts, self._are_leaves
        place = bisect_right(self._firsts, begin, starts[bucket], starts[bucket + 1]) - 1
        while place >= 0:
            part = self._leaf(place) if are_leaves else self._extent(place)
            node = part.find(KEY_LENGTH + key, BEFORE_KEY) - BEFORE_KEY
            if node >= 0:
                low, high, flags, _ = unpack_node(part, node)
                if flags or high or are_leaves:  # few
                    return self._tree.body(part, node, most)
                return part[node + BEFORE_BODY : node + BEFORE_BODY + low]
            if self._firsts[place] != begin:
                return None
            place -= 1  # the keys of two extents may begin alike
        return None

    def _leaf(self, place: int) -> bytes:
        """Raises DamagedFile."""
        return self._tree.read(self._begins[place] // self._tree.page_size, LEAF, 1)

    def _extent(self, place: int) -> bytes:
        """Raises DamagedFile."""
        try:
            part = self._pread(self._sizes[place], self._begins[place])
            if crc32(part) == self._checks[place]:
                return part
        except (OSError, OverflowError):  # as beyond any file
            pass
        part = self._tree.file.read(self._begins[place], self._begins[place] + self._sizes[place])
        if crc32(part) != self._checks[place]:
            raise self._tree.file.damaged("a part of it differs from its checksum")
        return part

    def first(self) -> bytes | None:
        """The body of the first entry, if there is one, as a look-up finds it. Raises DamagedFile."""
        key = next((key for key, _ in self.read_all()), None)
        return None if key is None else self._found(key)

    def read_all(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their bodies, by key. Raises DamagedFile."""
        return self._tree.read_all()

    def check(self) -> None:
        """Reads all of it: whether the keys are in order, as many as there should be, and each is found. Raises DamagedFile."""
        count, last = 0, b""
        for key, body in self.read_all():
            if key <= last:
                raise self._tree.file.damaged("its keys are not in order")
            if self._found(key) != body:
                raise self._tree.file.damaged("an entry has two bodies")
            count, last = count + 1, key
        if count != len(self):
            raise self._tree.file.damaged(f"it has {count:,} entries and says {len(self):,}")

    def _found(self, key: bytes) -> bytes:
        """The body of a key that there is. Raises DamagedFile where no look-up finds it."""
        body = self._find(key, NO_LIMIT)
        if body is None:
            raise self._tree.file.damaged("what leads to its entries does not lead to each of them")
        return body
