"""The cache file: migrations, whole chunks or nothing, taking turns, and reading stored texts again."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.cache import imports, patience, pieces, store
from batchinfer.cache.schema import MIGRATIONS, MostCached, RunStatus
from batchinfer.cache.store import Store
from batchinfer.core.keys import short
from batchinfer.core.long_texts import CLOSE, OPEN_JSON, LongTexts, text_digest
from batchinfer.core.records import Answer, Failure, Generation, Prediction, Provenance
from batchinfer.errors import Busy, StoreError
from batchinfer.inputs.query_list import BAD_ROWS
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.parse import Parser
from tests.factories import LENIENT, model_job

FINGERPRINT = b"f" * 16
MADE = Provenance(FINGERPRINT, "p1", "m", 1)


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    """A fresh cache."""
    fresh = Store(tmp_path / "cache.duckdb")
    fresh.create_or_migrate()
    return fresh


@pytest.fixture
def cache(empty: Store) -> Store:
    """A cache in which run 1 has begun."""
    assert empty.start_run(FINGERPRINT, {}) == 1
    return empty


def answer(name: str, text: str = "yes", logprobs: tuple[float, ...] | None = None) -> Answer:
    """An answer to the prompt `name`, read as plain text."""
    return Answer(Generation(short(name.encode()), text, "stop", 9, 4, 2, logprobs), Prediction(text))


def refused(name: str, stage: str = "engine") -> tuple[Failure, Mapping[str, Any]]:
    """A failure of the prompt `name`."""
    assert stage in ("engine", "parse")
    return Failure(short(name.encode()), "parse" if stage == "parse" else "engine", "cut_off", "Why."), {"id": name}


def rows(cache: Store, sql: str) -> list[Any]:
    with cache.open() as db:
        return list(db.execute(sql).fetchall())


def count(cache: Store, table: str = "generations") -> int:
    return int(rows(cache, f"SELECT count(*) FROM {table}")[0][0])


@contextlib.contextmanager
def process(source: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own; its lines can be read; killed at the end."""
    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def heard(running: subprocess.Popen[str]) -> str:
    """The process's next line."""
    assert running.stdout is not None
    return running.stdout.readline().strip()


def test_the_first_use_makes_the_tables(tmp_path: Path) -> None:
    """A cache comes into being with its tables, and every migration is recorded by number and name."""
    cache = Store(tmp_path / "cache.duckdb")
    cache.create_or_migrate()
    tables = {name for (name,) in rows(cache, "SELECT table_name FROM information_schema.tables")}
    assert tables == {
        "migrations",
        "generations",
        "failures",
        "imports",
        "import_keys",
        "long_texts",
        "runs",
        "run_questions",
        "chunks",
        "versions",
    }
    recorded = rows(cache, "SELECT number, name FROM migrations ORDER BY number")
    assert recorded == [(number, name) for number, (name, _) in enumerate(MIGRATIONS, 1)]


def test_preparing_again_changes_nothing(cache: Store) -> None:
    """A cache that is up to date is left as it is, contents and all."""
    cache.commit([answer("a")], [], MADE, replace=False)
    before = cache.path.read_bytes()
    cache.create_or_migrate()
    assert cache.path.read_bytes() == before
    assert count(cache) == 1


