"""Which part of lookup.lmdb a look-up reads: lookup.index, which publishing makes and who serves holds in memory.

A leaf of LMDB holds a dozen entries, of which a look-up wants one. Entries that follow each other lie one below the other in
their leaf, so a few of them are one part of the file, an extent: only that is read, compared with its checksum, and searched.
Nothing is copied out of lookup.lmdb, which stays what everybody reads, and of many entries few extents are held in memory.

    lookup.index: MAGIC; of all extents the begin, then of all the beginning of the first key, the checksum, the size
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias
from zlib import crc32

from batchinfer.core.open_file import DamagedFile
from batchinfer.versions.tree import HEAD, LEAF, NODE, PageTree

MAGIC = b"extents1"
MOST = 2048  # bytes of an extent that has more than one entry
BEGINNING = 4  # bytes of a key that are held
MOST_BUCKETS = 24  # bits of their number
EACH = 8 + 4 + 4 + 2  # bytes of an extent in the file, in that order
Numbers: TypeAlias = "array[int] | memoryview"


class Extents(NamedTuple):
    """All extents of a lookup file, in the order of their keys.

    begins: where each begins in the file.
    firsts: what its first key begins with, as a number.
    checks: its checksum; none where extents are whole leaves, which the tree judges.
    sizes: in bytes; none there.
    """

    begins: Numbers
    firsts: Numbers
    checks: Numbers
    sizes: Numbers

    @classmethod
    def of(cls, tree: PageTree) -> Self:
        """Of a file that was just written. Raises DamagedFile."""
        begins, firsts, checks, sizes = array("Q"), array("I"), array("I"), array("H")
        for number, _ in tree.leaves():
            page = tree.read(number, LEAF, 1)
            for begin, end, first in _cut(tree.nodes(page), len(page)):
                begins.append(number * len(page) + begin)
                firsts.append(int.from_bytes(page[first + NODE : first + NODE + BEGINNING], "big"))
                checks.append(crc32(page[begin:end]))
                sizes.append(end - begin)
        return cls(begins, firsts, checks, sizes)

    @classmethod
    def of_leaves(cls, tree: PageTree) -> Self:
        """Each leaf as an extent, for a version without lookup.index. Raises DamagedFile."""
        begins, firsts = array("Q"), array("I")
        for number, first in tree.leaves():
            begins.append(number * tree.page_size)
            firsts.append(int.from_bytes(first[:BEGINNING].ljust(BEGINNING, b"\0"), "big"))
        return cls(begins, firsts, array("I"), array("H"))

    @classmethod
    def read(cls, content: bytes, path: Path) -> Self:
        """What `write` wrote, which stays as it is in memory. path: where it lay, for sentences. Raises DamagedFile."""
        count, rest = divmod(len(content) - len(MAGIC), EACH)
        if rest or not content.startswith(MAGIC):
            raise DamagedFile(f"{path} is damaged, or made by a newer batchinfer: it does not begin as an index does.")
        view, parts, begin = memoryview(content), list[memoryview](), len(MAGIC)
        for kind, size in zip("QIIH", (8, 4, 4, 2), strict=True):
            parts.append(view[begin : begin + count * size].cast(kind))  # type: ignore[call-overload]
            begin += count * size
        return cls(*parts)

    def write(self, path: Path) -> None:
        """lookup.index. Raises OSError."""
        with path.open("wb") as file:
            file.write(MAGIC)
            for part in self:
                file.write(part)


def _cut(nodes: tuple[int, ...], size: int) -> Iterator[tuple[int, int, int]]:
    """Where extents of a leaf begin and end, and where the first entry of each does. nodes: as the page has them.

    LMDB puts one entry below the other, from the end of the page. A page that has them otherwise is one extent.
    """
    if not nodes:
        return
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
    def of(cls, firsts: Numbers) -> Self:
        bits = min(max(len(firsts).bit_length() - 1, 0), MOST_BUCKETS)
        counts = array("I", bytes(4 << bits))
        shift = 8 * BEGINNING - bits
        for first in firsts:
            counts[first >> shift] += 1
        return cls(shift, array("I", accumulate(counts, initial=0)))
