"""A row: one request of a dialect and what its answer has to be, to the last field.

A shape is a document with types in the place of values: `int` for any number, `Maybe(str)` for a string or null,
`Each(shape)` for a list of such. Fields that a shape does not name are a difference.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

V2 = "application/vnd.kafka.v2+json"
JSON = "application/vnd.kafka.json.v2+json"
BINARY = "application/vnd.kafka.binary.v2+json"
TEXT = "application/vnd.kafka.text.v2+json"
PLAIN = "application/json"


@dataclass(frozen=True)
class Maybe:
    """Null, or this."""

    shape: Any


@dataclass(frozen=True)
class Each:
    """A list of these, with at least so many."""

    shape: Any
    at_least: int = 1


@dataclass(frozen=True)
class Error:
    """The body of an error; Kafka's code and whether it is retriable may be added."""

    code: int


@dataclass(frozen=True)
class Text:
    """An answer that is no JSON and holds this."""

    part: str


@dataclass(frozen=True)
class Row:
    """`also_with_slash`: asked again with a slash at the end, which must change nothing."""

    method: str
    path: str
    status: int
    shape: Any = None
    """None: an empty body."""
    body: Any = None
    media: str = PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    """Headers of the answer."""
    also_with_slash: bool = False
    is_once: bool = False
    """Not asked again: other GETs are while they differ, as news of the metadata need a moment to reach every node."""
    is_everywhere: bool = False
    """Asked of every node, so that all know what the rows after it need."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}{f' ({self.note})' if self.note else ''} -> {self.status}"


Rows: TypeAlias = Generator[Row, Any, None]
"""Yields rows, is sent the document of each answer."""


def refused(method: str, path: str, code: int, body: Any = None, **more: Any) -> Row:
    status = code if code < 1000 else code // 100
    more.setdefault("media", _error_media(path, status, more.get("headers", {}).get("Accept", "*/*")))
    return Row(method, path, status, Error(code), body, **more)


def _error_media(path: str, status: int, accept: str) -> str:
    """Errors of v2 are negotiated as answers are; those of v3, and of a path or method without a route, are JSON."""
    is_v2 = path.split("/")[1] in ("topics", "consumers", "brokers", "admin") and status != 405
    return V2 if is_v2 and (accept == "*/*" or accept.startswith("application/vnd.kafka")) else PLAIN


def differences(shape: Any, found: Any, place: str = "$") -> list[str]:
    """What is different, each with its place; nothing when the document has the shape."""
    match shape:
        case Maybe():
            return [] if found is None else differences(shape.shape, found, place)
        case Each():
            return _each(shape, found, place)
        case Error():
            return _error(shape, found, place)
        case Text():
            return [] if shape.part in str(found) else [f"{place}: no {shape.part!r} in {str(found)[:200]!r}"]
        case dict():
            return _object(shape, found, place)
        case list():
            return _list(shape, found, place)
        case type():
            is_so = isinstance(found, shape) and (shape is bool or not isinstance(found, bool))
            return [] if is_so else [f"{place}: {found!r} is no {shape.__name__}"]
    return [] if shape == found else [f"{place}: {found!r}, not {shape!r}"]


def _each(shape: Each, found: Any, place: str) -> list[str]:
    if not isinstance(found, list) or len(found) < shape.at_least:
        return [f"{place}: {json.dumps(found)[:200]}, not a list of at least {shape.at_least}"]
    return [each for number, item in enumerate(found) for each in differences(shape.shape, item, f"{place}[{number}]")]


def _list(shape: list[Any], found: Any, place: str) -> list[str]:
    if not isinstance(found, list) or len(found) != len(shape):
        return [f"{place}: {json.dumps(found)[:200]}, not a list of {len(shape)}"]
    pairs = zip(shape, found, strict=True)
    return [each for number, (s, f) in enumerate(pairs) for each in differences(s, f, f"{place}[{number}]")]


def _object(shape: dict[str, Any], found: Any, place: str) -> list[str]:
    if not isinstance(found, dict):
        return [f"{place}: {found!r} is no object"]
    result = [f"{place}.{name}: missing" for name in shape if name not in found]
    result += [f"{place}.{name}: not expected" for name in found if name not in shape]
    both = [name for name in shape if name in found]
    return result + [each for name in both for each in differences(shape[name], found[name], f"{place}.{name}")]


_ADDED = {"kafka_code": int, "retriable": bool}


def _error(shape: Error, found: Any, place: str) -> list[str]:
    if not isinstance(found, dict):
        return [f"{place}: {found!r} is no error"]
    added = {name: kind for name, kind in _ADDED.items() if name in found}
    return _object({"error_code": shape.code, "message": str, **added}, found, place)
