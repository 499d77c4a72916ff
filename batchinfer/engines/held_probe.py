"""Whether a server holds its answers to a form: one that ignores the wish would be paid for a list that nobody can read."""

from __future__ import annotations

import json
import re

from batchinfer.core.records import Generation, Prompt
from batchinfer.engines.chat_form import SECONDS, as_away
from batchinfer.engines.dialects import Dialect
from batchinfer.engines.protocol import Task
from batchinfer.engines.server_api import Broken, Refused, ServerApi
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import ModelError, shortened

ASKED, TOKENS = "Say hello.", 64  # nobody answers that with what the forms below have
WORD, PATTERN = "kiwi-7", "kiwi-[0-9]{3}"
SCHEMA = {
    "type": "object", "properties": {"word": {"type": "string", "enum": [WORD]}}, "required": ["word"],
    "additionalProperties": False,
}  # fmt: skip
NAMES = {"json": "schema", "regex": "pattern"}  # of the fields of output


def probe_task(kind: str) -> Task:
    """What the server is asked to hold one answer to. kind: of the job's own constraint."""
    return Task({"temperature": 0.0, "max_tokens": TOKENS}, (kind, SCHEMA if kind == "json" else PATTERN))


def check_held(api: ServerApi, dialect: Dialect, kind: str, tokenizer: Tokenizer) -> str | None:
    """Asks for one answer of such a form; a sentence if it has it, and None where nobody can tell, as it wrote none.

    dialect: of `probe_task`. Raises ModelError where the server ignores or refuses the form, and Away.
    """
    [ids] = tokenizer.encode([ASKED], chat=False)
    prompt, field = Prompt(bytes(16), (("user", ASKED),), tuple(ids)), f"output.{NAMES[kind]}"
    try:
        answer = dialect.read(prompt, api.post(dialect.path, dialect.body(prompt), seconds=SECONDS))
    except Broken as exc:
        raise as_away(exc) from exc
    except Refused as exc:
        said = f"The server at {api.base_url} refuses to hold an answer to {field}: {exc.said}."
        raise ModelError(said, field=("engine",)) from exc
    if not isinstance(answer, Generation) or not answer.text.strip():
        return None
    if not _has_form(kind, answer):
        raise ModelError(
            f"The server at {api.base_url} does not hold its answers to {field}: a probe of one came back as "
            f"{shortened(answer.text)!r}. Ask a server that does, such as vLLM's own, or take {field} out of the job.",
            field=("engine",),
        )
    return f"It holds an answer to what {field} asks for."


def _has_form(kind: str, answer: Generation) -> bool:
    """Whether an answer has the form, or begins with it where it is at its limit, as one that is full of blanks."""
    if kind == "regex":
        return re.fullmatch(PATTERN, answer.text) is not None
    if answer.finish_reason == "length":
        return answer.text.lstrip().startswith("{")
    try:
        return bool(json.loads(answer.text) == {"word": WORD})
    except ValueError:
        return False
