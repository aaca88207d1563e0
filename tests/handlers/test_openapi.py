"""OpenAPI: a valid 3.1 document, made from what serves, with nothing in it that is not served and nothing left out."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from aiohttp import ClientSession
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.openapi import build_openapi
from handlers.rest import Access, Endpoint
from server.settings import Settings
from server.web import create_app, endpoints
from server.wiring import Part, build
from tests.handlers.frame import Order, router
from tests.support.running import Orchestrator

Json = dict[str, Any]

# What the application serves besides REST: pages for people, their files, and the documents themselves.
NOT_REST = re.compile(
    r"/(docs|redoc|dashboard|metrics|reset-password|verify-email|finish-registration)/?|/invitations(/{token})?|/assets/.+"
    r"|/(openapi|asyncapi)\.json|/(ws/)?socket\.io/"
)


@pytest.fixture(scope="module")
def served() -> list[Endpoint]:
    return endpoints(development=True)


@pytest.fixture(scope="module")
def document(served: list[Endpoint]) -> Json:
    # The way through JSON is the one that a client's copy takes.
    made = build_openapi(served, version="1.2.3", public_url="https://erp.example.org")
    parsed: Json = json.loads(json.dumps(made))
    return parsed


@pytest.fixture(scope="module")
def made() -> Json:
    """A document of the small application whose models are known here."""
    return build_openapi(router.endpoints, version="0", public_url="http://test")


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def nodes(value: object, key: str) -> Iterator[Any]:
    """Find the values under `key` anywhere within a document."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        for item in value.values():
            yield from nodes(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item, key)


def test_the_document_is_valid_openapi(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()
    assert document["info"]["version"] == "1.2.3"
    assert document["servers"] == [{"url": "https://erp.example.org"}]


def test_every_schema_is_valid_json_schema(document: Json) -> None:
    schemas = [*document["components"]["schemas"].values(), *nodes(document["paths"], "schema")]
    assert len(schemas) > 50
    for schema in schemas:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_reference_leads_somewhere(document: Json) -> None:
    references = set(nodes(document, "$ref"))
    assert references
    for reference in references:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part.replace("~1", "/").replace("~0", "~")]
        assert isinstance(place, dict)


def test_operations_have_names_of_their_own(document: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["tags"], (method, path)


def test_every_operation_tells_every_refusal_it_may_give(document: Json, served: list[Endpoint]) -> None:
    access = {(endpoint.method, re.sub(r":[^}]*", "", endpoint.path)): endpoint for endpoint in served}
    for method, path, operation in operations(document):
        endpoint = access[method, path]
        expected = {str(endpoint.status), "400", "422", "429", "500", "503"}
        expected |= {"401", "403"} if endpoint.access is not Access.PUBLIC else set()
        expected |= {"413"} if "requestBody" in operation else set()
        assert expected <= set(operation["responses"]), (method, path)
        for status, response in operation["responses"].items():
            if status >= "400":
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"} or status == "503", (method, path, status)
        secured: list[Json] = [{"bearer": []}] if endpoint.access is not Access.PUBLIC else []
        secured += [{"apiKey": [endpoint.scope.value]}] if endpoint.scope is not None else []
        secured += [{}] if endpoint.access is Access.OPTIONAL else []
        assert operation.get("security", []) == secured, (method, path)


def test_both_ways_to_show_who_one_is_are_told(document: Json) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["apiKey"]["type"], schemes["apiKey"]["in"], schemes["apiKey"]["name"]) == (
        "apiKey",
        "header",
        "X-API-Key",
    )


def test_path_parameters_are_told(document: Json) -> None:
    for method, path, operation in operations(document):
        told = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert told == set(re.findall(r"\{(\w+)\}", path)), (method, path)
        assert all(parameter["required"] for parameter in operation["parameters"] if parameter["in"] == "path")


