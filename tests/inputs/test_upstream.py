"""Chained jobs: the served version of one job as the list of the next, and every reason why it cannot be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from batchinfer.core import sql
from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError, ExitCode, InputError, NotFound, SpecError
from batchinfer.inputs.upstream import Upstream, write_list
from batchinfer.job import reader
from batchinfer.maintenance import doctor, erase
from batchinfer.review.predictions import ImportReport
from batchinfer.versions import folders, pointers
from batchinfer.versions.manifest import Manifest
from tests.factories import LENIENT, World, imports_job, write
from tests.tiny import Cli

KEY = ["vaccine", "language"]
ANY = {"type": "json", "schema": {}}
CHAINED = {"job": "shop", "explode": "prediction.names", "as": "term", "key": [*KEY, "term"]}
NAMES = {
    ("Moderna", "de"): {"names": ["Spikevax", "Moderna-Impfstoff"], "sure": True},
    ("Moderna", "ru"): {"names": ["Модерна"], "sure": False},
}


def upstream(folder: Path, predictions: Mapping[tuple[str, str], Any] = NAMES, **sections: Any) -> World:
    """The first job of a chain, published with these predictions."""
    columns = {name: [key[number] for key in predictions] for number, name in enumerate(KEY)}
    settings = {"input": {"path": "queries.parquet", "key": KEY}, "output": ANY, "gate": LENIENT}
    world = imports_job(folder, columns, **(settings | sections))
    bring(world, predictions)
    return world


def bring(world: World, predictions: Mapping[tuple[str, str], Any], **options: Any) -> None:
    """Imports predictions and publishes them."""
    columns = {name: [key[number] for key in predictions] for number, name in enumerate(KEY)}
    as_json = world.job.spec.output.type == "json"
    values = [json.dumps(value) if as_json else value for value in predictions.values()]
    world.take_in(columns | {"prediction": values})
    world.publish(**options)


def downstream(first: World, name: str = "check", source: Mapping[str, Any] | None = None, **sections: Any) -> World:
    """A job that takes its list from another one in the same data folder; it asks a model without weights."""
    place = first.job.folder.parent / name
    (place / "model").mkdir(parents=True)
    (place / "model" / "config.json").write_text('{"model_type": "none"}', encoding="utf-8")
    content = {
        "name": name,
        "input": dict(source or CHAINED),
        "prompt": {"template": "{{ term }} for {{ vaccine }} in {{ language }}"},
        "model": {"id": "./model"},
        "output": {"type": "choice", "choices": ["Yes", "No"]},
        "gate": LENIENT,
    } | sections
    text = yaml.safe_dump({part: value for part, value in content.items() if value is not None}, allow_unicode=True)
    (place / "job.yaml").write_text(text, encoding="utf-8")
    return World(reader.load(str(place), {}), JobData(first.data.root, name))


def listed(world: World, **options: Any) -> list[tuple[Any, ...]]:
    """The rows that a run would ask, by their keys, sorted."""
    with world.prepared(**options) as p:
        names = ", ".join(sql.listed(column.name) for column in p.query_list.source.key)
        return sorted(p.workspace.db.execute(f"SELECT {names} FROM {p.query_list.rows_sql}").fetchall())


def refusal(world: World) -> str:
    """The sentence with which a job's list is refused."""
    with pytest.raises((InputError, NotFound, SpecError)) as refused, world.prepared():
        pass
    return str(refused.value)


def line(world: World, field: str) -> int:
    """The line of the job file that a field begins on."""
    lines = world.job.path.read_text(encoding="utf-8").splitlines()
    [number] = [number for number, text in enumerate(lines, 1) if text.strip().startswith(f"{field}:")]
    return number


ALL = [("Moderna", "de", "Moderna-Impfstoff"), ("Moderna", "de", "Spikevax"), ("Moderna", "ru", "Модерна")]


def test_each_item_of_a_list_is_a_row(tmp_path: Path) -> None:
    """The key of the entry comes with each item of its list."""
    assert listed(downstream(upstream(tmp_path))) == ALL


def test_equal_items_of_a_list_are_one_row(tmp_path: Path) -> None:
    """A name that the model repeats is asked once; the same name in another list is another row."""
    predictions = {("a", "de"): {"names": ["x", "x", "y", "x"]}, ("b", "de"): {"names": ["x"]}}
    with downstream(upstream(tmp_path, predictions)).prepared() as p:
        assert (p.plan.counts.rows, p.plan.counts.duplicates) == (3, 0)


