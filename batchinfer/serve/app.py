"""The service as an ASGI application: one per worker process. rsgi.py takes single look-ups past it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from batchinfer.core.http_limits import LOOKUPS_WAITING, MAX_URL
from batchinfer.core.open_file import DamagedFile
from batchinfer.core.outlet import STDERR, STDOUT
from batchinfer.errors import shortened
from batchinfer.serve import batch, docs_page, doorkeeper, match, openapi
from batchinfer.serve.auth import Authenticator, Latch
from batchinfer.serve.beside import Beside, repeat
from batchinfer.serve.body import Bodies, compressed, is_to_be_compressed
from batchinfer.serve.doorkeeper import Doorkeeper
from batchinfer.serve.lookup import LookupRoute, lookup_path
from batchinfer.serve.metrics import WorkerMetrics, exposition, write_metrics
from batchinfer.serve.problems import DAMAGED, SOON, Problem, Reply
from batchinfer.serve.registry import JobRegistry
from batchinfer.serve.sending import Sender
from batchinfer.serve.served_job import OpenVersion, ServedJob
from batchinfer.serve.worker_deaths import WorkerDeaths
from batchinfer.versions.follow import LOOK_SECONDS

log = logging.getLogger("batchinfer.serve")
WRITE_SECONDS = 1.0  # between two writings of a worker's numbers
SPOOL_SECONDS = 5.0  # between two writings of misses
FIRST_SECONDS = 5.0  # that a worker takes no connections for while it opens versions


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service was started.

    data: the data folder that is served.
    run_folder: of this server alone, for its workers' numbers, misses and word of versions that end them.
    latch: whether API keys are required.
    records_misses: whether what was asked for and not found is recorded.
    access_log: whether each request is logged on stdout.
    """

    data: Path
    run_folder: Path
    latch: Latch = field(default_factory=Latch)
    records_misses: bool = True
    access_log: bool = False

    @property
    def metrics_folder(self) -> Path:
        return self.run_folder / "metrics"

    @property
    def spool_folder(self) -> Path:
        return self.run_folder / "misses"

    def make_folders(self) -> None:
        """Before the first worker starts."""
        self.metrics_folder.mkdir()
        self.spool_folder.mkdir()


