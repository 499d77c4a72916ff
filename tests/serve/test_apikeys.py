"""API keys: how they are kept, whom they let in, and what becomes of them when their file is damaged or gone."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import shlex
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchinfer.errors import NotFound, StoreError, UsageError
from batchinfer.serve import apikeys
from batchinfer.serve.apikeys import KeyFile, split
from batchinfer.serve.auth import Authenticator, Latch, bearer_key, watching
from batchinfer.serve.problems import Problem
from tests.serving import eventually
from tests.tiny import Cli, answer_no

DAMAGES: list[bytes] = [
    b"", b"{", b"\xff", b"[]", b"null", b"7", b"{}", b'{"keys": 7}', b'{"keys": [7]}', b'{"keys": [{}]}', b"[" * 100_000,
]  # fmt: skip


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, with an empty data folder."""
    (tmp_path / "home").mkdir()
    return Cli(monkeypatch, capsys, tmp_path / "home")


def bearer(key: str) -> str:
    """The header that brings this key."""
    return f"Bearer {key}"


def refusal(authenticator: Authenticator, authorization: str | None, job: str | None = "shop") -> str:
    """The kind of problem that a request meets; empty if it is let in."""
    try:
        authenticator.check(authorization, job)
    except Problem as problem:
        return problem.slug
    return ""


def authenticator_of(root: Path, *, always: bool = False, never: bool = False) -> Authenticator:
    """An authenticator that has looked at the key file."""
    authenticator = Authenticator(root, Latch(always=always, never=never))
    authenticator.refresh()
    return authenticator


def test_a_key_is_shown_once_and_kept_nowhere(batchinfer: Cli) -> None:
    """What keys add prints is the key; no file of the data folder has its secret, and the file is its owner's alone."""
    done = batchinfer("keys", "add", "search", "--yes", "--json")
    assert done.code == 0
    key_id, secret = split(done.json["key"]) or ("", "")
    assert done.json["id"] == key_id
    assert len(secret) == 43  # 256 bits as base64
    written = [path for path in batchinfer.data.rglob("*") if path.is_file()]
    assert written
    assert not any(secret.encode() in path.read_bytes() for path in written)
    path = batchinfer.data / "api-keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [kept] = json.loads(path.read_bytes())["keys"]
    assert kept["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    listed = batchinfer("keys", "list", "--json")
    assert listed.json == [
        {"id": key_id, "name": "search", "jobs": None, "created_at": kept["created_at"], "revoked_at": None}
    ]
    shown = batchinfer("keys", "list")
    assert key_id in shown.out
    assert kept["sha256"] not in listed.out + shown.out


def test_a_key_is_printed_alone_for_scripts(batchinfer: Cli) -> None:
    """Without --json stdout holds the key and nothing else; the advice goes to stderr, without the secret."""
    done = batchinfer("keys", "add", "search", "--job", "shop", "--job", "shoes", "--yes")
    [key] = done.out.splitlines()
    assert split(key) is not None
    assert key not in done.err
    assert [row["jobs"] for row in batchinfer("keys", "list", "--json").json] == [["shop", "shoes"]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([" "], "A key's NAME says who or what it is for: it cannot be empty."),
        (
            ["x", "--job", "../../etc"],
            "'../../etc' is not a job's name: a letter from a to z, then a-z, 0-9, _ and -, 64 at most.",
        ),
        (
            ["x", "--job", "Shop"],
            "'Shop' is not a job's name: a letter from a to z, then a-z, 0-9, _ and -, 64 at most.",
        ),
    ],
)
def test_a_key_for_nothing_is_refused(batchinfer: Cli, words: list[str], sentence: str) -> None:
    """A key without a name, or for what no job can be called, is not made."""
    done = batchinfer("keys", "add", *words)
    assert (done.code, done.sentence) == (2, sentence)
    assert list(batchinfer.data.iterdir()) == []


def test_a_key_for_a_job_that_is_not_there_yet_is_made_with_a_hint(batchinfer: Cli) -> None:
    """The job may come later, or its name be mistyped."""
    (batchinfer.data / "shop" / "versions").mkdir(parents=True)
    done = batchinfer("keys", "add", "search", "--job", "shop", "--job", "shpo", "--yes")
    assert done.code == 0
    assert "There is no job shpo in the data folder yet.\n" in done.err
    assert "no job shop " not in done.err


