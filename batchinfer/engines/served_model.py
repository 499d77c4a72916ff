"""Whether a server has the job's model, as far as its own list and the tokens of a probe tell.

The engine is no part of the cache's key, so what another model answers would be taken for this one's ever after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchinfer.engines.chat_form import SECONDS, ChatForm, as_away, chat_unshown, find_chat_form
from batchinfer.engines.protocol import EngineConfig
from batchinfer.engines.server_api import Away, Broken, NoEntry, Refused, ServerApi, Unpaid
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.unknown_tokens import PREFIX
from batchinfer.engines.window import window_of
from batchinfer.errors import ModelError, shortened
from batchinfer.job.engine_spec import ServerSpec

PROBE = "Größe 1,234.50 € — naïve café, 東京, Ελλάδα, привет; if x >= 10: return [x ** 2]\n\t🙂"
WINDOW = "options.max_model_len"
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class AskedModel:
    """The model that a job asks of a server.

    id: as the job file has it.
    config: what an engine of our own would load.
    """

    id: str
    config: EngineConfig

    @property
    def is_server_s(self) -> bool:
        """Whether only its server has the model, so that its name there is all that it is known by."""
        return self.id.startswith(PREFIX)

    def is_named(self, card: Mapping[str, Any]) -> bool:
        """Whether an entry of a server's list says that it is this model.

        Where it says what its name stands for, the name itself, which anybody can choose, says nothing.
        """
        root = card.get("root")
        return self._is(card["id"] if self.is_server_s or not root else root)

    def _is(self, text: Any) -> bool:
        if Path(self.config.model).is_absolute():
            return _is_folder(text, self.config.model)
        return text in (self.id.removeprefix(PREFIX), self.config.model)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a server was found to have.

    name: of the model, or of its adapter, in requests.
    takes_tokens: whether prompts can be sent as tokens, as vLLM's own server takes them.
    max_model_len: tokens of a prompt and its answer together; None if the server does not tell.
    chat: how it takes chat turns, where it does not take tokens.
    checked: what was looked at, and what it came to, a sentence each.
    unshown: what could not be shown of the model: what the job trusts, and what no server tells.
    """

    name: str
    takes_tokens: bool
    max_model_len: int | None
    chat: ChatForm
    checked: tuple[str, ...]
    unshown: tuple[str, ...] = ()

    def is_as(self, before: ServedModel) -> bool:
        """Whether nothing changed since an earlier look, as far as both tell.

        A turn that came to no end within its limit, as by chance, tells nothing of its tokens.
        """
        if self.chat.tokens is not None and before.chat.tokens is not None:
            return self == before
        return replace(self, chat=replace(self.chat, tokens=before.chat.tokens), unshown=before.unshown) == before


def find_served(api: ServerApi, spec: ServerSpec, asked: AskedModel, tokenizer: Tokenizer) -> ServedModel:
    """Looks at a server's list of models, and asks for the tokens of a probe.

    Raises ModelError where it has another model, or where that cannot be shown and the job does not trust it, and Away
    where it does not answer now.
    """
    with key_told(api, spec):
        return _find_served(api, spec, asked, tokenizer)


def find_name(api: ServerApi, spec: ServerSpec, asked: AskedModel) -> str:
    """What a server calls the job's model, by its list alone. Raises ModelError, and Away where it does not answer now."""
    with key_told(api, spec):
        try:
            cards = listed_models(api)
        except Away as exc:
            raise no_api(api, exc) if exc.is_other else exc from None
        card = _card(cards, api, spec, asked)
        _base_of(card, cards, api, asked)
        return str(card["id"])


@contextlib.contextmanager
def key_told(api: ServerApi, spec: ServerSpec) -> Iterator[None]:
    """Raises ModelError with what to do where the server does not take the key."""
    try:
        yield
    except NoEntry as exc:
        said = f"The server at {api.base_url} {exc.said}"
        fix = (
            "name the variable that holds a key of it in engine.api_key_env."
            if spec.api_key_env is None
            else f"put one that it takes into the variable {spec.api_key_env}."
        )
        fix = "pay it, or take another key." if isinstance(exc, Unpaid) else fix
        raise ModelError(said, fix=fix, field=("engine", *(["api_key_env"] if spec.api_key_env else []))) from exc


