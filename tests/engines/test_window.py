"""The window of a model, by its job's options or its own files."""

from __future__ import annotations

from typing import Any

import pytest

from batchinfer.engines.window import config_window, window_of


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"max_position_embeddings": 8192, "seq_length": 2048}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 4096}, "max_position_embeddings": 1}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope"},
            },
            4096,
        ),
        ({"model_type": "gemma3_text", "max_position_embeddings": 32768, "rope_parameters": {"factor": 8.0}}, 32768),
        ({"vocab_size": 7}, None),
    ],
)
def test_the_window_that_a_config_names(config: dict[str, Any], window: int | None) -> None:
    """The smallest that is named, stretched as the engine stretches it."""
    assert config_window(config) == window


@pytest.mark.parametrize(("most", "window"), [(512, 512), ("8k", None)])
def test_what_the_job_sets_comes_first(most: object, window: int | None) -> None:
    """A number is taken as it is; what only the engine can read is not known here. No file is looked at."""
    assert window_of({"max_model_len": most}, "/nowhere", None) == window
