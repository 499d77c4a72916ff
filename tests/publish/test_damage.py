"""Publishing that breaks off, or writes what it should not, leaves what is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchinfer.errors import StoreError
from batchinfer.publish import build, lookup_index
from batchinfer.publish.candidate import Candidate
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import LOOKUP
from tests.publish.conftest import (
    OPEN,
    Make,
    current,
)


def test_a_damaged_draft_is_never_published(served: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read again before it is named: a file that came out wrong stops the publishing."""
    world = served(1, gate=OPEN)

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
    world.take_in({"id": [1], "prediction": ["new"]})
    with pytest.raises(StoreError, match="checksum differs"):
        world.publish()
    assert (current(world), folders.numbers(world.data)) == (1, [1])


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
