"""The last step of every answer: codes, media type and fields as the dialect and the profile have them."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from kraft.http.additions import plain_shape, without_additions
from kraft.http.endpoint import Call, Route
from kraft.http.errors import HttpError, error_response, from_kafka
from kraft.protocol.errors import KafkaError
from kraft.protocol.media_types import PLAIN_JSON


def refused(call: Call, route: Route, error: HttpError | KafkaError) -> web.Response:
    if isinstance(error, KafkaError):
        error = from_kafka(error, unknown_topic=call.unknown_topic)
    is_v2 = route.tag == "v2"
    media = call.context.dialect.error_media(error, accept=call.accept) if is_v2 else PLAIN_JSON
    return error_response(error, media=media, has_additions=call.has_additions)


def finished(call: Call, route: Route, response: web.StreamResponse) -> web.StreamResponse:
    """Without the additions, where the client has not asked for them and the profile is strict."""
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
