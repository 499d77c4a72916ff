"""What people's verdicts mean: rejected values stay away, corrected ones win, and a gate can demand review."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.cache import verdicts
from batchinfer.cache.schema import MIGRATIONS
from batchinfer.cache.verdicts import Verdicts
from batchinfer.core.columns import Column
from batchinfer.core.database import one
from batchinfer.core.keys import lookup_hash
from batchinfer.core.records import Failure
from batchinfer.core.sql import literal
from batchinfer.errors import GateFailed, Report
from batchinfer.job import reader
from batchinfer.review import predictions
from batchinfer.review.subject import Subject
from tests.factories import LENIENT, Templates, World, imports_job, model_job

Make = Callable[..., World]
OPEN = LENIENT | {"carried": 1.0}
LIST = {"id": ["a", "b", "c"], "text": ["x", "y", "z"]}
JSON = {"type": "json", "schema": {"type": "object"}}
CHECK: dict[str, Any] = {
    "input": {"path": "queries.parquet", "key": ["thing", "term"]},
    "prompt": {"template": "{{ thing }} {{ term }}"},
    "output": {"type": "choice", "choices": ["Yes", "No"]},
    "match": {"terms": ["term"], "concept": "thing", "where": {"prediction": "Yes"}, "min_score": 0.8},
}
TERMS = {"thing": ["mRNA", "mRNA", "Covaxin"], "term": ["jab", "mrna shot", "jab"]}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with these rows, whose gate lets almost everything through."""

    def job(rows: Mapping[str, Any] = LIST, **sections: Any) -> World:
        return model_job(tmp_path, rows, **({"gate": OPEN} | sections))

    return job


def checks(folder: Path) -> World:
    """A job that asks of terms whether they name a thing; it says Yes (0.9) to all but one, to which No (0.7)."""
    world = model_job(folder, TERMS, **({"gate": LENIENT} | CHECK))
    world.answer(lambda row: scores(0.3 if row["term"] == "mrna shot" else 0.9))
    return world


@pytest.fixture
def checking(templates: Templates, tmp_path: Path) -> World:
    """`checks`."""
    return templates.world(checks, tmp_path)


def scores(yes: float) -> list[float]:
    return [math.log(yes), math.log(1 - yes)]


def echo(row: dict[str, Any]) -> str:
    return f"about {row['text']}"


def mark(world: World, verdicts: Mapping[str, str | tuple[str, str]], column: str = "id") -> Any:
    """Marks rows of a new review by a column: a verdict, or a verdict and a corrected value."""
    rows = world.review()
    for row in rows:
        if (said := verdicts.get(row[column])) is not None:
            row["verdict"], row["corrected"] = (said, "") if isinstance(said, str) else said
    return world.judge(rows)


def entry(world: World, **query: Any) -> Any:
    """(prediction, score, source) of a key in the version that is served, or None."""
    body = world.get(**query)
    return None if body is None else tuple(json.loads(body)[name] for name in ("prediction", "score", "source"))


Act = tuple[str, str, str]
"""A verdict or an import, the value that it is about, and the corrected one, which another verdict does not have."""
ACTS = st.tuples(st.sampled_from(["import", "accept", "reject", "correct"]), *[st.sampled_from("xyz")] * 2)


def expected(acts: list[Act]) -> tuple[set[str], str | None]:
    """What is rejected after these acts, one by one, and which answer by people stands."""
    rejected, answer = set[str](), None
    for word, value, corrected in acts:
        if word == "import":
            answer = value
        if word == "correct":
            answer = corrected
        if word in ("import", "accept", "correct"):
            rejected.discard(corrected if word == "correct" else value)
        if word in ("reject", "correct"):
            rejected.add(value)
    return rejected, None if answer in rejected else answer


def record(db: duckdb.DuckDBPyConnection, acts: list[Act]) -> None:
    """Stores each act as an import of its own, and nothing else."""
    db.execute("DELETE FROM cache.imports")
    for number, (word, value, corrected) in enumerate(acts, 1):
        answer = {"import": value, "correct": corrected}.get(word)
        verdict, judged = (None, None) if word == "import" else (word, json.dumps(value))
        db.execute(
            "INSERT INTO cache.imports (import_id, lookup, prediction, value, verdict) VALUES (?, 'key'::BLOB, ?, ?, ?)",
            [number, None if answer is None else json.dumps(answer), judged, verdict],
        )