def test_an_older_cache_is_brought_up_to_date(cache: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the migrations that a cache has not seen are applied to it, and its rows stay."""
    cache.commit([answer("a")], [], MADE, replace=False)
    monkeypatch.setattr(store, "MIGRATIONS", [*MIGRATIONS, ("add notes", "CREATE TABLE notes (text VARCHAR)")])
    cache.create_or_migrate()
    assert rows(cache, "SELECT name FROM migrations ORDER BY number")[-1] == ("add notes",)
    assert (count(cache), count(cache, "notes")) == (1, 0)


def test_long_json_of_an_older_cache_is_shortened(cache: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that stood whole in a row, and JSON that one token stood for, become what a newer program makes of them."""
    value = {"names": ["x" * 90] * 200, "sure": True, "note": "y" * 5000}
    text = json.dumps(value)
    old = f'"{OPEN_JSON}{"0" * 112}{text_digest(text.encode()).hex()}{CLOSE}"'
    with monkeypatch.context() as older:
        names = [name for name, _ in MIGRATIONS]
        older.setattr(store, "MIGRATIONS", MIGRATIONS[: names.index("long lists of JSON among long texts")])
        cache.path.unlink()
        cache.create_or_migrate()
        with cache.open(write=True) as db:
            pieces.insert(
                db, "long_texts", [text_digest(text.encode())], {text_digest(text.encode()): text.encode()}.__getitem__
            )
            db.execute("INSERT INTO generations (key, prediction) VALUES ('a', ?), ('b', ?)", [text, old])
            db.execute(
                "INSERT INTO imports (lookup, query, prediction) VALUES ('a', '{}', ?)", [json.dumps(value["names"])]
            )
    cache.create_or_migrate()
    with cache.open() as db:
        cells = db.execute("SELECT prediction FROM generations UNION ALL SELECT prediction FROM imports").fetchall()
        assert max(len(cell) for (cell,) in cells) < 500
        found = [json.loads(pieces.whole_stored(db, cell)) for (cell,) in cells]
        assert found == [value, value, value["names"]]
        assert db.execute(
            "SELECT count(*) FROM generations WHERE json_extract_string(prediction, '$.sure') = 'true'"
        ).fetchall() == [(2,)]


def test_a_failing_migration_leaves_the_cache_as_it_was(cache: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations are applied and recorded in one transaction, or not at all."""
    steps = [("add notes", "CREATE TABLE notes (text VARCHAR)"), ("break", "CREATE TABLE generations (x INTEGER)")]
    monkeypatch.setattr(store, "MIGRATIONS", [*MIGRATIONS, *steps])
    with pytest.raises(StoreError, match="already exists"):
        cache.create_or_migrate()
    assert len(rows(cache, "SELECT * FROM migrations")) == len(MIGRATIONS)
    assert rows(cache, "SELECT * FROM information_schema.tables WHERE table_name = 'notes'") == []


def test_a_cache_of_a_newer_program_is_refused_and_left_as_it_is(cache: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with migrations that this program does not know is refused, with what to do, and not written to."""
    with monkeypatch.context() as newer:
        newer.setattr(store, "MIGRATIONS", [*MIGRATIONS, ("from the future", "CREATE TABLE future (x INTEGER)")])
        cache.create_or_migrate()
    before = cache.path.read_bytes()
    said = (
        f"newer batchinfer .its format is {len(MIGRATIONS) + 1}, this one knows {len(MIGRATIONS)}.: install the newer"
    )
    with pytest.raises(StoreError, match=said):
        cache.create_or_migrate()
    assert cache.path.read_bytes() == before


def test_some_other_duckdb_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """A database of another program that bears the cache's name is not written to."""
    path = tmp_path / "cache.duckdb"
    with duckdb.connect(path) as db:
        db.execute("CREATE TABLE sales (euros INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="some other DuckDB file: move it away"):
        Store(path).create_or_migrate()
    assert path.read_bytes() == before


@pytest.mark.parametrize("folder", ["data", "locks"])
def test_a_file_that_is_no_database_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A damaged file is said to be unusable, not waited for, whatever the folder is called."""
    path = tmp_path / folder / "cache.duckdb"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was waited for"))
    with pytest.raises(StoreError, match="not a valid DuckDB database file"):
        Store(path).create_or_migrate()


def test_reading_a_cache_that_is_not_there_makes_none(tmp_path: Path) -> None:
    """Only `create_or_migrate` creates a cache; reading a missing one is an error."""
    path = tmp_path / "cache.duckdb"
    with pytest.raises(StoreError, match="cannot be used"):
        Store(path).runs()
    assert not path.exists()


def test_a_chunk_is_stored_with_all_that_is_known_of_it(cache: Store) -> None:
    """A generation keeps its raw text, token counts, log-probabilities and what was read from it."""
    scored = Answer(
        Generation(b"k" * 16, "raw é\n", "length", 9, 4, 1, (-0.5, -1.5)),
        Prediction({"names": ["é", None]}, 0.75, {"Ja": 0.75, "Nein": 0.25}, 0.5),
    )
    cache.commit([scored], [refused("b")], MADE, replace=False)
    columns = "key, fingerprint, text, finish_reason, prompt_tokens, cached_tokens, output_tokens, logprobs"
    assert rows(cache, f"SELECT {columns} FROM generations") == [
        (b"k" * 16, FINGERPRINT, "raw é\n", "length", 9, 4, 1, [-0.5, -1.5])
    ]
    read = rows(cache, "SELECT parser, prediction, score, scores, mass, model, run_id FROM generations")
    assert read == [("p1", '{"names": ["é", null]}', 0.75, '{"Ja": 0.75, "Nein": 0.25}', 0.5, "m", 1)]
    (failure,) = cache.failures()
    assert failure.to_json() | {"at": None} == {
        "stage": "engine", "reason": "cut_off", "detail": "Why.", "query": {"id": "b"}, "row": None, "run_id": 1, "at": None, "text": None,
    }  # fmt: skip
    assert cache.failure_reasons() == {"cut_off": 1}


def test_a_commit_is_one_transaction(cache: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where any part of a chunk cannot be stored, none of it is, and what was there before still is."""
    cache.commit([answer("old")], [refused("older")], MADE, replace=False)
    monkeypatch.setattr(store, "FAILURE_SCHEMA", pa.schema({"nonsense": pa.string()}))  # the last statement will fail
    with pytest.raises(StoreError, match="nonsense"):
        cache.commit([answer("old", "changed"), answer("new")], [refused("x")], MADE, replace=True)
    assert rows(cache, "SELECT text FROM generations") == [("yes",)]
    assert [row.query for row in cache.failures()] == [{"id": "older"}]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_is_raised_inside_rolls_back(cache: Store, error: type[BaseException]) -> None:
    """A transaction ends with its block: an exception of any kind, Ctrl-C too, undoes it and is passed on."""

    def break_off() -> None:
        with cache.open(write=True) as db:
            db.execute("INSERT INTO versions VALUES (1, 1, 1, NULL)")
            raise error

    with pytest.raises(error):
        break_off()
    assert count(cache, "versions") == 0


def test_a_refresh_replaces_and_a_plain_commit_adds(cache: Store) -> None:
    """With `replace`, a key's older generation and failures go; nothing is there twice."""
    cache.commit([answer("a", "old")], [refused("b"), refused("c")], MADE, replace=False)
    cache.commit([answer("a", "new"), answer("b")], [refused("c")], MADE, replace=True)
    assert sorted(rows(cache, "SELECT text FROM generations")) == [("new",), ("yes",)]
    assert [row.query for row in cache.failures()] == [{"id": "c"}]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=50))
@settings(max_examples=6, deadline=None)
def test_any_text_is_stored_byte_for_byte(texts: list[str]) -> None:
    """Raw text and prediction come back as they went in, whatever characters they hold."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Store(Path(folder) / "cache.duckdb")
        cache.create_or_migrate()
        cache.commit([answer(str(number), text) for number, text in enumerate(texts)], [], MADE, replace=False)
        stored = rows(cache, "SELECT text, json_extract_string(prediction, '$') FROM generations")
        assert stored == [(text, text) for text in texts]


HOLD = """
    import sys, time
    from pathlib import Path
    from batchinfer.cache.store import Store
    with Store(Path(sys.argv[1])).open(write=True) as db:
        db.execute("INSERT INTO versions VALUES (7, 1, 1, NULL)")
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
"""


@pytest.mark.long
def test_a_cache_in_use_is_waited_for(cache: Store) -> None:
    """While another process writes for a moment, readers and writers wait, and then see what it wrote."""
    with process(HOLD, cache.path, 1.0) as other:
        assert heard(other) == "held"
        assert count(cache, "versions") == 1
    cache.commit([answer("a")], [], MADE, replace=False)
    assert count(cache) == 1


@pytest.mark.long
def test_a_cache_in_use_for_long_is_busy(
    cache: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where another process does not let go, reading, writing and attaching say for whom they wait, end as Busy, and all is well after."""
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0)
    cache = Store(cache.path, patience=0.5)
    with process(HOLD, cache.path, 600) as other:
        assert heard(other) == "held"
        said = f"Process {other.pid} has {re.escape(str(cache.path))} open: wait for it, or stop it"
        with pytest.raises(Busy, match=said):
            cache.runs()
        assert caplog.messages == [f"Waiting for {cache.path}, which process {other.pid} has open ..."]
        with pytest.raises(Busy, match=said):
            cache.commit([answer("a")], [], MADE, replace=False)
        with duckdb.connect() as db, pytest.raises(Busy, match=said), cache.attached(db):
            pass
    assert (count(cache), count(cache, "versions")) == (0, 0)  # the other was killed before it committed


