"""Engine processes on the nodes of a Ray cluster, as the pool sees them.

run: EnginePool ── a pipe for each engine ── ray_gateway ══ Ray ══ ray_host (an actor) ── child (the engine process)

An engine that has no place yet is one that is not ready: a cluster may still have to start a machine for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchinfer.core.records import Info
from batchinfer.engines.devices import PATIENCE_SECONDS, Gpu, Placement
from batchinfer.engines.digests import folder_digest
from batchinfer.engines.process import EngineEnded, EngineLost, Inbox, LocalProcess, start_beside
from batchinfer.engines.protocol import EngineConfig
from batchinfer.errors import Busy, CutShort, MissingExtra, UsageError, counted
from batchinfer.job.engine_spec import LOCAL, RaySpec

GATEWAY = "batchinfer.engines.ray_gateway"
LOOKING_SECONDS = 2.0  # between two looks at the nodes
SILENT_SECONDS = 5.0  # a wait that is shorter is not worth a word
LISTEN_SECONDS = 0.1
CONNECT_SECONDS = 120.0
CLOSE_SECONDS = 20.0  # for a cluster of this machine alone to end
LONGEST_FOLDER = 24  # bytes
ANSWER_SECONDS = 60.0  # for the gateway to answer
UNKNOWN_GPU = Gpu("", "", "GPU", 0)  # of a cluster: which one it is, the node knows


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster.

    name: what Ray calls it.
    gpus, cpus: what Ray counts there, used or not.
    """

    name: str
    gpus: int
    cpus: int

    def room_for(self, placement: Placement) -> int:
        """How many engines there could be, if nobody else were."""
        if placement.is_cpu:
            return self.cpus // len(placement.cores)
        return self.gpus // len(placement.gpus)


@dataclass(frozen=True, slots=True)
class Launching:
    """An engine that is to be started on some node.

    driver: module:class of what runs in it.
    config: what it loads.
    wanted: how many GPUs or cores.
    digests: of the folders that must lie on that node as they do here.
    """

    driver: str
    config: EngineConfig
    wanted: Placement
    digests: Mapping[str, str]


class RayProcess:
    """An `EngineProcess` on some node."""

    def __init__(self, pipe: Connection, lost: Callable[[], CutShort]) -> None:
        """lost: the error for a cluster that is gone as a whole."""
        self.pipe, self._lost, self._inbox = pipe, lost, Inbox(pipe)
        self.ready = self._inbox.bell
        self.node: str | None = None

    def send(self, kind: str, content: Any = None) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send((kind, content))

    def receive(self) -> tuple[str, Any]:
        try:
            kind, content = self._inbox.next()
        except (EOFError, OSError) as exc:
            raise self._lost() from exc
        if kind == "placed":
            self.node = content
        if kind == "ended":
            raise EngineEnded(content)
        if kind == "lost":
            raise EngineLost(content)
        return kind, content

    def wait(self) -> None:
        """Not at all: its actor is ended with it."""

    def kill(self) -> None:
        self._inbox.close()
        self.pipe.close()


