"""Requests to a group coordinator between nodes (10000, ours): one form for all of them, opaque to Kafka's framing."""

from __future__ import annotations

from typing import Any

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.wire import apis, schemas
from kraft.wire.messages.common import Rpc


def _to_request(request: r.Request, timeout_ms: int) -> Any:
    return schemas.request_class(apis.GROUP_REQUEST, 0)(body=r.encode(request))


def _response(code: int, body: bytes) -> Any:
    return schemas.response_class(apis.GROUP_REQUEST, 0)(error_code=code, body=body)


GROUP_REQUEST: Rpc[r.Request, a.Answer] = Rpc(
    api=apis.GROUP_REQUEST,
    to_request=_to_request,
    from_request=lambda message: r.decode_request(message.body),
    to_reply=lambda request, reply: _response(0, a.encode(reply)),
    from_reply=lambda request, message: a.decode_answer(message.body),
    refuse=lambda message, code: _response(code, b""),
)
