"""A data folder that an older batchinfer left: today's code opens it, serves the same bytes, and makes nothing again."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from batchinfer import Lookup
from batchinfer.core.home import JobData
from batchinfer.job import reader
from batchinfer.serve.apikeys import KeyFile
from batchinfer.versions import folders
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.snapshot import Snapshot
from tests.serving import serving
from tests.tiny import Cli

ARCHIVE = Path(__file__).parent.parent / "fixtures" / "data-folder-32a7c38.tar.xz"
JOBS = ["labels", "names", "imported"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The unpacked archive: jobs/, home/, and what look-ups answered then."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def batchinfer(old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, called where jobs/ lies."""
    monkeypatch.chdir(old)
    return Cli(monkeypatch, capsys, old / "home")


def expected(old: Path, job: str) -> dict[str, Any]:
    content = json.loads((old / "expected.json").read_text(encoding="utf-8"))
    return dict(content[job])


@pytest.mark.parametrize("job", JOBS)
def test_every_version_answers_the_same_bytes(old: Path, job: str) -> None:
    """Each version opens, has the checksums of its manifest, and answers every look-up as it did when it was made."""
    data, recorded = JobData(old / "home", job), expected(old, job)["versions"]
    assert [str(number) for number in folders.numbers(data)] == list(recorded)
    for number, answers in recorded.items():
        with Snapshot(folders.folder_of(data, int(number))) as snapshot:
            snapshot.verify()
            for query, body in answers:
                assert snapshot.get(query) == (body and body.encode())


@pytest.mark.parametrize("job", JOBS)
def test_clients_are_served_the_same(old: Path, job: str) -> None:
    """What a client gets is the version that was served, so a pin holds, and so are its matches."""
    recorded = expected(old, job)
    with Lookup(old / "home", job) as lookup:
        assert lookup.version == recorded["served"]
        for query, body in recorded["versions"][str(lookup.version)]:
            hit = lookup.get(query)
            assert hit == (body and json.loads(body))
        for text, matches in recorded["matches"]:
            assert older(lookup.match(text)["matches"]) == matches


