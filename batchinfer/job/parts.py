"""A part of an entry, as the job file names it: a key column, `prediction`, or a place in it. Grammar and SQL. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

from batchinfer.core.sql import json_path, literal

PREDICTION = "prediction"
PLACE = re.compile(rf"{PREDICTION}(\.[^.]+)*")


def is_part(name: str, key: Collection[str]) -> bool:
    """Whether a name stands for a part of an entry."""
    return name in key or PLACE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Part:
    """The meaning of a name such as `language` or `prediction.names`.

    column: the key column; None if the name is about the prediction.
    path: the fields that lead to a place in the prediction; empty for the prediction as a whole.
    """

    column: str | None
    path: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, key: Collection[str] = ()) -> Self:
        """The part that a name stands for; a key column goes first. Raises ValueError."""
        if name in key:
            return cls(name)
        if not PLACE.fullmatch(name):
            raise ValueError(f"must be {PREDICTION}, or a place in it, such as {PREDICTION}.names")
        return cls(None, tuple(name.split(".")[1:]))

    @property
    def json_path(self) -> str:
        """DuckDB's path to it in a prediction."""
        return json_path(*self.path)

    def sql(self, column: Callable[[str], str], *, is_json: bool) -> str:
        """SQL for its value in an entry, as JSON; NULL where there is none.

        column: SQL for a key column. is_json: whether predictions are JSON values, and not texts.
        """
        if self.column is not None:
            return f"to_json({column(self.column)})"
        prediction = "prediction::JSON" if is_json else "to_json(prediction)"
        return f"json_extract({prediction}, {literal(self.json_path)})" if self.path else prediction
