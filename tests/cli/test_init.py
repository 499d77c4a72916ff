"""batchinfer init: a job that runs, from nothing or from a list."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchinfer.job import reader, yaml_file
from batchinfer.prompting.template import PromptTemplate
from tests.cli.conftest import ECHO
from tests.tiny import Cli


def use(folder: Path, tiny: Path) -> None:
    """Puts the tiny model in place of the one that a new job names."""
    path = folder / "job.yaml"
    text = path.read_text(encoding="utf-8")
    content = yaml_file.read(text)[1]
    assert content["model"]["id"].startswith("bundled/")
    content["model"] = {"id": str(tiny), "options": ECHO}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


def test_init_makes_a_job_that_runs(batchinfer: Cli, tiny: Path) -> None:
    """A new job can be planned, run and looked up as it is, but for its model."""
    made = batchinfer("init", "shop", "--json")
    assert (made.code, made.json) == (
        0,
        {"job": "shop", "folder": "jobs/shop", "key": ["word"], "columns": ["word"], "left_out": [], "path": "queries.parquet",
         "root": None},
    )  # fmt: skip
    use(Path("jobs/shop"), tiny)
    plan = batchinfer("plan", "shop", "--json").json
    assert (plan["rows"], plan["bad"], plan["to_generate"]) == (6, 0, 6)
    assert plan["prompt_tokens"] > 0
    assert batchinfer("run", "shop", "--json").json["version"] == 1
    assert batchinfer("lookup", "shop", "word=river", "--json").json["prediction"] == "What is meant by: river?"


def test_init_ends_with_try(batchinfer: Cli, tiny: Path) -> None:
    """For people, init says what it made, and last of all to try it, which works as it is said."""
    said = batchinfer("init", "shop").out
    assert "jobs/shop/job.yaml" in said
    assert said.endswith("then: batchinfer try shop\n")
    use(Path("jobs/shop"), tiny)
    assert "What is meant by: apple?" in batchinfer("try", "shop").out


LISTS: dict[str, tuple[dict[str, list[Any]], list[str], list[str]]] = {
    "one column": ({"query": ["a", "b"]}, ["query"], ["query"]),
    "a number tells rows apart": ({"id": [1, 2], "text": ["a", "a"]}, ["id"], ["text"]),
    "short before long": ({"text": ["a" * 500, "b" * 500], "name": ["x", "y"]}, ["name"], ["text", "name"]),
    "two columns together": ({"word": ["a", "a", "b"], "language": ["x", "y", "x"]}, ["word", "language"], ["word", "language"]),
    "columns that cannot be keys": ({"score": [0.5, 0.7], "note": ["a", None], "text": ["a", "b"]}, ["text"], ["text"]),
    "names that YAML reads otherwise": (
        {"no": ["a", "b"], "x: y": ["a", "a"], "#": ["c", "c"], "{{ x }}": ["d", "d"], "a\nb": ["e", "e"]}, ["no"],
        ["no", "x: y", "#", "{{ x }}", "a\nb"],
    ),
    "names that Jinja cannot read": (
        {"my key": ["a", "b"], "not": ["a", "a"], "text": ["c", "c"]}, ["my key"], ["my key", "not", "text"]
    ),
    "labels, ids and ratings": (
        {"Review Text": ["x y", "z"], "label": ["good", "bad"], "userId": ["u", "v"], "Star Rating": ["5", "1"],
         "code": ["0f-1", "12-3"], "sku_no": ["a", "b"], "class": ["p", "p"]}, ["userId"], ["Review Text", "code"],
    ),
    "codes by their values": (
        {"ref": ["0123456789abcdef", "f123456789abcdef"], "n": ["1", "2"], "text": ["a", "a"]}, ["ref"], ["text"],
    ),
    "nothing but labels": ({"label": ["good", "bad"]}, ["label"], ["label"]),
    "a long text alone": ({"text": ["a" * 500, "b" * 500]}, ["text"], ["text"]),
    "two of three columns": (
        {"kind": ["k", "k", "k", "k"], "word": ["a", "a", "b", "b"], "language": ["x", "y", "x", "y"]},
        ["word", "language"], ["kind", "word", "language"],
    ),
    "letters of the world": ({"größe": ["a", "b"], "名前": ["c", "d"]}, ["größe"], ["größe", "名前"]),
}  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("case", LISTS)
def test_init_from_a_list(batchinfer: Cli, tiny: Path, case: str, large: bool) -> None:
    """From a list, init proposes a key that tells rows apart and a template of its texts; the job can be planned."""
    columns, key, template = LISTS[case]
    table = pa.table(columns)
    if large:  # as pandas and polars write text
        kinds = {pa.string(): pa.large_string()}
        table = table.cast(pa.schema([field.with_type(kinds.get(field.type, field.type)) for field in table.schema]))
    pq.write_table(table, "list.parquet")
    assert batchinfer("init", "shop", "--input", "list.parquet").code == 0
    use(Path("jobs/shop"), tiny)
    spec = reader.load("shop", {}).spec
    assert spec.input.key == key
    assert spec.prompt is not None
    assert PromptTemplate(spec.prompt, [], "").columns == template
    assert spec.prompt.template.endswith("?") or "What is this about?" in spec.prompt.template
    plan = batchinfer("plan", "shop", "--json").json
    assert (plan["rows"], plan["bad"]) == (table.num_rows, 0)
    assert pq.read_table("jobs/shop/queries.parquet").equals(table)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"score": [0.5]}, "no column of texts or whole numbers without nulls"),
        ({"text": []}, "no column of texts or whole numbers without nulls"),
        ({"text": ["a", "a"], "note": ["b", "b"]}, "name those that are the key with --key (text, note)"),
    ],
)
def test_init_from_a_list_that_cannot_be_a_job(batchinfer: Cli, columns: dict[str, list[Any]], sentence: str) -> None:
    """A list without a column to ask by is refused, and nothing is made."""
    pq.write_table(
        pa.table({name: pa.array(v, None if v else pa.string()) for name, v in columns.items()}), "list.parquet"
    )
    done = batchinfer("init", "shop", "--input", "list.parquet")
    assert done.code == 2
    assert sentence in done.sentence
    assert not Path("jobs").exists()


def test_init_from_no_list(batchinfer: Cli) -> None:
    """A list that is not there, is none, or has no rows, is refused, and nothing is made."""
    Path("list.csv").write_text("a,b\n", encoding="utf-8")
    Path("list.json").write_text("[]\n", encoding="utf-8")
    convert = "convert it, for example with DuckDB: COPY (FROM 'list.json') TO 'list.parquet'."
    for path, said in (
        ("list.csv", "The list has no column of texts or whole numbers without nulls: such a column must be the key."),
        ("list.json", f"list.json is not Parquet: {convert}"),
        ("missing.parquet", "There is no file missing.parquet: check the name."),
    ):
        done = batchinfer("init", "shop", "--input", path)
        assert (done.code, done.sentence) == (2, said)
    assert not Path("jobs").exists()


def test_init_takes_the_key_that_it_is_told(batchinfer: Cli) -> None:
    """--key says the key, also where none could be told; without it the choice is said, and what was left out."""
    pq.write_table(
        pa.table({"text": ["a", "a"], "note": ["b", "b"], "id": [1, 2], "label": ["x", "y"]}), "list.parquet"
    )
    assert batchinfer("init", "one", "--input", "list.parquet", "--key", "text", "--key", "note").code == 0
    assert reader.load("one", {}).spec.input.key == ["text", "note"]
    said = batchinfer("init", "two", "--input", "list.parquet").out
    assert "The key is id. If answers will be looked up by another column" in said
    assert "Not in the question: id, label (no texts, or with nulls, or they look like labels, ids or ratings)." in said
    assert "ids or ratings): id, label\n" in Path("jobs/two/job.yaml").read_text(encoding="utf-8")
    assert "The list has no column txet: did you mean text?" in (
        batchinfer("init", "three", "--input", "list.parquet", "--key", "txet").sentence
    )


KEYS_OF_TWO: dict[str, dict[str, list[Any]]] = {
    "a text of numbers": {"a": ["x", "x", "y", "y"], "b": ["1", "2", "1", "2"]},
    "a number": {"a": ["x", "x", "y", "y"], "b": [1, 2, 1, 2]},
    "a label": {"class": ["p", "p", "q", "q"], "a": ["x", "y", "x", "y"]},
    "ids only": {"user_id": ["u", "u", "v", "v"], "item_id": ["i", "j", "i", "j"]},
}


@pytest.mark.parametrize("case", KEYS_OF_TWO)
def test_rows_that_differ_in_one_part_of_the_key_are_asked_apart(batchinfer: Cli, tiny: Path, case: str) -> None:
    """The question shows each column of a key of several, whatever it looks like: no row gets another's prompt."""
    columns = KEYS_OF_TWO[case]
    pq.write_table(pa.table(columns | {"stars": [1, 2, 3, 3], "note": ["n", None, "n", "n"]}), "list.parquet")
    words = [word for name in columns for word in ("--key", name)]
    made = batchinfer("init", "shop", "--input", "list.parquet", *words, "--json").json
    assert (made["columns"], made["left_out"]) == (list(columns), ["stars", "note"])
    use(Path("jobs/shop"), tiny)
    assert batchinfer("plan", "shop", "--json").json["unique"] == 4


