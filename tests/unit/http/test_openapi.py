"""The OpenAPI document: whole, consistent, and the same as what is served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pydantic
import pytest

from kraft.http.app import ROUTES
from kraft.http.endpoint import Route
from kraft.http.openapi import is_struct
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import Door, with_door
from tests.unit.http.test_endpoints import CASES, gateway

METHODS = {"get", "put", "post", "delete", "patch"}


def nodes(document: Any) -> Iterator[Any]:
    yield document
    for child in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from nodes(child)


def served(door: Door) -> set[tuple[str, str]]:
    """What aiohttp has registered, without HEAD, the trailing slashes and the answer to everything else."""
    return {
        (route.method.lower(), route.resource.canonical)
        for route in door.app.router.routes()
        if route.resource is not None
        and route.method not in ("HEAD", "*")
        and (route.resource.canonical == "/" or not route.resource.canonical.endswith("/"))
    }


def test_document() -> None:
    async def story(door: Door) -> None:
        document = (await door.ask("GET", "/openapi.json")).json
        check_structure(document)
        described = {(method, path) for path, item in document["paths"].items() for method in item}
        assert described == served(door)
        assert len(described) == len(door.app[ROUTES]), "two routes have one method and path"

    with_door(story, FakeGateway())


def check_structure(document: Any) -> None:
    """Unique ids, path parameters declared, references that lead somewhere; `tests/contract/http` has the rest."""
    assert document["openapi"] == "3.1.0"
    assert {route["name"] for route in document["tags"]} >= {"v2", "v3", "node"}
    operations = [(path, method, op) for path, item in document["paths"].items() for method, op in item.items()]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations:
        assert method in METHODS
        assert path.startswith("/")
        check_operation(path, operation)
    for node in nodes(document):
        if isinstance(node, dict) and isinstance(reference := node.get("$ref"), str):
            name = re.fullmatch(r"#/components/schemas/([\w.-]+)", reference)
            assert name, reference
            assert name.group(1) in document["components"]["schemas"], reference


def check_operation(path: str, operation: Any) -> None:
    parameters = operation["parameters"]
    in_path = {p["name"] for p in parameters if p["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path))
    assert all(p["required"] for p in parameters if p["in"] == "path")
    assert all("schema" in p for p in parameters)
    assert operation["summary"]
    assert operation["responses"]
    for status, response in operation["responses"].items():
        assert re.fullmatch(r"[2345]\d\d", status)
        assert response["description"]
        for media in response.get("content", {}).values():
            assert not media or "schema" in media
    if "requestBody" in operation:
        assert operation["requestBody"]["content"]


def route_of(door: Door, method: str, path: str) -> Route:
    """The first that fits, as aiohttp finds it."""
    for route in door.app[ROUTES]:
        if route.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", route.path) + "/?", path):
            assert isinstance(route, Route)
            return route
    raise AssertionError((method, path))


def known(document: Any, model: Any) -> Any:
    """What of a document its model knows. Raises ValidationError for one that it refuses."""
    if is_struct(model):
        return msgspec.to_builtins(msgspec.convert(document, type=model))
    adapter: Any = pydantic.TypeAdapter(model)
    return adapter.dump_python(adapter.validate_python(document), mode="json", exclude_unset=True)


def test_each_answer_of_the_door_fits_its_schema() -> None:
    """The models are checked against real answers: an answer that a model refuses is a wrong document."""

    async def story(door: Door) -> None:
        checked = 0
        for case in CASES:
            answer = await door.ask(case.method, case.path, case.body, **case.headers)
            route = route_of(door, case.method, case.path.split("?")[0])
            body = route.answers.get(answer.status)
            model = body.content.get(answer.headers["Content-Type"]) if body else None
            if model is not None:
                assert known(answer.json, model) == answer.json, "the answer holds what the document does not know"
                checked += 1
        assert checked > 30

    with_door(story, gateway())


@pytest.mark.parametrize("status", [405, 404])
def test_what_is_not_described_is_not_served(status: int) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("PUT" if status == 405 else "GET", "/topics" if status == 405 else "/topicz")
        assert answer.status == status

    with_door(story, FakeGateway())
