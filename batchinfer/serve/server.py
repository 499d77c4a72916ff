"""Starts the service: granian with worker processes, and beside them the collector of misses and who looks after alerts."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from batchinfer.alerts.watcher import start_watcher, watching_alerts
from batchinfer.core.companion import Companion
from batchinfer.core.http_limits import MAX_CONNECTIONS
from batchinfer.errors import UsageError
from batchinfer.misses import collector
from batchinfer.serve.app import Settings
from batchinfer.serve.auth import Latch, watching
from batchinfer.serve.pulses import Pulses
from batchinfer.serve.rsgi import RsgiApp
from batchinfer.serve.supervisor import WorkerSupervisor

HEADER_BYTES = 32 << 10  # of a request's line and headers together
HEADER_SECONDS = 10
BACKLOG = 4096  # connections that wait in the system's queue, if the system allows as many
SERVICE_STOP_SECONDS = 15  # for what is in flight when the service is stopped
LAST_ROUND_SECONDS = 4  # after that, for the collector to take in what the workers left

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s [%(process)d] %(message)s"}},
    "handlers": {"stderr": {"class": "batchinfer.core.outlet.OutletHandler", "formatter": "line"}},
    "loggers": {
        "batchinfer": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "_granian": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}


@dataclass(frozen=True, slots=True)
class Started:
    """A service that begins to serve.

    url: where.
    data: the data folder.
    workers: how many processes.
    keys: whether API keys are required: always, never, or once there is one.
    """

    url: str
    data: Path
    workers: int
    keys: Literal["always", "never", "once there is one"]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def serve(data: Path, host: str, port: int, *, workers: int, latch: Latch, misses: bool, access_log: bool,
          tell: Callable[[Started], None]) -> None:  # fmt: skip
    """Serves until SIGINT or SIGTERM. latch: whether API keys are required. Raises UsageError for an address that cannot be had."""
    _try_address(host, port)
    _allow_connections()
    with tempfile.TemporaryDirectory(prefix="batchinfer-serve-") as folder:
        settings = Settings(
            data,
            Path(folder),
            latch=latch,
            records_misses=misses,
            access_log=access_log,
        )
        settings.make_folders()
        latch.share(settings.run_folder)
        server = _supervisor(settings, host, port, workers)
        with watching(latch, data), _collecting(settings, port), watching_alerts(partial(start_watcher, data)):
            tell(Started(f"http://{_shown(host)}:{port}", data, workers, _keys(latch)))
            server.serve(target_loader=partial(_load, settings, server.pulses))


def _keys(latch: Latch) -> Literal["always", "never", "once there is one"]:
    if latch.never:
        return "never"
    return "always" if latch.closed else "once there is one"


def _supervisor(settings: Settings, host: str, port: int, workers: int) -> WorkerSupervisor:
    return WorkerSupervisor(
        "batchinfer.serve.rsgi",
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        workers=workers,
        http=HTTPModes.http1,
        websockets=False,
        backpressure=MAX_CONNECTIONS,
        backlog=BACKLOG,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000, max_buffer_size=HEADER_BYTES),
        log_dictconfig=LOGGING,
        respawn_failed_workers=True,
        respawn_interval=0.5,  # between two workers, when SIGHUP starts all of them again
        workers_kill_timeout=SERVICE_STOP_SECONDS,
        process_name="batchinfer serve",
        run_folder=settings.run_folder,
    )


@contextlib.contextmanager
def _collecting(settings: Settings, port: int) -> Iterator[None]:
    """The collector of misses, where they are recorded, runs beside the workers, and a little longer."""
    start = partial(collector.start, settings.data, settings.spool_folder, settings.metrics_folder, str(port))
    companion = Companion(start, "The collector of misses") if settings.records_misses else None
    try:
        yield
    finally:
        if companion is not None:
            companion.stop(LAST_ROUND_SECONDS, again=True)


def _load(settings: Settings, pulses: Pulses, _target: str) -> Any:
    """Runs in each worker: nothing of a version may be open before it is a process of its own."""
    return RsgiApp(settings, pulses)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _try_address(host: str, port: int) -> None:
    """Raises UsageError where nothing can listen: each worker would only report it for itself."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as exc:  # some texts cannot even be encoded as a host name
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            raise UsageError(f"Port {port} is already in use", fix="choose another with --port.") from exc
        why = exc.strerror if isinstance(exc, OSError) else "it is not a host name"
        raise UsageError(f"Nothing can listen on {host}:{port}: {why}. Choose another --host or --port.") from exc


def _allow_connections() -> None:
    """Each connection is an open file, of which many systems allow a process a thousand until it asks for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