def _find_served(api: ServerApi, spec: ServerSpec, asked: AskedModel, tokenizer: Tokenizer) -> ServedModel:
    cards = listed_models(api)
    card = _card(cards, api, spec, asked)
    base = _base_of(card, cards, api, asked)
    name, length = str(card["id"]), base.get("max_model_len")
    checked = [f"The server at {api.base_url} lists {name}{_root_text(card)}."]
    unshown = [*_names_unshown(card, base, asked), *_settings_unshown(base, asked.config)]
    tells_tokens = card.get("owned_by") == "vllm" and tokenizer.is_known
    tokens, chat = _tokens_of_probe(api, str(base["id"])) if tells_tokens else None, ChatForm()
    if tokens is not None:
        checked.append(_compared(tokens, api, asked, tokenizer))
    elif tokenizer.is_known:
        unshown.append("its tokens, which only vLLM's server tells")
    else:
        unshown.append("what stands behind that name, since only the server has the model")
    if unshown and not spec.trust_model:
        raise ModelError(
            f"The server at {api.base_url} cannot be shown to have {asked.id}: open is {'; '.join(unshown)}. What another model answers "
            "would stay in the cache: if you know that it is the same, set engine.trust_model: true.",
            field=("engine",),
        )
    if tokens is None:  # which must be trusted in any case
        chat = find_chat_form(api, name)
        unshown += chat_unshown(chat, tokenizer)
    window = length if isinstance(length, int) else None
    if tokenizer.is_known:
        checked += _smaller_window(window, asked.config)
        unshown += _untold(asked.config)
    return ServedModel(name, tokens is not None, window, chat, tuple(checked), tuple(unshown))


def _untold(config: EngineConfig) -> list[str]:
    """What no server tells of a model with files, however it is asked: nobody need say that it is trusted."""
    folders = [folder for folder in (config.model, config.adapter) if folder and Path(folder).is_absolute()]
    which = [] if config.model in folders else ["its revision"]
    return [*which, "its dtype, quantisation and KV cache", *(f"that it has the files of {each}" for each in folders)]


def _smaller_window(window: int | None, config: EngineConfig) -> list[str]:
    """A sentence where a server has less room than the model."""
    own = window_of(config.options, config.model, config.revision)
    if window is None or own is None or window >= own:
        return []
    return [
        f"It takes {window:,} tokens, and the model {own:,}: rows that need more fail, until run --retry-failed asks them elsewhere."
    ]


def listed_models(api: ServerApi) -> list[Mapping[str, Any]]:
    """The server's list of models. Raises ModelError for what is no such list."""
    try:
        content = api.get("/models", seconds=SECONDS)
        cards = [{name: value for name, value in card.items() if _is_plain(value)} for card in content["data"]]
        return [card for card in cards if isinstance(card.get("id"), str)]
    except Broken as exc:
        raise as_away(exc) from exc
    except Refused as exc:  # as some do for a key that is none
        said = f"The server at {api.base_url} does not list its models: it {_did(exc)}"
        raise ModelError(said, fix="correct engine.base_url, or the key.", field=("engine",)) from exc
    except (LookupError, TypeError, AttributeError) as exc:
        raise no_api(api) from exc


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in a sentence, and be taken for a path."""
    return not isinstance(value, str) or value.isprintable()


def check_batches(api: ServerApi) -> None:
    """Raises ModelError for a server without a batch API, or whose batches the key is not for, and Away."""
    try:
        api.get("/batches?limit=1", seconds=SECONDS)
    except NoEntry as exc:
        said = f"The server at {api.base_url} {exc.said} for its batches: take one that may make batches."
        raise ModelError(said, field=("engine", "api_key_env")) from exc
    except Broken as exc:
        raise Away(exc.said) from exc
    except (Away, Refused) as exc:
        if isinstance(exc, Away) and not exc.is_other:
            raise
        said = f"The server at {api.base_url} has no batch API at {api.base_url}/batches: it {_did(exc)}. Take engine.kind: openai."
        raise ModelError(said, field=("engine", "kind")) from exc


def _did(fault: Away | Refused) -> str:
    """What a server did, as a verb with what follows."""
    return f"refuses the request ({fault.said})" if isinstance(fault, Refused) else fault.said


def no_api(api: ServerApi, fault: Away | None = None) -> ModelError:
    """For an address at which something else answers. fault: what it did in place of listing models."""
    did = f"it {fault.said}" if fault else f"{api.base_url}/models is no list of models"
    said = f"{api.base_url} is no OpenAI-compatible API: {did}. Such an address mostly ends in /v1."
    return ModelError(said, field=("engine", "base_url"))


def _card(cards: Sequence[Mapping[str, Any]], api: ServerApi, spec: ServerSpec, asked: AskedModel) -> Mapping[str, Any]:
    """The model's entry in the list: by the name that the job gives, or by what it is. Raises ModelError."""
    wanted = spec.served_model_name
    adapter = asked.config.adapter
    if wanted is not None:
        fitting = [card for card in cards if card["id"] == wanted]
    elif adapter is not None:
        fitting = [card for card in cards if _is_folder(card.get("root"), adapter)]
    else:
        own = [card for card in cards if asked.is_server_s or not card.get("parent")]
        fitting = [card for card in own if asked.is_named(card)] or [card for card in own if card["id"] == asked.id]
    if fitting:
        return fitting[0]
    named = ", ".join(shortened(str(card["id"])) for card in cards[:MOST_NAMED]) or "no model"
    lacking = wanted or (f"the adapter {adapter}" if adapter else asked.id)
    raise ModelError(
        f"The server at {api.base_url} lists {named}, not {lacking}: start it with that model, or say in engine.served_model_name what "
        "it calls it.",
        field=("engine",),
    )


