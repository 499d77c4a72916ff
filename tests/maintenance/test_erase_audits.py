"""Erasure from what audits left: groups that are one row, answers to rows with exchanged terms, and what the gate says of groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchinfer.errors import GateFailed, StoreError
from batchinfer.evaluate.audit import audit
from batchinfer.maintenance.erase import erase_entry
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.evaluate.asked import asked_job, fair
from tests.evaluate.scorer import ScriptedScorer
from tests.tiny import RecordingConsole

ROWS = ["Mary was good | on day 1", "he was bad on day 2", "good day 3"]
PRIVATE = "Mary was good"


def scorer() -> ScriptedScorer:
    return ScriptedScorer(lambda messages: fair(messages[-1][1]))


@pytest.mark.long
def test_an_entry_leaves_audits(tmp_path: Path, tiny: Path) -> None:
    """Its group goes out of report, card and gate; answers to exchanged rows are asked again, those to sentences are not."""
    gate = {"coverage": 0, "audit": True}
    job, data = asked_job(tmp_path, tiny, ROWS, gate, slices=["text"], limits={"least_rows": 2})
    with pytest.raises(GateFailed, match=r"not enough data for text=") as refused:
        run(job, data, Options(), RecordingConsole(), scorer())
    assert PRIVATE in str(refused.value)
    report = audit(job, data, None, RecordingConsole(), scorer())
    asked = report.generated - len(ROWS[:2])  # sentences
    assert PRIVATE in (report.folder / "card.md").read_text()
    erased = erase_entry(job, data, {"text": ROWS[0]})
    assert (erased.rows.generations, erased.evals, erased.exchanged) == (1, 1, 2)
    files = [path for path in data.folder.rglob("*") if path.is_file()]
    assert [path for path in files if PRIVATE.encode() in path.read_bytes()] == []
    content = json.loads((report.folder / "audit.json").read_text())
    assert {each["value"] for each in content["slices"]} == {*ROWS[1:]}
    again = scorer()
    audit(job, data, None, RecordingConsole(), again)
    assert len(again.asked) == 3 < asked


def test_an_audit_that_cannot_be_searched(tmp_path: Path, tiny: Path) -> None:
    """A damaged report may hold the entry: nothing is said to be erased."""
    job, data = asked_job(tmp_path, tiny, ROWS)
    run(job, data, Options(), RecordingConsole(), scorer())
    (data.audits / "v1").mkdir(parents=True)
    (data.audits / "v1" / "audit.json").write_text("{")
    with pytest.raises(StoreError, match=r"audit.json cannot be searched"):
        erase_entry(job, data, {"text": ROWS[0]})
