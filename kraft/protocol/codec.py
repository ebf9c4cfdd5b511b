"""Request and response headers by hand, bodies by the generated messages (`kraft.protocol.messages`).

Request header:  api key int16, api version int16, correlation id int32, client id nullable string (int16 length),
                 then tagged fields when the version is flexible (KIP-482).
Response header: correlation id int32, then tagged fields when flexible; ApiVersions never has them (KIP-511).

Three facts that Kafka's bodies have no field for travel as tagged fields of the headers, which any Kafka peer skips:
how long the sender of a controller request waits, the user for whom a node asks, and the exact error of a request that
was refused as a whole.
Record payloads are opaque: a body is a list of parts in which they stay the buffers that they were.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from kraft.protocol.apis import API_VERSIONS, Api
from kraft.protocol.encoding import REFUSALS, TopLevel
from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import Buffer
from kraft.protocol.varints import Reader, varint
from kraft.values import new, value

TIMEOUT_TAG = 10_000
"""Request header: int32, how long the sender waits for the answer, in ms."""
REFUSAL_TAG = 10_001
"""Response header: int16 error code and the message in UTF-8."""

ASKER_TAG = 10_002
"""Request header: the user for whom a node asks (`kraft.broker.principal`)."""

HEADS_REMEMBERED = 1_024
"""Heads of requests that we send: one for each API that each purpose of our connections speaks."""

_REQUEST_HEAD = struct.Struct(">hhih")
_CORRELATION = struct.Struct(">i")
_INT16 = struct.Struct(">h")
_TIMEOUT_TAG_HEAD = varint(1) + varint(TIMEOUT_TAG) + varint(_CORRELATION.size)
MessageT = TypeVar("MessageT", bound=TopLevel)
_NO_TAGS: Mapping[int, memoryview] = MappingProxyType({})


class Malformed(Exception):
    """The peer's fault: bytes that are no message of the API and version that they claim to be."""


@value(kw_only=True)
class RequestHeader:
    """The fields of a request's header that are the same in all its versions."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    timeout_ms: int | None = None
    asker: bytes | None = None


@value(kw_only=True)
class ResponseHeader:
    """A response's header: whose answer it is, and the error of a request that was refused as a whole, if it was."""

    correlation_id: int
    refusal: tuple[int, str] | None = None
    """Error code and message of a request refused as a whole."""


# --- requests ---------------------------------------------------------------------------------------------------


def encode_request(api: Api, header: RequestHeader, body: TopLevel) -> list[Buffer]:
    """Header and body of a request between nodes, as parts to be sent one after the other in one frame."""
    before, after = _around_correlation_id(header.api_key, header.api_version, header.client_id)
    head = before + _CORRELATION.pack(header.correlation_id) + after
    if api.is_flexible(header.api_version):
        timeout_ms = header.timeout_ms
        if header.asker is not None:
            head += _tags_with_asker(timeout_ms, header.asker)
        else:
            head += b"\0" if timeout_ms is None else _TIMEOUT_TAG_HEAD + _CORRELATION.pack(timeout_ms)
    return _appended([head], body, header.api_version)


def _tags_with_asker(timeout_ms: int | None, asker: bytes) -> bytes:
    tag = varint(ASKER_TAG) + varint(len(asker)) + asker
    if timeout_ms is None:
        return varint(1) + tag
    return varint(2) + _TIMEOUT_TAG_HEAD[1:] + _CORRELATION.pack(timeout_ms) + tag


@lru_cache(HEADS_REMEMBERED)
def _around_correlation_id(key: int, version: int, client_id: str | None) -> tuple[bytes, bytes]:
    """What is the same in all requests of one kind from one of our purposes."""
    data = (client_id or "").encode()
    return struct.pack(">hh", key, version), _INT16.pack(-1 if client_id is None else len(data)) + data


def decode_request_head(frame: memoryview) -> RequestHeader:
    """The header without its tagged fields, which `decode_request` reads. Raises Malformed."""
    try:
        key, version, correlation_id, length = _REQUEST_HEAD.unpack_from(frame, 0)
        client_id = None if length < 0 else str(_client_id(frame, length), "utf-8")
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(f"request header: {error}") from error
    made = new(RequestHeader)
    RequestHeader.__init__(made, api_key=key, api_version=version, correlation_id=correlation_id, client_id=client_id)
    return made


def _client_id(frame: memoryview, length: int) -> memoryview:
    end = _REQUEST_HEAD.size + length
    if end > len(frame):
        raise Malformed(f"request header: client id of {length} bytes in a frame of {len(frame)}")
    return frame[_REQUEST_HEAD.size : end]


def decode_request(
    kind: type[MessageT], header: RequestHeader, frame: memoryview
) -> tuple[MessageT, int | None, bytes | None]:
    """The body of a request between nodes, how long its sender waits in ms, and the user for whom it asks; the last two
    are None where the header has no such tagged field. Raises Malformed."""
    (length,) = _INT16.unpack_from(frame, _REQUEST_HEAD.size - _INT16.size)
    offset = _REQUEST_HEAD.size + max(length, 0)
    timeout_ms = asker = None
    if header.api_version >= kind.FLEXIBLE_FROM:
        tags, offset = _tags(frame, offset)
        if tags:
            tag = tags.get(TIMEOUT_TAG)
            if tag is not None and len(tag) == _CORRELATION.size:
                (timeout_ms,) = _CORRELATION.unpack(tag)
            named = tags.get(ASKER_TAG)
            asker = None if named is None else bytes(named)
    return decode_body(kind, header.api_version, frame, offset), timeout_ms, asker


