"""Languages of terms, by their BCP 47 tags. Pure."""

from __future__ import annotations

TURKIC = ("tr", "az")  # languages with a dotless i, whose capital is I


def is_in(language: str | None, ranges: tuple[str, ...]) -> bool:
    """Whether a tag is in one of the ranges, by RFC 4647's basic filtering."""
    if language is None:
        return True
    tag = language.lower().replace("_", "-") + "-"
    return any(tag.startswith(f"{part}-") for part in ranges)


def is_turkic(language: str | None) -> bool:
    """Whether a language tag is of a language with a dotless i."""
    return language is not None and language.lower().replace("_", "-").split("-")[0] in TURKIC
