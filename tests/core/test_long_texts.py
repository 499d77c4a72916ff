"""Tokens in place of long texts: equal for equal texts, sorted alike, safe against texts that look like one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import lmdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core.long_json import LONG_JSON, list_length_sql, shortened_json
from batchinfer.core.long_texts import CLOSE, LONG, OPEN, LongTexts, is_long, named, short_text
from batchinfer.core.memory import VARIABLE
from batchinfer.errors import StoreError

HAN = "疫苗" * LONG


@pytest.fixture
def texts(tmp_path: Path) -> Iterator[LongTexts]:
    """An empty store of long texts."""
    made = LongTexts(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("text", ["x" * (LONG + 1), HAN, "é" * (LONG // 2 + 1), f"{OPEN}00{CLOSE}", "a\ufdd2b"])
def test_what_is_long_or_has_a_mark_comes_back_whole(texts: LongTexts, text: str) -> None:
    """A column holds a short token of such a text, and the text is found again by it."""
    column = texts.shortened(pa.array(["short", text, None, text]))
    first, found, nothing, again = column.to_pylist()
    assert (first, nothing, found) == ("short", None, again)
    assert len(found) < LONG
    assert texts.whole(found) == text
    assert is_long(text)


def test_short_columns_are_left_as_they_are(texts: LongTexts) -> None:
    """Columns without long texts, or without texts, are not even copied."""
    for column in (pa.array(["a", "x" * LONG, None]), pa.array([1, 2]), pa.array([], pa.string())):
        assert texts.shortened(column) is column
    assert not texts.any


@given(st.lists(st.tuples(st.text(max_size=8), st.sampled_from([1, LONG])), max_size=4))
def test_json_stays_json(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, int]]) -> None:
    """JSON with long strings is shorter JSON of the same form, and comes back as it was."""
    texts = LongTexts(tmp_path_factory.mktemp("texts"))
    values = [part * times for part, times in parts]
    text = json.dumps({"values": values, "n": 1.5}, ensure_ascii=False)
    short = shortened_json(text, texts.keep)
    assert json.loads(short)["n"] == 1.5
    assert texts.whole(short) == text
    assert short == text or len(short) < len(text)
    texts.close()


def test_json_of_many_short_strings_is_replaced_as_a_whole(texts: LongTexts) -> None:
    """Where no string is long but all of them together are, one token stands for the JSON text."""
    text = json.dumps(["word"] * LONG_JSON)
    short = shortened_json(text, texts.keep)
    assert isinstance(json.loads(short), str)
    assert texts.whole(short) == text


def test_of_long_json_plain_values_and_lengths_are_found(texts: LongTexts) -> None:
    """One token stands for each long list, so that SQL finds the rest, and how many items it has."""
    names = [f"name {number} {'x' * LONG if number == 7 else ''}" for number in range(3000)]
    value = {"names": names, "few": ["a", "b"], "of": {"sure": True, "deep": [names]}, "one": "a", "none": []}
    text = json.dumps(value, ensure_ascii=False)
    short = shortened_json(text, texts.keep)
    assert len(short) < LONG_JSON / 8
    assert texts.whole(short) == text
    places = ["$.names", "$.few", "$.of.deep", "$.one", "$.none", "$.not", "$.of"]
    lengths = ", ".join(list_length_sql(f"json_extract(value, '{place}')") for place in places)
    with duckdb.connect() as db:
        sql = f"SELECT {lengths}, json_extract_string(value, '$.of.sure') FROM (SELECT ?::VARCHAR AS value)"
        assert db.execute(sql, [short]).fetchall() == [(3000, 2, 1, None, 0, None, None, "true")]
        all_of_it = shortened_json(json.dumps(names), texts.keep)
        of_all = db.execute(
            f"SELECT {list_length_sql('value')} FROM (SELECT ?::VARCHAR AS value)",
            [all_of_it],
        )
        assert of_all.fetchall() == [(3000,)]


def test_equal_texts_have_equal_tokens_and_those_that_begin_alike_lie_together() -> None:
    """Tokens can be joined and sorted by."""
    a, b = "a" * LONG, "b" * LONG
    tokens = [short_text(text) for text in (a + "x", b + "x", a + "y", b + "y", a + "x")]
    assert tokens[0] == tokens[4]
    assert len(set(tokens)) == 4
    assert [token in (tokens[0], tokens[2]) for token in sorted(tokens[:4])] == [True, True, False, False]


def test_texts_of_another_store_are_read_when_they_are_needed(texts: LongTexts) -> None:
    """A source is read at the first token that is not known; one that no store has is an error."""
    kept: dict[bytes, bytes] = {}
    other = LongTexts(Path())
    [token] = pa.array([short_text(HAN)]).to_pylist()
    kept[next(iter(named([token])))] = HAN.encode()
    asked = []
    texts.add_source(lambda: asked.append(1) or kept.items())  # type: ignore[func-returns-value]
    assert texts.any
    assert not asked
    assert texts.whole_record({"a": token, "n": 1}) == {"a": HAN, "n": 1}
    assert asked == [1]
    with pytest.raises(StoreError, match="lacks a long text"):
        other.whole(token)


def test_batches_with_all_their_texts_are_bounded(texts: LongTexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come back in order, in batches of about the bytes that may be held."""
    monkeypatch.setenv(VARIABLE, "32MB")
    long = [f"{number} " + "x" * 400_000 for number in range(12)]
    batch = pa.record_batch([pa.array(range(12)), texts.shortened(pa.array(long))], names=["n", "text"])
    found = list(texts.all_whole([batch]))
    assert [text for part in found for text in part.column("text").to_pylist()] == long
    assert max(part.nbytes for part in found) < 2_500_000


def test_an_index_grows(texts: LongTexts) -> None:
    """It begins small, since address space may be limited, and holds all that comes."""
    numbers = [b"%016d" % number for number in range(20_000)]
    for number in numbers:
        texts.keep(number, number)
    assert all(texts.read(number) == number for number in numbers[::500])


def test_an_index_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that says what to do, and closing it none."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise lmdb.MemoryError("Cannot allocate memory")

    monkeypatch.setattr(lmdb, "open", refuse)
    texts = LongTexts(tmp_path)
    with pytest.raises(StoreError, match=r"cannot be noted: Cannot allocate memory\. Free space there, and allow"):
        texts.keep(b"0", b"0")
    texts.close()
