"""Requests to the controller: decode, `submit`, encode. A node without the controller role answers NOT_CONTROLLER."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import NotController
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.messages.common import ServedRpc
from kraft.wire.messages.controller import CONTROLLER_RPCS
from metadata.controller.requests import Request

Reply = TypeVar("Reply")

TIMEOUT_MS = 30_000
"""For senders that do not tell how long they wait."""


class Controller(Protocol):
    async def submit(self, request: Request[Reply], *, timeout_ms: int) -> Reply: ...


def controller_handlers(controller: Controller | None) -> list[ApiHandler]:
    """One handler for each request that the controller takes; without a controller all answer NOT_CONTROLLER 41."""
    return [_served(rpc, controller) for rpc in CONTROLLER_RPCS.values()]


def _served(rpc: ServedRpc[Any, Any, Any, Any], controller: Controller | None) -> ApiHandler:
    async def handle(call: Call[Any]) -> TopLevel:
        if controller is None:
            raise NotController("this node has no controller role; ask the leader of the metadata quorum")
        request = rpc.requested(call.message)
        timeout_ms = TIMEOUT_MS if call.timeout_ms is None else call.timeout_ms
        response: TopLevel = rpc.to_reply(request, await controller.submit(request, timeout_ms=timeout_ms))
        return response

    return rpc.served(handle)
