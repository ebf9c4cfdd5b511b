"""The OpenAPI 3.1 document, made from the routes and the models of their bodies. Pure, made once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from aiohttp import web
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from kraft.http.endpoint import Body, Call, Header, Parameter, Route
from kraft.http.errors import status_of
from kraft.http.extension_fields import KRAFT_FIELDS, without_marked
from kraft.http.parameters import PATH_PARAMETERS, parameters_in
from kraft.http.v2.models import ErrorBody
from kraft.protocol.media_types import PLAIN_JSON, V2_JSON

OPENAPI_VERSION = "3.1.0"
REF = "#/components/schemas/{model}"
STRUCT_REF = "#/components/schemas/{name}"
Mode: TypeAlias = Literal["validation", "serialization"]

ANYWHERE = (400, 403, 500, 50302)
"""What any route can answer: what is no request, a stranger's name or page, a fault of ours, too many connections."""
WITH_BODY = (408, 413, 415)
RETRY_AFTER = Header(description="Seconds.", schema={"type": "integer", "minimum": 1})
_DESCRIPTION = (
    "Confluent's REST dialects v2 and v3 over a replicated log, and what they lack. Every node serves every request. "
    "What this document does not describe is refused in the strict profile (`strict = true` in cluster.toml); by "
    "default a missing content type, `application/json` in the v2 dialect, other spellings of media types, a "
    "trailing slash and unknown query parameters are forgiven. Fields marked `x-addition` are in no other proxy's "
    f"answers; strict answers have them when the request has `Prefer: {KRAFT_FIELDS}`."
)
_TAGS = {
    "v2": "Confluent's REST v2: produce, read, metadata, consumers.",
    "v3": "Confluent's REST v3: administration, consumer groups, produce with results per record.",
    "node": "This node and how it sees the cluster.",
}


def openapi_routes(routes: Sequence[Route], *, is_strict: bool) -> tuple[Route, ...]:
    """The routes that serve the document of `routes` and themselves. The aliases are those of Strimzi's bridge."""
    cached: list[bytes] = []

    async def openapi(call: Call) -> web.Response:
        if not cached:
            cluster_id = call.context.gateway.cluster_id
            cached.append(msgspec.json.encode(document((*routes, *mine), cluster_id=cluster_id, is_strict=is_strict)))
        return web.Response(body=cached[0], headers={"Content-Type": PLAIN_JSON})

    def route(path: str, name: str) -> Route:
        return Route(
            method="GET", path=path, handler=openapi, summary="This document.", tag="node", name=name,
            answers={200: Body(content={PLAIN_JSON: dict[str, Any]})}, is_alias=path != "/openapi.json",
            answers_early=True,
        )  # fmt: skip

    aliases = (route("/openapi", "node_openapi_alias"), route("/openapi/v3", "node_openapi_v3_alias"))
    mine = (route("/openapi.json", "node_openapi"), *(() if is_strict else aliases))
    return mine


def document(routes: Sequence[Route], *, cluster_id: str, is_strict: bool) -> dict[str, Any]:
    """`cluster_id` is the example of the parameter of that name, so that requests can be tried as they stand."""
    schemas = _Schemas(routes)
    if is_strict:
        without_marked(schemas.definitions)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    for item in paths.values():
        _set_examples(item, {"cluster_id": cluster_id})
    used = {route.tag for route in routes}
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "kraft",
            "version": "1",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items() if tag in used],
        "paths": paths,
        "components": {"schemas": schemas.definitions},
    }


class _Schemas:
    """Schemas of all models, each defined once under components; a pydantic one has two when it is read and written."""

    def __init__(self, routes: Iterable[Route]) -> None:
        models: dict[tuple[int, Mode], Any] = {(id(ErrorBody), "serialization"): ErrorBody}
        for route in routes:
            models |= {(id(model), "validation"): model for model in _models([route.body])}
            models |= {(id(model), "serialization"): model for model in _models(route.answers.values())}
        structs = {key: model for key, model in models.items() if is_struct(model)}
        inputs = [(key, key[1], TypeAdapter(model)) for key, model in models.items() if key not in structs]
        schemas, common = TypeAdapter.json_schemas(inputs, ref_template=REF, schema_generator=GenerateJsonSchema)
        self._by_key = {key: schema for (key, _), schema in schemas.items()}
        self.definitions: dict[str, Any] = common.get("$defs", {})
        described, components = msgspec.json.schema_components(structs.values(), ref_template=STRUCT_REF)
        self._by_key |= dict(zip(structs, described, strict=True))
        assert not self.definitions.keys() & components.keys(), self.definitions.keys() & components.keys()
        self.definitions |= components

    def of(self, model: Any, mode: Mode) -> dict[str, Any]:
        return {} if model is None else dict(self._by_key[(id(model), mode)])


