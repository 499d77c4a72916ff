"""What could change an answer, and nothing else: what every key of the cache begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from batchinfer.core.keys import canonical_json, short

# Settings that cannot change an answer. All others do, by default: a new setting changes the key where it is set.
NOT_IN_KEY = frozenset({
    "audit",
    "name", "description", "input", "engine", "on_failure", "on_errors", "cache", "gate", "match", "serve", "schedule", "keep_versions",
    "alerts", "eval", "calibrate", "student", "finetune", "cost",
})  # fmt: skip

OUTPUT_NOT_IN_KEY = frozenset({"steps", "min_mass", "prior"})  # how an answer is read, not what it is

# What names a model resolves to an identity, which is in the key; a cascade says which model is asked, not what it says.
MODEL_NOT_IN_KEY = frozenset({"id", "revision", "adapter", "cascade"})

OPTIONS_NOT_IN_KEY = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes", "block_size", "swap_space",
    "cpu_offload_gb", "enforce_eager", "enable_prefix_caching", "enable_chunked_prefill", "disable_log_stats",
    "download_dir", "pipeline_parallel_size", "distributed_executor_backend", "max_parallel_loading_workers",
})  # fmt: skip

PARSER = "4"  # raise it when parse.py reads the same text differently


def answer_parts(
    spec: Mapping[str, Any], examples: Iterable[tuple[Mapping[str, Any], str]], model: str, adapter: str | None
) -> dict[str, Any]:
    """All that can change an answer, but for the row: what the fingerprint is made of.

    spec: the job file as plain values, those at their defaults left out. examples: those that are shown, in order.
    model, adapter: what identifies their weights.
    """
    parts = {name: value for name, value in spec.items() if name not in NOT_IN_KEY}
    output = spec.get("output", {})
    parts["output"] = {name: value for name, value in output.items() if name not in OUTPUT_NOT_IN_KEY}
    prompt = {name: value for name, value in spec["prompt"].items() if name != "shots"}
    parts["prompt"] = prompt | {"examples": [[dict(row), output] for row, output in examples]}
    written = {name: value for name, value in spec["model"].items() if name not in MODEL_NOT_IN_KEY}
    options = {name: value for name, value in written.get("options", {}).items() if is_option_in_key(name, value)}
    parts["model"] = written | {"identity": model, "adapter": adapter, "options": options}
    parts.setdefault("sampling", {})
    if (scoring := _scoring(output)) is not None:
        parts |= {"sampling": None, "scoring": scoring}  # of the raw distribution: nothing is drawn
    return parts


def is_option_in_key(name: str, value: Any) -> bool:
    """Whether an engine option could change an answer.

    Speculation by n-grams of the prompt cannot: each token is the model's own, only found sooner. A draft model could.
    """
    if name == "speculative_config":
        return not (isinstance(value, Mapping) and value.get("method") == "ngram")
    return name not in OPTIONS_NOT_IN_KEY


def model_settings(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of the model in `answer_parts` beside its identity, as places in its section."""
    model = parts["model"]
    named = [name for name in model if name not in ("identity", "adapter", "options")]
    return (*named, *(f"options.{name}" for name in model["options"]))


def _scoring(output: Mapping[str, Any]) -> str | None:
    """The method by which texts are scored; None where answers are generated.

    With first-token whole choices are scored where first tokens collide: that follows from the choices and the model's
    tokenizer, which are in the key themselves.
    """
    if output.get("type") == "likelihood":
        return "likelihood"
    if output.get("type") == "choice":
        return "first-token" if output.get("normalize", "none") == "none" else "whole-choices"
    return None


def fingerprint(parts: Mapping[str, Any]) -> bytes:
    """16 bytes that stand for `answer_parts`."""
    return short(canonical_json(parts).encode())


def parser_fingerprint(output: Mapping[str, Any]) -> str:
    """Stands for how answers are read: when it changes, stored texts are read again without asking the model.

    output: that section as plain values, those at their defaults left out.
    """
    return short(f"{PARSER}:{canonical_json(output)}".encode()).hex()


def changes(before: Any, after: Any, place: str = "") -> list[str]:
    """The dotted places at which two `answer_parts` differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted(before.keys() | after.keys())
        return [
            change
            for name in names
            for change in changes(before.get(name), after.get(name), f"{place}.{name}" if place else name)
        ]
    return [] if canonical_json(before) == canonical_json(after) else [place]
