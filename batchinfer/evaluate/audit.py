"""How well a version serves each group of its rows: figures with intervals, verdicts, and a card for people."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchinfer.cache.reviewers import reviewers
from batchinfer.cache.schema import SENTENCES, RunStatus
from batchinfer.cache.workspace import Workspace
from batchinfer.core.clock import iso, now
from batchinfer.core.columns import Column
from batchinfer.core.database import one_integer
from batchinfer.core.files import os_errors, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.records import Source
from batchinfer.engines.protocol import Engine
from batchinfer.errors import NotFound, UsageError
from batchinfer.evaluate.card import AskedGroup, CardFacts, SaidByPeople, card_of
from batchinfer.inputs.other_columns import OtherColumns
from batchinfer.job.reader import Job, faulty, placing
from batchinfer.job.spec import JobSpec
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.stop import stopping
from batchinfer.planning.prepare import Options, Prepared, holding_run_lock, prepare
from batchinfer.publish.audit_file import REPORT, digest_lists, settings_of
from batchinfer.publish.golden import Golden, read_answers, read_golden
from batchinfer.publish.predictions_file import version_rows
from batchinfer.publish.prior import Means, choice_means
from batchinfer.publish.sliced import audit_list, check_slices
from batchinfer.publish.slices import AuditedSlice, FairVerdict, SliceFigures, verdict_of
from batchinfer.versions.folders import candidates, folder_of, numbers
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import open_served
from batchinfer.versions.precision import ServedFigures, read_figures
from batchinfer.versions.snapshot import Snapshot

if TYPE_CHECKING:  # they need SciPy, which the audit of slices does not
    from batchinfer.evaluate.sentences import AuditedTemplate
    from batchinfer.evaluate.swaps import AuditedSwap

CARD = "card.md"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    job: its name.
    version: that was audited; of a candidate, its name.
    verdict: fail if any group fails, pass only if all pass.
    slices: the groups of audit.slices.
    swaps: what exchanging terms did.
    templates: the groups of the sentences.
    generated: answers that the model gave for it.
    folder: where audit.json and card.md are.
    made_at: when, RFC 3339, UTC.
    settings: what swaps and templates depend on, so that the gate knows whether they are of its candidate; None without them.
    whole: the figures of the whole list.
    """

    job: str
    version: int | str
    verdict: FairVerdict
    slices: tuple[AuditedSlice, ...]
    swaps: tuple[AuditedSwap, ...]
    templates: tuple[AuditedTemplate, ...]
    generated: int
    folder: Path
    made_at: str
    settings: str | None
    whole: SliceFigures

    @property
    def asked(self) -> list[AskedGroup]:
        """Swaps and templates, as people are shown them."""
        return [*self.swaps, *self.templates]

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "version": self.version, "verdict": self.verdict,
            "slices": [each.to_json() for each in self.slices], "swaps": [each.to_json() for each in self.swaps],
            "templates": [each.to_json() for each in self.templates], "generated": self.generated,
            "made_at": self.made_at, "settings": self.settings,
            "whole": self.whole.to_json(),
        }  # fmt: skip


