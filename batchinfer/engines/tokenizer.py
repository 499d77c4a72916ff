"""The model's tokenizer: messages → token ids, and texts as the model would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchinfer.core.records import TEXT, Message
from batchinfer.engines.environment import without_torch
from batchinfer.engines.models import why_unloaded
from batchinfer.engines.unknown_tokens import PREFIX, UnknownTokens
from batchinfer.errors import MissingExtra, ModelError

SLICE = 32_768  # characters
CHARACTERS_PER_TOKEN = 8  # more than texts have, as a rule
AT_CUTS = 16  # tokens that a text may have more if it is cut in two


def _turns(messages: Sequence[Message], *, in_parts: bool) -> list[dict[str, Any]]:
    """Chat turns as a template takes them."""
    return [
        {"role": role, "content": [{"type": "text", "text": content}] if in_parts else content}
        for role, content in messages
    ]


def _lost(roles: Sequence[str], number: int) -> str:
    """What to say of a template that writes nothing of one of the turns."""
    if roles[number] == "system":
        return "The model's chat template leaves prompt.system out: put it into prompt.template instead."
    if number < len(roles) - 1:
        return (
            "The model's chat template leaves examples out: write them into prompt.template instead of prompt.examples."
        )
    return (
        "The model's chat template leaves the row's text out, so all rows would ask the same: take another model, or set "
        "prompt.format to completion."
    )


def _loaded(source: str, revision: str | None) -> Any:
    """A tokenizer of transformers."""
    with without_torch():
        try:
            from transformers import AutoTokenizer
        except ImportError as exc:
            raise MissingExtra("transformers, with which a tokenizer is loaded,") from exc
        try:
            return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        except Exception as exc:
            # Whatever its files hold: of a damaged config.json nobody knows what is raised.
            raise ModelError(f"The tokenizer of {source} cannot be loaded: {why_unloaded(exc)}") from exc


class Tokenizer:
    """Loaded from where the engine loads the model; slow to make (a second or two: it imports transformers).

    is_known: whether it is the model's; of a model that only its server has, tokens are guessed.
    """

    def __init__(self, source: str, revision: str | None, chat_template_kwargs: dict[str, Any]) -> None:
        """Raises MissingExtra or ModelError."""
        self.is_known = not source.startswith(PREFIX)
        self._tokenizer: Any = _loaded(source, revision) if self.is_known else UnknownTokens()
        self._kwargs = chat_template_kwargs
        self._in_parts = False

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt as one text, as the model will see it. Raises ModelError."""
        if messages[0][0] == TEXT:
            return messages[0][1]
        return self._render(_turns(messages, in_parts=self._in_parts), self._kwargs)

    def check_holds(self, roles: Sequence[str]) -> None:
        """Finds the form of turns with these roles, of which the prompt has all texts. Raises ModelError if there is none.

        Many templates of vision models take a list of parts, and write nothing of a plain text.
        """
        probes = [(role, f"batchinfer-probe-{number}-") for number, role in enumerate(roles)]
        problem = None
        for in_parts in (False, True):
            try:
                text = self._render(_turns(probes, in_parts=in_parts), self._kwargs)
            except (ModelError, TypeError) as exc:
                problem = problem or exc
                continue
            lost = [number for number, (_, probe) in enumerate(probes) if probe not in text]
            if not lost:
                self._in_parts = in_parts
                return
            problem = problem or ModelError(_lost(roles, lost[0]))
        raise problem if isinstance(problem, ModelError) else ModelError(f"The model's chat template fails: {problem}.")

    def _render(self, turns: list[dict[str, Any]], kwargs: dict[str, Any], *, answered: bool = False) -> str:
        """answered: whether the last turn is the model's answer, rather than the question that it is to answer."""
        if self._tokenizer.chat_template is None:
            raise ModelError(
                "The model has no chat template: set prompt.format to completion, or take an instruct model."
            )
        from jinja2.exceptions import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not answered, **kwargs)
            )
        except TemplateError as exc:
            raise ModelError(f"The model's chat template refuses the prompt: {exc}.") from exc

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[list[int]]:
        """Token ids of each text. A chat template writes its special tokens itself; plain text gets the model's."""
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=not chat)["input_ids"]
        return ids

    def turn_ids(self, text: str, kwargs: dict[str, Any]) -> list[int]:
        """Token ids of a prompt of one turn. kwargs: for the chat template, which writes it. Raises ModelError."""
        rendered = self._render(_turns([("user", text)], in_parts=self._in_parts), kwargs)
        return self.encode([rendered], chat=True)[0]

    def is_beyond(self, text: str, most: int) -> bool:
        """Whether a long text has surely more tokens than that; it is tokenised in slices, and no further than needed."""
        if len(text) < max(SLICE, CHARACTERS_PER_TOKEN * most):
            return False
        tokens = 0
        for start in range(0, len(text), SLICE):
            [ids] = self.encode([text[start : start + SLICE]], chat=True)
            tokens += len(ids) - AT_CUTS
            if tokens > most:
                return True
        return False

    def in_place(self, texts: Sequence[str], *, chat: bool) -> list[tuple[int, ...]]:
        """The tokens of each text, as the model would write it behind a prompt.

        In a completion a text follows a space; in a chat it begins the turn.
        """
        return self._following([text if chat else f" {text}" for text in texts], chat=chat)

    def end_token(self, *, chat: bool) -> int:
        """The token that ends an answer: the turn's end in a chat, the line's in a completion."""
        if not chat:
            return self._following(["\n"], chat=False)[0][0]
        probe = "batchinfer-probe"
        turns = _turns([("user", "?"), ("assistant", probe)], in_parts=self._in_parts)
        rest = self._render(turns, self._kwargs, answered=True).rpartition(probe)[2]
        [ids] = self._plain([rest])
        return int(ids[0] if ids else self._tokenizer.eos_token_id)

    def spelled(self, token_id: int) -> str:
        """A token as text."""
        return str(self._tokenizer.decode([token_id]))

    def _following(self, texts: Sequence[str], *, chat: bool) -> list[tuple[int, ...]]:
        """The tokens of texts that follow a short prompt.

        In their place and not alone: some tokenizers treat the start of a text as if a space stood there.
        """
        before = self._render(_turns([("user", "?")], in_parts=self._in_parts), self._kwargs) if chat else "?:"
        [lead, *rest] = self._plain([before, *(before + text for text in texts), *texts])
        both, alone = rest[: len(texts)], rest[len(texts) :]
        return [
            tuple(ids[len(lead) :] if ids[: len(lead)] == lead else own) for ids, own in zip(both, alone, strict=True)
        ]

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that stand within a prompt."""
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def check_no_thinking(self) -> None:
        """Raises ModelError if an answer would begin with a thinking block, where a choice is to be scored."""
        turns = _turns([("user", "?")], in_parts=self._in_parts)
        text = self._render(turns, self._kwargs)
        opened = text.rstrip().endswith(("<think>", "<thinking>", "<|begin_of_thought|>"))
        template = str(self._tokenizer.chat_template)
        can_think = "enable_thinking" in template
        if can_think and not opened:
            quiet = self._render(turns, self._kwargs | {"enable_thinking": False})
            opened = quiet != text  # the switch still does something: thinking is on
        if opened:
            raise ModelError(
                "The model opens with a thinking block, so the first token of its answer says nothing about the choices: "
                + (
                    "set prompt.chat_template_kwargs: {enable_thinking: false}."
                    if can_think
                    else "take a model that answers at once."
                )
            )
