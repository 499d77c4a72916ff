"""What an import is refused for unless the person says that it is meant: values and keys that the job does not have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path

from batchinfer.errors import InputError, counted
from batchinfer.review.rows import MAX_FAULTS


class Allowance(StrEnum):
    """What can be meant.

    VALUES: those that the job could never give.
    KEYS: those that its list does not have.
    """

    VALUES = "values"
    KEYS = "keys"


WORDS = {
    Allowance.VALUES: ("value that the job could never give", "values that the job could never give"),
    Allowance.KEYS: ("key that the list does not have", "keys that the list does not have"),
}


class FaultList:
    """What is wrong with a file.

    first: some of it, each with its place.
    count: how much there is.
    """

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, fault: str) -> None:
        self.count += 1
        if self.count <= MAX_FAULTS:
            self.first.append(fault)

    @property
    def lines(self) -> list[str]:
        """One line for each that is named, and one for the others."""
        more = self.count - len(self.first)
        return [*self.first, *([f"and {more:,} more"] if more else [])]


def check_allowed(path: Path, found: Mapping[Allowance, FaultList], allow: Collection[Allowance]) -> None:
    """Raises InputError, with a line for each place, for what is found and not allowed."""
    refused = {kind: faults for kind, faults in found.items() if faults.count and kind not in allow}
    if refused:
        said = [f"{path} is refused, and nothing was imported."]
        for kind, faults in refused.items():
            said += [f"It has {counted(faults.count, *WORDS[kind])}:", *(f"  {line}" for line in faults.lines)]
        needed = [kind for kind in Allowance if kind in allow or kind in refused]
        raise InputError("\n".join([*said, f"If all of that is meant, pass --allow {','.join(needed)}."]))
