"""What a version would hold now: the cache's answers for the list, imports, and what is kept of the version served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from batchinfer.keys import literal, quoted
from batchinfer.output import OutputSpec, SplitStep
from batchinfer.plan import LISTED, Plan, listed
from batchinfer.snapshot import PREDICTIONS, Manifest
from batchinfer.spec import JobSpec
from batchinfer.store import Store, one

VALUE_COLUMNS = "prediction, raw_text, scores, score, mass, source, model, run_id, generated_at, carried"


RESERVED = frozenset([*VALUE_COLUMNS.split(", "), "lookup"])


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


def is_json(output: OutputSpec) -> bool:
    """Whether predictions are JSON values rather than plain strings."""
    return output.type == "json" or any(isinstance(step, SplitStep) for step in output.steps)


def prediction_kind(spec: JobSpec) -> str:
    """How a manifest calls it."""
    return "json" if is_json(spec.output) else "string"


def _from_query(plan: Plan) -> str:
    """Key columns out of an import's query text, of the types that the list has."""
    types = dict(plan.db.execute("SELECT column_name, column_type FROM (DESCRIBE list)").fetchall())
    return ", ".join(
        f"CAST(json_extract_string(query, {literal(json_path(name))}) AS {types[LISTED + name]}) AS {listed(name)}"
        for name in (column.name for column in plan.source.key)
    )


def _of_this_key(plan: Plan) -> str:
    """SQL for whether an import was made for the lookup key as it is now: one made for another can never be found."""
    names = ", ".join(literal(column.name) for column in plan.source.key)
    return f"json_keys(query) = [{names}]"


def json_path(*names: str) -> str:
    """Where DuckDB finds a field of a JSON object, or one within it."""
    return "$" + "".join('."' + name.replace('"', '\\"') + '"' for name in names)
