"""The section model of the job file: the model that answers, or a small one and a large one for what it is not sure of."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from batchinfer.core.fields import NonEmpty, Section

OWNED_OPTIONS = {
    "model": "model.id",
    "tokenizer": "model.id",
    "revision": "model.revision",
    "dtype": "model.dtype",
    "quantization": "model.quantization",
    "enable_lora": "model.adapter",
    "tensor_parallel_size": "engine.tensor_parallel",
    "data_parallel_size": "engine.replicas",
}


class OneModelSpec(Section):
    """A model, and how an engine loads it."""

    id: NonEmpty = Field(description="A hub id, a local folder, a bundled/ model, or a server/ one.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model; resolved once and recorded.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="Precision of the weights.")
    quantization: str | None = Field(None, description="A quantisation method that vLLM knows.")
    adapter: str | None = Field(
        None, description="Folder of a LoRA adapter, below the job's folder or an allowed root."
    )
    options: dict[str, Any] = Field(
        {},
        description="Passed on to vLLM's engine as they are; a name that it does not have, or a value out of its bounds, is refused.",
    )

    @field_validator("options")
    @classmethod
    def _not_owned(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if name in OWNED_OPTIONS:
                raise ValueError(f"{name} is set by {OWNED_OPTIONS[name]}, not here")
        return options


class CascadeSpec(Section):
    """A large model that answers where the small one, which is asked first, is not sure enough.

    Nothing here changes what either of them says.
    """

    large: OneModelSpec = Field(
        description="The large model: `id`, and what else the section model says of one, such as `adapter` or `options`."
    )
    agree: float = Field(
        0.95,
        ge=0.5,
        le=0.999,
        description="How often the small model should say what the large one says, where it answers.",
    )
    confidence: float = Field(0.9, ge=0.5, le=0.999, description="How sure that promise should be.")


class ModelSpec(OneModelSpec):
    """The model that answers."""

    cascade: CascadeSpec | None = Field(
        None, description="A large model for the rows that this one is not sure of; see [cascades](cascade.md)."
    )

    @property
    def large(self) -> ModelSpec | None:
        """The cascade's large model, as a job has it that asks no other."""
        return None if self.cascade is None else ModelSpec(**self.cascade.large.model_dump())
