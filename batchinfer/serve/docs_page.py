"""The page that shows the API to people."""

from __future__ import annotations

from functools import cache
from html import escape

from batchinfer.serve.openapi import Schema, document

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.6rem}h2{font:600 1.05rem ui-monospace,monospace;margin:2.2rem 0 .3rem;border-top:1px solid #d8dee4;padding-top:1.2rem}
code,pre{font:.9rem ui-monospace,monospace;background:#f3f5f7;border-radius:4px}code{padding:.1rem .3rem}
pre{padding:.7rem 1rem;overflow:auto}table{border-collapse:collapse;width:100%;margin:.6rem 0}
td{padding:.25rem .8rem .25rem 0;vertical-align:top;border-bottom:1px solid #eaeef2}td:first-child{white-space:nowrap}
@media(prefers-color-scheme:dark){body{color:#d7dde3;background:#15181c}code,pre{background:#22272e}h2,td{border-color:#333a42}
a{color:#7ab7ff}}
"""

EXAMPLES = {
    "lookup": "curl 'HOST/v1/jobs/vaccines/lookup?vaccine=Sputnik%20V&language=de'",
    "lookup_batch": 'curl HOST/v1/jobs/vaccines/lookup -d \'{"queries": [{"vaccine": "Sputnik V", "language": "de"}]}\'',
    "match": "curl 'HOST/v1/jobs/vaccines/match?text=Wer+bekommt+Sputnik+V%3F&language=de'",
    "match_batch": 'curl HOST/v1/jobs/vaccines/match -d \'{"texts": ["Wer bekommt Sputnik V?"], "languages": ["de"]}\'',
    "jobs": "curl HOST/v1/jobs",
    "job": "curl HOST/v1/jobs/vaccines",
}


@cache
def page() -> str:
    """The OpenAPI document for people, as HTML."""
    described = document()
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>batchinfer: the lookup API</title><style>{STYLE}</style><h1>The lookup API</h1>",
        f"<p>{escape(described['info']['description'])} The same for programs: <a href=/openapi.json>/openapi.json</a>.</p>",
        (
            "<p>Where the service has API keys, send one: <code>Authorization: Bearer bi_…</code>. Errors are "
            "<code>application/problem+json</code>: compare their <code>type</code>, show their <code>detail</code>.</p>"
        ),
    ]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            parts += _section(f"{method.upper()} {path}", operation)
    return "".join(parts)


def _body_fields(operation: Schema) -> list[tuple[str, str]]:
    """The fields of an operation's body, as parameters are shown."""
    content = operation.get("requestBody", {}).get("content", {})
    [schema] = [media["schema"] for media in content.values()] or [{}]
    fields = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"] if schema else {}
    return [(name, f"In the body. {field['description']}") for name, field in fields.items()]


def _section(title: str, operation: Schema) -> list[str]:
    rows = [(parameter["name"], parameter["description"]) for parameter in operation.get("parameters", [])]
    rows += _body_fields(operation)
    answers = [(status, response["description"]) for status, response in sorted(operation["responses"].items())]
    parts = [f"<h2>{escape(title)}</h2><p>{escape(operation['summary'])}</p>"]
    if operation["operationId"] in EXAMPLES:
        parts.append(f"<pre>{escape(EXAMPLES[operation['operationId']])}</pre>")
    for pairs in (rows, answers):
        cells = "".join(f"<tr><td><code>{escape(name)}</code><td>{escape(text)}" for name, text in pairs)
        parts.append(f"<table>{cells}</table>" if cells else "")
    return parts
