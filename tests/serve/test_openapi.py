"""The OpenAPI document is true: what schemathesis makes of it, a real service answers as the document says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from batchinfer.serve import openapi
from batchinfer.serve.apikeys import KeyFile
from batchinfer.serve.app import Service, Settings
from batchinfer.serve.problems import KINDS
from tests.factories import LENIENT, imports_job
from tests.fuzz import IS_LONG, anything
from tests.serving import Server, moved, names_job, serving

CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
keys: dict[str, str] = {}
OPERATIONS = [
    (path, method) for path, operations in openapi.document()["paths"].items() for method in operations
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of three jobs: with a text as its key, with two columns, and with terms. It wants an API key."""
    root = tmp_path_factory.mktemp("openapi")
    shop = imports_job(root / "shop", {"id": ["a", "ü +%"]}, gate=LENIENT)
    shop.take_in({"id": ["a", "ü +%"], "prediction": ["x", "y"]})
    sizes = imports_job(
        root / "sizes", {"size": [38, 39], "wide": [True, False]}, name="sizes", gate=LENIENT,
        input={"path": "queries.parquet", "key": ["size", "wide"]}, output={"type": "json", "schema": {"type": "object"}},
    )  # fmt: skip
    sizes.take_in({"size": [38, 39], "wide": [True, False], "prediction": ['{"cm": 24.5}', "{}"]})
    for world in (shop, sizes):
        world.publish()
        moved(world, root / "home")
    names_job(root / "home", "names", {("tea", "en"): ["tea", "cup of tea"], ("tea", "de"): ["Tee"]})
    keys["key"] = KeyFile(root / "home").add("tests", None).key
    with serving(root / "home", root / "server") as server:
        workers = server.children()
        yield server
        assert server.children() == workers, server.log  # none died
        assert "Traceback" not in server.log


REAL: list[tuple[str, dict[str, Any]]] = [
    ("shop", {"id": "a"}), ("shop", {"id": "ü +%"}), ("shop", {"id": "not there"}), ("sizes", {"size": 38, "wide": True}),
    ("sizes", {"size": 39, "wide": False}), ("sizes", {"size": "38"}),
    ("names", {"thing": "a cup of tea", "language": "en"}), ("names", {"thing": "Tee", "language": "de"}),
    ("names", {"thing": "tea", "language": "en_GB"}),
]  # fmt: skip


def made_real(case: Any, job: str, query: dict[str, Any], *, keep_query: bool) -> None:
    """Puts a job that there is, and a query that fits it, into a case that schemathesis made up."""
    if "job" in case.path_parameters:
        case.path_parameters["job"] = job
    if keep_query:
        return
    if case.path.endswith("/match"):
        text, language = str(query), query.get("size", query.get("language", "en"))  # a size is no language
        if case.method == "POST":
            case.body = {"texts": [text], "languages": [language, "de"]}
        else:
            case.query = {"text": text, "language": [language, "de"], "offsets": "utf16"}
    elif case.method == "POST":
        case.body = {"queries": [query, *(other for name, other in REAL[:3] if name == job)]}
    elif case.path.endswith("/lookup"):
        case.query = {name: str(value).lower() if value in (True, False) else value for name, value in query.items()}


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
@pytest.mark.long
def test_the_service_is_as_its_document_says(server: Server, path: str, method: str) -> None:
    """No 5xx but a documented one, and no status, header, media type or body that the document does not describe."""
    operation = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")[path][method.upper()]
    cases = st.sampled_from(
        [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if "job" in path else [GenerationMode.POSITIVE]
    )
    statuses: Counter[int] = Counter()
    session = requests.Session()

    @anything(3 if "job" in path else 25, derandomize=not IS_LONG, database=None)
    @given(st.sampled_from([None, *REAL]), st.booleans(), st.sampled_from([True, True, True, False]),
           cases.flatmap(lambda mode: operation.as_strategy(generation_mode=mode)))  # fmt: skip
    def ask(real: tuple[str, dict[str, Any]] | None, keep_query: bool, with_key: bool, case: Any) -> None:
        if real is not None:
            made_real(case, *real, keep_query=keep_query)
        headers = {"authorization": f"Bearer {keys['key']}"} if with_key else {}
        response = case.call(session=session, headers=headers)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()
    asked = {200, 400, 401, 404}
    wanted = {"/v1/jobs/{job}/lookup": asked, "/v1/jobs/{job}/match": asked, "/v1/jobs/{job}": {200, 401, 404}}
    assert wanted.get(path, {200}) <= statuses.keys()


def test_every_route_is_described() -> None:
    """The document has the routes that the service has, but for itself and the page made from it."""
    service = Service(Settings(Path("/nowhere"), Path("/nowhere")))
    served = {
        (route.path, method.lower())
        for route in service._starlette.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {*OPERATIONS, ("/openapi.json", "get"), ("/docs", "get")}


@pytest.mark.parametrize("path", ["/livez?", "/v1/jobs/shop/lookup?id=", "/v1/jobs/names/match?text="])
def test_what_is_too_long_to_be_read_is_described(server: Server, path: str) -> None:
    """The server answers by itself then, whichever route it was for."""
    reply = server.get(path + "a" * 200_000)
    assert (reply.status, reply.body) == (431, b"")
    assert all("431" in openapi.document()["paths"][route][method]["responses"] for route, method in OPERATIONS)


def test_every_problem_is_described() -> None:
    """Each kind of refusal is in the schema, and each status is given by some operation, but for those of no operation."""
    described = openapi.document()
    kinds = described["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert kinds == [f"urn:batchinfer:{slug}" for slug in KINDS]
    given_by = {status for path, method in OPERATIONS for status in described["paths"][path][method]["responses"]}
    elsewhere = {"method-not-allowed", "broken"}
    assert {str(status) for slug, (status, _) in KINDS.items() if slug not in elsewhere} <= given_by


@pytest.mark.long
def test_the_schemas_have_teeth() -> None:
    """What is no hit, no batch's reply and no problem does not pass for one."""
    described = openapi.document()["components"]
    for name, wrong in [
        ("Hit", {"job": "shop"}), ("Results", {"version": 1, "results": [{"found": True}]}), ("Job", {}), ("Jobs", {}),
        ("Problem", {"type": "urn:batchinfer:made-up", "title": "", "status": 400, "detail": ""}),
        ("Queries", {"queries": [], "more": 1}), ("Queries", {"queries": [{"id": None}]}),
        ("Texts", {"texts": "a"}), ("Texts", {"texts": [], "offsets": "bytes"}), ("Texts", {"texts": [], "languages": ["zh_Hans"]}),
        ("Matches", {"matches": [{"concept": "a"}], "version": 1}), ("MatchesOfMany", {"version": 1, "results": [{}]}),
    ]:  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, {"$ref": f"#/components/schemas/{name}", "components": described})
