"""The window of a model by its own files: how many tokens a prompt and its answer may have together, as vLLM works it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchinfer.engines.environment import without_torch
from batchinfer.engines.unknown_tokens import PREFIX

KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_sequence_length",
    "max_seq_length", "seq_len",
)  # fmt: skip
# their keys say the whole window
SCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def window_of(options: Mapping[str, Any], source: str, revision: str | None) -> int | None:
    """What model.options.max_model_len sets, else what the model's config.json says; None where neither does.

    options: of the model. source, revision: where its files are. Loads transformers, as the tokenizer does.
    """
    most = options.get("max_model_len")
    if isinstance(most, int) and most > 0:
        return most
    if most not in (None, -1) or source.startswith(PREFIX):
        return None
    return _own_window(source, revision)


def _own_window(source: str, revision: str | None) -> int | None:
    with without_torch():
        from transformers import PretrainedConfig

        try:
            config, _ = PretrainedConfig.get_config_dict(source, revision=revision)
        except (OSError, ValueError):  # the engine says so, if it needs it
            return None
    return config_window(config)


def config_window(config: Mapping[str, Any]) -> int | None:
    """The same by the content of config.json: the smallest that it names, as far as its rotary embeddings stretch it."""
    text = config.get("text_config") or config
    named = [text[key] for key in KEYS if isinstance(text.get(key), int)]
    if not named:
        return None
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind, factor = rope.get("rope_type") or rope.get("type"), rope.get("factor")
    if kind == "longrope" and isinstance(text.get("original_max_position_embeddings"), int):
        return int(text["original_max_position_embeddings"])
    stretched = isinstance(factor, int | float) and kind not in SCALED and "gemma3" not in str(config.get("model_type"))
    return int(min(named) * (factor if stretched else 1))
