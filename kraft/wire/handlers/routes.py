"""AlterRoute (10002, ours): a change of a route, as other nodes ask it of the active controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from kraft.protocol.errors import InvalidRequest
from kraft.protocol.messages import alter_route_request as message
from kraft.protocol.messages.alter_route_request import AlterRouteRequestData
from kraft.protocol.messages.alter_route_response import AlterRouteResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from metadata.controller.requests import AlterRoute
from metadata.routes import Binding, RouteKind

_OPERATIONS: Final[dict[str, Literal["create", "alter", "delete"]]] = {
    "create": "create",
    "alter": "alter",
    "delete": "delete",
}


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    control = Control(parts)

    async def alter(call: Call[AlterRouteRequestData]) -> AlterRouteResponseData:
        await control.ask(call, _request(call.message))
        return AlterRouteResponseData.make(error_code=0)

    return (
        ApiHandler(
            request=AlterRouteRequestData,
            response=AlterRouteResponseData,
            handle=alter,
            refuse=lambda message, version, error: AlterRouteResponseData.make(error_code=error.code),
        ),
    )


def _request(asked: AlterRouteRequestData) -> AlterRoute:
    """Raises InvalidRequest 42 for an operation or a kind that is none."""
    if asked.operation not in _OPERATIONS or asked.kind not in (None, *RouteKind):
        raise InvalidRequest(f"{asked.operation!r} of a route of kind {asked.kind!r} is not known here")
    return AlterRoute(
        name=asked.name,
        operation=_OPERATIONS[asked.operation],
        kind=None if asked.kind is None else RouteKind(asked.kind),
        added=_bindings(asked.added),
        removed=_bindings(asked.removed),
    )


def _bindings(bindings: Iterable[message.Binding]) -> tuple[Binding, ...]:
    return tuple(Binding(each.key, each.topic) for each in bindings)