def test_numbers_are_texts_and_other_items_are_bad_rows(tmp_path: Path) -> None:
    """Texts keep each character, numbers their digits; nulls and what is no plain value are bad rows, told apart by their key."""
    items = ['say "x"\n', "\u00e9", 7, -1.5, 12345678901234567890, None, True, {"a": 1}, ["b"], "", " "]
    world = downstream(upstream(tmp_path, {("a", "de"): {"names": items}}))
    texts = [row[2] for row in listed(world)]
    assert texts == sorted(['say "x"\n', "\u00e9", "7", "-1.5", "12345678901234567890"])
    with world.prepared() as p:
        bad = p.query_list.bad_rows().to_pylist()
    assert sorted(row["reason"] for row in bad) == ["empty_key"] * 2 + ["null_key"] * 4
    assert {json.loads(row["query"])["vaccine"] for row in bad} == {"a"}
    assert all(row["detail"].startswith("shop-1.parquet, row ") for row in bad)


def test_types_make_items_numbers_again(tmp_path: Path) -> None:
    """input.types applies to the item's column as to any other."""
    first = upstream(tmp_path, {("a", "de"): {"names": [10, 9, "no number"]}})
    world = downstream(first, source=CHAINED | {"types": {"term": "integer"}})
    assert [row[2] for row in listed(world)] == [9, 10]
    with world.prepared() as p:
        assert [row["reason"] for row in p.query_list.bad_rows().to_pylist()] == ["wrong_type"]


@pytest.mark.parametrize(
    ("explode", "value"),
    [
        ("prediction", ["x", "y"]),
        ("prediction.a.b", {"a": {"b": ["x", "y"]}}),
        ("prediction.it's", {"it's": ["x", "y"]}),
        ('prediction.a"b', {'a"b': ["x", "y"]}),
        ("prediction.Größe", {"Größe": ["x", "y"]}),
    ],
)
def test_a_list_may_lie_anywhere_in_a_prediction(tmp_path: Path, explode: str, value: Any) -> None:
    """The whole prediction, a field of a field, and fields of any name."""
    first = upstream(tmp_path, {("a", "de"): value})
    assert [row[2] for row in listed(downstream(first, source=CHAINED | {"explode": explode}))] == ["x", "y"]


def test_entries_without_a_list_there_add_no_rows(tmp_path: Path) -> None:
    """What holds a text, an empty list or nothing at the place is passed over while others hold a list."""
    values = [
        {"names": ["x"]},
        {"names": "text"},
        {"names": []},
        {"other": ["y"]},
        "text",
        None,
        {"names": {"a": ["z"]}},
    ]
    first = upstream(tmp_path, {(str(number), "de"): value for number, value in enumerate(values)})
    assert listed(downstream(first)) == [("0", "de", "x")]


def test_without_explode_the_prediction_is_a_column(tmp_path: Path) -> None:
    """Each entry is a row, with its prediction as a text."""
    first = upstream(tmp_path, {("a", "de"): "gut", ("b", "ru"): "плохо"}, output={"type": "text"})
    prompt = {"template": "{{ vaccine }}: {{ prediction }}"}
    world = downstream(first, source={"job": "shop", "key": KEY}, prompt=prompt)
    with world.prepared() as p:
        rows = sorted((row["vaccine"], row["prediction"]) for _, row in p.plan.todo())
    assert rows == [("a", "gut"), ("b", "плохо")]


def test_the_filter_works_on_the_upstreams_columns(tmp_path: Path) -> None:
    """input.where keeps rows of a chained job, too."""
    world = downstream(upstream(tmp_path), source=CHAINED | {"where": {"language": "ru"}})
    assert listed(world) == ALL[2:]


def test_key_columns_with_names_of_ours_come_back_under_their_own(tmp_path: Path) -> None:
    """An upstream key column that a version must rename, such as model, bears its own name in the list."""
    first = imports_job(
        tmp_path, {"model": ["m"]}, input={"path": "queries.parquet", "key": ["model"]}, output=ANY, gate=LENIENT
    )
    first.take_in({"model": ["m"], "prediction": ['["x"]']})
    first.publish()
    source = {"job": "shop", "explode": "prediction", "as": "score", "key": ["model", "score"]}
    world = downstream(first, source=source, prompt={"template": "{{ model }} {{ score }}"})
    assert listed(world) == [("m", "x")]


