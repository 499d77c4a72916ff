"""From a job with labels to an adapter in its folder; the training itself and vLLM are stood in for."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.locks import lock
from batchinfer.engines import models
from batchinfer.engines.devices import Gpu, Placement
from batchinfer.engines.digests import folder_digest
from batchinfer.errors import BatchinferError, Busy, MissingExtra, ModelError, SpecError, UsageError
from batchinfer.pipeline.stop import Stop
from batchinfer.planning.prepare import Options
from batchinfer.training import finetune as module
from batchinfer.training.finetune import FinetuneReport, finetune
from batchinfer.training.merge import merge_adapter
from batchinfer.training.parity import Parity
from batchinfer.training.provenance import libraries
from batchinfer.training.records import Course, HeldRow, Trained
from tests.factories import PretendTokenizer, World, write
from tests.training import pupil
from tests.training.test_labels import KEYS, answers, make
from tests.training.test_teacher import Watching

LABELS = {"labels": {"path": "labels.parquet"}, "licence": "CC0"}


class Stage:
    """Stands in for what trains and serves: notes the courses, and writes an adapter."""

    def __init__(self) -> None:
        self.courses: list[Course] = []
        self.served: list[Path] = []
        self.fails: BatchinferError | None = None

    def teach(self, course: Course, *_: Any) -> Trained:
        self.courses.append(course)
        pupil.write_adapter(course.draft)
        course.checkpoint.write_bytes(b"the last step")
        return pupil.learned(len(course.held) + len(course.further))

    def parity(self, *arguments: Any) -> Parity:
        adapter, rows = arguments[4:6]
        self.served.append(adapter)
        if self.fails is not None:
            raise self.fails
        return Parity(len(rows), 0.001)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    made = Stage()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the devices' locks are this test's own
    monkeypatch.setattr(module, "teach", made.teach)
    monkeypatch.setattr(module, "check_parity", made.parity)
    monkeypatch.setattr(module, "Tokenizer", lambda *_: PretendTokenizer())
    monkeypatch.setattr(module, "window_of", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make(tmp_path, finetune=LABELS)
    write(made.job.folder / "labels.parquet", answers(KEYS))
    return made


def train(world: World) -> FinetuneReport:
    return finetune(world.job, world.data, Options(), Watching(), Stop(None, lambda _: None))


def adapters(world: World) -> Sequence[str]:
    folder = world.job.folder / "adapters"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_what_is_kept(world: World, stage: Stage) -> None:
    """An adapter under its digest, with how it came to be, fit for model.adapter; nothing else stays."""
    report = train(world)
    folder = world.job.folder / report.adapter
    assert adapters(world) == [folder.name]
    assert report.digest == folder_digest(folder)
    assert folder.name == report.digest[:16]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert not world.data.checkpoint.exists()
    note = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    [course] = stage.courses
    assert (note["labels"]["from"], note["labels"]["licence"], note["labels"]["counts"]) == (
        "labels.parquet",
        "CC0",
        {"answer": 60},
    )
    assert (len(note["rows"]["learned"]), len(note["rows"]["held_out"])) == (len(course.learned), len(course.held))
    assert note["settings"]["trainer"] == course.trainer == "plain"
    assert (note["settings"]["seed"], note["losses"], note["libraries"]["peft"]) == (0, [2.0, 1.0], "1")
    assert note["held_out"]["after"]["accuracy"] == report.after.accuracy
    assert note["parity"] == {"rows": report.parity.rows, "largest": 0.001, "bound": 0.02}
    assert report.to_json().keys() >= {
        "job",
        "adapter",
        "base",
        "rows",
        "steps",
        "seconds",
        "before",
        "after",
        "parity",
    }
    changed = world.changed(model={"id": "./model", "adapter": report.adapter})
    with changed.prepared() as prepared:
        assert prepared.question is not None
        assert prepared.question.identity.adapter_digest == report.digest


def test_the_same_training_makes_the_same_files(world: World, stage: Stage) -> None:
    """Its digest, and so the cache's keys, do not depend on when it was trained."""
    assert train(world).digest == train(world).digest
    assert len({course.digest for course in stage.courses}) == 1
    assert len(adapters(world)) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"rank": 4}, {"epochs": 1}, {"holdout": 0.5}, {"trainer": "trl"}])