def schema_of(model: Any, mode: Mode = "validation") -> dict[str, Any]:
    """The JSON schema of one model, with the definitions that it needs. `mode` is of a pydantic model."""
    if not is_struct(model):
        return TypeAdapter(model).json_schema(mode=mode)
    (schema,), components = msgspec.json.schema_components([model], ref_template="#/$defs/{name}")
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return {**(components[name] if name else schema), "$defs": components}


def is_struct(model: Any) -> bool:
    """A msgspec struct, or a list of one."""
    return (isinstance(model, type) and issubclass(model, msgspec.Struct)) or any(map(is_struct, get_args(model)))


def _models(bodies: Iterable[Body | None]) -> Iterable[Any]:
    return [model for body in bodies if body for model in body.content.values() if model is not None]


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [
            *_path_parameters(route),
            *_parameters(route.query, "query"),
            *_parameters(route.headers, "header"),
        ],
        "responses": _responses(route, schemas),
    }
    if route.is_alias:
        operation["deprecated"] = True
    if route.body:
        content = _content(route.body, schemas, "validation")
        operation["requestBody"] = {"required": not route.body.is_optional, "content": content}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARAMETERS[name].description,
            "schema": dict(PATH_PARAMETERS[name].schema),
        }
        for name in parameters_in(route.path)
    ]


def _set_examples(item: Mapping[str, Any], examples: Mapping[str, str]) -> None:
    for operation in item.values():
        for parameter in operation["parameters"]:
            if parameter["name"] in examples:
                parameter["example"] = examples[parameter["name"]]


def _parameters(parameters: Iterable[Parameter], place: str) -> list[dict[str, Any]]:
    return [
        {"name": p.name, "in": place, "required": p.is_required, "description": p.description, "schema": dict(p.schema)}
        for p in parameters
    ]


def _content(body: Body, schemas: _Schemas, mode: Mode) -> dict[str, Any]:
    return {media: {"schema": schemas.of(model, mode)} if model else {} for media, model in body.content.items()}


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, body in sorted(route.answers.items()):
        response: dict[str, Any] = {"description": (body.description if body else "") or "Success."}
        if body:
            response["content"] = _content(body, schemas, "serialization")
            if body.headers:
                response["headers"] = _headers(body.headers)
        responses[str(status)] = response
    media = (PLAIN_JSON, V2_JSON) if route.tag == "v2" else (PLAIN_JSON,)
    error = {each: {"schema": schemas.of(ErrorBody, "serialization")} for each in media}
    for status, codes in sorted(_error_codes(route).items()):
        listed = ", ".join(str(code) for code in sorted(codes))
        described: dict[str, Any] = {"description": f"error_code {listed}", "content": error}
        if status in (429, 503):
            described["headers"] = _headers({"Retry-After": RETRY_AFTER})
        responses.setdefault(str(status), described)
    return responses


def _error_codes(route: Route) -> dict[int, set[int]]:
    """Status -> codes: those of the route, and those that any route of its kind can answer."""
    has_content = any(body is not None for body in route.answers.values())
    codes = {*route.errors, *ANYWHERE, *(WITH_BODY if route.body else ()), *((406,) if has_content else ())}
    by_status: dict[int, set[int]] = {}
    for code in codes:
        by_status.setdefault(status_of(code), set()).add(code)
    return by_status


def _headers(headers: Mapping[str, Header]) -> dict[str, Any]:
    return {
        name: {"description": header.description, "required": not header.is_optional, "schema": dict(header.schema)}
        for name, header in headers.items()
    }