def _base_of(
    card: Mapping[str, Any], cards: Sequence[Mapping[str, Any]], api: ServerApi, asked: AskedModel
) -> Mapping[str, Any]:
    """What an adapter stands on; else the same entry. Raises ModelError for an adapter where the job's model has none."""
    parent = card.get("parent")
    if parent and asked.config.adapter is None and not asked.is_server_s:
        raise ModelError(
            f"What the server at {api.base_url} calls {card['id']} is an adapter of {parent}, and the job's model has none: name the "
            "adapter in model.adapter, or the model itself in engine.served_model_name.",
            field=("engine", "served_model_name"),
        )
    return next((each for each in cards if parent and each["id"] == parent), card)


def _is_folder(text: Any, folder: str) -> bool:
    """Whether a server names a folder of this machine."""
    return isinstance(text, str) and Path(text).is_absolute() and Path(text).resolve() == Path(folder).resolve()


def _root_text(card: Mapping[str, Any]) -> str:
    root = card.get("root")
    return f", which is {root}" if root and root != card["id"] else ""


def _names_unshown(card: Mapping[str, Any], base: Mapping[str, Any], asked: AskedModel) -> list[str]:
    """What the names in the list leave open. base: the entry of the model that an adapter stands on; else the same one."""
    name = f"that {base['id']}{_root_text(base)}{',' if _root_text(base) else ''} is {asked.id}"
    unshown, adapter = [] if asked.is_named(base) else [name], asked.config.adapter
    if adapter is not None and not _is_folder(card.get("root"), adapter):
        unshown.append(f"that {card['id']} is the adapter in {adapter}")
    return unshown


def _settings_unshown(card: Mapping[str, Any], config: EngineConfig) -> list[str]:
    """Settings of the job's model that change answers, and that the server does not tell, or tells otherwise."""
    window, wanted = card.get("max_model_len"), config.options.get("max_model_len")
    unshown = [f"model.{name}" for name in config.settings if name != WINDOW]
    if WINDOW in config.settings and window != wanted:
        unshown.append(f"model.{WINDOW}, which is {wanted}, and the server lists {window or 'none'}")
    return unshown


def _tokens_of_probe(api: ServerApi, name: str) -> list[int] | None:
    """The tokens that a server makes of the probe; None where it does not tell. Raises ModelError where it completes no text."""
    content = {"model": name, "prompt": PROBE, "max_tokens": 1, "temperature": 0.0, "return_token_ids": True}
    try:
        tokens = api.post("/completions", content, seconds=SECONDS)["choices"][0].get("prompt_token_ids")
        return None if tokens is None else list(tokens)
    except Broken as exc:
        raise as_away(exc) from exc
    except (Refused, LookupError, TypeError, AttributeError) as exc:
        raise ModelError(
            f"The server at {api.base_url} lists models, but does not complete a text: {exc}.", field=("engine",)
        ) from exc


def _compared(theirs: Sequence[int], api: ServerApi, asked: AskedModel, tokenizer: Tokenizer) -> str:
    """What the tokens of the probe came to, a sentence. Raises ModelError if they are others."""
    [own] = tokenizer.encode([PROBE], chat=False)
    if theirs != own:
        raise ModelError(
            f"The server at {api.base_url} makes other tokens of a text than {asked.id} has: it serves another model, or another version "
            "of it, under that name.",
            field=("engine",),
        )
    return f"It makes the same {len(own)} tokens of a probe as {asked.id}."
