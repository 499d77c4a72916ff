"""Which part of lookup.lmdb a look-up reads: lookup.index, which publishing makes and who serves holds in memory.

A leaf of LMDB holds a dozen entries, of which a look-up wants one. Entries that follow each other lie one below the other in
their leaf, so a few of them are one part of the file, a slice: only that is read, compared with its checksum, and searched.
Nothing is copied out of lookup.lmdb, which stays what everybody reads, and of many entries few slices are held in memory.

    lookup.index: of all slices the begin, then of all the beginning of the first key, the checksum, the size; its own checksum
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

from batchinfer.core.files import open_plain
from batchinfer.core.open_file import DamagedFile
from batchinfer.versions.tree import HEAD, LEAF, NODE, PageTree

MOST = 1024  # bytes of a slice that has more than one entry
BEGINNING = 4  # bytes of a key that are held
MOST_BUCKETS = 24  # bits of their number
EACH = 18  # bytes of a slice in the file
CHECK = 4  # bytes of the file's own checksum


class Slices(NamedTuple):
    """All slices of a lookup file, in the order of their keys.

    begins: where each begins in the file.
    firsts: what its first key begins with, as a number.
    checks: its checksum; none in an old version that has none of its pages.
    sizes: in bytes.
    """

    begins: array[int]
    firsts: array[int]
    checks: array[int]
    sizes: array[int]

    @classmethod
    def _none(cls) -> Self:
        return cls(array("Q"), array("I"), array("I"), array("H"))

    @classmethod
    def of(cls, tree: PageTree) -> Self:
        """Of a file that was just written. Raises DamagedFile."""
        made = cls._none()
        for number, _ in tree.leaves():
            page = tree.read(number, LEAF, 1)
            for begin, end, first in _cut(tree.nodes(page), len(page)):
                made.begins.append(number * len(page) + begin)
                made.firsts.append(int.from_bytes(page[first + NODE : first + NODE + BEGINNING], "big"))
                made.checks.append(crc32(page[begin:end]))
                made.sizes.append(end - begin)
        return made

    @classmethod
    def of_leaves(cls, tree: PageTree) -> Self:
        """Each leaf as a slice, for a version without lookup.index. Raises DamagedFile."""
        made = cls(array("Q"), array("I"), array("I"), array("I"))
        for number, first in tree.leaves():
            made.begins.append(number * tree.page_size)
            made.firsts.append(int.from_bytes(first[:BEGINNING].ljust(BEGINNING, b"\0"), "big"))
            made.sizes.append(tree.page_size)
            if tree.checks is not None:
                made.checks.append(tree.checks[number])
        return made

    @classmethod
    def read(cls, path: Path) -> Self:
        """What publishing wrote. Raises OSError or DamagedFile."""
        with open_plain(path) as file:
            content = memoryview(file.read())
        count, rest = divmod(len(content) - CHECK, EACH)
        if rest or crc32(content[:-CHECK]) != int.from_bytes(content[-CHECK:], "little"):
            raise DamagedFile(f"{path} is damaged: it differs from its own checksum.")
        read, begin = cls._none(), 0
        for part in read:
            part.frombytes(content[begin : begin + count * part.itemsize])
            begin += count * part.itemsize
        return read

    def to_bytes(self) -> bytes:
        """lookup.index."""
        content = b"".join(part.tobytes() for part in self)
        return content + crc32(content).to_bytes(CHECK, "little")


def _cut(nodes: tuple[int, ...], size: int) -> Iterator[tuple[int, int, int]]:
    """Where slices of a leaf begin and end, and where the first entry of each does. nodes: as the page has them.

    LMDB puts one entry below the other, from the end of the page. A page that has them otherwise is one slice.
    """
    if any(one <= other for one, other in pairwise(nodes)):
        yield HEAD, size, nodes[0]
        return
    begin, end, first = size, size, nodes[0]
    for node in nodes:
        if end - node > MOST and begin < end:
            yield begin, end, first
            end, first = begin, node
        begin = node
    yield begin, end, first


class Buckets(NamedTuple):
    """Where to look among sorted numbers of 32 bits: hashes are spread evenly, so how one begins nearly says its place.

    shift: by how many bits a number is shifted to be that of its bucket.
    starts: how many numbers lie before each bucket, and before the end.
    """

    shift: int
    starts: array[int]

    @classmethod
    def of(cls, firsts: array[int]) -> Self:
        bits = min(max(len(firsts).bit_length() - 1, 0), MOST_BUCKETS)
        counts = array("I", bytes(4 << bits))
        shift = 8 * BEGINNING - bits
        for first in firsts:
            counts[first >> shift] += 1
        return cls(shift, array("I", accumulate(counts, initial=0)))
