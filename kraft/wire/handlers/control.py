"""Where requests for the active controller go: the one place that chooses, by the principal of the connection.

A client may ask any node, so what it asks goes on to the active controller (`Gateway.control`), and its answer goes out
when this node has seen what was done. A node has found the active controller itself: it asks the controller of this
node alone, which answers NOT_CONTROLLER 41 when it is not active, so that nothing goes from node to node for ever.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from kraft.broker.client_quotas import OWNER
from kraft.broker.control import submit_counted
from kraft.broker.mutations import WAIT
from kraft.protocol import apis
from kraft.protocol.errors import NotController
from kraft.wire.api_handler import Call
from kraft.wire.node_parts import NodeParts
from metadata.controller.requests import Request

Reply = TypeVar("Reply")

STRICT_FROM: Final = {
    apis.BY_NAME[name].key: version
    for name, version in (("CreateTopics", 6), ("DeleteTopics", 5), ("CreatePartitions", 3))
}
"""The version from which a client is refused with 89 when its quota of changes is used up. What an older one asks is
done, and it waits afterwards (KIP-599)."""
NODE_TIMEOUT_MS = 30_000
"""For a node that does not say how long it waits."""


class Control:
    """The way of requests to the active controller."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts

    async def ask(self, call: Call[Any], request: Request[Reply], *, timeout_ms: int | None = None) -> Reply:
        """What the active controller answers. `timeout_ms` is how long a client waits; None where its request has no
        such field, and request.timeout.ms counts. Raises the KafkaError of a refusal.
        """
        WAIT.set([])
        if call.is_from_node:
            return await self._ask_here(call, request)
        if (owner := OWNER.get()) is not None and call.version < STRICT_FROM.get(call.message.API_KEY, 0):
            OWNER.set(owner._replace(is_permissive=True))
        gateway = self._parts.gateway
        client_ms = gateway.settings.request_timeout_ms if timeout_ms is None else max(1, timeout_ms)
        return await gateway.control(request, timeout_ms=client_ms)

    async def _ask_here(self, call: Call[Any], request: Request[Reply]) -> Reply:
        controller, parts = self._parts.controller, self._parts
        if controller is None:
            raise NotController("this node has no controller role; ask the leader of the metadata quorum")
        node_ms = NODE_TIMEOUT_MS if call.timeout_ms is None else call.timeout_ms
        return await submit_counted(
            request,
            lambda left: controller.submit(left, timeout_ms=node_ms),
            quotas=parts.gateway.quotas,
            image=parts.gateway.image,
            clock=parts.environment.clock,
        )
