"""Cache → one version's folder: predictions.parquet, then, once the gate is passed, lookup.lmdb and the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import lmdb

import batchinfer
from batchinfer.errors import StoreError, UsageError
from batchinfer.gate import Check, Figures
from batchinfer.home import readable_faults, sync_folder
from batchinfer.jobfile import Job
from batchinfer.keys import Column, literal, quoted
from batchinfer.plan import LISTED, Plan, listed
from batchinfer.snapshot import FORMAT, LOOKUP, MANIFEST, PREDICTIONS, Manifest, Snapshot
from batchinfer.spec import JobSpec, OutputSpec
from batchinfer.store import Store, one
from batchinfer.tables import iso, now

VALUE_COLUMNS = "prediction, raw_text, scores, score, mass, source, model, run_id, generated_at, carried"
RESERVED = frozenset([*VALUE_COLUMNS.split(", "), "lookup"])
INDEX_ROWS = 16_384  # put into lookup.lmdb at once
ROW_GROUP = 20_480  # whoever reads predictions.parquet holds one in memory for each thread
COPY_OPTIONS = f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a candidate holds. entries = covered keys of the list + imports beyond it; carried: kept from what is served.

    served: entries of the version served now, 0 without one. same: every body is equal to the current version's, and
    is found and served in the same way.
    """

    entries: int
    covered: int
    carried: int
    served: int = 0
    missing: int = 0
    changed: int = 0
    same: bool = False


def collect(
    plan: Plan, store: Store, spec: JobSpec, before: Path | None = None, current: Path | None = None
) -> Contents:
    """Makes the table `entries` in the plan's scratch database: what a version would hold now.

    before: the folder of the version served now; its values are kept for keys that have none (on_failure: keep).
    current: that of the version published last, which is another one while `before` is pinned.
    """
    db, names = plan.db, [listed(column.name) for column in plan.source.key]
    plain = "prediction" if is_json(spec.output) else "json_extract_string(prediction, '$')"
    with store.attached(db):
        db.execute(
            f"""CREATE OR REPLACE TABLE entries AS
            WITH latest AS (
                SELECT * FROM cache.imports QUALIFY row_number() OVER (PARTITION BY lookup ORDER BY import_id DESC) = 1),
            later AS (SELECT row FROM list JOIN repeats USING (lookup) WHERE row > first),
            keyed AS (SELECT lookup, key, {", ".join(names)} FROM list ANTI JOIN later USING (row))
            SELECT k.lookup, {", ".join(f"k.{name}" for name in names)}, {plain} AS prediction, g.text AS raw_text, g.scores,
                   g.score, g.mass, 'model' AS source, g.model, g.run_id, g.created_at AS generated_at, false AS carried
            FROM keyed k JOIN cache.generations g USING (key) ANTI JOIN latest USING (lookup) WHERE g.prediction IS NOT NULL
            UNION ALL BY NAME
            SELECT lookup, {_from_query(plan)}, {plain} AS prediction, NULL AS raw_text, NULL AS scores, score, NULL AS mass,
                   'import' AS source, NULL AS model, NULL AS run_id, created_at AS generated_at, false AS carried
            FROM latest WHERE {_of_this_key(plan)}"""
        )
    carried, compared = 0, Compared()
    if before is not None:
        db.execute(f"CREATE OR REPLACE VIEW before AS {_predictions(before)}")
        if spec.on_failure == "keep" and _alike(Manifest.read(before), plan, spec):
            carried = _carry(plan)
        compared = _compared(db, before)
    entries = one(db, "SELECT count(*) FROM entries")
    beyond = one(db, "SELECT count(*) FROM (FROM entries WHERE source = 'import') ANTI JOIN wanted USING (lookup)")
    covered = entries - beyond  # what is not imported is there for the list alone
    same = current is not None and _served_alike(Manifest.read(current), plan, spec)
    if same and current is not None:
        same = (compared if current == before else _compared(db, current)).equal
    return Contents(entries, covered, carried, compared.served, compared.missing, compared.changed, same)


def _predictions(folder: Path) -> str:
    return f"SELECT * FROM read_parquet({literal(str(folder / PREDICTIONS))})"


def _alike(manifest: Manifest, plan: Plan, spec: JobSpec) -> bool:
    """Whether a version's entries could be the job's: by the kinds of key and prediction."""
    return manifest.key == tuple(plan.source.key) and manifest.content["prediction"] == prediction_kind(spec)


def _served_alike(manifest: Manifest, plan: Plan, spec: JobSpec) -> bool:
    """Whether a version's entries are found and served as the job says now."""
    said, says = manifest.content["spec"], spec.model_dump(mode="json", by_alias=True)
    as_said = all(said.get(section) == says[section] for section in ("serve", "match"))
    return as_said and _alike(manifest, plan, spec) and list(manifest.normalize) == list(spec.input.normalize)