@pytest.fixture(scope="module")
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with an empty cache attached."""
    with duckdb.connect() as db:
        db.execute("ATTACH ':memory:' AS cache")
        db.execute("USE cache")
        for _, statements in MIGRATIONS:
            db.execute(statements)
        db.execute("USE memory")
        yield db


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTS.filter(lambda act: act[0] != "correct" or act[1] != act[2])), st.booleans())
@pytest.mark.long
def test_the_last_word_on_a_value_holds(scratch: duckdb.DuckDBPyConnection, acts: list[Act], as_json: bool) -> None:
    """Whatever people said in which order: rejected is what was rejected last, and the last answer stands unless it is."""
    output = "output: {type: json, schema: {}}" if as_json else ""
    spec = reader.parse(f"name: shop\ninput: {{path: q.parquet, key: [id]}}\n{output}", "job.yaml")
    quote = json.dumps if as_json else str
    record(scratch, acts)
    resolved = Verdicts(scratch, spec)
    for step in (resolved._add_canonical, resolved._read, resolved._judge):  # as `resolve` does, with no list
        step()
    hashes = {row[0] for row in scratch.execute("SELECT value FROM rejected").fetchall()}
    found = {text: one(scratch, f"SELECT {verdicts.hashed(spec, literal(quote(text)))}") in hashes for text in "xyz"}
    stands = [row[0] for row in scratch.execute(f"SELECT prediction FROM ({resolved.answers_sql})").fetchall()]
    answered = scratch.execute(f"SELECT lookup_hash FROM {resolved._answered_sql}").fetchall()
    rejected, answer = expected(acts)
    assert {text for text, is_rejected in found.items() if is_rejected} == rejected
    assert stands == ([] if answer is None else [quote(answer)])
    assert bool(answered) == bool(stands)


def test_a_rejected_value_is_not_served(make: Make) -> None:
    """After a reject the entry is gone; the others are served as before."""
    world = make()
    world.answer(echo)
    mark(world, {"a": "reject", "b": "accept"})
    world.publish()
    assert entry(world, id="a") is None
    assert entry(world, id="b") == ("about y", None, "model")


@pytest.mark.parametrize("how", ["republish", "refresh", "undone import", "new prompt"])
@pytest.mark.long
def test_a_rejected_value_never_comes_back_by_itself(make: Make, how: str) -> None:
    """Whatever makes the same value again, a rejected one is not served; what is new for the key is."""
    world = make()
    world.answer(echo)
    world.publish()
    mark(world, {"a": "reject"})
    world.publish()
    if how == "refresh":
        world.answer(echo, refresh=True)
    elif how == "undone import":
        number = world.take_in({"id": ["a"], "prediction": ["by hand"]}).import_id
        world.publish()
        assert entry(world, id="a") == ("by hand", None, "import")
        predictions.undo_import(world.job, world.data, number)
    elif how == "new prompt":
        world = world.changed(prompt={"template": "{{ text }}!"})
        world.answer(echo)
    world.rows({"id": ["a", "b", "d"], "text": ["x", "y", "w"]})
    world.answer(echo)
    world.publish()
    assert entry(world, id="a") is None
    assert entry(world, id="d") == ("about w", None, "model")
    world.answer(lambda row: "something else", refresh=True)
    world.publish()
    assert entry(world, id="a") == ("something else", None, "model")


@pytest.mark.long
def test_a_rejected_value_is_not_carried(make: Make) -> None:
    """A row that fails keeps what is served (on_failure: keep), but not what people rejected."""
    world = make()
    world.answer(echo)
    world.publish()
    mark(world, {"a": "reject"})
    world = world.changed(prompt={"template": "{{ text }}!"})
    world.answer(lambda row: Failure(None, "engine", "refused", "No."))
    report = world.publish()
    assert report.carried == 2
    assert entry(world, id="a") is None
    assert entry(world, id="b") == ("about y", None, "model")


@pytest.mark.long
def test_a_served_value_stays_when_the_new_one_is_rejected(make: Make) -> None:
    """If people reject what is new for a key, what is served and not rejected is kept."""
    world = make()
    world.answer(echo)
    world.publish()
    world.answer(lambda row: "worse" if row["id"] == "a" else echo(row), refresh=True)
    mark(world, {"a": "reject"})
    assert world.publish().carried == 1
    assert entry(world, id="a") == ("about x", None, "model")


@pytest.mark.long
def test_a_later_accept_takes_a_rejection_back(make: Make) -> None:
    """An accept of the same value after its rejection lets it be served again."""
    world = make()
    world.answer(echo)
    rows = world.review()
    world.judge([row | {"verdict": "reject"} for row in rows if row["id"] == "a"])
    world.judge([row | {"verdict": "accept"} for row in rows if row["id"] == "a"])
    world.publish()
    assert entry(world, id="a") == ("about x", None, "model")


@pytest.mark.long
def test_an_import_brings_a_rejected_value_back(make: Make) -> None:
    """Who imports the very value after its rejection means it; an import of another value lifts nothing."""
    world = make()
    world.answer(echo)
    mark(world, {"a": "reject", "b": "reject"})
    number = world.take_in({"id": ["a", "b"], "prediction": ["about x", "other"]}).import_id
    world.publish()
    assert entry(world, id="a") == ("about x", None, "import")
    assert entry(world, id="b") == ("other", None, "import")
    predictions.undo_import(world.job, world.data, number)
    world.publish()
    assert (entry(world, id="a"), entry(world, id="b")) == (None, None)


@pytest.mark.long
def test_an_import_can_be_rejected(make: Make) -> None:
    """A reject holds from whatever source the value comes; the key is the model's again then."""
    world = make()
    world.answer(echo)
    rows = world.review()
    world.answer(lambda row: "better", refresh=True)
    world.take_in({"id": ["a"], "prediction": ["about x"]})
    world.judge([row | {"verdict": "reject"} for row in rows if row["id"] == "a"])
    world.publish()
    assert entry(world, id="a") == ("better", None, "model")