def body_offset(header: RequestHeader, frame: memoryview, *, is_flexible: bool) -> int:
    """Where the body of a client's request begins; tagged fields of its header are skipped. Raises Malformed."""
    (length,) = _INT16.unpack_from(frame, _REQUEST_HEAD.size - _INT16.size)
    offset: int = _REQUEST_HEAD.size + max(length, 0)
    return _tags(frame, offset)[1] if is_flexible else offset


# --- responses --------------------------------------------------------------------------------------------------


def encode_response(
    kind: type[TopLevel], version: int, correlation_id: int, body: TopLevel, *, refused: KafkaError | None = None
) -> list[Buffer]:
    """Header and body of a response, as parts of one frame. `refused` is the error of a node's request that was refused
    as a whole; it travels as a tagged field of the header.
    """
    head = _CORRELATION.pack(correlation_id)
    if version >= kind.FLEXIBLE_FROM and API_VERSIONS.key != kind.API_KEY:
        head += b"\0" if refused is None else _refusal_tag(refused)
    return _appended([head], body, version)


def has_flexible_response_header(api: Api, version: int) -> bool:
    """Whether the response's header has tagged fields; that of ApiVersions has none in any version (KIP-511)."""
    return api.is_flexible(version) and api.key != API_VERSIONS.key


def _refusal_tag(refused: KafkaError) -> bytes:
    wait = f"\0{refused.wait_ms}" if refused.wait_ms else ""
    value = _INT16.pack(refused.code) + (refused.message + wait).encode()
    return varint(1) + varint(REFUSAL_TAG) + varint(len(value)) + value


def decode_response_head(api: Api, version: int, frame: memoryview) -> tuple[ResponseHeader, int]:
    """The header and the offset of the body. Raises Malformed."""
    try:
        (correlation_id,) = _CORRELATION.unpack_from(frame, 0)
    except struct.error as error:
        raise Malformed(f"response header: {error}") from error
    offset, refusal = _CORRELATION.size, None
    if has_flexible_response_header(api, version):
        tags, offset = _tags(frame, offset)
        tag = tags.get(REFUSAL_TAG)
        if tag is not None and len(tag) >= _INT16.size:
            refusal = (_INT16.unpack_from(tag)[0], str(tag[_INT16.size :], "utf-8", "replace"))
    made = new(ResponseHeader)
    ResponseHeader.__init__(made, correlation_id=correlation_id, refusal=refusal)
    return made, offset


def correlation_id_of(frame: memoryview) -> int:
    """The correlation id with which a response begins. Raises Malformed."""
    if len(frame) < _CORRELATION.size:
        raise Malformed(f"response of {len(frame)} bytes")
    (correlation_id,) = _CORRELATION.unpack_from(frame, 0)
    return int(correlation_id)


def _tags(frame: memoryview, offset: int) -> tuple[Mapping[int, memoryview], int]:
    if offset < len(frame) and not frame[offset]:  # none, as nearly always
        return _NO_TAGS, offset + 1
    reader = Reader(frame, offset)
    try:
        return reader.tagged_fields(), reader.offset
    except ValueError as error:
        raise Malformed(f"tagged fields of a header: {error}") from error


# --- bodies -----------------------------------------------------------------------------------------------------


def encode_body(message: TopLevel, version: int) -> list[Buffer]:
    """The body of a message in one of its versions, as parts; payloads are the buffers that they were, not copies."""
    return _appended([], message, version)


def _appended(parts: list[Buffer], message: TopLevel, version: int) -> list[Buffer]:
    message.WRITERS[version](parts, message)
    return parts


def decode_body(kind: type[MessageT], version: int, frame: memoryview, offset: int) -> MessageT:
    """A message in one of its versions, from `offset` to the end of the frame. Raises Malformed, also for bytes after
    the end of the body.
    """
    message, end = _decoded_body(kind, version, frame, offset)
    if end != len(frame):
        raise Malformed(f"{kind.__name__} version {version}: {len(frame) - end} bytes after its end")
    return message


def decode_client_body(kind: type[MessageT], version: int, frame: memoryview, offset: int) -> MessageT:
    """Read a body as Kafka does: bytes behind its end are not read. librdkafka (2.16) asks for all topics with
    the four bytes of an old length, the first of which is the null of a compact one. Raises Malformed."""
    return _decoded_body(kind, version, frame, offset)[0]


def _decoded_body(kind: type[MessageT], version: int, frame: memoryview, offset: int) -> tuple[MessageT, int]:
    try:
        decoded: tuple[MessageT, int] = kind.READERS[version](frame, offset)
    except REFUSALS as error:
        raise Malformed(f"{kind.__name__} version {version}: {type(error).__name__}: {error}") from error
    return decoded