def _carry(plan: Plan) -> int:
    """Keeps what is served now for keys of the list that have no prediction this time; returns how many."""
    names = ", ".join(f"{version_column(column.name)} AS {listed(column.name)}" for column in plan.source.key)
    plan.db.execute(  # their keys first, which are few: the texts of all entries would not fit into the memory
        "CREATE OR REPLACE TABLE kept AS SELECT lookup FROM before ANTI JOIN entries USING (lookup) "
        "WHERE source <> 'import'"  # an import that is there no more was taken back
    )
    kept = one(
        plan.db,
        f"INSERT INTO entries BY NAME SELECT lookup, {names}, {VALUE_COLUMNS.replace('carried', 'true AS carried')} "
        "FROM before SEMI JOIN (FROM kept SEMI JOIN wanted USING (lookup)) USING (lookup)",
    )
    return int(kept)


def version_column(name: str) -> str:
    """SQL for a key column's name in predictions.parquet: its own, or key_NAME where that is one of ours."""
    return quoted(f"key_{name}" if name.lower() in RESERVED else name)


@dataclass(frozen=True, slots=True)
class Compared:
    """The candidate against a version of `served` entries. missing, changed: of them; equal: whether all bodies are."""

    served: int = 0
    missing: int = 0
    changed: int = 0
    equal: bool = False


def _compared(db: duckdb.DuckDBPyConnection, version: Path) -> Compared:
    """Compares `entries` with a version's."""
    served = one(db, f"SELECT count(*) FROM ({_predictions(version)})")
    if not served:
        return Compared()
    # Hashes are compared, not the values: a join that holds all texts would not fit into the memory that it may have.
    hashed = (
        "SELECT lookup, md5_number(prediction) AS prediction, "
        "md5_number(json_array(prediction, scores, score, source, model, generated_at)) AS body"
    )
    added, missing, changed, differing = db.execute(
        f"""SELECT count(*) FILTER (b.lookup IS NULL), count(*) FILTER (e.lookup IS NULL),
                   count(*) FILTER (e.prediction <> b.prediction), count(*) FILTER (e.body <> b.body)
        FROM ({hashed} FROM entries) e FULL JOIN ({hashed} FROM ({_predictions(version)})) b USING (lookup)"""
    ).fetchall()[0]
    return Compared(served, missing, changed, not (added or missing or differing))


def write_predictions(plan: Plan, target: Path) -> None:
    """The copy of record as Parquet, in the order of the lookup hash."""
    names = ", ".join(f"{listed(column.name)} AS {version_column(column.name)}" for column in plan.source.key)
    plan.db.execute(
        f"COPY (SELECT {names}, {VALUE_COLUMNS}, lookup FROM entries ORDER BY lookup) TO {literal(str(target))} "
        f"{COPY_OPTIONS}"
    )


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A draft beside a file that a person named, put in its place as a whole at the end.

    Raises UsageError where the place will not do, before anything is done.
    """
    place = target.resolve()  # a link stays a link
    draft = place.with_name(f".batchinfer-export-{os.getpid()}")
    try:
        try:
            if place.exists() and not place.is_file():
                raise UsageError(f"{target} is not a file: name one that can be replaced, or that does not exist yet.")
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        except OSError as exc:
            raise UsageError(f"{target} cannot be written: {exc.strerror}. Name another file.") from exc
        draft.unlink()
        yield draft
        with readable_faults(target):
            draft.replace(place)
            sync_folder(place.parent)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def copy_faults(target: Path) -> Iterator[None]:
    """Says of DuckDB's errors while it copies which file they are about."""
    try:
        yield
    except duckdb.IOException as exc:
        raise StoreError(f"{target} cannot be written: {str(exc).splitlines()[0]}") from exc


def write_lookup(plan: Plan, target: Path, spec: JobSpec) -> int:
    """lookup.lmdb: hash of the lookup key → the finished JSON body. Returns the number of entries."""
    return index(plan.db, plan.source.key, target, spec.name, prediction_kind(spec))


