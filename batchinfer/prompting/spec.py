"""The sections prompt and sampling of a job file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
)

from batchinfer.core.fields import NonEmpty, Section, Share

OWNED_ARGUMENTS = frozenset({
    "tokenize", "add_generation_prompt", "conversation", "messages", "chat_template", "return_tensors", "return_dict",
})  # fmt: skip


class Example(Section):
    """One worked example for few-shot prompts."""

    input: dict[str, Any] = Field(description="A value for each column that the template uses.")
    output: str = Field(description="The right answer, as the model should write it.")


class PromptSpec(Section):
    """The question that is made of a row."""

    format: Literal["chat", "completion"] = Field("chat", description="Chat turns, or one text to be continued.")
    system: str | None = Field(None, description="The system prompt, ahead of all questions.")
    template: str = Field(description='Jinja2; the columns of the query list are its variables, or row["Any Name"].')
    examples: list[Example] | str = Field(
        [], description="Inline, or a Parquet file with the columns input and output."
    )
    shots: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        "all", description="How many of the examples are in the prompt: the first so many, or all."
    )
    chat_template_kwargs: dict[str, Any] = Field({}, description="Passed to the model's chat template.")

    @field_validator("chat_template_kwargs")
    @classmethod
    def _not_owned(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if owned := [name for name in arguments if name in OWNED_ARGUMENTS]:
            raise ValueError(f"{', '.join(owned)} cannot be set: the call of the chat template sets it itself")
        return arguments


class SamplingSpec(Section):
    """Sampling of tokens. The names and meanings are vLLM's."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 128
    seed: int | None = 0
    stop: list[NonEmpty] = Field([])
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Share = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
