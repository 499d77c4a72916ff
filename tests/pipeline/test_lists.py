"""One list in several forms: the same keys, so all that is cached is found again."""

from __future__ import annotations

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.publish import publish_prepared
from batchinfer.planning.prepare import Options
from batchinfer.publish.caution import Consent
from batchinfer.publish.needs import read_publishing_needs
from batchinfer.versions import folders
from batchinfer.versions.layout import MANIFEST
from tests.factories import Quiet, World, model_job

COLUMNS: dict[str, list[Any]] = {
    "id": [7, 8, 9],
    "day": [date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)],
    "text": ['say "x",\nthen; y', "ü 😀", "007"],
    "price": [0.1, 2.0, 1e-7],
    "sold": [True, False, True],
}
TYPES = {"id": "integer", "day": "date", "price": "number", "sold": "boolean"}
ROWS = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*COLUMNS.values(), strict=True)]


def as_csv(folder: Path) -> dict[str, Any]:
    with (folder / "q.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS), delimiter=";")
        writer.writeheader()
        writer.writerows([row | {"sold": str(row["sold"]).lower()} for row in ROWS])
    return {"path": "q.csv", "types": TYPES}


def as_json_lines(folder: Path) -> dict[str, Any]:
    lines = [json.dumps(row | {"day": row["day"].isoformat()}) for row in ROWS]
    (folder / "q.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"path": "*.jsonl", "types": {"day": "date"}}


def as_sql(_: Path) -> dict[str, Any]:
    return {"sql": "SELECT * FROM '{folder}/queries.parquet'"}


def as_sql_over_csv(folder: Path) -> dict[str, Any]:
    as_csv(folder)
    return {"sql": "SELECT * FROM read_csv('{folder}/q.csv', all_varchar = true)", "types": TYPES}


@pytest.mark.parametrize("form", [as_csv, as_json_lines, as_sql, as_sql_over_csv])
def test_the_same_rows_are_all_hits(tmp_path: Path, form: Any) -> None:
    """Whatever the list is written as, also by --input."""
    template = "{{ text }} {{ day }} {{ price }} {{ sold }}"
    world = model_job(
        tmp_path, COLUMNS, input={"path": "queries.parquet", "key": ["id", "day"]}, prompt={"template": template}
    )
    world.answer(lambda row: str(row["text"]))
    other = world.changed(input={"key": ["id", "day"], **form(world.job.folder)})
    with other.prepared() as prepared:
        counts = prepared.plan.counts
        assert (counts.rows, counts.bad, counts.cached, counts.to_generate) == (3, 0, 3, 0)
    assert other.publish(yes=True).entries == 3


def test_cells_that_do_not_fit_are_bad_rows(tmp_path: Path) -> None:
    """With the name of the file that people know."""
    world = model_job(
        tmp_path,
        {"id": [1]},
        input={"path": "q.csv", "key": ["id"], "types": {"id": "integer"}},
        prompt={"template": "{{ id }}"},
    )
    (world.job.folder / "q.csv").write_text("id\n1\nx\n\n3\n", encoding="utf-8")
    with world.prepared() as prepared:
        assert prepared.plan.counts.rows == 3
        [bad] = prepared.query_list.bad_rows().to_pylist()
    assert (bad["row"], bad["reason"]) == (2, "wrong_type")
    assert "got 'x'" in bad["detail"]


def dated_world(folder: Path) -> World:
    world = model_job(
        folder,
        {"id": ["a"]},
        input={"path": "in/{date:%Y-%m-%d}/*.csv", "key": ["id"]},
        prompt={"template": "{{ id }}"},
        gate={"shrink": 0.5},
    )
    for day, names in (("2026-11-16", "a b"), ("2026-11-23", "a b c")):
        (world.job.folder / "in" / day).mkdir(parents=True)
        (world.job.folder / "in" / day / "q.csv").write_text("id\n" + names.replace(" ", "\n"), encoding="utf-8")
    return world


def run_facts(world: World, version: int) -> dict[str, Any]:
    text = (folders.folder_of(world.data, version) / MANIFEST).read_text(encoding="utf-8")
    return dict(json.loads(text)["run"])


def test_what_a_version_was_made_of_is_recorded(tmp_path: Path) -> None:
    """The date that was taken. Another date of the same path is no other list: nobody is asked."""
    world = dated_world(tmp_path)
    world.answer(lambda row: row["id"])
    planned = plan(world.job, world.data, Options()).to_json()["list"]
    assert world.publish(yes=False).entries == 3
    of = run_facts(world, 1)
    assert of["list"] == planned
    assert of["input"] == "in/{date:%Y-%m-%d}/*.csv"
    assert (of["list"]["name"], of["list"]["files"], of["list"]["bytes"]) == ("in/2026-11-23/*.csv", 1, 8)
    assert of["list"]["modified"].endswith("Z")
    earlier = World(world.job.at_date(date(2026, 11, 16)), world.data)
    report = earlier.publish(yes=False)
    assert (report.entries, report.list_differs) == (2, None)
    assert run_facts(world, 2)["list"]["name"] == "in/2026-11-16/*.csv"


def test_a_file_that_moves_while_a_run_goes_on(tmp_path: Path) -> None:
    """What was read is published, and recorded as it was."""
    world = dated_world(tmp_path)
    world.answer(lambda row: row["id"])
    with world.prepared(writes=True) as prepared:
        (world.job.folder / "in").rename(world.job.folder / "done")
        outcome = publish_prepared(
            prepared, 1, 0, read_publishing_needs(world.job, prepared.query_list.source), Quiet(), Consent()
        )
    assert outcome.version == 1
    assert run_facts(world, 1)["list"]["bytes"] == 8


def test_a_query_is_recorded_by_its_words(tmp_path: Path) -> None:
    """It has no files that are known."""
    world = model_job(tmp_path, COLUMNS, input={"key": ["id"], **as_sql(tmp_path)}, prompt={"template": "{{ text }}"})
    world.answer(lambda row: "x")
    world.publish()
    name = "the query SELECT * FROM '{folder}/queries.parquet'"
    assert run_facts(world, 1)["list"] == {"name": name, "files": None, "bytes": None, "modified": None}
