"""Sizes in bytes, as people read them."""

from __future__ import annotations

from batchinfer.errors import counted

THOUSAND = 1000
WHOLE = 10  # from so many of a unit on, tenths of it say nothing


def size_text(size: int) -> str:
    """Bytes in the largest unit of which there is one, such as 812 bytes, 3.4 KB or 12 MB; each is a thousand of the one before."""
    if size < THOUSAND:
        return counted(size, "byte")
    number, unit = size / THOUSAND, "KB"
    for larger in ("MB", "GB", "TB"):
        if round(number) < THOUSAND:
            break
        number, unit = number / THOUSAND, larger
    return f"{number:.1f} {unit}" if round(number, 1) < WHOLE else f"{number:,.0f} {unit}"