@pytest.mark.long
def test_a_corrected_value_wins_over_the_model(make: Make) -> None:
    """The corrected value is served with the source review, whatever the model says later."""
    world = make()
    world.answer(echo)
    mark(world, {"a": ("correct", "by Ann")})
    world.publish()
    assert entry(world, id="a") == ("by Ann", None, "review")
    world.answer(lambda row: "news", refresh=True)
    world.publish()
    assert entry(world, id="a") == ("by Ann", None, "review")


@pytest.mark.long
def test_a_later_import_wins_over_a_correction(make: Make) -> None:
    """The last word counts: an import after a correction is served, and the correction again once it is undone."""
    world = make()
    world.answer(echo)
    mark(world, {"a": ("correct", "by Ann")})
    number = world.take_in({"id": ["a"], "prediction": ["by Bob"]}).import_id
    world.publish()
    assert entry(world, id="a") == ("by Bob", None, "import")
    predictions.undo_import(world.job, world.data, number)
    world.publish()
    assert entry(world, id="a") == ("by Ann", None, "review")


@pytest.mark.long
def test_what_a_correction_replaced_counts_as_rejected(make: Make) -> None:
    """When the corrected value is rejected in turn, the value before it does not come back; the model may say a third."""
    world = make()
    world.answer(echo)
    first = world.review()
    mark(world, {"a": ("correct", "by Ann")})
    world.answer(lambda row: "by Ann", refresh=True)
    # The model now says what Ann said; a review of that is made up from the first one's row.
    [row] = [row for row in first if row["id"] == "a"]
    subject = Subject.of(world.job.spec, [Column("id", "string")], [])
    check = subject.digest(subject.lookup_hash({"id": "a"}), "by Ann")
    spoiled = row | {"value": "by Ann", "check": check, "verdict": "reject"}
    world.judge([spoiled])
    world.answer(echo, refresh=True)
    world.publish()
    assert entry(world, id="a") is None
    world.answer(lambda row: "third", refresh=True)
    world.publish()
    assert entry(world, id="a") == ("third", None, "model")


def test_what_people_answered_is_not_asked_again(make: Make) -> None:
    """A prompt needs no model if its rows have a correction; a mere verdict does not spare it."""
    world = make()
    world.answer(echo)
    mark(world, {"a": ("correct", "by Ann"), "b": "accept", "c": "reject"})
    world = world.changed(prompt={"template": "{{ text }}!"})
    with world.prepared() as p:
        assert (p.plan.counts.cached, p.plan.counts.to_generate) == (1, 2)