def test_a_key_that_there_is_not_cannot_be_revoked(batchinfer: Cli) -> None:
    """An unknown id is said to be one, exits with 6 and changes nothing."""
    batchinfer("keys", "add", "search", "--yes")
    before = (batchinfer.data / "api-keys.json").read_bytes()
    done = batchinfer("keys", "revoke", "00000000")
    assert (done.code, done.sentence) == (
        6,
        f"There is no key 00000000 in {batchinfer.data}: batchinfer keys list names them.",
    )
    assert (batchinfer.data / "api-keys.json").read_bytes() == before


def test_a_key_is_revoked_once(batchinfer: Cli) -> None:
    """Revoking twice keeps the first time; the key stays in the list, for the record."""
    made = batchinfer("keys", "add", "search", "--yes", "--json").json["id"]
    first = batchinfer("keys", "revoke", made, "--json").json["revoked_at"]
    for named in (made, "search"):
        done = batchinfer("keys", "revoke", named, "--json")
        assert done.json == {"id": made, "name": "search", "revoked_at": first, "left": 0}
    assert [row["revoked_at"] for row in batchinfer("keys", "list", "--json").json] == [first]


def test_no_keys_is_said(batchinfer: Cli) -> None:
    """The list of a data folder without keys says how one is made."""
    said = f"There are no keys in {batchinfer.data}: batchinfer keys add NAME makes one.\n"
    assert batchinfer("keys", "list").out == said
    assert batchinfer("keys", "list", "--json").json == []
    batchinfer.data.rmdir()
    for command in (["list"], ["add", "search", "--yes"], ["revoke", "search"]):
        done = batchinfer("keys", *command)
        assert (done.code, str(batchinfer.data) in done.sentence) == (6, True)
    assert not batchinfer.data.exists()


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_file_stops_the_command_with_a_sentence(batchinfer: Cli, content: bytes) -> None:
    """Adding, listing and revoking refuse to go on from a damaged file, and leave it as it is."""
    path = batchinfer.data / "api-keys.json"
    path.write_bytes(content)
    for command in (["list"], ["add", "search"], ["revoke", "00000000"]):
        done = batchinfer("keys", *command)
        assert done.code == 1
        assert done.sentence.startswith(f"{path} is damaged: ")
        assert done.sentence.endswith("Restore it, or remove it and make new keys.")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [{"id": 7}, {"id": ["a"]}, {"sha256": 7}, {"sha256": "é" * 64}, {"sha256": ""}, {"name": None}, {"jobs": "shop"},
     {"jobs": [7]}, {"jobs": 7}, {"created_at": 7}, {"revoked_at": 7}, {"more": 1}],
)  # fmt: skip
def test_a_record_that_is_none_damages_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    """Values of wrong types are found when the file is read, not by the request that meets them."""
    KeyFile(tmp_path).add("search", None)
    path = tmp_path / "api-keys.json"
    content = json.loads(path.read_bytes())
    content["keys"][0] |= change
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StoreError, match="is damaged"):
        KeyFile(tmp_path).read()


def _add(given: tuple[str, str]) -> str:
    return KeyFile(Path(given[0])).add(given[1], None).key


@pytest.mark.long
def test_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    """Several processes that add and revoke at the same time lose nothing of each other's."""
    old = [KeyFile(tmp_path).add(f"old {number}", None).record.id for number in range(4)]
    with multiprocessing.get_context("spawn").Pool(2) as pool, ThreadPoolExecutor(4) as threads:
        made = pool.map_async(_add, [(str(tmp_path), f"one of many, {number}") for number in range(12)])
        list(threads.map(KeyFile(tmp_path).revoke, old))
        keys = made.get(60)
    records = {record.id: record for record in KeyFile(tmp_path).read()}
    assert len(records) == 16
    assert all(records[key_id].revoked_at for key_id in old)
    for key in keys:
        key_id, secret = split(key) or ("", "")
        assert records[key_id].fits(secret)


