"""What an answer looks like when names, ids, times and sizes are left out: error codes, null or empty, and signs.

Two brokers that answer the same request have to agree in that. Lists are compared as the set of what their elements
look like, for Kafka and we have other configs, folders and features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from kraft.protocol.encoding import ZERO_UUID, Message


def shape(value: Any, name: str = "") -> Any:
    if isinstance(value, Message):
        return {each: shape(getattr(value, each), each) for each in value.__slots__ if not each.startswith("_")}
    if value is None:
        return "null"
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if name.endswith("error_code") or value < 0 else "number"
    if isinstance(value, UUID):
        return "no id" if value == ZERO_UUID else "id"
    if isinstance(value, str):
        return "text" if value else "no text"
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes" if len(value) else "no bytes"
    return sorted({repr(each): each for each in map(shape, value)}.items())


def differences(ours: Any, golden: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, ours, golden) of each leaf that differs."""
    if isinstance(ours, dict) and isinstance(golden, dict):
        for name in golden:
            yield from differences(ours.get(name), golden[name], f"{path}.{name}" if path else name)
    elif isinstance(ours, list) and isinstance(golden, list):
        yield from _of_lists([each for _, each in ours], [each for _, each in golden], path + "[]")
    elif ours != golden:
        yield path, str(ours), str(golden)


def _of_lists(ours: list[Any], golden: list[Any], path: str) -> Iterator[tuple[str, str, str]]:
    if not ours or not golden:
        if ours != golden:
            yield path, "empty" if not ours else "some", "empty" if not golden else "some"
        return
    for each in ours:
        if each not in golden:
            yield from min((list(differences(each, other, path)) for other in golden), key=len)
    for each in golden:
        if each not in ours:
            yield from min((list(differences(other, each, path)) for other in ours), key=len)