def index(db: duckdb.DuckDBPyConnection, key: Sequence[Column], target: Path, job: str, kind: str) -> int:
    """The same, from predictions.parquet in `target` alone. kind: of the predictions, as the manifest says it."""
    prediction = "prediction::JSON" if kind == "json" else "prediction"
    query = ", ".join(f"{literal(column.name)}, {version_column(column.name)}" for column in key)
    rows = db.execute(  # in the order of the file, which is that of the hashes
        f"""SELECT lookup, encode(json_object(
            'job', {literal(job)}, 'query', json_object({query}), 'prediction', {prediction}, 'scores', scores::JSON,
            'score', score, 'source', source, 'model', model,
            'generated_at', strftime(generated_at, '%Y-%m-%dT%H:%M:%SZ'))::VARCHAR) AS body
        FROM read_parquet({literal(str(target / PREDICTIONS))})"""
    )
    path = target / LOOKUP
    size = 64 << 20
    count = 0
    with (
        _lookup_faults(path),
        lmdb.open(
            str(path), subdir=False, lock=False, map_size=size, sync=False, metasync=False, writemap=False
        ) as environment,
    ):
        while items := rows.fetchmany(INDEX_ROWS):
            needed = sum(len(key) + len(body) + 64 for key, body in items)
            size += 2 * needed  # sparse: the file only takes what is written
            environment.set_mapsize(size)
            with environment.begin(write=True) as transaction:
                _, added = transaction.cursor().putmulti(items, append=True)
            count += added
        environment.sync(force=True)
    return count


@contextlib.contextmanager
def _lookup_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as exc:
        raise StoreError(f"{path} cannot be written: {exc}. Free space on the disk, then run again.") from exc


def write_manifest(target: Path, facts: Mapping[str, Any]) -> None:
    """manifest.json, last: it means that the version is complete."""
    with readable_faults(target):
        files = {path.name: _file_facts(path) for path in sorted(target.iterdir()) if path.name != MANIFEST}
        content = {"format": FORMAT, **facts, "files": files}
        (target / MANIFEST).write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str), encoding="utf-8")


def manifest_facts(
    job: Job,
    plan: Plan,
    contents: Contents,
    checks: Sequence[Check],
    *,
    version: int | None,
    run: Mapping[str, Any],
    parent: int | None,
    forced: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a manifest says, but for its files. version: None for a rejected candidate. forced: by whom, when and why."""
    failed = [check.name for check in checks if not check.passed]
    return {
        "job": job.name,
        "version": version,
        "created_at": iso(now()),
        "rows": contents.entries,
        "carried": contents.carried,
        "key": [{"name": column.name, "kind": column.kind} for column in plan.source.key],
        "normalize": list(job.spec.input.normalize),
        "prediction": prediction_kind(job.spec),
        "unicode": unicodedata.unidata_version,
        "gate": {"status": "failed" if failed else "passed", "checks": [asdict(check) for check in checks]},
        "forced": None if forced is None else dict(forced),
        "parent": parent,
        "run": dict(run),
        "spec": job.spec.model_dump(mode="json", by_alias=True),
        "made_by": f"batchinfer {batchinfer.__version__}",
    }


def is_json(output: OutputSpec) -> bool:
    """Whether predictions are JSON values rather than plain strings."""
    return output.type == "json" or any(not isinstance(step, str) for step in output.steps)


def prediction_kind(spec: JobSpec) -> str:
    """How a manifest calls it."""
    return "json" if is_json(spec.output) else "string"


def check(folder: Path) -> None:
    """Reopens what was written: every checksum, the count, and a sample of entries. Raises StoreError."""
    with Snapshot(folder) as version:
        version.verify()
        with duckdb.connect() as db:
            names = ", ".join(version_column(column.name) for column in version.manifest.key)
            sample = db.execute(
                f"SELECT {names} FROM read_parquet({literal(str(folder / PREDICTIONS))}) USING SAMPLE 100 ROWS"
            ).fetchall()
        for values in sample:
            query = {column.name: value for column, value in zip(version.manifest.key, values, strict=True)}
            if version.get(query) is None:
                raise StoreError(
                    f"{folder}: the entry {query} cannot be looked up again; the version is not published."
                )


def figures(plan: Plan, contents: Contents, failed: int, *, golden: int = 0, right: int = 0) -> Figures:
    """What the gate looks at. golden: rows whose answer is known; right: those answered so."""
    counts = plan.counts
    return Figures(
        keys=counts.lookups, covered=contents.covered, asked=counts.unique + counts.bad, failed=failed + counts.bad,
        entries=contents.entries, carried=contents.carried, served=contents.served, missing=contents.missing,
        changed=contents.changed, golden=golden, right=right,
    )  # fmt: skip


def _from_query(plan: Plan) -> str:
    """Key columns out of an import's query text, of the types that the list has."""
    types = dict(plan.db.execute("SELECT column_name, column_type FROM (DESCRIBE list)").fetchall())
    return ", ".join(
        f"CAST(json_extract_string(query, {literal(_json_path(name))}) AS {types[LISTED + name]}) AS {listed(name)}"
        for name in (column.name for column in plan.source.key)
    )


def _of_this_key(plan: Plan) -> str:
    """SQL for whether an import was made for the lookup key as it is now: one made for another can never be found."""
    names = ", ".join(literal(column.name) for column in plan.source.key)
    return f"json_keys(query) = [{names}]"


def _json_path(name: str) -> str:
    return '$."' + name.replace('"', '\\"') + '"'


def _file_facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
