"""Writers of messages, made once per class: the same bytes as kio's own `entity_writer` in a fraction of its time.

Numbers that follow each other are packed together, lengths are looked up, and tagged fields (KIP-482) cost nothing
while none differs from its default. A class with a field that is not known here is left to kio.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, Protocol, cast, get_args, get_origin

from kraft.wire.varints import varint
from metadata.environment import Buffer


class Sink(Protocol):
    @property
    def write(self) -> Callable[[Buffer], object]: ...


Writer = Callable[[Sink, Any], object]
"""Writes one value."""
Step = Callable[[Sink, Any], object]
"""Writes some fields of an entity."""

_NUMBERS = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint16": "H", "uint32": "I", "bool": "?"}
_SHORT = tuple(varint(value) for value in range(128))


class _Unknown(Exception):
    """A field that only kio can write."""


@cache
def writer_of(entity_class: Any) -> Writer:
    if not entity_class.__flexible__:
        return _kio_writer(entity_class)
    try:
        return _made(entity_class)
    except _Unknown:
        return _kio_writer(entity_class)


def _kio_writer(entity_class: Any) -> Writer:
    from kio.serial import entity_writer

    writer: Any = entity_writer(entity_class)
    return cast(Writer, writer)


def _made(entity_class: Any) -> Writer:
    plain = [field for field in fields(entity_class) if "tag" not in field.metadata]
    tagged = sorted((field for field in fields(entity_class) if "tag" in field.metadata), key=_tag_of)
    steps = _steps(plain)
    tags = [(field.name, _default_of(field), varint(_tag_of(field)), _field_writer(field)) for field in tagged]

    def write(sink: Sink, entity: Any) -> None:
        for step in steps:
            step(sink, entity)
        for name, default, _, _ in tags:
            value = getattr(entity, name)
            if value is not default and value != default:
                _write_tags(sink, entity, tags)
                return
        sink.write(b"\0")

    return write


def _tag_of(field: Field[Any]) -> int:
    return int(field.metadata["tag"])


def _default_of(field: Field[Any]) -> Any:
    if field.default is MISSING:
        raise _Unknown(field.name)
    return field.default


def _write_tags(sink: Sink, entity: Any, tags: Sequence[tuple[str, Any, bytes, Writer]]) -> None:
    written: list[Buffer] = []
    count = 0
    for name, default, tag, writer in tags:
        value = getattr(entity, name)
        if value != default:
            encoded = _Collected()
            writer(encoded, value)
            data = b"".join(encoded.parts)
            written += (tag, varint(len(data)), data)
            count += 1
    sink.write(varint(count) + b"".join(written))


class _Collected:
    __slots__ = ("parts", "write")

    def __init__(self) -> None:
        self.parts: list[Buffer] = []
        self.write = self.parts.append


# --- fields -----------------------------------------------------------------------------------------------------


def _steps(plain: Sequence[Field[Any]]) -> list[Step]:
    steps: list[Step] = []
    run: list[tuple[str, str]] = []
    for field in plain:
        number = _number(field)
        if number is not None:
            run.append(number)
            continue
        if run:
            steps.append(_numbers_step(run))
            run = []
        steps.append(_step(field.name, _field_writer(field)))
    if run:
        steps.append(_numbers_step(run))
    return steps


def _number(field: Field[Any]) -> tuple[str, str] | None:
    """Path of the value and its struct code; None for what is no plain number."""
    if get_origin(field.type) is not None:
        return None  # a tuple, or nullable
    kind = field.metadata.get("kafka_type")
    if kind == "error_code":
        return f"{field.name}.value", "h"
    return (field.name, _NUMBERS[kind]) if kind in _NUMBERS else None


def _numbers_step(run: Sequence[tuple[str, str]]) -> Step:
    get = attrgetter(*(path for path, _ in run))
    pack = struct.Struct(">" + "".join(code for _, code in run)).pack
    if len(run) == 1:
        return lambda sink, entity: sink.write(pack(get(entity)))
    return lambda sink, entity: sink.write(pack(*get(entity)))


def _step(name: str, writer: Writer) -> Step:
    get = attrgetter(name)
    return lambda sink, entity: writer(sink, get(entity))


def _field_writer(field: Field[Any]) -> Writer:
    item, is_array = _item_of(field.type)
    kind = field.metadata.get("kafka_type")
    if kind == "datetime_i64" and isinstance(field.type, UnionType):
        kind = "nullable_datetime_i64"
    writer = _item_writer(item, kind)
    return _array_writer(writer) if is_array else writer


def _item_of(kind: Any) -> tuple[Any, bool]:
    """The type of one value, without `| None` and without the tuple around it; whether there is a tuple."""
    if isinstance(kind, UnionType):
        (inner,) = (option for option in get_args(kind) if option is not type(None))
        if is_dataclass(inner):
            raise _Unknown(f"a nullable {inner}")
        return _item_of(inner)
    if get_origin(kind) is tuple:
        return get_args(kind)[0], True
    return kind, False


def _item_writer(item: Any, kind: str | None) -> Writer:
    if hasattr(item, "__flexible__"):
        return writer_of(item)
    if kind in _NUMBERS:
        pack = struct.Struct(">" + _NUMBERS[kind]).pack
        return lambda sink, value: sink.write(pack(value))
    match kind:
        case "string":
            return _write_string
        case "bytes" | "records":
            return _write_bytes
        case "uuid" | "timedelta_i32" | "timedelta_i64" | "datetime_i64" | "nullable_datetime_i64" | "error_code":
            from kio.serial import writers

            writer: Writer = getattr(writers, f"write_{kind}")
            return writer
    raise _Unknown(f"{item} {kind}")


def _length(value: int) -> bytes:
    return _SHORT[value] if value < len(_SHORT) else varint(value)


def _write_string(sink: Sink, value: str | None) -> None:
    if value is None:
        sink.write(b"\0")
    else:
        data = value.encode()
        sink.write(_length(len(data) + 1) + data)


def _write_bytes(sink: Sink, value: Buffer | None) -> None:
    if value is None:
        sink.write(b"\0")
    else:
        sink.write(_length(len(value) + 1))
        sink.write(value)


def _array_writer(writer: Writer) -> Writer:
    def write(sink: Sink, items: Sequence[Any] | None) -> None:
        if items is None:
            sink.write(b"\0")
            return
        sink.write(_length(len(items) + 1))
        for item in items:
            writer(sink, item)

    return write
