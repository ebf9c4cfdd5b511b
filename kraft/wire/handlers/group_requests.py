"""Requests to this broker's group coordinator, as other nodes forward them."""

from __future__ import annotations

from kraft.coordinators.groups.routing import Coordinator
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import NotCoordinator
from kraft.protocol.messages.group_request_request import GroupRequestRequestData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.messages.groups import GROUP_REQUEST


def group_handlers(coordinator: Coordinator | None) -> list[ApiHandler]:
    """The handler for group requests that other nodes forward; without a coordinator it answers NOT_COORDINATOR 16."""

    async def handle(call: Call[GroupRequestRequestData]) -> TopLevel:
        if coordinator is None:
            raise NotCoordinator("this node has no broker role and so coordinates no groups")
        request = GROUP_REQUEST.requested(call.message)
        return GROUP_REQUEST.to_reply(request, await coordinator.ask(request))

    return [GROUP_REQUEST.served(handle)]
