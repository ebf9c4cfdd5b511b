"""AlterRoute (10002, ours), as nodes ask it of the active controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kraft.protocol import apis
from kraft.protocol.messages import alter_route_request as message
from kraft.protocol.messages.alter_route_request import AlterRouteRequestData
from kraft.protocol.messages.alter_route_response import AlterRouteResponseData
from kraft.wire.rpc import Rpc
from metadata.controller.requests import AlterRoute
from metadata.routes import Binding


def _to_request(request: AlterRoute, timeout_ms: int) -> AlterRouteRequestData:
    return AlterRouteRequestData.make(
        operation=request.operation,
        name=request.name,
        kind=request.kind,
        added=_bindings(request.added),
        removed=_bindings(request.removed),
    )


def _bindings(bindings: Iterable[Binding]) -> Sequence[message.Binding]:
    return [message.Binding.make(key=each.key, topic=each.topic) for each in bindings]


ALTER_ROUTE: Rpc[AlterRoute, None, AlterRouteRequestData, AlterRouteResponseData] = Rpc(
    api=apis.ALTER_ROUTE,
    response=AlterRouteResponseData,
    to_request=_to_request,
    from_reply=lambda request, answer: None,
)
