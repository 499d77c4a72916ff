"""The tokenizer of a model that only its server has: pieces of texts of about a token's length, to count and to compare by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PREFIX = "server/"  # how the id of such a model begins in a job file
CHARACTERS = 4  # of a token, as English texts have them


class UnknownTokens:
    """What `Tokenizer` uses of a tokenizer of transformers. A piece's number spells it, so that none need be remembered."""

    chat_template = ""  # the server's own
    eos_token_id = 0

    def __call__(self, texts: Sequence[str], **_options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[_number(piece) for piece in _pieces(text)] for text in texts]}

    def apply_chat_template(self, turns: Sequence[dict[str, Any]], **_options: Any) -> str:
        """The turns, as people would read them."""
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns) + "\n"

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these pieces."""
        return b"".join(number.to_bytes((number.bit_length() + 7) // 8) for number in token_ids).decode()


def _pieces(text: str) -> list[str]:
    return [text[start : start + CHARACTERS] for start in range(0, len(text), CHARACTERS)]


def _number(piece: str) -> int:
    return int.from_bytes(piece.encode(errors="replace"))
