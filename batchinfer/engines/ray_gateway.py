"""The process that is the driver of a Ray cluster: it places actors there, and hands messages through. Only here is Ray used.

A process of its own, since Ray ends the process of a driver that loses its cluster, and prints, and handles signals.

Started as `python -m batchinfer.engines.ray_gateway FD`, FD being its end of a pipe.

Messages to it:   ("connect", (address, folder)) first, ("nodes", None), ("launch", Launching) followed by the handle of a pipe,
                  ("stop", None)
Messages from it: ("nodes", [Node]) once it is connected and when asked, ("failed", sentence)

What comes from and goes to an engine passes through the pipe that came with its launch, as `child.py` has it, and besides:
("placed", name of a node) first, ("ended", what) from an engine that died, ("lost", what) where its actor is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import secrets
import socket
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError, RayTaskError, RuntimeEnvSetupError

from batchinfer.engines.ray import Launching, Node
from batchinfer.engines.ray_host import LAST_WORDS, EngineHost
from batchinfer.errors import shortened
from batchinfer.job.engine_spec import fault_of_cluster

END_SECONDS = 2.0  # for an engine to end
REACH_SECONDS = 5.0  # for a connection to the head
STORE_BYTES = 100 << 20  # of a cluster of this machine alone: messages pass there, and no data


GatewayInbox = queue.SimpleQueue[tuple[str, Any, int | None]]


class NotConnectedError(Exception):
    """There is no cluster at the address that this process can use. Its text is a sentence."""


def main(control: Connection) -> None:
    """Connects, and then does what it is told until nobody is there any more."""
    os.chdir("/")  # Ray has workers look for code where a driver's working directory is, first of all
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")  # what passes is pickled records
    _, (address, folder) = control.recv()
    inbox: GatewayInbox = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(control, inbox), daemon=True).start()
    try:
        connect(address, _settings(folder))
    except NotConnectedError as exc:
        control.send(("failed", str(exc)))
        return
    with contextlib.suppress(OSError):
        control.send(("nodes", nodes()))
        _serve(control, inbox)
    ray.shutdown()


def _receive(control: Connection, inbox: GatewayInbox) -> None:
    """Empties the pipe. While Ray connects nothing else would notice that the run is gone."""
    try:
        while True:
            kind, content = control.recv()
            inbox.put((kind, content, recv_handle(control) if kind == "launch" else None))
    except (EOFError, OSError):
        if not ray.is_initialized():
            os._exit(1)
        inbox.put(("stop", None, None))


def _serve(control: Connection, inbox: GatewayInbox) -> None:
    relays = list[Relay]()
    while True:
        kind, content, handle = inbox.get()
        if kind == "stop":
            for relay in relays:
                relay.wait()
            return
        if handle is not None:
            relays.append(Relay(content, Connection(handle)))
            relays[-1].start()
        else:
            control.send(("nodes", nodes()))


def _settings(folder: str | None) -> dict[str, Any]:
    """Those of a cluster of this machine alone, whose files lie in a folder; none for one that is there."""
    if folder is None:
        return {}
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # or Ray would make one, and leave it in the home
    return {"include_dashboard": False, "object_store_memory": STORE_BYTES, "_temp_dir": folder}


def connect(address: str, settings: Mapping[str, Any]) -> None:
    """Connects this process with a cluster. settings: of one that is started. Raises NotConnectedError."""
    at = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
    if at != address and fault_of_cluster(at, known=("auto",)):
        said = f"The variable RAY_ADDRESS, which address: auto goes by, is {shortened(at)}: set it to host:port of the head, or unset it."
        raise NotConnectedError(said)
    if ":" in at:
        _reach(at)
    # The code goes along, so that an engine speaks as this process does, whatever is installed on the nodes.
    code = {"py_modules": [str(Path(__file__).resolve().parents[1])], "excludes": ["**/__pycache__"]}
    try:
        ray.init(address=at, runtime_env=code, log_to_driver=False, logging_level=logging.WARNING, **settings)
    except ConnectionError as exc:
        raise NotConnectedError(_refused(at) if ":" in at else _nobody(at)) from exc
    except AuthenticationError as exc:
        raise NotConnectedError(_refused(at)) from exc
    except Exception as exc:  # whatever Ray says when it cannot: its errors share no base
        raise NotConnectedError(_unfit(at, str(exc))) from exc


def _reach(address: str) -> None:
    """Raises NotConnectedError where nobody listens: Ray itself would try for a long time."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError, ValueError) as exc:
        raise NotConnectedError(_nobody(address)) from exc


def _nobody(address: str) -> str:
    if address == "auto":
        return (
            "There is no Ray cluster on this machine: start or join one with ray start, or say engine.address: local."
        )
    return (
        f"There is no Ray cluster at {address}: correct the address, or start the cluster there with ray start --head."
    )


def _refused(address: str) -> str:
    """Why Ray could not connect where somebody listens; it says no more than that."""
    return (
        f"The Ray cluster at {address} does not let this machine in, if it is one: where it asks for a token, set RAY_AUTH_MODE=token "
        "and RAY_AUTH_TOKEN to that."
    )


