"""What every command begins with: the list read, stored answers read again, a refresh taken up, a question or none."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core.clock import now
from batchinfer.core.output import OutputFile
from batchinfer.errors import UsageError
from batchinfer.pipeline import export
from batchinfer.planning.prepare import Options
from batchinfer.planning.shown_rows import tell_shown_rows
from tests.factories import Reply, imports_job, model_job
from tests.plans import REFUSED, Make, asked, counts, echo


def test_failures_of_another_parser_are_judged_again(make: Make) -> None:
    """When the way of reading changes, stored texts that failed are read again: those that now pass are hits."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]}, output={"type": "regex", "pattern": "[0-9]+"})
    replies: dict[str, Reply] = {"a": "12 ", "b": "none", "c": REFUSED}
    world.answer(lambda row: replies[row["text"]])
    assert counts(world).failed == 3
    stripped = world.changed(output={"type": "regex", "pattern": "[0-9]+", "steps": ["strip"]})
    with stripped.prepared(writes=True) as p:
        assert (p.plan.counts.cached, p.plan.counts.failed, p.plan.counts.to_generate) == (1, 2, 0)
    assert counts(stripped, retry_failed=True).to_generate == 2


def test_answers_that_fail_under_another_parser_are_told_with_their_rows(make: Make) -> None:
    """A prediction that a new way of reading refuses is a failure that names the row which asked."""
    choice = {"type": "choice", "choices": ["Ja", "Nein"]}
    world = make({"id": [7, 8, 9], "text": ["a", "b", "b"]}, output=choice)
    world.answer(lambda row: [-0.1, -3.0] if row["text"] == "a" else [-4.0, -5.0])
    strict = world.changed(output={**choice, "min_mass": 0.5})
    with strict.prepared(writes=True) as p:
        assert (p.plan.counts.cached, p.plan.counts.failed, p.plan.counts.to_generate) == (1, 1, 0)
    assert [(row.reason, row.query) for row in strict.store.failures()] == [("off_choice", {"id": 8})]


def test_a_refresh_that_was_stopped_goes_on(make: Make) -> None:
    """What was made since an unfinished refresh began is done; another refresh, or one after it, begins again."""
    world = make({"id": ["1", "2"], "text": ["a", "b"]})
    world.answer(echo)
    world.data.remember_refresh("all", now())
    assert asked(world, refresh=True) == ["a", "b"]
    world.answer(lambda row: "new", refresh=True)
    assert asked(world, refresh=True) == []
    assert asked(world, refresh=True, refresh_where=("id", "2")) == ["b"]
    world.data.clear_refresh()
    assert asked(world, refresh=True) == ["a", "b"]


def test_refresh_of_a_column_that_is_not_used_is_refused(make: Make) -> None:
    """A column by which the list is only filtered, or that it lacks, cannot say what to refresh."""
    where = {"path": "queries.parquet", "key": ["id"], "where": {"lang": "de"}}
    world = make({"id": [1], "text": ["a"], "lang": ["de"]}, input=where)
    for name in ("lang", "nowhere"):
        with pytest.raises(UsageError, match=f"the list has no column {name} that the job uses"):
            counts(world, refresh=True, refresh_where=(name, "de"))


def test_an_imports_job_has_a_plan_without_a_question(tmp_path: Path) -> None:
    """A job without a prompt counts its list and what imports cover."""
    world = imports_job(tmp_path, {"id": [1, 2, 2, None]})
    world.take_in({"id": [1], "prediction": ["x"]})
    found = counts(world)
    assert (found.rows, found.bad, found.unique, found.cached, found.to_generate) == (4, 1, 2, 1, 1)


@pytest.mark.parametrize("name", ["o'brien", 'say "hi"', "a;b -- [c]*", "Köln ☕"])
@pytest.mark.long
def test_any_name_of_the_data_folder_will_do(tmp_path: Path, name: str) -> None:
    """Paths reach SQL whole: a quote in one is planned, exported and published like any other."""
    (tmp_path / name).mkdir()
    world = model_job(tmp_path / name, {"id": [1], "text": ["a"]})
    world.answer(echo)
    assert counts(world).cached == 1
    assert world.publish().version == 1
    assert world.publish().unchanged
    target = tmp_path / name / f"{name}.parquet"
    assert export.export(world.job, world.data, Options(), OutputFile.of(target)).rows == 1
    assert pq.read_table(pa.OSFile(str(target)))["prediction"].to_pylist() == ["about a"]


def test_examples_that_are_rows_of_the_list_are_told(tmp_path: Path) -> None:
    """All columns of the template must be equal; numbers are compared as texts; without such examples nothing is said."""
    examples = [
        {"input": {"text": text, "n": n}, "output": "x"} for text, n in (("a", 1), ("a", 2), ("it's", 3), ("d", 4))
    ]
    prompt = {"template": "{{ text }} {{ n }}", "examples": examples}
    world = model_job(tmp_path, {"id": [1, 2, 3], "text": ["a", "it's", "d"], "n": [1, 3, 9]}, prompt=prompt)
    told: list[str] = []
    with world.prepared() as prepared:
        tell_shown_rows(prepared, told.append)
    [sentence] = told
    assert sentence.startswith("2 examples of the prompt are rows of the list")
    with world.changed(prompt=prompt | {"shots": 0}).prepared() as prepared:
        tell_shown_rows(prepared, told.append)
    assert len(told) == 1
