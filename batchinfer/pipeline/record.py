"""The record that a run leaves in the cache, whichever way it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from batchinfer.cache.schema import RunStatus
from batchinfer.core.cost import Cost, ModelShare
from batchinfer.core.signals import meant
from batchinfer.engines import models
from batchinfer.engines.protocol import EngineInfo
from batchinfer.errors import BatchinferError, Interrupted, NotConfirmed, Stopped
from batchinfer.pipeline.meter import Meter, cost_of
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.report import RunReport, RunWork
from batchinfer.pipeline.stop import StopNow
from batchinfer.planning.cascade import Stage
from batchinfer.planning.prepare import Options, Prepared
from batchinfer.planning.speed import TimeEstimate
from batchinfer.publish.release import Release


class RunRecord:
    """A context manager: entering it writes that a run began, leaving it how the run ended; of a refresh as well.

    run_id: the run's number.
    meter: counts what devices it holds.
    progress: counts while it goes on; where two models are asked in turns, those of the turn.
    outcome: of publishing, once that is `published`.
    report: once it was left; a stop carries it too.
    """

    def __init__(self, prepared: Prepared, options: Options, began: float, list_differs: str | None = None) -> None:
        """began: when the command did, by the monotonic clock. list_differs: from the served version's, as a sentence."""
        self._list_differs = list_differs
        self._prepared, self._began = prepared, began
        self._list_name = str(options.input or prepared.list_name)
        self._refresh, self._purpose = options.refresh_text, options.purpose
        self.run_id, self.meter = 0, Meter()
        self.progress = Progress()
        self._checked: tuple[str, ...] = ()
        self._unshown: tuple[str, ...] = ()
        self._before: list[tuple[Stage | None, Progress]] = []  # the turns before
        self._estimate: TimeEstimate | None = None
        self.outcome: Release | None = None
        self.report: RunReport

    def __enter__(self) -> Self:
        prepared, question = self._prepared, self._prepared.question
        if question is not None:
            models.remember(prepared.job, prepared.data, question.identity)
        if prepared.cascade is not None and (large := prepared.job.large) is not None:
            models.remember(large, prepared.data, prepared.cascade.large.identity)
        if prepared.selection.refresh_since is not None:
            prepared.data.remember_refresh(self._refresh, prepared.selection.refresh_since)
        prepared.store.replace_bad_rows(prepared.query_list.bad_rows(), prepared.workspace.texts)
        self.run_id = prepared.store.start_run(
            question.fingerprint if question else b"", question.parts if question else None
        )
        return self

    def turn(self, compare: Callable[[int], object]) -> None:
        """Begins another turn. compare: compares the list with the cache again, for the run of this number."""
        turns = self._turns()
        compare(self.run_id)
        self._before, self.progress = turns, Progress()

    def expected(self, estimate: TimeEstimate | None) -> None:
        """How long it is to take; None where nobody knows."""
        self._estimate = estimate

    def loaded(self, engine: EngineInfo) -> None:
        """A model is ready: of a server, what was looked at to know that it has the job's, and what stayed open."""
        self._checked += engine.checked
        self._unshown += engine.unshown

    def published(self, outcome: Release) -> None:
        """How its publishing ended, which the report says."""
        self.outcome = outcome

    def used(self) -> dict[str, Any]:
        """What it used and made so far, as its report has it, too; empty in a job without a model."""
        cost = self._cost()
        spent = self._spent()
        return {} if cost is None else {"cost": cost.to_json(), "generated": spent.generated, "failed": spent.failed}

    def _turns(self) -> list[tuple[Stage | None, Progress]]:
        """All so far, with the one that goes on."""
        cascade = self._prepared.cascade
        return [*self._before, (None if cascade is None else cascade.stage, self.progress)]

    def _spent(self) -> Progress:
        return Progress.together([turn for _, turn in self._turns()]) if self._before else self.progress

    def _cost(self) -> Cost | None:
        """None in a job without a model."""
        prepared, meter = self._prepared, self.meter
        if prepared.job.spec.prompt is None:
            return None
        price, shares = prepared.job.spec.cost, []
        if prepared.cascade is not None:
            turns = self._turns()
            for question, stages in prepared.cascade.questions:
                tokens, model = (
                    sum(turn.computed_tokens for stage, turn in turns if stage in stages),
                    question.identity.label,
                )
                shares.append(ModelShare(model, round(meter.seconds_of(model), 3), tokens))
        return cost_of(self._spent(), meter.kind, meter.device_seconds, price.price if price else None, shares)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = self._status(exc)
        self.report = RunReport.of(self._prepared, status, self._work(), self.outcome, self._list_differs)
        ended_by = exc if isinstance(exc, NotConfirmed) else _request(exc)
        if ended_by is not None:
            ended_by.report = self.report
        failed = status is RunStatus.FAILED  # why it failed is reported, not that this could not be written either
        with contextlib.suppress(BatchinferError) if failed else contextlib.nullcontext():
            self._prepared.store.finish_run(self.run_id, status, self.report.to_json())
        if exc is None and self._prepared.selection.refresh_since is not None and self.report.remaining == 0:
            self._prepared.data.clear_refresh()

    def _work(self) -> RunWork:
        return RunWork(
            run_id=self.run_id,
            list_name=self._list_name,
            purpose=self._purpose,
            seconds=time.monotonic() - self._began,
            last=self.progress,
            turns=self._turns(),
            spent=self._spent(),
            cost=self._cost(),
            checked=self._checked,
            unshown=self._unshown,
            estimate=self._estimate,
        )

    def _status(self, exc: BaseException | None) -> RunStatus:
        if exc is None:
            refused = self.outcome is not None and self.outcome.is_refused
            return RunStatus.REJECTED if refused else RunStatus.DONE
        if isinstance(exc, NotConfirmed):
            return RunStatus.DECLINED
        stop = _request(exc)
        if stop is None:
            return RunStatus.FAILED
        return RunStatus.INTERRUPTED if isinstance(stop, Interrupted) else RunStatus.STOPPED


def _request(exc: BaseException | None) -> Stopped | None:
    """The request to stop that ends a run, if it is one."""
    raised = None if exc is None else meant(exc)
    stop = raised.request if isinstance(raised, StopNow) else raised
    return stop if isinstance(stop, Stopped) else None
