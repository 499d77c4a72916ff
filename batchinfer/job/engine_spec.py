"""The section engine of the job file: what runs the model, with fields of its own for each kind.

Nothing here changes an answer, so nothing here is part of the cache's key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from batchinfer.core.fields import Duration, NonEmpty, Section

MOST_IN_FLIGHT = 512
LOCAL = "local"  # the cluster of this machine alone
MOST_OF_PART = 50_000  # requests in a file, as OpenAI has it


class VllmSpec(Section):
    """vLLM on this machine: the engine that runs the model unless another kind is named."""

    kind: Literal["vllm"] = Field("vllm", description="vLLM on this machine's GPUs, or on its CPU.")
    replicas: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="auto: one per group of GPUs.")
    tensor_parallel: Annotated[int, Field(ge=1)] = Field(1, description="GPUs that share one copy of the model.")
    stall: Duration = Field(timedelta(minutes=10), description="An engine silent for longer is restarted.")


def _address(text: str) -> str:
    """A base URL without the slash at its end."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be the address of an API, such as http://host:8000/v1")
    if parts.username or parts.password:
        raise ValueError("must not hold a password: name the variable that holds the key in api_key_env")
    _ = parts.port  # raises ValueError for one that is none
    return text.rstrip("/")


class ServerSpec(Section):
    """What every engine has in common that is asked over the OpenAI API."""

    kind: Literal["openai", "openai_batch"] = Field(description="A server.")
    base_url: Annotated[str, AfterValidator(_address)] = Field(
        description="Where its API begins, such as http://host:8000/v1."
    )
    api_key_env: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        None, description="The environment variable that holds the key of the API."
    )
    served_model_name: NonEmpty | None = Field(
        None, description="What the server calls the model, or its adapter; `model.id` unless given."
    )
    trust_model: bool = Field(
        default=False,
        description="Whether to ask the server although it cannot be shown that it has the job's model. "
        "What another model answers would stay in the cache.",
    )
    patience: Duration = Field(
        timedelta(hours=6), description="How long a server that answers nothing is waited for until the run stops."
    )


class OpenAISpec(ServerSpec):
    """A server with an OpenAI-compatible API, that is asked row by row: vLLM's, or another one."""

    kind: Literal["openai"] = Field(description="A server with an OpenAI-compatible API.")
    in_flight: Annotated[int, Field(ge=1, le=MOST_IN_FLIGHT)] | Literal["auto"] = Field(
        "auto",
        description=f"Requests at a time at most; auto: as many as the server takes, {MOST_IN_FLIGHT} at most.",
    )
    stall: Duration = Field(timedelta(minutes=30), description="A request without an answer for so long is made again.")


class OpenAIBatchSpec(ServerSpec):
    """A server with OpenAI's batch API, which answers within a day, at half the price at several providers."""

    kind: Literal["openai_batch"] = Field(description="A server with OpenAI's batch API.")
    part: Annotated[int, Field(ge=1, le=MOST_OF_PART)] = Field(5000, description="Rows that are handed over at a time.")
    poll: Duration = Field(timedelta(minutes=1), description="How often it is asked whether a part is done.")

    def row_by_row(self) -> OpenAISpec:
        """The same server, asked at once, for who waits for a few answers."""
        shared = self.model_dump(include=set(ServerSpec.model_fields) - {"kind"})
        return OpenAISpec(kind="openai", **shared)


def fault_of_cluster(text: str, known: tuple[str, ...] = ("auto", LOCAL)) -> bool:
    """Whether a text is no address of a Ray cluster's head, and none of the known words."""
    host, _, port = text.rpartition(":")
    is_head = host and "/" not in host and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16
    return text not in known and not is_head


def _cluster(text: str) -> str:
    if fault_of_cluster(text):
        raise ValueError("must be auto, local, or host:port of the cluster's head")
    return text


class RaySpec(Section):
    """vLLM on the nodes of a Ray cluster."""

    kind: Literal["ray"] = Field(description="vLLM on the nodes of a Ray cluster.")
    address: Annotated[str, AfterValidator(_cluster)] = Field(
        description="auto: the cluster that this machine is a node of; host:port of its head; "
        "local: one of this machine alone, started for the run.",
    )
    replicas: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Engines; auto: as many as the cluster has room for when the run begins."
    )
    tensor_parallel: Annotated[int, Field(ge=1)] = Field(
        1, description="GPUs of one node that share one copy of the model."
    )
    cpus: Annotated[int, Field(ge=1)] | None = Field(
        None, description="CPU cores of an engine, on nodes without GPUs; unless given, engines run on GPUs."
    )
    wait: Duration = Field(
        timedelta(minutes=15),
        description="How long to wait for a node that has room for an engine at all: a cluster may have to start one first.",
    )
    stall: Duration = Field(timedelta(minutes=10), description="An engine silent for longer is restarted.")

    @model_validator(mode="after")
    def _either(self) -> RaySpec:
        if self.cpus is not None and self.tensor_parallel > 1:
            raise ValueError("tensor_parallel is of GPUs: leave it out beside cpus")
        return self


def _of_kind(value: Any) -> Any:
    """The section with its kind; vLLM is the one that need not be named."""
    return {"kind": "vllm", **value} if isinstance(value, Mapping) else value


EngineSpec = Annotated[
    VllmSpec | RaySpec | OpenAISpec | OpenAIBatchSpec, Field(discriminator="kind"), BeforeValidator(_of_kind)
]
