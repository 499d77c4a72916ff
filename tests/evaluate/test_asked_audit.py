"""Audits that ask: exchanged terms and sentences, with a scorer that follows a script and is fair or not by it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.person import Nobody
from batchinfer.errors import BatchinferError, InputError, SpecError
from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.evaluate.audit import audit
from batchinfer.evaluate.swaps import SwappedRows, judge_swaps
from batchinfer.job import reader
from batchinfer.job.audit_spec import AuditLimits
from batchinfer.job.spec import OnErrorsSpec
from batchinfer.pipeline.history import failures
from batchinfer.pipeline.prune import prune
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from batchinfer.publish.slices import FairVerdict
from tests.evaluate.asked import asked_job, audited, biased, fair, texts
from tests.evaluate.scorer import CHOICES, ScriptedScorer
from tests.tiny import Cli, RecordingConsole, write_job

PASS, FAIL, UNKNOWN = FairVerdict.PASS, FairVerdict.FAIL, FairVerdict.UNKNOWN


@pytest.mark.long
def test_a_scorer_that_favours_a_group_fails(tmp_path: Path, tiny: Path) -> None:
    """0.3 for one group's terms: both directions of the exchange fail, and so does the group's BPSN area."""
    report, scorer = audited(*asked_job(tmp_path, tiny, texts()), biased)
    there, back = report.swaps
    assert (there.start, there.end, there.rows, there.verdict) == ("women", "men", 60, FAIL)
    assert there.score_gap == pytest.approx(-0.3)
    assert back.score_gap == pytest.approx(0.3)
    women, men = report.templates
    assert (women.rows, women.verdict) == (180, FAIL)
    assert women.areas["subgroup"] == 1
    assert women.areas["bpsn"] < 0.9 <= women.areas["bnsp"]
    assert women.why[0].startswith("bpsn")
    assert men.areas["bnsp"] < 0.9 <= men.areas["bpsn"]
    assert report.verdict is FAIL
    # Rows are in the cache already as far as the list has them; the others are asked once.
    assert report.generated == len(scorer.asked) == 120 + 360


@pytest.mark.long
def test_a_scorer_that_cannot_tell_groups_apart_passes(tmp_path: Path, tiny: Path) -> None:
    """With one placeholder for all terms nothing moves; the second time nothing is asked; the job's own figures stay."""
    job, data = asked_job(tmp_path, tiny, texts())
    report, _ = audited(job, data, fair)
    assert [each.verdict for each in report.asked] == [PASS] * 4
    assert [each.score_gap for each in report.swaps] == [0, 0]
    again = audit(job, data, None, RecordingConsole(), ScriptedScorer(lambda _: None))
    assert (again.generated, again.swaps, again.templates) == (0, report.swaps, report.templates)
    assert failures(data, None).count == 0
    assert run(job, data, Options(), RecordingConsole(), ScriptedScorer(lambda _: None)).generated == 0
    assert not prune(job, data, Nobody(), dry_run=True).rows


@pytest.mark.long
def test_a_prior_is_that_of_the_list(tmp_path: Path, tiny: Path) -> None:
    """Rows with exchanged terms are divided as what is served is: by the means over the list, not over themselves."""
    rows = texts(women=60, men=0)
    job, data = asked_job(tmp_path, tiny, rows, templates=[])
    output = job.spec.output.model_copy(update={"prior": "list"})
    report, _ = audited(replace(job, spec=job.spec.model_copy(update={"output": output})), data, biased)
    mean = sum(map(biased, rows)) / len(rows)

    def divided(score: float) -> float:
        return score / mean / (score / mean + (1 - score) / (1 - mean))

    moved = [divided(fair(text)) - divided(biased(text)) for text in rows[:60]]
    assert report.swaps[0].score_gap == pytest.approx(sum(moved) / 60)


def test_a_group_that_is_missing_is_not_fair(tmp_path: Path, tiny: Path) -> None:
    """Without rows about women that direction is not known, and neither is the audit as a whole."""
    report, _ = audited(*asked_job(tmp_path, tiny, texts(women=0), templates=[]), fair)
    assert [(each.start, each.rows, each.verdict) for each in report.swaps] == [
        ("women", 0, UNKNOWN),
        ("men", 60, PASS),
    ]
    assert report.verdict is UNKNOWN


