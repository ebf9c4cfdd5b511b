"""The generated messages against kio, which knows Kafka's schemas from elsewhere: the same bytes in every version."""

from __future__ import annotations

import functools
import importlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, get_args, get_origin
from uuid import UUID

import kio.schema
import pytest
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.serial._implicit_defaults import get_tagged_field_default

from kraft.kafka_data.metadata_log import CONTROL_RECORDS, RECORDS
from kraft.protocol import apis
from kraft.protocol.encoding import REFUSALS, ZERO_UUID, TopLevel
from kraft.protocol.schema import generate
from kraft.protocol.schema.facts import NEVER, read_schemas, snake_case
from kraft.protocol.varints import varint

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)
BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63, "uint16": 16, "uint32": 32}
KIO = Path(kio.schema.__file__).parent
GENERATED = {path.stem for path in generate.GENERATED.glob("*.py")}
NOT_IN_KIO = {
    "AlterRouteRequest": {0},
    "AlterRouteResponse": {0},
    "NodeFactsRequest": {0},
    "NodeFactsResponse": {0},
    "GroupRequestRequest": {0},
    "GroupRequestResponse": {0},
    "TransactionLogKey": {0},
    "TransactionLogValue": {0, 1},
    **{
        f"Share{name}{part}": {0}
        for name in (
            *("GroupMemberMetadata", "GroupMetadata", "GroupTargetAssignmentMetadata", "GroupTargetAssignmentMember"),
            *("GroupCurrentMemberAssignment", "GroupStatePartitionMetadata", "Snapshot", "Update"),
        )
        for part in ("Key", "Value")
    },
    **{
        schema.name: set(schema.versions)
        for schema in read_schemas()
        if schema.name in {*RECORDS.values(), *CONTROL_RECORDS.values()}
    },
}
"""Messages of our own, of a coordinator's log and of the metadata log, and versions that are newer than it."""
RENAMED = {("TxnOffsetCommitRequestData", "generationid"): "generationidormemberepoch"}
"""Fields that have another name in Kafka 4.4 than in kio."""

Case = tuple[type[TopLevel], int, Any]
"""Our class, a version, and kio's class for it."""


def module_of(message: str) -> ModuleType:
    return importlib.import_module(f"kraft.protocol.messages.{snake_case(message)}")