@pytest.mark.long
def test_rejections_are_no_gaps_for_the_gate(make: Make) -> None:
    """A key that lost its entry by people's word counts as covered, and is not missing of what was served."""
    world = make(gate={"coverage": 1, "shrink": 0, "rows": 1})
    world.answer(echo)
    world.publish()
    mark(world, {"a": "reject"})
    report = world.publish()
    assert (report.version, report.entries) == (2, 2)
    world.rows({"id": ["a", "b", "d"], "text": ["x", "y", "w"]})
    with pytest.raises(GateFailed) as raised:
        world.publish()
    assert raised.value.report is not None
    checks = {check["name"]: check for check in raised.value.report.to_json()["gate"]}
    assert (checks["coverage"]["examples"], checks["shrink"]["examples"]) == (("id=d",), ("id=c",))


@pytest.mark.long
def test_json_values_are_the_same_in_any_order_of_names(make: Make) -> None:
    """A rejected JSON value stays away, too, when the model writes its fields in another order."""
    world = make(output=JSON)
    world.answer(lambda row: '{"names": ["x"], "sure": true}')
    mark(world, {"a": "reject"})
    world.answer(lambda row: '{ "sure":true, "names":["x"] }', refresh=True)
    world.publish()
    assert entry(world, id="a") is None
    assert entry(world, id="b") == ({"names": ["x"], "sure": True}, None, "model")


@pytest.mark.long
def test_an_undone_review_never_was(make: Make) -> None:
    """Undoing an import removes its verdicts; the list of imports tells reviews from plain ones, with their counts."""
    world = make()
    world.answer(echo)
    taken = mark(world, {"a": "reject", "b": ("correct", "by Ann"), "c": "accept"})
    world.take_in({"id": ["c"], "prediction": ["c"]})
    listed = predictions.past_imports(world.data)
    counts = ("kind", "rows", "accepted", "rejected", "corrected")
    assert [tuple(row.to_json()[name] for name in counts) for row in listed] == [
        ("review", 3, 1, 1, 1),
        ("plain", 1, 0, 0, 0),
    ]
    predictions.undo_import(world.job, world.data, taken.import_id)
    world.publish()
    assert entry(world, id="a") == ("about x", None, "model")
    assert entry(world, id="b") == ("about y", None, "model")


@pytest.mark.long
def test_a_corrected_entry_that_was_undone_is_not_carried(make: Make) -> None:
    """What a review gave goes when it is undone, so a failing row does not keep it."""
    world = make()
    world.answer(echo)
    taken = mark(world, {"a": ("correct", "by Ann")})
    world.publish()
    predictions.undo_import(world.job, world.data, taken.import_id)
    world = world.changed(prompt={"template": "{{ text }}!"})
    world.answer(lambda row: Failure(None, "engine", "refused", "No."))
    world.publish()
    assert entry(world, id="a") is None
    assert entry(world, id="b") == ("about y", None, "model")


@pytest.mark.long
def test_accepted_terms_are_what_the_match_wants(checking: World) -> None:
    """In a checking job an accept makes the prediction what the match section wants, whatever the model says."""
    mark(checking, {"mrna shot": "accept"}, "term")
    checking.publish()
    assert entry(checking, thing="mRNA", term="mrna shot") == ("Yes", None, "review")
    checking.answer(lambda row: scores(0.01), refresh=True)
    checking.publish()
    assert entry(checking, thing="mRNA", term="mrna shot") == ("Yes", None, "review")
    assert entry(checking, thing="mRNA", term="jab") == ("No", 0.99, "model")


@pytest.mark.long
def test_an_accept_follows_the_match_section(checking: World) -> None:
    """When the match section wants another prediction later, terms that were accepted have that."""
    mark(checking, {"mrna shot": "accept"}, "term")
    changed = checking.changed(match=CHECK["match"] | {"where": {"prediction": ["No", "Yes"]}})
    changed.publish()
    assert entry(changed, thing="mRNA", term="mrna shot") == ("No", None, "review")


def test_without_where_an_accepted_term_keeps_its_prediction(checking: World) -> None:
    """Where the match section asks nothing of the prediction, an accept keeps what it was, without the score."""
    world = checking.changed(match={"terms": ["term"], "concept": "thing"})
    mark(world, {"mrna shot": "accept"}, "term")
    world.answer(lambda row: scores(0.9), refresh=True)
    world.publish()
    assert entry(world, thing="mRNA", term="mrna shot") == ("No", None, "review")


