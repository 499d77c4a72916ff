"""Versions that were damaged, and publishing that breaks off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchinfer.errors import StoreError
from batchinfer.publish import build, lookup_index
from batchinfer.publish.contents import Candidate
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.snapshot import Snapshot
from tests.factories import Templates, World, model_job
from tests.publish.conftest import (
    OPEN,
    Make,
    current,
    echo,
    folder,
)

# Damage


def three_hundred(folder: Path) -> World:
    """A job with one version, of so many entries that its look-ups fill several pages."""
    world = model_job(folder, {"id": list(range(300)), "text": [str(number) for number in range(300)]})
    world.answer(echo)
    world.publish()
    return world


@pytest.fixture
def published(templates: Templates, tmp_path: Path) -> World:
    """`three_hundred`."""
    return templates.world(three_hundred, tmp_path)


def test_a_truncated_lookup_file_is_not_opened(published: World) -> None:
    """A look-up file that is shorter than its manifest says is refused before it is mapped."""
    path = folder(published, 1) / LOOKUP
    whole = path.read_bytes()
    for length in (0, 100, 8192, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"lookup\.lmdb is truncated or corrupt: its size differs"):
            published.served()


def test_a_lookup_file_of_other_bytes_is_not_opened(published: World) -> None:
    """A file of the right size that is no LMDB file is refused."""
    path = folder(published, 1) / LOOKUP
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StoreError, match=r"lookup\.lmdb cannot be opened"):
        published.served()


def test_a_missing_lookup_file_is_said_to_be_missing(published: World) -> None:
    """A version without its look-up file cannot be opened."""
    (folder(published, 1) / LOOKUP).unlink()
    with pytest.raises(StoreError, match=r"lookup\.lmdb cannot be opened: .*No such file"):
        published.served()


@pytest.mark.parametrize("name", [LOOKUP, PREDICTIONS])
def test_a_wrong_checksum_is_found(published: World, name: str) -> None:
    """One changed byte in any file of a version is found by its checksum, and a missing file too."""
    path = folder(published, 1) / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    with published.served() as snapshot, pytest.raises(StoreError, match=f"{name} is damaged: its checksum differs"):
        snapshot.verify()
    with published.served() as snapshot:
        path.unlink()
        with pytest.raises(StoreError, match=f"{name} is missing or cannot be read: No such file"):
            snapshot.verify()


def test_a_damaged_manifest_is_refused(published: World) -> None:
    """A manifest that is missing, cut off, or something else, is said to be damaged."""
    path = folder(published, 1) / MANIFEST
    for content in (b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff", path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"manifest\.json is (missing|damaged)"):
            published.served()
    path.unlink()
    with pytest.raises(StoreError, match=r"manifest\.json is (missing|damaged)"):
        published.served()


def test_a_changed_manifest_is_refused(published: World) -> None:
    """A whole manifest that is not the one that was published is refused by its checksum."""
    path = folder(published, 1) / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"rows": 300', '"rows": 301'), encoding="utf-8")
    with pytest.raises(StoreError, match="is not the manifest that was published: its checksum differs"):
        published.served()
    with (
        Snapshot(folder(published, 1)) as snapshot,
        pytest.raises(StoreError, match="holds 300 entries, the manifest says 301"),
    ):
        snapshot.verify()


def test_a_version_of_an_unknown_format_is_refused(published: World) -> None:
    """A version made by a later program is not guessed at."""
    path = folder(published, 1) / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(StoreError, match="has format 2, and this batchinfer knows 1: upgrade it"):
        Snapshot(folder(published, 1))


def test_a_damaged_current_is_refused(published: World) -> None:
    """A damaged CURRENT is said to be so by whoever reads it, and what fixes it."""
    path = published.data.folder / pointers.CURRENT
    for content in (b"", b"1", b"{}", b'{"version": "one", "manifest_sha256": ""}', b"\xff"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"CURRENT is damaged: .*\. batchinfer publish shop fixes it\.$"):
            published.served()


def test_a_damaged_draft_is_never_published(published: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read again before it is named: a file that came out wrong stops the publishing."""

    def damaged(db: Any, key: Any, target: Path, job: str, *, is_json: bool) -> int:
        count = build_lookup(db, key, target, job, is_json=is_json)
        path = target / LOOKUP
        whole = path.read_bytes()
        manifest_then = build.write_manifest

        def damage_after(draft: Path, facts: Any) -> None:
            manifest_then(draft, facts)
            path.write_bytes(whole[:-20] + b"!" + whole[-19:])

        monkeypatch.setattr(build, "write_manifest", damage_after)
        return count

    build_lookup = lookup_index.write_lookup
    monkeypatch.setattr(lookup_index, "write_lookup", damaged)
    published.take_in({"id": [1], "prediction": ["new"]})
    with pytest.raises(StoreError, match="checksum differs"):
        published.publish()
    assert (current(published), folders.numbers(published.data)) == (1, [1])


# Publishing that breaks off

STEPS = [
    (Candidate, "__init__"), (Candidate, "write"), (lookup_index, "write_lookup"), (build, "write_manifest"), (folders, "sync_files"),
    (build, "check"), (folders, "move_into_place"), (pointers, "make_current"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "step", "after"),
    [*((module, step, False) for module, step in STEPS), (pointers, "make_current", True)],
    ids=[*(f"before {step}" for _, step in STEPS), "after make_current"],
)
def test_an_error_between_steps_leaves_the_old_version_served(
    served: Make, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, *, after: bool
) -> None:
    """Wherever publishing breaks off, the old version is served until the new one is current, and the next attempt works."""
    world = served(1, gate=OPEN)
    world.take_in({"id": [1], "prediction": ["new"]})
    real = getattr(module, step)

    def breaks(*arguments: Any, **named: Any) -> None:
        if after:
            real(*arguments, **named)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module, step, breaks)
        with pytest.raises((OSError, StoreError)):
            world.publish()
    done = after and step == "make_current"
    assert json.loads(world.get(id=1) or b"")["prediction"] == ("new" if done else "about a")
    assert not list(world.data.versions.glob(".*"))
    report = world.publish()
    assert (report.version is None) == done
    assert json.loads(world.get(id=1) or b"")["prediction"] == "new"


def test_readers_of_current_see_the_old_or_the_new(served: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """CURRENT is replaced as a whole: at the moment before the flip it names the old version and its manifest."""
    world = served(1, gate=OPEN)
    seen: list[int] = []
    real = pointers.make_current

    def watched(*arguments: Any) -> None:
        seen.append(current(world))
        real(*arguments)
        seen.append(current(world))

    monkeypatch.setattr(pointers, "make_current", watched)
    world.take_in({"id": [1], "prediction": ["new"]})
    world.publish()
    assert seen == [1, 2]
