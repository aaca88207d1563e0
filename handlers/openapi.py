"""OpenAPI 3.1, made from the endpoints and the very models that validate and answer."""

import re
from collections.abc import Iterable
from typing import Any, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from handlers.credentials import KEY_HEADER
from handlers.errors import STATUS_OF, ErrorBody
from handlers.rest import Access, Endpoint
from services.entitlements.errors import PlanLimitReached

_REF = "#/components/schemas/{model}"
_PATH_PART = re.compile(r"\{(\w+)(?::[^}]*)?\}")

Json = dict[str, Any]


def build_openapi(endpoints: Iterable[Endpoint], *, version: str, public_url: str) -> Json:
    """Describe `endpoints` as an OpenAPI 3.1 document."""
    endpoints = list(endpoints)
    schemas, refs = _schemas(endpoints)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        path = _PATH_PART.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ERPMax Orchestrator",
            "version": version,
            "description": "Sign up tenants, sell and bill plans, provision and operate ERPNext instances. "
            "Live events are described at /asyncapi.json.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token. An API key is taken here too, where `apiKey` is.",
                },
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": KEY_HEADER,
                    "description": "A tenant's API key, `erpmax_...`, with the scope that an operation names.",
                },
            },
        },
    }


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _schemas(endpoints: list[Endpoint]) -> tuple[Json, dict[tuple[Any, str], Json]]:
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ErrorBody, "serialization")]
    for endpoint in endpoints:
        inputs += [(model, "validation") for model in (endpoint.body, endpoint.query) if model is not None]
        inputs += [(model, "serialization") for model in endpoint.also.values()]
        if _is_model(endpoint.answer):
            inputs.append((endpoint.answer, "serialization"))
    unique = list(dict.fromkeys(inputs))
    refs, document = models_json_schema(unique, ref_template=_REF)
    return document.get("$defs", {}), {(model, mode): schema for (model, mode), schema in refs.items()}


def _operation(endpoint: Endpoint, refs: dict[tuple[Any, str], Json]) -> Json:
    operation: Json = {
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "operationId": _operation_id(endpoint),
        "parameters": _path_parameters(endpoint) + _query_parameters(endpoint),
        "responses": _responses(endpoint, refs),
    }
    if endpoint.alias_of:
        operation["description"] = f"The same as `{endpoint.alias_of}`, for released clients."
    if endpoint.access is not Access.PUBLIC:
        operation["security"] = [{"bearer": []}]
        if endpoint.scope is not None:
            # Where a scheme is no OAuth, the roles that are needed are listed (OpenAPI 3.1, Security Requirement).
            operation["security"].append({"apiKey": [endpoint.scope.value]})
        if endpoint.access is Access.OPTIONAL:
            # Nobody need be signed in (OpenAPI 3.1, Operation Object, security).
            operation["security"].append({})
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.body_required,
            "content": {"application/json": {"schema": refs[endpoint.body, "validation"]}},
        }
    if endpoint.takes_file:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    name = re.sub(r"\W+", "_", f"{endpoint.method.lower()}_{endpoint.path.strip('/')}").strip("_")
    # An alias that is spelled with an underscore would have the name of the path that is spelled with a hyphen.
    if "_" in _PATH_PART.sub("", endpoint.path):
        name += "_underscored"
    return f"{name}_slash" if endpoint.path.endswith("/") and endpoint.path != "/" else name


def _path_parameters(endpoint: Endpoint) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "format": "uuid"} if kind is UUID else {"type": "string"},
        }
        for name, kind in endpoint.path_params.items()
    ]


def _query_parameters(endpoint: Endpoint) -> list[Json]:
    if endpoint.query is None:
        return []
    schema = TypeAdapter(endpoint.query).json_schema(ref_template=_REF)
    required = set(schema.get("required", []))
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema.get("properties", {}).items()
    ]


def _responses(endpoint: Endpoint, refs: dict[tuple[Any, str], Json]) -> Json:
    if _is_model(endpoint.answer):
        content = {"application/json": {"schema": refs[endpoint.answer, "serialization"]}}
    elif endpoint.content_type == "application/json":
        content = {"application/json": {"schema": _free_schema(endpoint.answer)}}
    else:
        content = {endpoint.content_type: {"schema": {"type": "string"}}}
    if endpoint.as_csv:
        content["text/csv"] = {"schema": {"type": "string"}}
    responses: Json = {str(endpoint.status): {"description": "Done", "content": content}}
    for status, model in endpoint.also.items():
        schema = refs[model, "serialization"]
        responses[str(status)] = {"description": "Done", "content": {"application/json": {"schema": schema}}}
    for status, description in sorted(_refusals(endpoint).items()):
        responses[str(status)] = _error(description)
    return responses


def _free_schema(answer: object) -> Json:
    return {"type": "object"} if get_origin(answer) is dict or answer is dict else {}


def _refusals(endpoint: Endpoint) -> dict[int, str]:
    refusals = {
        400: "The request cannot be carried out",
        422: "A part of the request is refused",
        429: "Too many requests; Retry-After says how many seconds to wait",
        500: "A fault of ours; the answer carries the request id",
        503: "Something this needs is away; Retry-After says when to try again",
    }
    if endpoint.access is not Access.PUBLIC:
        refusals |= {401: "No valid access token", 403: "Not allowed"}
    if endpoint.counted:
        refusals[402] = PlanLimitReached.message
    if endpoint.body is not None:
        refusals[413] = "The request body is too large"
    for error in endpoint.errors:
        refusals[STATUS_OF[error.kind]] = error.message
    return refusals


def _error(description: str) -> Json:
    schema = {"$ref": _REF.format(model=ErrorBody.__name__)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
