"""What the bar of a run says, and how it asks."""

from __future__ import annotations

import time

import pytest

from batchinfer.cli.progress import ProgressConsole, line, saving
from batchinfer.engines.protocol import NodeWork
from batchinfer.pipeline.progress import Progress


def progress(**counts: int) -> Progress:
    made = Progress(started=0.0, ended=10.0)
    for name, count in counts.items():
        setattr(made, name, count)
    return made


def test_the_bar_counts_in_the_words_of_the_report() -> None:
    """Cached, generated, failed and remaining, and nothing of a saving that there is not."""
    said = line(progress(todo=400, generated=117, failed=3, prompt_tokens=1000, output_tokens=50), 2000)
    assert said == (
        "2,000 cached, 117 generated, 3 failed, 280 remaining, 12.0 rows/s, 100 prompt + 5 output tokens/s, "
        "about 23 s to go"
    )


def test_a_saving_is_said_where_there_is_one() -> None:
    """The share of prompt tokens that prefix caching saved."""
    assert "40.0% of prompt tokens saved" in line(progress(todo=1, prompt_tokens=10, cached_tokens=4), 0)


@pytest.mark.parametrize(
    ("share", "said"), [(None, None), (0.0, None), (0.0004, None), (0.001, "0.1%"), (1.0, "100.0%")]
)
def test_a_share_too_small_to_show_is_no_saving(share: float | None, said: str | None) -> None:
    """What would read 0.0% is left out."""
    assert saving(share) == said


def test_several_machines_are_told_apart() -> None:
    """Each with its own rate, since it began; of many only the first; of one, nothing."""
    made, began = progress(todo=1), time.monotonic() - 100
    made.nodes = {"node-b": NodeWork(250, began), "node-a": NodeWork(1000, began)}
    assert line(made, 0).endswith(", 2 nodes (node-a 10.0, node-b 2.5 rows/s)")
    made.nodes = {f"node-{number:02}": NodeWork(1000, began) for number in range(20)}
    assert line(made, 0).endswith("node-07 10.0 and 12 more rows/s)")
    made.nodes = {"node-a": NodeWork(1000, began)}
    assert "node" not in line(made, 0)


class Typing:
    """A terminal at which a person types."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        self.asked: list[str] = []
        self._text = text
        monkeypatch.setattr("click.prompt", self.prompt)
        monkeypatch.setattr("sys.stdin", self)
        monkeypatch.setattr("sys.stderr", self)

    def isatty(self) -> bool:
        return True

    def write(self, _text: str) -> int:
        return 0

    def flush(self) -> None:
        """Nothing."""

    def prompt(self, text: str, **_options: object) -> str:
        self.asked.append(text)
        return self._text


@pytest.mark.parametrize(
    ("text", "agreed"), [("629", True), (" 629 ", True), ("yes", False), ("", False), ("62", False)]
)
def test_a_number_wants_to_be_typed(monkeypatch: pytest.MonkeyPatch, text: str, agreed: bool) -> None:
    """Only the number itself is a yes."""
    typing = Typing(monkeypatch, text)
    with ProgressConsole() as console:
        assert console.confirm("That is a lot.", typed="629") is agreed
    assert typing.asked == ["That is a lot. Type 629 to continue, or nothing to stop"]
