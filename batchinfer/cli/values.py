"""The kinds of values that options and arguments take. Others are refused in one form: what was expected, what came."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import click

from batchinfer.errors import did_you_mean, shortened


class Integer(click.IntRange):
    """A whole number within bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            bounds = f" from {self.min:,} to {self.max:,}" if self.max is not None else f" of at least {self.min:,}"
            self.fail(unexpected(f"an integer{bounds}", value), param, ctx)


class Positive(click.FloatRange):
    """A number above 0."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = super().convert(value, param, ctx)
        except click.BadParameter:
            number = math.nan
        if not math.isfinite(number):
            self.fail(unexpected("a number above 0", value), param, ctx)
        return number


class Day(click.ParamType[date]):
    """A date."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            self.fail(unexpected("a date such as 2026-11-30", value), param, ctx)


class PathText(click.ParamType[str]):
    """A path as it was written. None is empty, as an unset variable of a script leaves it: that would be the folder one is in."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail(unexpected("a path", value), param, ctx)
        return str(value)


class PathValue(click.ParamType[Path]):
    """The same, as a path."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(PathText().convert(value, param, ctx))


class OneOf(click.Choice[str]):
    """One of some words."""

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__([str(word) for word in words])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            *first, last = self.choices
            hint = did_you_mean(str(value), self.choices)
            said = unexpected(f"{', '.join(first)} or {last}", value)
            self.fail(f"{said.removesuffix('.')}; {hint}" if hint else said, param, ctx)


def unexpected(wanted: str, value: object) -> str:
    """The rest of the sentence about a value that is not what it should be."""
    return f"expected {wanted}, got {shortened(repr(str(value)))}."
