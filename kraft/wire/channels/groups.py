"""Requests to a group coordinator between nodes (10000, ours): one form for all of them, opaque to Kafka's framing."""

from __future__ import annotations

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol import apis
from kraft.protocol.messages.group_request_request import GroupRequestRequestData
from kraft.protocol.messages.group_request_response import GroupRequestResponseData
from kraft.wire.peers import Peers
from kraft.wire.rpc import Rpc


def _to_request(request: r.Request, timeout_ms: int) -> GroupRequestRequestData:
    return GroupRequestRequestData.make(body=r.encode(request))


GROUP_REQUEST: Rpc[r.Request, a.Answer, GroupRequestRequestData, GroupRequestResponseData] = Rpc(
    api=apis.GROUP_REQUEST,
    response=GroupRequestResponseData,
    to_request=_to_request,
    from_reply=lambda request, message: a.decode_answer(bytes(message.body)),
)


GROUP_SLACK_MS = 15_000
"""How long a group coordinator's answer may take, beyond what the request itself waits."""
REBALANCE_WAIT_MS = 300_000
"""A join is answered when all have joined."""


class GroupChannel:
    """Group requests of clients, carried to the coordinator of their group; at most one hop."""

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def ask(self, request: r.Request) -> a.Answer:
        """The coordinator's answer. Raises what `Peers.call` raises, or the KafkaError of a refusal."""
        wait_ms = 0
        if isinstance(request, r.JoinGroup | r.SyncGroup):
            wait_ms = REBALANCE_WAIT_MS
        elif isinstance(request, r.BeginPoll):
            wait_ms = request.wait_ms
        timeout_ms = wait_ms + GROUP_SLACK_MS
        return await self._peers.call(
            self._node_id, "forward", GROUP_REQUEST, request, timeout_ms=timeout_ms, lane="groups"
        )
