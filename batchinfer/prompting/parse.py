"""Generation → prediction or failure. Pure: stored texts can be parsed again with a better parser at no cost."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from batchinfer.core import keys
from batchinfer.core.limits import TookTooLong, time_limit
from batchinfer.core.records import Failure, Generation, Prediction
from batchinfer.errors import did_you_mean, shortened
from batchinfer.prompting import steps
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.schema import validator_of

MOST_LEVELS = 100  # of nesting in an answer: all that is done to one later must have room for it
SECONDS, SECONDS_PER_CHARACTER = 1.0, 1e-5  # that reading an answer may take


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """Why a value can be no prediction of the job.

    reason: as failures are stored with.
    fault: the rest of a sentence that begins with the value.
    """

    reason: str
    fault: str


class Parser:
    """Reads generations as a job's `output` section says.

    columns: those of the row that its steps look at; the template uses them, so all rows with one prompt share them.
    """

    def __init__(self, spec: OutputSpec) -> None:
        """Raises MissingExtra for a step that needs what is not installed."""
        self._spec = spec
        self._steps = [steps.function_of(step) for step in spec.steps]
        self._needs = [steps.columns_of([step]) for step in spec.steps]
        # Without those that drop what the model said: what is still empty then, the model left empty.
        self._tidying = None if spec.only_tidies else Parser(spec.model_copy(update={"steps": spec.tidying}))
        self.columns = steps.columns_of(spec.steps)
        self._schema = validator_of(spec.schema_) if spec.schema_ is not None else None
        self._pattern = re.compile(spec.pattern) if spec.pattern is not None else None

    def __call__(self, generation: Generation, row: Mapping[str, Any]) -> Prediction | Failure:
        """The prediction, or why there is none, whatever the answer is. row: the values that the template was filled with."""
        try:
            if self._spec.type == "choice":
                return self._choice(generation)
            if self._spec.type == "likelihood":
                return _likelihood(generation)
            with _time_for(generation.text):
                return Prediction(self._value(generation, row))
        except ParseFailed as exc:
            return Failure(generation.prompt_key, "parse", exc.reason, exc.detail)
        except TookTooLong:
            return Failure(generation.prompt_key, "parse", "too_slow", f"Reading the answer {TOOK_TOO_LONG}.")
        except Exception as exc:  # noqa: BLE001 - one answer must not end a run, nor each run after it
            return Failure(generation.prompt_key, "parse", "unreadable", f"The answer {_cannot_be_checked(exc)}.")

    def _choice(self, generation: Generation) -> Prediction:
        """The likeliest choice; scores are renormalised over the choices, choice_mass is what they had before.

        What was divided by a length is no probability, so there is no choice_mass then.
        """
        choices = self._spec.choices or []
        if generation.logprobs is None or len(generation.logprobs) != len(choices):
            raise ParseFailed("no_scores", "The engine returned no scores for the choices.")
        probabilities = [math.exp(logprob) for logprob in generation.logprobs]
        choice_mass = math.fsum(probabilities)
        if not choice_mass > 0 or not math.isfinite(choice_mass):
            raise ParseFailed("off_choice", "The model gave none of the choices any probability.")
        least = self._spec.min_mass
        if least is not None and choice_mass < least:
            raise ParseFailed(
                "off_choice",
                f"The choices together had a probability of {choice_mass:.4f}, under output.min_mass {least}.",
            )
        scores = {choice: part / choice_mass for choice, part in zip(choices, probabilities, strict=True)}
        best = max(choices, key=lambda choice: scores[choice])  # the first listed among equals
        return Prediction(best, scores[best], scores, min(choice_mass, 1.0) if self._spec.normalize == "none" else None)

    def _value(self, generation: Generation, row: Mapping[str, Any]) -> Any:
        value: Any = generation.text
        if generation.finish_reason == "length":
            raise ParseFailed(
                "cut_off",
                f"The answer was cut off after {generation.output_tokens} tokens: "
                "it reached sampling.max_tokens or the end of the model's window (model.options.max_model_len).",
            )
        if self._spec.type == "json":
            try:
                value = json.loads(generation.text)
                # NaN, 1e999 and half a surrogate pair can be read, but not written again.
                json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
            except (ValueError, RecursionError) as exc:
                raise ParseFailed("not_json", f"The answer is not JSON: {exc}.") from exc
            if broken := _too_deep(value):
                raise ParseFailed(broken.reason, f"The answer {broken.fault}.")
        done = value
        for step in self._steps:
            done = step(done, row)
        if broken := self._broken(done):
            if not self._is_emptied(done) or self._tidying is None:
                raise ParseFailed(broken.reason, f"The answer {broken.fault}.")
            if broken := self._tidying.broken_before(value, row):
                raise ParseFailed(broken.reason, f"The answer {broken.fault}.")
        return done

    def broken_before(self, value: Any, row: Mapping[str, Any]) -> BrokenRule | None:
        """What is wrong with an answer of which further steps dropped all items, but for these items themselves."""
        for step in self._steps:
            value = step(value, row)
        broken = self._broken(value)
        if broken is None or self._schema is None or value in ("", []) or _is_bare(value):
            return broken
        faults = self._schema.iter_errors(value)
        in_items = all(any(isinstance(part, int) for part in fault.absolute_path) for fault in faults)
        return None if in_items else broken

    def _is_emptied(self, value: Any) -> bool:
        """Whether a value is what steps that drop may leave: all of its lists empty, and nothing else wrong with it."""
        if self._tidying is None or not _is_bare(value):
            return False
        faults = [] if self._schema is None else self._schema.iter_errors(value)
        return self._pattern is None and all(fault.validator == "minItems" and fault.instance == [] for fault in faults)

    def fault_of(self, value: Any, row: Mapping[str, Any]) -> str | None:
        """Why the job could never give this value, as the rest of a sentence that begins with it; None if it could.

        row: the values that are known of it; steps that look at others are left out.
        """
        if self._spec.choices is not None:
            return None if value in self._spec.choices else self._no_choice(value)
        if self._spec.type == "likelihood":
            return None if _is_number(value) else f"is {shortened(json.dumps(value, ensure_ascii=False))}, not a number"
        if broken := _too_deep(value):
            return broken.fault
        try:
            with _time_for(value):
                return self._fault_after_steps(value, row)
        except TookTooLong:
            return f"cannot be checked: that {TOOK_TOO_LONG}"
        except Exception as exc:  # noqa: BLE001 - as with answers
            return _cannot_be_checked(exc)

    def _no_choice(self, value: Any) -> str:
        choices = self._spec.choices or []
        text = value if isinstance(value, str) else str(value)
        hint = next((f"did you mean {choice}?" for choice in choices if choice.lower() == text.strip().lower()), None)
        hint = hint or did_you_mean(text, choices)
        return f"is {shortened(text)}, not one of {', '.join(choices)}" + (f": {hint}" if hint else "")

    def _fault_after_steps(self, value: Any, row: Mapping[str, Any]) -> str | None:
        done = value
        for step, columns in zip(self._steps, self._needs, strict=True):
            if all(name in row for name in columns):
                done = step(done, row)
        if (broken := self._broken(done)) and not self._is_emptied(done):
            return broken.fault
        if done is not value and keys.canonical_json(done) != keys.canonical_json(value):
            return f"is not as output.steps leave it: they make {shortened(json.dumps(done, ensure_ascii=False))} of it"
        return None

    def _broken(self, value: Any) -> BrokenRule | None:
        """What is wrong with a value that breaks the schema or the pattern, or that is empty."""
        if self._schema is not None:
            from jsonschema import ValidationError  # slow: of use to jobs with a schema alone

            try:
                self._schema.validate(value)
            except ValidationError as exc:
                if exc.validator == "minItems" and _is_bare(value):
                    return BrokenRule("empty", "has nothing in its list")
                place = exc.json_path.removeprefix("$").lstrip(".") or "the whole"
                return BrokenRule("not_in_schema", f"breaks the schema at {place}: {exc.message[:200]}")
            except RecursionError:
                return BrokenRule("not_in_schema", "is nested too deeply for output.schema")
        if self._pattern is not None and not (isinstance(value, str) and self._pattern.fullmatch(value)):
            return BrokenRule("not_in_pattern", f"is {str(value)[:80]!r}, which does not match output.pattern")
        return BrokenRule("empty", "is empty") if value in ("", []) else None


def _likelihood(generation: Generation) -> Prediction:
    """The log-probability of the row's text: the prediction and its score."""
    if generation.logprobs is None or len(generation.logprobs) != 1 or not math.isfinite(generation.logprobs[0]):
        raise ParseFailed("no_scores", "The engine returned no score for output.text.")
    [logprob] = generation.logprobs
    return Prediction(logprob, logprob)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class ParseFailed(Exception):
    """An answer that gives no prediction."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


TOOK_TOO_LONG = "took too long: output.schema, output.pattern or a step is too complex for it"


def _time_for(value: Any) -> AbstractContextManager[None]:
    """The time that reading or checking a value may take."""
    return time_limit(
        SECONDS + SECONDS_PER_CHARACTER * len(value if isinstance(value, str) else keys.canonical_json(value))
    )


def _cannot_be_checked(exc: Exception) -> str:
    return f"cannot be checked: {shortened(str(exc) or repr(exc), 200)}"


def _too_deep(value: Any) -> BrokenRule | None:
    """What is wrong with a value that is nested too deeply."""
    level, parts = 0, [value]
    while parts := [part for part in parts if isinstance(part, dict | list)]:
        level += 1
        if level > MOST_LEVELS:
            return BrokenRule("too_deep", f"is nested more than {MOST_LEVELS} levels deep")
        parts = [part for held in parts for part in (held.values() if isinstance(held, dict) else held)]
    return None


def _is_bare(value: Any) -> bool:
    """Whether all lists of a value are empty, and it has some."""
    lists = [part for part in (value.values() if isinstance(value, dict) else [value]) if isinstance(part, list)]
    return bool(lists) and not any(lists)
