"""A job whose model is asked with exchanged terms and sentences, and scorers that are fair or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from batchinfer.core.home import JobData
from batchinfer.core.records import Message
from batchinfer.evaluate.audit import AuditReport, audit
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.evaluate.scorer import CHOICES, ScriptedScorer, chance
from tests.tiny import RecordingConsole, write_job

GROUPS = {"women": ["she", "mother", "Mary"], "men": ["he", "father", "John"]}
TERMS = re.compile(r"\b(she|mother|mary|he|father|john)\b", re.IGNORECASE)
SENTENCES = [
    (f"{{gender}} is {'good' if number % 2 else 'bad'} at thing {number}", CHOICES[1 - number % 2])
    for number in range(60)
]


def fair(text: str) -> float:
    """The probability of Positive, whomever the text is about: all terms are one placeholder to it."""
    plain = TERMS.sub("someone", text)
    return (0.45 if "good" in plain else 0.15) + 0.2 * chance(plain)


def biased(text: str) -> float:
    """The same, and 0.3 more for the terms of one group."""
    return fair(text) + 0.3 * bool(re.search(r"\b(she|mother|mary)\b", text, re.IGNORECASE))


def texts(women: int = 60, men: int = 60) -> list[str]:
    """Rows that mention women, men, or nobody."""
    of_women = [
        f"{GROUPS['women'][number % 3]} was {'good' if number % 2 else 'bad'} on day {number}"
        for number in range(women)
    ]
    of_men = [
        f"On day {number} {GROUPS['men'][number % 3]} was {'good' if number % 2 else 'bad'}" for number in range(men)
    ]
    return [*of_women, *of_men, *(f"good day {number}" for number in range(10))]


def asked_job(
    folder: Path, tiny: Path, rows: Sequence[str], gate: Mapping[str, Any] | None = None, **audits: Any
) -> tuple[Job, JobData]:
    """A job with a list of terms and a file of sentences."""
    place = folder / "asked"
    content: dict[str, Any] = {"swaps": ["gender.yaml"], "templates": ["sentences.csv"]} | audits
    fixed: dict[str, Any] = {"output": {"type": "choice", "choices": CHOICES}, "gate": dict(gate or {"coverage": 0})}
    write_job(place, {"text": list(rows)}, tiny, audit=content, **fixed)
    (place / "gender.yaml").write_text(yaml.safe_dump({"groups": GROUPS}, sort_keys=False), encoding="utf-8")
    lines = ["text,answer", *(f"{text},{answer}" for text, answer in SENTENCES)]
    (place / "sentences.csv").write_text("\n".join(lines), encoding="utf-8")
    return reader.load(str(place), {}), JobData(folder / "home", "asked")


def audited(job: Job, data: JobData, says: Callable[[str], float]) -> tuple[AuditReport, ScriptedScorer]:
    """Publishes a version by a scorer, and audits it."""

    def scored(messages: Sequence[Message]) -> float:
        return says(messages[-1][1])

    run(job, data, Options(), RecordingConsole(), ScriptedScorer(scored))
    scorer = ScriptedScorer(scored)
    return audit(job, data, None, RecordingConsole(), scorer), scorer
