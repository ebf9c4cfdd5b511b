"""Our writers against kio's own, which is the oracle: the same bytes for every message that we speak."""

from __future__ import annotations

import io
import random
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Any, get_args, get_origin
from uuid import UUID

import pytest
from kio.schema.errors import ErrorCode
from kio.serial import entity_writer

from kraft.wire import apis, schemas
from kraft.wire.codec import encode_body

CLASSES = [
    make(api, api.version)
    for api in sorted(apis.BY_KEY.values(), key=lambda api: api.key)
    for make in (schemas.request_class, schemas.response_class)
]
BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63, "uint16": 16, "uint32": 32}


def value_of(kind: Any, kafka_type: str | None, rng: random.Random) -> Any:
    if isinstance(kind, UnionType):
        inner = next(option for option in get_args(kind) if option is not type(None))
        return None if rng.random() < 0.3 else value_of(inner, kafka_type, rng)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        count = rng.choice((0, 1, 2) if is_dataclass(item) else (0, 1, 3, 200))
        return tuple(value_of(item, kafka_type, rng) for _ in range(count))
    if is_dataclass(kind):
        return entity_of(kind, rng)
    return scalar_of(kafka_type, rng)


def scalar_of(kafka_type: str | None, rng: random.Random) -> Any:
    if kafka_type in BITS:
        return rng.getrandbits(BITS[kafka_type])
    match kafka_type:
        case "bool":
            return rng.random() < 0.5
        case "string":
            return "é" * rng.choice((0, 1, 63, 64, 9_000))
        case "bytes" | "records":
            return rng.randbytes(rng.choice((0, 1, 126, 127, 20_000)))
        case "uuid":
            return UUID(bytes=rng.randbytes(16), version=4)
        case "error_code":
            return rng.choice(list(ErrorCode))
        case "timedelta_i32" | "timedelta_i64":
            return timedelta(milliseconds=rng.getrandbits(30))
        case "datetime_i64":
            return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=rng.getrandbits(30))
    raise AssertionError(kafka_type)


def entity_of(entity_class: Any, rng: random.Random) -> Any:
    values = {
        field.name: value_of(field.type, field.metadata.get("kafka_type"), rng)
        for field in fields(entity_class)
        if field.default is MISSING or rng.random() < 0.5
    }
    values = {
        field.name: field.default if "tag" in field.metadata and values[field.name] is None else values[field.name]
        for field in fields(entity_class)
        if field.name in values
    }
    return entity_class(**values)


@pytest.mark.parametrize("entity_class", CLASSES, ids=lambda entity_class: entity_class.__name__)
def test_every_message_has_the_bytes_that_kio_writes(entity_class: Any) -> None:
    rng = random.Random(entity_class.__name__)
    for _ in range(10):
        entity = entity_of(entity_class, rng)
        expected = io.BytesIO()
        entity_writer(entity_class)(expected, entity)
        assert b"".join(encode_body(entity)) == expected.getvalue(), entity
