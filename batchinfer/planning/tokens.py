"""The tokens of the prompts that a run would ask, and how many of them prefix caching saves: counted, or of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchinfer.core.records import Prompt
from batchinfer.engines.devices import find_gpus
from batchinfer.engines.vllm import block_size
from batchinfer.job.engine_spec import ServerSpec
from batchinfer.planning.plan import TodoReader
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.prompts import FilledPrompt, PromptMaker, too_long
from batchinfer.planning.question import Question
from batchinfer.prompting.template import TemplateFault

EXACT_UP_TO = 50_000
WINDOWS, WINDOW = 50, 200  # a sample keeps neighbours together, since they share prefixes
BATCH = 256
EXACT_CHARACTERS = 10_000_000  # of all prompts that are counted one by one
CHARACTERS = (
    100_000  # of a window of the sample, and of what is tokenised at once; the rest of a longer prompt is guessed
)


@dataclass(slots=True)
class TokenCount:
    """What was counted of prompts, in the order in which a run asks them.

    block: tokens that prefix caching shares as a whole; 0 where the job turns it off, None where nobody knows.
    window: tokens of a prompt and its answer together, if it is known.
    rows: prompts.
    total: their tokens.
    compared: those of prompts whose neighbour before them is known.
    shared: those of them that the neighbour has, too, as far as prefix caching saves them.
    long: the keys of prompts that do not fit the window.
    unmade: why no prompt can be made of some rows, by their keys.
    is_exact: whether these are all prompts, not a sample.
    """

    block: int | None
    window: int | None
    rows: int = 0
    total: int = 0
    compared: int = 0
    shared: int = 0
    long: list[bytes] = field(default_factory=list)
    unmade: dict[bytes, str] = field(default_factory=dict)
    is_exact: bool = True
    _last: tuple[int, ...] | None = ()

    def leap(self) -> None:
        """What follows has a neighbour before it that is not counted."""
        self._last = None

    def add(self, prompt: Prompt, times: float) -> None:
        """times: of how many such parts the prompt is."""
        self.rows += 1
        if self.window is not None and too_long(prompt, self.window):
            self.long.append(prompt.prompt_key)
        for ids in _requests(prompt):
            tokens = round(len(ids) * times)
            self.total += tokens
            if self._last is not None:
                self.compared += tokens
                self.shared += self._saved(min(_common(self._last, ids), len(prompt.token_ids) - 1))
            self._last = ids

    def _saved(self, alike: int) -> int:
        """Of so many tokens that are alike. A prompt's last token is always computed, and only whole blocks are shared."""
        return alike // self.block * self.block if self.block else 0

    @property
    def saving(self) -> float | None:
        """The share of tokens that prefix caching saves; None where nothing is known of it."""
        return self.shared / self.compared if self.compared and self.block is not None else None

    def tokens_of(self, count: int) -> int:
        """Of so many prompts like these."""
        return self.total if self.is_exact or not self.rows else round(self.total / self.rows * count)


def count_tokens(
    prepared: Prepared, maker: PromptMaker, window: int | None, *, rows: TodoReader | None = None,
    exact_up_to: int | None = None, windows: int | None = None,
) -> TokenCount:  # fmt: skip
    """The prompts that are to generate. window: see `TokenCount`.

    rows: what they are made of; the plan's `todo` unless given. exact_up_to: prompts, of which all are counted; of more so
    many windows, EXACT_UP_TO and WINDOWS unless given.
    """
    assert prepared.question is not None
    assert prepared.question.spec.model is not None
    count = prepared.plan.counts.to_generate
    block = _shared_block(prepared.question)
    read = prepared.plan.todo if rows is None else rows
    found = TokenCount(block, window)
    most = EXACT_UP_TO if exact_up_to is None else exact_up_to
    if count <= most and _count(prepared, maker, found, read(), EXACT_CHARACTERS):
        return found
    found = TokenCount(block, window, is_exact=False)
    number_of = WINDOWS if windows is None else windows
    starts = sorted({round(number * max(count - WINDOW, 0) / (number_of - 1)) for number in range(number_of)})
    for start in starts:
        if start:
            found.leap()
        _sample(prepared, maker, found, read(WINDOW, start), CHARACTERS * number_of // len(starts))
    found.is_exact = not found.rows
    return found


def _shared_block(question: Question) -> int | None:
    """Tokens that prefix caching shares as a whole; None for a server, which may do as it likes."""
    model = question.spec.model
    assert model is not None
    if isinstance(question.spec.engine, ServerSpec):
        return None
    if model.options.get("enable_prefix_caching") is False:
        return 0
    return block_size(model.options, on_cpu=not find_gpus())


def filled_prompts(
    prepared: Prepared,
    rows: Iterable[tuple[bytes, dict[str, Any]]],
    maker: PromptMaker,
    unmade: dict[bytes, str] | None = None,
) -> Iterator[FilledPrompt]:
    """The prompts of these rows; none of a row that the run will make a failure of. unmade: gets those, with the reason of each."""
    for prompt_key, row in rows:
        try:
            yield maker.fill(prompt_key, prepared.query_list.source.template_values(row))
        except TemplateFault as exc:
            if unmade is not None:
                unmade[prompt_key] = f"For this row {exc}"


def _requests(prompt: Prompt) -> Iterator[tuple[int, ...]]:
    """The tokens of each request that an engine makes of a prompt."""
    if not prompt.continuations:
        yield prompt.token_ids
    for continuation in prompt.continuations:
        yield prompt.token_ids + continuation.token_ids


def _count(
    prepared: Prepared, maker: PromptMaker, found: TokenCount, rows: Iterable[tuple[bytes, dict[str, Any]]], most: int
) -> bool:
    """Adds these prompts; returns whether all of them have at most so many characters. Those beyond are left out."""
    left, waiting, size = most, list[FilledPrompt](), 0
    for filled in filled_prompts(prepared, rows, maker, found.unmade):
        left -= filled.size if filled.size <= CHARACTERS else most + 1  # which is not counted as a whole
        waiting.append(filled)
        size += filled.size
        if len(waiting) == BATCH or left < 0 or size > CHARACTERS:
            _add(maker, found, waiting)
            waiting, size = [], 0
        if left < 0:
            return False
    _add(maker, found, waiting)
    return True


def _sample(
    prepared: Prepared, maker: PromptMaker, found: TokenCount, rows: Iterable[tuple[bytes, dict[str, Any]]], most: int
) -> None:
    """Adds these prompts until they have more than so many characters, those that are long by what is looked at of them.

    That is two at least, if there are as many: one says nothing of what it shares.
    """
    waiting, left = list[FilledPrompt](), most
    for filled in filled_prompts(prepared, rows, maker, found.unmade):
        left -= min(filled.size, CHARACTERS)
        waiting.append(filled)
        if len(waiting) == BATCH or left < 0:
            _add(maker, found, waiting)
            waiting = []
        if left < 0:
            return
    _add(maker, found, waiting)


def _add(maker: PromptMaker, found: TokenCount, rows: Sequence[FilledPrompt]) -> None:
    """Adds these prompts, those that are long by their beginnings."""
    short = [filled.beginning(CHARACTERS) for filled in rows]
    for prompt, part, filled in zip(maker.prompts(short), short, rows, strict=True):
        found.add(prompt, filled.size / max(part.size, 1))


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
