"""doctor --deep: it reads all that a job has stored, and names what is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.home import JobData
from batchinfer.maintenance.deep import read_all
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import LOOKUP, PREDICTIONS
from batchinfer.versions.pointers import CURRENT, PIN
from tests.damage import flipped, made_to_fit, point, rot
from tests.factories import LENIENT, Templates, World, imports_job
from tests.tiny import ROOT


def two_versions(folder: Path) -> World:
    """A job with two versions."""
    world = imports_job(folder, {"id": ["a", "b"]}, gate=LENIENT)
    for said in "xy":
        world.take_in({"id": ["a", "b"], "prediction": [said * 3000, said]})
        world.publish()
    return world


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """A copy of `two_versions`."""
    return templates.world(two_versions, tmp_path)


def damaged(data: JobData) -> dict[str, str]:
    """What is damaged, and how."""
    found = list(read_all(data))
    assert all(finding.ok or finding.fix for finding in found)
    return {finding.what: finding.detail for finding in found if not finding.ok}


def test_all_that_is_whole_is_ok(world: World) -> None:
    """The cache, what CURRENT names, and each version."""
    found = {finding.what: finding.detail for finding in read_all(world.data)}
    assert found.pop("cache, all of it").endswith(" can be read")
    assert found == {
        "CURRENT": "version 2",
        "version 1": "2 entries, whole", "version 2": "2 entries, whole",
    }  # fmt: skip


@pytest.mark.parametrize("name", [LOOKUP, PREDICTIONS])
def test_a_damaged_version_is_named(world: World, name: str) -> None:
    """With its file; the others are whole."""
    flipped(name)(folder_of(world.data, 1))
    found = damaged(world.data)
    assert found.keys() == {"version 1"}
    assert f"{name} is damaged" in found["version 1"]


def test_damage_whose_checksum_was_made_to_fit_is_found(world: World) -> None:
    """Each page has a checksum of its own."""
    folder = folder_of(world.data, 1)
    rot(folder / LOOKUP)
    made_to_fit(folder)
    assert "a page differs from its checksum" in damaged(world.data)["version 1"]


def test_pointers_to_nothing_are_named(world: World) -> None:
    """CURRENT and PIN that cannot be read, or name what is not there."""
    (world.data.folder / CURRENT).write_text("{")
    point(world.data, 9, "0" * 64, PIN)
    found = damaged(world.data)
    assert found.keys() == {CURRENT, PIN}
    assert found[PIN] == "version 9, which is not there"


@pytest.mark.long
def test_a_damaged_cache_is_named_by_the_command(world: World) -> None:
    """As a finding, with exit code 1 and without a traceback."""
    data = bytearray(world.data.cache.read_bytes())
    for place in range(3 * 4096 + 64, len(data), 512):
        data[place] ^= 0xFF
    world.data.cache.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "batchinfer", "--home", str(world.data.root), "doctor", str(world.job.folder), "--deep", "--json"],
        capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    [cache] = [finding for finding in findings if finding["what"] == "cache, all of it"]
    assert (cache["ok"], cache["detail"].startswith("damaged: ")) == (False, True)
    assert cache["fix"] == "batchinfer repair shop"
