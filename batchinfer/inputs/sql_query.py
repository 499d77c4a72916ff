"""A list as a query of DuckDB over files below the allowed folders, and over nothing else: `input.sql`."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path

import duckdb

from batchinfer.core.database import first_line
from batchinfer.core.duckdb_paths import found_by_duckdb
from batchinfer.core.files import real_path
from batchinfer.core.memory import VARIABLE, table_memory
from batchinfer.core.own_process import command_of, environment
from batchinfer.errors import InputError
from batchinfer.inputs.sql_process import OUT_OF_MEMORY, AskedQuery
from batchinfer.job.reader import ROOTS_VARIABLE, Job

LISTEN_SECONDS = 0.2
FOLDER = "{folder}"  # stands for the job's folder
_END = re.compile(r";\s*(--[^\n]*\s*)*$")  # of a query that is to be part of another


def query_as_parquet(job: Job, target: Path, scratch: Path, *, rows: bool) -> None:
    """Writes a Parquet file with what the job's query gives. Raises InputError.

    scratch: an empty folder. rows: False for those who only look at the columns.
    """
    folder = scratch / "folder"  # whose path has no sign that stands for others, and no part that names a column
    folder.symlink_to(job.folder)
    allowed = (job.folder, *job.roots)
    folders = [f"{folder}/", *(f"{path}/" for place in allowed for path in (place, real_path(place)))]
    asked = AskedQuery(
        sql=_selection(job.spec.input.sql or "").replace(FOLDER, str(folder)),
        target=str(target),
        rows=rows,
        folders=list(dict.fromkeys(folders)),
        spill=found_by_duckdb(folder.with_name("spill")),
        memory=table_memory(),
    )
    if (said := _fault_of(asked)) is not None:
        raise _in_our_words(said.replace(str(folder), FOLDER), job)


def _selection(sql: str) -> str:
    """The query, if it is one. Raises InputError for anything else."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as exc:
        raise _fault(f"it cannot be read: {first_line(exc)}") from exc
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        what = "nothing" if not kinds else ", ".join(kind.replace("_", " ") for kind in kinds)
        raise _fault(f"it must be one SELECT, which writes nothing, and is {what}")
    return _END.sub("", statements[0].query)


def _fault_of(asked: AskedQuery) -> str | None:
    """Runs the query in a process of its own; returns what went wrong. A signal, such as Ctrl-C, ends it at once."""
    with subprocess.Popen(
        command_of(AskedQuery.__module__),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
    ) as process:  # fmt: skip
        try:
            out = _answer(process, json.dumps(asdict(asked)).encode())
        except BaseException:
            process.kill()
            process.wait()
            raise
    with contextlib.suppress(ValueError):
        return None if (said := json.loads(out)) is None else str(said)
    if process.returncode == -signal.SIGKILL:  # by the system, as a rule
        return OUT_OF_MEMORY
    return f"it ended the process that it ran in (exit code {process.returncode})"


def _answer(process: subprocess.Popen[bytes], asked: bytes) -> bytes:
    """What it writes. It is waited for in slices, in which a signal that came in another thread is heard."""
    left: bytes | None = asked
    while True:
        try:
            return process.communicate(left, LISTEN_SECONDS)[0]
        except subprocess.TimeoutExpired:
            left = None  # it has all that fits, and gets the rest by itself


def _in_our_words(said: str, job: Job) -> InputError:
    if said.startswith(OUT_OF_MEMORY):
        return _fault(f"it needs too much memory: ask for fewer or shorter values at a time, or set {VARIABLE} higher")
    if "Permission Error" not in said:
        return _fault(said)
    said = said[said.index("Permission Error") :].partition(" - ")[0]
    return _fault(
        f"{said}: it may read files below {job.folder}, which {FOLDER} stands for at the beginning of a path, and below the "
        f"folders in ${ROOTS_VARIABLE}, by their whole paths"
    )


def _fault(said: str) -> InputError:
    return InputError(f"The query does not work: {said}.", field=("input", "sql"))