def kio_modules() -> Mapping[str, Sequence[tuple[int, str]]]:
    """Message as kio files it -> versions and modules. By the names of files alone: to load all of them takes a second,
    and every process of the test run asks for this."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in sorted(KIO.glob("[a-z]*/v*/[a-z]*.py")):
        message, version = path.parents[1].name, path.parent.name
        module = f"kio.schema.{message}.{version}.{path.stem}"
        found.setdefault(f"{message} {path.stem}", []).append((int(version[1:]), module))
    return {message: modules for message, modules in found.items() if message.replace(" ", "_") in GENERATED}


MESSAGES = kio_modules()
all_messages = pytest.mark.parametrize("message", MESSAGES)


@functools.cache
def name_and_cases(message: str) -> tuple[str, Sequence[Case]]:
    """Its name, and every version that kio and we know."""
    schemas = [(version, schema_in(module)) for version, module in MESSAGES[message]]
    (name,) = {schema.__name__ for _, schema in schemas}
    ours = getattr(module_of(name), f"{name}Data")
    return name, [(ours, version, schema) for version, schema in schemas if version in ours.VERSIONS]


def schema_in(module: str) -> Any:
    kios = importlib.import_module(module)
    return next(
        kind
        for kind in vars(kios).values()
        if is_dataclass(kind)
        and kind.__module__ == module
        and str(kind.__type__) != "EntityType.nested"
        and kind.__type__.name != "nested"
    )


@pytest.mark.long
def test_kio_knows_every_version_that_is_generated_but_those_named_here():
    known = {name: {version for _, version, _ in cases} for name, cases in map(name_and_cases, MESSAGES)}
    unknown = {schema.name: set(schema.versions) - known.get(schema.name, set()) for schema in read_schemas()}
    assert {name: versions for name, versions in unknown.items() if versions} == NOT_IN_KIO


# --- messages at random ---------------------------------------------------------------------------------------------


def value_of(kind: Any, kafka_type: str | None, rng: random.Random) -> Any:
    if isinstance(kind, UnionType):
        inner = next(option for option in get_args(kind) if option is not type(None))
        return None if rng.random() < 0.3 else value_of(inner, kafka_type, rng)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        count = rng.choice((0, 1, 2) if is_dataclass(item) else (0, 1, 3, 130))
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
        case "float64":
            return float(rng.getrandbits(20))
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


def ours(module: ModuleType, entity: Any, *, is_top: bool = False) -> Any:
    """The same message of our class. kio leaves a unit of time out of a name, and otherwise names fields as we do."""
    kind = getattr(module, type(entity).__name__ + ("Data" if is_top else ""))
    known = {_folded(name): name for name in kind.__slots__}
    values = {}
    for field in fields(entity):
        folded = _folded(field.name)
        folded = RENAMED.get((kind.__name__, folded), folded)
        name = known.get(folded) or known.get(f"{folded}ms") or known[folded.removesuffix("_")]
        value, kafka_type = getattr(entity, field.name), field.metadata.get("kafka_type")
        is_missing_array = value is None and "tuple[" in str(field.type)
        values[name] = None if is_missing_array else as_we_use_it(module, value, kafka_type)
    return kind.make(**values)


def _folded(name: str) -> str:
    return re.sub(r"_(?=.)", "", name)


def as_we_use_it(module: ModuleType, value: Any, kafka_type: str | None) -> Any:
    match value:
        case None if kafka_type == "datetime_i64":
            return -1
        case None if kafka_type == "uuid":
            return ZERO_UUID
        case ErrorCode():
            return value.value
        case timedelta():
            return value // MS
        case datetime():
            return (value - EPOCH) // MS
        case tuple():
            return tuple(as_we_use_it(module, item, kafka_type) for item in value)
    return ours(module, value) if is_dataclass(value) else value


def bytes_of(entity: Any) -> bytes:
    stream = BytesIO()
    entity_writer(type(entity))(stream, entity)
    return stream.getvalue()


def written(message: TopLevel, version: int) -> bytes:
    parts: list[Any] = []
    message.WRITERS[version](parts, message)
    return b"".join(parts)


# --- the oracle -----------------------------------------------------------------------------------------------------


@all_messages
def test_every_message_has_the_bytes_that_kio_writes_and_comes_back(message: str):
    name, cases = name_and_cases(message)
    for kind, version, schema in cases:
        rng = random.Random(f"{name}{version}")
        for _ in range(3):
            entity = entity_of(schema, rng)
            expected = bytes_of(entity)
            made = ours(module_of(name), entity, is_top=True)
            assert written(made, version) == expected, (version, entity)
            read, end = kind.READERS[version](memoryview(b"head" + expected), 4)
            assert (read, end) == (made, 4 + len(expected)), version


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


def read_by_kio(schema: Any, data: bytes) -> tuple[Any, int] | None:
    """None for what it refuses: it raises a dozen types."""
    try:
        entity, size = entity_reader(schema)(data, 0)
    except Exception:  # noqa: BLE001
        return None
    return entity, size


@all_messages
def test_a_damaged_message_is_refused_or_read_as_kio_reads_it(message: str):
    """We refuse more (a null where the schema has none, a tagged field that is not as long as it says), and take less:
    unknown tags, error codes and moments. So only what both take is compared; whatever else escapes fails the test."""
    name, cases = name_and_cases(message)
    for kind, version, schema in cases:
        rng = random.Random(f"{name}{version}damaged")
        for _ in range(6):
            data = damaged(bytes_of(entity_of(schema, rng))[:400], rng)
            try:
                read, end = kind.READERS[version](memoryview(data), 0)
            except REFUSALS:
                continue
            known = read_by_kio(schema, data)
            if known is not None:
                assert (read, end) == (ours(module_of(name), known[0], is_top=True), known[1]), (version, data)


# --- what kio does not have -------------------------------------------------------------------------------------------


def test_an_unknown_tagged_field_is_skipped_at_any_depth():
    module = module_of("FetchRequest")
    inner = module.FetchPartition.make(partition=3, fetch_offset=9)
    made = module.FetchRequestData.make(
        max_wait_ms=5, topics=(module.FetchTopic.make(topic_id=UUID(int=7), partitions=(inner,)),)
    )
    plain = written(made, 17)
    partition = written_partition(inner)
    assert plain.count(partition) == 1
    unknown = b"\1" + varint(9_999) + varint(3) + b"abc"
    with_inner_tag = plain.replace(partition, partition[:-1] + unknown)
    with_both = with_inner_tag[:-1] + unknown
    for data in (with_inner_tag, with_both):
        assert module.FetchRequestData.READERS[17](memoryview(data), 0) == (made, len(data))


def written_partition(partition: Any) -> bytes:
    parts: list[Any] = []
    module_of("FetchRequest")._write_FetchPartition_17(parts, partition)
    return b"".join(parts)


def test_fields_of_ours_travel_as_tagged_fields_and_only_where_they_are_set():
    module = module_of("ProduceResponse")
    plain = module.PartitionProduceResponse.make(index=1, base_offset=5)
    reported = module.PartitionProduceResponse.make(index=1, base_offset=5, last_offset=6, is_appended=True, isr=(1, 2))
    for partition in (plain, reported):
        topic = module.TopicProduceResponse.make(topic_id=UUID(int=1), partition_responses=(partition,))
        made = module.ProduceResponseData.make(responses=(topic,))
        data = written(made, 13)
        assert module.ProduceResponseData.READERS[13](memoryview(data), 0) == (made, len(data))
        assert (varint(10_000) in data) == (partition is reported)
        assert varint(10_000) not in written(made, 12)


def test_the_generated_files_are_what_the_generator_makes():
    present = {path.name: path.read_text(encoding="utf-8") for path in generate.GENERATED.glob("*.py")}
    made = generate.generate()
    assert set(present) == set(made)
    assert not [name for name in made if present[name] != made[name]], "run python -m kraft.protocol.schema.generate"


def test_the_apis_that_we_speak_are_described_as_their_schemas_do():
    for api in apis.BY_KEY.values():
        for kind in (apis.request_type(api), apis.response_type(api)):
            assert api.key == kind.API_KEY
            assert api.flexible_from == kind.FLEXIBLE_FROM or (kind.FLEXIBLE_FROM, api.flexible_from) == (
                NEVER,
                apis.NEVER,
            )
            assert {*api.clients, *api.nodes} in (set(), set(kind.VERSIONS)), "served in all versions, or not yet"
