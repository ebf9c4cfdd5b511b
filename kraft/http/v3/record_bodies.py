"""Bodies of v3 produces, a batch of entries or one record of a stream: their model and their parser are one, compiled.

Embedded JSON is kept as the client wrote it, only without white space between tokens: numbers keep every digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from kraft.http.errors import BATCH, PAYLOAD, UNPROCESSABLE, HttpError
from kraft.http.offset_spec import parse_iso_time
from kraft.http.problems import malformed_json, misshapen
from kraft.http.produce import Parsed
from kraft.http.record_counts import check_counts, objects_max
from kraft.http.records import NO_HEADERS, OutRecord
from kraft.http.v2.record_bodies import NULL, Base64, EmbeddedJson, check_utf8
from kraft.protocol.primitives import INT32_MAX
from metadata.settings import TopicSettings
from replication.record_times import AHEAD_MS_MAX, DELIVER_HEADER, EXPIRES_HEADER, TARGET, TimeRules

DataType: TypeAlias = Literal["BINARY", "JSON", "STRING", "AVRO", "JSONSCHEMA", "PROTOBUF"]
BINARY: DataType = "BINARY"
"""The type of data that names none."""
_NEED_REGISTRY = ("AVRO", "JSONSCHEMA", "PROTOBUF")
_NO_REGISTRY = "schemas and the types AVRO, JSONSCHEMA and PROTOBUF need a schema registry, which this cluster has not"
ID_LENGTH_MAX = 80

_Number: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]
_Partition: TypeAlias = Annotated[
    _Number | float | None,
    Meta(extra_json_schema={"anyOf": [{"type": "integer", "minimum": 0, "maximum": INT32_MAX}, {"type": "null"}]}),
]
"""1.0 is an integer in JSON Schema; `_whole` takes it as one."""
_Timestamp: TypeAlias = Annotated[str | None, Meta(description="ISO-8601.", extra_json_schema={"format": "date-time"})]

_ExpiresIn: TypeAlias = Annotated[
    Annotated[int, Meta(ge=0, le=AHEAD_MS_MAX)] | None,
    Meta(description="Ours: share groups do not hand the record out later; the topic needs record.expiry.enable=true."),
]

_DeliverIn: TypeAlias = Annotated[
    Annotated[int, Meta(ge=0, le=AHEAD_MS_MAX)] | None,
    Meta(description="Ours: a topic with delivery.target.topic forwards the record then; others refuse the field."),
]


class BatchHeader(Struct, forbid_unknown_fields=True):
    """A record header."""

    name: str
    value: Base64 | None = None


class BatchData(Struct, forbid_unknown_fields=True):
    """BINARY data is base64, STRING a string, JSON any JSON. What needs a schema registry fails alone."""

    type: DataType | None = None
    data: EmbeddedJson = UNSET
    subject: str | None = None
    subject_name_strategy: str | None = None
    schema_id: _Number | None = None
    schema_version: _Number | None = None
    schema: str | None = None


class StreamRecord(Struct, forbid_unknown_fields=True):
    """One of the records that follow one another in the body, with or without white space between."""

    partition_id: _Partition = None
    headers: list[BatchHeader] | None = None
    key: BatchData | None = None
    value: BatchData | None = None
    timestamp: _Timestamp = None
    expires_in_ms: _ExpiresIn = None
    deliver_in_ms: _DeliverIn = None


class BatchEntry(Struct, forbid_unknown_fields=True):
    """A record of a batch, and the name that its result has."""

    id: Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": ID_LENGTH_MAX})]
    partition_id: _Partition = None
    headers: list[BatchHeader] | None = None
    key: BatchData | None = None
    value: BatchData | None = None
    timestamp: _Timestamp = None
    expires_in_ms: _ExpiresIn = None
    deliver_in_ms: _DeliverIn = None


class BatchRequest(Struct, forbid_unknown_fields=True):
    """The ids are unique."""

    entries: Annotated[list[BatchEntry], Meta(extra_json_schema={"minItems": 1})]


class RouteEntry(Struct, forbid_unknown_fields=True):
    """A record for a route, and the name that its result has. Each topic has partitions of its own."""

    partition_id: ClassVar[None] = None
    id: Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": ID_LENGTH_MAX})]
    routing_key: Annotated[
        str | None, Meta(description="Without it: the record's key as text; without a key the empty one.")
    ] = None
    headers: list[BatchHeader] | None = None
    key: BatchData | None = None
    value: BatchData | None = None
    timestamp: _Timestamp = None
    expires_in_ms: _ExpiresIn = None
    deliver_in_ms: _DeliverIn = None


class RouteRequest(Struct, forbid_unknown_fields=True):
    """The ids are unique."""

    entries: Annotated[list[RouteEntry], Meta(extra_json_schema={"minItems": 1})]


AnyEntry: TypeAlias = BatchEntry | RouteEntry


class ParsedBatch(Parsed, kw_only=True):
    """The records of a batch and all of its entries, refused ones included."""

    entries: Sequence[AnyEntry]


class Malformed(HttpError):
    """Not JSON: nothing that follows can be understood."""


_record = msgspec.json.Decoder(StreamRecord)
_strict: Mapping[type[Struct], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (BatchRequest, RouteRequest)
}
_lenient: Mapping[type[Struct], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind, strict=False) for kind in (BatchRequest, RouteRequest)
}
_ENTRY: Mapping[type[Struct], type[Struct]] = {BatchRequest: BatchEntry, RouteRequest: RouteEntry}
_string = msgspec.json.Decoder(str)
_binary = msgspec.json.Decoder(bytes)
_fields = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])
_KNOWN: Mapping[type[Struct], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(
        msgspec.defstruct(kind.__name__, [(each, Raw, Raw(b"")) for each in kind.__struct_fields__])
    )
    for kind in (BatchRequest, BatchEntry, RouteRequest, RouteEntry, BatchData, BatchHeader)
}
"""Decoders of the known fields of each type, which keep the bytes of the values."""
UNKNOWN_BYTES_MAX = 16_384
"""Fields of an object that nobody knows, with white space; all of them are looked at, since null is absent."""


# --- a record of a stream ---------------------------------------------------------------------------------------------


def fields_taken(topic: str, settings_of: Callable[[str], TopicSettings]) -> TimeRules | None:
    """The times that records of a topic may have. A delay topic takes the expiry of its target's records."""
    settings = settings_of(topic)
    target = settings.delivery_target_topic
    rules = TimeRules.of(settings)
    if rules is None or not target or settings.record_expiry_enable:
        return rules
    return TimeRules(True, settings_of(target).record_expiry_enable, rules.delivery_ms_max)


