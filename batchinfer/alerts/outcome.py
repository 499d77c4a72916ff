"""What came of one try to tell somebody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

LONGEST = 300  # characters of what is said


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one try to tell somebody.

    delivered: whether the receiver has it.
    said: why not, as the rest of a sentence.
    lasting: whether the receiver refused it, so that trying again helps only once somebody has changed something.
    wait: seconds that the receiver asked to be left alone for.
    """

    delivered: bool = False
    said: str = ""
    lasting: bool = False
    wait: float = 0.0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """What receivers say may be of any length, and orders to a terminal. Raises KeyError, TypeError or ValueError."""
        said = "".join(sign if sign.isprintable() else "?" for sign in str(document["said"])[:LONGEST])
        return cls(bool(document["delivered"]), said, bool(document["lasting"]), float(document["wait"]))

    def to_json(self) -> dict[str, Any]:
        """As the process that tries prints it."""
        return asdict(self)
