"""NodeFacts (10001, ours): what this node knows of the cluster, for another node that somebody watches."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.broker.node_facts import decode_scope, encode_facts
from kraft.protocol.messages.node_facts_request import NodeFactsRequestData
from kraft.protocol.messages.node_facts_response import NodeFactsResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.node_parts import NodeParts


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    async def answer(call: Call[NodeFactsRequestData]) -> NodeFactsResponseData:
        facts = parts.facts.facts(decode_scope(bytes(call.message.scope)))
        return NodeFactsResponseData.make(error_code=0, facts=encode_facts(facts))

    return (
        ApiHandler(
            request=NodeFactsRequestData,
            response=NodeFactsResponseData,
            handle=answer,
            refuse=lambda message, version, error: NodeFactsResponseData.make(error_code=error.code, facts=b""),
        ),
    )
