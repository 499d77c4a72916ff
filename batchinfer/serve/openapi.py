"""What the service says of itself: an OpenAPI 3.1 document, and a page made from it that needs no script."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from batchinfer.core.keys import JOB_NAME
from batchinfer.core.version import __version__
from batchinfer.serve.batch import MAX_BODY, MAX_QUERIES
from batchinfer.serve.match import MAX_TEXTS
from batchinfer.serve.problems import KINDS, MEDIA_TYPE
from batchinfer.versions.query import LANGUAGE, MAX_LANGUAGES, OFFSETS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
VALUE: Schema = {"type": ["string", "integer", "number", "boolean"]}
QUERY: Schema = {
    "type": "object",
    "description": "A value for each column of the job's lookup key. Dates and times are ISO 8601 text.",
    "additionalProperties": VALUE,
}
HIT_FIELDS: dict[str, Schema] = {
    "job": TEXT,
    "query": {"type": "object"},
    "prediction": {"description": "A text, or with output.type: json any JSON value."},
    "scores": {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
    "score": NUMBER_OR_NULL,
    "source": {**TEXT, "description": "Who answered: model or import. More may come."},
    "model": {"type": ["string", "null"]},
    "generated_at": {"type": ["string", "null"], "format": "date-time"},
}
MATCH_FIELDS: dict[str, Schema] = {
    "concept": {"description": "What the term names."},
    "language": {"type": ["string", "null"], "description": "The term's, as a BCP 47 tag."},
    "term": {**TEXT, "description": "As the prediction has it."},
    "start": {"type": "integer", "minimum": 0, "description": "Where the match begins in the text as it was sent."},
    "end": {"type": "integer", "minimum": 1, "description": "Where it ends: the first place after it."},
    "text": {**TEXT, "description": "What stands there."},
    "score": NUMBER_OR_NULL,
    "source": {**TEXT, "description": "Who made the prediction: model or import. More may come."},
}
MATCHES: Schema = {"type": "array", "items": {"$ref": "#/components/schemas/Match"}}
LANGUAGES: Schema = {
    "type": "array",
    "maxItems": MAX_LANGUAGES,
    "items": {"type": "string", "pattern": f"^{LANGUAGE.pattern}$"},
}
UNIT: Schema = {"type": "string", "enum": list(OFFSETS), "default": "code_points"}
STATE_FIELDS: dict[str, Schema] = {
    "job": TEXT,
    "version": {"type": ["integer", "null"]},
    "created_at": {"type": ["string", "null"], "format": "date-time"},
    "age_seconds": NUMBER_OR_NULL,
    "entries": {"type": ["integer", "null"]},
    "key": {
        "type": "array",
        "items": {"type": "object", "properties": {"name": TEXT, "kind": TEXT}, "required": ["name", "kind"]},
    },
    "pinned": {"type": "boolean"},
    "degraded": {"type": "boolean"},
    "problem": {"type": ["string", "null"]},
    "last_success_at": {"type": ["string", "null"], "format": "date-time"},
    "failed_loads": {"type": "integer", "description": "Of the worker that answers; /metrics has those of all."},
}
SCHEMAS: dict[str, Schema] = {
    "Hit": {"type": "object", "properties": HIT_FIELDS, "required": list(HIT_FIELDS)},
    "Found": {
        "type": "object",
        "properties": {"found": {"const": True}, **HIT_FIELDS},
        "required": ["found", *HIT_FIELDS],
    },
    "Missed": {
        "type": "object",
        "properties": {"found": {"const": False}, "query": {"type": "object"}},
        "required": ["found", "query"],
        "additionalProperties": False,
    },
    "Results": {
        "type": "object",
        "properties": {
            "version": {"type": "integer"},
            "results": {
                "type": "array",
                "items": {"oneOf": [{"$ref": "#/components/schemas/Found"}, {"$ref": "#/components/schemas/Missed"}]},
            },
        },
        "required": ["version", "results"],
    },
    "Queries": {
        "type": "object",
        "properties": {
            "queries": {
                "type": "array",
                "maxItems": MAX_QUERIES,
                "items": QUERY,
                "description": "A value for each column of the job's lookup key, in each.",
            }
        },
        "required": ["queries"],
        "additionalProperties": False,
    },
    "Match": {"type": "object", "properties": MATCH_FIELDS, "required": list(MATCH_FIELDS)},
    "Matches": {
        "type": "object",
        "properties": {"matches": MATCHES, "version": {"type": "integer"}},
        "required": ["matches", "version"],
    },
    "MatchesOfMany": {
        "type": "object",
        "properties": {
            "version": {"type": "integer"},
            "results": {
                "type": "array",
                "items": {"type": "object", "properties": {"matches": MATCHES}, "required": ["matches"]},
            },
        },
        "required": ["version", "results"],
    },
    "Texts": {
        "type": "object",
        "properties": {
            "texts": {"type": "array", "maxItems": MAX_TEXTS, "items": TEXT, "description": "Those to be matched."},
            "languages": LANGUAGES | {"description": "Only terms of these; de stands for de-AT, too."},
            "offsets": UNIT | {"description": "What start and end count."},
        },
        "required": ["texts"],
        "additionalProperties": False,
    },
    "Job": {"type": "object", "properties": STATE_FIELDS, "required": list(STATE_FIELDS)},
    "Jobs": {
        "type": "object",
        "properties": {"jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}}},
        "required": ["jobs"],
    },
    "Status": {"type": "object", "properties": {"status": TEXT}, "required": ["status"]},
    "Problem": {
        "type": "object",
        "description": "RFC 9457. Compare `type`, show `detail`.",
        "properties": {
            "type": {"type": "string", "enum": [f"urn:batchinfer:{slug}" for slug in KINDS]},
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
        },
        "required": ["type", "title", "status", "detail"],
    },
}

JOB: Schema = {
    "name": "job", "in": "path", "required": True, "description": "The job's name.",
    "schema": {"type": "string", "pattern": f"^{JOB_NAME}$"},
}  # fmt: skip
COLUMNS: Schema = {
    "name": "columns", "in": "query", "style": "form", "explode": True, "required": True,
    "description": "Each column of the lookup key with its value, as in ?vaccine=Sputnik%20V&language=de. "
    "GET /v1/jobs/{job} names the columns and their kinds.",
    "schema": {"type": "object", "additionalProperties": TEXT},
}  # fmt: skip
CONDITION: Schema = {
    "name": "If-None-Match", "in": "header", "description": "An ETag that the client has: 304 if it still holds.", "schema": TEXT,
}  # fmt: skip
VERSION_HEADER: Schema = {"required": True, "description": "The version that answered.", "schema": {"type": "integer"}}
CACHE_HEADER: Schema = {"required": True, "description": "max-age from the job's serve section.", "schema": TEXT}
HIT_HEADERS: Schema = {
    "ETag": {
        "required": True,
        "description": "Of this entry; it survives a publish that did not change it.",
        "schema": TEXT,
    },
    "Cache-Control": CACHE_HEADER,
    "Batchinfer-Version": VERSION_HEADER,
}
TEXT_TO_MATCH: Schema = {
    "name": "text", "in": "query", "required": True, "description": "The text, as UTF-8. Long ones are sent by POST.",
    "schema": TEXT,
}  # fmt: skip
LANGUAGE_OF_MATCHES: Schema = {
    "name": "language", "in": "query", "style": "form", "explode": True, "schema": LANGUAGES,
    "description": "Only terms of these languages; de stands for de-AT too. As often as wanted: ?language=de&language=en.",
}  # fmt: skip
UNIT_OF_SPANS: Schema = {
    "name": "offsets", "in": "query", "description": "What start and end count.", "schema": UNIT,
}  # fmt: skip


def _json(name: str, text: str, headers: Schema | None = None) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"description": text, "content": content, **({"headers": headers} if headers else {})}


def _problems(*slugs: str) -> Schema:
    """The responses of these kinds, by status."""
    found: Schema = {}
    for slug in slugs:
        status, title = KINDS[slug]
        before = found.get(str(status))
        found[str(status)] = {
            "description": f"{before['description']}; or: {title}" if before else title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return found


ASKING = ("no-key", "forbidden", "long-url")
OF_A_JOB = (*ASKING, "unknown-job")
MATCHING = ("no-match-section", "not-installed")


def _operation(name: str, summary: str, responses: Schema, **more: Any) -> Schema:
    return {"operationId": name, "summary": summary, **more, "responses": responses}


@cache
def document() -> Schema:
    """The OpenAPI document."""
    lookup = _operation(
        "lookup", "One prediction.",
        {
            "200": _json("Hit", "The prediction.", HIT_HEADERS),
            "304": {"description": "The client's copy still holds.", "headers": HIT_HEADERS},
        }
        | _problems("bad-query", "miss", *OF_A_JOB, "not-published"),
        parameters=[JOB, COLUMNS, CONDITION],
    )  # fmt: skip
    batch = _operation(
        "lookup_batch", f"Up to {MAX_QUERIES:,} predictions, in the order asked, all from one version.",
        {"200": _json("Results", "A hit or a miss for each query.", {"Batchinfer-Version": VERSION_HEADER})}
        | _problems("bad-body", "bad-query", *OF_A_JOB, "slow-body", "too-large", "not-published"),
        parameters=[JOB],
        requestBody={
            "required": True, "description": f"At most {MAX_BODY:,} bytes.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Queries"}}},
        },
    )  # fmt: skip
    matches = _operation(
        "match", "Which concepts a text mentions, and where.",
        {
            "200": _json(
                "Matches", "The matches, by where they begin; none is no error.",
                {"Cache-Control": CACHE_HEADER, "Batchinfer-Version": VERSION_HEADER},
            )
        }
        | _problems("bad-query", *OF_A_JOB, *MATCHING, "too-large", "not-published"),
        parameters=[JOB, TEXT_TO_MATCH, LANGUAGE_OF_MATCHES, UNIT_OF_SPANS],
    )  # fmt: skip
    matches_of_many = _operation(
        "match_batch", f"The same for up to {MAX_TEXTS:,} texts, in the order asked, all from one version.",
        {"200": _json("MatchesOfMany", "The matches of each text.", {"Batchinfer-Version": VERSION_HEADER})}
        | _problems("bad-body", *OF_A_JOB, *MATCHING, "slow-body", "too-large", "not-published"),
        parameters=[JOB],
        requestBody={
            "required": True, "description": f"At most {MAX_BODY:,} bytes.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Texts"}}},
        },
    )  # fmt: skip
    jobs = _operation(
        "jobs", "What is served, which version, how old.",
        {"200": _json("Jobs", "All jobs.")} | _problems(*ASKING, "not-published"),
    )  # fmt: skip
    job = _operation(
        "job", "The same for one job, with the columns of its lookup key.",
        {"200": _json("Job", "The job.")} | _problems(*OF_A_JOB, "not-published"), parameters=[JOB],
    )  # fmt: skip
    alive = _operation(
        "livez", "Whether the process answers.", {"200": _json("Status", "It does.")} | _problems("long-url")
    )
    ready = _operation(
        "readyz", "Whether each job that has a published version has one open.",
        {"200": _json("Status", "It has.")} | _problems("not-published", "long-url"),
    )  # fmt: skip
    metrics = _operation(
        "metrics", "Metrics for Prometheus.",
        {"200": {"description": "Text.", "content": {"text/plain": {"schema": TEXT}}}} | _problems(*ASKING),
    )  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "batchinfer", "version": __version__,
            "description": "Looks up predictions that a large model made ahead of time, and finds their terms in texts.",
        },
        "paths": {
            "/v1/jobs": {"get": jobs},
            "/v1/jobs/{job}": {"get": job},
            "/v1/jobs/{job}/lookup": {"get": lookup, "post": batch},
            "/v1/jobs/{job}/match": {"get": matches, "post": matches_of_many},
            "/livez": {"get": alive | {"security": []}},
            "/readyz": {"get": ready | {"security": []}},
            "/metrics": {"get": metrics},
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where the service has keys: bi_<id>_<secret>."}
            },
        },
        "security": [{}, {"key": []}],
    }  # fmt: skip


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
    """The same for people, as HTML."""
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
    fields = SCHEMAS[schema["$ref"].rpartition("/")[2]]["properties"] if schema else {}
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