def audit(
    job: Job, data: JobData, version: int | str | None, console: Console, engine: Engine | None = None
) -> AuditReport:
    """Audits a version against the list and the cache as they are, and writes what it found.

    version: a number, or the name of a candidate; None for what is served, or the newest candidate where nothing was ever published.
    Swaps and sentences are asked with the prompt and the model that the job file has now. engine: one that is already
    loaded. Raises NotFound, SpecError, InputError, UsageError, StoreError or Stopped.
    """
    spec = job.spec.audit
    if not spec.slices and not spec.asks:
        fix = "add audit: {slices: [COLUMN]}, with columns of its list."
        raise UsageError(f"The section audit of {job.path} names nothing to look at", fix=fix)
    data.require()
    with contextlib.ExitStack() as stack:
        stack.enter_context(placing(job))
        if spec.asks:
            stack.enter_context(holding_run_lock(job, data, f"batchinfer audit {job.name}", None, console.info))
        audited = stack.enter_context(_audited(data, version))
        prepared = stack.enter_context(prepare(job, data, Options(), console.info))
        entries = _entries(prepared, audited)
        check_slices(job, prepared.query_list.source)
        found = audit_list(prepared.workspace, entries, _golden(job, prepared.query_list.source.key))
        slices = found.slices
        asked = _ask_groups(job, prepared, audited.name, console, engine) if spec.asks else _AskedGroups((), (), 0)
        verdicts = [each.verdict for group in (slices, asked.swaps, asked.templates) for each in group]
        report = AuditReport(
            job.name, audited.name, verdict_of(verdicts), slices, asked.swaps, asked.templates, asked.generated,
            data.audits / audited.folder_name, str(iso(now())), _settings(job, prepared), found.whole,
        )  # fmt: skip
        _write(report, card_of(_facts(job, prepared, audited, report, entries), slices, report.asked))
    return report


def _settings(job: Job, prepared: Prepared) -> str | None:
    """What swaps and sentences depend on; None where the job has none."""
    lists, question = digest_lists(job), prepared.question
    if lists is None or question is None:
        return None
    return settings_of(job.spec, lists, question.fingerprint.hex(), question.parser_id)


def _entries(prepared: Prepared, audited: _Audited) -> str:
    """SQL for the entries, named as the list's. Raises UsageError."""
    workspace, key = prepared.workspace, prepared.query_list.source.key
    if audited.manifest.key != tuple(key):
        raise UsageError(
            f"{str(audited).capitalize()} has another key than the job has now: run and publish first, or audit with the job file "
            "that made it."
        )
    return f"({version_rows(workspace.db, workspace.texts, audited.folder, key)})"


def _facts(job: Job, prepared: Prepared, audited: _Audited, report: AuditReport, entries: str) -> CardFacts:
    """What the card says beside the groups."""
    known = read_figures(prepared.data, audited.name) if isinstance(audited.name, int) else ServedFigures()
    columns = [*job.spec.input.key, *OtherColumns(prepared.query_list.source.files, job.spec.input).names]
    return CardFacts(
        job, str(audited), audited.manifest, report.verdict, report.whole, _said_by_people(prepared.workspace, entries),
        reviewers(prepared.store), known, [name for name in columns if name not in job.spec.audit.slices],
    )  # fmt: skip


def _said_by_people(workspace: Workspace, entries: str) -> SaidByPeople:
    """How many entries people accepted or gave."""
    sql = f"SELECT source, count(*) FROM {entries} GROUP BY source"
    counts = dict(workspace.db.execute(sql).fetchall())
    models = f"(FROM {entries} WHERE source = '{Source.MODEL}')"
    accepted = one_integer(workspace.db, f"SELECT count(*) FROM ({workspace.verdicts.accepted_sql(models)})")
    return SaidByPeople(accepted, counts.get(Source.REVIEW, 0), counts.get(Source.IMPORT, 0))


def _golden(job: Job, key: Sequence[Column]) -> Golden | None:
    """The rows whose right answers are known: those of the gate, else those that prompts are compared by."""
    spec = job.spec.eval.golden
    if job.spec.gate.golden is not None or spec is None:
        return read_golden(job, key)
    return read_answers(job, "eval.golden.path", spec.path, spec.compare, key)


@dataclass(frozen=True, slots=True)
class _AskedGroups:
    """What was found by asking.

    swaps: of exchanged terms.
    templates: of sentences.
    generated: answers that the model gave for both.
    """

    swaps: tuple[AuditedSwap, ...]
    templates: tuple[AuditedTemplate, ...]
    generated: int


