"""Extents of lookup files, as lookup.index has them: each entry lies in one, and no index leads to what is not there."""

from __future__ import annotations

import contextlib
import itertools
import random
from array import array
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from batchinfer.core.open_file import DamagedFile
from batchinfer.versions.entries import EntryFile
from batchinfer.versions.extents import MAGIC, MOST, Buckets, Extents, _cut
from batchinfer.versions.tree import PageTree
from tests.versions.lookup_files import body_of, key_of, reopen, write


@pytest.fixture
def bodies(tmp_path: Path) -> dict[bytes, bytes]:
    """Of a lookup file of some pages that lies there, written in several transactions, so that pages in between are none of its own."""
    made = {key_of(number): body_of(number) for number in range(500)}
    write(tmp_path, made, at_once=90)
    return made


def made_of(folder: Path) -> Extents:
    return Extents.of(PageTree(folder / "lookup.lmdb", (folder / "lookup.crc").read_bytes()))


def test_each_entry_lies_in_one_extent(tmp_path: Path, bodies: dict[bytes, bytes]) -> None:
    """In the order of the keys, none longer than it should be; each is what its checksum is of, and holds whole entries."""
    made, index = made_of(tmp_path), tmp_path / "lookup.index"
    content = (tmp_path / "lookup.lmdb").read_bytes()
    parts = [content[begin : begin + size] for begin, size in zip(made.begins, made.sizes, strict=True)]
    assert list(made.checks) == [crc32(part) for part in parts]
    assert list(made.firsts) == sorted(made.firsts)
    held = [[key for key in bodies if b"\x10\0" + key in part] for part in parts]
    assert sorted(key for keys in held for key in keys) == sorted(bodies)
    assert all(len(part) <= MOST or len(keys) == 1 for part, keys in zip(parts, held, strict=True))
    assert [int.from_bytes(min(keys)[:4], "big") for keys in held] == list(made.firsts)
    assert list(map(list, Extents.read(index.read_bytes(), index))) == list(map(list, made))


@pytest.mark.parametrize(("length", "most"), [(60, 2), (250, 3), (500, 8), (1000, 20), (3000, 20)])
def test_an_index_is_small(tmp_path: Path, length: int, most: int) -> None:
    """Of entries of any length it holds few bytes each, since who serves holds it in memory."""
    write(tmp_path, {key_of(number): b"x" * length for number in range(1000)})
    assert (tmp_path / "lookup.index").stat().st_size <= 1000 * most


def test_a_page_in_another_order_is_one_extent() -> None:
    """LMDB puts one entry below the other; should it ever not, all of the page is read."""
    assert list(_cut((2500, 3000, 2000), 4096)) == [(16, 4096, 2500)]
    assert list(_cut((3500, 3000, 2100, 100), 4096)) == [(2100, 4096, 3500), (100, 2100, 100)]
    assert list(_cut((3500, 3100), 4096)) == [(3100, 4096, 3500)]
    assert list(_cut((), 4096)) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:3],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"extents9" + content[len(MAGIC) :],
    ],
)
def test_what_is_no_index_is_not_read(
    tmp_path: Path, bodies: dict[bytes, bytes], damage: Callable[[bytes], bytes]
) -> None:
    """Nor one that a newer program made otherwise."""
    index = tmp_path / "lookup.index"
    with pytest.raises(DamagedFile, match=r"lookup\.index is damaged, or made by a newer batchinfer"):
        Extents.read(damage(index.read_bytes()), index)


@pytest.mark.parametrize("seed", range(12))
def test_an_index_may_say_anything(tmp_path: Path, bodies: dict[bytes, bytes], seed: int) -> None:
    """One that leads elsewhere, or beyond any file: no look-up finds what is not there, and a check says so."""
    made, chance = made_of(tmp_path), random.Random(seed)
    part = made[seed % len(made)]
    assert isinstance(part, array)
    for _ in range(20):
        part[chance.randrange(len(part))] = chance.choice(
            [0, 1, chance.getrandbits(8 * part.itemsize), part[0], part[-1]]
        )
    _hold_nothing_wrong(tmp_path, made, bodies)


def test_an_index_of_another_file_leads_to_nothing_else(tmp_path: Path, bodies: dict[bytes, bytes]) -> None:
    """As where a folder was put together from two versions: the manifest keeps it from being opened, and a check finds it."""
    (tmp_path / "other").mkdir()
    for lacking in (min(bodies), max(bodies), key_of(3)):
        write(tmp_path / "other", {key: body for key, body in bodies.items() if key != lacking}, at_once=90)
        _hold_nothing_wrong(tmp_path, made_of(tmp_path / "other"), bodies)
    _hold_nothing_wrong(tmp_path, Extents(array("Q"), array("I"), array("I"), array("H")), bodies)


def _hold_nothing_wrong(folder: Path, extents: Extents, bodies: dict[bytes, bytes]) -> None:
    entries = EntryFile(folder / "lookup.lmdb", (folder / "lookup.crc").read_bytes(), extents)
    for key, body in bodies.items():
        try:
            assert entries.get(key) in (body, None)
        except DamagedFile as exc:
            assert "lookup.lmdb is damaged: " in str(exc)  # noqa: PT017
    many = entries.get_many(bodies)
    with contextlib.suppress(DamagedFile):
        assert all(found in (body, None) for found, body in zip(many, bodies.values(), strict=True))
    reopened = EntryFile(folder / "lookup.lmdb", (folder / "lookup.crc").read_bytes(), extents)
    with pytest.raises(DamagedFile, match=r"lookup\.lmdb is damaged: "):
        reopened.check()


def test_a_read_that_fails_once_is_no_damage(
    tmp_path: Path, bodies: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of the network may do so, or a machine short of memory: what is read again is right."""
    entries = reopen(tmp_path)
    failures = itertools.cycle(list[OSError | bytes]([OSError("no memory"), b"short"]))

    def once(_size: int, _begin: int) -> bytes:
        came = next(failures)
        if isinstance(came, bytes):
            return came
        raise came

    monkeypatch.setattr(entries, "_pread", once)
    assert list(entries.get_many(bodies)) == list(bodies.values())
    assert all(entries.get(key) == body for key, body in bodies.items())
    assert not entries.is_suspect


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
