"""CURRENT and PIN: what they name, what may be pinned, and what is said where they are damaged."""

from __future__ import annotations

import json
import shutil

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import NotFound, StoreError
from batchinfer.versions import pointers
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.pointers import CURRENT, PIN, PinReport


def value(data: JobData) -> str:
    """What is served for the entry a, out of a version that is whole."""
    with pointers.open_served(data) as snapshot:
        snapshot.verify()
        return str(json.loads(snapshot.get({"id": "a"}) or b"")["prediction"])


@pytest.mark.parametrize("number", [0, 4, 99])
def test_only_versions_that_there_are_can_be_pinned(data: JobData, number: int) -> None:
    """A number without a version is refused with those that there are, and nothing is pinned."""
    with pytest.raises(NotFound, match=rf"The job shop has no version {number} in .*: it has 1, 2, 3\."):
        pointers.pin(data, number)
    assert pointers.pinned(data) is None


@pytest.mark.parametrize("name", [LOOKUP, PREDICTIONS, MANIFEST])
def test_a_damaged_version_is_not_pinned(data: JobData, name: str) -> None:
    """What is not whole is not pinned, and what is served stays."""
    path = folder_of(data, 1) / name
    content = bytearray(path.read_bytes())
    content[-20 if name != MANIFEST else 0] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="damaged"):
        pointers.pin(data, 1)
    assert (pointers.pinned(data), value(data)) == (None, "3")


def test_a_version_of_another_job_is_not_pinned(data: JobData) -> None:
    """A version that was put into the wrong job's folder, or under another number, is not pinned."""
    shutil.copytree(data.folder, data.root / "bar")
    other = JobData(data.root, "bar")
    with pytest.raises(StoreError, match="holds version 1 of the job shop, not version 1 of the job bar"):
        pointers.pin(other, 1)
    shutil.copytree(folder_of(data, 1), folder_of(data, 8))
    with pytest.raises(StoreError, match="holds version 1 of the job shop, not version 8 of the job shop"):
        pointers.pin(data, 8)
    assert (pointers.pinned(data), pointers.pinned(other)) == (None, None)


def test_a_pin_goes_before_current_until_it_is_taken_out(data: JobData) -> None:
    """The pinned version is served; without the pin it is the current one, and a second unpin finds none."""
    assert pointers.pin(data, 1) == PinReport("shop", 1, 1)
    assert (pointers.served(data).version, value(data)) == (1, "1")
    assert pointers.unpin(data) == PinReport("shop", 3, None, was_pinned=True)
    assert (pointers.served(data).version, value(data)) == (3, "3")
    assert pointers.unpin(data) == PinReport("shop", 3, None, was_pinned=False)


def test_rolling_back_goes_down_one_by_one(data: JobData) -> None:
    """Each rollback pins the newest whole version below the one that is served; below the oldest there is none."""
    assert pointers.roll_back(data) == PinReport("shop", 2, 2, before=3)
    assert pointers.roll_back(data) == PinReport("shop", 1, 1, before=2)
    with pytest.raises(NotFound, match="has no whole version below 1, which is served"):
        pointers.roll_back(data)
    assert value(data) == "1"
    pointers.unpin(data)
    (folder_of(data, 2) / LOOKUP).unlink()
    assert pointers.roll_back(data) == PinReport("shop", 1, 1, before=3)


def test_nothing_can_be_rolled_back_before_the_first_version(data: JobData) -> None:
    """Without a version there is nothing to go back from."""
    (data.folder / CURRENT).unlink()
    shutil.rmtree(data.versions)
    with pytest.raises(NotFound, match="has no published version"):
        pointers.roll_back(data)
    with pointers.open_if_served(data) as found:
        assert found is None


def test_a_damaged_current_is_refused(data: JobData) -> None:
    """A damaged CURRENT is said to be so by whoever reads it, and what fixes it."""
    path = data.folder / CURRENT
    for content in (b"", b"1", b"{}", b'{"version": "one", "manifest_sha256": ""}', b"\xff"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"CURRENT is damaged: .*\. batchinfer publish shop fixes it\.$"):
            pointers.open_served(data)


def test_the_list_shows_what_can_be_pinned(data: JobData) -> None:
    """With a damaged CURRENT and PIN the versions are listed, none as served, and both faults are reported."""
    for name in (CURRENT, PIN):
        (data.folder / name).write_bytes(b"{")
    said: list[str] = []
    rows = pointers.list_versions(data, said.append)
    assert [(row.version, row.served, row.current, row.pinned) for row in rows] == [
        (number, False, False, False) for number in (3, 2, 1)
    ]
    assert ["CURRENT is damaged" in said[0], "PIN is damaged" in said[1], len(said)] == [True, True, 2]


def test_what_is_served_while_one_pointer_is_damaged(data: JobData) -> None:
    """A pin is served whatever CURRENT says; behind a damaged PIN nothing is known to be served."""
    pointers.pin(data, 1)
    current, pin = ((data.folder / name).read_bytes() for name in (CURRENT, PIN))

    def served() -> list[int]:
        return [row.version for row in pointers.list_versions(data, lambda _: None) if row.served]

    (data.folder / CURRENT).write_bytes(b"{")
    assert served() == [1]
    (data.folder / CURRENT).write_bytes(current)
    (data.folder / PIN).write_bytes(pin[:-5])
    assert served() == []
    (data.folder / PIN).unlink()
    assert served() == [3]


def test_the_highest_number_is_never_given_again(data: JobData) -> None:
    """A number counts as taken while a folder, CURRENT or PIN has it, whole or not."""
    assert pointers.newest_number(data) == 3
    shutil.rmtree(folder_of(data, 3))
    assert pointers.newest_number(data) == 3
    (data.folder / CURRENT).write_bytes(b"{")
    assert pointers.newest_number(data) == 2


def test_what_a_new_version_follows(data: JobData) -> None:
    """The one that CURRENT names, or else the newest whole one, and why it is another."""
    assert pointers.previous(data) == (3, None)
    (folder_of(data, 3) / PREDICTIONS).unlink()
    number, fault = pointers.previous(data)
    assert number == 2
    assert "000003" in (fault or "")
    (data.folder / CURRENT).unlink()
    (folder_of(data, 2) / MANIFEST).unlink()
    assert pointers.previous(data) == (1, f"{data.folder / CURRENT} is missing.")
