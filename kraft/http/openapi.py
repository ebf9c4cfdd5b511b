"""The OpenAPI 3.1 document, made from the routes and their pydantic models. Pure, made once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from aiohttp import web
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from kraft.http.errors import status_of
from kraft.http.media import PLAIN_JSON
from kraft.http.routes import Body, Call, Route
from kraft.http.v2.models import ErrorBody

REF = "#/components/schemas/{model}"
_INTEGERS = ("partition", "broker_id")


def openapi_route(routes: Sequence[Route]) -> Route:
    """The route that serves the document of `routes` and itself."""
    cached: list[bytes] = []

    async def openapi(call: Call) -> web.Response:
        if not cached:
            cached.append(orjson.dumps(document((*routes, route))))
        return web.Response(body=cached[0], headers={"Content-Type": PLAIN_JSON})

    route = Route(
        method="GET", path="/openapi.json", handler=openapi, summary="This document.", tag="node",
        answers={200: Body(content={PLAIN_JSON: dict[str, Any]})},
    )  # fmt: skip
    return route


def document(routes: Sequence[Route]) -> dict[str, Any]:
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kraft",
            "version": "1",
            "description": "Confluent's REST dialects v2 and v3 over a replicated log, and what they lack.",
        },
        "paths": paths,
        "components": {"schemas": schemas.definitions},
    }


class _Schemas:
    """Schemas of all models, each defined once under components."""

    def __init__(self, routes: Iterable[Route]) -> None:
        models = {id(model): model for route in routes for model in _models(route)}
        models[id(ErrorBody)] = ErrorBody
        inputs = [(key, "serialization", TypeAdapter(model)) for key, model in models.items()]
        schemas, common = TypeAdapter.json_schemas(
            inputs,  # type: ignore[arg-type]
            ref_template=REF,
            schema_generator=GenerateJsonSchema,
        )
        self._by_id = {key: schema for (key, _), schema in schemas.items()}
        self.definitions: dict[str, Any] = common.get("$defs", {})

    def of(self, model: Any) -> dict[str, Any]:
        if model is None:
            return {}
        return dict(self._by_id[id(model)])


def _models(route: Route) -> Iterable[Any]:
    bodies = [route.body, *route.answers.values()]
    return [model for body in bodies if body for model in body.content.values() if model is not None]


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route, schemas),
    }
    if route.body:
        operation["requestBody"] = {"required": True, "content": _content(route.body, schemas)}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", route.path)
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if name in _INTEGERS else "string"}}
        for name in names
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": p.name, "in": "query", "required": False, "description": p.description, "schema": dict(p.schema)}
        for p in route.query
    ]


def _content(body: Body, schemas: _Schemas) -> dict[str, Any]:
    return {media: {"schema": schemas.of(model)} if model else {} for media, model in body.content.items()}


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, body in sorted(route.answers.items()):
        responses[str(status)] = {"description": (body.description if body else "") or "Success."}
        if body:
            responses[str(status)]["content"] = _content(body, schemas)
    by_status: dict[int, list[int]] = {}
    for code in sorted(set(route.errors)):
        by_status.setdefault(status_of(code), []).append(code)
    error = {PLAIN_JSON: {"schema": schemas.of(ErrorBody)}}
    for status, codes in sorted(by_status.items()):
        listed = ", ".join(str(code) for code in codes)
        responses.setdefault(str(status), {"description": f"error_code {listed}", "content": error})
    return responses
