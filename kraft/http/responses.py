"""The last step of every response: codes, media type and fields as the dialect and the profile have them.

An exception that no handler foresaw becomes an event with its traceback, and a 500 that names the event.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from kraft.http.endpoint import Call, Route
from kraft.http.errors import INTERNAL, HttpError, error_response, from_kafka
from kraft.http.extension_fields import plain_shape, without_additions
from kraft.protocol.errors import KafkaError
from kraft.protocol.media_types import PLAIN_JSON
from metadata.events import Events

FRAMES_MAX = 20
"""Innermost frames that the event keeps."""
JOINED_BYTES_MAX = 65_536
"""A longer body is not copied behind its headers, which would cost more than to send the two one after the other."""


class _HeadersFirst(web.Response):
    """aiohttp joins headers and body of a Response, but not those of a StreamResponse, whose value this is."""

    _send_headers_immediately = True


def with_body(body: bytes | bytearray, headers: Mapping[str, str]) -> web.Response:
    """A 200 with a body of any length."""
    return (_HeadersFirst if len(body) > JOINED_BYTES_MAX else web.Response)(body=body, headers=headers)


def plain_json(document: Any, *, status: int = 200) -> web.Response:
    """A document as JSON, in the media type of everything outside v2."""
    return web.Response(status=status, body=msgspec.json.encode(document), headers={"Content-Type": PLAIN_JSON})


def refused(call: Call, route: Route, error: HttpError | KafkaError) -> web.Response:
    """The JSON error for this request: status and code by the table of `kraft.http.errors`, media type as the dialect
    has it.
    """
    if isinstance(error, KafkaError):
        error = from_kafka(error, unknown_topic=call.unknown_topic)
    is_v2 = route.tag == "v2"
    media = call.context.dialect.error_media(call.accept) if is_v2 else PLAIN_JSON
    return error_response(error, media=media, has_additions=call.has_additions)


def finished(call: Call, route: Route, response: web.StreamResponse) -> web.StreamResponse:
    """In the strict profile: without the additions, where the client has not asked for them."""
    if call.has_additions or not isinstance(response, web.Response):
        return response
    body = route.answers.get(response.status)
    model = None if body is None else body.content.get(response.headers.get("Content-Type", ""))
    shape = None if model is None else plain_shape(model)
    if shape is not None and response.body:
        assert isinstance(response.body, (bytes, bytearray)), type(response.body)
        response.body = msgspec.json.encode(without_additions(msgspec.json.decode(response.body), shape))
    return response


def plain(call: Call, document: Any, model: Any) -> Any:
    """One document of a stream, without the additions where they are not wanted."""
    return document if call.has_additions else without_additions(document, plain_shape(model))


class InternalErrors:
    """Makes an event and an answer of an exception that no handler foresaw. Ids come from `rng`; without `events` the
    fault is only answered.
    """

    def __init__(self, events: Events | None, rng: random.Random) -> None:
        self._events = events
        self._rng = rng

    def note(self, error: Exception, route: Route) -> HttpError:
        """The error for the client, which learns nothing of the exception itself: that goes into events.jsonl."""
        fault_id = self._rng.randbytes(6).hex()
        if self._events is not None:
            frames = traceback.format_exception(error, limit=-FRAMES_MAX)
            self._events.emit(
                "http_request_failed",
                fault_id=fault_id,
                method=route.method,
                route=route.path,
                error=repr(error),
                traceback="".join(frames),
            )
        message = f"a fault of this node; its events.jsonl has the details under the fault_id {fault_id}"
        return HttpError(INTERNAL, message, extra={"fault_id": fault_id})