def test_another_training_has_another_checkpoint(world: World, stage: Stage, change: dict[str, Any]) -> None:
    """What was saved of one is not taken up by another."""
    train(world)
    train(world.changed(finetune=LABELS | change))
    assert len({course.digest for course in stage.courses}) == 2


def test_it_is_trained_on_the_base_model(world: World, stage: Stage) -> None:
    """Also where the job has an adapter already: one is not trained upon another."""
    report = train(world)
    again = world.changed(model={"id": "./model", "adapter": report.adapter})
    assert train(again).digest == report.digest
    assert len({course.digest for course in stage.courses}) == 1


def test_a_cascade_trains_the_adapter_that_it_waits_for(world: World, stage: Stage) -> None:
    """The large model's adapter need not be there: the small one is trained, as in a job that asks it alone."""
    report = train(world)
    large = {"id": "./model", "adapter": "adapters/not-yet"}
    cascade = world.changed(model={"id": "./model", "cascade": {"large": large}})
    assert train(cascade).digest == report.digest


def test_one_that_vllm_computes_otherwise_is_not_kept(world: World, stage: Stage) -> None:
    """The checkpoint is, so that nothing need be trained again."""
    stage.fails = ModelError("The adapter is not kept.")
    with pytest.raises(ModelError, match="not kept"):
        train(world)
    assert adapters(world) == []
    assert world.data.checkpoint.exists()


def test_two_trainings_of_a_job_at_once(world: World, stage: Stage) -> None:
    """The second is told who is at it."""
    with (
        lock(world.data.folder / "finetune.lock", "a test"),
        pytest.raises(Busy, match="is being trained or merged by a test"),
    ):
        train(world)


def test_it_says_what_a_hub_model_was_made_of(world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of tokenizer and chat template are those of its files, though the engine is given its id; so is the memory's need."""
    files = world.job.folder / "model"
    (files / "tokenizer.json").write_text("{}", encoding="utf-8")
    asked = list[Path | None]()
    monkeypatch.setattr(models, "weights", lambda *_: "org/name")
    monkeypatch.setattr(models, "files_of", lambda source, _: files if source == "org/name" else None)
    monkeypatch.setattr(module, "needed_memory", lambda folder, *_: asked.append(folder))
    report = train(world)
    note = json.loads((world.job.folder / report.adapter / "provenance.json").read_text(encoding="utf-8"))
    assert (len(note["tokenizer"]), note["chat_template"]) == (64, None)
    assert asked == [files]
    assert stage.courses[0].source == "org/name"


def test_no_memory_no_training(world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is loaded, and no draft stays."""
    monkeypatch.setattr(module, "needed_memory", lambda *_: 1 << 60)
    with pytest.raises(ModelError, match=r"The training needs about .* GiB are free: set finetune\.batch lower"):
        train(world)
    assert not stage.courses
    assert adapters(world) == []


def test_other_libraries_begin_anew(world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of another torch or peft is not gone on with."""
    train(world)
    monkeypatch.setattr(module, "libraries", lambda _: {"peft": "0.1"})
    train(world)
    assert len({course.digest for course in stage.courses}) == 2


GPU = Placement(gpus=(Gpu("0", "uuid", "H200", 0),))


@pytest.mark.parametrize(
    ("settings", "placement", "expected"),
    [
        ({}, Placement(cores=(0,)), "plain"),
        ({}, GPU, "trl"),
        ({"trainer": "plain"}, GPU, "plain"),
        ({"trainer": "trl"}, Placement(cores=(0,)), "trl"),
    ],
    ids=["CPU", "GPU", "GPU, plain", "CPU, TRL"],
)
def test_who_takes_the_steps(
    world: World,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    placement: Placement,
    expected: str,
) -> None:
    """TRL on a GPU and the plain loop on CPUs, unless the job says; an adapter tells by whom and with which version."""
    monkeypatch.setattr(module, "place_here", lambda *_: [placement])
    monkeypatch.setattr(module, "check_room", lambda *_: None)
    report = train(world.changed(finetune=LABELS | settings))
    note = json.loads((world.job.folder / report.adapter / "provenance.json").read_text(encoding="utf-8"))
    assert note["settings"]["trainer"] == stage.courses[0].trainer == expected
    assert ("trl" in libraries(expected)) == (expected == "trl")


def test_trl_that_is_not_installed(world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named before anything else is done, and so is how to do without."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "trl" else object())
    with pytest.raises(
        MissingExtra, match=r"finetune\.trainer is plain, is not installed: pip install 'batchinfer-cache\[trl\]'"
    ):
        train(world.changed(finetune=LABELS | {"trainer": "trl"}))
    assert not stage.courses


def test_a_job_without_the_section(world: World) -> None:
    """It says what to add."""
    with pytest.raises(UsageError, match=r"has no section finetune: add finetune: \{labels: imports\}"):
        train(world.changed(finetune=None))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"output": {"type": "likelihood", "text": "{{ text }}"}}, "finetune: output.type is likelihood"),
        ({"output": {"steps": [{"split": ","}]}}, "finetune: output.steps has a split"),
        ({"model": {"id": "./model", "quantization": "awq"}}, "finetune: model.quantization is set"),
        ({"prompt": None, "model": None}, "finetune: the job has no prompt and no model"),
        ({"finetune": {"labels": {"job": "shop"}}}, "finetune.labels.job: it would learn from itself"),
        ({"finetune": {"labels": {"job": "other", "path": "a"}}}, "needs job or path, and not both"),
        ({"finetune": {"labels": "people"}}, "finetune.labels"),
        ({"finetune": {"rank": 0}}, "finetune.rank"),
        ({"finetune": {"trainer": "mine"}}, "finetune.trainer"),
        ({"finetune": {"holdout": 1}}, "finetune.holdout"),
    ],
)
def test_a_section_that_does_not_fit_the_job(world: World, sections: dict[str, Any], said: str) -> None:
    """The job file is refused, with the line."""
    with pytest.raises(SpecError) as caught:
        world.changed(**sections)
    assert said in str(caught.value)