@pytest.mark.parametrize(("answer", "key"), [("", ["id"]), ("label", ["label"]), ("text, note", ["text", "note"])])
def test_init_asks_for_the_key_on_a_terminal(
    batchinfer: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, key: list[str]
) -> None:
    """Where more than one column would do, a person is asked, with a proposal; machines never."""
    pq.write_table(
        pa.table({"text": ["a", "a"], "note": ["b", "b"], "id": [1, 2], "label": ["x", "y"]}), "list.parquet"
    )
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    done = batchinfer("init", "shop", "--input", "list.parquet")
    assert "Which column will answers be looked up by? There are text, note, id, label." in done.err
    assert reader.load("shop", {}).spec.input.key == key
    assert batchinfer("init", "again", "--input", "list.parquet", "--json").json["key"] == ["id"]


def test_init_takes_categoricals_and_extension_types(batchinfer: Cli, tiny: Path) -> None:
    """A list whose columns are categoricals, or UUIDs as DuckDB writes them, is proposed as one of plain texts would be."""
    ids = pa.array([bytes([number]) * 16 for number in range(3)], pa.uuid())
    texts = pa.array(["good", "bad", "good"]).dictionary_encode()
    pq.write_table(pa.table({"id": ids, "text": texts}), "list.parquet")
    made = batchinfer("init", "shop", "--input", "list.parquet", "--json")
    assert (made.json["key"], made.json["columns"]) == (["id"], ["text"])
    use(Path("jobs/shop"), tiny)
    assert batchinfer("plan", "shop", "--json").json["bad"] == 0


