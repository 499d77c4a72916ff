"""Narrow numbers and decimals: text and keys are of their shortest form, and what was stored before is found again."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.inputs.parquet import ListSource
from batchinfer.inputs.shortest import decimal_texts, plain_values, widened
from batchinfer.job.spec import InputSpec
from tests.factories import LENIENT, World, imports_job, model_job, write

DEEP = pa.struct({"a": pa.list_(pa.struct({"b": pa.float32(), "c": pa.string()})), "d": pa.float32()})


def read(tmp_path: Path, column: pa.Array, **fields: Any) -> list[Any]:
    """A column as the list has it."""
    path = write(tmp_path / "list.parquet", {"id": pa.array(range(len(column))), "x": column})
    source = ListSource(
        [path], InputSpec.model_validate({"path": "x", "key": ["id"], "optional": ["x"]} | fields), ["x"]
    )
    [batch] = source.batches()
    values: list[Any] = batch.good["x"].to_pylist()
    return values


@given(st.floats(width=32))
def test_every_single_is_the_double_that_is_written_like_it(value: float) -> None:
    """The double is the shortest that means the narrow number, by itself and within a list."""
    column = pa.array([value, None], pa.float32())
    [wide, null] = widened(column).to_pylist()
    assert null is None
    assert repr(wide) == repr(float(str(np.float32(value))))
    [[within]] = plain_values(pa.array([[value]], pa.list_(pa.float32())))
    assert repr(np.float32(within)) == repr(np.float32(value))


@given(st.floats(width=16, allow_nan=False))
def test_every_half_is_the_double_that_is_written_like_it(value: float) -> None:
    """The same for numbers of 16 bits."""
    assert widened(pa.array([np.float16(value)], pa.float16())).to_pylist() == [float(str(np.float16(value)))]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**9), max_value=10**9))
def test_decimals_are_texts_by_value(value: Decimal) -> None:
    """The scale of a column does not show in its texts, which mean the same number."""
    texts = {decimal_texts(pa.array([value], pa.decimal128(38, scale)))[0].as_py() for scale in (12, 15, 20)}
    [text] = texts
    assert Decimal(text) == value
    assert "E" not in text
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        pytest.param(pa.array([0.1, None], pa.float32()), [0.1, None], id="single"),
        pytest.param(pa.array([np.float16(0.1)], pa.float16()), [0.1], id="half"),
        pytest.param(pa.array([0.1], pa.float64()), [0.1], id="double"),
        pytest.param(pa.array([0.1], pa.float32()).dictionary_encode(), [0.1], id="categorical"),
        pytest.param(pa.array([Decimal("1.50"), Decimal("100.00"), Decimal("-0.05"), Decimal("0.00")]),
                     ["1.5", "100", "-0.05", "0"], id="decimal"),
        pytest.param(pa.array([Decimal(100)], pa.decimal128(5, 0)), ["100"], id="decimal without a scale"),
        pytest.param(pa.array([Decimal("0.00000000000000000001")], pa.decimal128(38, 20)), ["0.00000000000000000001"], id="small decimal"),
        pytest.param(pa.array([[0.1, None], None], pa.list_(pa.float32())), ["[0.1,null]", None], id="list"),
        pytest.param(pa.array([{"a": [{"b": 0.1, "c": "x"}], "d": None}], DEEP),
                     ['{"a":[{"b":0.1,"c":"x"}],"d":null}'], id="struct"),
        pytest.param(pa.array([[("k", 0.1)]], pa.map_(pa.string(), pa.float32())), ['[["k",0.1]]'], id="map"),
        pytest.param(pa.array([[Decimal("1.50")]]), ['["1.5"]'], id="list of decimals"),
    ],
)  # fmt: skip
def test_values_of_a_list_have_their_shortest_form(tmp_path: Path, column: pa.Array, values: list[Any]) -> None:
    """What a prompt shows, and a key is made of, is how people write the number."""
    assert read(tmp_path, column) == values


def test_a_type_that_the_job_says_is_kept(tmp_path: Path) -> None:
    """Types said in the job file hold for narrow numbers, too."""
    assert read(tmp_path, pa.array([0.1], pa.float32()), types={"x": "string"}) == ["0.1"]
    assert read(tmp_path, pa.array([Decimal("1.50")]), types={"x": "number"}) == [1.5]
    assert read(tmp_path, pa.array([0.1, 0.2], pa.float32()), where={"x": 0.1}) == [0.1]


def priced(folder: Path, prices: pa.Array) -> World:
    """A job whose key is a price, with imported answers."""
    return imports_job(folder, {"price": prices}, input={"path": "queries.parquet", "key": ["price"]}, gate=LENIENT)


@pytest.mark.parametrize(
    ("prices", "asked", "before"),
    [(pa.array([0.1, 7], pa.float32()), [0.1, 7.0], "0.10000000149011612"),
     (pa.array([Decimal("1.50"), Decimal("7.00")]), ["1.5", "7"], '"1.50"')],
    ids=["single", "decimal"],
)  # fmt: skip
def test_answers_are_found_by_the_shortest_form(
    tmp_path: Path, prices: pa.Array, asked: list[Any], before: str
) -> None:
    """A look-up as people write the number hits; imports that an earlier release stored are found again, once."""
    world = priced(tmp_path, prices)
    world.take_in({"price": prices, "prediction": ["cheap", "dear"], "score": pa.array([0.1, 0.9], pa.float32())})
    with world.store.open(write=True) as db:
        db.execute(
            "UPDATE imports SET lookup = 'old'::BLOB, query = ? WHERE prediction = '\"cheap\"'",
            [f'{{"price": {before}}}'],
        )
        db.execute("UPDATE import_keys SET made_of = replace(made_of, 'forms', 'former')")
    assert world.publish().version == 1
    bodies = [json.loads(world.get(price=price) or b"{}") for price in asked]
    assert [(body["query"]["price"], body["prediction"], body["score"]) for body in bodies] == [
        (asked[0], "cheap", 0.1), (asked[1], "dear", 0.9),
    ]  # fmt: skip
    assert world.publish().version is None  # nothing is out of date any more


def test_a_prompt_shows_the_shortest_form(tmp_path: Path) -> None:
    """The model reads 0.1, and its answer is published under it."""
    world = model_job(
        tmp_path,
        {"price": pa.array([0.1], pa.float32())},
        input={"path": "queries.parquet", "key": ["price"]},
        prompt={"template": "{{ price }}"},
        gate=LENIENT,
    )
    world.answer(lambda row: f"It costs {row['price']}.")
    world.publish()
    assert b"It costs 0.1." in (world.get(price=0.1) or b"")
