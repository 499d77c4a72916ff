"""Where the bundled model lies: converted once for all data folders of a user."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from batchinfer.core import locks
from batchinfer.core.home import JobData
from batchinfer.engines import bundled, models
from batchinfer.engines.models import ModelIdentity
from batchinfer.errors import ModelError

DIGEST = "0" * 64
IDENTITY = ModelIdentity(f"{bundled.PREFIX}{bundled.NAME}", None, DIGEST, "bundled")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "batchinfer" / "models"


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The targets of conversions, which are pretended: they only take a moment."""
    targets: list[Path] = []

    def convert(_cache: Path, target: Path, _info: object) -> None:
        targets.append(target)
        time.sleep(0.1)
        target.mkdir()

    monkeypatch.setattr(bundled, "_convert", convert)
    return targets


def test_all_data_folders_share_it(tmp_path: Path, cache: Path, converted: list[Path]) -> None:
    """It lies in the user's cache folder, which nobody else can look into; a data folder is not even made."""
    places = [models.weights(IDENTITY, JobData(tmp_path / home, "shop"), lambda _: None) for home in ("one", "two")]
    assert places == [str(bundled.folder(cache, DIGEST))] * 2
    assert len(converted) == 1
    assert [stat.S_IMODE(place.stat().st_mode) for place in (cache, cache.parent)] == [0o700] * 2
    assert not (tmp_path / "one").exists()


def test_one_that_a_data_folder_has_is_used(tmp_path: Path, cache: Path, converted: list[Path]) -> None:
    """Older versions converted it there."""
    data = JobData(tmp_path / "home", "shop")
    older = bundled.folder(data.models, DIGEST)
    older.mkdir(parents=True)
    assert models.weights(IDENTITY, data, lambda _: None) == str(older)
    assert (converted, cache.exists()) == ([], False)


def test_two_do_not_convert_at_once(cache: Path, converted: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second waits, says so, and finds it made."""
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0)
    said: list[str] = []
    threads = [threading.Thread(target=bundled.ensure, args=(cache, DIGEST, said.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(converted) == 1
    waits = "Waiting for the folder of converted models, used by batchinfer, converting a model (process "
    assert [text.startswith(waits) for text in said] == [True] * 2


def test_a_cache_that_cannot_be_written(cache: Path, converted: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says which variable names another place; also where a file stands in the way."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        ModelError, match=f"cannot be written to {cache}: Permission denied: free space there, or set XDG"
    ):
        bundled.ensure(cache, DIGEST, print)
    monkeypatch.undo()
    (cache.parent.parent / "file").touch()
    with pytest.raises(ModelError, match="XDG_CACHE_HOME"):
        bundled.ensure(cache.parent.parent / "file" / "models", DIGEST, print)
    assert converted == []