def test_the_kinds_of_the_upstreams_key_stay(tmp_path: Path) -> None:
    """A number in the upstream's key is a number in the list, so that look-ups find it."""
    first = imports_job(tmp_path, {"id": [7]}, output=ANY, gate=LENIENT)
    first.take_in({"id": [7], "prediction": ['["x"]']})
    first.publish()
    source = {"job": "shop", "explode": "prediction", "as": "term", "key": ["id", "term"]}
    with downstream(first, source=source, prompt={"template": "{{ id }} {{ term }}"}).prepared() as p:
        assert [(column.name, column.kind) for column in p.query_list.source.key] == [
            ("id", "integer"),
            ("term", "string"),
        ]


def answered(row: Mapping[str, Any]) -> list[float]:
    """A model that is fairly sure of everything."""
    return [-0.1, -2.5]


@pytest.mark.long
def test_a_new_version_changes_the_list_and_nothing_else(tmp_path: Path) -> None:
    """After a new upstream version only new items are asked; those that were answered before are found in the cache."""
    first = upstream(tmp_path)
    world = downstream(first)
    world.answer(answered)
    assert world.publish().upstream == Upstream("shop", 1)
    bring(first, {("Moderna", "ru"): {"names": ["Модерна", "Спайквакс"]}})
    with world.prepared() as p:
        assert (p.plan.counts.cached, p.plan.counts.to_generate) == (3, 1)
        assert [row["term"] for _, row in p.plan.todo()] == ["Спайквакс"]
        assert p.upstream == Upstream("shop", 2)
    bring(first, {("Moderna", "ru"): {"names": ["Спайквакс"]}})
    assert ALL[2] not in listed(world)


@pytest.mark.long
def test_the_pinned_version_is_read(tmp_path: Path) -> None:
    """Who pins the upstream goes on with its list."""
    first = upstream(tmp_path)
    bring(first, {("Moderna", "ru"): {"names": ["Спайквакс"]}})
    world = downstream(first)
    assert ("Moderna", "ru", "Спайквакс") in listed(world)
    pointers.pin(first.data, 1)
    assert listed(world) == ALL


def test_the_version_that_was_read_is_recorded(tmp_path: Path) -> None:
    """A run's report, the stored run and the manifest of what it publishes name the upstream version."""
    world = downstream(upstream(tmp_path))
    world.answer(answered)
    report = world.run()
    said = {"job": "shop", "version": 1}
    assert (report.input, report.upstream) == ("shop, version 1", Upstream("shop", 1))
    assert report.to_json()["upstream"] == said
    assert report.version is not None
    assert world.store.runs()[0].report["upstream"] == said
    assert Manifest.read(folders.folder_of(world.data, report.version)).document["run"]["upstream"] == said


def test_a_list_is_the_same_however_many_rows_are_held(tmp_path: Path) -> None:
    """A list that is written row by row holds what one written at once holds, in the same order."""
    world = downstream(upstream(tmp_path), model=None, prompt=None)
    path, _ = write_list(world.job, world.data, tmp_path)
    whole = pq.read_table(path)
    path, _ = write_list(world.job, world.data, tmp_path, rows_at_once=1)
    assert pq.read_table(path).equals(whole)
    assert whole.num_rows == 3


def test_a_file_takes_the_place_of_the_other_job(tmp_path: Path) -> None:
    """--input reads a Parquet file instead, also where the other job has nothing."""
    first = upstream(tmp_path)
    world = downstream(first, source=CHAINED | {"job": "nobody"})
    path = write(tmp_path / "terms.parquet", {"vaccine": ["a"], "language": ["de"], "term": ["x"]})
    assert listed(world, input=path) == [("a", "de", "x")]
    with world.prepared(input=path) as p:
        assert p.upstream is None


# What cannot be a list.


def test_an_unknown_job_is_refused(tmp_path: Path) -> None:
    """The sentence names the jobs that are there and the command that would make the other."""
    world = downstream(upstream(tmp_path), source=CHAINED | {"job": "nobody"})
    assert refusal(world) == (
        f"{world.job.path}: line {line(world, 'job')}: input.job: check takes its list from nobody, but the data folder "
        f"{world.data.root} has no such job: it has shop. Correct the name, or make it: batchinfer run nobody"
    )