WRITE = """
    import itertools, sys
    from pathlib import Path
    from batchinfer.core.keys import short
    from batchinfer.core.records import Answer, Failure, Generation, Prediction, Provenance
    from batchinfer.cache.store import Store
    made = Provenance(b"f" * 16, "p1", "m", 1)
    store = Store(Path(sys.argv[1]))
    for chunk in itertools.count():
        names = [f"{chunk}/{number}" for number in range(50)]
        answers = [Answer(Generation(short(n.encode()), n, "stop", 9, 4, 2), Prediction(n)) for n in names[10:]]
        failures = [(Failure(short(n.encode()), "engine", "refused", n), {"id": n}) for n in names[:10]]
        store.commit(answers, failures, made, replace=False)
        print(chunk, flush=True)
"""


@pytest.mark.parametrize("moment", [0.0, 0.003, 0.009, 0.02])
@pytest.mark.long
def test_a_killed_writer_leaves_whole_chunks(cache: Store, moment: float) -> None:
    """After kill -9 in the middle of writing, the cache opens and holds every reported chunk, whole, and no half one."""
    with process(WRITE, cache.path) as writer:
        for _ in range(4):
            reported = int(heard(writer))
        time.sleep(moment)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.stdout is not None
        reported = max([reported, *map(int, writer.stdout.read().split())])
    whole = "SELECT split_part({}, '/', 1)::INT, count(DISTINCT key), count(*) FROM {} GROUP BY 1 ORDER BY 1"
    made = rows(cache, whole.format("text", "generations"))
    failed = rows(cache, whole.format("detail", "failures"))
    assert made == [(chunk, 40, 40) for chunk in range(len(made))]
    assert failed == [(chunk, 10, 10) for chunk in range(len(made))]
    assert reported + 1 <= len(made) <= reported + 2  # the last may have been committed but not yet reported
    cache.commit([answer("and on")], [], MADE, replace=False)
    assert count(cache) == 40 * len(made) + 1


