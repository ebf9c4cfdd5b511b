"""Our readers and writers against kio's own, which is the oracle: the same bytes, messages and refusals."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from io import BytesIO
from types import UnionType
from typing import Any, get_args, get_origin
from uuid import UUID

import pytest
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.serial._implicit_defaults import get_tagged_field_default

from kraft.wire import apis, extensions, schemas
from kraft.wire.codec import Malformed, decode_body, encode_body
from kraft.wire.structures import Structure, structure_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)
BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63, "uint16": 16, "uint32": 32}


def schemas_of(api: apis.Api, version: int) -> Iterator[Any]:
    """kio's request and response of an API, or ours in their place."""
    for side, extended in (("request", schemas.EXTENDED_REQUESTS), ("response", schemas.EXTENDED)):
        kio = import_module(f"kio.schema.{api.schema}.v{version}.{side}") if api.key < 10_000 else None
        yield getattr(extensions if api.name in extended else kio, f"{api.name}{side.capitalize()}")


SCHEMAS = {
    f"{schema.__name__}-{version}": schema
    for api in sorted(apis.BY_KEY.values(), key=lambda api: api.key)
    for version in range(api.version_min, api.version + 1)
    for schema in schemas_of(api, version)
}
all_schemas = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


# --- messages at random ---------------------------------------------------------------------------------------------


def seeded(schema: Any) -> random.Random:
    return random.Random(f"{schema.__module__}.{schema.__name__}")


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
            # Whole seconds: kio goes through a float and may be a millisecond off.
            return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.getrandbits(20))
    raise AssertionError(kafka_type)


def entity_of(schema: Any, rng: random.Random) -> Any:
    values = {
        field.name: value_of(field.type, field.metadata.get("kafka_type"), rng)
        for field in fields(schema)
        if field.default is MISSING or rng.random() < 0.5
    }
    for field in fields(schema):
        if "tag" in field.metadata and field.default is MISSING and rng.random() < 0.5:
            values[field.name] = get_tagged_field_default(field)
    nulls = {field.name for field in fields(schema) if "tag" in field.metadata and values.get(field.name) is None}
    return schema(**{name: value for name, value in values.items() if name not in nulls})


def ours(entity: Any) -> Any:
    """The same message as we use it."""
    values = {}
    for field in fields(entity):
        value = getattr(entity, field.name)
        is_moment = field.metadata.get("kafka_type") == "datetime_i64"
        values[field.name] = -1 if is_moment and value is None else as_we_use_it(value)
    return structure_of(type(entity))(**values)


def as_we_use_it(value: Any) -> Any:
    match value:
        case ErrorCode():
            return value.value
        case timedelta():
            return value // MS
        case datetime():
            return (value - EPOCH) // MS
        case tuple():
            return tuple(as_we_use_it(item) for item in value)
    return ours(value) if is_dataclass(value) else value


def bytes_of(entity: Any) -> bytes:
    stream = BytesIO()
    entity_writer(type(entity))(stream, entity)
    return stream.getvalue()


# --- the oracle -----------------------------------------------------------------------------------------------------


@all_schemas
def test_every_message_has_the_bytes_that_kio_writes_and_comes_back(schema: Any) -> None:
    rng = seeded(schema)
    for _ in range(10):
        entity = entity_of(schema, rng)
        expected = bytes_of(entity)
        assert b"".join(encode_body(ours(entity))) == expected, entity
        assert decode_body(structure_of(schema), memoryview(b"head" + expected), 4) == ours(entity)


def damaged(data: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data) + 1)]
    if kind == 1:
        return data + rng.randbytes(rng.randrange(1, 4))
    wrong = bytearray(data or b"\0")
    for _ in range(rng.randrange(1, 4)):
        wrong[rng.randrange(len(wrong))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(wrong)


def read_by_kio(schema: Any, data: bytes) -> Any:
    """None for what it refuses: it raises a dozen types."""
    try:
        entity, size = entity_reader(schema)(data, 0)
    except Exception:  # noqa: BLE001
        return None
    return entity if size == len(data) else None


@all_schemas
def test_damaged_messages_are_read_as_kio_reads_them_or_refused(schema: Any) -> None:
    """We refuse two things more: a null where the schema has none, and a tagged field that is not as long as it says.
    kio is not asked about arrays of more items than there are bytes: it reserves memory for them, and may die of it."""
    rng = seeded(schema)
    for _ in range(30):
        data = damaged(bytes_of(entity_of(schema, rng))[:400], rng)
        found, refusal = read_by_us(schema, data)
        if not any(reason in refusal for reason in ("an array of ", " is null", " and claims ")):
            read = read_by_kio(schema, data)
            assert found == (None if read is None else ours(read)), (refusal, data)


def read_by_us(schema: Any, data: bytes) -> tuple[Any, str]:
    try:
        return decode_body(structure_of(schema), memoryview(data), 0), ""
    except Malformed as refusal:
        return None, str(refusal)


def test_a_tag_that_nobody_knows_is_refused_as_kio_refuses_it() -> None:
    schema = SCHEMAS["FetchRequest-17"]
    data = bytes_of(schema(max_wait=timedelta(0), min_bytes=1, topics=(), forgotten_topics_data=()))
    with pytest.raises(Malformed):
        decode_body(structure_of(schema), memoryview(data[:-1] + b"\x01\x09\x00"), 0)


# --- structures -----------------------------------------------------------------------------------------------------


def test_structures_are_equal_by_their_fields_and_told_by_them() -> None:
    types = schemas.responses_of(apis.FETCH, apis.FETCH.version)
    one: Structure = types.EpochEndOffset(epoch=1, end_offset=2)
    assert one == types.EpochEndOffset(epoch=1, end_offset=2) != types.EpochEndOffset(epoch=1)
    assert one != types.LeaderIdAndEpoch(leader_id=1, leader_epoch=2)
    assert repr(one) == "EpochEndOffset(epoch=1, end_offset=2)"


def test_a_structure_needs_its_required_fields_and_takes_no_others() -> None:
    made = schemas.request_class(apis.SASL_AUTHENTICATE, apis.SASL_AUTHENTICATE.version)
    assert made(auth_bytes=b"x").auth_bytes == b"x"
    for wrong in ({}, {"auth_bytes": b"", "more": 1}):
        with pytest.raises(TypeError):
            made(**wrong)