def _ask_groups(
    job: Job, prepared: Prepared, version: int | str, console: Console, engine: Engine | None
) -> _AskedGroups:
    """Asks swaps and sentences; both go through the job's cache, by one loaded engine."""
    from batchinfer.evaluate.ask import Session
    from batchinfer.evaluate.sentences import filled, judge_sentences, read_sentences
    from batchinfer.evaluate.swaps import judge_swaps, swapped_rows
    from batchinfer.evaluate.terms import read_terms
    from batchinfer.evaluate.variants import ask_tables

    if prepared.question is None:
        field = "swaps" if job.spec.audit.swaps else "templates"
        raise faulty(job, [(("audit", field), "the job has no prompt to ask with exchanged terms: leave it out.")])
    data, limits, columns = prepared.data, job.spec.audit.limits, prepared.question.template.columns
    with data.scratch() as scratch:
        lists = read_terms(job)
        sentences = filled(read_sentences(job, columns, lists, scratch), lists)
        rows, swaps = swapped_rows(prepared.query_list.source, columns, lists)
        with stopping(None, console.info) as stop:
            tables = {"swaps": rows, SENTENCES: sentences.rows}
            turn = rows.num_rows + sentences.rows.num_rows
            session = Session(data, version, console, stop, engine, turn, RunStatus.AUDIT)
            (of_swaps, of_sentences), generated = ask_tables(job, tables, session, scratch, _means(prepared))
    judged = judge_swaps(swaps, of_swaps, choices_looked_at(job.spec), limits)
    areas = judge_sentences(sentences, of_sentences, lists, _sentence_choice(job.spec), limits) if of_sentences else ()
    return _AskedGroups(judged, areas, generated)


def _means(prepared: Prepared) -> Means | None:
    """What choices have over the job's list, by which what is served was divided; None without output.prior."""
    if prepared.job.spec.output.prior == "none":
        return None
    with prepared.store.attached(prepared.workspace.db):
        return choice_means(prepared.workspace, prepared.query_list.first_rows_sql)


def _sentence_choice(spec: JobSpec) -> str:
    """The choice that sentences are judged by.

    An area is of one choice against all others, so of three and more choices the first is taken where `eval.positive` names
    none; swaps, which compare a choice's score with itself, look at each.
    """
    assert spec.output.choices is not None
    return spec.eval.positive or spec.output.choices[0]


def choices_looked_at(spec: JobSpec) -> Sequence[str]:
    """The choices whose scores are looked at: of two, one says all."""
    return (spec.output.choices or []) if spec.deciding_choice is None else [spec.deciding_choice]


@dataclass(frozen=True, slots=True)
class _Audited:
    """What is looked at.

    name: a version's number, or a candidate's name.
    folder: where it lies.
    manifest: what it says of itself.
    """

    name: int | str
    folder: Path
    manifest: Manifest

    @property
    def folder_name(self) -> str:
        """Of its audit."""
        return f"v{self.name}" if isinstance(self.name, int) else self.name

    def __str__(self) -> str:
        return f"version {self.name}" if isinstance(self.name, int) else f"candidate {self.name}"


@contextlib.contextmanager
def _audited(data: JobData, version: int | str | None) -> Iterator[_Audited]:
    """The version to look at, held open so that it is not removed meanwhile, or the candidate. Raises NotFound."""
    versions, refused = numbers(data), candidates(data)
    if version is None and not versions and refused:
        version = refused[-1]
    if isinstance(version, str):
        if version not in refused:
            raise NotFound(
                f"The job {data.name} has no candidate {version}", fix=f"there are: {', '.join(refused) or 'none'}."
            )
        yield _Audited(version, data.rejected / version, Manifest.read(data.rejected / version))
        return
    if version is not None and version not in versions:
        there = ", ".join(map(str, versions)) or "none"
        raise NotFound(f"The job {data.name} has no version {version}", fix=f"there are: {there}.")
    with open_served(data) if version is None else Snapshot(folder_of(data, version)) as snapshot:
        yield _Audited(snapshot.number, snapshot.folder, snapshot.manifest)


def _write(report: AuditReport, card: str) -> None:
    with os_errors(report.folder):
        report.folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(report.to_json(), ensure_ascii=False, indent=2)
    write_atomically(report.folder / REPORT, content.encode())
    write_atomically(report.folder / CARD, card.encode())
