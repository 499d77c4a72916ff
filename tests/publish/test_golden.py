"""Golden rows: which files are taken, what counts as right, and what comes of it at the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.core.output import OutputFile
from batchinfer.core.records import Check
from batchinfer.errors import GateFailed, InputError, SpecError
from batchinfer.pipeline import export
from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.report import RunReport
from batchinfer.planning.prepare import Options
from batchinfer.publish.golden import is_right
from batchinfer.versions import folders
from batchinfer.versions.manifest import Manifest
from tests.factories import World, model_job, unchecked, write

Make = Callable[..., World]
JSON = {"type": "json", "schema": {}}
ROWS = {"id": [1, 2, 3, 4], "text": list("abcd")}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with a golden file of these columns."""

    def job(golden: Any, rows: Any = ROWS, *, how: dict[str, Any] | None = None, **sections: Any) -> World:
        sections["gate"] = sections.get("gate", {}) | {"golden": {"path": "golden.parquet"} | (how or {})}
        world = model_job(tmp_path, rows, **sections)
        if golden is not None:
            write(world.job.folder / "golden.parquet", golden)
        return world

    return job


def checked(report: RunReport) -> Check:
    """What the gate said of the golden rows."""
    return next(check for check in report.gate if check.name == "golden")


@pytest.mark.parametrize(
    ("prediction", "answer", "equal", "contains"),
    [
        ("tea", "tea", True, True),
        ("green tea", "tea", False, True),
        ("tea", "green tea", False, False),
        ("tea", "Tea", False, False),
        ("1", 1, False, False),
        (1, 1.0, True, True),
        (1, True, False, False),
        (False, 0, False, False),
        (True, True, True, True),
        (None, None, True, True),
        (["tea", "milk"], "tea", False, True),
        (["green tea"], "tea", False, False),
        (["tea", "milk"], ["milk", "tea"], False, True),
        (["tea", "milk"], ["tea", "water"], False, False),
        ([1, 2], [True], False, False),
        ([["tea"]], [["tea"]], True, True),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True, True),
        ({"a": 1}, {"a": True}, False, False),
        ({"names": ["tea", "milk"], "n": 2}, "tea", False, True),
        ({"names": ["tea", "milk"], "n": 2}, {"names": ["milk"]}, False, True),
        ({"names": ["tea", "milk"], "n": 2}, {"names": ["milk"], "n": 3}, False, False),
        ({"names": ["tea"]}, {"other": ["tea"]}, False, False),
        ({"a": {"b": "green tea"}}, "tea", False, True),
        ({"a": 1}, {}, False, True),
        (7, 77, False, False),
    ],
)
def test_what_counts_as_right(prediction: Any, answer: Any, *, equal: bool, contains: bool) -> None:
    """Equal is equal as JSON; contains looks into texts, lists and objects."""
    assert is_right(prediction, answer, "equal") == equal
    assert is_right(prediction, answer, "contains") == contains


def test_too_few_right_answers_are_refused(make: Make) -> None:
    """A candidate that answers too few golden rows rightly is not served; the wrong ones are shown, and those without an answer."""
    world = make({"id": [1, 2, 3, 9], "answer": ["tea", "milk", "rice", "beans"]})
    says = {1: "tea", 2: "not milk", 3: "rice", 4: "x"}
    world.answer(lambda row: says[row["id"]])
    with pytest.raises(GateFailed, match=r"golden: 2 of 4 golden rows are right \(50\.0%; at least 90\.0% wanted\)\. "):
        world.publish()
    [name] = folders.candidates(world.data)
    [failed] = Manifest.read(world.data.rejected / name).gate.failed
    assert failed.examples == ("id=2: wanted milk, got not milk", "id=9: wanted beans, got no prediction")
    assert (failed.value, failed.limit) == (0.5, 0.9)


def test_enough_right_answers_pass(make: Make) -> None:
    """A candidate at the limit passes, and its manifest says how many were right; a passed check has no examples."""
    world = make({"id": [1, 2], "answer": ["tea", "milk"]}, how={"compare": "contains", "accuracy": 0.5})
    world.answer(lambda row: "green tea")
    report = world.publish()
    assert checked(report).message == "1 of 2 golden rows is right (50.0%; at least 50.0% wanted)"
    assert checked(report).examples == ()


