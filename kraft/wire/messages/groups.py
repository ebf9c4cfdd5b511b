"""Requests to a group coordinator between nodes (10000, ours): one form for all of them, opaque to Kafka's framing."""

from __future__ import annotations

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol import apis
from kraft.protocol.messages.group_request_request import GroupRequestRequestData
from kraft.protocol.messages.group_request_response import GroupRequestResponseData
from kraft.wire.messages.common import ServedRpc


def _to_request(request: r.Request, timeout_ms: int) -> GroupRequestRequestData:
    return GroupRequestRequestData.make(body=r.encode(request))


def _response(code: int, body: bytes) -> GroupRequestResponseData:
    return GroupRequestResponseData.make(error_code=code, body=body)


GROUP_REQUEST: ServedRpc[r.Request, a.Answer, GroupRequestRequestData, GroupRequestResponseData] = ServedRpc(
    api=apis.GROUP_REQUEST,
    response=GroupRequestResponseData,
    to_request=_to_request,
    from_request=lambda message: r.decode_request(bytes(message.body)),
    to_reply=lambda request, reply: _response(0, a.encode(reply)),
    from_reply=lambda request, message: a.decode_answer(bytes(message.body)),
    refuse=lambda message, code: _response(code, b""),
)