def test_a_job_without_a_version_is_refused(tmp_path: Path) -> None:
    """The sentence names the command that makes one."""
    first = imports_job(tmp_path, {"id": ["a"]})
    assert refusal(downstream(first)) == (
        f"check takes its list from shop, which has no published version in the data folder {first.data.root} yet: "
        "batchinfer run shop"
    )


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(
    "command",
    [["plan"], ["run"], ["publish"], ["export", "out.csv"], ["review", "--out", "out.csv"], ["try"]],
    ids=lambda command: command[0],
)
def test_every_command_that_reads_an_upstream_does_not_find_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    is_there: bool,
) -> None:
    """The exit code is that of what is not found, the sentence names the data folder, and nothing is made."""
    first = imports_job(tmp_path, {"id": ["a"]})
    if is_there:
        first.data.bind(first.job.path)
    world = downstream(first)
    monkeypatch.chdir(tmp_path)
    name, *options = command
    ran = name in ("export", "review")  # which otherwise miss the job itself
    if ran:
        world.data.bind(world.job.path)
    done = Cli(monkeypatch, capsys, first.data.root)(name, world.job.path, *options)
    assert (done.code, str(first.data.root) in done.sentence) == (ExitCode.NOT_FOUND, True)
    assert done.sentence.endswith("batchinfer run shop")
    assert world.data.folder.exists() == ran
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("explode", "end"),
    [
        ("prediction.nams", "there is one at prediction.names."),
        ("prediction", "there is one at prediction.names."),
        ("prediction.sure", "there is one at prediction.names."),
    ],
)
def test_a_place_without_a_list_is_refused(tmp_path: Path, explode: str, end: str) -> None:
    """Where no prediction has a list, the sentence says where there is one."""
    world = downstream(upstream(tmp_path), source=CHAINED | {"explode": explode})
    sentence = f"input.explode: no prediction of shop, version 1, has a list at {explode}: {end}"
    assert refusal(world) == f"{world.job.path}: line {line(world, 'explode')}: {sentence}"


def test_predictions_without_any_list_are_refused(tmp_path: Path) -> None:
    """So are JSON predictions that hold no list at all, and plain texts."""
    first = upstream(tmp_path / "json", {("a", "de"): {"names": "x"}})
    assert refusal(downstream(first)).endswith(": they hold no lists.")
    first = upstream(tmp_path / "text", {("a", "de"): "x"}, output={"type": "text"})
    assert refusal(downstream(first)).endswith(": its predictions are texts.")


def test_only_empty_lists_are_no_list(tmp_path: Path) -> None:
    """An upstream whose lists are all empty would remove everything that is served."""
    assert "has no rows" in refusal(downstream(upstream(tmp_path, {("a", "de"): {"names": []}})))


@pytest.mark.parametrize("name", ["language", "Language"])
@pytest.mark.long
def test_an_item_cannot_bear_the_name_of_a_key_column(tmp_path: Path, name: str) -> None:
    """Names that differ only in case are one name, too."""
    source = {"job": "shop", "explode": "prediction.names", "as": name, "key": ["vaccine", name]}
    world = downstream(upstream(tmp_path), source=source, prompt={"template": f"{{{{ {name} }}}}"})
    sentence = f"input.as: shop has a key column {name} already: name the item otherwise."
    assert refusal(world) == f"{world.job.path}: line {line(world, 'as')}: {sentence}"


def test_a_key_column_must_be_the_upstreams(tmp_path: Path) -> None:
    """The sentence says which columns there are."""
    world = downstream(upstream(tmp_path), source=CHAINED | {"key": ["vaccine", "tongue", "term"]})
    sentence = "input.key.1: shop has no column tongue for the key of check: it has vaccine, language, term."
    assert refusal(world).endswith(f": line {line(world, 'key') + 2}: {sentence}")


def test_a_damaged_upstream_is_refused(tmp_path: Path) -> None:
    """A version whose bytes are not those that were published is not read."""
    first = upstream(tmp_path)
    path = folders.folder_of(first.data, 1) / "predictions.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(BatchinferError, match=r"predictions\.parquet"), downstream(first).prepared():
        pass


