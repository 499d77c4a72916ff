"""Languages of terms, by their BCP 47 tags. Pure."""

from __future__ import annotations

TURKIC = ("tr", "az")  # languages with a dotless i, whose capital is I


def beginnings(ranges: tuple[str, ...]) -> tuple[str, ...]:
    """How tags begin that are in one of the ranges, by RFC 4647's basic filtering."""
    return tuple(f"{part}-" for part in ranges)


def is_in(language: str | None, begins: tuple[str, ...]) -> bool:
    """Whether a tag begins in one of these ways, or there is none."""
    return language is None or f"{language.lower().replace('_', '-')}-".startswith(begins)


def is_turkic(language: str | None) -> bool:
    """Whether a language tag is of a language with a dotless i."""
    return language is not None and language.lower().replace("_", "-").split("-")[0] in TURKIC
