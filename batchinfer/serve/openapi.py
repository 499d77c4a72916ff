"""The OpenAPI 3.1 document of the service: openapi.yaml, with the limits and kinds of refusal that the code decides."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from batchinfer.core import http_limits
from batchinfer.core.keys import JOB_NAME
from batchinfer.core.version import __version__
from batchinfer.serve.problems import KINDS, MEDIA_TYPE
from batchinfer.versions.query import LANGUAGE, MAX_LANGUAGES, OFFSETS

Schema = dict[str, Any]

VALUES: dict[str, Any] = {
    "VERSION": __version__,
    "JOB_NAME": JOB_NAME,
    "LANGUAGE": LANGUAGE.pattern,
    "OFFSETS": list(OFFSETS),
    **{name: value for name, value in vars(http_limits).items() if name.isupper()},
    "MAX_LANGUAGES": MAX_LANGUAGES,
    "PROBLEM_TYPES": [f"urn:batchinfer:{slug}" for slug in KINDS],
}
# granian's own: it reads no further, so nobody else sees such a request
TOO_LONG_TO_READ: Schema = {
    "431": {"description": "The URL and the headers together have more than about 32 KiB. This answer has no body."}
}


class _ContractLoader(yaml.SafeLoader):
    """Reads openapi.yaml, with its two tags."""


def _value(_loader: _ContractLoader, node: yaml.ScalarNode) -> Any:
    return VALUES[node.value]


def _format(_loader: _ContractLoader, node: yaml.ScalarNode) -> str:
    return str(node.value).format(**VALUES)


_ContractLoader.add_constructor("!value", _value)
_ContractLoader.add_constructor("!format", _format)


@cache
def document() -> Schema:
    """The OpenAPI document."""
    text = Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8")
    content: Schema = yaml.load(text, _ContractLoader)  # noqa: S506 - a subclass of SafeLoader
    for operations in content["paths"].values():
        for operation in operations.values():
            operation["responses"] |= _responses(operation.pop("problems")) | TOO_LONG_TO_READ
    return content


def _responses(slugs: list[str]) -> Schema:
    """The responses of these kinds of refusal, by status."""
    found: Schema = {}
    for slug in slugs:
        status, title = KINDS[slug]
        before = found.get(str(status))
        found[str(status)] = {
            "description": f"{before['description']}; or: {title}" if before else title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return found
