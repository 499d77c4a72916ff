"""Whether a server holds its answers to a form: one that ignores the wish would be paid for a list that nobody can read.

One answer is asked for, and an answer is drawn: only one that plainly has nothing of the form says that the wish is ignored.
Whatever else comes of it, as a limit or a parameter that the server does not take of the probe, leaves that open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchinfer.core.records import Generation, Prompt
from batchinfer.engines.chat_form import SECONDS
from batchinfer.engines.dialects import Dialect
from batchinfer.engines.protocol import Task
from batchinfer.engines.server_api import Away, Broken, Forbidden, Refused, ServerApi
from batchinfer.errors import ModelError, shortened

ASKED, TOKENS = "Say hello.", 64  # nobody answers that with what the forms below have
WORD, PATTERN = "kiwi-7", "kiwi-[0-9]{3}"
SCHEMA = {
    "type": "object", "properties": {"word": {"type": "string", "enum": [WORD]}}, "required": ["word"],
    "additionalProperties": False,
}  # fmt: skip
NAMES = {"json": "schema", "regex": "pattern"}  # of the fields of output
OPEN = "that it holds its answers to a form"


@dataclass(frozen=True, slots=True)
class Held:
    """What a probe of the form came to.

    checked: that it holds answers to it, a sentence; nothing where that is open, or no form is asked for.
    unshown: what is open, a phrase.
    """

    checked: tuple[str, ...] = ()
    unshown: tuple[str, ...] = ()


def probe_task(kind: str, sampling: Mapping[str, Any]) -> Task:
    """What the server is asked to hold one answer to. kind: of the job's own constraint.

    sampling: the job's own, since a server may take no other; but for what ends an answer, which would end this one before its form.
    """
    return Task({**sampling, "max_tokens": TOKENS, "stop": []}, (kind, SCHEMA if kind == "json" else PATTERN))


def find_held(api: ServerApi, dialect: Dialect, kind: str, token_ids: tuple[int, ...]) -> Held:
    """Asks for one answer of such a form. dialect: of `probe_task`. token_ids: of ASKED, for servers that take tokens.

    Raises ModelError where the server ignores the form, NoEntry where it takes no key, and Away where it takes nothing now.
    """
    prompt, field = Prompt(bytes(16), (("user", ASKED),), token_ids), f"output.{NAMES[kind]}"
    try:
        answer = dialect.read(prompt, api.post(dialect.path, dialect.body(prompt), seconds=SECONDS))
    except (Away, Broken, Refused, Forbidden) as exc:
        if isinstance(exc, Away) and not exc.is_other:
            raise
        return Held(unshown=(f"{OPEN}, since a probe of that was not answered ({exc.said})",))
    has_form = _has_form(kind, answer) if isinstance(answer, Generation) else None
    if has_form is None:
        return Held(unshown=(OPEN,))
    if not has_form:
        assert isinstance(answer, Generation)
        raise ModelError(
            f"The server at {api.base_url} does not hold its answers to {field}: a probe of one came back as "
            f"{shortened(answer.text)!r}. Ask a server that does, such as vLLM's own, or take {field} out of the job.",
            field=("engine",),
        )
    return Held((f"It holds an answer to what {field} asks for.",))


def _has_form(kind: str, answer: Generation) -> bool | None:
    """Whether an answer has the form, or nothing of it; None where it tells neither.

    So where it is at its limit, perhaps within its thoughts, or has the form beside something else, or is another object.
    """
    text, is_cut = answer.text.strip(), answer.finish_reason == "length"
    if kind == "regex":
        has, has_some = bool(re.fullmatch(PATTERN, text)), bool(re.search(PATTERN, text))
    else:
        content = _content(text)
        has = bool(content == {"word": WORD}) or (is_cut and text.startswith("{"))  # one that is full of blanks
        has_some = isinstance(content, dict) or WORD in text
    if has:
        return True
    return None if is_cut or has_some or not text else False


def _content(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
