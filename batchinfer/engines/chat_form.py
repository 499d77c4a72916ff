"""How a server that takes no tokens takes chat turns, found by a few requests of one turn."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from batchinfer.engines.dialects import BEYOND_OPENAI
from batchinfer.engines.server_api import Away, Broken, Refused, ServerApi
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import ModelError

SECONDS = 60.0  # that a server may take for one answer of the check
PROBE, TOKENS = "Say yes.", 16  # the limit of its answer, within which most models come to an end
UNFINISHED = "output limit was reached"  # what OpenAI says where a model only thought until then: it took the request
# names of the limit of an answer's tokens: what all know, and OpenAI's later one
LONGEST = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class ChatForm:
    """How a server takes chat turns.

    longest: what it calls the limit of an answer's tokens.
    takes_all: whether it takes sampling that OpenAI's API lacks.
    tokens: of the probe, as it counted them; None if it does not tell.
    """

    longest: str = LONGEST[0]
    takes_all: bool = False
    tokens: int | None = None


def find_chat_form(api: ServerApi, name: str) -> ChatForm:
    """How a server takes chat turns, found by probes of one turn. Raises ModelError where it answers none, and Away."""
    refusal = ""
    for longest, more in itertools.product(LONGEST, (BEYOND_OPENAI, {})):
        content = {"model": name, "messages": [{"role": "user", "content": PROBE}], longest: TOKENS, **more}
        try:
            usage = api.post("/chat/completions", content, seconds=SECONDS).get("usage") or {}
            tokens = usage.get("prompt_tokens")
            return ChatForm(longest, bool(more), tokens if isinstance(tokens, int) else None)
        except Refused as exc:
            if UNFINISHED in exc.said:
                return ChatForm(longest, bool(more))
            refusal = refusal if more or refusal else exc.said  # the plainest request's
        except Broken as exc:
            raise as_away(exc) from exc
        except AttributeError as exc:
            refusal = f"its answer is none ({type(exc).__name__})"
            break
    raise ModelError(f"The server at {api.base_url} lists models, but takes no chat: {refusal}.", field=("engine",))


def chat_unshown(chat: ChatForm, tokenizer: Tokenizer) -> list[str]:
    """What chat turns leave open: how they are written, and the sampling that is left to the server."""
    unshown = []
    if not chat.takes_all:
        unshown.append(f"its own {', '.join(BEYOND_OPENAI)}, which it does not take from the job")
    if tokenizer.is_known:
        own = _own_count(tokenizer)
        if chat.tokens is None or own is None:
            unshown.append("its chat template")
        elif chat.tokens != own:
            unshown.append(
                f"its chat template, which makes {chat.tokens:,} tokens of a turn where the model's makes {own:,}"
            )
    return unshown


def _own_count(tokenizer: Tokenizer) -> int | None:
    """The tokens of the probe by the model's own chat template; None if it has none that takes the turn."""
    try:
        [ids] = tokenizer.encode([tokenizer.text([("user", PROBE)])], chat=True)
    except ModelError:
        return None
    return len(ids)


def as_away(fault: Broken) -> Away:
    """A look that went wrong: it is taken again later, unless what came is no JSON at all, which no such API sends."""
    return Away(fault.said, is_other=isinstance(fault.__cause__, ValueError))
