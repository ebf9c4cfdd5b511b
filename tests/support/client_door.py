"""Requests of Kafka clients to the handlers of a node: through the codec of their version, both ways."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.node.assembly import node_parts
from kraft.protocol import apis, codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection, Later
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.node_parts import NodeParts

MessageT = TypeVar("MessageT", bound=TopLevel)


def broker_of(node: SimulatedNode) -> NodeParts:
    """The parts of a simulated node, as its Kafka listener gets them."""
    parts = node.node
    assert parts is not None
    return node_parts(parts)


class ClientDoor:
    """One connection of a client to a node."""

    def __init__(self, node: SimulatedNode, *, listener: str = "PLAINTEXT", client_id: str | None = "client") -> None:
        self.node = node
        self.connection = ClientConnection(peer="10.1.2.3:54321", listener=listener)
        self._apis = ApiHandlers(broker_of(node))
        self._client_id = client_id

    async def ask(self, message: TopLevel, version: int) -> Any:
        """The response, as the client reads it. What the version lacks is lost on both ways."""
        api = self._apis.get(message.API_KEY)
        assert api is not None, message
        assert version in apis.BY_KEY[message.API_KEY].clients, (message, version)
        asked = _passed(api.request, version, message)
        call = Call(message=asked, version=version, client_id=self._client_id, connection=self.connection)
        try:
            answer = await self.node.machine.run(_handled(api, call))
        except KafkaError as error:
            answer = api.refuse(asked, version, error)
        assert answer is not None, message
        return _passed(api.response, version, answer)


async def _handled(api: ApiHandler, call: Call[Any]) -> TopLevel | None:
    """All of it in the node's own process."""
    answer = api.handle(call)
    if isinstance(answer, Later):
        answer = answer.render(await answer.future)
    found: TopLevel | None = await answer if isinstance(answer, Awaitable) else answer
    return found


def _passed(kind: type[MessageT], version: int, message: TopLevel) -> MessageT:
    return codec.decode_body(kind, version, memoryview(b"".join(codec.encode_body(message, version))), 0)
