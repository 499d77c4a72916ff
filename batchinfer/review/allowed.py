"""What an import is refused for unless the person says that it is meant: values and keys that the job does not have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path

from batchinfer.errors import FileProblem, InputError, counted
from batchinfer.review.rows import MAX_FAULTS


class Allowance(StrEnum):
    """What can be meant.

    VALUES: those that the job could never give.
    KEYS: those that its list does not have.
    """

    VALUES = "values"
    KEYS = "keys"


REFUSED = "{path} is refused, and nothing was imported."
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
        self.first: list[FileProblem] = []
        self.count = 0

    def add(self, fault: FileProblem) -> None:
        self.count += 1
        if self.count <= MAX_FAULTS:
            self.first.append(fault)

    def lines(self, whole: Path) -> list[str]:
        """One line for each that is named, and one for the others. whole: what is imported; of several files each is named."""
        more = self.count - len(self.first)
        return [*(_named(fault, whole) for fault in self.first), *([f"and {more:,} more"] if more else [])]


def _named(fault: FileProblem, whole: Path) -> str:
    return str(fault) if fault.file == str(whole) else f"{Path(fault.file).name}, {fault}"


def check_allowed(path: Path, found: Mapping[Allowance, FaultList], allow: Collection[Allowance]) -> None:
    """Raises InputError, with a line for each place, for what is found and not allowed."""
    refused = {kind: faults for kind, faults in found.items() if faults.count and kind not in allow}
    if refused:
        needed = ",".join(kind for kind in Allowance if kind in allow or kind in refused)
        said, counts = [REFUSED.format(path=path)], []
        for kind, faults in refused.items():
            counts.append(counted(faults.count, *WORDS[kind]))
            said += [f"It has {counts[-1]}:", *(f"  {line}" for line in faults.lines(path))]
        summary = f"{REFUSED.format(path=path).removesuffix('.')}: it has {' and '.join(counts)}."
        fix = f"If all of that is meant, pass --allow {needed}."
        places = [fault for faults in refused.values() for fault in faults.first]
        raise InputError("\n".join([*said, fix])).listing(summary, places, fix)