def test_a_chain_on_itself_is_refused(tmp_path: Path) -> None:
    """A job cannot be its own list."""
    first = upstream(tmp_path)
    world = downstream(first, source=CHAINED | {"job": "check"})
    assert "input.job: the chain closes on itself (check → check): let one of them read a file instead." in refusal(
        world
    )


def test_a_chain_that_closes_through_others_is_refused(tmp_path: Path) -> None:
    """The way is followed by the job files that the data folder is bound to, however long it is."""
    first = upstream(tmp_path)
    second = downstream(first, "second")
    third = downstream(first, "third", source=CHAINED | {"job": "second"})
    second.data.bind(second.job.path)
    third.data.bind(third.job.path)
    looped = first.changed(input={"job": "third", "key": KEY})
    assert "(shop → third → second → shop)" in refusal(looped)
    assert "(second → shop → third → second)" in refusal(second)


def test_a_chain_is_followed_by_manifests_where_job_files_are_gone(tmp_path: Path) -> None:
    """A version that was copied here says itself which job its list came from."""
    first = upstream(tmp_path)
    second = downstream(first, "second")
    second.answer(answered)
    second.publish()
    second.job.path.unlink()
    looped = first.changed(input={"job": "second", "key": KEY})
    assert "(shop → second → shop)" in refusal(looped)


def test_a_chain_beside_a_loop_ends(tmp_path: Path) -> None:
    """A job that leads into others' loop is refused as well, and the search for its end comes to one."""
    first = upstream(tmp_path)
    second = downstream(first, "second")
    second.data.bind(second.job.path)
    first.changed(input={"job": "second", "key": KEY})
    assert "the chain closes on itself" in refusal(downstream(first, "third"))


# Everyone else who reads the list.


def test_doctor_names_the_upstream_version(tmp_path: Path) -> None:
    """The command doctor says which version the list would come from, or why there is none; it makes nothing in the data folder."""
    first = upstream(tmp_path)
    world = downstream(first, model=None, prompt=None)
    found = {finding.what: finding for finding in doctor.job(world.job, world.data)}
    assert (found["query list"].detail, found["query list"].ok) == ("shop, version 1", True)
    nowhere = JobData(tmp_path / "elsewhere", "check")
    found = {finding.what: finding for finding in doctor.job(world.job, nowhere)}
    assert not found["query list"].ok
    assert "has no such job: it has no other that was published" in str(found["query list"].fix)
    assert not nowhere.root.exists()


def test_imports_into_a_chained_job_must_have_its_kinds(tmp_path: Path) -> None:
    """An import with a number where the upstream's key has texts is refused, and one of its kinds is taken in."""
    world = downstream(upstream(tmp_path))
    assert world.take_in({"vaccine": ["a"], "language": ["de"], "term": ["x"], "prediction": ["Yes"]}) == ImportReport(
        1, 1, unlisted=1
    )
    with pytest.raises(InputError, match="language holds integer values, but the job's list has string"):
        world.take_in({"vaccine": ["a"], "language": [1], "term": ["x"], "prediction": ["Yes"]})


@pytest.mark.long
def test_forget_looks_into_the_upstreams_list(tmp_path: Path) -> None:
    """An entry of a chained job is removed, and it is said that the list still has it."""
    world = downstream(upstream(tmp_path))
    world.answer(answered)
    world.publish()
    vaccine, language, term = ALL[0]
    done = erase.erase_entry(world.job, world.data, {"vaccine": vaccine, "language": language, "term": term})
    assert done.in_list
    with world.prepared() as p:
        assert [row["term"] for _, row in p.plan.todo()] == [term]


# From the chain to live text.


