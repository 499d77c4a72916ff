"""What the service says of itself: an OpenAPI 3.1 document, and a page made from it that needs no script."""

from __future__ import annotations

from functools import cache
from typing import Any

from batchinfer.core.http_limits import MAX_BODY, MAX_QUERIES, MAX_TEXTS
from batchinfer.core.keys import JOB_NAME
from batchinfer.core.version import __version__
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
