"""Version folders with anything in them: each command says in a sentence what is wrong, or works."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError
from batchinfer.match.version import MATCHER
from batchinfer.versions import pointers
from batchinfer.versions.folders import folder_of, verify
from batchinfer.versions.layout import CHECKS, INDEX, LOOKUP, MANIFEST, PREDICTIONS
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import CURRENT, PIN
from batchinfer.versions.snapshot import Snapshot
from tests.damage import made_to_fit, point
from tests.fuzz import anything
from tests.serving import names_job

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["", "\x00", "\ud800", "9" * 5000, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a manifest something stands."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for name, held in inner for place in [(*at, name), *places(held, (*at, name))]]


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any, *, removed: bool) -> dict[str, Any]:
    """A manifest with something else, or nothing, at a place."""
    document = copy.deepcopy(document)
    held: Any = document
    for name in place[:-1]:
        held = held[name]
    if removed:
        del held[place[-1]]
    else:
        held[place[-1]] = value
    return document


def use(data: JobData) -> None:
    """What people and services do with versions; each works, or raises what people are told."""
    doings: list[Callable[[], object]] = [
        lambda: pointers.list_versions(data, lambda _: None),
        lambda: verify(data, 3),
        lambda: _look_up(data),
        lambda: pointers.pinned(data),
        lambda: pointers.newest_number(data),
        lambda: pointers.previous(data),
    ]
    for do in doings:
        with contextlib.suppress(BatchinferError):
            do()


def _look_up(data: JobData) -> None:
    with pointers.open_served(data) as snapshot:
        snapshot.get({"id": "a"})
        manifest = snapshot.manifest
        assert manifest.spec.max_age >= 0
        Manifest.of(manifest.document).to_bytes()


@anything(4)
@given(draw=st.data())
@pytest.mark.long
def test_a_manifest_may_say_anything(data: JobData, draw: st.DataObject) -> None:
    """Each field of a manifest may be missing, or hold anything: the version is refused in a sentence, or works."""
    path = folder_of(data, 3) / MANIFEST
    whole = path.read_bytes()
    document = json.loads(whole)
    place = draw.draw(st.sampled_from(places(document)))
    other = changed(document, place, draw.draw(values), removed=draw.draw(st.booleans()))
    try:
        path.write_bytes(json.dumps(other).encode())
        point(data, 3)
        use(data)
    finally:
        path.write_bytes(whole)
        point(data, 3)


@anything(4)
@given(
    name=st.sampled_from([CURRENT, PIN, MANIFEST]),
    content=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()),
)
@pytest.mark.long
def test_files_may_hold_any_bytes(data: JobData, name: str, content: bytes) -> None:
    """CURRENT, PIN and a manifest may hold any bytes."""
    path = folder_of(data, 3) / MANIFEST if name == MANIFEST else data.folder / name
    before = path.read_bytes() if path.exists() else None
    try:
        path.write_bytes(content)
        use(data)
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a version with a matcher."""
    world = names_job(tmp_path_factory.mktemp("whole") / "home", "shop", {("tea", "en"): ["tea", "cup of tea"]})
    return {path.name: path.read_bytes() for path in folder_of(world.data, 1).iterdir()}


@anything(4)
@given(
    name=st.sampled_from([LOOKUP, CHECKS, INDEX, MATCHER, PREDICTIONS]),
    place=st.integers(0, 1 << 16),
    noise=st.binary(min_size=1, max_size=64),
    cut=st.booleans(),
    fits=st.booleans(),
)
def test_files_may_be_damaged_anywhere(
    whole: dict[str, bytes], data: JobData, name: str, place: int, noise: bytes, *, cut: bool, fits: bool
) -> None:
    """Each file of a version may be cut, or hold other bytes, also such as the manifest's checksum was made for."""
    folder = folder_of(data, 4)
    folder.mkdir(exist_ok=True)
    for other, content in whole.items():
        (folder / other).write_bytes(content)
    place %= len(whole[name])
    (folder / name).write_bytes(whole[name][:place] + noise + (b"" if cut else whole[name][place + len(noise) :]))
    if fits:
        made_to_fit(folder)
    for doing in (Snapshot.verify, _look_up_in, _match_in):
        with contextlib.suppress(BatchinferError), Snapshot(folder) as snapshot:
            doing(snapshot)


def _look_up_in(snapshot: Snapshot) -> None:
    snapshot.get({"thing": "tea", "language": "en"})
    snapshot.entries.check()


def _match_in(snapshot: Snapshot) -> None:
    snapshot.matcher.find("a cup of tea", languages=["en"])


@anything(4)
@given(version=values, digest=values)
@pytest.mark.long
def test_pointers_may_name_anything(data: JobData, version: Any, digest: Any) -> None:
    """CURRENT and PIN may name any version by any checksum."""
    right = hashlib.sha256((folder_of(data, 3) / MANIFEST).read_bytes()).hexdigest()
    for name in (CURRENT, PIN):
        for said in ({"version": version, "manifest_sha256": right}, {"version": 3, "manifest_sha256": digest}):
            (data.folder / name).write_bytes(json.dumps(said).encode())
            use(data)
    (data.folder / PIN).unlink()
    point(data, 3)
