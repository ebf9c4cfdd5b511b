"""Bodies of v2 produces: their model and their parser are one, compiled; the OpenAPI document is made from it as well.

No Python code runs per record but the format's own. Embedded JSON is kept as the client wrote it, only without white
space between tokens: numbers of any size keep every digit.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.media import Format
from kraft.http.problems import is_of_another_type, malformed_json, misshapen
from kraft.http.records import NO_HEADERS, OutRecord
from kraft.protocol.primitives import INT32_MAX, INT64_MAX

BASE64_PATTERN = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
Base64: TypeAlias = Annotated[bytes, Meta(description="Base64.", extra_json_schema={"pattern": BASE64_PATTERN})]
EmbeddedJson: TypeAlias = Raw | UnsetType
"""Any JSON, as it was sent; UNSET where the field is not there."""

_Partition: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)] | None
_Timestamp: TypeAlias = Annotated[int, Meta(ge=0, le=INT64_MAX, description="Milliseconds since the epoch.")] | None
_SchemaId: TypeAlias = Annotated[int, Meta(ge=-INT32_MAX - 1, le=INT32_MAX)] | None

NULL = b"null"


def _named_by(name: str, other: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"type": "string"}, other: {"type": "null"}}}


class RecordHeader(Struct, forbid_unknown_fields=True, gc=False):
    """A record header; `name` is v3's spelling of `key`."""

    key: str | None = None
    name: str | None = None
    value: Base64 | None = None


Header: TypeAlias = Annotated[
    RecordHeader, Meta(extra_json_schema={"oneOf": [_named_by("key", "name"), _named_by("name", "key")]})
]


class BinaryRecord(Struct, forbid_unknown_fields=True, gc=False):
    """Key and value are base64."""

    key: Base64 | None = None
    value: Base64 | None = None
    partition: _Partition = None
    timestamp: _Timestamp = None
    headers: list[Header] | None = None


class TextRecord(Struct, forbid_unknown_fields=True, gc=False):
    """Key and value are stored as UTF-8."""

    key: str | None = None
    value: str | None = None
    partition: _Partition = None
    timestamp: _Timestamp = None
    headers: list[Header] | None = None


class JsonRecord(Struct, forbid_unknown_fields=True, gc=False):
    """Key and value are any JSON; stored as compact UTF-8. null and absent are Kafka's null."""

    key: EmbeddedJson = UNSET
    value: EmbeddedJson = UNSET
    partition: _Partition = None
    timestamp: _Timestamp = None
    headers: list[Header] | None = None


class _Envelope(Struct, forbid_unknown_fields=True, kw_only=True):
    key_schema: str | None = None
    key_schema_id: _SchemaId = None
    value_schema: str | None = None
    value_schema_id: _SchemaId = None


class BinaryProduce(_Envelope, forbid_unknown_fields=True, kw_only=True):
    """Schema fields are accepted and ignored: there is no schema registry."""

    records: Annotated[list[BinaryRecord], Meta(min_length=1)]


class TextProduce(_Envelope, forbid_unknown_fields=True, kw_only=True):
    """Schema fields are accepted and ignored: there is no schema registry."""

    records: Annotated[list[TextRecord], Meta(min_length=1)]


class JsonProduce(_Envelope, forbid_unknown_fields=True, kw_only=True):
    """Schema fields are accepted and ignored: there is no schema registry."""

    records: Annotated[list[JsonRecord], Meta(min_length=1)]


_binary = msgspec.json.Decoder(BinaryProduce)
_text = msgspec.json.Decoder(TextProduce)
_json = msgspec.json.Decoder(JsonProduce)


def parse_produce(body: bytes | bytearray, form: Format, *, now_ms: int) -> list[OutRecord]:
    """The records of a v2 body. Raises HttpError 400 for malformed JSON and for JSON of another shape; 422 for no body
    or no record, for what is not base64 and for a field that is not known."""
    if not body:
        raise HttpError(UNPROCESSABLE, "the body is empty; send a JSON object with `records`")
    try:
        match form:
            case Format.BINARY:
                return [_binary_record(record, now_ms) for record in _binary.decode(body).records]
            case Format.TEXT:
                return [_text_record(record, now_ms) for record in _text.decode(body).records]
            case _:
                assert form is Format.JSON, form
                check_utf8(body)
                compact = msgspec.json.format(body, indent=-1)
                return [_json_record(record, now_ms) for record in _json.decode(compact).records]
    except msgspec.ValidationError as error:
        raise HttpError(400 if is_of_another_type(error) else UNPROCESSABLE, misshapen(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, malformed_json(error)) from error


def check_utf8(body: bytes | bytearray) -> None:
    """Raises UnicodeDecodeError. The parser checks the strings it decodes, but not those inside a Raw."""
    if not body.isascii():
        body.decode()


def _binary_record(record: BinaryRecord, now_ms: int) -> OutRecord:
    return OutRecord(
        record.key,
        record.value,
        _pairs(record.headers) if record.headers else NO_HEADERS,
        now_ms if record.timestamp is None else record.timestamp,
        record.partition,
    )


def _text_record(record: TextRecord, now_ms: int) -> OutRecord:
    return OutRecord(
        None if record.key is None else record.key.encode(),
        None if record.value is None else record.value.encode(),
        _pairs(record.headers) if record.headers else NO_HEADERS,
        now_ms if record.timestamp is None else record.timestamp,
        record.partition,
    )


def _json_record(record: JsonRecord, now_ms: int) -> OutRecord:
    key = None if record.key is UNSET else bytes(record.key)
    value = None if record.value is UNSET else bytes(record.value)
    return OutRecord(
        None if key == NULL else key,
        None if value == NULL else value,
        _pairs(record.headers) if record.headers else NO_HEADERS,
        now_ms if record.timestamp is None else record.timestamp,
        record.partition,
    )


def _pairs(headers: list[RecordHeader]) -> list[tuple[str, bytes | None]]:
    return [(_name(header), header.value) for header in headers]


def _name(header: RecordHeader) -> str:
    name = header.name if header.key is None else header.key
    if name is None or (header.key is not None and header.name is not None):
        raise HttpError(UNPROCESSABLE, "a header has `key` or `name` - at `$.records[...].headers[...]`")
    return name