def test_the_first_key_is_asked_about(batchinfer: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does to a running service is said first; without a terminal it takes --yes. The next ones are just made."""
    said = "This is the first key: a service that runs on this data folder refuses everybody without a key"
    done = batchinfer("keys", "add", "search")
    assert (done.code, done.out, said in done.sentence, "--yes" in done.sentence) == (2, "", True, True)
    asked = answer_no(monkeypatch)
    assert batchinfer("keys", "add", "search").code == 2
    assert [said in text for text in asked] == [True]
    assert list(batchinfer.data.iterdir()) == []
    done = batchinfer("keys", "add", "search", "--yes")
    assert (done.code, said in done.err) == (0, True)
    done = batchinfer("keys", "add", "dashboard")
    assert (done.code, said in done.err) == (0, False)
    batchinfer("keys", "revoke", "search")
    batchinfer("keys", "revoke", "dashboard")
    assert batchinfer("keys", "add", "again").code == 0, "a service requires keys by then"


def test_a_name_is_one_key_s(batchinfer: Cli) -> None:
    """Two valid keys never bear one name, nor does one bear another's id; so a key can be revoked by either."""
    made = batchinfer("keys", "add", "search", "--yes", "--json").json["id"]
    batchinfer("keys", "add", "my app")
    for name in ("search", made, "my app"):
        done = batchinfer("keys", "add", name)
        assert done.code == 2
        assert done.sentence == (
            f"There is a key {name} already: choose another name, or revoke it first: batchinfer keys revoke {shlex.quote(name)}"
        )
    batchinfer("keys", "add", "dashboard")
    done = batchinfer("keys", "revoke", "search")
    assert (done.code, done.out, done.err) == (0, f"Revoked the key {made} (search).\n", "")
    other = batchinfer("keys", "add", "search", "--json").json["id"]
    assert batchinfer("keys", "revoke", "search", "--json").json["id"] == other
    assert batchinfer("keys", "revoke", "nobody").code == 6


def test_the_last_key_is_told(batchinfer: Cli) -> None:
    """Revoking it leaves a running service closed, and that is said; also when it is revoked once more."""
    batchinfer("keys", "add", "search", "--yes")
    for _ in range(2):
        assert batchinfer("keys", "revoke", "search").err == (
            "No key is left: a running service now refuses everybody; restart it with --no-auth to open it.\n"
        )


def test_keys_of_one_name_from_before_are_told_apart(tmp_path: Path) -> None:
    """Older versions allowed two keys of one name: then the id is needed, and both ids are named."""
    ids = [KeyFile(tmp_path).add(name, None).record.id for name in ("search", "searching")]
    path = tmp_path / "api-keys.json"
    path.write_text(path.read_text().replace("searching", "search"))
    with pytest.raises(
        UsageError, match=f"2 keys with the name search: name one of them by its id: {ids[0]}, {ids[1]}"
    ):
        KeyFile(tmp_path).revoke("search")
    assert KeyFile(tmp_path).revoke(ids[0]).left == 1
    assert KeyFile(tmp_path).revoke("search").id == ids[1]


@pytest.mark.parametrize("text", ["", "bi", "bi_1", "sk_1_2", "BI_1_2", "bi-1-2"])
def test_what_is_no_key(text: str) -> None:
    """A text that does not look like a key is none."""
    assert split(text) is None


def test_a_secret_may_hold_underscores() -> None:
    """Secrets are base64 for URLs, which has underscores: only the first two of a key divide it."""
    assert split("bi_1f_a_b_") == ("1f", "a_b_")


def test_comparing_takes_any_text(tmp_path: Path) -> None:
    """Whatever is sent as a secret is compared and found wrong; nothing is raised."""
    made = KeyFile(tmp_path).add("search", None)
    record, key = made.record, made.key
    assert record.fits(key.split("_", 2)[2])
    for text in ("", "é", "\udc80", "x" * 100_000, key):
        assert not record.fits(text)


def test_a_key_lets_in_what_it_is_for(tmp_path: Path) -> None:
    """A right key is let in, one limited to some jobs only for those; wrong, revoked and missing ones are not."""
    file = KeyFile(tmp_path)
    everything, shoes, old = file.add("a", None).key, file.add("b", ["shoes"]).key, file.add("c", None)
    file.revoke(old.record.id)
    authenticator = authenticator_of(tmp_path)
    assert refusal(authenticator, bearer(everything)) == ""
    assert refusal(authenticator, bearer(shoes), "shoes") == ""
    assert refusal(authenticator, bearer(shoes), None) == ""
    assert refusal(authenticator, bearer(shoes)) == "forbidden"
    assert refusal(authenticator, f"bearer  {everything} ") == ""
    for authorization in (
        None, bearer(old.key), bearer(everything[:-1]), bearer(everything + "x"), bearer("bi_00000000_" + everything[12:]),
        bearer(shoes[:12] + everything[12:]), bearer(""), bearer("bi_é_é"), "\xff\xfe",
        everything, f"Basic {everything}",
    ):  # fmt: skip
        assert refusal(authenticator, authorization) == "no-key"


def test_none_is_needed_until_there_is_one(tmp_path: Path) -> None:
    """On loopback nobody needs a key until the first is made, and everybody from then on, also if it is revoked."""
    authenticator = authenticator_of(tmp_path)
    assert refusal(authenticator, None) == ""
    made = KeyFile(tmp_path).add("search", None)
    record, key = made.record, made.key
    authenticator.refresh()
    assert (refusal(authenticator, None), refusal(authenticator, bearer(key))) == ("no-key", "")
    KeyFile(tmp_path).revoke(record.id)
    authenticator.refresh()
    assert (refusal(authenticator, None), refusal(authenticator, bearer(key))) == ("no-key", "no-key")
    assert refusal(authenticator_of(tmp_path), None) == "no-key"


def test_elsewhere_one_is_needed_from_the_start(tmp_path: Path) -> None:
    """Where others can reach the service nobody is let in without a key, even if there is none; --no-auth lets all in."""
    assert refusal(authenticator_of(tmp_path, always=True), None) == "no-key"
    KeyFile(tmp_path).add("search", None)
    assert refusal(authenticator_of(tmp_path, always=True, never=True), None) == ""


@pytest.mark.parametrize("damage", [*DAMAGES, b'{"keys": []}', None])
def test_a_worker_that_starts_while_the_file_is_off_lets_nobody_in(tmp_path: Path, damage: bytes | None) -> None:
    """The latch that the main process hands it says that there were keys: missing, damaged or none then mean nobody."""
    key = KeyFile(tmp_path).add("search", None).key
    latch = Latch()
    with watching(latch, tmp_path):
        assert latch.closed
    path = tmp_path / "api-keys.json"
    path.unlink() if damage is None else path.write_bytes(damage)
    late = Authenticator(tmp_path, latch)
    for _ in range(2):
        assert (refusal(late, None), refusal(late, bearer(key))) == ("no-key", "no-key")
        late.refresh()
    never = Latch(never=True)
    with watching(never, tmp_path):
        never.close()
    assert refusal(Authenticator(tmp_path, never), None) == ""


def test_the_latch_closes_with_the_first_key(tmp_path: Path) -> None:
    """The process that holds it notices a key that is made while it runs, and forgets it never."""
    latch = Latch()
    with watching(latch, tmp_path):
        assert not latch.closed
        KeyFile(tmp_path).add("search", None)
        eventually(lambda: latch.closed)
        (tmp_path / "api-keys.json").unlink()
        latch.look(KeyFile(tmp_path))
        assert latch.closed


@pytest.mark.parametrize("damage", [*DAMAGES, None])
def test_a_damaged_or_missing_file_keeps_strangers_out(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """When the file is damaged, or gone, the keys known before stay in force, strangers stay out, and the log says so once."""
    key = KeyFile(tmp_path).add("search", None).key
    authenticator = authenticator_of(tmp_path)
    path, good = tmp_path / "api-keys.json", (tmp_path / "api-keys.json").read_bytes()
    logger = logging.getLogger("batchinfer")
    before, logger.propagate = logger.propagate, True
    for _ in range(2):
        path.unlink() if damage is None else path.write_bytes(damage)
        for _ in range(3):
            authenticator.refresh()
        assert (refusal(authenticator, None), refusal(authenticator, bearer(key))) == ("no-key", "")
        path.write_bytes(good)
        authenticator.refresh()
        assert (refusal(authenticator, None), refusal(authenticator, bearer(key))) == ("no-key", "")
    logger.propagate = before
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all(str(path) in line and line.endswith("The keys known before stay in force.") for line in said)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_damaged_from_the_start_lets_nobody_in(tmp_path: Path, damage: bytes) -> None:
    """On loopback too: there were keys, so strangers must stay out."""
    (tmp_path / "api-keys.json").write_bytes(damage)
    assert refusal(authenticator_of(tmp_path), None) == "no-key"


@pytest.mark.parametrize("odd", ["folder", "link to nothing", "link to itself", "pipe", "device"])
def test_what_stands_in_place_of_the_file_lets_nobody_in(tmp_path: Path, odd: str) -> None:
    """From the start, since there may have been keys, and later but for those who were let in before. The commands refuse it."""
    file = KeyFile(tmp_path)
    key = file.add("search", None).key
    before, path = authenticator_of(tmp_path), file.path
    path.unlink()
    place: Callable[[], object] = {
        "folder": path.mkdir,
        "link to nothing": lambda: path.symlink_to(tmp_path / "secrets" / "keys.json"),
        "link to itself": lambda: path.symlink_to(path.name),
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }[odd]
    place()
    before.refresh()
    assert (refusal(before, None), refusal(before, bearer(key))) == ("no-key", "")
    late = authenticator_of(tmp_path)
    assert (refusal(late, None), refusal(late, bearer(key))) == ("no-key", "no-key")
    latch = Latch()
    latch.look(file)
    assert latch.closed
    with pytest.raises(StoreError, match=r"api-keys\.json"):
        file.add("another", None)


def test_a_file_that_cannot_be_looked_at_lets_nobody_in(tmp_path: Path) -> None:
    """Each process sees that for itself: a worker that starts need not be told by another."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)  # as a folder whose disk does not answer
    assert refusal(authenticator_of(loop), None) == "no-key"
    latch = Latch()
    latch.look(KeyFile(loop))
    assert latch.closed
    assert refusal(authenticator_of(tmp_path / "nowhere"), None) == ""


def test_a_link_that_is_replaced_as_it_is_read_is_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mounted secret is: who looks for the first key goes on looking."""
    file, latch = KeyFile(tmp_path), Latch()
    file.path.symlink_to(tmp_path / "missing")
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")

    def readlink(_path: Path) -> str:
        raise gone

    monkeypatch.setattr(Path, "readlink", readlink)
    assert file.read() == []
    latch.look(file)
    assert not latch.closed


def test_a_data_folder_that_is_away_locks_nobody_out(tmp_path: Path) -> None:
    """While the data folder is away its clients keep their access, as they keep its versions."""
    data, away = tmp_path / "home", tmp_path / "away"
    data.mkdir()
    key = KeyFile(data).add("search", None).key
    authenticator = authenticator_of(data)
    data.rename(away)
    authenticator.refresh()
    assert (refusal(authenticator, None), refusal(authenticator, bearer(key))) == ("no-key", "")
    newer = KeyFile(away).add("newer", None).key
    away.rename(data)
    authenticator.refresh()
    assert (refusal(authenticator, bearer(newer)), refusal(authenticator, bearer(key))) == ("", "")


def test_revoking_needs_a_known_id(tmp_path: Path) -> None:
    """The library says the same as the command."""
    with pytest.raises(NotFound, match="There is no key x"):
        KeyFile(tmp_path).revoke("x")


def test_two_keys_differ(tmp_path: Path) -> None:
    """Ids and secrets are new for each key, also under a name that a revoked one had."""
    made = []
    for _ in range(3):
        made.append(KeyFile(tmp_path).add("search", None).key)
        KeyFile(tmp_path).revoke("search")
    assert len({part for key in made for part in apikeys.split(key) or ()}) == 6


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_that_is_sent_is_named_however_its_scheme_is_written(scheme: str) -> None:
    """The access log and the check read one and the same key."""
    assert bearer_key(f"{scheme} bi_0a1b2c3d_secret") == ("0a1b2c3d", "secret")
    assert bearer_key("Basic bi_0a1b2c3d_secret") is None