def test_a_confident_no_never_matches(tmp_path: Path) -> None:
    """Of a sure Yes, an unsure Yes and a sure No, live text is recognised by the first alone."""
    first = upstream(tmp_path, {("Sputnik V", "de"): {"names": ["Sputnik-Impfstoff", "Russenimpfstoff", "Virus"]}})
    says = {"Sputnik-Impfstoff": (0.95, 0.05), "Russenimpfstoff": (0.60, 0.40), "Virus": (0.01, 0.99)}
    match = {
        "terms": ["term"], "concept": "vaccine", "language": "language", "where": {"prediction": "Yes"}, "min_score": 0.8,
    }  # fmt: skip
    world = downstream(first, match=match)
    world.answer(lambda row: [math.log(share) for share in says[row["term"]]])
    world.publish()
    with world.served() as snapshot:
        text = "Der Sputnik-Impfstoff, der Russenimpfstoff und das Virus"
        found = [match for place in snapshot.matcher.find(text) for match in place.flat()]
        predictions = [
            json.loads(snapshot.get({"vaccine": "Sputnik V", "language": "de", "term": term}) or "")["prediction"]
            for term in says
        ]
    assert predictions == ["Yes", "Yes", "No"]
    assert [(match["term"], match["concept"], match["language"]) for match in found] == [
        ("Sputnik-Impfstoff", "Sputnik V", "de")
    ]
    assert found[0]["score"] == pytest.approx(0.95)


# Columns that are carried.


CARRYING = CHAINED | {"carry": ["name", "prediction"]}
TEMPLATE = {"template": "{{ term }} {{ vaccine }} {{ name }} {{ prediction }}"}


def named(folder: Path) -> World:
    """An upstream whose list has more columns than its key; one of them is called as a column of a version."""
    world = upstream(folder)
    columns = {"vaccine": ["Moderna"] * 3, "language": ["ru", "de", "ru"], "name": ["Russian", "German", "other"]}
    world.rows(columns | {"prediction": [1, 2, 3]})
    return world


def test_columns_of_the_list_before_can_be_carried(tmp_path: Path) -> None:
    """Each item has them by its entry's key, the first row's where several share it; they are asked with."""
    world = downstream(named(tmp_path), source=CARRYING, prompt=TEMPLATE)
    with world.prepared() as p:
        rows = {row["term"]: (row["name"], row["prediction"]) for _, row in p.plan.todo()}
    assert rows == {"Spikevax": ("German", 2), "Moderna-Impfstoff": ("German", 2), "Модерна": ("Russian", 1)}


def test_an_entry_beyond_the_list_carries_nothing(tmp_path: Path) -> None:
    """What people gave for a key that the list has no more is a bad row, unless the column is optional."""
    first = named(tmp_path)
    first.rows({"vaccine": ["Moderna"], "language": ["de"], "name": ["German"], "prediction": [2]})
    world = downstream(first, source=CARRYING, prompt=TEMPLATE)
    with world.prepared() as p:
        assert [row["reason"] for row in p.query_list.bad_rows().to_pylist()] == ["null_value"]
    optional = downstream(first, "lenient", source=CARRYING | {"optional": ["name", "prediction"]}, prompt=TEMPLATE)
    with optional.prepared() as p:
        assert p.query_list.bad == 0


@pytest.mark.parametrize(
    ("carry", "said"),
    [
        (["language"], "shop has a key column language already: leave it out."),
        (["term"], "shop has a key column term already: leave it out."),
        (["nam"], "queries.parquet has no column nam: did you mean name?"),
    ],
)
def test_what_cannot_be_carried_is_refused(tmp_path: Path, carry: list[str], said: str) -> None:
    """A column that is there in any case, and one that the list does not have."""
    assert said in refusal(downstream(named(tmp_path), source=CHAINED | {"carry": carry}))


def test_a_list_that_is_keyed_otherwise_carries_nothing(tmp_path: Path) -> None:
    """The rows of such a list are not those of the served version: it is to be published first."""
    first = named(tmp_path)
    first.changed(input={"path": "queries.parquet", "key": ["language", "vaccine"]})
    said = refusal(downstream(first, source=CARRYING, prompt=TEMPLATE))
    assert "has another input.key, or other kinds of key columns, than its served version" in said
    first.changed(input={"path": "queries.parquet", "key": KEY})
    record = json.loads((first.data.folder / "job.json").read_text())
    (first.data.folder / "job.json").write_text(json.dumps({**record, "job_file": None}))
    assert "carries name, prediction from the list of shop, whose job file is not known" in refusal(
        downstream(first, "other", source=CARRYING, prompt=TEMPLATE)
    )


def test_only_a_chained_job_carries(tmp_path: Path) -> None:
    """Of a file all columns are there."""
    with pytest.raises(SpecError, match=r"carry belongs to job: of a file, all columns are there"):
        upstream(tmp_path, input={"path": "queries.parquet", "key": KEY, "carry": ["name"]})
