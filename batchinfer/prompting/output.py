"""The output section of a job file: what an answer must look like, and what is done to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from batchinfer.core.fields import NonEmpty, Section, Share, distinct
from batchinfer.prompting.schema import check_schema, compiles


class SplitStep(Section):
    """Cuts a text into a list."""

    split: NonEmpty = Field(description="The separator.")


class DropStep(Section):
    """Drops what a pattern matches as a whole: refusals, such as *N/A*."""

    drop: Annotated[NonEmpty, AfterValidator(compiles)] = Field(description="The regular expression.")


class DropEchoStep(Section):
    """Drops what only repeats a column of the row."""

    drop_echo: NonEmpty = Field(description="The column, one that the template uses.")


class WrongScript(Section):
    """What is in a wrong script."""

    language: NonEmpty = Field(description="The column of the BCP 47 tag, one that the template uses.")
    mixed: Literal["keep", "drop"] = Field(
        "keep", description="What becomes of items that are in a right script and in a wrong one."
    )


class DropWrongScriptStep(Section):
    """Drops what is written in a script that the row's language is not written in."""

    drop_wrong_script: NonEmpty | WrongScript = Field(
        description="The column of the BCP 47 tag, one that the template uses; or language, that column, and mixed: drop."
    )

    @property
    def language(self) -> str:
        """The column of the tag."""
        return self.drop_wrong_script if isinstance(self.drop_wrong_script, str) else self.drop_wrong_script.language

    @property
    def drops_mixed(self) -> bool:
        return isinstance(self.drop_wrong_script, WrongScript) and self.drop_wrong_script.mixed == "drop"


class DedupeStep(Section):
    """Removes items that matching would take for equal."""

    dedupe: Literal["folded"] = Field(description="folded: as in matching, whatever the case, width or dashes.")


WORDS = ("strip", "casefold", "squeeze", "first_line", "dedupe", "drop_empty")
SETTINGS = ("split", "drop", "drop_echo", "drop_wrong_script", "dedupe")


def _kind_of_step(step: Any) -> str | None:
    """The kind that a step is meant to be, so that only the faults of that kind are reported."""
    if isinstance(step, str):
        return "a word" if step in WORDS else None
    fields = step if isinstance(step, dict) else type(step).model_fields if isinstance(step, Section) else ()
    return next((f"a {name}" for name in fields if name in SETTINGS), None)


TidyingStep = Annotated[
    Annotated[Literal["strip", "casefold", "squeeze", "first_line", "dedupe", "drop_empty"], Tag("a word")]
    | Annotated[SplitStep, Tag("a split")]
    | Annotated[DropStep, Tag("a drop")]
    | Annotated[DropEchoStep, Tag("a drop_echo")]
    | Annotated[DropWrongScriptStep, Tag("a drop_wrong_script")]
    | Annotated[DedupeStep, Tag("a dedupe")],
    Discriminator(
        _kind_of_step,
        custom_error_type="step",
        custom_error_message=f"is not a step; there are {', '.join(WORDS)}, {', '.join(f'{{{name}: …}}' for name in SETTINGS)}",
    ),
]

MOST_CHOICES = 128  # vLLM's MAX_LOGPROB_TOKEN_IDS: so many tokens can be scored at once


class OutputSpec(Section):
    """The form of an answer. The engine is made to obey type, schema, choices and pattern."""

    type: Literal["text", "choice", "regex", "json", "likelihood"] = "text"
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="JSON Schema, with type: json.")
    choices: Annotated[list[str], Field(min_length=2), AfterValidator(distinct)] | None = Field(
        None, description=f"The labels, with type: choice, at most {MOST_CHOICES}. Each gets a score."
    )
    pattern: Annotated[str, AfterValidator(compiles)] | None = Field(
        None, description="Regular expression of the whole answer, with type: regex."
    )
    steps: list[TidyingStep] = Field(
        [], description="Applied to the answer, in this order: strip, casefold, squeeze, split, …"
    )
    text: str | None = Field(
        None,
        description="With type: likelihood, the text that is scored as what follows the prompt. Jinja2, as prompt.template.",
    )
    normalize: Literal["none", "tokens", "characters"] = Field(
        "none",
        description="With choices, which are then scored whole, or a likelihood: divide log-probabilities by the length in this.",
    )
    prior: Literal["none", "list"] = Field(
        "none",
        description="With choices, list: divide a choice's scores by the mean of its scores over the list, when they are read.",
    )
    min_mass: Share | None = Field(None, description="With choices: a row fails if all together have less probability.")

    @model_validator(mode="after")
    def _fits_type(self) -> OutputSpec:
        needs = {"json": "schema", "choice": "choices", "regex": "pattern", "likelihood": "text"}
        forms = {"schema": self.schema_, "choices": self.choices, "pattern": self.pattern, "text": self.text}
        for kind, name in needs.items():
            if self.type == kind and forms[name] is None:
                raise ValueError(f"type: {kind} needs {name}")
            if self.type != kind and forms[name] is not None:
                raise ValueError(f"{name} belongs to type: {kind}, but type is {self.type}")
        if self.type != "choice" and self.min_mass is not None:
            raise ValueError("min_mass belongs to type: choice")
        if self.type != "choice" and self.prior != "none":
            raise ValueError("prior belongs to type: choice")
        if not self.is_scored and self.normalize != "none":
            raise ValueError("normalize belongs to type: choice and type: likelihood")
        if self.normalize != "none" and self.min_mass is not None:
            raise ValueError("min_mass needs normalize: none, since what is divided by a length is no probability")
        if self.type == "choice" and self.steps:
            raise ValueError("steps do not apply to a choice: the answer is one of the choices as they stand")
        if self.type == "likelihood" and self.steps:
            raise ValueError("steps do not apply to a likelihood: it is a number")
        return self

    @property
    def constraint(self) -> tuple[str, Any] | None:
        """What the engine holds an answer to while it is written: ("json", schema), ("regex", pattern) or None."""
        if self.type == "json":
            return "json", self.schema_
        return ("regex", self.pattern) if self.pattern else None

    @field_validator("choices")
    @classmethod
    def _no_blank_choice(cls, choices: list[str] | None) -> list[str] | None:
        if any(choice.strip() != choice or not choice for choice in choices or ()):
            raise ValueError("a choice must not be empty, nor begin or end with a space")
        if choices is not None and len(choices) > MOST_CHOICES:
            raise ValueError(f"has {len(choices)} choices, but at most {MOST_CHOICES} can be scored at once")
        return choices

    @field_validator("schema_")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            check_schema(schema)
        return schema

    @property
    def is_scored(self) -> bool:
        """Whether the model only says how likely texts are, and generates none."""
        return self.type in ("choice", "likelihood")

    @property
    def is_json(self) -> bool:
        """Whether predictions are JSON values rather than plain strings."""
        return self.type in ("json", "likelihood") or self.splits

    @property
    def splits(self) -> bool:
        """Whether a step makes a list of a text."""
        return any(isinstance(step, SplitStep) for step in self.steps)

    @property
    def tidying(self) -> list[TidyingStep]:
        """The steps that drop nothing of what the model said."""
        return [step for step in self.steps if not isinstance(step, DropStep | DropEchoStep | DropWrongScriptStep)]

    @property
    def only_tidies(self) -> bool:
        """Whether no step drops anything of what the model said."""
        return len(self.tidying) == len(self.steps)

    @property
    def kind(self) -> Literal["json", "string"]:
        """The word for its predictions in a manifest."""
        return "json" if self.is_json else "string"
