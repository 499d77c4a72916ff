"""The kinds of values of a job file: durations, shares, time zones. The models of its sections are made of them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

Scalar = str | int | Annotated[float, Field(allow_inf_nan=False)] | bool
Share = Annotated[float, Field(ge=0, le=1)]
NonEmpty = Annotated[str, Field(min_length=1)]
ColumnType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]
LONGEST = timedelta(days=36500)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)([smhdw])", value, re.ASCII)):
        # Cut, since texts of any length come here: what is longer is refused either way.
        seconds = int(match[1][:20]) * SECONDS[match[2]]
        if seconds > LONGEST.total_seconds():
            raise ValueError("must be at most a hundred years (36500d)")
        return timedelta(seconds=seconds)
    if isinstance(value, timedelta):
        return value
    raise ValueError("must be a number and a unit, such as 60s, 15m, 12h, 7d or 2w")


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(lambda value: f"{int(value.total_seconds())}s", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+[smhdw]$"}),
]


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise ValueError(f"{value!r} is not a time zone; use a name such as UTC or Europe/Berlin") from exc
    return value


Timezone = Annotated[str, AfterValidator(_timezone)]


def distinct(values: list[str]) -> list[str]:
    """The values, if each is there once. Raises ValueError."""
    if repeated := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"names {', '.join(repeated)} more than once")
    return values


Names = Annotated[list[NonEmpty], Field(min_length=1), AfterValidator(distinct)]


class Section(BaseModel):
    """Base of all sections: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    def beyond_defaults(self) -> dict[str, Any]:
        """The plain values of the fields that are not at their defaults: keys are made from them.

        A field that is added later, with a default that keeps the behaviour, changes no key.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
