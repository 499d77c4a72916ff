"""Reads the tree of pages that LMDB writes, without mapping it: no state of the file can end the process.

A file that is mapped kills who reads it once it is cut, and a damaged page leads a reader anywhere. So each page is read
from the open file and compared with its checksum in lookup.crc before it is believed.

    meta page 0 or 1 ─► root ─► branches ─► leaf: key → body, or key → its first page of its own
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from batchinfer.core.open_file import DamagedFile, OpenFile

KEY = 16  # bytes of a lookup key's hash
HEAD = 16  # bytes of a page before its pointers, or before a long body
NODE = 8  # bytes of a node before its key
WORD = 4  # bytes of a checksum
METAS = 2  # pages at the beginning, of which the newer leads to the root
MAGIC, LAYOUT = 0xBEEFC0DE, 1
LEAF, LONG_PAGES = 0x02, 0x04  # kinds of pages
KINDS = LEAF | LONG_PAGES
LONG = 0x01  # the kind of a node whose body has pages of its own
NOWHERE = 2**64 - 1  # the root of an empty tree
PAGE_SIZES = {1 << bits for bits in range(9, 17)}
DEEPEST = 32
NO_LIMIT = 2**64
_META = struct.Struct("=16xII16xI50xH24xQQQQ")  # magic, layout, page size; depth, entries, root, last page, transaction
_HEADER = struct.Struct("=8x2xHHH")  # flags, and the ends of the free room
unpack_node = struct.Struct("=HHHH").unpack_from  # two halves of a number, flags, length of the key
_WORD = struct.Struct("=Q")
_COUNT = struct.Struct("=12xI")


class LongEntry(Exception):
    """A body is longer than was to be read."""


class _Meta(NamedTuple):
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


class Leaf(NamedTuple):
    """Where entries lie.

    number: of its page.
    first: its first key, or what it begins with; none before it is less.
    """

    number: int
    first: bytes


class PageTree:
    """An open lookup file. Any number of threads may read it. Every fault of the file is a DamagedFile.

    file: itself.
    page_size: in bytes.
    checks: the checksum of each page; None in an old version.
    """

    def __init__(self, path: Path, checks: bytes | None) -> None:
        """checks: as lookup.crc has them. Raises OSError or DamagedFile."""
        self.file = OpenFile(path)
        self.checks = None if checks is None else array("I", checks[: len(checks) // WORD * WORD])
        self._meta = _newest_meta(self.file)
        self.page_size = self._meta.page_size
        if self.checks is not None:
            self._check_meta(self.checks)

    def _check_meta(self, checks: array[int]) -> None:
        """Whether all else is led to by what publishing wrote. Raises DamagedFile."""
        if len(checks) < max(self._meta.pages, METAS):
            raise self.file.damaged("it has more pages than checksums")
        for number in range(METAS):
            if crc32(self.file.read(number * self.page_size, (number + 1) * self.page_size)) != checks[number]:
                raise self.file.damaged("a page differs from its checksum")

    def __len__(self) -> int:
        """How many entries it has."""
        return self._meta.entries

    def leaves(self) -> Iterator[Leaf]:
        """Those of all pages that hold entries, in the order of the keys. Raises DamagedFile."""
        if self._meta.root == NOWHERE:
            return
        yield from self._below(self._meta.root, b"", self._meta.depth, count())

    def _below(self, number: int, first: bytes, depth: int, visits: Iterator[int]) -> Iterator[Leaf]:
        """The leaves below a page. first: what the first key below it begins with; visits: counts pages, which all have one above."""
        if next(visits) >= self._meta.pages:
            raise self.file.damaged("its pages lead in a circle")
        if number >= self._meta.pages:
            raise self.file.damaged("a page is missing")
        if depth <= 1:
            yield Leaf(number, first)
            return
        page = self.read(number, 0, 1)
        for place, node in enumerate(self.nodes(page)):
            low, high, flags, key_length = unpack_node(page, node)
            key = page[node + NODE : node + NODE + min(KEY, key_length)]
            yield from self._below(low | high << 16 | flags << 32, key if place else first, depth - 1, visits)

    def read_all(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their bodies, by key. Raises DamagedFile."""
        for leaf in self.leaves():
            page = self.read(leaf.number, LEAF, 1)
            for node in self.nodes(page):
                yield page[node + NODE : node + NODE + KEY], self.body(page, node)

    def nodes(self, page: bytes) -> tuple[int, ...]:
        """Where the nodes of a page begin, in the order of their keys. Raises DamagedFile."""
        _, lower, _ = _HEADER.unpack_from(page)
        count = (lower - HEAD) // 2
        if not 0 <= count <= (self.page_size - HEAD) // 2:
            raise self.file.damaged("a page has more entries than room")
        nodes = struct.unpack_from(f"={count}H", page, HEAD)
        if nodes and max(nodes) > self.page_size - NODE:
            raise self.file.damaged("an entry begins outside its page")
        return nodes

    def body(self, page: bytes, node: int, most: int = NO_LIMIT) -> bytes:
        """The body of a node in a page, or in a part of one.

        Raises DamagedFile, or LongEntry before a body of more than `most` bytes with pages of its own is read.
        """
        try:
            low, high, flags, key_length = unpack_node(page, node)
            length = low | high << 16
            if flags & LONG:
                if length > most:
                    raise LongEntry
                number = _WORD.unpack_from(page, node + NODE + key_length)[0]
                return self.read(number, LONG_PAGES, (HEAD - 1 + length) // self.page_size + 1)[HEAD : HEAD + length]
        except struct.error as exc:
            raise self.file.damaged("an entry begins outside its page") from exc
        body = page[node + NODE + KEY : node + NODE + KEY + length]
        if key_length != KEY or len(body) != length:
            raise self.file.damaged("an entry does not fit its page")
        return body

    def read(self, number: int, kind: int, count: int) -> bytes:
        """Pages of the file, which are what publishing wrote as far as that is known. kind: LEAF, LONG_PAGES, or 0 for others.

        Raises DamagedFile.
        """
        if not 0 <= number <= self._meta.pages - count:
            raise self.file.damaged("a page is missing")
        begin = number * self.page_size
        pages = self.file.read(begin, begin + count * self.page_size)
        if self.checks is not None and crc32(pages) != self.checks[number]:
            raise self.file.damaged("a page differs from its checksum")
        if _HEADER.unpack_from(pages)[0] & KINDS != kind:
            raise self.file.damaged("a page is of the wrong kind")
        return pages


def page_checks(path: Path) -> bytes:
    """lookup.crc of a lookup file that was just written: a checksum for each page, and one for all pages of a long body.

    That one stands where the first of them has its place. Raises OSError or DamagedFile.
    """
    meta = _newest_meta(OpenFile(path))
    checks, number = array("I", bytes(4 * meta.pages)), 0
    with path.open("rb") as file:
        while number < meta.pages and (page := file.read(meta.page_size)):
            count = max(_COUNT.unpack_from(page)[0], 1) if _HEADER.unpack_from(page)[0] & LONG_PAGES else 1
            checks[number] = crc32(page + file.read((count - 1) * meta.page_size))
            number += count
    return checks.tobytes()


def _newest_meta(file: OpenFile) -> _Meta:
    """What the newer of the two meta pages says. Raises DamagedFile."""
    first = _meta(file, 0)
    second = None if first is None else _meta(file, first.page_size)
    found = [meta for meta in (first, second) if meta is not None]
    if not found:
        raise DamagedFile(f"{file.path} cannot be opened: it does not begin as a lookup file does.")
    newest = max(found, key=lambda each: each.written)
    if newest.pages > file.size // newest.page_size:
        raise file.damaged("it is shorter than it says")
    return newest


def _meta(file: OpenFile, begin: int) -> _Meta | None:
    """What a meta page says; None where there is none. Raises DamagedFile."""
    if file.size < begin + _META.size:
        return None
    magic, layout, page_size, depth, entries, root, last, written = _META.unpack(file.read(begin, begin + _META.size))
    if (magic, layout) != (MAGIC, LAYOUT) or page_size not in PAGE_SIZES or depth > DEEPEST:
        return None
    return _Meta(page_size, depth, entries, root, last + 1, written)
