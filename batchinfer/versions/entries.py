"""Reads lookup.lmdb, the tree of pages that LMDB writes, without mapping it: no state of the file can end the process.

A file that is mapped kills who reads it once it is cut, and a damaged page leads a reader anywhere. So each page is read
from the open file and compared with its checksum in lookup.crc before it is believed. What leads to the leaves is read
once, when the file is opened; a look-up reads one leaf, and the pages of its own that a long body lies in. Bodies that were
asked for last are kept.

    meta page 0 or 1 ─► root ─► branches ─► leaf: key → body, or key → its first page of its own
"""

from __future__ import annotations

import itertools
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from batchinfer.core.files import open_plain
from batchinfer.core.open_file import DamagedFile, OpenFile
from batchinfer.versions.kept_bodies import KeptBodies

KEY = 16  # bytes of a lookup key's hash
HEAD = 16  # bytes of a page before its pointers, or before a long body
NODE = 8  # bytes of a node before its key
MAGIC, LAYOUT = 0xBEEFC0DE, 1
LEAF, LONG_PAGES = 0x02, 0x04  # kinds of pages
KINDS = LEAF | LONG_PAGES
LONG = 0x01  # the kind of a node whose body has pages of its own
NOWHERE = 2**64 - 1  # the root of an empty tree
PAGE_SIZES = {1 << bits for bits in range(9, 17)}
DEEPEST = 32
MOST_INDEX = 24  # bits
NO_LIMIT = 2**64
ROOM = 4 << 20  # bytes of bodies that are kept
BESIDE = 200  # bytes that keeping a body takes beside it
KEY_LENGTH = struct.pack("=H", KEY)  # stands before each key; a body, which is JSON, has no NUL, so it is never in one
FIRST_KEY, BEFORE_KEY = HEAD + NODE - len(KEY_LENGTH), NODE - len(KEY_LENGTH)  # bytes of a page, and of a node
_META = struct.Struct("=16xII16xI50xH24xQQQQ")  # magic, layout, page size; depth, entries, root, last page, transaction
_HEADER = struct.Struct("=8x2xHHH")  # flags, and the ends of the free room
_NODE = struct.Struct("=HHHH")  # two halves of a number, flags, length of the key
_unpack_node = _NODE.unpack_from
_unpack_begin = struct.Struct(">Q").unpack_from  # the first half of a key
_FLAGS = 10  # where a page says its kind
_WORD = struct.Struct("=Q")
_COUNT = struct.Struct("=12xI")


class _Tree(NamedTuple):
    """What a meta page says.

    page_size: in bytes.
    depth: levels of pages.
    entries: how many keys there are.
    root: its page.
    pages: how many the file has.
    written: the number of the transaction that wrote it.
    """

    page_size: int
    depth: int
    entries: int
    root: int
    pages: int
    written: int


class LongEntry(Exception):
    """A body is longer than was to be read."""


