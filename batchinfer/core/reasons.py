"""Why rows have no prediction, and the fix of each: the one list of reasons, for all who tell people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CONTEXT = "model.options.max_model_len"
UNKNOWN = "see what happened to each row"
ALL_AGAIN = "(this regenerates every answer)"  # said of a setting that is in the key

# What to change, in the imperative, by the word that failures are stored with.
FIXES: Mapping[str, str] = {
    # rows of the list
    "null_key": "fill the columns of input.key in the list",
    "empty_key": "fill the columns of input.key in the list",
    "null_value": "fill the column in the list, or name it in input.optional",
    "empty_value": "fill the column in the list, or name it in input.optional",
    "too_long": "shorten these texts, or leave their rows out of the list",
    "not_utf8": "write the list as UTF-8",
    "wrong_type": "correct the values in the list, or input.types",
    "conflicting_rows": "keep one row a key, or add to input.key the column that tells them apart",
    # the engine
    "prompt_too_long": f"shorten the row, or shorten prompt.template or raise {CONTEXT} {ALL_AGAIN}",
    "template": f"correct prompt.template {ALL_AGAIN}",
    "refused": f"correct the row, or change prompt.template or model.options as the engine says {ALL_AGAIN}",
    "engine_died": "try again; if it happens again, lower model.options.max_num_seqs",
    "engine_error": "try again",
    "other_tokens": "let engine.base_url name vLLM's own server, without anything in between that changes prompts",
    "score_missing": f"ask a vLLM server, or take output.choices that are likelier as answers {ALL_AGAIN}",
    # answers
    "cut_off": f"raise sampling.max_tokens or {CONTEXT} {ALL_AGAIN}",
    "empty": f"remove steps from output.steps, or ask for an answer in prompt.template {ALL_AGAIN}",
    "not_json": f"give output.schema, or ask for JSON in prompt.template {ALL_AGAIN}",
    "not_in_schema": f"correct output.schema, or show the form in prompt.examples {ALL_AGAIN}",
    "not_in_pattern": f"correct output.pattern, or show the form in prompt.examples {ALL_AGAIN}",
    "too_deep": f"limit the depth in output.schema, or show the form in prompt.examples {ALL_AGAIN}",
    "too_slow": f"simplify the patterns in output.steps, or those in output.pattern and output.schema {ALL_AGAIN}",
    "unreadable": f"correct output.schema, or show the form in prompt.examples {ALL_AGAIN}",
    "off_choice": f"lower output.min_mass, or name the choices in prompt.template {ALL_AGAIN}",
    "no_scores": "try again",
}
PASSING = frozenset({"engine_died", "engine_error", "no_scores"})  # the same prompt may do better next time


@dataclass(frozen=True, slots=True)
class FailureReason:
    """How often something is the reason.

    reason: the word that failures are stored with.
    count: of rows and prompts.
    """

    reason: str
    count: int

    @property
    def fix(self) -> str:
        """What to do about it."""
        return FIXES.get(self.reason, UNKNOWN)

    @property
    def may_pass(self) -> bool:
        """Whether trying again may help although nothing was changed."""
        return self.reason in PASSING


def ranked(counts: Mapping[str, int]) -> tuple[FailureReason, ...]:
    """The reasons, most frequent first."""
    return tuple(FailureReason(*pair) for pair in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def advice(job: str, reasons: tuple[FailureReason, ...]) -> str:
    """What to do about the most frequent of at least one reason, as a sentence."""
    first, total = reasons[0], sum(reason.count for reason in reasons)
    share = f"all {total:,}" if first.count == total else f"{first.count:,} of {total:,}"
    which = f"The reason is {first.reason}" if total == 1 else f"Most often {first.reason} ({share})"
    return f"{which}: {first.fix}; batchinfer failures {job} shows the rows."
