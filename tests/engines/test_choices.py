"""How choices are scored: by first tokens, or as wholes."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.core.records import Continuation
from batchinfer.engines.choices import ChoicesCollide, Collision, Normalize, scoring_of
from batchinfer.engines.tokenizer import Tokenizer
from tests.tiny import model_folder

LINE = ord("\n")


@pytest.fixture
def tokenizer(tiny: Path) -> Tokenizer:
    """A token for each byte."""
    return Tokenizer(str(tiny), None, {})


def test_first_tokens_that_differ_decide(tokenizer: Tokenizer) -> None:
    """One token for each choice, as it begins a turn."""
    scoring = scoring_of(["Yes", "No"], "none", tokenizer, chat=True)
    assert (scoring.first_tokens, scoring.continuations, scoring.collisions) == ((ord("Y"), ord("N")), (), ())


def test_where_first_tokens_collide_all_choices_are_whole(tokenizer: Tokenizer) -> None:
    """All tokens of every choice are scored, and it is said which collide."""
    scoring = scoring_of(["no", "yes", "yellow"], "none", tokenizer, chat=True)
    assert scoring.first_tokens is None
    assert scoring.continuations == (
        Continuation(tuple(b"no")),
        Continuation(tuple(b"yes")),
        Continuation(tuple(b"yellow")),
    )
    assert scoring.collisions == (Collision(("yes", "yellow"), "y"),)


@pytest.mark.parametrize(("chat", "before"), [(True, b""), (False, b" ")])
def test_where_one_choice_begins_another_their_ends_count(tokenizer: Tokenizer, before: bytes, *, chat: bool) -> None:
    """Otherwise a choice were as likely as all that begin with it together. In a completion a choice follows a space."""
    scoring = scoring_of(["drupe", "drupelet", "nut"], "none", tokenizer, chat=chat)
    texts = (b"drupe", b"drupelet", b"nut")
    assert [each.token_ids for each in scoring.continuations] == [(*before, *text, LINE) for text in texts]


@pytest.mark.parametrize(("normalize", "lengths"), [("tokens", [4, 3]), ("characters", [2, 3])])
def test_lengths_count_where_the_job_says_so(tokenizer: Tokenizer, normalize: Normalize, lengths: list[int]) -> None:
    """Then whole choices are scored even if first tokens differ. An accented letter is a character of two tokens."""
    scoring = scoring_of(["éà", "yes"], normalize, tokenizer, chat=True)
    assert scoring.first_tokens is None
    assert [each.length for each in scoring.continuations] == lengths
    assert scoring.collisions == ()


def test_choices_of_the_same_tokens_are_refused(tmp_path: Path) -> None:
    """No score could tell them apart."""
    tokenizer = Tokenizer(str(model_folder(tmp_path / "model", folds_case=True)), None, {})
    with pytest.raises(ChoicesCollide, match=r"^Us and US are the same tokens for this model: take other words\.$"):
        scoring_of(["yes", "Us", "US"], "none", tokenizer, chat=True)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("{% for m in messages %}{{ m.content }};{% endfor %}", ";"),
        ("{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}! {% endif %}{% endfor %}", "!"),
    ],
)
def test_a_turn_ends_as_the_template_ends_it(tmp_path: Path, template: str, end: str) -> None:
    """The end of an answer is the first token that the chat template writes behind it."""
    tokenizer = Tokenizer(str(model_folder(tmp_path / "model", chat_template=template)), None, {})
    assert tokenizer.end_token(chat=True) == ord(end)
