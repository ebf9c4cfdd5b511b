"""Requests to this broker's group coordinator, as other nodes forward them."""

from __future__ import annotations

from typing import Protocol

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol.errors import NotCoordinator
from kraft.wire.generated.group_request_request import GroupRequestRequestData
from kraft.wire.handlers.served import Call, Served
from kraft.wire.messages.groups import GROUP_REQUEST
from kraft.wire.primitives import TopLevel


class Coordinator(Protocol):
    async def ask(self, request: r.Request) -> a.Answer: ...


def group_handlers(coordinator: Coordinator | None) -> list[Served]:
    """The handler for group requests that other nodes forward; without a coordinator it answers NOT_COORDINATOR 16."""

    async def handle(call: Call[GroupRequestRequestData]) -> TopLevel:
        if coordinator is None:
            raise NotCoordinator("this node has no broker role and so coordinates no groups")
        request = GROUP_REQUEST.requested(call.message)
        return GROUP_REQUEST.to_reply(request, await coordinator.ask(request))

    return [Served(api=GROUP_REQUEST.api, handle=handle, refuse=GROUP_REQUEST.refuse)]
