"""Hostile job files, templates and answers on real processes: each ends soon, with one sentence, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny import PATIENCE, ROOT, Done, model_folder, numbered, write_job

ALIASES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
LOOPS = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}{{ text }}"
ENDLESS = "a" * 60 + "!"


def started(folder: Path, *arguments: str) -> Done:
    """A command as a shell starts it. What takes a minute has no end."""
    home = folder.parent / "home"
    done = subprocess.run(
        [sys.executable, "-m", "tests.tiny", "--home", str(home), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(folder.parent), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path / "job", numbered(6), model_folder(tmp_path / "model"), script={"answer": "echo"})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        pytest.param({"prompt": {"template": LOOPS}}, "asks for too much", id="loops"),
        pytest.param({"prompt": {"template": "{{ text }}", "system": "\ud800"}}, "U+D800", id="half a character"),
        pytest.param({"model": {"id": "./model\0"}}, "U+0000", id="a path of no file"),
        pytest.param({"cache": {"max_age": "400000w"}}, "cache.max_age", id="an age"),
    ],
)
@pytest.mark.long
def test_what_a_job_file_asks_for_has_an_end(job: Path, sections: dict[str, Any], said: str) -> None:
    """A plan of it ends with a sentence that names the place."""
    content = yaml.safe_load((job / "job.yaml").read_text(encoding="utf-8")) | sections
    (job / "job.yaml").write_text(json.dumps(content), encoding="utf-8")
    done = started(job, "plan", str(job))
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(ALIASES, "at most 30,000 values, aliases in full", id="aliases"),
        pytest.param("a: " + "[" * 100_000, "nested too deeply", id="deep"),
    ],
)
@pytest.mark.long
def test_yaml_without_measure_is_refused(job: Path, text: str, said: str) -> None:
    """Before it is unfolded."""
    (job / "job.yaml").write_text(text, encoding="utf-8")
    done = started(job, "plan", str(job))
    assert done.code == 2
    assert said in done.err


@pytest.mark.long
def test_an_answer_that_no_check_can_take_fails_alone(tmp_path: Path) -> None:
    """The rows beside it are kept, and the next run asks none of them again."""
    job = write_job(
        tmp_path / "job", {"text": ["b", ENDLESS, "c"]}, model_folder(tmp_path / "model"), script={"answer": "echo"},
        output={"steps": [{"split": ","}, {"drop": "(a+)+$"}]}, gate={"coverage": 0.0, "failures": 1.0},
    )  # fmt: skip
    for generated in (2, 0):
        report = started(job, "run", str(job), "--yes", "--json").json
        assert (report["generated"], report["failures"], report["unique"]) == (generated, 1, 3)
