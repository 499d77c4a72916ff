"""Chat templates: the prompt holds every text, in whichever form the template takes it, or the model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import ModelError
from tests.tiny import CHAT_TEMPLATE, model_folder

PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}"
)
EITHER = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %};{% endfor %}"
ROLES = ["system", "user", "assistant", "user"]
MESSAGES = [("system", "Be brief."), ("user", "1"), ("assistant", "one"), ("user", "2")]


def tokenizer(folder: Path, template: str) -> Tokenizer:
    """That of a model with this chat template."""
    return Tokenizer(str(model_folder(folder / "model", chat_template=template)), None, {})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        pytest.param(CHAT_TEMPLATE, "<system>Be brief.\n<user>1\n<assistant>one\n<user>2\n<assistant>", id="plain"),
        pytest.param(PARTS, "<system>Be brief.;<user>1;<assistant>one;<user>2;", id="parts"),
        pytest.param(EITHER, "Be brief.;1;one;2;", id="either"),
    ],
)
@pytest.mark.long
def test_the_form_is_the_templates(tmp_path: Path, template: str, text: str) -> None:
    """Texts are given as they are, or as parts where the template writes nothing else; choices are scored behind the same."""
    made = tokenizer(tmp_path, template)
    made.check_holds(ROLES)
    assert made.text(MESSAGES).strip() == text.strip()
    assert made.in_place(["a", "b"], chat=True) == [(97,), (98,)]


@pytest.mark.parametrize(
    ("template", "roles", "said"),
    [
        ("{{ messages[-1].content }}", ROLES, r"leaves prompt\.system out"),
        ("{{ messages[0].content }}{{ messages[-1].content }}", ROLES, "leaves examples out"),
        ("Hello!", ["user"], "leaves the row's text out"),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}", ROLES, "no system"),
        ("{{ messages[0].content + 1 }}", ["user"], "chat template"),
    ],
)  # fmt: skip
@pytest.mark.long
def test_a_template_that_leaves_something_out_is_refused(
    tmp_path: Path, template: str, roles: list[str], said: str
) -> None:
    """One sentence says what is missing, before anything is generated."""
    with pytest.raises(ModelError, match=said):
        tokenizer(tmp_path, template).check_holds(roles)


def test_no_code_of_the_model_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anybody asked whether it may be: an answer on standard input, as of `yes`, would be one."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a person was asked"))
    folder = model_folder(tmp_path / "model")
    settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "own.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    with pytest.raises(ModelError, match="brings code of its own, which batchinfer does not run"):
        Tokenizer(str(folder), None, {})