def older(matches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Matches without the field that they did not have then; each concept had but one language."""
    assert all(match["languages"] in ([match["language"]], None) for match in matches)
    return [{name: value for name, value in match.items() if name != "languages"} for match in matches]


@pytest.mark.long
def test_the_service_answers_the_same_bytes(old: Path) -> None:
    """Over HTTP each look-up and match gets what was recorded, with the key of then where that is good for the job."""
    then = json.loads((old / "expected.json").read_text(encoding="utf-8"))["key"]
    keys = dict.fromkeys(JOBS, KeyFile(old / "home").add("now", None).key) | {"labels": then}
    with serving(old / "home", old / "server") as server:
        for job, key in keys.items():
            recorded, headers = expected(old, job), {"authorization": f"Bearer {key}"}
            for query, body in recorded["versions"][str(recorded["served"])]:
                reply = server.lookup(job, headers, **query)
                assert reply.headers["batchinfer-version"] == str(recorded["served"])
                if body is None:
                    assert reply.problem[:2] == (404, "miss")
                else:
                    assert (reply.status, reply.body) == (200, body.encode())
            for text, matches in recorded["matches"]:
                assert older(server.match(job, text, headers).json["matches"]) == matches
        assert server.lookup("names", {"authorization": f"Bearer {then}"}, id="y").problem[:2] == (403, "forbidden")


def test_the_recorded_answers_are_worth_comparing(old: Path) -> None:
    """There are hits and misses, matches and texts without, a version that is pinned and a newer one, and a candidate."""
    recorded = {job: expected(old, job) for job in JOBS}
    for content in recorded.values():
        bodies = [body for answers in content["versions"].values() for _, body in answers]
        assert None in bodies
        assert any(bodies)
    assert [bool(matches) for _, matches in recorded["names"]["matches"]] == [True, False]
    assert (recorded["labels"]["served"], list(recorded["labels"]["versions"])) == (1, ["1", "2", "3"])
    assert recorded["labels"]["candidates"] == ["r3"]


@pytest.mark.parametrize(
    ("job", "hits", "failures", "bad"), [("labels", 6, 1, 0), ("names", 2, 0, 0), ("imported", 2, 0, 1)]
)
def test_nothing_is_generated_again(batchinfer: Cli, job: str, hits: int, failures: int, bad: int) -> None:
    """The old cache answers the whole list, and comes to what is current: all keys and prompts are what they were."""
    plan = batchinfer("plan", job, "--json").json
    assert (plan["hits"], plan["failures"], plan["bad"], plan["to_generate"]) == (hits, failures, bad, 0)
    report = batchinfer("run", job, "--json").json
    assert (report["status"], report["generated"]) == ("done", 0)
    assert (report["changes"] or {}).get("changed", 0) == 0


@pytest.mark.parametrize("job", JOBS)
def test_nothing_is_published_again(batchinfer: Cli, job: str) -> None:
    """What is current stays so, but for a matcher: texts are folded by newer rules now, so it is made again, once."""
    reports = [batchinfer(command, job, "--json").json for command in ("run", "publish")]
    assert [report["unchanged"] for report in reports] == [job != "names", True]
    assert [report["version"] is None for report in reports] == [job != "names", True]


def test_misses_are_rows(batchinfer: Cli, old: Path) -> None:
    """What clients asked for often enough is still a row of the list; nothing else is added."""
    assert [path.suffix for path in (old / "home" / "labels" / "misses").iterdir()] == [".parquet"]
    assert batchinfer("plan", "labels", "--json").json["misses"] == 1


def test_a_pin_holds_until_it_is_taken_out(batchinfer: Cli) -> None:
    """The newer version is listed as current, the older one is served; without the pin it is the newer one."""
    listed = {row["version"]: row for row in batchinfer("versions", "labels", "--json").json}
    assert [(row["pinned"], row["current"]) for row in (listed[1], listed[3])] == [(True, False), (False, True)]
    assert batchinfer("lookup", "labels", "id=f").code
    assert batchinfer("unpin", "labels").code == 0
    assert batchinfer("lookup", "labels", "id=f", "--json").json["prediction"] == "Yes"


def test_a_refused_candidate_can_be_compared_and_published(batchinfer: Cli, old: Path) -> None:
    """It differs as it did then, and is published as the very bytes that were refused."""
    difference = batchinfer("diff", "labels", "3", "r3", "--json").json
    assert (difference["added"], difference["removed"], difference["changed"]) == (0, 0, 4)
    data = JobData(old / "home", "labels")
    refused = {path.name: path.read_bytes() for path in (data.rejected / "r3").glob("*.parquet")}
    report = batchinfer("publish", "labels", "--candidate", "r3", "--force", "--why", "meant so", "--json").json
    assert report["version"] == 4
    place = folders.folder_of(data, 4)
    assert {path.name: path.read_bytes() for path in place.glob("*.parquet")} == refused
    assert Manifest.read(place).candidate == "r3"


def test_verdicts_are_heeded(batchinfer: Cli) -> None:
    """A rejected prediction stays out; once the review is taken back, it is served again."""
    (review,) = batchinfer("import", "names", "--list", "--json").json
    assert (review["author"], review["rows"]) == ("Ann", 2)
    assert batchinfer("lookup", "names", "id=y", "lang=ru").code
    assert batchinfer("import", "names", "--undo", "1").code == 0
    assert batchinfer("publish", "names", "--json").json["entries"] == 2
    assert batchinfer("lookup", "names", "id=y", "lang=ru", "--json").json["prediction"]["names"][0] == "y-Impfung"


def test_what_happened_is_listed(batchinfer: Cli) -> None:
    """Imports, failures and runs are told as they were recorded."""
    (taken,) = batchinfer("import", "imported", "--list", "--json").json
    assert (taken["author"], taken["rows"]) == ("Bob", 2)
    (failure,) = batchinfer("failures", "labels", "--json").json
    assert (failure["stage"], failure["query"]) == ("engine", {"id": "e"})
    assert len(batchinfer("runs", "labels", "--json").json) == 4


@pytest.mark.parametrize("job", JOBS)
def test_job_files_are_read(old: Path, job: str) -> None:
    """The job files of then are job files now."""
    assert reader.load(str(old / "jobs" / job), {}).name == job


def test_api_keys_open_the_same_doors(old: Path) -> None:
    """A key that was handed out still fits its record, and only for the jobs that it was made for."""
    secret = json.loads((old / "expected.json").read_text(encoding="utf-8"))["key"].split("_", 2)[2]
    (record,) = KeyFile(old / "home").read()
    assert record.fits(secret)
    assert (record.allows("labels"), record.allows("names")) == (True, False)
