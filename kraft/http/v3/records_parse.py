"""One record of a v3 produce stream: its JSON, compiled and checked in one pass. Embedded JSON keeps its digits."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.offset_spec import parse_iso_time
from kraft.http.records import OutRecord
from kraft.http.v2.parse import NULL, check_utf8
from kraft.http.v3.records_models import NEEDS_REGISTRY, NO_REGISTRY, DataType
from kraft.protocol.primitives import INT32_MAX

_Partition: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)] | None


class Data(Struct, forbid_unknown_fields=True):
    type: DataType | None = None
    data: Raw = Raw(NULL)
    subject: str | None = None
    subject_name_strategy: str | None = None
    schema_id: int | None = None
    schema_version: int | None = None
    schema: str | None = None


class _Header(Struct, forbid_unknown_fields=True):
    name: str
    value: bytes | None = None


class StreamRecord(Struct, forbid_unknown_fields=True):
    partition_id: _Partition = None
    headers: list[_Header] | None = None
    key: Data | None = None
    value: Data | None = None
    timestamp: str | None = None


BINARY = "BINARY"
"""The type of data that names none."""
_NO_SCHEMA = (None,) * 5
_record = msgspec.json.Decoder(StreamRecord)
_string = msgspec.json.Decoder(str)
_binary = msgspec.json.Decoder(bytes)


def parse_record(text: bytes, *, now_ms: int) -> tuple[StreamRecord, OutRecord]:
    """Raises HttpError 400 for malformed JSON, which ends its stream, 422 for JSON that is no record."""
    try:
        check_utf8(text)
        record = _record.decode(text)
        parsed = OutRecord(
            _bytes(record.key),
            _bytes(record.value),
            [(header.name, header.value) for header in record.headers or ()],
            now_ms if record.timestamp is None else parse_iso_time(record.timestamp, "timestamp "),
            record.partition_id,
        )
    except msgspec.ValidationError as error:
        raise HttpError(UNPROCESSABLE, f"Error: 42206 : {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"malformed JSON: {error}") from error
    except HttpError as error:
        raise HttpError(UNPROCESSABLE, f"Error: 42206 : {error.message}") from error
    return record, parsed


def _bytes(data: Data | None) -> bytes | None:
    if data is None:
        return None
    schema = (data.subject, data.subject_name_strategy, data.schema_id, data.schema_version, data.schema)
    if data.type in NEEDS_REGISTRY or schema != _NO_SCHEMA:
        raise HttpError(UNPROCESSABLE, NO_REGISTRY)
    if bytes(data.data) == NULL:
        return None
    if data.type == "JSON":
        return msgspec.json.format(bytes(data.data), indent=-1)
    if data.type == "STRING":
        return _string.decode(data.data).encode()
    return _binary.decode(data.data)
