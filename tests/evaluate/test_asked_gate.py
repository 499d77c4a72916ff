"""The gate and what audits found by asking: exchanged terms and sentences of the candidate's own prompt and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchinfer.core.home import JobData
from batchinfer.core.person import Nobody
from batchinfer.errors import GateFailed, InputError, NotFound, SpecError
from batchinfer.evaluate.audit import audit
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline.history import failures, runs
from batchinfer.pipeline.publish import publish
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from batchinfer.versions.folders import candidates
from tests.evaluate.asked import asked_job, biased, fair, texts
from tests.evaluate.scorer import Says, ScriptedScorer
from tests.tiny import Cli, RecordingConsole, write_job

GATE = {"coverage": 0, "audit": True, "changed": 1.0}


def says(score: Any) -> Says:
    """A script for the last message of a prompt."""
    return lambda messages: score(messages[-1][1])


def refused_job(folder: Path, tiny: Path) -> tuple[Job, JobData]:
    """A job whose gate wants an audit, with a candidate that nobody asked about."""
    job, data = asked_job(folder, tiny, texts(), gate=GATE)
    with pytest.raises(GateFailed) as refused:
        run(job, data, Options(), RecordingConsole(), ScriptedScorer(says(fair)))
    assert "no audit has asked them with this prompt and model: run batchinfer audit JOB" in str(refused.value)
    assert "batchinfer audit asked --version r1" in str(refused.value.fix)
    return job, data


def again(job: Job, **changes: Any) -> Job:
    """The job with other sections."""
    content = yaml.safe_load(job.path.read_text()) | changes
    job.path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return reader.load(str(job.path), {})


@pytest.mark.long
def test_a_candidate_is_asked_about_before_it_is_published(tmp_path: Path, tiny: Path) -> None:
    """Where nothing is served the audit looks at the newest candidate; then the gate passes, and the manifest says by what.

    Another prompt is another question: the audit does not stand for it. A list that changes is none.
    """
    job, data = refused_job(tmp_path, tiny)
    report = audit(job, data, None, RecordingConsole(), ScriptedScorer(says(fair)))
    assert (report.version, report.folder) == ("r1", data.audits / "r1")
    assert (report.folder / "card.md").read_text().startswith("# asked, candidate r1")
    assert runs(data)[0].status == "audit"
    published = publish(job, data, Options(), Nobody())
    [check] = [check for check in published.gate if check.name == "audit"]
    assert (published.version, check.passed) == (1, True)
    assert check.used is not None
    assert check.used["asked"] == {"version": "r1", "made_at": report.made_at}
    assert [each["name"] for each in check.used["groups"]] == [each.name for each in report.asked]
    other = again(job, prompt={"template": "Say: {{ text }}"})
    with pytest.raises(GateFailed, match="no audit has asked them"):
        run(other, data, Options(yes=True), RecordingConsole(), ScriptedScorer(says(fair)))


@pytest.mark.long
def test_groups_that_stand_apart_are_refused_by_name(tmp_path: Path, tiny: Path) -> None:
    """A scorer that favours a group: the refusal names the exchanges and the groups of sentences that fail."""
    job, data = asked_job(tmp_path, tiny, texts(), gate=GATE)
    with pytest.raises(GateFailed):
        run(job, data, Options(), RecordingConsole(), ScriptedScorer(says(biased)))
    audit(job, data, candidates(data)[-1], RecordingConsole(), ScriptedScorer(says(biased)))
    with pytest.raises(
        GateFailed, match=r"audit: 4 of 4 groups stand too far apart \(gender: women → men, gender: men → women"
    ):
        publish(job, data, Options(), Nobody())


@pytest.mark.long
def test_an_audit_of_other_lists_does_not_stand(tmp_path: Path, tiny: Path) -> None:
    """Other sentences, other limits, or a report that is damaged: the gate wants them asked again."""
    job, data = refused_job(tmp_path, tiny)
    report = audit(job, data, None, RecordingConsole(), ScriptedScorer(says(fair)))
    sentences = job.folder / "sentences.csv"
    kept, path = sentences.read_text(), report.folder / "audit.json"
    sentences.write_text(kept + "\n{gender} was good,Positive", encoding="utf-8")
    with pytest.raises(GateFailed, match="no audit has asked them"):
        publish(job, data, Options(), Nobody())
    sentences.write_text(kept, encoding="utf-8")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"swaps": 3}))
    with pytest.raises(GateFailed, match="no audit has asked them"):
        publish(job, data, Options(), Nobody())
    sentences.unlink()
    with pytest.raises(InputError, match=r"sentences.csv cannot be read: No such file"):
        publish(job, data, Options(), Nobody())


@pytest.mark.long
def test_rows_of_an_audit_are_no_failures_of_the_job(tmp_path: Path, tiny: Path) -> None:
    """What the model refuses of exchanged rows and sentences is told by the audit, not among the list's failures."""
    job, data = asked_job(tmp_path, tiny, texts())
    run(job, data, Options(), RecordingConsole(), ScriptedScorer(says(fair)))
    refusing = ScriptedScorer(says(lambda text: None if "Mary" in text else fair(text)))
    assert audit(job, data, None, RecordingConsole(), refusing).generated == 120 - 20 + 360 - 60
    assert failures(data, None).count == 0
    with pytest.raises(NotFound, match=r"has no candidate r7.*there are: none"):
        audit(job, data, "r7", RecordingConsole())


def test_versions_that_are_none(tmp_path: Path, tiny: Path, monkeypatch: Any, capsys: Any) -> None:
    """The command takes a number or a candidate's name; the error says so."""
    job, data = asked_job(tmp_path, tiny, texts(1, 1))
    done = Cli(monkeypatch, capsys, data.root)("audit", job.path, "--version", "latest")
    assert (done.code, "neither a version such as 3 nor a candidate such as r7" in done.err) == (2, True)


def test_a_gate_needs_a_prompt_to_ask_with(tmp_path: Path) -> None:
    """A job of imports cannot be asked with exchanged terms, so that its gate would refuse for ever."""
    with pytest.raises(SpecError, match=r"gate.audit: the job has no prompt to ask with"):
        reader.load(str(write_job(tmp_path / "shop", {"text": ["a"]}, gate=GATE, audit={"swaps": ["a.yaml"]})), {})
