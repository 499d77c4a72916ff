"""Ask a large model every question once, ahead of time; check the answers; serve them from a file.

    import batchinfer

    job = batchinfer.load_job("jobs/sentiment")
    report = batchinfer.run(job, batchinfer.Data("/srv/batchinfer"))
    print(report.version, report.to_json())

This page is the whole public interface; everything else is private. Each function returns a frozen report, whose
`to_json()` is what the command of that name prints with --json, and raises the errors of `batchinfer.errors`.
Nothing is imported before it is asked for: who only looks up needs neither DuckDB nor vLLM. docs/python.md has examples.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from batchinfer.core.python_words import in_python
from batchinfer.core.version import __version__

if TYPE_CHECKING:
    from batchinfer import errors
    from batchinfer.client.async_lookup import AsyncLookup
    from batchinfer.client.lookup import Lookup
    from batchinfer.core.home import Data, JobData
    from batchinfer.job.reader import Job
    from batchinfer.pipeline.progress import Console
    from batchinfer.pipeline.report import RunReport
    from batchinfer.planning.estimate import PlanReport
    from batchinfer.publish.diff import Difference
    from batchinfer.publish.refused import CandidateReport
    from batchinfer.versions.pointers import PinReport, VersionStatus

__all__ = [
    "AsyncLookup", "Data", "Lookup", "__version__", "diff", "errors", "load_job", "pin", "plan", "publish", "rollback", "run",
    "unpin", "versions",
]  # fmt: skip

_LAZY = {
    "AsyncLookup": "batchinfer.client.async_lookup",
    "Data": "batchinfer.core.home",
    "Lookup": "batchinfer.client.lookup",
}


class _Package(ModuleType):
    """The package itself, in which the names of public functions stay theirs.

    Python binds a package here once it is imported, and two packages, `publish` and `versions`, have the names of public
    functions. These win. `from batchinfer.versions import …` finds the package anyway; `import batchinfer.versions as …`
    and a patch by the path "batchinfer.versions.…" would find the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and name != "errors" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """The classes above, imported when they are first asked for."""
    if name == "errors":
        return importlib.import_module("batchinfer.errors")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@in_python
def load_job(name: str | Path, environment: Mapping[str, str] = os.environ) -> Job:
    """The job of that name below ./jobs, or of that folder or file. Raises UsageError or SpecError.

    environment: where $BATCHINFER_INPUT_ROOTS is looked up.
    """
    from batchinfer.job import reader

    return reader.load(str(name), environment)


@in_python
def plan(job: Job, data: Data, *, input: str | Path | None = None) -> PlanReport:  # noqa: A002 - as the flag is called
    """The dry run: what a run would generate and cost. input: the list in place of the job's own."""
    from batchinfer.pipeline.plan import plan as plan_job
    from batchinfer.planning.prepare import Options

    return plan_job(job, data.of(job.name), Options(input=_path(input)))


@in_python
def run(
    job: Job,
    data: Data,
    *,
    input: str | Path | None = None,  # noqa: A002
    limit: int | None = None,
    max_hours: float | None = None,
    budget: float | None = None,
    publish: bool = True,
    retry_failed: bool = False,
    refresh: bool | tuple[str, str] = False,
    update_model: bool = False,
    yes: bool = False,
    console: Console | None = None,
) -> RunReport:
    """Generates what the cache lacks, stores it, gates it, publishes a version. Call it in the main thread: it handles SIGINT.

    input: the list in place of the job's own. limit: of prompts; nothing is published then. max_hours: after them it stops,
    and can be resumed. budget: the same once it, and the runs before it that did not come to their end, cost so much.
    publish: False to fill the cache only. retry_failed: try again what failed before.
    refresh: make again what is cached: all, or the rows of (column, value). update_model: take the model as it is now.
    yes: without asking, take another list than the served version's, regenerate most of the cache, remove most of what is
    served. console: whom to tell how it goes, and to ask.
    """
    from batchinfer.pipeline.progress import CallersConsole
    from batchinfer.pipeline.run import run as run_job
    from batchinfer.planning.prepare import Options

    options = Options(
        input=_path(input), limit=limit, max_hours=max_hours, budget=budget, publish=publish, retry_failed=retry_failed,
        refresh=bool(refresh),
        refresh_where=refresh if isinstance(refresh, tuple) else None, update_model=update_model, yes=yes,
    )  # fmt: skip
    return run_job(job, data.of(job.name), options, CallersConsole(console))


@in_python
def publish(
    job: Job,
    data: Data,
    *,
    input: str | Path | None = None,  # noqa: A002
    candidate: str | None = None,
    force: str | None = None,
    allow_empty: bool = False,
    yes: bool = False,
    console: Console | None = None,
) -> RunReport | CandidateReport:
    """Builds a version from what the cache has now, gates it, and makes it current. Raises GateFailed.

    input: the list in place of the job's own. candidate: publish this refused one as it is. force: publish although the
    gate refuses, for this reason. allow_empty: also a version without entries. yes: without asking, also of another list
    than the served version's, and if most of what is served would be removed. console: whom to tell how it goes.
    """
    from batchinfer.pipeline import publish as publishing
    from batchinfer.pipeline.progress import CallersConsole
    from batchinfer.planning.prepare import Options

    options, told, place = Options(input=_path(input), yes=yes), CallersConsole(console), data.of(job.name)
    if candidate is None:
        return publishing.publish(job, place, options, told, force, allow_empty=allow_empty)
    return publishing.publish_candidate(job, place, options, told, candidate, force, allow_empty=allow_empty)


@in_python
def versions(job: Job | str, data: Data, *, console: Console | None = None) -> list[VersionStatus]:
    """The published versions, newest first. job: its name is enough, here and below. Raises NotFound where there is none.

    console: whom to tell that CURRENT or PIN is damaged; they count as missing then.
    """
    from batchinfer.pipeline.progress import CallersConsole
    from batchinfer.versions.pointers import list_versions

    return list_versions(_place(job, data), CallersConsole(console).info)


@in_python
def pin(job: Job | str, data: Data, version: int) -> PinReport:
    """Serves one version, whatever is published, until it is unpinned. Raises NotFound or StoreError."""
    from batchinfer.versions import pointers

    return pointers.pin(_place(job, data), version)


@in_python
def unpin(job: Job | str, data: Data) -> PinReport:
    """Serves the current version again. A damaged CURRENT is the report's `problem`: the pin is gone anyway."""
    from batchinfer.versions import pointers

    return pointers.unpin(_place(job, data))


@in_python
def rollback(job: Job | str, data: Data) -> PinReport:
    """Pins the newest whole version below the one that is served. Raises NotFound or StoreError."""
    from batchinfer.versions import pointers

    return pointers.roll_back(_place(job, data))


@in_python
def diff(
    job: Job | str,
    data: Data,
    start: int | str | None = None,
    end: int | str = "current",
    *,
    out: str | Path | None = None,
) -> Difference:
    """What was added, removed and changed between two versions. Raises NotFound, UsageError or StoreError.

    start, end: numbers, refused candidates such as "r7", or "current" for what is served; without a start, the version
    before the served one. out: a .parquet, .csv or .jsonl file for all differences; the first are in the report.
    """
    from batchinfer.core.output import OutputFile
    from batchinfer.publish.diff import compare

    names = [] if start is None else [str(start), str(end)]
    return compare(_place(job, data), names, None if out is None else OutputFile.of(out), show=20)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).absolute()


def _place(job: Job | str, data: Data) -> JobData:
    return data.of(job if isinstance(job, str) else job.name)
