"""The rows of a review that people marked, checked one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from batchinfer import errors
from batchinfer.cache import verdicts
from batchinfer.cache.imports import as_prediction
from batchinfer.core import keys
from batchinfer.core.columns import Column, typed
from batchinfer.core.records import VerdictKind
from batchinfer.errors import InputError, UsageError
from batchinfer.job.spec import JobSpec
from batchinfer.review.sheet import PERSON, column_of, comparable, digest, marks

SHOWN = 5  # faults that are named


class Reader:
    """Reads rows of a review. faults: the first of what is wrong with it; more: how many others; blank: rows not judged."""

    def __init__(self, spec: JobSpec, key: Sequence[Column], normalize: Sequence[str], author: str) -> None:
        self._spec, self._key, self._normalize, self._author = spec, list(key), normalize, author
        schema = spec.output.schema_
        self._schema = None if schema is None else Draft202012Validator(schema)
        self._checking, self._given = verdicts.is_checking(spec), "prediction" in verdicts.wanted(spec)
        self.faults: list[str] = []
        self.more = 0
        self.blank = 0

    def of_another_job(self, job: Any) -> str | None:
        """What to say of a row that was made for another job."""
        name = self._spec.name
        return None if job == name else f"it was made for the job {errors.shortened(str(job))}, not for {name}"

    def names(self, path: Path, given: Sequence[str]) -> list[str]:
        """The columns of a file as a review calls them, whatever their case. Raises InputError if one is missing."""
        own = ["prediction"] if self._checking else []
        needed = ["job", *(column_of(column.name) for column in self._key), "value", *own, "check", "verdict"]
        ours = {name.lower(): name for name in [*needed, *PERSON]}
        names = [ours.get(name.strip().lower(), name) for name in given]
        marked = marks(given, [column.name for column in self._key])
        for name in needed:
            if name not in names:
                raise InputError(
                    f"{path} has the column {', '.join(marked)}, so it is a review, but it has no column {name}: make it "
                    "anew, with batchinfer review, or rename that column if it holds plain predictions. Nothing was taken in."
                )
        for name in ours.values():
            if names.count(name) > 1:
                raise InputError(
                    f"The review {path} has the column {name} more than once: remove one. Nothing was taken in."
                )
        return names

    def read(self, row: Mapping[str, Any], place: str, number: int) -> list[dict[str, Any]]:
        """The verdict of a row, as records of SCHEMA: none where it was not judged, or is at fault."""
        try:
            return [record | {"line": number, "place": place} for record in self._verdict(row)]
        except (ValueError, UsageError) as exc:
            if len(self.faults) < SHOWN:
                self.faults.append(f"{place}: {exc}")
            else:
                self.more += 1
            return []

    def _verdict(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        if fault := self.of_another_job(row["job"]):
            raise ValueError(fault)
        word, corrected = (str(row.get(name) or "").strip() for name in ("verdict", "corrected"))
        if not word and not corrected:
            self.blank += 1
            return []
        verdict = word.casefold() or VerdictKind.CORRECT
        if verdict not in [*VerdictKind]:
            raise ValueError(f"the verdict is {errors.shortened(word)}, but should be accept, reject or correct")
        query, lookup, value = self._known(row)
        if verdict == VerdictKind.CORRECT and not corrected:
            raise ValueError("the verdict is correct, but there is no corrected value")
        answer = self._fitting(corrected) if corrected else None
        if answer is not None and self._is_no_change(answer, query, value):
            answer, verdict = None, VerdictKind.ACCEPT if verdict == VerdictKind.CORRECT else verdict
        if answer is not None and verdict != VerdictKind.CORRECT:
            raise ValueError(f"the verdict is {verdict}, but there is a corrected value: say correct, or clear it")
        author = str(row.get("author") or "").strip() or self._author
        record = {"lookup": lookup, "query": _as_json(query), "verdict": verdict, "author": author, "follows": False}
        if not self._checking:
            return [record | {"value": self._stored(value), "prediction": answer}]
        accepted = None if self._given else self._stored(str(row["prediction"]))
        if verdict != VerdictKind.CORRECT:
            return [record | {"prediction": accepted if verdict == VerdictKind.ACCEPT else None}]
        new = query | {self._term.name: answer}
        return [
            record,
            record
            | {
                "lookup": self._lookup(new), "query": _as_json(new), "verdict": VerdictKind.ACCEPT, "prediction": accepted,
                "follows": True,
            },
        ]  # fmt: skip

    def _is_no_change(self, answer: Any, query: dict[str, Any], value: str) -> bool:
        """Whether a corrected value is the value, or a corrected term the same key."""
        if self._checking:
            return self._lookup(query | {self._term.name: answer}) == self._lookup(query)
        given = answer if self._spec.output.is_json else json.loads(answer)
        return comparable(self._spec, given) == comparable(self._spec, value)

    def _known(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], bytes, str]:
        """The row's key, its hash, and the value that is judged. Raises ValueError where they are not what they were."""
        try:
            query = {column.name: _typed(row[column_of(column.name)], column) for column in self._key}
            lookup, value = self._lookup(query), str(row["value"])
            unchanged = digest(self._spec, lookup, value) == row["check"]
        except (ValueError, UsageError, AttributeError, TypeError, RecursionError):
            unchanged = False
        if not unchanged:
            raise ValueError(
                "the key or the value was changed since the review was made: put these cells back as batchinfer review wrote them"
            )
        return query, lookup, value

    @property
    def _term(self) -> Column:
        """The column that a checking job judges."""
        assert self._spec.match is not None
        return next(column for column in self._key if column.name == self._spec.match.terms[0])

    def _lookup(self, query: Mapping[str, Any]) -> bytes:
        return keys.lookup_key(list(query.values()), self._key, self._normalize)

    def _stored(self, value: str) -> str:
        """A prediction as entries hold it, as the JSON text that the cache holds."""
        return json.dumps(json.loads(value) if self._spec.output.is_json else value, ensure_ascii=False)

    def _fitting(self, corrected: str) -> Any:
        """What a person gives in place of a value: a term, or the JSON text of a prediction. Raises ValueError."""
        output = self._spec.output
        if self._checking:
            return _typed(corrected, self._term)
        if output.choices is not None and corrected not in output.choices:
            raise ValueError(
                f"the corrected value {errors.shortened(corrected)} is none of {', '.join(output.choices)}"
            )
        if output.pattern is not None and not re.fullmatch(output.pattern, corrected):
            raise ValueError(f"the corrected value {errors.shortened(corrected)} does not match output.pattern")
        if not output.is_json:
            return as_prediction(corrected, as_json=False)
        try:
            text = as_prediction(corrected, as_json=True)
        except ValueError as exc:
            raise ValueError(f"the corrected value {exc}") from exc
        if self._schema is not None:
            try:
                self._schema.validate(json.loads(text))
            except (ValidationError, RecursionError) as exc:
                why = exc.message[:200] if isinstance(exc, ValidationError) else "it is nested too deeply"
                raise ValueError(f"the corrected value breaks output.schema: {why}") from exc
        return text


def _typed(cell: Any, column: Column) -> Any:
    """A cell as a value of the key column. Raises UsageError or ValueError."""
    if cell is None:
        raise ValueError
    return typed(cell, column) if isinstance(cell, str) else cell


def _as_json(query: Mapping[str, Any]) -> str:
    return json.dumps(query, ensure_ascii=False, default=lambda value: value.isoformat())