class EntryFile:
    """An open lookup file. Any number of threads may ask it. Every fault of the file is a DamagedFile."""

    def __init__(self, path: Path, checks: Path | None) -> None:
        """checks: the checksums of its pages; None in an old version. Raises OSError or DamagedFile."""
        self._file = OpenFile(path)
        self._pread = self._file.pread
        self._checks = None if checks is None else array("I", _whole_words(checks))
        self._tree = _newest_tree(self._file)
        self._size = self._tree.page_size
        if self._checks is not None and len(self._checks) < self._tree.pages:
            raise DamagedFile(f"{checks} is damaged: it has too few checksums.")
        self._kept = KeptBodies[bytes](ROOM)
        self._firsts, self._leaves = array("Q"), array("Q")  # what the keys of each leaf begin with, and its page
        if self._tree.root != NOWHERE:
            self._gather(self._tree.root, 0, self._tree.depth)
        self._shift, self._starts = _index(self._firsts)

    def __len__(self) -> int:
        return self._tree.entries

    @property
    def is_checked(self) -> bool:
        """Whether every page is compared with a checksum before it is believed."""
        return self._checks is not None

    @property
    def is_suspect(self) -> bool:
        """Whether damage was found in the file, or somebody wrote to it."""
        return self._file.is_suspect

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
        if size <= self._size:
            self._kept.keep(key, body, size)

    def _find(self, key: bytes, most: int) -> bytes | None:
        begin: int = _unpack_begin(key)[0]
        bucket, starts = begin >> self._shift, self._starts
        place = bisect_right(self._firsts, begin, starts[bucket], starts[bucket + 1]) - 1
        while place >= 0:
            page = self._leaf(self._leaves[place])
            at = page.find(KEY_LENGTH + key, FIRST_KEY)
            if at >= 0:
                return self._body(page, at - BEFORE_KEY, most)
            if self._firsts[place] != begin:
                return None
            place -= 1  # the keys of two leaves may begin alike
        return None

    def first(self) -> bytes | None:
        """The body of the first entry, if there is one. Raises DamagedFile."""
        return next((body for _, body in self.read_all()), None)

    def read_all(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their bodies, by key. Raises DamagedFile."""
        for number in self._leaves:
            page = self._read(number, LEAF, 1)
            for node in self._nodes(page):
                yield page[node + NODE : node + NODE + KEY], self._body(page, node)

    def check(self) -> None:
        """Reads all of it: whether the keys are in order, and as many as there should be. Raises DamagedFile."""
        count, last = 0, b""
        for key, _ in self.read_all():
            if key <= last:
                raise self._file.damaged("its keys are not in order")
            count, last = count + 1, key
        if count != len(self):
            raise self._file.damaged(f"it has {count:,} entries and says {len(self):,}")

    def _leaf(self, number: int) -> bytes:
        """What `_read` gives of a leaf, in half of its time where all is well."""
        checks, size = self._checks, self._size
        if checks is not None:
            try:
                page = self._pread(size, number * size)
            except OSError:
                return self._read(number, LEAF, 1)
            if crc32(page) == checks[number] and len(page) == size and page[_FLAGS] & KINDS == LEAF:
                return page
        return self._read(number, LEAF, 1)

    def _body(self, page: bytes, node: int, most: int = NO_LIMIT) -> bytes:
        try:
            low, high, flags, key_length = _unpack_node(page, node)
            if not flags and key_length == KEY and not high:  # nearly all
                body = page[node + NODE + KEY : node + NODE + KEY + low]
                if len(body) == low:
                    return body
            if flags & LONG:
                if low | high << 16 > most:
                    raise LongEntry
                number = _WORD.unpack_from(page, node + NODE + key_length)[0]
                return self._long_body(number, low | high << 16)
        except struct.error as exc:
            raise self._file.damaged("an entry begins outside its page") from exc
        begin, length = node + NODE + KEY, low | high << 16
        body = page[begin : begin + length]
        if key_length != KEY or len(body) != length:
            raise self._file.damaged("an entry does not fit its page")
        return body

    def _long_body(self, number: int, length: int) -> bytes:
        return self._read(number, LONG_PAGES, (HEAD - 1 + length) // self._size + 1)[HEAD : HEAD + length]

    def _gather(self, number: int, begin: int, depth: int) -> None:
        """Notes the leaves below a page. begin: what the first key below it begins with."""
        if depth <= 1:
            if len(self._leaves) >= self._tree.pages:
                raise self._file.damaged("its pages lead in a circle")
            self._firsts.append(begin)
            self._leaves.append(number)
            return
        page = self._read(number, 0, 1)
        for place, node in enumerate(self._nodes(page)):
            low, high, flags, key_length = _unpack_node(page, node)
            first = int.from_bytes(page[node + NODE : node + NODE + min(8, key_length)].ljust(8, b"\0"), "big")
            self._gather(low | high << 16 | flags << 32, first if place else begin, depth - 1)

    def _nodes(self, page: bytes) -> tuple[int, ...]:
        """Where the nodes of a page begin, in the order of their keys."""
        _, lower, _ = _HEADER.unpack_from(page)
        count = (lower - HEAD) // 2
        if not 0 <= count <= (self._size - HEAD) // 2:
            raise self._file.damaged("a page has more entries than room")
        nodes = struct.unpack_from(f"={count}H", page, HEAD)
        if nodes and max(nodes) > self._size - NODE:
            raise self._file.damaged("an entry begins outside its page")
        return nodes

    def _read(self, number: int, kind: int, count: int) -> bytes:
        """Pages of the file, which are what publishing wrote as far as that is known. kind: LEAF, LONG_PAGES, or 0 for others."""
        if not 0 <= number <= self._tree.pages - count:
            raise self._file.damaged("a page is missing")
        begin = number * self._size
        pages = self._file.read(begin, begin + count * self._size)
        if self._checks is not None and crc32(pages) != self._checks[number]:
            raise self._file.damaged("a page differs from its checksum")
        if _HEADER.unpack_from(pages)[0] & KINDS != kind:
            raise self._file.damaged("a page is of the wrong kind")
        return pages


def _index(firsts: array[int]) -> tuple[int, array[int]]:
    """Where to look among sorted numbers of 64 bits: hashes are spread evenly, so how one begins nearly says its place.

    Returns by how many bits a number is shifted to be that of its bucket, and how many numbers lie before each bucket.
    """
    shift = 64 - min(max(len(firsts).bit_length(), 1), MOST_INDEX)
    counts = array("I", bytes(4 << (64 - shift)))
    for first in firsts:
        counts[first >> shift] += 1
    return shift, array("I", itertools.accumulate(counts, initial=0))


def page_checks(path: Path) -> bytes:
    """lookup.crc of a lookup file that was just written: a checksum for each page, and one for all pages of a long body.

    That one stands where the first of them has its place. Raises OSError or DamagedFile.
    """
    tree = _newest_tree(OpenFile(path))
    checks, number = array("I", bytes(4 * tree.pages)), 0
    with path.open("rb") as file:
        while number < tree.pages and (page := file.read(tree.page_size)):
            count = max(_COUNT.unpack_from(page)[0], 1) if _HEADER.unpack_from(page)[0] & LONG_PAGES else 1
            checks[number] = crc32(page + file.read((count - 1) * tree.page_size))
            number += count
    return checks.tobytes()


def _newest_tree(file: OpenFile) -> _Tree:
    """What the newer of the two meta pages says. Raises DamagedFile."""
    first = _meta(file, 0)
    second = None if first is None else _meta(file, first.page_size)
    trees = [tree for tree in (first, second) if tree is not None]
    if not trees:
        raise DamagedFile(f"{file.path} cannot be opened: it does not begin as a lookup file does.")
    tree = max(trees, key=lambda each: each.written)
    if tree.pages > file.size // tree.page_size:
        raise file.damaged("it is shorter than it says")
    return tree


def _meta(file: OpenFile, begin: int) -> _Tree | None:
    """What a meta page says; None where there is none. Raises DamagedFile."""
    if file.size < begin + _META.size:
        return None
    magic, layout, page_size, depth, entries, root, last, written = _META.unpack(file.read(begin, begin + _META.size))
    if (magic, layout) != (MAGIC, LAYOUT) or page_size not in PAGE_SIZES or depth > DEEPEST:
        return None
    return _Tree(page_size, depth, entries, root, last + 1, written)


def _whole_words(path: Path) -> bytes:
    with open_plain(path) as file:
        data = file.read()
    return data[: len(data) // 4 * 4]
