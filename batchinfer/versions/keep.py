"""How many versions stay, and how long. Imports nothing that reads one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Keep:
    """Which versions and candidates stay: what is beyond both limits goes.

    count: the newest so many.
    days: those that are no older; None for those of no age.
    """

    count: int
    days: int | None = None

    @classmethod
    def of(cls, document: Any) -> Self:
        """As a manifest has it: a number, or both. Raises ValueError, KeyError or TypeError for what no program wrote."""
        return cls(int(document["count"]), int(document["days"])) if isinstance(document, dict) else cls(int(document))

    def __str__(self) -> str:
        newest = "the newest" if self.count == 1 else f"the newest {self.count:,}"
        if self.days is None:
            return newest
        return f"{newest} and those of the last {'day' if self.days == 1 else f'{self.days:,} days'}"
