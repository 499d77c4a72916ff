"""What clients ask with, as values or as a URL's query: checked, and made into the lookup hash of one version."""

from __future__ import annotations

import json
import operator
import re
from binascii import a2b_qp
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from hashlib import sha256
from typing import Any

from batchinfer import errors
from batchinfer.core import keys
from batchinfer.core.columns import A_VALUE, Column, Kind, no_value, typed
from batchinfer.errors import UsageError

NO_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})")
AS_IN_JSON = {  # as a URL has them: Python itself also reads 1_0, nan and digits of other scripts
    "integer": re.compile(r"-?(0|[1-9][0-9]*)"),
    "number": re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"),
}
_from_mail = a2b_qp  # mails are escaped as URLs are, with = for %: this is read in C, and urllib's own way in Python
INTEGERS = range(-(2**63), 2**64)  # what a column can hold
LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")  # a basic language range of RFC 4647
MAX_LANGUAGES = 200
OFFSETS = {"code_points": False, "utf16": True}  # how spans can be counted, and whether that is in UTF-16 units


class QueryReader:
    """Reads queries against the lookup key of one version. Immutable, so threads may share it."""

    __slots__ = (
        "_alone",
        "_checks",
        "_encoders",
        "_job",
        "_lone",
        "_plain",
        "_positions",
        "_single",
        "columns",
        "names",
    )

    def __init__(self, job: str, columns: Sequence[Column], normalize: Sequence[str]) -> None:
        self._job = job
        self.columns = tuple(columns)
        self._checks = tuple((CHECKS[column.kind], column) for column in columns)
        self.names = tuple(column.name for column in columns)
        self._positions = {name: position for position, name in enumerate(self.names)}
        # Names that stand for themselves in a URL need not be unescaped.
        self._plain = {name.encode(): at for name, at in self._positions.items() if not set(name) & set("%+")}
        self._encoders = tuple(_encoder(column, normalize) for column in columns)
        self._lone = (self.names[0], *self._checks[0]) if len(columns) == 1 else None
        self._single = self._encoders[0] if len(columns) == 1 else None
        # Most jobs have one text for their key: that is read without a list.
        alone = len(self._plain) == len(columns) == 1 and columns[0].kind == "string"
        self._alone = self.names[0].encode() + b"=" if alone else None

    def lookup_hash(self, values: Sequence[Any]) -> bytes:
        """The 16 bytes under which the answer lies. values: of the columns' kinds, in their order."""
        if self._single is not None:
            return sha256(self._single(values[0])).digest()[: keys.SIZE]  # as keys.short, without a call
        return keys.short(b"".join([encode(value) for encode, value in zip(self._encoders, values, strict=True)]))

    def lookup_hashes(self, rows: Iterable[Sequence[Any]]) -> list[bytes]:
        """The same of many, with fewer steps for each."""
        if self._single is None:
            return [self.lookup_hash(values) for values in rows]
        encode, size = self._single, keys.SIZE
        return [sha256(encode(value)).digest()[:size] for (value,) in rows]

    def from_values(self, query: Mapping[str, Any]) -> tuple[Any, ...]:
        """Checked values, in the key's order, from Python's or JSON's; times may be ISO 8601 text. Raises UsageError."""
        if len(query) != len(self.names):
            self._refuse_names(list(query))
        if self._lone is not None and self._lone[0] in query:  # most jobs: in half of the time
            name, check, column = self._lone
            return (check(query[name], column),)
        for name in self.names:  # before any is taken: a defaultdict would make one up
            if name not in query:
                self._refuse_names(list(query))
        return tuple([check(query[column.name], column) for check, column in self._checks])

    def from_many(self, queries: Sequence[Any]) -> list[tuple[Any, ...] | UsageError]:
        """The same for each of many; in the place of one that does not fit, why."""
        return [self._values_or_why(query) for query in queries]

    def _values_or_why(self, query: Any) -> tuple[Any, ...] | UsageError:
        # the first takes a tenth of the time of the second
        if type(query) is not dict and not isinstance(query, Mapping):
            shown = _shown(query)
            return UsageError(f"A query is a mapping of columns to values, not {shown}.")
        try:
            return self.from_values(query)
        except UsageError as exc:
            return errors.without_frames(exc)

    def from_url(self, query_string: bytes) -> tuple[Any, ...]:
        """The same from the query of a URL, percent-encoded UTF-8. Raises UsageError."""
        if self._alone is not None and query_string.startswith(self._alone) and b"&" not in query_string:
            return (_unescaped(query_string[len(self._alone) :]),)
        found: list[Any] = [None] * len(self.names)
        unknown = []
        for pair in query_string.split(b"&"):
            if not pair:
                continue
            raw_name, _, raw = pair.partition(b"=")
            position = self._plain.get(raw_name)
            if position is None:
                name = _unescaped(raw_name)
                position = self._positions.get(name)
                if position is None:
                    unknown.append(name)
                    continue
            if found[position] is not None:
                raise UsageError(f"{self.names[position]} is given more than once.")
            text = _unescaped(raw)
            column = self.columns[position]
            found[position] = text if column.kind == "string" else _typed(text, column)
        if unknown or None in found:
            named = [name for name, value in zip(self.names, found, strict=True) if value is not None]
            self._refuse_names([*named, *unknown])
        return tuple(found)

    def _refuse_names(self, named: list[str]) -> None:
        missing = [name for name in self.names if name not in named]
        unknown = [errors.shortened(str(name)) for name in named if name not in self.names]
        said = [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
        said += [f"{', '.join(unknown[:5])} {'is' if len(unknown) == 1 else 'are'} not part of it"] if unknown else []
        hint = errors.did_you_mean(unknown[0], missing) if unknown and missing else None
        end = f"; {hint}" if hint else "."
        raise UsageError(f"The lookup key of {self._job} is {', '.join(self.names)}: {' and '.join(said)}{end}")


def parameters(query_string: bytes) -> dict[str, list[str]]:
    """The values in the query of a URL by their names, percent-encoded UTF-8. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for pair in query_string.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            found.setdefault(_unescaped(name), []).append(_unescaped(value))
    return found


def language_ranges(languages: Iterable[Any]) -> tuple[str, ...]:
    """Checked BCP 47 tags, each of which also stands for its more special ones. Raises UsageError."""
    if isinstance(languages, str | bytes | Mapping):
        raise UsageError(f'Languages are a list of BCP 47 tags, such as ["de"], not {_shown(languages)}.')
    ranges = tuple(languages)
    if len(ranges) > MAX_LANGUAGES:
        raise UsageError(f"A match can be restricted to {MAX_LANGUAGES} languages; these are {len(ranges):,}.")
    for language in ranges:
        if not isinstance(language, str) or not LANGUAGE.fullmatch(language):
            raise UsageError(f"{_shown(language)} is not a BCP 47 tag, such as de or pt-BR.")
    return ranges


def in_utf16(offsets: Any) -> bool:
    """Whether spans are wanted in UTF-16 units. Raises UsageError for any other way of counting."""
    if not isinstance(offsets, str) or offsets not in OFFSETS:
        raise UsageError(f"offsets is {_shown(offsets)}; it can be {' or '.join(OFFSETS)}.")
    return OFFSETS[offsets]


def _unescaped(raw: bytes) -> str:
    """Text out of a URL; + is a space there. Raises UsageError."""
    if b"%" in raw or b"+" in raw:
        if NO_ESCAPE.search(raw):
            raise UsageError("The URL has a % that is not followed by two hexadecimal digits: write %25 for a % sign.")
        raw = _from_mail(raw.replace(b"=", b"=3D").replace(b"+", b" ").replace(b"%", b"="))
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise UsageError("The URL is not valid UTF-8: percent-encode the UTF-8 bytes of each value.") from exc


def _typed(text: str, column: Column) -> Any:
    pattern = AS_IN_JSON.get(column.kind)
    if pattern is not None and not pattern.fullmatch(text):
        raise no_value(text, column)
    return _in_range(typed(text, column), column)


def _encoder(column: Column, normalize: Sequence[str]) -> Callable[[Any], bytes]:
    encode = keys.ENCODERS[column.kind]
    if column.kind == "string" and normalize:
        return lambda text: encode(keys.normalized(text, normalize))
    return encode


def _string(value: Any, column: Column) -> str:
    if type(value) is str and value.isascii():  # most are, and Python knows it
        return value
    if not isinstance(value, str):
        raise _wrong_kind(value, column)
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise UsageError(f"{column.name} holds half of a surrogate pair, which is not text.") from exc
    return value if type(value) is str else str.__str__(value)  # an enum's member is the text that it stands for


def _integer(value: Any, column: Column) -> int:
    try:
        if not isinstance(value, bool):
            return int(_in_range(operator.index(value), column))
    except TypeError:
        pass
    raise _wrong_kind(value, column)


def _in_range(value: Any, column: Column) -> Any:
    if column.kind == "integer" and value not in INTEGERS:
        raise UsageError(f"{column.name} is an integer beyond 64 bits.")
    return value


def _number(value: Any, column: Column) -> float:
    if isinstance(value, bool | str | bytes):
        raise _wrong_kind(value, column)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise _wrong_kind(value, column) from exc
    if number != number:  # noqa: PLR0124 - not a number; in a list it counts as missing, so it is never part of a key
        raise _wrong_kind(value, column)
    return number


def _boolean(value: Any, column: Column) -> bool:
    if not isinstance(value, bool):
        raise _wrong_kind(value, column)
    return value


def _date(value: Any, column: Column) -> date:
    if isinstance(value, str):
        return typed(value, column)  # type: ignore[no-any-return]
    if not isinstance(value, date) or isinstance(value, datetime):
        raise _wrong_kind(value, column)
    return value


def _timestamp(value: Any, column: Column) -> datetime:
    if isinstance(value, str):
        return typed(value, column)  # type: ignore[no-any-return]
    if not isinstance(value, datetime):
        raise _wrong_kind(value, column)
    return value


def _shown(value: Any) -> str:
    """A value in a sentence for people: texts and numbers as Python writes them, others as JSON has them, where it can."""
    try:
        return errors.shortened(
            repr(value) if isinstance(value, str | float) else json.dumps(value, ensure_ascii=False)
        )
    except (TypeError, ValueError, RecursionError):
        return errors.shortened(repr(value))


def _wrong_kind(value: Any, column: Column) -> UsageError:
    return UsageError(f"{column.name}: expected {A_VALUE[column.kind]}, got {_shown(value)}.")


CHECKS: Mapping[Kind, Callable[[Any, Column], Any]] = {
    "string": _string, "integer": _integer, "number": _number, "boolean": _boolean, "date": _date, "timestamp": _timestamp,
}  # fmt: skip