def _unfit(address: str, said: str) -> str:
    """Why Ray refused a cluster that is there."""
    if "ersion mismatch" in said:
        versions = re.findall(r"(?:Ray|Python): ?([\w.+]+)", said)
        there, here = versions[:2], versions[2:4]
        if len(here) == 2:  # noqa: PLR2004 - Ray and Python
            return (
                f"The Ray cluster at {address} has Ray {there[0]} on Python {there[1]}, and this machine Ray {here[0]} on Python "
                f"{here[1]}: both must be the same, Python but for its last number."
            )
    if "raylet" in said.lower():
        return (
            f"The Ray cluster at {address} has no node on this machine: run the job on one that it has, or join it here with "
            f"ray start --address={address} --num-cpus=0."
        )
    return f"Ray refused the cluster at {address}: {_first_line(said)}"


def _first_line(said: str) -> str:
    """The first line of what Ray says that has a word in it."""
    lines = (line.strip() for line in said.splitlines())
    return next((line for line in lines if line), "no message")[:400]


def nodes() -> list[Node]:
    """The nodes that are alive."""
    return [
        Node(node["NodeName"], int(node["Resources"].get("GPU", 0)), int(node["Resources"].get("CPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    ]


class Relay:
    """Between the run's pipe and an actor, which it makes: three threads, so that neither side waits for the other."""

    def __init__(self, launching: Launching, pipe: Connection) -> None:
        wanted = launching.wanted
        self._launching, self._pipe = launching, pipe
        self._outbox = queue.SimpleQueue[tuple[str, Any] | None]()
        self._actor = (
            ray.remote(EngineHost)
            .options(
                num_gpus=len(wanted.gpus), num_cpus=len(wanted.cores), max_restarts=0, max_concurrency=3,
                scheduling_strategy="SPREAD",
            )
            .remote()
        )  # fmt: skip
        self._node, self._is_over, self._ended = "", False, threading.Event()

    def start(self) -> None:
        """Begins. It ends when the run closes its end of the pipe, or the actor is gone."""
        for work in (self._read, self._forward, self._return):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        """Takes from the pipe; a pipe that is closed is the end of the actor, also of one that has no place yet."""
        try:
            while True:
                self._outbox.put(self._pipe.recv())
        except (EOFError, OSError):
            self._outbox.put(None)
            self._end()

    def _end(self) -> None:
        """Ends the engine on its node, then the actor, or what waits for a place."""
        if self._node:
            with contextlib.suppress(RayError):
                ray.get(self._actor.end.remote(), timeout=END_SECONDS)
        ray.kill(self._actor)
        self._ended.set()

    def wait(self) -> None:
        """Until it has ended, which takes moments once the run closed its end of the pipe."""
        self._ended.wait(2 * END_SECONDS)

    def _forward(self) -> None:
        """One after the other, since Ray keeps no order among calls of an actor that takes two at a time."""
        while (message := self._outbox.get()) is not None:
            try:
                ray.get(self._actor.send.remote(*message))
            except RayError:  # who receives says so
                return

    def _return(self) -> None:
        """Says what comes from the actor, to its last word."""
        with contextlib.suppress(OSError):  # nobody wants to know any more
            try:
                self._load()
                while not self._is_over:
                    for kind, content in ray.get(self._actor.receive.remote()):
                        self._tell(kind, content)
            except Exception as exc:
                if isinstance(exc, OSError) and not isinstance(exc, RayError):
                    raise
                cause = _cause(exc)  # also of what Ray raises while its head starts again
                if isinstance(exc, RuntimeEnvSetupError | RayTaskError) or getattr(exc, "actor_init_failed", False):
                    self._pipe.send(("failed", f"The nodes cannot run what the job needs: {cause}."))
                else:
                    where = f"on the node {self._node} " if self._node else ""
                    self._pipe.send(("lost", f"{where}was lost ({cause})"))

    def _tell(self, kind: str, content: Any) -> None:
        """Passes a message on; what is for people with the name of the node."""
        if kind == "printed":
            print(f"On the node {self._node}, the engine printed:\n{content}", flush=True)  # noqa: T201 - it is the log
            return
        self._is_over = kind in LAST_WORDS
        if self._is_over:
            content = (
                f"On the node {self._node}: {content}" if kind == "failed" else f"on the node {self._node} {content}"
            )
        self._pipe.send((kind, content))

    def _load(self) -> None:
        launching = self._launching
        loading = self._actor.load.remote(launching.driver, launching.config, launching.wanted, launching.digests)
        node_id = ray.get(loading)
        self._node = next((node["NodeName"] for node in ray.nodes() if node["NodeID"] == node_id), node_id)
        self._pipe.send(("placed", self._node))


def _cause(exc: Exception) -> str:
    """Why Ray raised it: the first sentence of the last line that is no list of ids."""
    lines = [line for line in str(exc).splitlines() if line.strip() and not line.startswith("\t")]
    return (lines or ["no message"])[-1].strip().partition(". ")[0].rstrip(".")[:400]


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
