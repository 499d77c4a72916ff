"""What a version would hold now: the cache's answers for the list, imports, and what is kept of the version served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from batchinfer.cache import imports, verdicts
from batchinfer.cache.store import Store
from batchinfer.core.database import one
from batchinfer.core.sql import literal
from batchinfer.inputs.query_list import Plan, listed
from batchinfer.job.spec import JobSpec
from batchinfer.match.matcher import matcher_version
from batchinfer.versions.layout import PREDICTIONS, VALUE_COLUMNS, version_column
from batchinfer.versions.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Contents:
    """What a candidate holds. covered: keys of the list that have an entry, or lost theirs since people rejected it.

    carried: entries kept from what is served. served: entries of the version served now, 0 without one; missing: those
    of them that are gone otherwise than by people's word; changed: those whose value differs, and not by people's word.
    same: every body is equal to the current version's, and is found and served in the same way. to_review: the model's
    entries that gate.reviewed is about; unseen: those of them that nobody has looked at.
    """

    entries: int
    covered: int
    carried: int
    served: int = 0
    missing: int = 0
    changed: int = 0
    same: bool = False
    to_review: int = 0
    unseen: int = 0


def collect(
    plan: Plan, store: Store, spec: JobSpec, before: Path | None = None, current: Path | None = None
) -> Contents:
    """Makes the table `entries` in the plan's scratch database: what a version would hold now.

    Beside it stand the tables of `verdicts.settle`, and `refused`: what would be in it if people had not rejected it.

    before: the folder of the version served now; its values are kept for keys that have none (on_failure: keep).
    current: that of the version published last, which is another one while `before` is pinned.
    """
    db = plan.db
    _gather(plan, store, spec)
    db.execute(f"CREATE OR REPLACE TABLE refused AS {verdicts.hits(spec, 'entries', 'rejected')}")
    db.execute("DELETE FROM entries WHERE lookup IN (SELECT lookup FROM refused)")
    carried, compared = 0, Compared()
    if before is not None:
        db.execute(f"CREATE OR REPLACE VIEW before AS {_predictions(before)}")
        if _alike(Manifest.read(before), plan, spec):
            carried = _carry(plan, spec)
        compared = _compared(db, before, spec)
    entries = one(db, "SELECT count(*) FROM entries")
    beyond = one(
        db, f"SELECT count(*) FROM (FROM entries WHERE source IN {verdicts.PEOPLE}) ANTI JOIN wanted USING (lookup)"
    )
    # What people did not give is there for the list alone.
    covered = entries - beyond + _lost(db, "wanted")
    missing = compared.missing - (_lost(db, "before") if before is not None else 0)
    same = current is not None and _served_alike(Manifest.read(current), plan, spec)
    if same and current is not None:
        same = (compared if current == before else _compared(db, current, spec)).equal
    to_review, unseen = _reviewable(plan, spec, before)
    return Contents(entries, covered, carried, compared.served, missing, compared.changed, same, to_review, unseen)


def _gather(plan: Plan, store: Store, spec: JobSpec) -> None:
    """What the cache has for the list, and what people gave, whose last word on a key wins over the model's."""
    db, names = plan.db, [listed(column.name) for column in plan.source.key]
    asked = ", ".join(f"{sql} AS {listed(name)}" for name, sql in imports.values_sql(db, plan.source).items())
    with store.attached(db):
        verdicts.settle(db, spec)
        db.execute(
            f"""CREATE OR REPLACE TABLE entries AS
            WITH latest AS ({verdicts.answers(spec)}),
            later AS (SELECT row FROM list JOIN repeats USING (lookup) WHERE row > first),
            keyed AS (SELECT lookup, key, {", ".join(names)} FROM list ANTI JOIN later USING (row))
            SELECT k.lookup, {", ".join(f"k.{name}" for name in names)}, {verdicts.plain(spec, "g.prediction")} AS prediction,
                   g.text AS raw_text, g.scores, g.score, g.mass, 'model' AS source, g.model, g.run_id,
                   g.created_at AS generated_at, false AS carried
            FROM keyed k JOIN cache.generations g USING (key) ANTI JOIN latest USING (lookup) WHERE g.prediction IS NOT NULL
            UNION ALL BY NAME
            SELECT lookup, {asked}, prediction, NULL AS raw_text, NULL AS scores, score, NULL AS mass,
                   source, NULL AS model, NULL AS run_id, created_at AS generated_at, false AS carried
            FROM latest"""
        )


