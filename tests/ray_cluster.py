"""Real Ray clusters on this machine's loopback, for tests: a head, and further nodes that can be removed."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from tests.tiny import PATIENCE, until

ROOT = Path(__file__).resolve().parents[1]
STORE_BYTES = 80 << 20  # about the least that Ray takes


class TestCluster:
    """A cluster whose nodes are processes below this one. `nodes`: those that were started and not removed, by name."""

    __test__ = False

    def __init__(self, folder: Path, *, without_vllm: bool) -> None:
        """folder: with a short path, since sockets lie in it. without_vllm: nobody can import vLLM there."""
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        paths = [str(ROOT)]
        if without_vllm:
            hidden = folder / "hidden" / "vllm"
            hidden.mkdir(parents=True)
            text = "raise ModuleNotFoundError('there is no vLLM here', name='vllm')\n"
            (hidden / "__init__.py").write_text(text, encoding="utf-8")
            paths.insert(0, str(hidden.parent))
        # Ray starts workers ahead of any work, as many as CPUs for each run that connects. Engines need others.
        fewer = {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}
        self._environment = os.environ | fewer | {"PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def add(self, name: str, cpus: int) -> None:
        """Starts a node, the head first, and waits until it is up."""
        where = [f"--address={self.address}"]
        if not self.nodes:
            where = [
                "--head", f"--port={self.address.rpartition(':')[2]}", f"--temp-dir={self._folder}",
                "--include-dashboard=false",
            ]  # fmt: skip
        said = self._folder / f"{name}.said"
        with said.open("wb") as file:
            self.nodes[name] = subprocess.Popen(
                [
                    sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *where, "--block",
                    "--node-ip-address=127.0.0.1", f"--node-name={name}", f"--num-cpus={cpus}", "--num-gpus=0",
                    f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats",
                ],
                stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment, start_new_session=True,
            )  # fmt: skip
        until(lambda: b"Ray runtime started" in said.read_bytes() or self._fails(name, said))

    def _fails(self, name: str, said: Path) -> bool:
        assert self.nodes[name].poll() is None, said.read_text(errors="replace")
        return False

    def remove(self, name: str) -> None:
        """Ends a node at once, as a spot machine goes."""
        process = self.nodes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE / 4)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever is left below it


@contextlib.contextmanager
def ray_cluster(cpus: int = 2, *, without_vllm: bool = False) -> Iterator[TestCluster]:
    """A cluster of one node, head, with so many CPUs."""
    # Ray listens on all of the machine's addresses, so nobody else gets in.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with (
        mock.patch.dict(os.environ, token),
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder,
    ):
        cluster = TestCluster(Path(folder), without_vllm=without_vllm)
        try:
            cluster.add("head", cpus)
            yield cluster
        finally:
            for name in reversed(list(cluster.nodes)):
                cluster.remove(name)
