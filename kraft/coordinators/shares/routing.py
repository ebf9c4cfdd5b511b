"""The persister: any node reads and writes the state of share partitions, at their share coordinator (KIP-932).

Asking twice does no more than asking once: a write that arrives twice combines to the same, and each request names its
epochs. So a lost answer is asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from kraft.broker.gateway import Gateway
from kraft.coordinators.coordinator_client import NOT_CARRIED_OUT, OUTCOME_UNKNOWN, Answer, CoordinatorClient
from kraft.coordinators.groups.share_requests import InitializeStates, StartOffset
from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.state import ShareKey, Snapshot
from kraft.protocol.errors import KafkaError
from metadata.environment import Clock
from metadata.image import TopicIdPartition
from metadata.internal_topics import SHARE_STATE_TOPIC
from replication.requests import LATEST_TIMESTAMP
from replication.shares.states import NO_OFFSET

RETRIABLE: Final = (*NOT_CARRIED_OUT, *OUTCOME_UNKNOWN, TimeoutError)
AT_ONCE: Final = 64
"""Share partitions of one group that are asked for at the same time."""
NO_LAG: Final = -1
PERSIST_WAIT_MS: Final = 10_000
"""How long a share coordinator is looked for until a request has failed."""


class Coordinator(Protocol):
    """The share coordinator of one node."""

    async def initialize(self, key: ShareKey, *, state_epoch: int, start_offset: int) -> None: ...
    async def read(self, key: ShareKey, *, leader_epoch: int) -> Snapshot: ...
    async def write(self, key: ShareKey, request: Write) -> None: ...
    async def delete(self, key: ShareKey) -> None: ...
    async def summary(self, key: ShareKey) -> Snapshot: ...


class SharePersister:
    """Its methods raise the KafkaError of a refusal, and the last retriable one when no coordinator took the request
    within `wait_ms`.
    """

    def __init__(
        self,
        *,
        gateway: Gateway,
        clock: Clock,
        local: Coordinator | None,
        remote: Callable[[int], Coordinator],
    ) -> None:
        self._gateway = gateway
        self._client = CoordinatorClient(
            gateway=gateway,
            clock=clock,
            topic=SHARE_STATE_TOPIC,
            local=local,
            remote=remote,
        )

    async def coordinator_of(self, key: str) -> int:
        """Node id of the coordinator of a share partition, by its coordinator key; the topic comes into being. Raises
        CoordinatorNotAvailable 15, NotCoordinator 16."""
        return await self._client.node_of(key)

    async def initialize(self, key: ShareKey, *, state_epoch: int, start_offset: int) -> None:
        """The group knows nothing of the partition any more, and begins at the offset; NO_OFFSET (-1): where
        share.auto.offset.reset names, at the first use. Raises FencedStateEpoch 124."""
        await self._ask(key, lambda it: it.initialize(key, state_epoch=state_epoch, start_offset=start_offset))

    async def read(self, key: ShareKey, *, leader_epoch: int) -> Snapshot:
        """The state of a share partition, for its new leader. Raises FencedLeaderEpoch 74."""
        return await self._ask(key, lambda it: it.read(key, leader_epoch=leader_epoch))

    async def write(self, key: ShareKey, request: Write) -> None:
        """Raises FencedLeaderEpoch 74, FencedStateEpoch 124."""
        await self._ask(key, lambda it: it.write(key, request))

    async def delete(self, key: ShareKey) -> None:
        """The group has no state of the partition any more."""
        await self._ask(key, lambda it: it.delete(key))

    async def summary(self, key: ShareKey) -> Snapshot:
        """Start offset and delivery complete count, without fencing anybody; UNKNOWN for one that is not there."""
        return await self._ask(key, lambda it: it.summary(key))

    async def start_offset(self, key: ShareKey) -> StartOffset:
        """Where the group stands, and how many records it is not done with (KIP-1226)."""
        found = await self.summary(key)
        lag = NO_LAG
        if NO_OFFSET not in (found.start_offset, found.delivery_complete_count):
            try:
                where = TopicIdPartition(key.topic_id, key.partition)
                end = (await self._gateway.list_offset(where, LATEST_TIMESTAMP)).offset
                lag = max(0, end - found.start_offset - found.delivery_complete_count)
            except KafkaError:
                lag = NO_LAG  # no leader, or not at once: the start offset is known all the same
        return StartOffset(found.start_offset, found.leader_epoch, lag)

    async def _ask(self, key: ShareKey, attempt: Callable[[Coordinator], Awaitable[Answer]]) -> Answer:
        return await self._client.ask(key.coordinator_key, attempt, retriable=RETRIABLE, wait_ms=PERSIST_WAIT_MS)


class GroupSharePersister:
    """The share partitions of a group at once, as the group coordinator asks for them."""

    def __init__(
        self,
        persister: Callable[[], SharePersister],
        *,
        notify: Callable[[str, Collection[TopicIdPartition]], Awaitable[None]],
    ) -> None:
        """`notify`: gets a group and share partitions whose state the leaders may have to load again."""
        self._persister = persister
        self._notify = notify

    async def changed(self, group_id: str, partitions: frozenset[TopicIdPartition]) -> None:
        """The leaders compare what they know with the share coordinator."""
        await self._notify(group_id, partitions)

    async def initialize(self, request: InitializeStates) -> frozenset[TopicIdPartition]:
        """The partitions that have a state now; the others have none, or an answer is missing."""
        done: set[TopicIdPartition] = set()

        async def one(where: TopicIdPartition) -> None:
            key = ShareKey(request.group_id, where.topic_id, where.partition)
            try:
                await self._persister().initialize(
                    key, state_epoch=request.state_epoch, start_offset=request.start_offsets[where]
                )
            except KafkaError:
                return
            done.add(where)

        await self._each(list(request.start_offsets), one)
        return frozenset(done)

    async def delete(self, group_id: str, partitions: frozenset[TopicIdPartition]) -> None:
        """Also of partitions that have no state. Raises KafkaError when the outcome of one is not known."""

        async def one(where: TopicIdPartition) -> None:
            await self._persister().delete(ShareKey(group_id, where.topic_id, where.partition))

        await self._each(sorted(partitions), one)

    async def offsets(
        self, group_id: str, partitions: frozenset[TopicIdPartition]
    ) -> Mapping[TopicIdPartition, StartOffset | KafkaError]:
        """Where the group stands in each."""
        found: dict[TopicIdPartition, StartOffset | KafkaError] = {}

        async def one(where: TopicIdPartition) -> None:
            try:
                found[where] = await self._persister().start_offset(ShareKey(group_id, where.topic_id, where.partition))
            except KafkaError as error:
                found[where] = error

        await self._each(sorted(partitions), one)
        return found

    @staticmethod
    async def _each(partitions: Sequence[TopicIdPartition], one: Callable[[TopicIdPartition], Awaitable[None]]) -> None:
        for first in range(0, len(partitions), AT_ONCE):
            await asyncio.gather(*map(one, partitions[first : first + AT_ONCE]))