class Service:
    """One worker's service. Call `refresh` before the first request, or let `lifespan` do so in the background."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.worker_metrics = WorkerMetrics()
        self.authenticator = Authenticator(settings.data, settings.latch)
        self.registry = JobRegistry(
            settings.data,
            self._on_new_job,
            self._on_removed_job,
            records_misses=settings.records_misses,
            openings=settings.run_folder,
        )
        self._matches = Beside()
        self.lookups = Beside(waiting=LOOKUPS_WAITING, done="looked up")
        self._bodies, self.sender, self.doorkeeper = Bodies(), Sender(), Doorkeeper()
        self._lookup_routes: dict[str, LookupRoute] = {}
        self._starlette = Starlette(
            routes=[
                Route("/v1/jobs", self.jobs),
                Route("/v1/jobs/{job}", self.job),
                Route("/v1/jobs/{job}/lookup", self.lookup, methods=["GET", "POST"]),
                Route("/v1/jobs/{job}/match", self.match, methods=["GET", "POST"]),
                Route("/livez", self.livez),
                Route("/readyz", self.readyz),
                Route("/metrics", self.metrics),
                Route("/openapi.json", self.openapi),
                Route("/docs", self.docs),
            ],
            exception_handlers={
                Problem: _as_response,
                DamagedFile: _as_damaged,
                HTTPException: _as_problem,
                Exception: _as_broken,
            },
        )
        self._starlette.router.redirect_slashes = False

    def _on_new_job(self, job: ServedJob) -> None:
        route = LookupRoute(job, self.authenticator, self.worker_metrics)
        self._lookup_routes = self._lookup_routes | {route.path: route}

    def _on_removed_job(self, job: ServedJob) -> None:
        self._lookup_routes = {
            path: route for path, route in self._lookup_routes.items() if path != lookup_path(job.name)
        }
        self.worker_metrics.forget(job.name)

    def lookup_route(self, path: str) -> LookupRoute | None:
        """What answers single look-ups at a path, if it is that of a known job."""
        return self._lookup_routes.get(path)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers and counts."""
        began, status = time.perf_counter(), "500"

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            if len(scope["path"]) + len(scope["query_string"]) > MAX_URL:
                problem = Problem("long-url", f"The URL has more than {MAX_URL:,} bytes.")
                await _as_asgi(problem.answer())(scope, receive, noting)
                return
            await self._starlette(scope, receive, noting)
        except Exception:  # it was answered with 500 already
            log.exception("a request failed")
        finally:
            job, route = self._labels(scope["path"])
            self.worker_metrics.series[job, route, status].observe(time.perf_counter() - began)

    def _labels(self, path: str) -> tuple[str, str]:
        """(job, route) for the metrics. Names that clients made up must not become labels."""
        if path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
            return "", path[1:].removesuffix(".json")
        parts = path.split("/")
        known = parts[3] if len(parts) > 3 and parts[3] in self.registry.jobs else ""  # noqa: PLR2004 - /v1/jobs/NAME
        if path.startswith("/v1/jobs"):
            route = "".join(parts[4:])
            return known, route if route in ("lookup", "match") else "jobs"
        return "", "other"

    def _served_job(self, request: Request) -> ServedJob:
        """The job that a request is about. Raises Problem for a key that may not ask, then for an unknown job."""
        name = request.path_params["job"]
        self.authenticator.check(request.headers.get("authorization"), name)
        self._need_listed()
        job = self.registry.jobs.get(name)
        if job is None:
            raise Problem(
                "unknown-job",
                f"There is no job {shortened(name)} in the data folder. GET /v1/jobs lists those there are.",
            )
        return job

    def _need_listed(self) -> None:
        """Raises Problem as long as this worker does not know which jobs there are: then no job is unknown."""
        if not self.registry.listed:
            raise Problem("not-published", "The service has not read the data folder yet: ask again in a moment.", SOON)

    async def jobs(self, request: Request) -> Response:
        record = self.authenticator.check(request.headers.get("authorization"), None)
        self._need_listed()
        statuses = [asdict(each) for each in self.registry.statuses() if record is None or record.allows(each.job)]
        return JSONResponse({"jobs": statuses}, headers={"cache-control": "no-store"})

    async def job(self, request: Request) -> Response:
        return JSONResponse(asdict(self._served_job(request).status()), headers={"cache-control": "no-store"})

    async def lookup(self, request: Request) -> Response:
        job = self._served_job(request)
        if request.method != "POST":
            route = self._lookup_routes[lookup_path(job.name)]
            return _as_asgi(await route.answer_large(request.scope["query_string"], request.headers.get, self.lookups))
        headers = request.scope["headers"]
        opened, reply = await self.lookups(self._look_up, job, await self._bodies.read(headers, request.receive))
        for name, count in reply.counts.items():
            self.worker_metrics.counters[name, job.name] += count
        if opened.miss_counter is not None:
            for values in reply.missed:
                opened.miss_counter.add(values)
        return await self._as_batch(reply.content, opened.version, headers)

    def _look_up(self, job: ServedJob, body: bytes) -> tuple[OpenVersion, batch.BatchReply]:
        """Answers a batch, where there is room for the reply by now: others may have taken it while this one waited."""
        queries = batch.read_queries(body)
        opened = job.open_version()
        self.sender.need_room()
        return opened, batch.look_up_all(opened, queries)

    async def _as_batch(self, content: bytes, version: int, headers: Any) -> Response:
        """The reply to a batch, compressed if the client accepts it."""
        reply_headers = {"cache-control": "no-store", "batchinfer-version": str(version), "vary": "accept-encoding"}
        if is_to_be_compressed(content, headers):
            reply_headers["content-encoding"] = "gzip"
            with self.sender.holding(len(content)):
                content = await asyncio.to_thread(compressed, content)
        return Response(content, headers=reply_headers, media_type="application/json")

    async def match(self, request: Request) -> Response:
        job = self._served_job(request)
        headers = request.scope["headers"]
        if request.method == "POST":
            body = await self._bodies.read(headers, request.receive)
            wanted = await self._matches(match.MatchRequest.from_body, body)
        else:
            wanted = match.MatchRequest.from_url(request.scope["query_string"])
        self.sender.need_room()
        opened = job.open_version()
        content, found = await match.match_texts(opened, wanted, self._matches)
        self.worker_metrics.counters["texts", job.name] += len(wanted.texts)
        self.worker_metrics.counters["matches", job.name] += found
        if wanted.is_batch:
            return await self._as_batch(content, opened.version, headers)
        return _as_asgi((200, [*opened.headers], content))

    async def livez(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers={"cache-control": "no-store"})

    async def readyz(self, _request: Request) -> Response:
        if not self.registry.ready:
            raise Problem("not-published", "No version of some published job is open yet: try again in a second.", SOON)
        died = WorkerDeaths.read(self._settings.run_folder)
        workers = {"worker_deaths": died.deaths, "workers_held_back": died.held_back}
        content = {"status": "ready", **workers, "degraded_jobs": self.registry.degraded}
        return JSONResponse(content, headers={"cache-control": "no-store"})

    async def metrics(self, request: Request) -> Response:
        record = self.authenticator.check(request.headers.get("authorization"), None)
        if record is not None and record.jobs is not None:
            said = f"The API key {record.id} is limited to some jobs, and /metrics covers all: send one that is not limited."
            raise Problem("forbidden", said)
        settings = self._settings
        text = await asyncio.to_thread(
            exposition, self.worker_metrics, settings.metrics_folder, settings.run_folder, self.registry
        )
        return Response(
            text, media_type="text/plain; version=1.0.0; charset=utf-8", headers={"cache-control": "no-store"}
        )

    async def openapi(self, _request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(openapi.document))

    async def docs(self, _request: Request) -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(await asyncio.to_thread(docs_page.page), headers={"content-security-policy": policy})

    def refresh(self) -> None:
        """Picks up new keys, jobs and versions. Blocks: call it beside the event loop."""
        self.authenticator.refresh()
        self.look()

    def look(self) -> None:
        """Picks up new jobs and versions, which can take long: it must not keep a revoked key valid."""
        self.registry.refresh()
        for job in self.registry.jobs.values():
            self.worker_metrics.counters["failed_loads", job.name] = job.failed_loads

    def spool_misses(self) -> None:
        """Writes misses where the collector finds them."""
        for job in self.registry.jobs.values():
            dropped = job.spool_misses(self._settings.spool_folder)
            self.worker_metrics.counters["misses_dropped", job.name] += dropped

    def write_metrics(self) -> None:
        """Writes this worker's numbers where the others find them."""
        self.worker_metrics.counters["connections_closed", ""] = self.doorkeeper.closed + self.sender.cut
        self.worker_metrics.counters["log_lines_dropped", ""] = STDOUT.dropped + STDERR.dropped
        write_metrics(self.worker_metrics, self._settings.metrics_folder)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Keeps the service up to date beside the event loop, and puts everything away at the end."""
        self.authenticator.refresh()  # no request may come before the keys are known
        looked = asyncio.Event()
        tasks = [
            asyncio.create_task(repeat(self.authenticator.refresh, LOOK_SECONDS)),
            asyncio.create_task(repeat(self.look, LOOK_SECONDS, looked)),
            asyncio.create_task(repeat(self.doorkeeper.look, doorkeeper.LOOK_SECONDS)),
            asyncio.create_task(repeat(self.write_metrics, WRITE_SECONDS)),
            asyncio.create_task(repeat(self.spool_misses, SPOOL_SECONDS)),
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(looked.wait(), FIRST_SECONDS)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.sender.close()
            self._matches.close()
            self.lookups.close()
            for last in (self.spool_misses, self.write_metrics):
                with contextlib.suppress(OSError):
                    last()
            STDOUT.drain()
            STDERR.drain()


def _as_asgi(answer: Reply) -> Response:
    status, headers, body = answer
    response = Response(body, status)
    length = [] if status == 304 else [("content-length", str(len(body)))]  # noqa: PLR2004
    response.raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in [*headers, *length]]
    return response


async def _as_response(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return _as_asgi(exc.answer())


async def _as_problem(request: Request, exc: Exception) -> Response:
    """Starlette's own errors: an unknown path, or a method that is not allowed."""
    assert isinstance(exc, HTTPException)
    headers = tuple((name.lower(), value) for name, value in (exc.headers or {}).items())
    if exc.status_code == 405:  # noqa: PLR2004
        return await _as_response(
            request, Problem("method-not-allowed", f"{request.method} is not allowed for this URL.", headers)
        )
    return await _as_response(
        request, Problem("not-found", "There is nothing at this URL. /docs lists what there is.", headers)
    )


async def _as_damaged(request: Request, _exc: Exception) -> Response:
    return await _as_response(request, Problem("damaged", DAMAGED, SOON))


async def _as_broken(request: Request, _exc: Exception) -> Response:
    return await _as_response(request, Problem("broken", "The service failed; its log says more."))