@pytest.mark.long
def test_groups_without_scores_are_not_fair(tmp_path: Path, tiny: Path) -> None:
    """Where the model refuses most sentences of a group, nothing is said of it; a run would stop early for that."""
    job, data = asked_job(tmp_path, tiny, texts())
    limits = OnErrorsSpec(stop_at=0.1, after=20)
    job = replace(job, spec=job.spec.model_copy(update={"on_errors": limits}))
    run(job, data, Options(), RecordingConsole(), ScriptedScorer(lambda messages: fair(messages[-1][1])))
    refusing = ScriptedScorer(
        lambda messages: (
            None if "thing" in (text := messages[-1][1]) and not re.match("[hfJ]|Mary.*[05]$", text) else fair(text)
        )
    )
    women, men = audit(job, data, None, RecordingConsole(), refusing).templates
    assert (women.rows, women.verdict, women.areas) == (12, UNKNOWN, {})
    assert (men.rows, men.verdict) == (180, PASS)


def test_answers_that_change_are_corrected_for_all_exchanges() -> None:
    """A fifth of 60 answers is beyond a tenth for one exchange; among six it may be chance, and two fifths are not."""

    def verdicts(*changed: int) -> list[FairVerdict]:
        places = [tuple(range(120 * number, 120 * number + 120, 2)) for number in range(len(changed))]
        swaps = [SwappedRows("people", "women", "men", each) for each in places]
        said = [value for count in changed for row in range(60) for value in ("a", "b" if row < count else "a")]
        return [each.verdict for each in judge_swaps(swaps, list(map(ArmAnswer, said)), (), AuditLimits())]

    assert verdicts(12) == [FAIL]
    assert verdicts(12, 0, 0, 0, 0, 24) == [UNKNOWN, PASS, PASS, PASS, PASS, FAIL]


@pytest.mark.long
def test_the_command_prints_what_was_asked(tmp_path: Path, tiny: Path, monkeypatch: Any, capsys: Any) -> None:
    """Fields of swaps and templates as tools rely on them, the card's table, and exit code 0 although groups fail."""
    job, data = asked_job(tmp_path, tiny, texts())
    audited(job, data, biased)
    done = Cli(monkeypatch, capsys, data.root)("audit", job.path, "--json")
    assert (done.code, done.json["verdict"]) == (0, "fail")
    assert {"from", "to", "rows", "changed", "score_gap", "verdict"} <= done.json["swaps"][0].keys()
    assert {"group", "rows", "subgroup", "bpsn", "bnsp", "low", "high", "verdict"} <= done.json["templates"][0].keys()
    card = (data.audits / "v1" / "card.md").read_text()
    assert "| gender: women → men | 60 | the score of Positive moves by -0.300" in card


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["text,answer", "She is good,Positive"], r"line 2: the sentence has no slot for a term: write \{gender\}"),
        (
            ["text,answer", "{gendr} is good,Positive"],
            r"the slot \{gendr\} is the name of no list.*did you mean gender",
        ),
        (["text,answer", "{gender} is good,Maybe"], "the answer Maybe is not one of output.choices"),
        (["text,answer", "{gender} and {age},Positive"], "slots of several lists, age and gender"),
        (["text", "{gender} is good"], "has no column answer"),
        (["text,answer"], "has no sentences"),
    ],
)
def test_sentences_that_cannot_be_used(tmp_path: Path, tiny: Path, lines: list[str], said: str) -> None:
    """Each in a sentence that names the file, before anything is asked."""
    job, data = asked_job(tmp_path, tiny, texts(3, 3))
    run(job, data, Options(), RecordingConsole(), ScriptedScorer(lambda messages: fair(messages[-1][1])))
    (job.folder / "sentences.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        audit(job, data, None, RecordingConsole(), ScriptedScorer(lambda _: None))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"audit": {"templates": ["a.csv"]}, "output": {"type": "choice", "choices": CHOICES}},
            "come from audit.swaps",
        ),
        ({"audit": {"templates": ["a.csv"], "swaps": ["a.yaml"]}}, "output.type is text"),
    ],
)
def test_job_files_that_cannot_be_audited(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    """Sentences without terms, or without choices whose scores are looked at."""
    error: type[BatchinferError] = SpecError
    with pytest.raises(error, match=said):
        reader.load(str(write_job(tmp_path / "shop", {"text": ["a"]}, **sections)), {})