def test_pages_are_told_where_there_are_some(document: Json) -> None:
    for path in ("/api/v1/tenants", "/api/v1/billing/invoices", "/api/v1/provisioning/jobs", "/api/v1/notifications"):
        parameters = {parameter["name"]: parameter for parameter in document["paths"][path]["get"]["parameters"]}
        assert (parameters["page"]["schema"]["default"], parameters["size"]["schema"]["default"]) == (1, 20)
        assert not parameters["page"]["required"]


async def test_every_route_of_the_application_is_told_and_every_told_route_exists(
    settings: Settings, engine: AsyncEngine
) -> None:
    async with build(settings, engine, Part()) as house:
        app = create_app(house)
        routes = {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None and route.method not in ("HEAD", "OPTIONS", "*")
        }
        await house.sockets.close(window_s=0)
    rest = {(method, path) for method, path in routes if not NOT_REST.fullmatch(path)}
    built = build_openapi(endpoints(development=settings.development), version="", public_url="")
    assert rest == {(method, path) for method, path, _ in operations(built)}
    assert {path for _, path in routes - rest} >= {"/docs", "/redoc", "/openapi.json", "/asyncapi.json"}


async def test_the_running_server_shows_what_was_made(orchestrator: Orchestrator, http: ClientSession) -> None:
    async with http.get(f"{orchestrator.url}/openapi.json") as response:
        assert response.status == 200
        shown = await response.json()
    made = build_openapi(
        endpoints(development=True), version=shown["info"]["version"], public_url=orchestrator.settings.public_base
    )
    assert shown == json.loads(json.dumps(made))


def test_production_has_no_back_doors() -> None:
    made = build_openapi(endpoints(development=False), version="", public_url="")
    assert not [path for path in made["paths"] if path.startswith(("/sandbox", "/sites"))]
    assert "/sandbox/pay/{session_id}" in build_openapi(endpoints(development=True), version="", public_url="")["paths"]


def test_money_is_told_as_a_number(document: Json) -> None:
    """contract.md 1.7: prices and amounts are JSON numbers, never strings."""
    money = {
        name: schema
        for kind, described in document["components"]["schemas"].items()
        # What the public pages say of prices is a text (contract.md 3.7), with which nobody reckons.
        if not kind.startswith("Tariff")
        for properties in nodes(described, "properties")
        for name, schema in properties.items()
        if re.search("price|amount", name)
    }
    assert {"amount", "price_monthly", "price_yearly"} <= set(money)
    for name, schema in money.items():
        kinds = {schema.get("type"), *(item.get("type") for item in schema.get("anyOf", []))} - {None, "null"}
        assert kinds == {"number"}, name


class TestAgainstTheModels:
    """What is told comes from the very models that validate and answer, so it cannot drift from them."""

    def test_a_body_is_its_model(self, made: Json) -> None:
        operation = made["paths"]["/things"]["post"]
        assert operation["requestBody"] == {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
        }
        assert made["components"]["schemas"]["Order"] == Order.model_json_schema()
        assert operation["summary"] == "Answer what was understood."
        assert operation["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].startswith("#/components")

    def test_an_alias_says_so(self, made: Json) -> None:
        assert "`/things`" in made["paths"]["/old/things"]["post"]["description"]
        assert "description" not in made["paths"]["/things"]["post"]

    def test_an_optional_body_says_so(self, made: Json) -> None:
        assert made["paths"]["/things/optional"]["post"]["requestBody"]["required"] is False

    def test_declared_errors_are_told(self, made: Json) -> None:
        assert made["paths"]["/things"]["post"]["responses"]["409"]["description"] == "I am a teapot"

    def test_queries_and_paths_keep_their_types(self, made: Json) -> None:
        search = {item["name"]: item for item in made["paths"]["/things/search"]["get"]["parameters"]}
        assert {name: item["required"] for name, item in search.items()} == {
            "page": False,
            "size": False,
            "q": True,
            "unread": False,
        }
        assert search["unread"]["schema"]["type"] == "boolean"
        (thing_id,) = made["paths"]["/things/by-id/{thing_id}"]["get"]["parameters"]
        assert thing_id["schema"] == {"type": "string", "format": "uuid"}