def test_the_section_changes_no_answer(world: World) -> None:
    """Everything stays cached without it."""
    world.answer(lambda _: [-0.1, -2.4])
    with world.changed(finetune=None).prepared() as prepared:
        assert prepared.plan.counts.to_generate == 0


def test_only_an_adapter_can_be_merged(world: World, stage: Stage) -> None:
    """A job without one, and one whose base model is another now, are refused."""
    with pytest.raises(UsageError, match=r"has no model\.adapter to be merged"):
        merge_adapter(world.job, world.data, print)
    report = train(world)
    (world.job.folder / "model" / "config.json").write_text('{"model_type": "other"}', encoding="utf-8")
    changed = world.changed(model={"id": "./model", "adapter": report.adapter})
    with pytest.raises(SpecError, match=r"model\.adapter: it was trained on other weights of its base model"):
        merge_adapter(changed.job, changed.data, print)


def test_a_merge_takes_its_turn_and_its_memory(world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a training does: one at a time, refused where it would not fit, and nothing half-written stays."""
    report = train(world)
    merged = world.changed(model={"id": "./model", "adapter": report.adapter})
    monkeypatch.setattr("batchinfer.training.merge.adapter_faults", lambda *_: [])
    with lock(world.data.folder / "finetune.lock", "a test"), pytest.raises(Busy, match="or merged by a test"):
        merge_adapter(merged.job, merged.data, print)
    monkeypatch.setattr("batchinfer.training.merge.weights_memory", lambda _: 1 << 60)
    with pytest.raises(ModelError, match=r"Merging needs about .* GiB are free: end what else takes memory"):
        merge_adapter(merged.job, merged.data, print)
    assert not (world.job.folder / "merged").exists()


def test_rows_held_are_of_every_choice(world: World, stage: Stage) -> None:
    """What the training process is given are tokens alone."""
    train(world)
    [course] = stage.courses
    assert all(isinstance(row, HeldRow) and row.candidates == ((0,), (1,)) for row in course.held)
    assert {row.right for row in course.held} == {0, 1}
