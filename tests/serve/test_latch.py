"""Whether a running service requires API keys: explicit, said at the start, and never less before a restart."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from batchinfer.serve.apikeys import KeyFile
from batchinfer.serve.auth import LOOK_SECONDS
from tests.serving import Server, eventually, serving
from tests.tiny import Cli


def status(server: Server, key: str | None = None) -> int:
    """What a client with this key, or without one, gets."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return server.request("GET", "/v1/jobs", headers=headers).status


@pytest.mark.long
def test_keys_are_required_until_a_restart(tmp_path: Path) -> None:
    """A worker that is started again after the key file was removed lets nobody in; a restarted service begins anew."""
    data = tmp_path / "home"
    data.mkdir()
    with serving(data, tmp_path / "server") as server:
        assert (
            "No API key is required as long as there is none: batchinfer keys add NAME makes the first." in server.log
        )
        key = KeyFile(data).add("search", None).key
        eventually(lambda: status(server) == 401, seconds=5)
        time.sleep(2 * LOOK_SECONDS)  # the main process looks as often
        (data / "api-keys.json").unlink()
        [worker] = server.children()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: server.children() not in ([], [worker]) and server._status("/readyz") == 200)
        assert {status(server, given) for given in (None, key)} == {401}
        server.stop()
        server.start()
        assert status(server) == 200


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


@pytest.mark.parametrize("options", [["--require-keys", "--no-auth"], ["--json", "--access-log"]])
def test_options_that_contradict_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """Of two that cannot both hold, neither is guessed."""
    done = Cli(monkeypatch, capsys, tmp_path / "home")("serve", *options)
    assert (done.code, "give one of them." in done.sentence) == (2, True)
