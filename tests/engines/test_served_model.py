"""Whether a server has the job's model: what its list says, and what its names cannot show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchinfer.errors import ModelError
from tests.engines.test_openai import Bench
from tests.openai_server import card, serving


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Iterator[Bench]:
    with serving(models=[card(str(tiny), max_model_len=500)]) as server:
        yield Bench(server, tiny, tmp_path)


def test_a_name_that_stands_for_another_folder(bench: Bench, tiny: Path) -> None:
    """Anybody can choose a name, as that of the model for a quantised copy: what it stands for decides."""
    bench.server.models = [card(str(tiny), root="/models/other-awq")]
    with pytest.raises(ModelError, match=rf"open is that {tiny}, which is /models/other-awq, is {tiny}\."):
        bench.ask(1)
    bench.server.models.append(card("ours", root=str(tiny)))
    bench.ask(1)
    assert bench.server.asked[-1]["model"] == "ours"


def test_an_adapter_in_place_of_the_model(bench: Bench, tiny: Path) -> None:
    """What a fine-tuned model answers is not the model's, however it is trusted."""
    bench.server.models = [card(str(tiny)), card("tuned", root="/srv/adapter", parent=str(tiny))]
    for trust in False, True:
        with pytest.raises(ModelError, match=rf"calls tuned is an adapter of {tiny}, and the job's model has none"):
            bench.ask(1, served_model_name="tuned", trust_model=trust)
    assert not bench.server.asked
