"""Where the service listens, and to whom: addresses, ports, API keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchinfer.serve.apikeys import KeyFile
from tests.factories import LENIENT, imports_job
from tests.serving import Reply, Server, eventually, moved, serving
from tests.tiny import Cli


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two jobs that has no API keys yet."""
    root = tmp_path_factory.mktemp("guarded")
    for name in ("shop", "shoes"):
        world = imports_job(root / name, {"id": ["a"]}, name=name, gate=LENIENT)
        world.take_in({"id": ["a"], "prediction": ["x"]})
        world.publish()
        moved(world, root / "home")
    with serving(root / "home", root / "server") as server:
        yield server


OPEN = ("/livez", "/readyz", "/docs", "/openapi.json")
CLOSED = (
    "/v1/jobs",
    "/v1/jobs/shop",
    "/v1/jobs/shop/lookup?id=a",
    "/v1/jobs/nosuch/lookup?id=a",
    "/v1/jobs/nosuch",
    "/metrics",
)


def with_key(server: Server, path: str, key: str | None) -> Reply:
    """What a client with this key gets."""
    return server.request("GET", path, headers={} if key is None else {"authorization": f"Bearer {key}"})


def test_keys_are_asked_for_from_the_first_on(guarded: Server) -> None:
    """A running service picks up the first key, a limited one, and a revocation, each within a second or so."""
    file = KeyFile(guarded.data)
    assert guarded.lookup("shop", id="a").status == 200
    made = file.add("search", None)
    record, key = made.record, made.key
    eventually(lambda: guarded.lookup("shop", id="a").status == 401, seconds=5)
    for path in CLOSED:
        refused = with_key(guarded, path, None)
        assert refused.problem[:2] == (401, "no-key")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert with_key(guarded, path, key[:-1] + ("a" if key[-1] != "a" else "b")).problem[:2] == (401, "no-key")
        assert with_key(guarded, path, key).status == (404 if "nosuch" in path else 200)
    for path in OPEN:
        assert with_key(guarded, path, None).status == 200
    assert guarded.batch("shop", [{"id": "a"}]).problem[:2] == (401, "no-key")
    assert guarded.batch("shop", [{"id": "a"}], authorization=f"Bearer {key}").status == 200
    assert guarded.request("HEAD", "/v1/jobs/shop/lookup?id=a").status == 401

    limited = file.add("shoe shelf", ["shoes"]).key
    eventually(lambda: with_key(guarded, "/v1/jobs/shoes/lookup?id=a", limited).status == 200, seconds=5)
    for path in ("/v1/jobs/shop", "/v1/jobs/shop/lookup?id=a", "/v1/jobs/nosuch", "/metrics"):
        assert with_key(guarded, path, limited).problem[:2] == (403, "forbidden")
    assert guarded.batch("shop", [{"id": "a"}], authorization=f"Bearer {limited}").problem[:2] == (403, "forbidden")
    assert [job["job"] for job in with_key(guarded, "/v1/jobs", limited).json["jobs"]] == ["shoes"]

    file.revoke(record.id)
    eventually(lambda: with_key(guarded, "/v1/jobs/shop", key).status == 401, seconds=5)
    assert with_key(guarded, "/v1/jobs/shoes", limited).status == 200

    good = file.path.read_bytes()
    file.path.write_bytes(b"{")
    eventually(lambda: "is damaged" in guarded.log, seconds=5)
    assert guarded.lookup("shoes", id="a").status == 401
    assert with_key(guarded, "/v1/jobs/shoes/lookup?id=a", limited).status == 200
    file.path.write_bytes(good)


def test_another_address_wants_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a key, serve refuses to listen where others can reach it, with exit code 2."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    batchinfer.data.mkdir()
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org"):  # noqa: S104
        done = batchinfer("serve", "--host", host)
        assert done.code == 2
        assert done.sentence == (
            f"{host} can be reached by others, and there are no API keys: make one with batchinfer keys add, "
            "or pass --no-auth if something else keeps strangers out."
        )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--host", "192.0.2.1", "--no-auth"], 2, "Nothing can listen on 192.0.2.1:8080: "),
        (["--host", "a" * 100, "--no-auth"], 2, f"Nothing can listen on {'a' * 100}:8080: it is not a host name."),
        (["--host", "no.such.host.invalid", "--no-auth"], 2, "Nothing can listen on no.such.host.invalid:8080: "),
    ],
)
def test_an_address_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int,
    sentence: str,
) -> None:  # fmt: skip
    """An address of another machine, or none at all, is one sentence and exit code 2."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    batchinfer.data.mkdir()
    done = batchinfer("serve", *arguments)
    assert done.code == code
    assert done.sentence.startswith(sentence)


def test_a_port_that_is_taken(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second service on the same port says so instead of sharing it."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    batchinfer.data.mkdir()
    done = batchinfer("serve", "--port", guarded.port)
    assert done.code == 2
    assert done.sentence == f"Port {guarded.port} is already in use: choose another with --port."


@pytest.mark.long
def test_no_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A data folder that there is not is one sentence, and exit code 6."""
    done = Cli(monkeypatch, capsys, tmp_path / "home")("serve")
    assert (done.code, done.sentence) == (
        6, f"There is no data folder {tmp_path / 'home'}: batchinfer run makes it, or choose another with --home.",
    )  # fmt: skip


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.long
def test_on_another_address(tmp_path: Path, with_keys: bool) -> None:
    """On all addresses, --no-auth lets everybody in, and otherwise nobody comes in without a key."""
    data = tmp_path / "home"
    data.mkdir()
    key = KeyFile(data).add("search", None).key if with_keys else None
    options = ("--host", "0.0.0.0", *([] if with_keys else ["--no-auth"]))  # noqa: S104
    with serving(data, tmp_path / "server", *options) as server:
        assert with_key(server, "/v1/jobs", None).status == (401 if with_keys else 200)
        assert with_key(server, "/v1/jobs", key).json == {"jobs": []}
        assert server.stop() == 0
