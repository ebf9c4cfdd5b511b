"""What another node knows (NodeFacts, 10001, ours), on a connection of its own: nobody else waits behind it."""

from __future__ import annotations

from kraft.broker.node_facts import NodeFacts, Scope, decode_facts, encode_scope
from kraft.protocol import apis
from kraft.protocol.messages.node_facts_request import NodeFactsRequestData
from kraft.protocol.messages.node_facts_response import NodeFactsResponseData
from kraft.wire.peers import Peers
from kraft.wire.rpc import Rpc

FACTS_TIMEOUT_MS = 1_000
"""A node that is slower than this is shown as one that does not answer."""


def _to_request(request: Scope, timeout_ms: int) -> NodeFactsRequestData:
    return NodeFactsRequestData.make(scope=encode_scope(request))


NODE_FACTS: Rpc[Scope, NodeFacts, NodeFactsRequestData, NodeFactsResponseData] = Rpc(
    api=apis.NODE_FACTS,
    response=NodeFactsResponseData,
    to_request=_to_request,
    from_reply=lambda request, message: decode_facts(bytes(message.facts)),
)


class FactsChannel:
    """Asks one other node."""

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def ask(self, scope: Scope) -> NodeFacts:
        """Raises what `Peers.call` raises."""
        return await self._peers.call(
            self._node_id, "forward", NODE_FACTS, scope, timeout_ms=FACTS_TIMEOUT_MS, lane="facts"
        )
