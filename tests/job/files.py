"""Job files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.errors import SpecError
from batchinfer.job import reader

SMALLEST = "name: shop\ninput: {path: queries.parquet, key: [term]}\n"
ASKING = "prompt: {template: '{{ term }}'}\nmodel: {id: org/name}\n"


def problems(text: str) -> list[str]:
    """What is wrong with a job file, sentence by sentence."""
    with pytest.raises(SpecError) as caught:
        reader.parse(text, "job.yaml")
    said = str(caught.value).splitlines()
    count = len(caught.value.problems)
    assert said[0] == f"job.yaml has {count} problem{'s' if count > 1 else ''}:"
    assert [line.strip() for line in said[1:]] == caught.value.problems
    return caught.value.problems


def write_job(folder: Path, text: str = SMALLEST) -> Path:
    """A job file in a folder, both made here."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path
