"""Slices of lookup files, as lookup.index has them: each entry lies in one, and a damaged index is no index."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from batchinfer.core.open_file import DamagedFile
from batchinfer.versions.entries import EntryFile
from batchinfer.versions.slices import MOST, Buckets, Slices, _cut
from batchinfer.versions.tree import PageTree
from tests.versions.lookup_files import body_of, key_of, write

FILES = ("lookup.lmdb", "lookup.crc", "lookup.index")


def files_of(folder: Path) -> list[Path]:
    return [folder / name for name in FILES]


@pytest.fixture
def bodies(tmp_path: Path) -> dict[bytes, bytes]:
    """Of a lookup file of some pages that lies there, written in several transactions, so that pages in between are none of its own."""
    made = {key_of(number): body_of(number) for number in range(500)}
    write(tmp_path, made, at_once=90)
    return made


def test_each_entry_lies_in_one_slice(tmp_path: Path, bodies: dict[bytes, bytes]) -> None:
    """In the order of the keys, none longer than it should be; each is what its checksum is of, and holds whole entries."""
    path, checks, _ = files_of(tmp_path)
    made = Slices.of(PageTree(path, checks))
    content = path.read_bytes()
    parts = [content[begin : begin + size] for begin, size in zip(made.begins, made.sizes, strict=True)]
    assert list(made.checks) == [crc32(part) for part in parts]
    assert list(made.firsts) == sorted(made.firsts)
    held = [[key for key in bodies if b"\x10\0" + key in part] for part in parts]
    assert sorted(key for keys in held for key in keys) == sorted(bodies)
    assert all(len(part) <= MOST or len(keys) == 1 for part, keys in zip(parts, held, strict=True))
    assert [int.from_bytes(min(keys)[:4], "big") for keys in held] == list(made.firsts)
    assert Slices.read(tmp_path / "lookup.index") == made
    assert len(made.to_bytes()) < len(content) / 25


def test_a_page_in_another_order_is_one_slice() -> None:
    """LMDB puts one entry below the other; should it ever not, all of the page is read."""
    assert list(_cut((3000, 3500, 2000), 4096)) == [(16, 4096, 3000)]
    assert list(_cut((3500, 3000, 100), 4096)) == [(3500, 4096, 3500), (3000, 3500, 3000), (100, 3000, 100)]
    assert list(_cut((3500, 3100), 4096)) == [(3100, 4096, 3500)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:3],
        lambda content: content[:-1],
        lambda content: content[:-18],
        lambda content: content + b"\0",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    ],
)
def test_a_damaged_index_is_not_opened(
    tmp_path: Path, bodies: dict[bytes, bytes], damage: Callable[[bytes], bytes]
) -> None:
    """Whoever opens it finds out, also where nobody compares it with the manifest."""
    index = tmp_path / "lookup.index"
    index.write_bytes(damage(index.read_bytes()))
    with pytest.raises(DamagedFile, match=r"lookup\.index is damaged: it differs from its own checksum"):
        EntryFile(*files_of(tmp_path))


@pytest.mark.parametrize("seed", range(12))
def test_an_index_may_say_anything(tmp_path: Path, bodies: dict[bytes, bytes], seed: int) -> None:
    """One with a right checksum that leads elsewhere, or beyond the file: no look-up finds what is not there, and a check says so."""
    path, checks, index = files_of(tmp_path)
    made, chance = Slices.read(index), random.Random(seed)
    part = made[seed % len(made)]
    for _ in range(20):
        part[chance.randrange(len(part))] = chance.getrandbits(8 * part.itemsize)
    index.write_bytes(made.to_bytes())
    entries = EntryFile(path, checks, index)
    for key, body in bodies.items():
        try:
            assert entries.get(key) in (body, None)
        except DamagedFile as exc:
            assert "lookup.lmdb is damaged: " in str(exc)  # noqa: PT017
    with pytest.raises(DamagedFile, match=r"lookup\.(index|lmdb) is damaged: "):
        entries.check()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("bits", [2, 20, 32])
def test_a_bucket_leads_to_the_place_among_all(count: int, bits: int) -> None:
    """A number is found in its bucket where it would be among all of them, also where they are not spread evenly."""
    chosen = random.Random(count)
    firsts = array("I", sorted([0, *(chosen.getrandbits(bits) for _ in range(count - 1))][:count]))
    shift, starts = Buckets.of(firsts)
    for number in (0, 1, 2**32 - 1, *firsts, *(chosen.getrandbits(32) for _ in range(100))):
        bucket = number >> shift
        assert bisect_right(firsts, number, starts[bucket], starts[bucket + 1]) == bisect_right(firsts, number)
