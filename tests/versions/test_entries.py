"""The reader of lookup files: it finds what LMDB wrote, and whatever the file becomes, it says so and nothing wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchinfer.core.open_file import DamagedFile
from batchinfer.versions import entries as entries_of
from batchinfer.versions.entries import TOGETHER, EntryFile
from batchinfer.versions.tree import LongEntry
from tests.versions.lookup_files import AGES, body_of, key_of, reopen, write

SIZES = {"none": 0, "one": 1, "a leaf": 20, "branches": 3000, "branches of branches": 8000}


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("count", SIZES.values(), ids=SIZES)
def test_all_is_found_that_lmdb_wrote(tmp_path: Path, count: int, age: str) -> None:
    """Each key has its body, other keys have none, and all of it is read in order."""
    bodies = {key_of(number): body_of(number) for number in range(count)}
    entries = write(tmp_path, bodies, age)
    assert len(entries) == count
    assert list(entries.get_many(bodies)) == list(bodies.values())
    assert all(entries.get(key) == body for key, body in bodies.items())
    assert list(entries.get_many([bytes(16), *bodies])) == [None, *bodies.values()]
    assert [entries.get(key_of(number)) for number in range(count, count + 500)] == [None] * 500
    assert [entries.get(bytes(16)), entries.get(b"\xff" * 16)] == [None, None]
    assert list(entries.read_all()) == sorted(bodies.items())
    assert entries.first() == (bodies[min(bodies)] if bodies else None)
    entries.check()
    assert entries.is_checked == (age != "oldest")
    assert not entries.is_suspect


@pytest.mark.parametrize("age", AGES)
def test_keys_that_begin_alike_are_told_apart(tmp_path: Path, age: str) -> None:
    """Also where the slices or leaves between them begin with the same eight bytes."""
    bodies = {b"alike!!!" + number.to_bytes(8, "big"): b"%d" % number * 100 for number in range(0, 400, 2)}
    entries = write(tmp_path, bodies, age)
    assert all(entries.get(key) == body for key, body in bodies.items())
    assert all(entries.get(b"alike!!!" + number.to_bytes(8, "big")) is None for number in range(1, 400, 2))


def told(found: Iterator[bytes | None]) -> list[bytes | str | None]:
    """What comes, to the end or to the sentence that ends it."""
    came: list[bytes | str | None] = []
    try:
        came.extend(found)
    except DamagedFile as exc:
        came.append(str(exc))
    return came


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("flips", [0, 3, 60])
def test_many_keys_are_answered_as_each_alone(tmp_path: Path, age: str, flips: int) -> None:
    """In their order, up to the first that is damaged: whatever there is, also keys that begin alike, and keys that there are not."""
    chance = random.Random(flips)
    bodies = {key_of(number): body_of(number) for number in range(1500)}
    bodies |= {b"alike!!!" + number.to_bytes(8, "big"): b"%d" % number * 100 for number in range(0, 400, 2)}
    write(tmp_path, bodies, age)
    asked = [
        *bodies,
        *(b"alike!!!" + number.to_bytes(8, "big") for number in range(1, 400, 2)),
        bytes(16),
        b"\xff" * 16,
    ]
    with (tmp_path / "lookup.lmdb").open("r+b") as file:
        for _ in range(flips):
            file.seek(chance.randrange(8192, os.fstat(file.fileno()).st_size))
            file.write(chance.randbytes(1))
    for count in (1, TOGETHER, TOGETHER + 1, len(asked)):
        keys = chance.sample(asked, count)
        one, other = reopen(tmp_path, age), reopen(tmp_path, age)
        assert told(one.get_many(iter(keys))) == told(other.get(key) for key in keys)
        assert one.is_suspect == other.is_suspect


def test_long_bodies_of_many_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they may be more than the memory holds: who asks says when he wants the next."""
    entries = write(tmp_path, {key_of(number): body_of(100 * number) for number in range(20)})
    read, sizes = entries._tree.file.read, list[int]()

    def noted(begin: int, end: int) -> bytes:
        sizes.append(end - begin)
        return read(begin, end)

    monkeypatch.setattr(entries._tree.file, "read", noted)
    for count, body in enumerate(entries.get_many(map(key_of, range(20))), start=1):
        assert body == body_of(100 * (count - 1))
        assert len(sizes) == count


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("seed", range(3))
def test_no_damage_is_read_as_if_it_were_whole(tmp_path: Path, age: str, seed: int) -> None:
    """After bits have flipped in the open file, what is checked is right or refused; without checksums nothing else is raised."""
    chance = random.Random(seed)
    bodies = {key_of(number): body_of(number) for number in range(2000)}
    entries = write(tmp_path, bodies, age)
    with (tmp_path / "lookup.lmdb").open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(400):
            file.seek(
                chance.choice([chance.randrange(size), chance.randrange(size) // 4096 * 4096 + chance.randrange(40)])
            )
            file.write(chance.randbytes(chance.choice([1, 2, 8])))
    refused = 0
    for key, body in bodies.items():
        try:
            found = entries.get(key)
        except DamagedFile as exc:
            refused += 1
            assert "lookup.lmdb is damaged: " in str(exc)  # noqa: PT017
        else:
            assert found == body or age == "oldest"
    assert refused
    assert entries.is_suspect
    with pytest.raises(DamagedFile):
        entries.check()


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_that_is_opened_says_so(tmp_path: Path, seed: int) -> None:
    """Opening and reading a file of which any bytes are wrong ends well or with a sentence, and never with anything else."""
    chance = random.Random(seed)
    write(tmp_path, {key_of(number): body_of(number) for number in range(3000)})
    path = tmp_path / "lookup.lmdb"
    data = bytearray(path.read_bytes())
    for _ in range(300):
        place = chance.choice(
            [chance.randrange(8192), chance.randrange(len(data)), chance.randrange(0, len(data), 4096) + 12]
        )
        data[place : place + 2] = chance.randbytes(2)
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    path.write_bytes(data)
    try:
        EntryFile(path).check()
    except DamagedFile as exc:  # bodies alone may have been hit, which nobody can know without checksums
        assert "lookup.lmdb is damaged: " in str(exc) or "lookup.lmdb cannot be opened: " in str(exc)  # noqa: PT017


@pytest.mark.parametrize("age", AGES)
def test_a_file_that_is_cut_is_damaged(tmp_path: Path, age: str) -> None:
    """It was open before; what is gone cannot be read, and that is all."""
    bodies = {key_of(number): body_of(number) for number in range(3000)}
    entries = write(tmp_path, bodies, age)
    os.truncate((tmp_path / "lookup.lmdb"), 8192)
    assert entries.is_suspect
    for key in bodies:
        with pytest.raises(DamagedFile, match="it was cut"):
            entries.get(key)


def test_checksums_that_are_cut_are_damaged(tmp_path: Path) -> None:
    """The file itself may be whole: nobody can say."""
    write(tmp_path, {key_of(number): b"x" for number in range(100)})
    os.truncate(tmp_path / "lookup.crc", 5)
    with pytest.raises(DamagedFile, match=r"lookup\.lmdb is damaged: it has more pages than checksums"):
        reopen(tmp_path)


@pytest.mark.parametrize("age", ["old", "now"])
def test_what_leads_to_all_pages_is_checked_first(tmp_path: Path, age: str) -> None:
    """A bit of the first two pages that has flipped is found, or changes nothing: with fewer levels branches would be leaves."""
    bodies = {key_of(number): b"%d" % number * 20 for number in range(600)}
    write(tmp_path, bodies)
    path = tmp_path / "lookup.lmdb"
    whole = path.read_bytes()
    for place in [*range(16, 152), *range(4096 + 16, 4096 + 152)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DamagedFile, match=r"lookup\.lmdb (is damaged|cannot be opened)"):
            reopen(tmp_path, age)
    path.write_bytes(whole)
    reopen(tmp_path, age).check()


def test_a_length_beyond_its_page_is_damage(tmp_path: Path) -> None:
    """Where there is no checksum, a body does not come with its neighbours."""
    bodies = {key_of(number): b"%04d" % number * 30 for number in range(600)}
    entries, key = write(tmp_path, bodies, "oldest"), key_of(7)
    with (tmp_path / "lookup.lmdb").open("r+b") as file:
        node = file.read().index(b"\x10\0" + key) - 6
        file.seek(node)
        file.write((120 + 4096).to_bytes(2, "little"))
    with pytest.raises(DamagedFile, match="an entry does not fit its page"):
        entries.get(key)
    assert entries.is_suspect


def test_a_tree_of_pages_without_end_is_damaged(tmp_path: Path) -> None:
    """Each page has one above it: those that are met again and again lead in a circle, be there leaves or not."""
    write(tmp_path, {key_of(number): b"x" for number in range(3000)})
    path = tmp_path / "lookup.lmdb"
    data = bytearray(path.read_bytes())
    meta = max((0, 4096), key=lambda begin: int.from_bytes(data[begin + 144 : begin + 152], "little"))
    root = int.from_bytes(data[meta + 128 : meta + 136], "little")
    count = (int.from_bytes(data[root * 4096 + 12 : root * 4096 + 14], "little") - 16) // 2
    assert count > 10
    for at in range(count):
        node = root * 4096 + int.from_bytes(data[root * 4096 + 16 + 2 * at :][:2], "little")
        data[node : node + 6] = root.to_bytes(6, "little")
    data[meta + 94 : meta + 96] = (30).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="lead in a circle"):
        EntryFile(path)


def test_bodies_that_are_kept_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is not read again, however the file changes; all that is kept has room, and long bodies are not."""
    monkeypatch.setattr(entries_of, "ROOM", 10_000)
    bodies = {key_of(number): body_of(number) for number in range(300)}
    entries = write(tmp_path, bodies)
    assert all(entries.get(key) == body for key, body in bodies.items())
    kept = entries._kept
    assert 0 < sum(map(len, kept.values())) <= 10_000
    assert key_of(0) not in kept
    last = next(reversed(kept))
    (tmp_path / "lookup.lmdb").write_bytes(b"")
    assert entries.get(last) == bodies[last]
    with pytest.raises(DamagedFile, match="it was cut"):
        entries.get(next(key for key in bodies if key not in kept))


def test_a_long_body_is_told_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no time for one asks with a limit; bodies that lie in a leaf are there anyway."""
    entries = write(tmp_path, {key_of(number): body_of(number) for number in range(300)})
    with monkeypatch.context() as patched:
        patched.setattr(entries._tree.file, "read", lambda *_: pytest.fail("it was read"))
        with pytest.raises(LongEntry):
            entries.get(key_of(0), len(body_of(0)) - 1)
    assert entries.get(key_of(0), len(body_of(0))) == body_of(0)
    assert entries.get(key_of(1), 0) == body_of(1)