def test_an_answer_in_json_is_compared_as_a_value(make: Make) -> None:
    """Where predictions are JSON, texts of the golden file are parsed, and spelling does not matter."""
    world = make({"id": [1, 2], "answer": ['{"b": 1, "a": ["x"]}', '"tea"']}, ROWS, output=JSON)
    world.answer(lambda row: '{"a":["x"],"b":1.0}' if row["id"] == 1 else '"tea"')
    assert checked(world.publish()).value == 1


def test_an_answer_may_be_a_value_of_parquet(make: Make) -> None:
    """Where predictions are JSON, a list in the golden file is that list."""
    world = make({"id": [1], "answer": [["tea", "milk"]]}, output=JSON, how={"compare": "contains"})
    world.answer(lambda row: '["milk", "rice", "tea"]')
    assert checked(world.publish()).value == 1


def test_golden_keys_are_normalised_as_the_list_is(make: Make) -> None:
    """A golden key finds its entry in any spelling that a look-up would find it by."""
    normal = {"path": "queries.parquet", "key": ["id"], "normalize": ["nfkc", "casefold", "trim"]}
    world = make({"id": ["STRASSE "], "answer": ["about a"]}, {"id": ["Straße"], "text": ["a"]}, input=normal)
    world.answer(lambda row: "about a")
    assert checked(world.publish()).value == 1


def test_imports_are_judged_too(make: Make) -> None:
    """What people put in place of the model's answer is what the golden rows are compared with."""
    world = make({"id": [1], "answer": ["tea"]})
    world.answer(lambda row: "milk")
    world.take_in({"id": [1], "prediction": ["tea"]})
    assert checked(world.publish()).value == 1


DAY = pa.array([10], pa.date32())
BAD: list[Any] = [
    pytest.param(None, {}, r"line \d+: gate\.golden\.path: there is no file .*golden\.parquet\.", id="missing"),
    pytest.param({"id": [1]}, {}, r"golden\.parquet has no column answer: it has id\.", id="no answer"),
    pytest.param({"answer": ["x"]}, {}, r"golden\.parquet has no column id: it has answer\.", id="no key"),
    pytest.param(
        {"id": pa.array([], pa.int64()), "answer": pa.array([], pa.string())}, {}, r"golden\.parquet has no rows", id="no rows"
    ),
    pytest.param({"id": ["1"], "answer": ["x"]}, {}, "id of the golden file .* holds string values, but the job's list has integer",
                 id="another kind"),
    pytest.param({"id": DAY, "answer": ["x"]}, {}, "holds date values, but the job's list has integer", id="a date"),
    pytest.param({"id": [[1]], "answer": ["x"]}, {}, "a lookup key must be a plain value", id="a nested key"),
    pytest.param({"id": [1, 2, 1], "answer": ["x", "y", "x"]}, {}, r"row 3: there is another row of the same key, .*keep one", id="twice"),
    pytest.param({"id": [1, None], "answer": ["x", "y"]}, {}, r"row 2: The column id is null", id="a null key"),
    pytest.param({"id": [1, 2], "answer": ["x", None]}, {}, r"row 2: the answer is null", id="a null answer"),
    pytest.param({"id": [1], "answer": [""]}, {}, r"row 1: the answer is empty", id="an empty answer"),
    pytest.param({"id": [1], "answer": ["tea"]}, {"output": JSON}, r"row 1: the answer should be JSON, but is 'tea'.*has quotes",
                 id="no JSON"),
    pytest.param({"id": [1], "answer": [float("nan")]}, {"output": JSON}, r"row 1: the answer cannot be JSON", id="NaN"),
    pytest.param({"id": [1], "answer": unchecked([b"\xff"], pa.string())}, {}, "has a value that cannot be used", id="not UTF-8"),
    pytest.param({"id": [1], "answer": ["No"]}, {"output": {"type": "choice", "choices": ["Ja", "Nein"]}},
                 "row 1: the answer 'No' is not one of output.choices", id="no choice"),
]  # fmt: skip


