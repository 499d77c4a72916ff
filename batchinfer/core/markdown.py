"""Texts as Markdown holds them. Pure."""

from __future__ import annotations


def in_table(text: str) -> str:
    """A text that a table's cell can hold."""
    return " ".join(text.split()).replace("|", "\\|")
