"""A run of which most rows fail stops early, says why, and goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.cache.store import Store
from batchinfer.core.records import Failure
from batchinfer.engines.pool import EnginePool
from batchinfer.errors import GateFailed, Stopped
from batchinfer.job.spec import OnErrorsSpec
from batchinfer.pipeline.on_errors import stopped_early, too_many
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from tests.factories import LENIENT
from tests.tiny import RecordingConsole, adds_up, make_job, numbered, scripted, token

REFUSED = Failure(b"", "engine", "refused", "No.")


def counted(good: int, bad: int) -> Progress:
    """A run that came so far."""
    progress = Progress()
    for _ in range(bad):
        progress.count(REFUSED, REFUSED)
    progress.generated = good
    return progress


@pytest.mark.parametrize(
    ("good", "bad", "stops"),
    [(100, 99, False), (0, 199, False), (100, 100, True), (101, 99, False), (0, 200, True), (1000, 1000, True)],
)
def test_when_it_is_too_many(good: int, bad: int, stops: bool) -> None:
    """From 200 finished rows on, half of them failed is too many."""
    assert too_many(OnErrorsSpec(), counted(good, bad)) == stops


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [(5, 15, "15 of the 20 rows that are finished failed"), (0, 4, "all 4 rows that are finished failed")],
)
def test_the_share_reads_well(good: int, bad: int, said: str) -> None:
    """All of them are not so many of so many, and one reason is not the most frequent one."""
    stopped = stopped_early("shop", counted(good, bad))
    assert str(stopped).startswith(f"Stopped early: {said}. Most often refused (all {bad}): ")
    assert "The reason is refused: " in str(stopped_early("shop", counted(0, 1)))


@pytest.mark.long
def test_a_run_that_mostly_fails_stops_and_goes_on(tmp_path: Path, tiny: Path) -> None:
    """It ends with exit code 4, names the reason, the setting and the rows; what was finished is stored, and is not asked again."""
    rows = numbered(60, dict.fromkeys(range(50), "C"))
    limits = {"stop_at": 0.9, "after": 20}
    job, data = make_job(tmp_path / "shop", rows, tiny, gate=LENIENT, on_errors=limits)
    audience = RecordingConsole()
    with scripted(tmp_path / "engine.log", answer="echo", cut_off=[token("C")], in_flight=4) as pool:
        with pytest.raises(Stopped) as stopped:
            run(job, data, Options(), audience, pool)
        said = str(stopped.value)
        assert stopped.value.exit_code == 4
        assert "rows that are finished failed. Most often cut_off (all " in said
        assert "raise sampling.max_tokens" in said
        assert "batchinfer failures shop shows the rows. Run the same command again" in said
        assert "Most rows fail: finishing what is in flight." in audience.said
        assert stopped.value.report is not None
        report = stopped.value.report.to_json()
        assert adds_up(report)
        assert report["status"] == "stopped"
        assert 20 <= report["failures"] <= 30
        assert len(Store(data.cache).failures()) == report["failures"]
        assert f"(all {report['failures']})" in said  # what was in flight at the time is counted, too
        relaxed = make_job(tmp_path / "shop", rows, tiny, gate=LENIENT, on_errors="continue")[0]
        again = run(relaxed, data, Options(), audience, pool)
        assert (again.failed, again.generated, again.remaining) == (50, 10, 0)


def test_prompts_that_are_never_asked_count_too(tmp_path: Path, tiny: Path) -> None:
    """Where each prompt is too long for the model's window, the run ends before it went through the list."""
    rows = {"text": [f"{number} " + "x" * 2000 for number in range(300)]}
    job, data = make_job(tmp_path / "shop", rows, tiny, on_errors={"after": 10})
    with (
        scripted(tmp_path / "engine.log", answer="echo") as pool,
        pytest.raises(Stopped, match="prompt_too_long") as stop,
    ):
        run(job, data, Options(), RecordingConsole(), pool)
    assert "shorten the row, or shorten prompt.template or raise model.options.max_model_len (this regen" in str(
        stop.value
    )
    assert len(Store(data.cache).failures()) < 50


def test_a_short_list_is_not_stopped_but_its_refusal_names_the_cause(tmp_path: Path, tiny: Path) -> None:
    """Below `after` a run goes to its end; the gate's refusal names reason, setting and command, and --force last."""
    job, data = make_job(tmp_path / "shop", numbered(10, dict.fromkeys(range(9), "C")), tiny)
    with (
        scripted(tmp_path / "engine.log", answer="echo", cut_off=[token("C")]) as pool,
        pytest.raises(GateFailed) as refused,
    ):
        run(job, data, Options(), RecordingConsole(), pool)
    said = str(refused.value)
    assert "Most often cut_off (all 9): raise sampling.max_tokens" in said
    assert said.index("batchinfer failures shop") < said.index("--force")
    error = refused.value.to_json()["error"]
    assert error["message"].endswith("rejected/r1.")
    assert "--force" not in error["message"]
    assert error["fix"].startswith("Most often cut_off (all 9): ")
    assert said.endswith("--force --why TEXT")


def test_a_list_of_mostly_bad_rows_asks_nothing(tmp_path: Path, tiny: Path) -> None:
    """Where most rows of the list are bad, the run stops before it loads a model; the bad rows are listed."""
    rows = {"text": ["fine", *[None] * 9]}
    job, data = make_job(tmp_path / "shop", rows, tiny, on_errors={"after": 10})
    unstarted = EnginePool.__new__(EnginePool)
    with pytest.raises(Stopped, match=r"9 of the 10 rows in the list are bad\. Most often null_key \(all 9\)") as stop:
        run(job, data, Options(), RecordingConsole(), unstarted)
    assert stop.value.fix.startswith("Most often null_key (all 9): fill the columns of input.key in the list; ")
    assert len(Store(data.cache).failures()) == 9
    assert Store(data.cache).runs()[0].status == "stopped"
    shorter = make_job(tmp_path / "shop", {"text": ["fine", *[None] * 8]}, tiny, on_errors={"after": 10}, gate=LENIENT)[
        0
    ]
    with scripted(tmp_path / "engine.log", answer="echo") as pool:
        assert run(shorter, data, Options(), RecordingConsole(), pool).generated == 1