@pytest.mark.parametrize(("golden", "sections", "sentence"), BAD)
def test_a_bad_golden_file_is_told_before_the_model_is_loaded(
    make: Make, golden: Any, sections: dict[str, Any], sentence: str
) -> None:
    """A golden file that cannot be used ends a run before any prompt is asked; in the dry run too. Exporting does not mind."""
    world = make(golden, **sections)
    with pytest.raises(InputError, match=sentence) as raised:
        world.run()
    assert raised.value.exit_code == 2
    assert world.store.runs() == []
    with pytest.raises(InputError, match=sentence):
        plan(world.job, world.data, Options())


def test_an_export_needs_no_golden_file(make: Make, tmp_path: Path) -> None:
    """What the cache has can be exported while the golden file is missing."""
    world = make({"id": [1], "answer": ["x"]})
    world.answer(lambda row: "x")
    (world.job.folder / "golden.parquet").unlink()
    assert export.export(world.job, world.data, Options(), OutputFile.of(tmp_path / "out.parquet")).rows == 4


@pytest.mark.long
def test_a_file_that_is_no_parquet_is_told(make: Make) -> None:
    """A golden file that is something else, or cut off, is an error with its name."""
    world = make({"id": [1], "answer": ["x"]})
    path = world.job.folder / "golden.parquet"
    for content in (b"", b"id,answer\n1,x\n", path.read_bytes()[:-20]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"golden\.parquet is (not Parquet|truncated or corrupt)"):
            world.run()
    path.unlink()
    path.mkdir()
    with pytest.raises(
        InputError, match=r"line \d+: gate\.golden\.path: .*golden\.parquet is a folder: name one Parquet file\.$"
    ):
        world.run()
    (path / "_delta_log").mkdir()
    with pytest.raises(InputError, match=r"golden\.parquet is a Delta table"):
        world.run()
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(InputError, match=r"there is no file .*golden\.parquet"):
        world.run()


def test_a_golden_file_may_not_lie_anywhere(make: Make, tmp_path: Path) -> None:
    """A golden file outside the job's folder and the allowed roots is refused."""
    world = make(None, how={"path": "../golden.parquet"})
    write(tmp_path / "golden.parquet", {"id": [1], "answer": ["x"]})
    with pytest.raises(SpecError, match=r"gate\.golden\.path: \.\./golden\.parquet is outside the job's folder"):
        world.run()


def test_a_key_named_answer_is_refused(make: Make) -> None:
    """The key and the answer cannot share a column."""
    rows = {"answer": [1], "text": ["a"]}
    world = make({"answer": [1]}, rows, input={"path": "queries.parquet", "key": ["answer"]})
    with pytest.raises(InputError, match="key column answer has the name of the golden file's column of answers"):
        world.run()


def test_a_damaged_page_is_told(make: Make) -> None:
    """A golden file whose data break off in the middle is an error, not a traceback."""
    world = make({"id": list(range(5000)), "answer": [str(number) for number in range(5000)]})
    path = world.job.folder / "golden.parquet"
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"golden\.parquet"):
        world.run()


def test_the_answers_of_the_report_are_json(make: Make) -> None:
    """A report with examples can be printed for machines."""
    world = make({"id": [1], "answer": ["tea"]})
    world.answer(lambda row: "milk")
    with pytest.raises(GateFailed) as raised:
        world.publish()
    assert raised.value.report is not None
    report = json.loads(json.dumps(raised.value.report.to_json()))
    [examples] = [check["examples"] for check in report["gate"] if check["name"] == "golden"]
    assert examples == ["id=1: wanted tea, got milk"]


def test_golden_rows_beyond_a_narrowed_list_do_not_count(make: Make) -> None:
    """What the list does not ask is not answered wrongly; a key of the list without a prediction is."""
    golden = {"id": [1, 2, 3, 4], "answer": ["about a", "about b", "about c", "about d"]}
    world = make(
        golden, how={"accuracy": 0.5}, input={"path": "queries.parquet", "key": ["id"], "where": {"id": [1, 2]}}
    )
    world.answer(lambda row: "about a" if row["text"] == "a" else "wrong")
    check = checked(world.publish())
    assert check.passed
    assert check.message.startswith("1 of 2 golden rows is right")
