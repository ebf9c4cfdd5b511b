"""GroupRequest (10000, ours): requests to this broker's group coordinator, as other nodes forward them."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.coordinators.groups import answers, requests
from kraft.protocol.errors import NotCoordinator
from kraft.protocol.messages.group_request_request import GroupRequestRequestData
from kraft.protocol.messages.group_request_response import GroupRequestResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.node_parts import NodeParts


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    async def ask(call: Call[GroupRequestRequestData]) -> GroupRequestResponseData:
        answer = await parts.broker_or(NotCoordinator).group_coordinator.ask(
            requests.decode_request(bytes(call.message.body))
        )
        return GroupRequestResponseData.make(error_code=0, body=answers.encode(answer))

    return (
        ApiHandler(
            request=GroupRequestRequestData,
            response=GroupRequestResponseData,
            handle=ask,
            refuse=lambda message, version, error: GroupRequestResponseData.make(error_code=error.code, body=b""),
        ),
    )
