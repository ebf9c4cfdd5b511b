"""Produce bodies, parsed and checked in one compiled pass: no Python code runs per record but the format's own.

Equal to the pydantic models in `v2.models` (a test compares the two). Embedded JSON is kept as the client wrote it,
only without white space between tokens: numbers of any size keep every digit.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.media import Format
from kraft.http.records import OutRecord
from kraft.protocol.primitives import INT32_MAX, INT64_MAX

_Partition: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)] | None
_Timestamp: TypeAlias = Annotated[int, Meta(ge=0, le=INT64_MAX)] | None
_SchemaId: TypeAlias = Annotated[int, Meta(ge=-INT32_MAX - 1, le=INT32_MAX)] | None

NULL = b"null"


class _Header(Struct, forbid_unknown_fields=True, gc=False):
    key: str | None = None
    name: str | None = None
    value: bytes | None = None


class _BinaryRecord(Struct, forbid_unknown_fields=True):
    key: bytes | None = None
    value: bytes | None = None
    partition: _Partition = None
    timestamp: _Timestamp = None
    headers: list[_Header] | None = None


class _TextRecord(Struct, forbid_unknown_fields=True):
    key: str | None = None
    value: str | None = None
    partition: _Partition = None
    timestamp: _Timestamp = None
    headers: list[_Header] | None = None


class _JsonRecord(Struct, forbid_unknown_fields=True):
    key: Raw = Raw(NULL)
    value: Raw = Raw(NULL)
    partition: _Partition = None
    timestamp: _Timestamp = None
    headers: list[_Header] | None = None


class _Envelope(Struct, forbid_unknown_fields=True, kw_only=True):
    key_schema: str | None = None
    key_schema_id: _SchemaId = None
    value_schema: str | None = None
    value_schema_id: _SchemaId = None


class _BinaryProduce(_Envelope, forbid_unknown_fields=True, kw_only=True):
    records: Annotated[list[_BinaryRecord], Meta(min_length=1)]


class _TextProduce(_Envelope, forbid_unknown_fields=True, kw_only=True):
    records: Annotated[list[_TextRecord], Meta(min_length=1)]


class _JsonProduce(_Envelope, forbid_unknown_fields=True, kw_only=True):
    records: Annotated[list[_JsonRecord], Meta(min_length=1)]


_binary = msgspec.json.Decoder(_BinaryProduce)
_text = msgspec.json.Decoder(_TextProduce)
_json = msgspec.json.Decoder(_JsonProduce)


def parse_produce(body: bytes | bytearray, form: Format, *, now_ms: int) -> list[OutRecord]:
    """The records of a v2 body. Raises HttpError 400 for malformed JSON, 422 for none or for JSON of another shape."""
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
        raise HttpError(UNPROCESSABLE, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"malformed JSON: {error}") from error


def check_utf8(body: bytes | bytearray) -> None:
    """Raises UnicodeDecodeError. The parser checks the strings it decodes, but not those inside a Raw."""
    if not body.isascii():
        body.decode()


def _binary_record(record: _BinaryRecord, now_ms: int) -> OutRecord:
    return OutRecord(
        record.key,
        record.value,
        _pairs(record.headers),
        now_ms if record.timestamp is None else record.timestamp,
        record.partition,
    )


def _text_record(record: _TextRecord, now_ms: int) -> OutRecord:
    return OutRecord(
        None if record.key is None else record.key.encode(),
        None if record.value is None else record.value.encode(),
        _pairs(record.headers),
        now_ms if record.timestamp is None else record.timestamp,
        record.partition,
    )


def _json_record(record: _JsonRecord, now_ms: int) -> OutRecord:
    key, value = bytes(record.key), bytes(record.value)
    return OutRecord(
        None if key == NULL else key,
        None if value == NULL else value,
        _pairs(record.headers),
        now_ms if record.timestamp is None else record.timestamp,
        record.partition,
    )


def _pairs(headers: list[_Header] | None) -> list[tuple[str, bytes | None]]:
    return [(_name(header), header.value) for header in headers] if headers else []


def _name(header: _Header) -> str:
    name = header.name if header.key is None else header.key
    if name is None or (header.key is not None and header.name is not None):
        raise HttpError(UNPROCESSABLE, "a header has `key` or `name` - at `$.records[...].headers[...]`")
    return name