def _lost(db: duckdb.DuckDBPyConnection, where: str) -> int:
    """How many keys of a table have no entry since people rejected it."""
    sql = (
        f"SELECT count(DISTINCT lookup) FROM refused ANTI JOIN entries USING (lookup) SEMI JOIN {where} USING (lookup)"
    )
    return int(one(db, sql))


def _reviewable(plan: Plan, spec: JobSpec, before: Path | None) -> tuple[int, int]:
    """How many entries gate.reviewed is about, and how many of them nobody has looked at. Makes the view `to_review`."""
    if spec.gate.reviewed == "none":
        return 0, 0
    served = version_column if before is not None and _alike(Manifest.read(before), plan, spec) else None
    plan.db.execute(f"CREATE OR REPLACE VIEW to_review AS FROM {verdicts.to_review(spec, listed, served)}")
    plan.db.execute(
        f"CREATE OR REPLACE VIEW awaiting AS FROM to_review SEMI JOIN {verdicts.unseen(spec)} USING (lookup)"
    )
    return one(plan.db, "SELECT count(*) FROM to_review"), one(plan.db, "SELECT count(*) FROM awaiting")


def _predictions(folder: Path) -> str:
    return f"SELECT * FROM read_parquet({literal(str(folder / PREDICTIONS))})"


def _alike(manifest: Manifest, plan: Plan, spec: JobSpec) -> bool:
    """Whether a version's entries could be the job's: by the kinds of key and prediction."""
    return manifest.key == tuple(plan.source.key) and manifest.prediction == spec.output.kind


def _served_alike(manifest: Manifest, plan: Plan, spec: JobSpec) -> bool:
    """Whether a version's entries are found and served as the job says now."""
    said, says = manifest.spec, spec.model_dump(mode="json", by_alias=True)
    as_said = all(said.get(section) == says[section] for section in ("serve", "match"))
    if spec.match is not None:
        as_said = as_said and matcher_version().items() <= (manifest.match or {}).items()
    return as_said and _alike(manifest, plan, spec) and list(manifest.normalize) == list(spec.input.normalize)


def _carry(plan: Plan, spec: JobSpec) -> int:
    """Keeps what is served now for keys of the list that have no prediction this time; returns how many.

    What people rejected is noted in `refused` instead, whether or not the job keeps anything.
    """
    names = ", ".join(f"{version_column(column.name)} AS {listed(column.name)}" for column in plan.source.key)
    plan.db.execute(f"CREATE OR REPLACE TABLE rejected_before AS {verdicts.hits(spec, 'before', 'rejected')}")
    plan.db.execute("INSERT INTO refused FROM rejected_before")
    if spec.on_failure != "keep":
        return 0
    plan.db.execute(  # their keys first, which are few: the texts of all entries would not fit into the memory
        "CREATE OR REPLACE TABLE kept AS SELECT lookup FROM before ANTI JOIN entries USING (lookup) "
        "ANTI JOIN rejected_before USING (lookup) "
        f"WHERE source NOT IN {verdicts.PEOPLE}"  # what people gave and is there no more was taken back
    )
    kept = one(
        plan.db,
        f"INSERT INTO entries BY NAME SELECT lookup, {names}, {VALUE_COLUMNS.replace('carried', 'true AS carried')} "
        "FROM before SEMI JOIN (FROM kept SEMI JOIN wanted USING (lookup)) USING (lookup)",
    )
    return int(kept)


@dataclass(frozen=True, slots=True)
class Compared:
    """The candidate against a version of `served` entries. missing, changed: of them; equal: whether all bodies are."""

    served: int = 0
    missing: int = 0
    changed: int = 0
    equal: bool = False


def _compared(db: duckdb.DuckDBPyConnection, version: Path, spec: JobSpec) -> Compared:
    """Compares `entries` with a version's."""
    served = one(db, f"SELECT count(*) FROM ({_predictions(version)})")
    if not served:
        return Compared()
    # Hashes are compared, not the values: a join that holds all texts would not fit into the memory that it may have.
    hashed = (
        f"SELECT lookup, source IN {verdicts.corrections(spec)} AS given, md5_number(prediction) AS prediction, "
        "md5_number(json_array(prediction, scores, score, source, model, generated_at)) AS body"
    )
    added, missing, changed, differing = db.execute(
        f"""SELECT count(*) FILTER (b.lookup IS NULL), count(*) FILTER (e.lookup IS NULL),
                   count(*) FILTER (e.prediction <> b.prediction AND NOT e.given), count(*) FILTER (e.body <> b.body)
        FROM ({hashed} FROM entries) e FULL JOIN ({hashed} FROM ({_predictions(version)})) b USING (lookup)"""
    ).fetchall()[0]
    return Compared(served, missing, changed, not (added or missing or differing))
