"""How well a version serves each group of its rows: figures with intervals, verdicts, and a card for people."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchinfer.core.columns import Column
from batchinfer.core.files import os_errors, write_atomically
from batchinfer.core.home import JobData
from batchinfer.engines.protocol import Engine
from batchinfer.errors import NotFound, UsageError
from batchinfer.evaluate.card import AskedGroup, card_of
from batchinfer.job.reader import Job, faulty
from batchinfer.job.spec import JobSpec
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.stop import stopping
from batchinfer.planning.prepare import Options, Prepared, begun, prepare
from batchinfer.publish.golden import Golden, read_answers, read_golden
from batchinfer.publish.predictions_file import version_rows
from batchinfer.publish.sliced import audit_slices, check_slices
from batchinfer.publish.slices import AuditedSlice, FairVerdict, verdict_of
from batchinfer.versions.folders import folder_of, numbers
from batchinfer.versions.pointers import open_served
from batchinfer.versions.snapshot import Snapshot

if TYPE_CHECKING:  # they need SciPy, which the audit of slices does not
    from batchinfer.evaluate.sentences import AuditedTemplate
    from batchinfer.evaluate.swaps import AuditedSwap

REPORT, CARD = "audit.json", "card.md"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    job: its name.
    version: that was audited.
    verdict: fail if any group fails, pass only if all pass.
    slices: the groups of audit.slices.
    swaps: what exchanging terms did.
    templates: the groups of the sentences.
    generated: answers that the model gave for it.
    folder: where audit.json and card.md are.
    """

    job: str
    version: int
    verdict: FairVerdict
    slices: tuple[AuditedSlice, ...]
    swaps: tuple[AuditedSwap, ...]
    templates: tuple[AuditedTemplate, ...]
    generated: int
    folder: Path

    @property
    def asked(self) -> list[AskedGroup]:
        """Swaps and templates, as people are shown them."""
        return [*self.swaps, *self.templates]

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "version": self.version, "verdict": self.verdict,
            "slices": [each.to_json() for each in self.slices], "swaps": [each.to_json() for each in self.swaps],
            "templates": [each.to_json() for each in self.templates], "generated": self.generated,
        }  # fmt: skip


def audit(job: Job, data: JobData, version: int | None, console: Console, engine: Engine | None = None) -> AuditReport:
    """Audits a version against the list and the cache as they are, and writes what it found. version: None for what is served.

    Swaps and sentences are asked with the prompt and the model that the job file has now. engine: one that is already
    loaded. Raises NotFound, SpecError, InputError, UsageError, StoreError or Stopped.
    """
    spec = job.spec.audit
    if not spec.slices and not spec.asks:
        raise faulty(job, [(("audit",), "names nothing to look at: name columns of the list in audit.slices.")])
    data.require()
    with contextlib.ExitStack() as held:
        if spec.asks:
            held.enter_context(begun(job, data, f"batchinfer audit {job.name}", None, console.info))
        snapshot = held.enter_context(_version(data, version))
        prepared = held.enter_context(prepare(job, data, Options(), console.info))
        slices = _slices(job, prepared, snapshot)
        asked = _asked(job, prepared, snapshot.number, console, engine) if spec.asks else _Asked((), (), 0)
        verdicts = [each.verdict for group in (slices, asked.swaps, asked.templates) for each in group]
        report = AuditReport(
            job.name, snapshot.number, verdict_of(verdicts), slices, asked.swaps, asked.templates, asked.generated,
            data.audits / f"v{snapshot.number}",
        )  # fmt: skip
        _write(report, card_of(job, snapshot.manifest, report.verdict, slices, report.asked))
    return report


def _slices(job: Job, prepared: Prepared, snapshot: Snapshot) -> tuple[AuditedSlice, ...]:
    source = prepared.query_list.source
    check_slices(job, source)
    if snapshot.manifest.key != tuple(source.key):
        raise UsageError(
            f"Version {snapshot.number} has another key than the job has now: run and publish first, or audit with the job file "
            "that made it."
        )
    workspace = prepared.workspace
    entries = f"({version_rows(workspace.db, workspace.texts, snapshot.folder, source.key)})"
    return audit_slices(workspace, entries, _golden(job, source.key))


def _golden(job: Job, key: Sequence[Column]) -> Golden | None:
    """The rows whose right answers are known: those of the gate, else those that prompts are compared by."""
    spec = job.spec.eval.golden
    if job.spec.gate.golden is not None or spec is None:
        return read_golden(job, key)
    return read_answers(job, "eval.golden.path", spec.path, spec.compare, key)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was found by asking. generated: answers that the model gave for it."""

    swaps: tuple[AuditedSwap, ...]
    templates: tuple[AuditedTemplate, ...]
    generated: int


def _asked(job: Job, prepared: Prepared, version: int, console: Console, engine: Engine | None) -> _Asked:
    """Asks swaps and sentences; both go through the job's cache, by one loaded engine."""
    from batchinfer.evaluate.ask import Session
    from batchinfer.evaluate.sentences import filled, judge_sentences, read_sentences
    from batchinfer.evaluate.swaps import judge_swaps, swapped_rows
    from batchinfer.evaluate.terms import read_terms
    from batchinfer.evaluate.variants import ask_tables

    if prepared.question is None:
        raise UsageError(
            f"The job {job.name} has no prompt to ask with exchanged terms: leave audit.swaps and audit.templates out."
        )
    data, limits, columns = prepared.data, job.spec.audit.limits, prepared.question.template.columns
    with data.scratch() as scratch:
        lists = read_terms(job)
        sentences = filled(read_sentences(job, columns, lists, scratch), lists)
        rows, swaps = swapped_rows(prepared.query_list.source, columns, lists)
        with stopping(None, console.info) as stop:
            session = Session(data, version, console, stop, engine, turn=rows.num_rows + sentences.rows.num_rows)
            (of_swaps, of_sentences), generated = ask_tables(job, [rows, sentences.rows], session, scratch)
    judged = judge_swaps(swaps, of_swaps, choices_looked_at(job.spec), limits)
    areas = judge_sentences(sentences, of_sentences, lists, _positive(job.spec), limits) if of_sentences else ()
    return _Asked(judged, areas, generated)


def _positive(spec: JobSpec) -> str:
    """The choice whose score is looked at, where one is enough."""
    assert spec.output.choices is not None
    return spec.eval.positive or spec.output.choices[0]


def choices_looked_at(spec: JobSpec) -> Sequence[str]:
    """The choices whose scores are looked at: of two, one says all."""
    choices = spec.output.choices or []
    return [_positive(spec)] if spec.eval.positive or len(choices) == 2 else choices  # noqa: PLR2004 - two


@contextlib.contextmanager
def _version(data: JobData, version: int | None) -> Iterator[Snapshot]:
    """The version to look at, held open so that it is not removed meanwhile. Raises NotFound."""
    if version is not None and version not in numbers(data):
        there = ", ".join(map(str, numbers(data))) or "none"
        raise NotFound(f"The job {data.name} has no version {version}", fix=f"there are: {there}.")
    with open_served(data) if version is None else Snapshot(folder_of(data, version)) as snapshot:
        yield snapshot


def _write(report: AuditReport, card: str) -> None:
    with os_errors(report.folder):
        report.folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(report.to_json(), ensure_ascii=False, indent=2)
    write_atomically(report.folder / REPORT, content.encode())
    write_atomically(report.folder / CARD, card.encode())
