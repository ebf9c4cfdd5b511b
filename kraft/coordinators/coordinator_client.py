"""Requests to a coordinator from any node: find it, ask it in process or at its node, and ask again while it moves.

The leader of a partition of the coordinator's topic is the coordinator of all groups or transactional ids in it. The
topic comes into being when it is first needed (G5, T1).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeAlias, TypeVar

from kraft.broker.gateway import Gateway
from kraft.coordinators.shards import partition_of
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    KafkaError,
    LeaderNotAvailable,
    NotCoordinator,
    RequestTimedOut,
)
from metadata.controller.requests import ErrorDetail, NewTopic
from metadata.environment import Clock, ConnectionClosed, NotConnected
from metadata.internal_topics import coordinators_topic_size
from metadata.retries import ELECTION_RETRY_MS, retry_until

COORDINATOR_WAIT_MS = 10_000
"""How long a request waits for its group or transactional id to have a coordinator that takes it."""

Errors: TypeAlias = tuple[type[Exception], ...]
MOVED: Errors = (NotCoordinator, CoordinatorLoadInProgress)
NOT_CARRIED_OUT: Errors = (*MOVED, NotConnected, ConnectionRefusedError)
"""The request was surely not carried out, so any request is asked again."""
OUTCOME_UNKNOWN: Errors = (CoordinatorNotAvailable, ConnectionClosed, OSError)
"""A request is asked again only if asking twice does no more than asking once."""


def new_coordinators_topic(name: str, gateway: Gateway) -> NewTopic:
    """A topic of coordinators as the first request that needs it, or the first client that asks for its metadata,
    creates it. The controller knows its settings."""
    partitions, replication_factor = coordinators_topic_size(name, gateway.settings)
    brokers = sum("broker" in node.roles for node in gateway.nodes.values())
    return NewTopic(name=name, partitions=partitions, replication_factor=min(replication_factor, max(brokers, 1)))


CoordinatorT = TypeVar("CoordinatorT")
Answer = TypeVar("Answer")


class CoordinatorClient(Generic[CoordinatorT]):
    def __init__(
        self,
        *,
        gateway: Gateway,
        clock: Clock,
        topic: str,
        local: CoordinatorT | None,
        remote: Callable[[int], CoordinatorT],
    ) -> None:
        """`local` is this node's coordinator, and `remote` the one of a node id."""
        self._gateway = gateway
        self._clock = clock
        self._topic = topic
        self._local = local
        self._remote = remote

    async def node_of(self, key: str) -> int:
        """Node id of the coordinator of a group or a transactional id. Raises CoordinatorNotAvailable 15, or
        NotCoordinator 16 while its partition has no leader."""
        await self._ensure_topic()
        return self._leader_of(key)

    async def ask(
        self,
        key: str,
        attempt: Callable[[CoordinatorT], Awaitable[Answer]],
        *,
        retriable: Errors,
        wait_ms: int = COORDINATOR_WAIT_MS,
    ) -> Answer:
        """What `attempt` returns for the coordinator of `key`, made again after each error of `retriable` until
        `wait_ms` are over. Then raises the last error if it is a KafkaError, else CoordinatorNotAvailable 15. Raises
        RequestTimedOut 7 when the connection broke and the error is not retriable."""
        deadline_ms = self._clock.monotonic_ms() + wait_ms
        await self._ensure_topic()

        def once() -> Awaitable[Answer]:
            return attempt(self._at(self._leader_of(key)))

        return await self._until(deadline_ms, once, retriable=retriable, name=repr(key), wait_ms=wait_ms)

    async def ask_each(
        self,
        attempt: Callable[[CoordinatorT], Awaitable[Answer]],
        *,
        retriable: Errors,
        needs_all_leaders: bool,
        wait_ms: int = COORDINATOR_WAIT_MS,
    ) -> Mapping[int, Answer]:
        """Node id of each coordinator -> what `attempt` returns for it; all of them are asked again after an error of
        `retriable`, because a part is no list. Empty while the topic does not exist. `needs_all_leaders`: a partition
        without a leader counts as such an error, NotCoordinator 16."""
        deadline_ms = self._clock.monotonic_ms() + wait_ms

        async def once() -> Mapping[int, Answer]:
            found = {}
            for node_id in self._leaders(needs_all_leaders=needs_all_leaders):
                try:
                    found[node_id] = await attempt(self._at(node_id))
                except (ConnectionClosed, OSError) as lost:
                    raise CoordinatorNotAvailable(f"node {node_id} did not answer: {type(lost).__name__}") from lost
            return found

        return await self._until(deadline_ms, once, retriable=retriable, name=self._topic, wait_ms=wait_ms)

    async def _until(
        self,
        deadline_ms: int,
        once: Callable[[], Awaitable[Answer]],
        *,
        retriable: Errors,
        name: str,
        wait_ms: int,
    ) -> Answer:
        try:
            return await retry_until(
                deadline_ms,
                once,
                clock=self._clock,
                retriable=lambda error: isinstance(error, retriable),
                wake=lambda: self._clock.sleep(ELECTION_RETRY_MS),
            )
        except KafkaError:
            raise
        except retriable as error:
            raise CoordinatorNotAvailable(f"the coordinator of {name} did not answer within {wait_ms} ms") from error
        except (ConnectionClosed, OSError) as lost:
            raise RequestTimedOut(
                f"the coordinator did not answer ({type(lost).__name__}); the outcome is unknown"
            ) from lost

    # --- finding the coordinator ------------------------------------------------------------------------------

    def _at(self, node_id: int) -> CoordinatorT:
        if node_id == self._gateway.node_id and self._local is not None:
            return self._local
        return self._remote(node_id)

    async def _ensure_topic(self) -> None:
        """Raises CoordinatorNotAvailable 15."""
        if self._gateway.image.topic(self._topic) is not None:
            return
        try:
            created = await self._gateway.ensure_topic(new_coordinators_topic(self._topic, self._gateway))
        except LeaderNotAvailable as unknown:
            raise CoordinatorNotAvailable(str(unknown)) from unknown
        if isinstance(created, ErrorDetail):
            raise CoordinatorNotAvailable(f"{self._topic} cannot be created: {created.message}")

    def _leader_of(self, key: str) -> int:
        """Raises NotCoordinator 16 while the partition has no leader."""
        image = self._gateway.image
        number = partition_of(key, self._topic, image)
        topic = image.topic(self._topic)
        assert topic is not None, key
        partition = topic.partitions[number]
        if not partition.has_leader:
            raise NotCoordinator(f"partition {number} of {self._topic} has no leader")
        return partition.leader

    def _leaders(self, *, needs_all_leaders: bool) -> list[int]:
        topic = self._gateway.image.topic(self._topic)
        partitions = () if topic is None else topic.partitions.values()
        if needs_all_leaders and not all(partition.has_leader for partition in partitions):
            raise NotCoordinator(f"a partition of {self._topic} has no leader")
        return sorted({partition.leader for partition in partitions if partition.has_leader})
