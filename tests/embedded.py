"""Static embeddings for tests: words of the kinds that students learn, each vector near that of its kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

KNOWN = {
    "fruit": "apple pear plum peach fig", "tool": "hammer saw drill chisel file", "place": "Ulm Bern Graz Linz Wien",
}  # fmt: skip
# in no list of the tests
OTHERS = {"fruit": ["quince", "cherry"], "tool": ["pliers", "rasp"], "place": ["Basel", "Jena"]}
WORDS = [word for kind in KNOWN for word in (*KNOWN[kind].split(), *OTHERS[kind])]
UNKNOWN = "[UNK]"
SIZE = 8  # dimensions
NEAR = 0.1  # how far words of a kind are apart, where kinds are apart by 1


def tokenizer(words: Sequence[str]) -> bytes:
    """tokenizer.json of words, after one for all that it does not know."""
    made = Tokenizer(
        WordLevel({UNKNOWN: 0} | {word: number for number, word in enumerate(words, 1)}, unk_token=UNKNOWN)
    )
    made.pre_tokenizer = Whitespace()
    return str(made.to_str()).encode()


def by_kind(word: str) -> npt.NDArray[np.float32]:
    """The vector of a word."""
    found: npt.NDArray[np.float32] = vectors()[WORDS.index(word) + 1]
    return found


def vectors() -> npt.NDArray[np.float32]:
    """(tokens, SIZE): zeros for the unknown, then each kind's own direction and a little by chance."""
    rng = np.random.default_rng(0)
    kinds = [number for number, kind in enumerate(KNOWN) for _ in (*KNOWN[kind].split(), *OTHERS[kind])]
    directions = np.eye(SIZE)[kinds]
    found = np.vstack([np.zeros((1, SIZE)), directions + NEAR * rng.normal(size=directions.shape)])
    return found.astype(np.float32)


def embeddings_in(folder: Path, arrays: Mapping[str, Any] | None = None) -> Path:
    """A folder as model2vec writes it. arrays: of its weights, in place of the vectors alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer(WORDS))
    save_file({"embeddings": vectors()} if arrays is None else dict(arrays), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"normalize": False}), encoding="utf-8")
    return folder
