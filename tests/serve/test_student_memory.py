"""What a worker grows by for a student, whatever it was asked: a process of its own, since this one has numpy and more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from batchinfer.core.own_process import environment
from batchinfer.student.linear import LinearStudent
from batchinfer.versions.layout import STUDENT
from tests.tiny import ROOT

LIMIT = 15.0  # MB
GROWN = """\
import gc, sys
from pathlib import Path
import batchinfer.serve.app
def private():
    gc.collect()
    return sum(int(row.split()[1]) for row in open("/proc/self/smaps_rollup") if row.startswith("Private")) / 1000
import numpy
before = private()
from batchinfer.versions.student import MissAnswers
answers = MissAnswers.open(Path(sys.argv[1]), "job", "text", 1)
for number in range(int(sys.argv[2])):
    answers(f"{number:x}word")
grown = private()
for number in 2 * [*range(4_000)]:
    answers(f"a few words {number}")
print(max(grown, private()) - before)
print(*{"torch", "scipy", "sklearn", "tokenizers", "transformers", "pandas"} & sys.modules.keys())
"""


@pytest.mark.parametrize(("choices", "words"), [(2, 8_300), (4, 4_100)])
@pytest.mark.long
def test_a_worker_grows_by_little(tmp_path: Path, choices: int, words: int) -> None:
    """With all that is remembered of words and answers, as full as it gets. What students learn by is not loaded."""
    rows = 1 if choices == 2 else choices
    weights = np.random.default_rng(0).normal(scale=0.01, size=(rows, 1 << 17)).astype(np.float16)
    student = LinearStudent(tuple(f"choice {number}" for number in range(choices)), 0.0, weights, np.zeros(rows))
    (tmp_path / STUDENT).write_bytes(student.to_bytes())
    done = subprocess.run(
        [sys.executable, "-c", GROWN, str(tmp_path), str(words)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, loaded = done.stdout.splitlines()
    assert float(grown) < LIMIT
    assert not loaded
