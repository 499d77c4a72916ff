"""An opened version: it finds its entries, counts who holds it, and is refused where it is damaged."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import StoreError, UsageError
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.snapshot import Snapshot
from tests.factories import Templates, World, model_job
from tests.plans import echo


def three_hundred(folder: Path) -> World:
    """A job with one version, of so many entries that its look-ups fill several pages."""
    world = model_job(folder, {"id": list(range(300)), "text": [str(number) for number in range(300)]})
    world.answer(echo)
    world.publish()
    return world


@pytest.fixture
def big(templates: Templates, tmp_path: Path) -> World:
    """A copy of `three_hundred`."""
    return templates.world(three_hundred, tmp_path)


def test_a_truncated_lookup_file_is_not_opened(big: World) -> None:
    """A look-up file that is shorter than its manifest says is refused before it is read."""
    path = folder_of(big.data, 1) / LOOKUP
    whole = path.read_bytes()
    for length in (0, 100, 8192, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"lookup\.lmdb is truncated or corrupt: its size differs"):
            big.served()


def test_a_lookup_file_of_other_bytes_is_not_opened(big: World) -> None:
    """A file of the right size that is no LMDB file is refused."""
    path = folder_of(big.data, 1) / LOOKUP
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StoreError, match=r"lookup\.lmdb cannot be opened"):
        big.served()


def test_a_missing_lookup_file_is_said_to_be_missing(big: World) -> None:
    """A version without its look-up file cannot be opened."""
    (folder_of(big.data, 1) / LOOKUP).unlink()
    with pytest.raises(StoreError, match=r"lookup\.lmdb cannot be opened: .*No such file"):
        big.served()


@pytest.mark.parametrize("name", [LOOKUP, PREDICTIONS])
def test_a_wrong_checksum_is_found(big: World, name: str) -> None:
    """One changed byte in any file of a version is found by its checksum, and a missing file too."""
    path = folder_of(big.data, 1) / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    with big.served() as snapshot, pytest.raises(StoreError, match=f"{name} is damaged: its checksum differs"):
        snapshot.verify()
    with big.served() as snapshot:
        path.unlink()
        with pytest.raises(StoreError, match=f"{name} is missing or cannot be read: No such file"):
            snapshot.verify()


def test_a_damaged_manifest_is_refused(big: World) -> None:
    """A manifest that is missing, cut off, or something else, is said to be damaged."""
    path = folder_of(big.data, 1) / MANIFEST
    for content in (b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff", path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"manifest\.json is (missing|damaged)"):
            big.served()
    path.unlink()
    with pytest.raises(StoreError, match=r"manifest\.json is (missing|damaged)"):
        big.served()


def test_a_changed_manifest_is_refused(big: World) -> None:
    """A whole manifest that is not the one that was published is refused by its checksum."""
    path = folder_of(big.data, 1) / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"rows": 300', '"rows": 301'), encoding="utf-8")
    with pytest.raises(StoreError, match="is not the manifest that was published: its checksum differs"):
        big.served()
    with (
        Snapshot(folder_of(big.data, 1)) as snapshot,
        pytest.raises(StoreError, match="holds 300 entries, the manifest says 301"),
    ):
        snapshot.verify()


def test_a_version_of_an_unknown_format_is_refused(big: World) -> None:
    """A version made by a later program is not guessed at."""
    path = folder_of(big.data, 1) / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(StoreError, match="has format 2, and this batchinfer knows 1: upgrade it"):
        Snapshot(folder_of(big.data, 1))


@pytest.mark.long
def test_many_are_found_in_their_order(data: JobData) -> None:
    """Of many hashes each gets its own body or none, whatever comes twice."""
    with Snapshot(folder_of(data, 2)) as snapshot:
        hashes = [snapshot.reader.lookup_hash((text,)) for text in ("b", "nowhere", "a", "b")]
        found = [body and json.loads(body)["prediction"] for body in snapshot.find_many(hashes)]
    assert found == ["b", None, "2", "b"]
    assert (snapshot.number, len(hashes[0])) == (2, 16)


def test_a_query_that_does_not_fit_is_refused(data: JobData) -> None:
    """A look-up needs all of the key's columns, and no others."""
    with Snapshot(folder_of(data, 1)) as snapshot, pytest.raises(UsageError, match="id is missing"):
        snapshot.get({"text": "a"})


@pytest.mark.long
def test_a_version_is_opened_several_times(data: JobData) -> None:
    """One Snapshot of a version that is closed takes it from none of the others."""
    folder = folder_of(data, 1)
    first, second = Snapshot(folder), Snapshot(folder)
    first.close()
    assert second.get({"id": "a"}) is not None
    second.close()
    gc.collect()
    with Snapshot(folder) as again:
        assert len(again) == 2


def test_a_version_without_a_matcher_finds_no_terms(data: JobData) -> None:
    """Who asks it for matches is told that the job has no match section."""
    with Snapshot(folder_of(data, 1)) as snapshot:
        assert not snapshot.matches
        with pytest.raises(UsageError, match="The job shop has no match section"):
            _ = snapshot.matcher


def test_a_probe_reads_an_entry(data: JobData) -> None:
    """A whole version passes; so does one without entries, of which there is none to read."""
    with Snapshot(folder_of(data, 1)) as snapshot:
        snapshot.probe()
        snapshot.verify()