def reread(cache: Store, parser: str, spec: OutputSpec) -> int:
    def queries(keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        return {short(name.encode()): {"id": name} for name in "abc" if short(name.encode()) in keys}

    return cache.reread(Parser(spec), replace(MADE, parser=parser, run_id=None), queries)


TEXTS = {"a": "12", "b": "twelve", "c": "13"}


def test_another_parser_makes_failures_of_predictions_and_back(cache: Store) -> None:
    """Stored texts are judged again both ways; their texts, times and other facts stay, and nothing is there twice."""
    cache.commit([answer(name, text) for name, text in TEXTS.items()], [refused("d")], MADE, replace=False)
    kept = "SELECT key, text, finish_reason, prompt_tokens, output_tokens, model, run_id, created_at FROM generations ORDER BY key"
    before = rows(cache, kept)
    digits = OutputSpec(type="regex", pattern="[0-9]+")

    assert reread(cache, "p2", digits) == 3
    judged = "SELECT text, prediction, parser FROM generations ORDER BY text"
    assert rows(cache, judged) == [("12", '"12"', "p2"), ("13", '"13"', "p2"), ("twelve", None, "p2")]
    assert rows(cache, "SELECT key, stage, reason, parser FROM failures ORDER BY stage DESC") == [
        (short(b"b"), "parse", "not_in_pattern", "p2"),
        (short(b"d"), "engine", "cut_off", "p1"),
    ]
    # the row can be told from its failure
    assert sorted((row.query or {})["id"] for row in cache.failures()) == ["b", "d"]

    assert reread(cache, "p3", OutputSpec()) == 3
    assert [prediction for _, prediction, _ in rows(cache, judged)] == ['"12"', '"13"', '"twelve"']
    assert rows(cache, "SELECT stage FROM failures") == [("engine",)]
    assert rows(cache, kept) == before


def test_reading_again_keeps_the_failed_rows_queries(cache: Store) -> None:
    """A row that fails under the next parser too keeps the query by which people know it."""
    cache.commit([answer("a", "x")], [refused("a", "parse")], MADE, replace=False)
    reread(cache, "p2", OutputSpec(type="regex", pattern="[0-9]+"))
    assert [(row.query, row.reason) for row in cache.failures()] == [({"id": "a"}, "not_in_pattern")]


def test_only_texts_of_this_question_and_another_parser_are_read_again(cache: Store) -> None:
    """Texts that this parser has judged, or that answer another question, are left alone."""
    cache.commit([answer("a")], [], MADE, replace=False)
    cache.commit([answer("b")], [], replace(MADE, fingerprint=b"g" * 16), replace=False)
    assert reread(cache, "p1", OutputSpec()) == 0
    assert reread(cache, "p2", OutputSpec()) == 1
    assert reread(cache, "p2", OutputSpec()) == 0
    assert rows(cache, "SELECT parser FROM generations ORDER BY fingerprint") == [("p2",), ("p1",)]


def test_texts_that_break_the_reading_fail_alone(cache: Store) -> None:
    """One text among those that are read again whose check raises, or is nested without measure, becomes a failure."""
    texts = {"a": "1.5", "b": "9" * 401, "c": "[" * 400 + "]" * 400, "d": "2"}
    cache.commit([answer(name, text) for name, text in texts.items()], [], MADE, replace=False)
    assert reread(cache, "p2", OutputSpec.model_validate({"type": "json", "schema": {"multipleOf": 0.5}})) == 4
    assert rows(cache, "SELECT prediction FROM generations ORDER BY text") == [("1.5",), ("2",), (None,), (None,)]
    assert cache.failure_reasons() == {"unreadable": 1, "too_deep": 1}


def test_reading_again_keeps_what_it_has_done(cache: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before something ends the reading is stored, and the next time goes on from there."""
    monkeypatch.setattr(store, "CHUNK_SECONDS", 0.0)
    cache.commit([answer(name) for name in "abcd"], [], MADE, replace=False)
    seen: list[bytes | None] = []

    def read(text: Generation, _row: Mapping[str, Any]) -> Prediction:
        seen.append(text.prompt_key)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return Prediction(text.text)

    made = replace(MADE, parser="p2")
    with pytest.raises(KeyboardInterrupt):
        cache.reread(read, made, lambda _: {})
    assert rows(cache, "SELECT parser, count(*) FROM generations GROUP BY ALL ORDER BY ALL") == [("p1", 2), ("p2", 2)]
    assert cache.reread(read, made, lambda _: {}) == 2


def test_choices_are_read_again_from_their_log_probabilities(cache: Store) -> None:
    """Scores are made again from what was stored, so a bound on the mass can be moved without the model."""
    cache.commit([answer("a", "", (-3.0, -4.0)), answer("b", "", (-0.5, -1.5))], [], MADE, replace=False)
    reread(cache, "p2", OutputSpec(type="choice", choices=["Ja", "Nein"], min_mass=0.5))
    assert rows(cache, "SELECT prediction FROM generations ORDER BY mass NULLS FIRST") == [(None,), ('"Ja"',)]
    assert cache.failure_reasons() == {"off_choice": 1}
    reread(cache, "p3", OutputSpec(type="choice", choices=["Ja", "Nein"]))
    assert rows(cache, "SELECT count(prediction), min(score) > 0.5 FROM generations") == [(2, True)]


NO_TEXTS = LongTexts(Path())  # which makes no file until it is given one
IMPORT = "SELECT unhex('00') AS lookup, '{}' AS query, '\"x\"' AS prediction, 0.5 AS score"


def test_imports_are_numbered_listed_and_taken_back(cache: Store) -> None:
    """Each import gets a number that none had before; taking one back removes its rows and no others."""

    def add(size: int, author: str) -> int:
        with duckdb.connect() as db:
            return imports.store_import(cache, db, f"{IMPORT}, '{author}' AS author FROM range({size})", "{}", NO_TEXTS)

    assert imports.all_imports(cache) == []
    assert [add(2, "Ada"), add(1, "Bob")] == [1, 2]
    assert [(row.import_id, row.author, row.rows) for row in imports.all_imports(cache)] == [
        (1, "Ada", 2),
        (2, "Bob", 1),
    ]
    assert imports.remove_import(cache, 1) == 2
    assert [row.import_id for row in imports.all_imports(cache)] == [2]
    assert imports.remove_import(cache, 1) == 0
    assert imports.remove_import(cache, 2) == 1
    assert add(1, "Eve") == 3


def test_an_import_that_breaks_off_leaves_nothing(cache: Store) -> None:
    """An error while rows are handed in undoes the import; the database of the rows can be used again."""
    with duckdb.connect() as db:
        rows = f"{IMPORT}, if(i = 200000, error('row 200000 is off'), 'Ada') AS author FROM range(300000) r(i)"
        with pytest.raises(StoreError, match="row 200000 is off"):
            imports.store_import(cache, db, rows, "{}", NO_TEXTS)
        assert imports.all_imports(cache) == []
        assert imports.store_import(cache, db, f"{IMPORT}, 'Ada' AS author", "{}", NO_TEXTS) == 1
    assert [row.rows for row in imports.all_imports(cache)] == [1]


def test_runs_are_numbered_and_told_newest_first(empty: Store) -> None:
    """A run's report comes back with its number, status and times; a run under way has no end yet."""
    first = empty.start_run(FINGERPRINT, {"prompt": {"template": "é"}})
    empty.finish_run(first, RunStatus.DONE, {"rows": 3, "version": 1, "entries": 2})
    empty.add_version(1, first, 2)
    second = empty.start_run(FINGERPRINT, None)
    (newest, oldest) = empty.runs()
    assert (newest.run_id, newest.status, newest.finished_at) == (second, "running", None)
    assert oldest.to_json().items() >= {"run_id": first, "status": "done", "rows": 3, "version": 1}.items()
    assert datetime.fromisoformat(str(oldest.started_at)) <= datetime.fromisoformat(str(oldest.finished_at))
    assert rows(empty, "SELECT version, run_id, rows FROM versions") == [(1, first, 2)]


def test_the_next_run_says_of_a_killed_one_that_it_was(empty: Store) -> None:
    """A run that never ended is marked as killed when the next one starts; runs that ended keep their status."""
    killed = empty.start_run(FINGERPRINT, None)
    stopped = empty.start_run(FINGERPRINT, None)
    empty.finish_run(stopped, RunStatus.INTERRUPTED, {})
    empty.start_run(FINGERPRINT, None)
    assert [(run.run_id, run.status) for run in empty.runs()] == [
        (3, "running"), (stopped, "interrupted"), (killed, "killed"),
    ]  # fmt: skip


def test_the_question_that_most_answers_are_of_is_known(empty: Store) -> None:
    """What a new question is compared with is the one that most of the cache answers, with what it was made of."""
    assert empty.most_cached() is None
    empty.start_run(FINGERPRINT, {"a": "é"})
    empty.start_run(b"2" * 16, {"a": [1.5]})  # it stored nothing
    empty.commit([Answer(Generation(b"k" * 16, "x", "stop", 1, 0, 1), Prediction("x"))], [], MADE, replace=False)
    assert empty.most_cached() == MostCached(FINGERPRINT, {"a": "é"}, 1)


def test_failures_of_an_earlier_question_are_kept_but_not_told(cache: Store) -> None:
    """The dead letters are those of the newest run's question; going back to an earlier one brings its own back."""
    cache.commit([], [refused("a")], MADE, replace=False)
    cache.start_run(b"g" * 16, {})
    assert (cache.failures(), cache.failure_reasons(), count(cache, "failures")) == ([], {}, 1)
    cache.start_run(FINGERPRINT, {})
    assert cache.failure_reasons() == {"cut_off": 1}


def test_bad_rows_are_those_of_the_list_as_it_is_now(cache: Store) -> None:
    """Bad rows replace those of an earlier list; failures of prompts stay."""

    def bad(*numbers: int) -> pa.Table:
        found = [{"row": number, "query": '{"id": null}', "reason": "null_key"} for number in numbers]
        return pa.Table.from_pylist(found, BAD_ROWS)

    cache.commit([], [refused("a")], MADE, replace=False)
    cache.replace_bad_rows(bad(1, 2, 3), NO_TEXTS)
    assert cache.failure_reasons() == {"null_key": 3, "cut_off": 1}
    cache.replace_bad_rows(bad(5), NO_TEXTS)
    assert sorted(str(row.row) for row in cache.failures()) == ["5", "None"]
    assert len(cache.failures(limit=1)) == 1
    cache.replace_bad_rows(bad(), NO_TEXTS)
    assert cache.failure_reasons() == {"cut_off": 1}


def test_a_parser_that_looks_at_rows_leaves_what_the_list_lacks(cache: Store) -> None:
    """Texts whose rows are at hand are read again; the others wait, however many there are, and are read once they are."""
    cache.commit([answer(name, "a,b,c") for name in "abc"], [], MADE, replace=False)
    parser = Parser(OutputSpec.model_validate({"steps": [{"split": ","}, {"drop_echo": "name"}]}))
    made = replace(MADE, parser="p2", run_id=None)

    def rows_of(names: str) -> Callable[[Sequence[bytes]], dict[bytes, dict[str, Any]]]:
        return lambda keys: {key: {"name": name} for name in names if (key := short(name.encode())) in keys}

    read = "SELECT prediction FROM generations WHERE parser = 'p2' ORDER BY prediction"
    assert cache.reread(parser, made, rows_of(""), rows_of("")) == 0
    assert cache.reread(parser, made, rows_of(""), rows_of("a")) == 1
    assert rows(cache, read) == [('["b", "c"]',)]
    assert cache.reread(parser, made, rows_of(""), rows_of("abc")) == 2
    assert rows(cache, read) == [('["a", "b"]',), ('["a", "c"]',), ('["b", "c"]',)]


def test_steps_that_look_at_the_row_need_no_model(tmp_path: Path) -> None:
    """A new step reads the stored answers of the list again, each with its own row; a row that comes back is read then."""
    template = "{{ name }} in {{ language }}"
    both: dict[str, list[Any]] = {"id": [1, 2], "name": ["Ä", "b"], "language": ["de", "ru"]}
    sections = {"prompt": {"template": template}, "output": {"steps": [{"split": ","}]}, "gate": LENIENT}
    world = model_job(tmp_path, both, **sections)
    world.answer(lambda row: "a\u0308,b,б")
    world.rows({name: values[:1] for name, values in both.items()})
    world = world.changed(output={"steps": [{"split": ","}, {"drop_echo": "name"}]})
    with world.prepared(writes=True) as p:
        assert p.plan.counts.to_generate == 0
    found = "SELECT prediction FROM generations ORDER BY prediction"
    assert rows(world.store, found) == [('["a\u0308", "b", "б"]',), ('["b", "б"]',)]
    world.rows(both)
    world = world.changed(output={"steps": [{"split": ","}, {"drop_echo": "name"}, {"drop_wrong_script": "language"}]})
    with world.prepared(writes=True) as p:
        assert p.plan.counts.to_generate == 0
    assert rows(world.store, found) == [('["b"]',), ('["б"]',)]
