"""The service as an ASGI application: one per worker process. front.py takes single look-ups past it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from batchinfer.core.http_limits import MAX_URL
from batchinfer.serve import batch, docs_page, lookup, match, openapi
from batchinfer.serve.auth import Authenticator
from batchinfer.serve.body import compressed, is_to_be_compressed, read_body
from batchinfer.serve.metrics import WorkerMetrics, exposition, write_tally
from batchinfer.serve.problems import Problem, Reply
from batchinfer.serve.registry import JobRegistry, ServedJob

log = logging.getLogger("batchinfer.serve")
LOOK_SECONDS = 0.5  # between two looks for new versions
WRITE_SECONDS = 1.0  # between two writings of a worker's numbers
SPOOL_SECONDS = 5.0  # between two writings of misses
FIRST_SECONDS = 5.0  # that a worker takes no connections for while it opens versions
SOON = (("retry-after", "1"),)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service was started. run_folder: of this server alone, for its workers' numbers and misses."""

    data: Path
    run_folder: Path
    keys_always: bool = False
    keys_never: bool = False
    misses: bool = True
    access_log: bool = False

    @property
    def tallies(self) -> Path:
        return self.run_folder / "tallies"

    @property
    def spool(self) -> Path:
        return self.run_folder / "misses"


class Service:
    """One worker's service. Call `refresh` before the first request, or let `lifespan` do so in the background."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.tally = WorkerMetrics()
        self.guard = Authenticator(settings.data, always=settings.keys_always, never=settings.keys_never)
        self._hot: dict[str, lookup.LookupRoute] = {}
        self.board = JobRegistry(settings.data, self._welcome, records_misses=settings.misses)
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
            exception_handlers={Problem: _as_response, HTTPException: _as_problem, Exception: _as_broken},
        )
        self._starlette.router.redirect_slashes = False

    def _welcome(self, desk: ServedJob) -> None:
        self._hot = self._hot | {f"/v1/jobs/{desk.job}/lookup": lookup.LookupRoute(desk, self.guard, self.tally)}

    def route(self, path: str) -> lookup.LookupRoute | None:
        """What answers single look-ups at a path, if it is one of a job that there is."""
        return self._hot.get(path)

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
            self.tally.series[job, route, status].observe(time.perf_counter() - began)

    def _labels(self, path: str) -> tuple[str, str]:
        """(job, route) for the metrics. Names that clients made up must not become labels."""
        if path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
            return "", path[1:].removesuffix(".json")
        parts = path.split("/")
        known = parts[3] if len(parts) > 3 and parts[3] in self.board.desks else ""  # noqa: PLR2004 - /v1/jobs/NAME
        if path.startswith("/v1/jobs"):
            asked = "".join(parts[4:])
            return known, asked if asked in ("lookup", "match") else "jobs"
        return "", "other"

    def _desk(self, request: Request) -> ServedJob:
        """Raises Problem for a key that may not ask, and for a job that there is not, in this order."""
        name = request.path_params["job"]
        self.guard.check(request.headers.get("authorization"), name)
        self._need_listed()
        desk = self.board.desks.get(name)
        if desk is None:
            raise Problem("unknown-job", "There is no such job in the data folder. GET /v1/jobs lists those there are.")
        return desk

    def _need_listed(self) -> None:
        """Raises Problem as long as this worker does not know which jobs there are: then no job is unknown."""
        if not self.board.listed:
            raise Problem("not-published", "The service has not read the data folder yet: ask again in a moment.", SOON)

    async def jobs(self, request: Request) -> Response:
        record = self.guard.check(request.headers.get("authorization"), None)
        self._need_listed()
        states = [asdict(state) for state in self.board.states() if record is None or record.allows(state.job)]
        return JSONResponse({"jobs": states}, headers={"cache-control": "no-store"})

    async def job(self, request: Request) -> Response:
        return JSONResponse(asdict(self._desk(request).state()), headers={"cache-control": "no-store"})

    async def lookup(self, request: Request) -> Response:
        desk = self._desk(request)
        if request.method != "POST":
            route = self._hot[f"/v1/jobs/{desk.job}/lookup"]
            return _as_asgi(route.answer(request.scope["query_string"], request.headers.get))
        headers = request.scope["headers"]
        queries = batch.read_queries(await read_body(headers, request.receive))
        opened = desk.opened()
        content, missed = batch.answer(opened, queries)
        self.tally.counters["hits", desk.job] += len(queries) - len(missed)
        self.tally.counters["misses", desk.job] += len(missed)
        if opened.misses is not None:
            for values in missed:
                opened.misses.add(values)
        return await _as_batch(content, opened.version, headers)

    async def match(self, request: Request) -> Response:
        desk = self._desk(request)
        headers = request.scope["headers"]
        if request.method == "POST":
            asked = match.Asked.from_body(await read_body(headers, request.receive))
        else:
            asked = match.Asked.from_url(request.scope["query_string"])
        opened = desk.opened()
        content, found = await match.answer(opened, asked)
        self.tally.counters["texts", desk.job] += len(asked.texts)
        self.tally.counters["matches", desk.job] += found
        if asked.batch:
            return await _as_batch(content, opened.version, headers)
        return _as_asgi((200, [*opened.headers], content))

    async def livez(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers={"cache-control": "no-store"})

    async def readyz(self, _request: Request) -> Response:
        if not self.board.ready:
            raise Problem("not-published", "A job that has a published version has none open yet.", SOON)
        return JSONResponse({"status": "ready"}, headers={"cache-control": "no-store"})

    async def metrics(self, request: Request) -> Response:
        record = self.guard.check(request.headers.get("authorization"), None)
        if record is not None and record.jobs is not None:
            raise Problem("forbidden", f"The API key {record.id} is limited to some jobs: /metrics tells of all.")
        text = await asyncio.to_thread(exposition, self.tally, self._settings.tallies, self.board)
        return Response(
            text, media_type="text/plain; version=1.0.0; charset=utf-8", headers={"cache-control": "no-store"}
        )

    async def openapi(self, _request: Request) -> Response:
        return JSONResponse(openapi.document())

    async def docs(self, _request: Request) -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(docs_page.page(), headers={"content-security-policy": policy})

    def refresh(self) -> None:
        """Takes up new keys, jobs and versions. Blocks: call it beside the event loop."""
        self.guard.refresh()
        self.look()

    def look(self) -> None:
        """Takes up new jobs and versions, which can take long: it must not keep a revoked key valid."""
        self.board.refresh()
        for desk in self.board.desks.values():
            self.tally.counters["failed_loads", desk.job] = desk.failed_loads

    def spool(self) -> None:
        """Writes misses where the collector finds them."""
        for desk in self.board.desks.values():
            self.tally.counters["misses_dropped", desk.job] += desk.spool_misses(self._settings.spool)

    def write_tally(self) -> None:
        """Writes this worker's numbers where the others find them."""
        write_tally(self.tally, self._settings.tallies)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Keeps the service up to date beside the event loop, and puts everything away at the end."""
        self.guard.refresh()  # no request may come before the keys are known
        tasks = [
            asyncio.create_task(_again_and_again(self.guard.refresh, LOOK_SECONDS)),
            asyncio.create_task(_again_and_again(self.look, LOOK_SECONDS)),
            asyncio.create_task(_again_and_again(self.write_tally, WRITE_SECONDS)),
            asyncio.create_task(_again_and_again(self.spool, SPOOL_SECONDS)),
        ]
        until = time.monotonic() + FIRST_SECONDS
        while not self.board.looked and time.monotonic() < until:  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for last in (self.spool, self.write_tally):
                with contextlib.suppress(OSError):
                    last()


async def _again_and_again(work: Callable[[], None], seconds: float) -> None:
    while True:
        try:
            await asyncio.to_thread(work)
        except Exception:  # whatever it was, it may pass; the service goes on with what it has
            log.exception("the service could not be brought up to date")
        await asyncio.sleep(seconds)


def _as_asgi(answer: Reply) -> Response:
    status, headers, body = answer
    response = Response(body, status)
    length = [] if status == 304 else [("content-length", str(len(body)))]  # noqa: PLR2004
    response.raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in [*headers, *length]]
    return response


async def _as_batch(content: bytes, version: int, headers: Any) -> Response:
    """The reply to a batch, compressed for who takes it."""
    said = {"cache-control": "no-store", "batchinfer-version": str(version), "vary": "accept-encoding"}
    if is_to_be_compressed(content, headers):
        said["content-encoding"] = "gzip"
        content = await asyncio.to_thread(compressed, content)
    return Response(content, headers=said, media_type="application/json")


async def _as_response(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return _as_asgi(exc.answer())


async def _as_problem(request: Request, exc: Exception) -> Response:
    """Starlette's own errors: a path that there is not, a method that is not allowed."""
    assert isinstance(exc, HTTPException)
    headers = tuple((name.lower(), value) for name, value in (exc.headers or {}).items())
    if exc.status_code == 405:  # noqa: PLR2004
        return await _as_response(
            request, Problem("method-not-allowed", f"{request.method} is not for this URL.", headers)
        )
    return await _as_response(
        request, Problem("not-found", "There is nothing at this URL. /docs lists what there is.", headers)
    )


async def _as_broken(request: Request, _exc: Exception) -> Response:
    return await _as_response(request, Problem("broken", "The service failed; its log says more."))
