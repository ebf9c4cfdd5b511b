"""`application/vnd.kafka.records.v1`: records one after another, without base64 and without JSON.

All integers are big-endian. Produce:

    record  := key value int64 timestamp int32 header_count header*
    key     := int32 length (-1: null), then that many bytes; value likewise
    header  := int32 length, UTF-8 name, int32 length (-1: null), bytes

`timestamp` is in milliseconds; -1 asks for the time of arrival. Read: each record has its `int64 offset` in front.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct, error

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.record_counts import TOO_LARGE
from kraft.http.records import NO_HEADERS, InRecord, OutRecord
from kraft.protocol.primitives import INT32_MAX

_INT32 = Struct(">i")
_INT64 = Struct(">q")
_TAIL = Struct(">qi")

NOW = -1


def decode_records(
    body: bytes, *, now_ms: int, records_max: int = INT32_MAX, headers_max: int = INT32_MAX
) -> list[OutRecord]:
    """Raises HttpError 422 that names the record and the byte where the body stops making sense, 413 for too many."""
    records: list[OutRecord] = []
    headers_left = headers_max
    position, end = 0, len(body)
    try:
        while position < end:
            key, position = _bytes(body, position)
            value, position = _bytes(body, position)
            timestamp, header_count = _TAIL.unpack_from(body, position)
            position += _TAIL.size
            headers = NO_HEADERS
            if len(records) == records_max:
                raise HttpError(TOO_LARGE, f"more than {records_max} records in a request; send them in several")
            if header_count:
                headers_left -= _checked_count(body, position, header_count)
                if headers_left < 0:
                    raise HttpError(TOO_LARGE, f"more than {headers_max} headers in a request; send them in several")
                headers, position = _headers(body, position, header_count)
            if timestamp < NOW:
                raise ValueError(f"timestamp {timestamp} is below -1")
            records.append(OutRecord(key, value, headers, now_ms if timestamp == NOW else timestamp, None))
    except error as problem:
        message = f"record {len(records)}, near byte {position} of {end}: the body ends within the record"
        raise HttpError(UNPROCESSABLE, message) from problem
    except ValueError as problem:
        raise HttpError(UNPROCESSABLE, f"record {len(records)}, near byte {position} of {end}: {problem}") from problem
    if not records:
        raise HttpError(UNPROCESSABLE, "the body holds no record")
    return records


def _bytes(body: bytes, position: int) -> tuple[bytes | None, int]:
    (length,) = _INT32.unpack_from(body, position)
    start = position + 4
    if length == -1:
        return None, start
    if length < 0 or start + length > len(body):
        raise ValueError(f"a length of {length} with {len(body) - start} bytes left")
    return body[start : start + length], start + length


def _checked_count(body: bytes, position: int, count: int) -> int:
    """Raises ValueError for more headers than can follow."""
    if count < 0 or count * 8 > len(body) - position:
        raise ValueError(f"{count} headers with {len(body) - position} bytes left")
    return count


def _headers(body: bytes, position: int, count: int) -> tuple[list[tuple[str, bytes | None]], int]:
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, position = _bytes(body, position)
        if name is None:
            raise ValueError("a header without a name")
        value, position = _bytes(body, position)
        headers.append((_text(name), value))
    return headers, position


def _text(name: bytes) -> str:
    """Raises ValueError, whose text is for the client."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise ValueError("the name of a header is not UTF-8") from None


def encode_records(records: Iterable[InRecord]) -> bytes:
    """The records one after another, each with its offset in front."""
    parts: list[bytes] = []
    for record in records:
        parts.append(_INT64.pack(record.offset))
        _append_bytes(parts, record.key)
        _append_bytes(parts, record.value)
        parts.append(_TAIL.pack(record.timestamp, len(record.headers)))
        for name, value in record.headers:
            _append_bytes(parts, name.encode())
            _append_bytes(parts, value)
    return b"".join(parts)


def _append_bytes(parts: list[bytes], data: bytes | None) -> None:
    if data is None:
        parts.append(_INT32.pack(-1))
    else:
        parts.append(_INT32.pack(len(data)))
        parts.append(data)