def test_a_key_that_rows_with_different_questions_share(batchinfer: Cli) -> None:
    """Each run would take such rows for bad ones, so no job is made; rows that repeat the question do no harm."""
    texts = ["one", "two", "one"]
    pq.write_table(pa.table({"text": texts, "kind": ["a", "a", "b"]}), "list.parquet")
    refused = batchinfer("init", "shop", "--input", "list.parquet", "--key", "kind")
    assert refused.code == 2
    assert refused.sentence.startswith("The key kind does not tell the rows apart")
    assert not Path("jobs").exists()
    pq.write_table(pa.table({"text": texts, "label": ["a", "b", "c"]}), "list.parquet")
    assert batchinfer("init", "shop", "--input", "list.parquet", "--key", "text").code == 0


def test_a_list_of_another_kind_is_copied_as_it_is(batchinfer: Cli, tmp_path: Path) -> None:
    """CSV, for one; its cells are texts."""
    (tmp_path / "words.CSV").write_text("word;note\nplum;x\nfig;\n", encoding="utf-8")
    made = batchinfer("init", "shop", "--input", "words.CSV", "--json").json
    assert (made["path"], made["key"], made["columns"]) == ("queries.csv", ["word"], ["word"])
    assert Path("jobs/shop/queries.csv").read_text(encoding="utf-8") == "word;note\nplum;x\nfig;\n"


def test_a_list_can_stay_where_it_is(
    batchinfer: Cli, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path is absolute, and may have a date. It is said how to allow its folder, and with that the job runs."""
    for day in ("2026-11-16", "2026-11-23"):
        (tmp_path / "my exports" / day).mkdir(parents=True)
        (tmp_path / "my exports" / day / "q.jsonl").write_text(f'{{"word": "plum {day}"}}\n', encoding="utf-8")
    said = batchinfer("init", "shop", "--link", "my exports/{date:%Y-%m-%d}").out
    root = tmp_path / "my exports"
    assert f"for the list {root}/{{date:%Y-%m-%d}}, which stays there." in said
    assert f"export BATCHINFER_INPUT_ROOTS='{root}'" in said
    use(Path("jobs/shop"), tiny)
    refused = batchinfer("plan", "shop")
    assert refused.code == 2
    assert f"input.path: {root}/{{date:%Y-%m-%d}} is outside the job's folder" in refused.err
    monkeypatch.setenv("BATCHINFER_INPUT_ROOTS", str(root))
    assert batchinfer("plan", "shop", "--json").json["to_generate"] == 1
    ran = batchinfer("run", "shop", "--json").json
    assert (ran["version"], ran["input"]) == (1, str(root / "2026-11-23"))
    assert batchinfer("lookup", "shop", "word=plum 2026-11-23", "--json").code == 0
    # the gate: all that was served is gone
    assert batchinfer("run", "shop", "--date", "2026-11-16", "--json").code == 3
    assert batchinfer("init", "other", "--link", str(root / "2026-11-16"), "--json").json["root"] is None
    both = batchinfer("plan", "shop", "--date", "2026-11-16", "--input", str(root))
    assert (both.code, "give one of the two" in both.err) == (2, True)
    assert "no list of 2026-01-01" in batchinfer("plan", "shop", "--date", "2026-01-01").err.replace("\n", " ")
    for wrong in ("--link=a/{date:%H}", "--link=nowhere/*.csv"):
        assert batchinfer("init", "third", wrong).code == 2
    assert batchinfer("init", "third", "--link", "x", "--input", "y").code == 2
    assert not Path("jobs/third").exists()
