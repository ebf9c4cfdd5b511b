"""The HTTP requests with the most items that fit into so many bytes: made from the OpenAPI document of a node, for
each operation that takes JSON.

One array or map of a body is filled with the smallest items that its schema takes: all the same, or all different.
There are bodies with many fields that nobody knows, too, and arrays and objects within each other. An operation or a
field that is added later is among them without a change here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.support.dense_frames import KNOWN, short_name

Schema: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str, ...]
ITEM, VALUE = "[]", "{}"
"""Steps of a path: into the items of an array, into the values of a map."""
DEPTH_MAX = 8
PARAMETERS = {"partition": "0", "partition_id": "0", "broker_id": "1", "instance": KNOWN}
"""Path parameters that are not names."""


@dataclass(frozen=True)
class DenseBody:
    operation: str
    shape: str
    method: str
    path: str
    media: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.operation} {self.shape} ({len(self.data)} bytes of {self.media})"

    @property
    def request(self) -> bytes:
        head = (
            f"{self.method} {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {self.media}\r\n"
            f"Content-Length: {len(self.data)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + self.data


def operations(document: Mapping[str, Any]) -> list[str]:
    """The ids of those that take JSON."""
    return [operation["operationId"] for _, _, operation in _with_body(document)]


def bodies(document: Mapping[str, Any], operation_id: str, *, size: int) -> Iterator[DenseBody]:
    """All of them for one operation, each at most `size` bytes."""
    cluster_id = _cluster_id(document)
    for method, path, operation in _with_body(document):
        if operation["operationId"] != operation_id:
            continue
        url = re.sub(r"{(\w+)}", lambda name: {"cluster_id": cluster_id, **PARAMETERS}.get(name[1], KNOWN), path)
        for media, content in operation["requestBody"]["content"].items():
            if "json" in media:
                schemas = _Schemas(document["components"]["schemas"])
                for shape, data in _shapes(schemas, content.get("schema", {}), size):
                    yield DenseBody(operation_id, shape, method.upper(), url, media, data)


def _with_body(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if any("json" in media for media in operation.get("requestBody", {}).get("content", {})):
                yield method, path, operation


def _cluster_id(document: Mapping[str, Any]) -> str:
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "cluster_id":
                    return str(parameter["example"])
    raise LookupError("cluster_id")


def _shapes(schemas: _Schemas, schema: Schema, size: int) -> Iterator[tuple[str, bytes]]:
    for path in schemas.long_parts(schema):
        for is_distinct in (False, True):
            data = _largest(lambda count, p=path, d=is_distinct: schemas.filled(schema, p, count, d), size)
            yield f"{'.'.join(path)} {'distinct' if is_distinct else 'same'}", data
    yield "unknown fields", _largest(lambda count: {short_name(n): 0 for n in range(count)}, size)
    yield "nested arrays", b"[" * (size // 2) + b"]" * (size // 2)
    yield "nested objects", b'{"a":' * (size // 6) + b"0" + b"}" * (size // 6)
    yield "numbers", b"[" + b"0," * (size // 2 - 2) + b"0]"
    yield "empty objects", b"[" + b"{}," * (size // 3 - 2) + b"{}]"
    yield "values one after another", b"{}" * (size // 2)


def _largest(made: Any, size: int) -> bytes:
    def text(count: int) -> bytes:
        return json.dumps(made(count), separators=(",", ":")).encode()

    few, more = len(text(100)), len(text(200))
    count = max(1, int((size - few) / max((more - few) / 100, 1)) + 100)
    while len(found := text(count)) > size:
        count = count * size // len(found) - 1
    return found


class _Schemas:
    """The schemas of a document by name."""

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components

    def _whole(self, schema: Schema) -> Schema:
        """Without references and alternatives: of those the one with the most inside."""
        for _ in range(DEPTH_MAX):
            if "$ref" in schema:
                schema = self._components[schema["$ref"].rpartition("/")[2]]
            elif among := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
                schema = max(among, key=lambda each: len(json.dumps(self._resolved(each))))
            else:
                break
        return schema

    def _resolved(self, schema: Schema) -> Schema:
        return self._components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def long_parts(self, schema: Schema, depth: int = 0) -> Sequence[Path]:
        """The way to each array and map, from the outside in."""
        schema = self._whole(schema)
        found: list[Path] = []
        if depth > DEPTH_MAX:
            return found
        if "items" in schema:
            found += [(ITEM,), *((ITEM, *path) for path in self.long_parts(schema["items"], depth + 1))]
        if isinstance(values := schema.get("additionalProperties"), Mapping):
            found += [(VALUE,), *((VALUE, *path) for path in self.long_parts(values, depth + 1))]
        for name, inner in schema.get("properties", {}).items():
            found += [(name, *path) for path in self.long_parts(inner, depth + 1)]
        return found

    def filled(self, schema: Schema, path: Path, count: int, is_distinct: bool) -> Any:
        """With `count` items at the end of the path, and one item in each array on the way."""
        schema = self._whole(schema)
        step, rest = path[0], path[1:]
        if step not in (ITEM, VALUE):
            inner = self.filled(schema["properties"][step], rest, count, is_distinct)
            return {**self.smallest(schema), step: inner}
        of = schema["items"] if step == ITEM else schema["additionalProperties"]
        if rest:
            one = self.filled(of, rest, count, is_distinct)
            return [one] if step == ITEM else {KNOWN: one}
        if step == VALUE:
            return {short_name(number): self.smallest(of) for number in range(count)}
        if not is_distinct:
            return [self.smallest(of)] * count
        return [self.smallest(of, number) for number in range(count)]

    def smallest(self, schema: Schema, number: int | None = None) -> Any:
        """A value with what must be there. `number`: another for each."""
        schema = self._whole(schema)
        if "enum" in schema:
            return schema["enum"][0]
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            needed = schema.get("required", ())
            return {name: self.smallest(schema["properties"][name], number) for name in needed}
        if kind == "array":
            return [self.smallest(schema["items"])] * schema.get("minItems", 0)
        if kind in ("integer", "number"):
            return max(schema.get("minimum", 0), number or 0)
        if kind == "boolean":
            return False
        return KNOWN if number is None else short_name(number)
