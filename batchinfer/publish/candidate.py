"""What a version would hold now: the cache's answers for the list, imports, and what is kept of the version served.

    list, generations ──┐
    answers by people ──┼─► entries ─► predictions.parquet
    before (served now) ┘      └─► refused (rejected by people), to_review ─► awaiting

| table           | columns                                                | what it holds                                   |
| --------------- | ------------------------------------------------------ | ----------------------------------------------- |
| entries         | lookup_hash, q_NAME for each key column, prompt_key,   | what would be published; prompt_key is NULL for |
|                 | VALUE_COLUMNS                                          | what people gave and what is kept of `before`   |
| refused         | lookup_hash, value (hashed)                            | what would be, had people not rejected it       |
| before          | as entries, the key columns being its own              | the version served now                          |
| kept            | lookup_hash                                            | keys whose entries are kept from `before`       |
| rejected_before | lookup_hash, value (hashed)                            | what people rejected of `before`                |
| to_review       | as entries                                             | the model's entries that gate.reviewed is about |
| awaiting        | as entries                                             | those of them that nobody has looked at         |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from batchinfer.cache import imports, verdicts
from batchinfer.cache.verdicts import PEOPLE
from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import LIST_ROWS, one_integer
from batchinfer.core.keys import canonical_json
from batchinfer.core.reasons import FailureReason, ranked
from batchinfer.core.records import Source
from batchinfer.core.sql import listed, query_json
from batchinfer.inputs.parquet import ListSource
from batchinfer.match.version import matcher_version
from batchinfer.publish.calibrated import Proposals, find_calibration, write_calibration
from batchinfer.publish.changes import Compared, Entries, compare_entries
from batchinfer.publish.contents import Contents
from batchinfer.publish.listed_names import ListedNames
from batchinfer.publish.other_scores import OtherScores
from batchinfer.publish.predictions_file import version_rows, write_predictions
from batchinfer.publish.prior import read_generations
from batchinfer.versions.calibration import ScoreSource
from batchinfer.versions.layout import PROMPT_KEY, VALUE_COLUMNS, version_column
from batchinfer.versions.manifest import Manifest

ExampleRows = list[tuple[str, ...]]


class Candidate:
    """What would be published now. Owns the tables above in the workspace's database.

    before: the folder of the version served now; its values are kept for keys that have none (on_failure: keep).
    current: that of the version published last, which is another one while `before` is pinned.
    spec: the job file.
    contents: how much there is.
    calibration: what its scores are made by; what `calibrate` learned last, unless given.
    """

    entries_sql = "entries"

    def __init__(
        self, workspace: Workspace, before: Path | None = None, current: Path | None = None, calibration: ScoreSource | None = None
    ) -> None:  # fmt: skip
        self._workspace, self._db, self.spec = workspace, workspace.db, workspace.spec
        self._list, self._verdicts, self._names = workspace.query_list, workspace.verdicts, ListedNames(workspace)
        self._before, self._served = before, None if before is None else Manifest.read(before)
        self._gather()
        self._refuse()
        carried = 0
        if before is not None and self._served is not None:
            rows = version_rows(self._db, workspace.texts, before, self._served.key)
            self._db.execute(f"CREATE OR REPLACE VIEW before AS {rows}")
            carried = self._carry() if self._is_alike(self._served) else 0
        self.calibration = find_calibration(workspace) if calibration is None else calibration
        if (model := self.calibration.model) is not None:
            self.proposals([feature.name for feature in model.features]).rescore(self.entries_sql, model)
        self.contents = self._counted(carried, self._compared(before), current)

    def _gather(self) -> None:
        """What the cache has for the list, and what people gave, whose last word on a key wins over the model's."""
        names = [listed(column.name) for column in self._list.source.key]
        key = ", ".join(f"{sql} AS {listed(name)}" for name, sql in imports.values_sql(self._list).items())
        with self._workspace.store.attached(self._db):
            self._generations = read_generations(self._workspace, self._list.first_rows_sql)
            self._db.execute(
                f"""CREATE OR REPLACE TABLE entries AS
                WITH latest AS ({self._verdicts.answers_sql}),
                keyed AS (SELECT lookup_hash, prompt_key, {", ".join(names)} FROM {self._list.first_rows_sql})
                SELECT k.lookup_hash, {", ".join(f"k.{name}" for name in names)}, k.prompt_key,
                       {verdicts.plain(self.spec, "g.prediction")} AS prediction,
                       g.text AS raw_text, g.scores, g.score, g.mass, '{Source.MODEL}' AS source, g.model, g.run_id,
                       g.created_at AS generated_at, false AS carried
                FROM keyed k JOIN {self._generations} g ON g.key = k.prompt_key ANTI JOIN latest USING (lookup_hash)
                WHERE g.prediction IS NOT NULL
                UNION ALL BY NAME
                SELECT lookup_hash, {key}, NULL AS prompt_key, prediction, NULL AS raw_text, NULL AS scores, score, NULL AS mass,
                       source, NULL AS model, NULL AS run_id, created_at AS generated_at, false AS carried
                FROM latest"""
            )

    def _refuse(self) -> None:
        """Takes out what people rejected."""
        self._db.execute(f"CREATE OR REPLACE TABLE refused AS {self._verdicts.rejected_sql('entries')}")
        self._db.execute("DELETE FROM entries WHERE lookup_hash IN (SELECT lookup_hash FROM refused)")

    def _carry(self) -> int:
        """Keeps what is served now for keys of the list that have no prediction this time; returns how many.

        What people rejected is noted in `refused` instead, whether or not the job keeps anything.
        """
        names = ", ".join(listed(column.name) for column in self._list.source.key)
        self._db.execute(f"CREATE OR REPLACE TABLE rejected_before AS {self._verdicts.rejected_sql('before')}")
        self._db.execute("INSERT INTO refused FROM rejected_before")
        if self.spec.on_failure != "keep":
            return 0
        self._db.execute(  # their keys first, which are few: the texts of all entries would not fit into the memory
            "CREATE OR REPLACE TABLE kept AS SELECT lookup_hash FROM before ANTI JOIN entries USING (lookup_hash) "
            "ANTI JOIN rejected_before USING (lookup_hash) "
            f"WHERE source NOT IN {PEOPLE}"  # what people gave and is there no more was taken back
        )
        return one_integer(
            self._db,
            f"INSERT INTO entries BY NAME SELECT lookup_hash, {names}, {VALUE_COLUMNS.replace('carried', 'true AS carried')} "
            f"FROM before SEMI JOIN (FROM kept SEMI JOIN {self._list.lookups_sql} USING (lookup_hash)) USING (lookup_hash)",
        )

    def _counted(self, carried: int, compared: Compared, current: Path | None) -> Contents:
        entries = one_integer(self._db, "SELECT count(*) FROM entries")
        lookups = self._list.lookups_sql
        beyond = f"SELECT count(*) FROM (FROM entries WHERE source IN {PEOPLE}) ANTI JOIN {lookups} USING (lookup_hash)"
        # What people did not give is there for the list alone.
        covered = entries - one_integer(self._db, beyond) + self._rejected_in(lookups)
        missing = compared.changes.removed - (self._rejected_in("before") if self._before is not None else 0)
        to_review, unseen = self._reviewable()
        return Contents(
            entries=entries, covered=covered, carried=carried, served=compared.served, missing=missing,
            changed=compared.unexplained, same=self._is_same(compared, current), to_review=to_review, unseen=unseen,
            changes=compared.changes,
        )  # fmt: skip

    def _rejected_in(self, table: str) -> int:
        """How many keys of a table have no entry since people rejected it."""
        return one_integer(
            self._db,
            f"SELECT count(DISTINCT lookup_hash) FROM refused ANTI JOIN entries USING (lookup_hash) SEMI JOIN {table} USING (lookup_hash)",
        )

    def _is_same(self, compared: Compared, current: Path | None) -> bool:
        """Whether the current version says all this already."""
        if current is None or not self._is_served_alike(Manifest.read(current)):
            return False
        equal = (compared if current == self._before else self._compared(current)).equal
        return equal and not self._names.differ(self.entries_sql, current)

    def _reviewable(self) -> tuple[int, int]:
        """How many entries gate.reviewed is about, and how many of them nobody has looked at. Makes `awaiting`."""
        if self.spec.gate.reviewed == "none":
            return 0, 0
        self._db.execute(f"CREATE OR REPLACE VIEW to_review AS FROM {self._to_review()}")
        self._db.execute(
            f"CREATE OR REPLACE VIEW awaiting AS FROM to_review SEMI JOIN {self.unseen_sql} USING (lookup_hash)"
        )
        to_review = one_integer(self._db, "SELECT count(*) FROM to_review")
        return to_review, one_integer(self._db, "SELECT count(*) FROM awaiting")

    def _to_review(self) -> str:
        """The model's entries that `gate.reviewed` is about: all, or those that are not served like this already."""
        matched = verdicts.matched(self.spec, listed)
        made = f"SELECT * FROM entries WHERE source NOT IN {PEOPLE} AND {matched}"
        if self.spec.gate.reviewed == "all" or not self._is_alike(self._served):
            return f"({made})"
        return (  # hashes: a join that holds all texts would not fit into the memory that it may have
            f"(SELECT m.* FROM ({made}) m ANTI JOIN (SELECT lookup_hash, md5_number(prediction) AS hash FROM before "
            f"WHERE {matched}) b "
            "ON m.lookup_hash = b.lookup_hash AND md5_number(m.prediction) = b.hash)"
        )

    def _is_alike(self, manifest: Manifest | None) -> bool:
        """Whether a version's entries could be the job's: by the kinds of key and prediction."""
        return (
            manifest is not None
            and manifest.key == tuple(self._list.source.key)
            and manifest.prediction == self.spec.output.kind
        )

    def _is_served_alike(self, manifest: Manifest) -> bool:
        """Whether a version's entries are found and served as the job says now."""
        ours = self.spec.model_dump(mode="json", by_alias=True)
        sections = ("match", "student", "serve", "alerts")
        alike = all(manifest.spec.has_section(name, canonical_json(ours[name])) for name in sections)
        alike = alike and (self.spec.student is None or manifest.student is not None)  # an erasure removed it
        if self.spec.match is not None:
            alike = alike and manifest.match is not None and manifest.match.made_by == matcher_version()
        normalize = list(self.spec.input.normalize)
        return alike and self._is_alike(manifest) and list(manifest.normalize) == normalize

    def _compared(self, version: Path | None) -> Compared:
        """Compares `entries` with a version's."""
        new = Entries.of_table(self.entries_sql, self._list.source.key)
        return compare_entries(self._db, self._workspace.texts, new, version, verdicts.corrections(self.spec))

    # What others ask of it.

    @property
    def source(self) -> ListSource:
        """The list that it was made for."""
        return self._list.source

    @property
    def unseen_sql(self) -> str:
        """The entries that no person gave or accepted."""
        return (
            f"(SELECT * FROM entries WHERE source NOT IN {PEOPLE} "
            f"AND lookup_hash NOT IN (SELECT lookup_hash FROM ({self._verdicts.accepted_sql('entries')})))"
        )

    @property
    def served_sql(self) -> str:
        """Lookup hash and prediction of what is served now."""
        return f"(SELECT lookup_hash, prediction FROM {'entries LIMIT 0' if self._before is None else 'before'})"

    def proposed_sql(self, lookups: str) -> str:
        """Lookup hash and hashed value of what is an entry, or would be had nobody rejected it, for the keys of a table."""
        value = verdicts.hashed(self.spec, "prediction")
        return (
            f"(SELECT lookup_hash, {value} AS value FROM entries SEMI JOIN {lookups} USING (lookup_hash) "
            "UNION ALL SELECT lookup_hash, value FROM refused)"
        )

    def proposals(self, features: Collection[str] | None = None) -> Proposals:
        """What the model says of each key, and what is known of that, made again. features: that are needed; all unless given."""
        made = f"SELECT * FROM entries WHERE source NOT IN {PEOPLE}"
        found = Proposals(self._workspace, OtherScores(self._workspace))
        with self._workspace.store.attached(self._db):
            found.fill(
                f"({made} UNION ALL BY NAME (FROM ({self._withheld}) ANTI JOIN ({made}) USING (lookup_hash)))", features
            )
        return found

    @property
    def withheld_sql(self) -> str:
        """What the model says of keys that people judged, or said when it was served, where the cache is attached.

        Columns: lookup_hash, the key's, prediction, scores, score, mass, source.
        """
        return self._withheld if self.calibration.model is None else Proposals.scored_sql(self._withheld)

    @property
    def _withheld(self) -> str:
        """The same, with the model's own scores."""
        names = ", ".join(listed(column.name) for column in self._list.source.key)
        judged = self._verdicts.judged_sql
        said = (
            f"SELECT lookup_hash, {names}, {verdicts.plain(self.spec, 'g.prediction')} AS prediction, g.scores, g.score, g.mass, "
            f"'{Source.MODEL}' AS source FROM (FROM {self._list.first_rows_sql} SEMI JOIN {judged} USING (lookup_hash)) k "
            f"JOIN {self._generations} g ON g.key = k.prompt_key WHERE g.prediction IS NOT NULL"
        )
        if self._before is None or not self._is_alike(self._served) or self.spec.on_failure != "keep":
            return said
        return (
            f"WITH said AS MATERIALIZED ({said}) FROM said UNION ALL "
            f"SELECT lookup_hash, {names}, prediction, scores, score, mass, source FROM before SEMI JOIN {judged} USING (lookup_hash) "
            f"SEMI JOIN {self._list.lookups_sql} USING (lookup_hash) ANTI JOIN said USING (lookup_hash) WHERE source NOT IN {PEOPLE}"
        )

    def write(self, target: Path) -> None:
        """The copy of record as Parquet, in the order of the lookup hash, and beside it what its scores were made by."""
        key = [column.name for column in self._list.source.key]
        names = ", ".join(f"{listed(name)} AS {version_column(name)}" for name in key)
        asked = "" if PROMPT_KEY in map(str.lower, key) else f"{PROMPT_KEY}, "
        rows = f"SELECT {names}, {VALUE_COLUMNS}, {asked}lookup_hash AS lookup FROM entries"
        write_predictions(self._db, self._names.beside(rows), "lookup", target, self._workspace.texts)
        self._names.write(self.entries_sql, target.parent)
        write_calibration(self.calibration, target.parent)

    def answers_to(self, golden: pa.Table) -> Iterator[pa.RecordBatch]:
        """Query and answer of the golden rows of the list, as tables hold them, and the prediction that each has here, or null."""
        self._db.register("golden", golden)
        known = f"golden g LEFT JOIN entries e USING (lookup_hash) WHERE e.prediction IS NOT NULL OR {self._list.expected_sql}"
        rows = self._db.sql(f"SELECT g.query, g.answer, e.prediction FROM {known} ORDER BY g.query")
        yield from self._workspace.texts.all_whole(rows.to_arrow_reader(LIST_ROWS))

    def uncovered(self, limit: int) -> ExampleRows:
        """(query) of keys of the list without a prediction, those of bad rows too."""
        return self._rows(
            f"WITH every AS {self._list.every_key_sql} SELECT {self._list.query_sql()} FROM every SEMI JOIN ("
            "SELECT lookup_hash, min(row) AS row FROM every ANTI JOIN entries USING (lookup_hash) ANTI JOIN refused USING (lookup_hash) "
            f"GROUP BY lookup_hash ORDER BY 2 LIMIT {limit}) USING (lookup_hash, row) ORDER BY row"
        )

    def failed(self, limit: int) -> ExampleRows:
        """(query, reason) of bad rows first, then of prompts that failed in this run or before."""
        bad = [(row["query"], row["reason"]) for row in self._list.bad_rows(limit).to_pylist()]
        sql = f"SELECT query, reason FROM {self._failures_sql} ORDER BY query LIMIT {limit}"
        with self._workspace.store.attached(self._db):
            rest = self._db.execute(sql).fetchall()
        return self._workspace.texts.whole_rows([*bad, *rest][:limit])

    def failure_reasons(self) -> tuple[FailureReason, ...]:
        """Why rows of the list and their prompts have no answer, the most frequent reason first."""
        counts = Counter(self._list.bad_reasons())
        with self._workspace.store.attached(self._db):
            sql = f"SELECT reason, count(*) FROM {self._failures_sql} GROUP BY reason"
            counts.update(dict(self._db.execute(sql).fetchall()))
        return ranked(counts)

    @property
    def _failures_sql(self) -> str:
        """The failures of the list's prompts, of the cache that is attached."""
        return (
            f"(SELECT query, reason FROM cache.failures WHERE key IN (SELECT prompt_key FROM {self._list.prompts_sql}) "
            f"AND key NOT IN (SELECT prompt_key FROM {self._verdicts.covered_sql}))"
        )

    def gone(self, limit: int) -> ExampleRows:
        """(query) of what is served now and would be no more."""
        return self._rows(
            f"SELECT {self._served_query()} FROM before b ANTI JOIN entries USING (lookup_hash) "
            f"ANTI JOIN refused USING (lookup_hash) ORDER BY lookup_hash LIMIT {limit}"
        )

    def changed(self, limit: int) -> ExampleRows:
        """(query, old, new) of predictions that would differ from what is served now."""
        return self._rows(
            f"SELECT {self._served_query()}, b.prediction, e.prediction FROM before b JOIN entries e USING (lookup_hash) "
            f"WHERE b.prediction <> e.prediction AND e.source NOT IN {verdicts.corrections(self.spec)} "
            f"ORDER BY lookup_hash LIMIT {limit}"
        )

    def carried(self, limit: int) -> ExampleRows:
        """(query) of entries that are kept from what is served now."""
        return self._rows(
            f"SELECT {self._list.query_sql()} FROM entries WHERE carried ORDER BY lookup_hash LIMIT {limit}"
        )

    def unreviewed(self, limit: int) -> ExampleRows:
        """(query, prediction) of entries that gate.reviewed is about and nobody has looked at."""
        return self._rows(
            f"SELECT {self._list.query_sql()}, prediction FROM awaiting ORDER BY score NULLS LAST, lookup_hash LIMIT {limit}"
        )

    def _served_query(self) -> str:
        """The key as the version served now has it, which may be of other columns."""
        assert self._served is not None
        return f"{query_json(self._served.key, lambda name: f'b.{listed(name)}')}::VARCHAR"

    def _rows(self, sql: str) -> ExampleRows:
        return self._workspace.texts.whole_rows(self._db.execute(sql).fetchall())