@pytest.mark.long
def test_a_rejected_term_is_not_served(checking: World) -> None:
    """In a checking job a reject takes the key away, whatever the model says; an import gives it back."""
    rows = checking.review()
    checking.judge([row | {"verdict": "reject"} for row in rows if row["thing"] == "Covaxin"])
    checking.answer(lambda row: scores(0.01), refresh=True)
    checking.publish()
    assert entry(checking, thing="Covaxin", term="jab") is None
    assert entry(checking, thing="mRNA", term="jab") == ("No", 0.99, "model")
    checking.take_in({"thing": ["Covaxin"], "term": ["jab"], "prediction": ["Yes"]})
    checking.publish()
    assert entry(checking, thing="Covaxin", term="jab") == ("Yes", None, "import")


def test_a_corrected_term_is_another_key(checking: World) -> None:
    """In a checking job a correction rejects the term and accepts the corrected one in its place."""
    taken = mark(checking, {"mrna shot": ("correct", "mRNA shot")}, "term")
    assert (taken.accepted, taken.corrected) == (0, 1)
    checking.publish()
    assert entry(checking, thing="mRNA", term="mrna shot") is None
    assert entry(checking, thing="mRNA", term="mRNA shot") == ("Yes", None, "review")
    with checking.served() as snapshot:
        found = snapshot.matcher.find("The mRNA shot, or the jab?")
    assert {(name.concept, name.term, name.source) for match in found for name in match.names} == {
        ("mRNA", "mRNA shot", "review"), ("mRNA", "jab", "model"), ("Covaxin", "jab", "model"),
    }  # fmt: skip


def reviewed_check(world: World) -> tuple[bool, str, tuple[str, ...]]:
    """Whether gate.reviewed passes, what it says, and its examples."""
    report: Report | None
    try:
        report = world.publish()
    except GateFailed as exc:
        report = exc.report
    assert report is not None
    [check] = [check for check in report.to_json()["gate"] if check["name"] == "reviewed"]
    return check["passed"], check["says"], tuple(check["examples"])


@pytest.mark.long
def test_a_gate_can_demand_that_all_was_reviewed(make: Make) -> None:
    """reviewed: all wants a person's word on every entry of the model; imports and corrections are people's already."""
    world = make(gate=OPEN | {"reviewed": "all"})
    world.answer(echo)
    passed, says, examples = reviewed_check(world)
    assert (passed, sorted(examples)) == (False, ["id=a: about x", "id=b: about y", "id=c: about z"])
    assert says == "3 of 3 entries of the model await review (100.0%; at most 0.0% allowed)"
    world.take_in({"id": ["c"], "prediction": ["c"]})
    mark(world, {"a": "accept"})
    assert reviewed_check(world)[::2] == (False, ("id=b: about y",))
    with pytest.raises(
        GateFailed, match=r"awaits review .*Let people review it: batchinfer review shop --out FILE\.csv"
    ):
        world.publish()
    mark(world, {"b": ("correct", "by Ann")})
    assert world.publish().version == 1
    world.answer(lambda row: "news" if row["id"] == "a" else echo(row), refresh=True)
    assert reviewed_check(world)[::2] == (False, ("id=a: news",))


@pytest.mark.long
def test_a_gate_can_demand_that_what_changed_was_reviewed(make: Make) -> None:
    """reviewed: changed lets stand what is served already, and wants a word on what is new or differs from it."""
    world = make()
    world.answer(echo)
    world.publish()
    world = world.changed(gate=OPEN | {"reviewed": "changed"})
    world.rows({"id": ["a", "b", "d"], "text": ["x", "y", "w"]})
    world.answer(lambda row: "news" if row["id"] == "a" else echo(row), refresh=True)
    passed, says, examples = reviewed_check(world)
    assert (passed, sorted(examples)) == (False, ["id=a: news", "id=d: about w"])
    assert says == "2 of 2 new or changed entries of the model await review (100.0%; at most 0.0% allowed)"
    mark(world, {"a": "accept", "d": "reject"})
    assert world.publish().version == 2