def parse_record(text: bytes, *, now_ms: int, times: TimeRules | None = None) -> tuple[StreamRecord, OutRecord]:
    """Raises Malformed 400 for malformed JSON, which ends its stream; HttpError 400 for JSON that is no record, 422 for
    a record that needs a schema registry or has a time that its topic does not take."""
    check_counts(text, "headers", objects=objects_max(text), items_max=INT32_MAX, headers_max=INT32_MAX, code=400)
    try:
        check_utf8(text)
        record = _record.decode(text)
    except msgspec.ValidationError as error:
        raise _refused(misshapen(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    return record, _out_record(record, now_ms, times)


# --- a batch ----------------------------------------------------------------------------------------------------------


def parse_batch(
    body: bytes | bytearray,
    *,
    now_ms: int,
    entries_max: int,
    is_strict: bool,
    times: TimeRules | None = None,
    kind: type[Struct] = BatchRequest,
) -> ParsedBatch:
    """An entry that is no record is refused alone. `kind`: the model of the body, that of a topic or of a route.

    By default numbers may be strings and a field that nobody knows is ignored if it is null; not if `is_strict`. Raises
    HttpError 42206 for an empty body, 400 for malformed JSON and for JSON of another shape, 422 for a field that nobody
    knows, 42208 for none or too many entries and for ids that are not unique or not of 1 to 80 characters.
    """
    if not body:
        raise HttpError(PAYLOAD, "the body is empty; send a JSON object")
    try:
        check_utf8(body)
        entries = _entries(body, kind, is_strict=is_strict)
    except msgspec.ValidationError as error:
        raise HttpError(UNPROCESSABLE if _is_unknown_field(error) else 400, misshapen(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    _check_entries(entries, maximum=entries_max)
    records: list[OutRecord] = []
    refused: dict[int, HttpError] = {}
    for index, entry in enumerate(entries):
        try:
            records.append(_out_record(entry, now_ms, times))
        except HttpError as error:
            if isinstance(error, Malformed):
                raise
            refused[index] = error
    return ParsedBatch(records, refused, entries=entries)


def _entries(body: bytes | bytearray, kind: type[Struct], *, is_strict: bool) -> Sequence[AnyEntry]:
    if is_strict:
        return _as_entries(_strict[kind].decode(body))
    try:
        return _as_entries(_lenient[kind].decode(body))
    except msgspec.ValidationError as error:
        if not _is_unknown_field(error):
            raise
    return _as_entries(_lenient[kind].decode(_without_nulls(body, kind)))


def _as_entries(batch: BatchRequest | RouteRequest) -> Sequence[AnyEntry]:
    return batch.entries


def _is_unknown_field(error: msgspec.ValidationError) -> bool:
    return "unknown field" in str(error)


def _without_nulls(body: bytes | bytearray, kind: type[Struct]) -> bytes:
    """The batch without the fields that are null, known or not; embedded data as it was."""
    batch = _not_null(body, kind)
    if "entries" in batch:
        batch["entries"] = [_entry_without_nulls(entry, _ENTRY[kind]) for entry in _items.decode(batch["entries"])]
    return msgspec.json.encode(batch)


def _entry_without_nulls(text: Raw, kind: type[Struct]) -> dict[str, Any]:
    entry: dict[str, Any] = _not_null(text, kind)
    for name in ("key", "value"):
        if name in entry:
            entry[name] = _not_null(entry[name], BatchData)
    if "headers" in entry:
        entry["headers"] = [_not_null(header, BatchHeader) for header in _items.decode(entry["headers"])]
    return entry


def _not_null(text: Raw | bytes | bytearray, kind: type[Struct]) -> dict[str, Any]:
    """The fields of an object that are not null. Raises HttpError 422 for many that `kind` has not."""
    if memoryview(text).nbytes > UNKNOWN_BYTES_MAX:
        known = _KNOWN[kind].decode(text)
        size = sum(memoryview(getattr(known, name)).nbytes for name in known.__struct_fields__)
        if memoryview(text).nbytes - size > UNKNOWN_BYTES_MAX:
            raise HttpError(UNPROCESSABLE, "an object has many fields that are not known here; leave them out")
    return {name: value for name, value in _fields.decode(text).items() if bytes(value) != NULL}


def _check_entries(entries: Sequence[AnyEntry], *, maximum: int) -> None:
    if not entries:
        raise HttpError(BATCH, "entries is empty; send at least one")
    if len(entries) > maximum:
        raise HttpError(BATCH, f"{len(entries)} entries in a batch; it has at most {maximum}")
    if not all(0 < len(entry.id) <= ID_LENGTH_MAX for entry in entries):
        raise HttpError(BATCH, f"an entry's id has 1 to {ID_LENGTH_MAX} characters")
    if len({entry.id for entry in entries}) != len(entries):
        raise HttpError(BATCH, "entry ids are not unique")


# --- both -------------------------------------------------------------------------------------------------------------


def _out_record(record: StreamRecord | AnyEntry, now_ms: int, times: TimeRules | None) -> OutRecord:
    """Raises HttpError 400 for data that is not of its type and for a time that is none, 422 for data that needs a
    registry and for a time that the topic does not take."""
    return OutRecord(
        None if record.key is None else _bytes(record.key, "key"),
        None if record.value is None else _bytes(record.value, "value"),
        _headers(record, now_ms, times),
        now_ms if record.timestamp is None else _time(record.timestamp),
        _whole(record.partition_id),
    )


def _headers(record: StreamRecord | AnyEntry, now_ms: int, times: TimeRules | None) -> list[tuple[str, bytes | None]]:
    headers = [(header.name, header.value) for header in record.headers] if record.headers else NO_HEADERS
    if record.expires_in_ms is not None:
        if times is None or not times.reads_expiry:
            raise no_expiry("this topic")
        headers = [*headers, (EXPIRES_HEADER, str(now_ms + record.expires_in_ms).encode())]
    if record.deliver_in_ms is not None:
        if times is None or not times.reads_delivery:
            raise no_delivery("this topic")
        headers = [*headers, (DELIVER_HEADER, str(now_ms + record.deliver_in_ms).encode())]
    return headers


def no_expiry(topic: str) -> HttpError:
    """422 for an end of a record that its topic does not look for."""
    return HttpError(
        UNPROCESSABLE,
        f"expires_in_ms: queues do not look for the end of records of {topic}; set record.expiry.enable=true for it "
        "(of a delay topic: for its target)",
    )


def no_delivery(topic: str) -> HttpError:
    """422 for a time of delivery in a topic that is no delay topic."""
    return HttpError(UNPROCESSABLE, f"deliver_in_ms: {topic} is no delay topic; produce to one whose {TARGET} names it")


def _bytes(data: BatchData, what: str) -> bytes | None:
    kind, text = data.type or BINARY, data.data
    if kind in _NEED_REGISTRY or _names_schema(data):
        raise HttpError(UNPROCESSABLE, f"Error: {PAYLOAD} : {what}: {_NO_REGISTRY}")
    if text is UNSET or bytes(text) == NULL:
        return None
    try:
        if kind == "JSON":
            return msgspec.json.format(bytes(text), indent=-1)
        return _string.decode(text).encode() if kind == "STRING" else _binary.decode(text)
    except msgspec.ValidationError as error:
        raise _refused(f"{what}: data of type {kind}: {misshapen(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error


def _names_schema(data: BatchData) -> bool:
    named = (data.subject, data.subject_name_strategy, data.schema_id, data.schema_version, data.schema)
    return named != (None,) * 5


def _time(text: str) -> int:
    try:
        return parse_iso_time(text, "timestamp ")
    except HttpError as error:
        raise _refused(error.message) from error


def _whole(partition: float | None) -> int | None:
    if not isinstance(partition, float):
        return partition
    if not (partition.is_integer() and 0 <= partition <= INT32_MAX):
        raise _refused(f"partition_id {partition} is no number from 0 to {INT32_MAX}")
    return int(partition)


def _refused(message: str) -> HttpError:
    return HttpError(400, f"Error: {PAYLOAD} : {message}")


def _malformed(error: Exception) -> HttpError:
    return Malformed(400, malformed_json(error))
