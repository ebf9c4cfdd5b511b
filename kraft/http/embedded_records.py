"""Records as a JSON array, keys and values embedded as base64, as JSON, or as text.

A value that is not in the asked format is an error that names its offset; a key falls back to base64, as in Karapace.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.media import Format
from kraft.http.records import InRecord

_encoder = msgspec.json.Encoder()
_check_json = msgspec.json.Decoder(Raw).decode


class ConsumedHeader(msgspec.Struct, gc=False):
    """A header of a record; the value is base64."""

    key: str
    value: bytes | None


class ConsumedRecord(msgspec.Struct, gc=False):
    """One record of an answer. Key and value are base64, JSON or text, as the client asked for."""

    topic: str
    key: Any
    value: Any
    partition: int
    offset: int
    timestamp: int
    headers: list[ConsumedHeader]


_NO_HEADERS: list[ConsumedHeader] = []
_PIECE_RECORDS = 1_000
_COMMA = ord(",")


def encode_json(records: Sequence[InRecord], form: Format, *, topic: str, partition: int) -> bytearray:
    """Raises HttpError 422 for a value that is not `form`.

    In pieces: on a worker, the event loop waits for no more than one of them. Each is written into the one buffer over
    the bracket that ended the one before, as a copy of a large answer costs nearly as much as making it.
    """
    answer, convert = bytearray(b"[]"), _CONVERT[form]
    for at in range(0, len(records), _PIECE_RECORDS):
        begin = len(answer) - 1 if at else 0
        piece = [_consumed(r, convert, topic, partition) for r in records[at : at + _PIECE_RECORDS]]
        _encoder.encode_into(piece, answer, begin)
        if at:
            answer[begin] = _COMMA
    return answer


def _consumed(record: InRecord, convert: Callable[[bytes], Any] | None, topic: str, partition: int) -> ConsumedRecord:
    key, value, headers = record.key, record.value, record.headers
    return ConsumedRecord(
        topic,
        key if key is None or convert is None else _key(key, convert),
        value if value is None or convert is None else _value(value, convert, (topic, partition, record.offset)),
        partition,
        record.offset,
        record.timestamp,
        [ConsumedHeader(name, value) for name, value in headers] if headers else _NO_HEADERS,
    )


def encode_each(
    records: Sequence[InRecord], form: Format, *, topic: str, partition: int
) -> tuple[list[bytes], HttpError | None]:
    """Each record as JSON on one line, up to the first whose value is not `form`, and what is wrong with that one."""
    lines: list[bytes] = []
    convert = _CONVERT[form]
    for record in records:
        try:
            line = _encoder.encode(_consumed(record, convert, topic, partition))
            if b"\n" in line or b"\r" in line:
                line = _one_line(line, (topic, partition, record.offset))
        except HttpError as error:
            return lines, error
        lines.append(line)
    return lines, None


def _one_line(line: bytes, place: tuple[str, int, int]) -> bytes:
    """Without line breaks: only white space between tokens can be one, and only in JSON that a producer stored so."""
    try:
        return msgspec.json.format(line, indent=-1)
    except RecursionError as error:  # the value is one level deeper here than when it was checked
        raise _not_of_the_format("JSON", place) from error


def _as_json(data: bytes) -> Raw:
    """Raises ValueError unless the bytes are one JSON value in UTF-8, nested no deeper than the parser goes."""
    if not data.isascii():
        data.decode()
    try:
        _check_json(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return Raw(data)


_CONVERT: dict[Format, Callable[[bytes], Any] | None] = {
    Format.BINARY: None,
    Format.JSON: _as_json,
    Format.TEXT: bytes.decode,
}


def as_format(data: bytes, form: Format) -> Any:
    """The bytes as they stand in an answer. Raises ValueError or msgspec.DecodeError for what is not of the format."""
    convert = _CONVERT[form]
    return data if convert is None else convert(data)


def _key(key: bytes, convert: Callable[[bytes], Any]) -> Any:
    try:
        return convert(key)
    except (ValueError, msgspec.DecodeError):
        return b2a_base64(key, newline=False).decode()


def _value(value: bytes, convert: Callable[[bytes], Any], place: tuple[str, int, int]) -> Any:
    try:
        return convert(value)
    except (ValueError, msgspec.DecodeError) as error:
        kind = "JSON" if convert is _as_json else "UTF-8 text"
        raise _not_of_the_format(kind, place) from error


def _not_of_the_format(kind: str, place: tuple[str, int, int]) -> HttpError:
    topic, partition, offset = place
    return HttpError(
        UNPROCESSABLE,
        f"the value of {topic}-{partition} at offset {offset} is not {kind}; read it as binary, or seek to offset "
        f"{offset + 1}",
        extra={"topic": topic, "partition": partition, "offset": offset},
    )
