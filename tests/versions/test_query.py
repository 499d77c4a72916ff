"""Queries, as values and as URLs, make the keys that the build made; what is no query gets its sentence."""

from __future__ import annotations

import gc
import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, get_args
from urllib.parse import quote, quote_plus, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.client.encoding import each_as_json
from batchinfer.core.columns import Column, Kind
from batchinfer.core.keys import lookup_hash
from batchinfer.errors import UsageError
from batchinfer.versions.query import CHECKS, QueryReader, _unescaped

NOON = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - lists hold times without a zone
STEPS = ("nfkc", "casefold", "trim")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "integer": st.integers(-(2**63), 2**64 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(timezones=st.none() | st.sampled_from([UTC, timezone(timedelta(hours=14))])),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def as_text(value: Any) -> str:
    """A value as people write it into a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


def as_json(value: Any) -> Any:
    """A value as it comes out of a JSON body."""
    return json.loads(json.dumps(value.isoformat() if isinstance(value, date) else value))


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[Column], list[Any], list[str]]:
    """Columns of any kinds and names, a value for each, and steps that make strings comparable."""
    names = draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1, max_size=4,
                          unique=True))  # fmt: skip
    columns = [Column(name, draw(st.sampled_from(sorted(VALUES)))) for name in names]
    return (
        columns,
        [draw(VALUES[column.kind]) for column in columns],
        draw(st.lists(st.sampled_from(STEPS), unique=True)),
    )


@given(asked(), st.randoms(use_true_random=False), st.sampled_from([quote, quote_plus]))
def test_every_way_of_asking_makes_the_key_of_the_build(
    drawn: tuple[list[Column], list[Any], list[str]], random: Any, escape: Any
) -> None:
    """Python's values, JSON's and a URL's, in whatever order, all lead to `keys.lookup_hash`, for each kind and step."""
    columns, values, steps = drawn
    reader = QueryReader("shop", columns, steps)
    expected = lookup_hash(values, columns, steps)
    given_here = {column.name: value for column, value in zip(columns, values, strict=True)}
    assert reader.lookup_hash(reader.from_values(given_here)) == expected
    assert (
        reader.lookup_hash(reader.from_values({name: as_json(value) for name, value in given_here.items()})) == expected
    )
    pairs = [f"{escape(name, safe='')}={escape(as_text(value), safe='')}" for name, value in given_here.items()]
    random.shuffle(pairs)
    assert reader.lookup_hash(reader.from_url("&".join(pairs).encode())) == expected


@given(st.sampled_from(sorted(VALUES)), JSON)
def test_junk_is_refused_with_a_sentence(kind: Kind, value: Any) -> None:
    """Any JSON value either makes a key or gets one sentence; nothing else is ever raised."""
    reader = QueryReader("shop", [Column("a", kind)], STEPS)
    refused = refusal(lambda: reader.lookup_hash(reader.from_values({"a": value})))
    assert not refused or refused.startswith("a")
    assert len(refused) < 300


@given(st.sampled_from(sorted(VALUES)), st.binary(max_size=40))
def test_any_bytes_of_a_url_are_read_or_refused(kind: Kind, raw: bytes) -> None:
    """The query of a URL may be any bytes: it makes a key or gets one sentence that can be sent."""
    reader = QueryReader("shop", [Column("a", kind)], ())
    for query in (raw, b"a=" + raw):
        assert len(refusal(lambda query=query: reader.lookup_hash(reader.from_url(query))).encode()) < 700  # type: ignore[misc]


def refusal(make: Callable[[], bytes]) -> str:
    """The sentence with which a query is refused; empty if it has a key."""
    try:
        key = make()
    except UsageError as exc:
        return str(exc)
    assert len(key) == 16
    return ""


def test_every_kind_that_a_key_can_have_can_be_asked_for() -> None:
    """There is a check for each kind but nested JSON, which no key column can have."""
    assert CHECKS.keys() | {"json"} == set(get_args(Kind))


@pytest.mark.parametrize(
    ("kind", "query", "sentence"),
    [
        ("string", b"", "The lookup key of shop is a, b: a, b are missing."),
        ("string", b"a=1", "The lookup key of shop is a, b: b is missing."),
        ("string", b"a=1&c=2", "The lookup key of shop is a, b: b is missing and c is not part of it."),
        ("string", b"a=1&b=2&c=3&d=", "The lookup key of shop is a, b: c, d are not part of it."),
        ("string", b"a=1&b=2&a=1", "a is given more than once."),
        ("string", b"a=%4&b=2", "The URL has a % that is not followed by two hexadecimal digits: write %25 for a % sign."),
        ("string", b"a=%&b=2", "The URL has a % that is not followed by two hexadecimal digits: write %25 for a % sign."),
        ("string", b"%zz=1", "The URL has a % that is not followed by two hexadecimal digits: write %25 for a % sign."),
        ("string", b"a=%ff&b=2", "The URL is not valid UTF-8: percent-encode the UTF-8 bytes of each value."),
        ("string", b"a=\xff&b=2", "The URL is not valid UTF-8: percent-encode the UTF-8 bytes of each value."),
        ("string", b"a=%ed%a0%80&b=", "The URL is not valid UTF-8: percent-encode the UTF-8 bytes of each value."),
        ("integer", b"a=1.0&b=2", "a=1.0 is not a valid integer."),
        ("integer", b"a=&b=2", "a= is not a valid integer."),
        ("integer", b"a=18446744073709551616&b=2", "a is an integer beyond 64 bits."),
        ("integer", b"a=" + b"9" * 5000 + b"&b=2", f"a={'9' * 59}… is not a valid integer."),
        *[("integer", f"a={quote(text)}&b=2".encode(), f"a={text} is not a valid integer.")
          for text in ("1_0", "+7", "\u0667", " 7", "07", "nan")],
        *[("number", f"a={quote(text)}&b=2".encode(), f"a={text} is not a valid number.")
          for text in ("nan", "inf", "-Infinity", "1_0.5", "+7", "\u0667", ".5", "1.")],
        ("number", b"a=one&b=2", "a=one is not a valid number."),
        ("boolean", b"a=1&b=2", "a=1 is not a valid boolean."),
        ("date", b"a=2026-02-30&b=2", "a=2026-02-30 is not a valid date."),
        ("timestamp", b"a=noon&b=2", "a=noon is not a valid timestamp."),
    ],
)  # fmt: skip
def test_a_url_that_does_not_fit_is_refused(kind: Kind, query: bytes, sentence: str) -> None:
    """What is missing, unknown, doubled, badly escaped or of another kind is named in one sentence."""
    with pytest.raises(UsageError) as refused:
        QueryReader("shop", [Column("a", kind), Column("b", kind)], ()).from_url(query)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("kind", "query", "sentence"),
    [
        ("string", {}, "The lookup key of shop is a: a is missing."),
        ("string", {"a": "x", "b": 1}, "The lookup key of shop is a: b is not part of it."),
        ("string", {"aa": 1}, "The lookup key of shop is a: a is missing and aa is not part of it; did you mean a?"),
        ("string", {"b" * 100: 1}, f"The lookup key of shop is a: a is missing and {'b' * 59}… is not part of it."),
        ("string", {"a": None}, "a: expected a string, got null."),
        ("string", {"a": 7}, "a: expected a string, got 7."),
        ("string", {"a": "\ud800"}, "a holds half of a surrogate pair, which is not text."),
        ("integer", {"a": "7"}, "a: expected an integer, got '7'."),
        ("integer", {"a": 7.0}, "a: expected an integer, got 7.0."),
        ("integer", {"a": True}, "a: expected an integer, got true."),
        ("integer", {"a": 2**64}, "a is an integer beyond 64 bits."),
        ("integer", {"a": -(2**63) - 1}, "a is an integer beyond 64 bits."),
        ("number", {"a": "1.5"}, "a: expected a number, got '1.5'."),
        ("number", {"a": 10**400}, f"a: expected a number, got 1{'0' * 58}…."),
        ("boolean", {"a": "true"}, "a: expected a boolean, got 'true'."),
        ("boolean", {"a": 1}, "a: expected a boolean, got 1."),
        ("date", {"a": 20260131}, "a: expected a date, got 20260131."),
        ("date", {"a": "soon"}, "a=soon is not a valid date."),
        ("date", {"a": NOON}, "a: expected a date, got datetime.datetime(2026, 1, 31, 12, 0)."),
        ("timestamp", {"a": date(2026, 1, 31)}, "a: expected a timestamp, got datetime.date(2026, 1, 31)."),
        ("timestamp", {"a": 1769860800}, "a: expected a timestamp, got 1769860800."),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(kind: Kind, query: dict[str, Any], sentence: str) -> None:
    """JSON's types must be the column's: text is no number, 7.0 no integer, 1 no boolean."""
    with pytest.raises(UsageError) as refused:
        QueryReader("shop", [Column("a", kind)], ()).from_values(query)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("query", [{"b": "x"}, {"a": "no date"}, {"a": 7}, 7], ids=str)
@pytest.mark.parametrize("read", [QueryReader.from_many, each_as_json])
def test_refusals_of_a_batch_leave_nothing_to_the_collector(read: Callable[..., Any], query: Any) -> None:
    """It would stop the whole worker for tens of milliseconds: no frame of a refusal holds the list that it stands in."""
    reader = QueryReader("shop", [Column("a", "date")], ())

    def are_refused() -> bool:
        refused = read(reader, [query] * 50)  # by this frame, too, which is one that refusals came through
        return all(isinstance(each, UsageError) and str(each) for each in refused)

    gc.collect()
    gc.disable()
    try:
        assert are_refused()
        assert gc.collect() < 50  # what of the interpreter's own is left
    finally:
        gc.enable()


@pytest.mark.parametrize("text", ["0", "-7", "1.5", "1e3", "1E-07", "-1e999"])
def test_numbers_of_a_url_are_read_as_in_json(text: str) -> None:
    """A number has the same key whether a URL or a body brings it, one beyond all doubles too."""
    reader = QueryReader("shop", [Column("a", "number")], ())
    assert reader.from_url(f"a={text}".encode()) == reader.from_values({"a": json.loads(text)})


def test_a_plus_is_a_space_also_in_a_columns_name() -> None:
    """Two columns whose names differ only as escaped and unescaped text do are told apart."""
    reader = QueryReader("shop", [Column("a b", "string"), Column("a+b", "string"), Column("%41", "string")], ())
    assert reader.from_url(b"a+b=1&a%2Bb=2&%2541=3") == ("1", "2", "3")
    assert reader.from_url(b"a%20b=x+y&a%2bb=x%2By&%2541=%E2%82%AC") == ("x y", "x+y", "€")


PARTS = st.sampled_from(
    [b"%41", b"%3d", b"%E2%82%AC", b"%0a", b"=", b"==", b"=3D", b"=\n", b"+", b"\r\n", b"_", b". ", b"\0"]
)


@given(st.lists(PARTS | TEXTS.map(lambda text: text.replace("%", "%25").encode())).map(b"".join))
def test_a_url_is_unescaped_as_urllib_does(raw: bytes) -> None:
    """Whatever is in it, mail's own escapes, too."""
    assert _unescaped(raw) == unquote_to_bytes(raw.replace(b"+", b" ")).decode()


def test_zeros_are_one_number() -> None:
    """-0.0 and 0 are found where 0.0 was listed; every other double has a key of its own."""
    reader = QueryReader("shop", [Column("a", "number")], ())
    keys = {reader.lookup_hash(reader.from_values({"a": value})) for value in (0, 0.0, -0.0)}
    assert keys == {reader.lookup_hash(reader.from_url(b"a=-0"))}
    assert reader.lookup_hash((math.nextafter(0.1, 1),)) != reader.lookup_hash((0.1,))
    assert struct.pack("<d", reader.from_url(b"a=1e-320")[0]) == struct.pack("<d", 1e-320)


def test_a_time_may_come_with_its_zone() -> None:
    """The same moment has the same key, whatever zone it is written in; without one it is UTC."""
    reader = QueryReader("shop", [Column("a", "timestamp")], ())
    texts = [b"2026-01-31T12:00:00Z", b"2026-01-31T14:00:00%2B02:00", b"2026-01-31T12:00:00", b"2026-01-31+12:00"]
    assert len({reader.lookup_hash(reader.from_url(b"a=" + text)) for text in texts}) == 1
