"""How records, heartbeats and errors look on a stream: Server-Sent Events or one JSON object a line. Pure.

Server-Sent Events (WHATWG HTML 9.2): an event is lines of `field: value` and an empty line; `id` comes back as
Last-Event-ID. The first event has an id and no data: browsers keep the id and fire nothing. Heartbeats are comments.
NDJSON: heartbeats are empty lines, which its readers ignore; an error is an object with an `error_code`.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from kraft.protocol.media_types import EVENT_STREAM, NDJSON

RETRY_MS = 1_000
"""How long a browser waits before it connects again (`retry:`)."""


class Frames(Protocol):
    """A form of stream: its content type, and how each kind of message is written."""

    @property
    def content_type(self) -> str: ...
    def begin(self, position: str) -> bytes: ...
    def record(self, data: bytes, position: str) -> bytes:
        """`data` is one line of JSON; the position is that after the record."""
        ...

    def heartbeat(self) -> bytes: ...
    def error(self, body: dict[str, Any], position: str) -> bytes: ...


class EventFrames:
    content_type = EVENT_STREAM

    def begin(self, position: str) -> bytes:
        """Without an id where nothing is known yet: an empty one would make the client forget its own."""
        id_line = f"id: {position}\n" if position else ""
        return f"retry: {RETRY_MS}\n{id_line}\n".encode()

    def record(self, data: bytes, position: str) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (position.encode(), data)

    def heartbeat(self) -> bytes:
        return b": heartbeat\n\n"

    def error(self, body: dict[str, Any], position: str) -> bytes:
        return b"event: error\nid: %b\ndata: %b\n\n" % (position.encode(), msgspec.json.encode(body))


class LineFrames:
    content_type = NDJSON

    def begin(self, position: str) -> bytes:
        return b""

    def record(self, data: bytes, position: str) -> bytes:
        return data + b"\n"

    def heartbeat(self) -> bytes:
        return b"\n"

    def error(self, body: dict[str, Any], position: str) -> bytes:
        return msgspec.json.encode(body | {"position": position}) + b"\n"


FRAMES: dict[str, Frames] = {EVENT_STREAM: EventFrames(), NDJSON: LineFrames()}
