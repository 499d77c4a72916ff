"""The model's tokenizer: messages → token ids, and the one token that stands for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from batchinfer.core.records import TEXT, Message
from batchinfer.engines.environment import without_torch
from batchinfer.errors import MissingExtra, ModelError


class ChoicesCollide(ModelError):
    """The first tokens of two choices are the same."""


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


class Tokenizer:
    """Loaded from where the engine loads the model; slow to make (a second or two: it imports transformers)."""

    def __init__(self, source: str, revision: str | None, chat_template_kwargs: dict[str, Any]) -> None:
        """Raises MissingExtra or ModelError."""
        with without_torch():
            try:
                from transformers import AutoTokenizer
            except ImportError as exc:
                raise MissingExtra("vLLM") from exc
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
            except (OSError, ValueError, KeyError) as exc:
                reason = str(exc).strip().splitlines()[0]
                raise ModelError(f"The tokenizer of {source} cannot be loaded: {reason}") from exc
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

    def _render(self, turns: list[dict[str, Any]], kwargs: dict[str, Any]) -> str:
        if self._tokenizer.chat_template is None:
            raise ModelError(
                "The model has no chat template: set prompt.format to completion, or take an instruct model."
            )
        from jinja2.exceptions import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **kwargs))
        except TemplateError as exc:
            raise ModelError(f"The model's chat template refuses the prompt: {exc}.") from exc

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[list[int]]:
        """Token ids of each text. A chat template writes its special tokens itself; plain text gets the model's."""
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=not chat)["input_ids"]
        return ids

    def choice_tokens(self, choices: Sequence[str], *, chat: bool) -> tuple[int, ...]:
        """The first token of each choice, as the model would write it. Raises ChoicesCollide if two share it.

        In a completion a choice follows a space; in a chat it begins the turn.
        """
        before = self._render(_turns([("user", "?")], in_parts=self._in_parts), self._kwargs) if chat else "?:"
        first = {choice: self._first_token(before, choice if chat else f" {choice}") for choice in choices}
        sharing: dict[int, list[str]] = {}
        for choice, token in first.items():
            sharing.setdefault(token, []).append(choice)
        clashes = [same for same in sharing.values() if len(same) > 1]
        if clashes:
            described = "; ".join(
                f"{' and '.join(same)} both begin with {self._tokenizer.decode([first[same[0]]])!r}" for same in clashes
            )
            raise ChoicesCollide(
                f"the first token must tell the choices apart, but {described}. "
                f"Use labels that differ at once, such as {', '.join(ascii_uppercase[: len(choices)])}, and explain them in prompt.system."
            )
        return tuple(first.values())

    def _first_token(self, before: str, text: str) -> int:
        # In its place and not alone: some tokenizers treat the start of a text as if a space stood there.
        lead, both = (self._tokenizer.encode(part, add_special_tokens=False) for part in (before, before + text))
        if both[: len(lead)] == lead:
            return int(both[len(lead)])
        return int(self._tokenizer.encode(text, add_special_tokens=False)[0])

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
