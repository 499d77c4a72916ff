"""How many versions stay, and how long. Imports nothing that reads one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from batchinfer.errors import StoreError


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
        """As a manifest has it. Raises StoreError for what no program wrote."""
        try:
            return cls(document) if isinstance(document, int) else cls(int(document["count"]), int(document["days"]))
        except (KeyError, TypeError, ValueError) as exc:
            raise StoreError(f"The manifest's keep_versions is {document!r}.") from exc

    def __str__(self) -> str:
        newest = "the newest" if self.count == 1 else f"the newest {self.count:,}"
        if self.days is None:
            return newest
        return f"{newest} and those of the last {'day' if self.days == 1 else f'{self.days:,} days'}"
