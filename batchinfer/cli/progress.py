"""The progress of a run: a live bar on a terminal, a line every ten seconds elsewhere. All of it on stderr."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from batchinfer.cli.tables import percent
from batchinfer.cli.terminal import LINE_SECONDS, Terminal
from batchinfer.engines.protocol import NodeWork
from batchinfer.pipeline.progress import Progress

DRAWS_PER_SECOND = 4
MINUTE = 60
MOST_NODES = 8  # whose rates are shown
SETTLED_SECONDS = 5.0  # before that a rate says little


class ProgressConsole:
    """The `Console` of a run. A context manager: leaving it removes the bar.

    A thread of its own draws, so that the bar moves while no answer comes.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._terminal = Terminal()
        self._progress: Progress | None = None
        self._cached = 0
        self._live: Live | None = None
        self._over = threading.Event()
        self._liner = threading.Thread(target=self._write_lines, daemon=True)

    def info(self, text: str) -> None:
        # Broken at words for people; one line each in a log.
        self._console.print(text, style="dim", highlight=False, markup=False, soft_wrap=not self._console.is_terminal)

    def confirm(self, text: str, *, typed: str | None = None) -> bool | None:
        if self._live is not None:
            self._live.stop()  # it would draw over the question
        return self._terminal.confirm(text, typed=typed)

    def progress(self, progress: Progress, cached: int) -> None:
        first, self._progress, self._cached = self._progress is None, progress, cached
        if first and self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._draw, refresh_per_second=DRAWS_PER_SECOND, transient=True
            )
            self._live.start()
        elif first:
            self._liner.start()

    def _draw(self) -> Table:
        assert self._progress is not None
        return _drawing(self._progress, self._cached)

    def _write_lines(self) -> None:
        while not self._over.wait(LINE_SECONDS) and self._progress is not None:
            if self._progress.ended is None:  # else the next part of what is done loads its model
                self.info(line(self._progress, self._cached))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()


def line(progress: Progress, cached: int) -> str:
    """All of it in one line."""
    rate = progress.rate(progress.done)
    parts = [
        f"{cached:,} cached",
        f"{progress.generated:,} generated",
        f"{progress.failed:,} failed",
        f"{progress.remaining:,} remaining",
        f"{rate or 0:.1f} rows/s",
        f"{progress.rate(progress.prompt_tokens) or 0:,.0f} prompt + {progress.rate(progress.output_tokens) or 0:,.0f} output tokens/s",
    ]
    if (saved := saving(progress.prefix_saving)) is not None:
        parts.append(f"{saved} of prompt tokens saved")
    if rate and progress.remaining and progress.seconds > SETTLED_SECONDS:
        parts.append(f"about {duration(progress.remaining / rate)} to go")
    if len(progress.nodes) > 1:
        parts.append(_nodes(progress.nodes))
    return ", ".join(parts)


def _nodes(nodes: Mapping[str, NodeWork]) -> str:
    """The rate of each machine, the first of them where there are many."""
    shown = ", ".join(f"{name} {work.rate:.1f}" for name, work in sorted(nodes.items())[:MOST_NODES])
    more = f" and {len(nodes) - MOST_NODES} more" if len(nodes) > MOST_NODES else ""
    return f"{len(nodes)} nodes ({shown}{more} rows/s)"


def saving(share: float | None) -> str | None:
    """The share of prompt tokens that prefix caching saved; None where it is too small to show."""
    shown = percent(share)
    return None if shown in ("-", percent(0.0)) else shown


def _drawing(progress: Progress, cached: int) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        ProgressBar(total=max(progress.todo, 1), completed=progress.done, width=40),
        f"{progress.done / max(progress.todo, 1):.0%}",
    )
    outer = Table.grid()
    outer.add_row(grid)
    outer.add_row(line(progress, cached))
    return outer


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), MINUTE)
    hours, minutes = divmod(minutes, MINUTE)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
