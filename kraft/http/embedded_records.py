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

_encode = msgspec.json.Encoder().encode
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


def encode_json(records: Sequence[InRecord], form: Format, *, topic: str, partition: int) -> bytes:
    """Raises HttpError 422 for a value that is not `form`.

    In pieces: on a worker, the event loop waits for no more than one of them.
    """
    if len(records) <= _PIECE_RECORDS:
        return _encoded(records, form, topic=topic, partition=partition)
    pieces = [
        _encoded(records[at : at + _PIECE_RECORDS], form, topic=topic, partition=partition)[1:-1]
        for at in range(0, len(records), _PIECE_RECORDS)
    ]
    return b"[" + b",".join(pieces) + b"]"


def _encoded(records: Sequence[InRecord], form: Format, *, topic: str, partition: int) -> bytes:
    convert = _CONVERT[form]
    return _encode(
        [
            ConsumedRecord(
                topic,
                _key(r.key, convert),
                r.value if convert is None else _value(r, convert),
                partition,
                r.offset,
                r.timestamp,
                [ConsumedHeader(name, value) for name, value in r.headers] if r.headers else _NO_HEADERS,
            )
            for r in records
        ]
    )


def encode_each(
    records: Sequence[InRecord], form: Format, *, topic: str, partition: int
) -> tuple[list[bytes], HttpError | None]:
    """Each record as JSON on one line, up to the first whose value is not `form`, and what is wrong with that one."""
    lines: list[bytes] = []
    for record in records:
        try:
            line = encode_json((record,), form, topic=topic, partition=partition)[1:-1]
        except HttpError as error:
            return lines, error
        # Only white space between tokens can be a line break, and only in JSON that a producer stored so.
        lines.append(msgspec.json.format(line, indent=-1) if b"\n" in line or b"\r" in line else line)
    return lines, None


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


def _key(key: bytes | None, convert: Callable[[bytes], Any] | None) -> Any:
    if key is None or convert is None:
        return key
    try:
        return convert(key)
    except (ValueError, msgspec.DecodeError):
        return b2a_base64(key, newline=False).decode()


def _value(record: InRecord, convert: Callable[[bytes], Any]) -> Any:
    if record.value is None:
        return None
    try:
        return convert(record.value)
    except (ValueError, msgspec.DecodeError) as error:
        kind = "JSON" if convert is _as_json else "UTF-8 text"
        raise HttpError(
            UNPROCESSABLE,
            f"the value at offset {record.offset} is not {kind} ({error}); read it as binary, or from the next offset",
            extra={"offset": record.offset},
        ) from error
