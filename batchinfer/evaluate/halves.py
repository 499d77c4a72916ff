"""The golden rows in two parts: one to choose an arm on, and one to say what it is worth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from batchinfer.core.files import UNREAD, read_small, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.keys import canonical_json, short
from batchinfer.evaluate.labelled import LabelledRows
from batchinfer.job.reader import Job

FILE = "halves.json"


def source_rows(job: Job, rows: LabelledRows) -> tuple[bytes, ...]:
    """What source row each row comes from: in a job that explodes lists, what they share beside the item; else itself."""
    item = job.spec.input.as_
    if item is None:
        return rows.hashes
    return tuple(
        short(canonical_json({name: value for name, value in query.items() if name != item}).encode())
        for query in rows.queries
    )


def remembered(data: JobData, share: float) -> dict[bytes, bool]:
    """Which source rows were to choose on (True) or to report on, in earlier comparisons with the same share."""
    try:
        content = json.loads(read_small(data.evals / FILE))
        known = {bytes.fromhex(unit): True for unit in content["dev"]} | {
            bytes.fromhex(unit): False for unit in content["test"]
        }
        return known if content["share"] == share else {}
    except UNREAD:
        return {}  # of a new job, or a damaged file: then they are split again


def remember_halves(data: JobData, share: float, halves: Mapping[bytes, bool]) -> None:
    """Keeps it, so that no row that an arm was chosen on is ever reported on. Raises StoreError."""
    names = {
        half: sorted(unit.hex() for unit, dev in halves.items() if dev is part)
        for half, part in (("dev", True), ("test", False))
    }
    data.evals.mkdir(exist_ok=True)
    write_atomically(data.evals / FILE, json.dumps({"share": share, **names}).encode())


def split_rows(
    units: Sequence[bytes], answers: Iterable[object], share: float, known: Mapping[bytes, bool]
) -> dict[bytes, bool]:
    """For each source row whether it is to choose on. Rows with one answer are parted alike, in an order that is chance.

    share: of the rows that are to choose on. known: source rows that were split before, which stay where they are.
    """
    sizes, labels = dict[bytes, int](), dict[bytes, str]()
    for unit, answer in zip(units, answers, strict=True):
        sizes[unit] = sizes.get(unit, 0) + 1
        labels.setdefault(unit, canonical_json(answer))
    halves = {unit: dev for unit, dev in known.items() if unit in sizes}
    chosen, total = sum(sizes[unit] for unit, dev in halves.items() if dev), sum(sizes[unit] for unit in halves)
    for unit in sorted(sizes.keys() - halves.keys(), key=lambda unit: (labels[unit], short(unit))):
        total += sizes[unit]
        halves[unit] = chosen + sizes[unit] / 2 <= share * total
        chosen += sizes[unit] * halves[unit]
    return halves
