"""Static embeddings, a vector for each token, from a folder as model2vec writes it, or of the package wordllama."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batchinfer.errors import InputError, MissingExtra
from batchinfer.student.student import PAIR

FIELD = ("student", "embeddings")
TOKENIZER, WEIGHTS = "tokenizer.json", "model.safetensors"
WORDLLAMA = ("tokenizers/l2_supercat_tokenizer_config.json", "weights/l2_supercat_256.safetensors")
VECTORS = ("embeddings", "embedding.weight")  # names of the array, by who wrote it
MOST_TOKENS = 1 << 20
MOST_BITS = 21  # of all weights of a student: 8 MB in memory


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """A vector for each token.

    tokenizer: tokenizer.json.
    vectors: (tokens, dimensions).
    """

    tokenizer: bytes
    vectors: npt.NDArray[np.float32]


def need_embedding_libraries() -> None:
    """Raises MissingExtra."""
    try:
        import safetensors  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("tokenizers or safetensors, which a student of kind model2vec needs,", "model2vec") from exc


def read_embeddings(folder: Path | None) -> Embeddings:
    """folder: None for those that come with the package wordllama. Raises InputError or MissingExtra."""
    need_embedding_libraries()
    if folder is not None:
        return _read(folder / TOKENIZER, folder / WEIGHTS)
    found = importlib.util.find_spec("wordllama")  # which is not imported: its files are all that is wanted
    if found is None or found.origin is None:
        raise MissingExtra(
            "wordllama, whose embeddings a student of kind model2vec takes without student.embeddings,", "wordllama"
        )
    place = Path(found.origin).parent
    return _read(*(place / name for name in WORDLLAMA))


def most_choices(embeddings: Embeddings) -> int:
    """How many choices a student of them may have, so that its weights stay within bounds."""
    return max(PAIR, (1 << MOST_BITS) // len(embeddings.vectors))


def _read(tokenizer: Path, weights: Path) -> Embeddings:
    from safetensors import SafetensorError

    try:
        content = tokenizer.read_bytes()
        return Embeddings(content, _fitting(content, _vectors(weights)))
    except (OSError, SafetensorError) as exc:
        why = getattr(exc, "strerror", None) or str(exc).splitlines()[0]
        raise InputError(f"The embeddings {weights.parent} cannot be read: {why}.", field=FIELD) from exc
    except (ValueError, KeyError, TypeError, IndexError) as exc:
        said = f"{weights.parent} has no static embeddings as model2vec writes them: {exc}."
        raise InputError(said, field=FIELD) from exc


def _vectors(weights: Path) -> npt.NDArray[np.float32]:
    """The file's vectors by token. Raises ValueError or IndexError."""
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as arrays:
        names = set(arrays.keys())
        name = next((each for each in VECTORS if each in names), None)
        if name is None:
            raise ValueError(f"{weights.name} has no array {' or '.join(VECTORS)}")
        found: dict[str, Any] = {each: arrays.get_tensor(each) for each in names & {name, "mapping", "weights"}}
    return _by_token(found[name], found.get("mapping"), found.get("weights"))


def _fitting(tokenizer: bytes, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vectors, if there is one for each token; ValueError if not."""
    from batchinfer.student.tokens import Tokens

    if (count := Tokens(tokenizer).count) != len(vectors):
        raise ValueError(f"the tokenizer has {count:,} tokens, and there are {len(vectors):,} vectors")
    return vectors


def _by_token(vectors: Any, mapping: Any, weights: Any) -> npt.NDArray[np.float32]:
    """A vector for each token, where some share one (mapping), or count more (weights). Raises ValueError or IndexError."""
    if vectors.ndim != 2 or not vectors.size or len(vectors) > MOST_TOKENS:  # noqa: PLR2004 - tokens and dimensions
        raise ValueError("its vectors are no table of tokens and dimensions")
    whole = vectors.astype(np.float32)
    if mapping is not None:
        whole = whole[mapping.astype(np.intp)]
    if weights is not None:
        whole = whole * weights.astype(np.float32).reshape(-1, 1)
    if not np.isfinite(whole).all():
        raise ValueError("a vector has what is no number")
    return np.ascontiguousarray(whole)
