"""Whether a running service requires API keys: explicit, said at the start, and never less before a restart."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from pathlib import Path

import pytest

from batchinfer.serve.apikeys import KeyFile
from batchinfer.serve.auth import LOOK_SECONDS, Authenticator, Latch
from batchinfer.serve.problems import Problem
from tests.serving import Server, eventually, serving
from tests.tiny import Cli


def status(server: Server, key: str | None = None) -> int:
    """What a client with this key, or without one, gets."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return server.request("GET", "/v1/jobs", headers=headers).status


@pytest.mark.long
def test_keys_are_required_until_a_restart(tmp_path: Path) -> None:
    """A worker that is started again after the key file was removed lets nobody in; a restarted service begins again."""
    data = tmp_path / "home"
    data.mkdir()
    with serving(data, tmp_path / "server") as server:
        assert (
            "No API key is required as long as there is none: batchinfer keys add NAME makes the first." in server.log
        )
        key = KeyFile(data).add("search", None).key
        eventually(lambda: status(server) == 401, seconds=5)  # the main process may not have looked yet
        (data / "api-keys.json").unlink()
        [worker] = server.children()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: server.children() not in ([], [worker]) and server._status("/readyz") == 200)
        assert {status(server, given) for given in (None, key)} == {401}
        server.stop()
        server.start()
        assert status(server) == 200


def test_what_one_process_saw_holds_for_all(tmp_path: Path) -> None:
    """A key that was there for a moment, so that one worker alone saw it, closes the latch of the main process and of each worker."""
    latch, file = Latch(), KeyFile(tmp_path)
    latch.share(tmp_path)
    saw, slow = (Authenticator(tmp_path, pickle.loads(pickle.dumps(latch))) for _ in range(2))  # noqa: S301 - as workers get it
    key = file.add("search", None).key
    saw.refresh()
    file.path.unlink()
    for each in (slow, Authenticator(tmp_path, pickle.loads(pickle.dumps(latch)))):  # noqa: S301
        each.refresh()
        for sent in (None, f"Bearer {key}"):
            with pytest.raises(Problem, match=r"API key|Authorization"):
                each.check(sent, "shop")
    latch.look(file)
    assert latch.closed
    never = Latch(never=True)
    never.share(tmp_path)
    never.look(file)
    assert not never.closed


def test_a_copy_with_the_same_time_and_size_is_read(tmp_path: Path) -> None:
    """Keys that were put back in place with the time of the file before are other keys."""
    latch, file = Latch(), KeyFile(tmp_path)
    key = file.add("search", None)
    door = Authenticator(tmp_path, latch)
    door.refresh()
    before = file.path.stat()
    other = file.path.read_bytes().replace(key.record.sha256.encode(), b"0" * 64)
    with file.path.open("r+b") as same_file:
        same_file.write(other)
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    door.refresh()
    with pytest.raises(Problem, match="API key"):
        door.check(f"Bearer {key.key}", "shop")


@pytest.mark.parametrize(
    ("options", "said", "expected"),
    [
        (["--require-keys"], "API keys are required, and there is none: nobody can ask until batchinfer keys add", 401),
        (["--no-auth"], "No API key is required (--no-auth).", 200),
    ],
)
@pytest.mark.long
def test_what_holds_of_keys_is_explicit(tmp_path: Path, options: list[str], said: str, expected: int) -> None:
    """--require-keys asks for keys before there is one, --no-auth never does; both are said at the start, with --json as a value."""
    data = tmp_path / "home"
    data.mkdir()
    with serving(data, tmp_path / "server", *options, "--json") as server:
        assert said in server.log
        assert status(server) == expected
        KeyFile(data).add("search", None)
        time.sleep(2 * LOOK_SECONDS)
        assert status(server) == expected
        started = json.loads(server.out)
    keys = "always" if expected == 401 else "never"
    assert started == {"url": server.url, "data": str(data), "workers": 1, "keys": keys}


@pytest.mark.long
def test_a_key_file_that_cannot_be_read_is_told_at_the_start(tmp_path: Path) -> None:
    """It is not said that there is no key: `batchinfer keys add` would refuse to make one."""
    data = tmp_path / "home"
    data.mkdir()
    (data / "api-keys.json").write_text("{")
    with serving(data, tmp_path / "server") as server:
        assert "API keys are required, and their file cannot be read: nobody can ask until it can" in server.log
        assert status(server) == 401


@pytest.mark.parametrize("options", [["--require-keys", "--no-auth"], ["--json", "--access-log"]])
def test_options_that_contradict_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """Of two that cannot both hold, neither is guessed."""
    done = Cli(monkeypatch, capsys, tmp_path / "home")("serve", *options)
    assert (done.code, "give one of them." in done.sentence) == (2, True)
