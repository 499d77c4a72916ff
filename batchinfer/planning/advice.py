"""Whether another order of a template's parts would share more of the prompts: told, never done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import SpecError
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.tokens import TokenCount, count_tokens
from batchinfer.prompting.arrangement import TemplateParts, taken_apart

LEAST_GAIN = 0.05  # of the share of prompt tokens that is saved
FEWEST, MOSTLY = 50, 0.5  # prompts to ask, and their share of the list's, for which an advice is worth reading
MOST = 1_000_000  # prompts that are put into another order for it
MOST_DISTINCT = 0.5  # values for each prompt, of a column that is worth being first


@dataclass(frozen=True, slots=True)
class OrderAdvice:
    """Another order of the template's parts.

    columns: in the order in which the parts then have them.
    template: the whole of it.
    prefix_saving: the share of prompt tokens that prefix caching would save.
    """

    columns: tuple[str, ...]
    template: str
    prefix_saving: float

    def to_json(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "template": self.template, "prefix_saving": self.prefix_saving}


def advise(prepared: Prepared, tokenizer: Tokenizer, found: TokenCount) -> OrderAdvice | None:
    """The order that begins with what fewest prompts differ in; None where it saves hardly more, or the template allows none.

    found: the prompts as they are asked now.
    """
    question, counts = prepared.question, prepared.plan.counts
    assert question is not None
    # what is cached would be asked again, too
    if not max(FEWEST, MOSTLY * counts.unique) <= counts.to_generate <= MOST:
        return None
    parts = taken_apart(question.prompt.template)
    if parts is None or not found.block or found.saving is None:
        return None
    order = _by_variety(prepared, parts)
    if order is None:
        return None
    text = parts.arranged(order)
    try:
        reordered = question.with_template(text, str(prepared.job.path))
    except SpecError:
        return None
    maker = PromptMaker(prepared.job, reordered, tokenizer)
    other = count_tokens(prepared, maker, None, rows=prepared.plan.reordered(reordered.columns))
    if other.saving is None or other.saving - found.saving < LEAST_GAIN:
        return None
    return OrderAdvice(tuple(reordered.template.columns), text, round(other.saving, 4))


def _by_variety(prepared: Prepared, parts: TemplateParts) -> list[int] | None:
    """The parts, those with the fewest different values first; None where that changes nothing that could be shared."""
    columns = [parts.columns(number) for number in range(len(parts.parts))]
    variety = [prepared.plan.variety(names) for names in columns]
    order = sorted(range(len(columns)), key=variety.__getitem__)
    moved = next((number for place, number in enumerate(order) if number != place), None)
    most = MOST_DISTINCT * prepared.plan.counts.to_generate
    return None if moved is None or variety[moved] > most else order
