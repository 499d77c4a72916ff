"""Answers of a model, read as a job would."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from batchinfer.core.records import Failure, Generation, Prediction
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.parse import Parser

KEY = b"k" * 16
INF = math.inf
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


def generation(text: str = "", logprobs: tuple[float, ...] | None = None, finish_reason: str = "stop") -> Generation:
    """What an engine hands back."""
    return Generation(KEY, text, finish_reason, prompt_tokens=9, cached_tokens=0, output_tokens=17, logprobs=logprobs)


def read(text: str, **output: Any) -> Any:
    """The value that is read from a text; the test fails if there is none."""
    result = Parser(OutputSpec.model_validate(output))(generation(text), {})
    assert isinstance(result, Prediction), result
    assert (result.score, result.scores, result.choice_mass) == (None, None, None)
    return result.value


def failed(text: str, finish_reason: str = "stop", **output: Any) -> Failure:
    """Why a text gives no prediction; the test fails if it gives one."""
    result = Parser(OutputSpec.model_validate(output))(generation(text, finish_reason=finish_reason), {})
    assert isinstance(result, Failure), result
    assert (result.prompt_key, result.stage) == (KEY, "parse")
    return result


def chosen(logprobs: tuple[float, ...] | None, finish_reason: str = "stop", **output: Any) -> Prediction | Failure:
    """What is read from the scores of as many choices as the labels a, b, c and so on."""
    labels = output.pop("choices", None) or ["a", "b", "c", "d", "e", "f"][: max(2, len(logprobs or ()))]
    parser = Parser(OutputSpec.model_validate({"type": "choice", "choices": labels, **output}))
    return parser(generation("whatever the token spells", logprobs, finish_reason), {})


LIKELIHOOD = OutputSpec(type="likelihood", text="{{ term }}")


def likelihood(logprobs: tuple[float, ...] | None) -> Prediction | Failure:
    """What is read from the score of a row's text."""
    return Parser(LIKELIHOOD)(generation("", logprobs), {})