@pytest.mark.long
def test_a_gate_wants_a_word_only_on_terms_that_would_match(checking: World) -> None:
    """In a checking job nobody need look at a No, or at a Yes below min_score."""
    world = checking.changed(gate=OPEN | {"reviewed": "all"})
    world.answer(lambda row: scores({"jab": 0.9, "mrna shot": 0.7}[row["term"]]), refresh=True)
    assert sorted(reviewed_check(world)[2]) == ["thing=Covaxin, term=jab: Yes", "thing=mRNA, term=jab: Yes"]
    mark(world, {"jab": "accept"}, "term")
    assert world.publish().version == 1


@pytest.mark.long
def test_a_term_that_newly_matches_has_changed(checking: World) -> None:
    """reviewed: changed is about terms that were not matched before, also where the prediction stays and the score rises."""
    checking.answer(lambda row: scores(0.7 if row["thing"] == "Covaxin" else 0.9), refresh=True)
    checking.publish()
    world = checking.changed(gate=OPEN | {"reviewed": "changed"})
    world.answer(lambda row: scores(0.95), refresh=True)
    assert reviewed_check(world)[2] == ("thing=Covaxin, term=jab: Yes",)


def test_an_older_cache_gets_the_new_columns(tmp_path: Path) -> None:
    """A cache of the version before, with imports in it, is brought up to date and serves them."""
    world = imports_job(tmp_path, {"id": ["a"]}, gate=LENIENT)
    world.data.cache.unlink()
    with duckdb.connect(str(world.data.cache)) as db:
        db.execute("CREATE TABLE migrations (number INTEGER, name VARCHAR, applied_at TIMESTAMP)")
        db.execute(MIGRATIONS[0][1])
        db.execute("INSERT INTO migrations VALUES (1, 'first tables', now()::TIMESTAMP)")
        row = [lookup_hash(["a"], [Column("id", "string")], []), '{"id": "a"}', '"x"']
        db.execute("INSERT INTO imports VALUES (1, ?, ?, ?, NULL, 'Ann', now()::TIMESTAMP)", row)
    world.publish()
    assert entry(world, id="a") == ("x", None, "import")


def test_an_accepted_term_has_what_places_in_its_prediction_must_be(make: Make) -> None:
    """Where `where` names places in a JSON prediction, an accept sets those and leaves the rest of what the model said."""
    world = make(
        TERMS,
        **(
            CHECK
            | {"output": JSON, "match": CHECK["match"] | {"where": {"prediction.ok": [True], "prediction.a.b": 1}}}
        ),
    )
    world.answer(lambda row: '{"ok": false, "a": {"c": 2}, "why": "dunno"}')
    mark(world, {"mrna shot": "accept"}, "term")
    world.publish()
    with world.served() as snapshot:
        assert [match.text for match in snapshot.matcher.find("jab, mrna shot")] == ["mrna shot"]
    prediction, _, source = entry(world, thing="mRNA", term="mrna shot")
    assert (prediction, source) == ({"ok": True, "a": {"c": 2, "b": 1}, "why": "dunno"}, "review")


@pytest.mark.long
def test_what_people_changed_does_not_count_as_changed(make: Make) -> None:
    """A gate that allows no change lets corrections and imports through; the model's changes it refuses, and shows no others."""
    world = make(gate=OPEN | {"changed": 0})
    world.answer(echo)
    world.publish()
    mark(world, {"a": ("correct", "by Ann")})
    world.take_in({"id": ["b"], "prediction": ["by hand"]})
    assert world.publish().version == 2
    world.answer(lambda row: "news", refresh=True)
    world.take_in({"id": ["b"], "prediction": ["by another hand"]})
    with pytest.raises(GateFailed) as raised:
        world.publish()
    assert raised.value.report is not None
    [check] = [check for check in raised.value.report.to_json()["gate"] if check["name"] == "changed"]
    assert check["examples"] == ("id=c: about z → news",)


def test_corrected_terms_are_listed_as_they_were_told(checking: World) -> None:
    """The accept of a corrected term is no verdict of its own: the list counts it as the import did, and so does undo."""
    taken = mark(checking, {"mrna shot": ("correct", "mrna jab")}, "term")
    assert (taken.accepted, taken.corrected) == (0, 1)
    [row] = predictions.past_imports(checking.data)
    assert (row.rows, row.accepted, row.corrected) == (1, 0, 1)
    assert predictions.undo_import(checking.job, checking.data, 1).rows == 1
