"""Another order of a template's parts, where it would share more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.home import JobData
from batchinfer.job.reader import Job
from batchinfer.planning import estimate
from batchinfer.planning.advice import OrderAdvice
from batchinfer.planning.estimate import PlanReport
from batchinfer.planning.prepare import Options, prepare, quiet
from tests.tiny import make_job

GUIDES = ["to be read with care " * 3, "as one reads a letter " * 3, "aloud, and all of it " * 3]
ROWS = {"text": [f"row {number:03d}" for number in range(60)], "guide": [GUIDES[number % 3] for number in range(60)]}
WORST = "{{ text }}\n{{ guide }}\nAnswer:"


def shop(
    folder: Path, tiny: Path, template: str, rows: dict[str, Any] | None = None, **options: Any
) -> tuple[Job, JobData]:
    """A job with this template; the model's tokenizer has a token for each byte."""
    prompt = {"template": template, "format": "completion"}
    return make_job(folder / "shop", rows or ROWS, tiny, prompt=prompt, script={"block_size": 4, **options})


def planned(job: Job, data: JobData) -> PlanReport:
    with prepare(job, data, Options()) as prepared:
        return estimate.estimate(prepared, quiet)


def advice(
    folder: Path, tiny: Path, template: str, rows: dict[str, Any] | None = None, **options: Any
) -> OrderAdvice | None:
    return planned(*shop(folder, tiny, template, rows, **options)).advice


def test_the_predicted_saving_is_that_of_the_other_template(tmp_path: Path, tiny: Path) -> None:
    """What few rows differ in goes first; a job with the named template shares just so much, and needs no advice."""
    before = planned(*shop(tmp_path / "before", tiny, WORST))
    assert before.advice is not None
    assert before.prefix_saving is not None
    assert before.advice.columns == ("guide", "text")
    assert before.advice.template == "{{ guide }}\n{{ text }}\nAnswer:"
    after = planned(*shop(tmp_path / "after", tiny, before.advice.template))
    assert after.prefix_saving == before.advice.prefix_saving > before.prefix_saving + 0.5
    assert after.advice is None


@pytest.mark.parametrize(
    "template", ["{{ guide }}\n{{ text }}", "{{ text }} {{ guide }}", "{% if 1 %}{{ text }}{% endif %}\n{{ guide }}"]
)
def test_no_advice_where_the_template_allows_none(tmp_path: Path, tiny: Path, template: str) -> None:
    """It is in the best order already, or nobody can say what may move."""
    assert advice(tmp_path, tiny, template) is None


def test_no_advice_where_nothing_is_gained(tmp_path: Path, tiny: Path) -> None:
    """Prompts that differ in all columns, short ones, and a job without prefix caching."""
    different: dict[str, Any] = {"text": ROWS["text"], "guide": [f"{number} {GUIDES[0]}" for number in range(60)]}
    assert advice(tmp_path / "different", tiny, WORST, different) is None
    short = {"text": [f"a long text of its own {number}" * 9 for number in range(60)], "guide": ["ab"] * 60}
    assert advice(tmp_path / "short", tiny, WORST, short) is None
    assert advice(tmp_path / "off", tiny, WORST, enable_prefix_caching=False) is None
