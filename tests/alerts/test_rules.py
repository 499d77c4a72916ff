"""Rules: from the job file and from a manifest, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from batchinfer.alerts.rules import (
    AlertKind,
    CommandReceiver,
    MailReceiver,
    missing_secrets,
    read_rules,
    webhook_secrets,
)
from batchinfer.errors import SpecError
from batchinfer.job import reader
from tests.alerts.made import DAY, SECRET, rule

HOOK = {"webhook": "https://example.org/hook", "secret_env": "ALERTS_SECRET"}
MAIL = {"to": "ops@example.org", "from": "jobs@example.org", "host": "mail.example.org"}
FAILING = {"on": ["failed", "recovered"]}


def parsed(*rules: dict[str, Any], **sections: Any) -> list[dict[str, Any]]:
    """The section as a manifest has it. Raises SpecError."""
    content = {"name": "shop", "input": {"path": "queries.parquet", "key": ["id"]}, "alerts": list(rules), **sections}
    spec = reader.parse(yaml.safe_dump(content, sort_keys=False), "job.yaml")
    found: list[dict[str, Any]] = spec.model_dump(mode="json", by_alias=True)["alerts"]
    return found


def test_rules_are_what_the_job_file_says() -> None:
    """Each kind of receiver comes through the manifest as it was written; times have a default where one makes sense."""
    mail = MAIL | {"tls": "tls", "user_env": "MAIL_USER", "password_env": "MAIL_PASSWORD"}
    hook, command, post = read_rules(
        parsed(
            HOOK | {"stale_after": "8d"},
            FAILING | {"command": ["page", "--all"], "remind_after": "1d"},
            FAILING | {"mail": mail},
        )
    )
    assert hook == rule("https://example.org/hook")
    assert (command.receiver, command.stale_after, command.remind_after) == (
        CommandReceiver(("page", "--all")),
        None,
        DAY,
    )
    assert command.kinds == {AlertKind.FAILED, AlertKind.RECOVERED}
    assert post.receiver == MailReceiver(
        ("ops@example.org",), "jobs@example.org", "mail.example.org", 465, "tls", "MAIL_USER", "MAIL_PASSWORD"
    )
    for each in (hook, command, post):
        assert read_rules([each.to_json()]) == (each,)
    assert len({hook.key, command.key, post.key}) == 3


def test_a_rule_as_people_write_it() -> None:
    """`on` needs no quotes, although older YAML takes the word for true."""
    text = "name: shop\ninput: {path: queries.parquet, key: [id]}\nalerts:\n  - on: [failed]\n    command: [page]\n"
    [rule] = reader.parse(text, "job.yaml").alerts
    assert (rule.on, rule.command) == (["failed"], ["page"])


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([HOOK], "stale needs stale_after, such as stale_after: 8d"),
        ([FAILING], "needs one of webhook, command and mail"),
        ([FAILING | HOOK | {"command": ["page"]}], "needs one of webhook, command and mail"),
        ([FAILING | {"webhook": "https://example.org/hook"}], "webhook and secret_env belong together"),
        ([FAILING | {"webhook": "ftp://example.org", "secret_env": "A"}], "must be an address such as https://"),
        ([FAILING | {"webhook": "https://a:b@example.org", "secret_env": "A"}], "must have no name and no password"),
        ([FAILING | HOOK | {"secret_env": "whsec_abc="}], "must be the name of an environment variable"),
        ([FAILING | HOOK | {"stale_after": "8d"}], "stale_after goes with stale"),
        ([HOOK | {"stale_after": "0s"}], "must be a minute or more"),
        ([HOOK | {"stale_after": "soon"}], "must be a number and a unit"),
        ([HOOK | {"on": ["recovered"]}], "recovered alone tells of nothing"),
        ([HOOK | {"on": ["broken"]}], "'failed', 'refused', 'stale' or 'recovered'"),
        ([HOOK | {"on": []}], "at least 1 item"),
        ([FAILING | {"command": []}], "at least 1 item"),
        ([FAILING | {"mail": MAIL | {"to": "nobody"}}], "must be a mail address"),
        ([FAILING | {"mail": MAIL | {"to": "a@b.c\nBcc: d@e.f"}}], "must be a mail address"),
        ([FAILING | {"mail": MAIL | {"user_env": "USER"}}], "user_env and password_env belong together"),
        ([FAILING | {"mail": MAIL | {"tls": "none", "user_env": "A", "password_env": "B"}}], "others can read"),
        ([FAILING | {"mail": MAIL | {"port": 0}}], "greater than or equal to 1"),
        ([FAILING | HOOK, FAILING | HOOK | {"remind_after": "1d"}], "it has the receiver of alerts.0"),
        ([FAILING | {"mail": MAIL}, FAILING | {"mail": MAIL | {"port": 587}}], "it has the receiver of alerts.0"),
        ([FAILING | HOOK | {"remind_after": "1m"}], "must be a day or more"),
        ([FAILING | HOOK | {"secret": "x"}], "there is no such field"),
    ],
)
def test_a_bad_rule_is_a_sentence_with_its_line(rules: list[dict[str, Any]], said: str) -> None:
    """One fault, one sentence, at the line of the rule or of its field."""
    with pytest.raises(SpecError) as refused:
        parsed(*rules)
    [problem] = refused.value.listed
    assert said in problem.message
    assert problem.message.startswith("alerts")
    assert problem.line is not None
    assert problem.line > 6


def test_a_limit_that_each_wait_passes_is_refused() -> None:
    """A weekly job is not stale after five days; after eight it is."""
    weekly = {"schedule": {"cron": "0 3 * * 1"}}
    with pytest.raises(SpecError, match=r"alerts.0.stale_after: the schedule leaves 168h between two runs"):
        parsed(HOOK | {"stale_after": "5d"}, **weekly)
    assert parsed(HOOK | {"stale_after": "8d"}, **weekly)
    assert parsed(HOOK | {"stale_after": "2h"}, schedule={"cron": "*/10 * * * *"})


def test_what_a_newer_program_wrote_is_left_out() -> None:
    """A rule that is not understood takes no other with it, and nothing that is no list is one."""
    known = rule().to_json()
    damaged: list[Any] = [
        None,
        {},
        [],
        7,
        known | {"on": ["later"]},
        {"pigeon": "grey"},
        known | {"webhook": "file:///etc/passwd"},
    ]
    assert read_rules([*damaged, known, known | {"stale_after": "x"}, known | {"remind_after": "0s"}]) == (rule(),)
    documents: list[Any] = [None, {}, "x", 3]
    assert [read_rules(document) for document in documents] == [()] * 4


def test_a_secret_that_is_missing_is_named() -> None:
    """The name of the variable is said, never what it holds; a program needs none."""
    [mail] = read_rules(parsed(FAILING | {"mail": MAIL | {"user_env": "MAIL_USER", "password_env": "MAIL_PASSWORD"}}))
    rules = [rule("https://example.org/secret-path"), rule(receiver=CommandReceiver(("page",))), mail]
    assert missing_secrets(rules, {"MAIL_USER": "me"}) == [
        "https://example.org cannot be told of anything: the environment has no ALERTS_SECRET, which is to hold the webhook's secret.",
        "ops@example.org cannot be told of anything: the environment has no MAIL_PASSWORD, which the mail server wants.",
    ]
    [bad] = missing_secrets(rules[:1], {"ALERTS_SECRET": "hunter2"})
    assert "hunter2" not in bad
    assert "should be whsec_" in bad
    assert missing_secrets(rules, {"ALERTS_SECRET": SECRET, "MAIL_USER": "me", "MAIL_PASSWORD": "x"}) == []


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_%%%", "whsec_c2hvcnQ=", "no base64 at all!"])
def test_what_is_no_secret(text: str) -> None:
    """Too short, or not base64."""
    assert webhook_secrets(text) == []
    assert webhook_secrets(SECRET) == webhook_secrets(SECRET.removeprefix("whsec_").rstrip("=")) == [bytes(range(32))]
    assert webhook_secrets(f" {SECRET} {text} {SECRET}") == [bytes(range(32))] * 2, "the old one and the new one"
    if text:
        assert missing_secrets([rule()], {"ALERTS_SECRET": f"{SECRET} {text}"}), "one of two that is mistyped is said"


def test_a_mail_server_of_the_first_manifests_has_its_usual_port() -> None:
    """They have no port where the job file named none."""
    [known] = parsed(FAILING | {"mail": MAIL})
    [old] = read_rules([known | {"mail": known["mail"] | {"port": None}}])
    assert old == read_rules([known])[0]