class RayCluster:
    """A connection with a cluster. A context manager: leaving it ends all that was started there.

    nodes: those that were alive when it last looked.
    launched: by the monotonic clock, when an engine was started last.
    """

    nodes: Sequence[Node]

    def __init__(self, address: str, log: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
        """log: file for what the engines and Ray print. meanwhile: called while it connects; what it raises ends that."""
        self._address, self._log, self._meanwhile = address, log, meanwhile
        self._processes: list[RayProcess] = []
        self._digests: dict[str, str] = {}  # of folders, as they were when the first engine was started
        self._folder: str | None = None  # of the files of a cluster of this machine alone
        self.launched = time.monotonic()

    def __enter__(self) -> Self:
        if importlib.util.find_spec("ray") is None:
            raise MissingExtra("Ray", "ray")
        self._gateway: LocalProcess = start_beside(GATEWAY, self._log)
        if self._address == LOCAL:
            self._folder = tempfile.mkdtemp(prefix="ray-", dir=_short_folder())
        self._gateway.send("connect", (self._address, self._folder))
        try:
            self.nodes = self._connected()
        except BaseException:
            self._end()
            raise
        return self

    def _connected(self) -> Sequence[Node]:
        """Waits until the gateway is connected; the nodes there."""
        end = time.monotonic() + CONNECT_SECONDS
        while not self._gateway.pipe.poll(LISTEN_SECONDS):
            self._meanwhile()
            if time.monotonic() > end:
                said = f"There is no Ray cluster at {self._address}: what listens there said nothing within {CONNECT_SECONDS:g} s."
                raise UsageError(said, field=("engine", "address"))
        try:
            return self._answer()
        except CutShort as exc:
            last = (self._log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
            said = f"The Ray cluster at {self._address} was lost at once; the last that Ray printed: {last}"
            raise UsageError(said, field=("engine", "address")) from exc

    def _answer(self) -> Sequence[Node]:
        """The nodes that are alive, as the gateway says. Raises UsageError if it says that it could not connect."""
        try:
            if not self._gateway.pipe.poll(ANSWER_SECONDS):
                raise self.lost()
            kind, content = self._gateway.receive()
        except EngineEnded as exc:
            raise self.lost() from exc
        if kind == "failed":
            raise UsageError(content, field=("engine", "address"))
        nodes: Sequence[Node] = content
        return nodes

    def look(self) -> None:
        """Asks again which nodes there are. Raises CutShort if the cluster is gone."""
        self._gateway.send("nodes")
        self.nodes = self._answer()

    def lost(self) -> CutShort:
        """The error for a cluster that does not answer any more."""
        return CutShort(
            f"The Ray cluster at {self._address} is lost. What Ray printed is in {self._log}; run the job again to resume."
        )

    def launch(self, driver: str, config: EngineConfig, placement: Placement, _log: Path) -> RayProcess:
        """`process.Launch` on whichever node has room, once one has."""
        ours, theirs = multiprocessing.Pipe()
        folders = [folder for folder in (config.model, config.adapter) if folder is not None and Path(folder).is_dir()]
        for folder in folders:
            self._digests.setdefault(folder, folder_digest(Path(folder)))
        self._gateway.send("launch", Launching(driver, config, placement, self._digests))
        with contextlib.suppress(OSError):  # it is gone: receiving says so
            send_handle(self._gateway.pipe, theirs.fileno(), self._gateway.process.pid)
        theirs.close()
        self.launched = time.monotonic()
        self._processes = [process for process in self._processes if not process.pipe.closed]
        self._processes.append(RayProcess(ours, self.lost))
        return self._processes[-1]

    @property
    def has_placed(self) -> bool:
        """Whether any engine has a node."""
        return any(process.node is not None and not process.pipe.closed for process in self._processes)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gateway.send("stop")
        end = time.monotonic() + CLOSE_SECONDS
        while self._gateway.wait() is None and time.monotonic() < end:
            pass
        self._end()

    def _end(self) -> None:
        self._gateway.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class ClusterRoom:
    """Where a job's engines go on a cluster, and the wait until one of them has a place.

    places: of each engine, the number of devices alone.
    is_none: whether no node has room for an engine, were it all free.
    """

    def __init__(self, spec: RaySpec, cluster: RayCluster, info: Info) -> None:
        self._spec, self._cluster, self._info = spec, cluster, info
        cores = tuple(range(spec.cpus or 0))
        wanted = Placement(gpus=() if cores else (UNKNOWN_GPU,) * spec.tensor_parallel, cores=cores)
        room = sum(node.room_for(wanted) for node in cluster.nodes)
        self.is_none = room == 0
        self.places = [wanted] * (max(1, room) if spec.replicas == "auto" else spec.replicas)
        self._looked = self._told = 0.0
        wish = counted(len(self.places), "engine")
        info(f"Ray: {counted(len(cluster.nodes), 'node')}, with room for {min(room, len(self.places))} of {wish}.")

    @property
    def _needs(self) -> str:
        """What one engine needs, in words."""
        return counted(self._spec.cpus, "CPU") if self._spec.cpus else counted(self._spec.tensor_parallel, "GPU")

    def wait(self) -> None:
        """To be called while no engine is loaded. Raises UsageError or Busy once none will have a place."""
        now = time.monotonic()
        if self._cluster.has_placed or now < self._looked + LOOKING_SECONDS:
            return
        self._cluster.look()
        self._looked, waited = now, now - self._cluster.launched
        fits = any(node.room_for(self.places[0]) for node in self._cluster.nodes)
        if not fits and waited > self._spec.wait.total_seconds():
            raise self.too_small()
        if waited > PATIENCE_SECONDS:
            raise Busy(
                f"All nodes of the Ray cluster with {self._needs} are in use: wait until others are done, then try again."
            )
        if self._told < self._cluster.launched and waited > SILENT_SECONDS:
            self._told = now
            what = "are in use" if fits else "are not there yet"
            self._info(f"Waiting for the Ray cluster: nodes with {self._needs} {what} ...")

    def too_small(self) -> UsageError:
        """The error for a cluster on which no engine has room."""
        nodes, field = self._cluster.nodes, "cpus" if self._spec.cpus else "tensor_parallel"
        most = max((node.cpus if self._spec.cpus else node.gpus for node in nodes), default=0)
        fix = (
            "set engine.cpus, and engines run on CPUs, or add nodes with GPUs."
            if most == 0 and not self._spec.cpus
            else f"lower engine.{field}, or add larger nodes."
        )
        said = f"The Ray cluster has no node with the {self._needs} of an engine; the largest of {counted(len(nodes), 'node')} has {most}"
        return UsageError(said, fix=fix, field=("engine", field))


def tell_room(spec: RaySpec, info: Info) -> bool:
    """Connects with a job's cluster and says what room there is, starting no engine; False where none has any.

    Raises UsageError where a run would at once.
    """
    with tempfile.TemporaryDirectory() as folder, RayCluster(spec.address, Path(folder) / "log") as cluster:
        room = ClusterRoom(spec, cluster, info)
    if room.is_none:
        info(f"{room.too_small()} A run would wait for {spec.wait} for a node to join.")
    return not room.is_none


def _short_folder() -> str:
    """Where the sockets of a cluster may lie: their whole paths must have fewer than 108 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= LONGEST_FOLDER else "/tmp"  # noqa: S108 - what mkdtemp makes there is safe
