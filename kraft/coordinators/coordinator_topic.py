"""The internal topic whose partitions' leaders are coordinators: it comes into being here, and says who coordinates.

A coordinator moves with the leadership of its partition, so whoever asks one asks again for a while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from kraft.broker.gateway import Gateway
from kraft.coordinators.shards import partition_of
from kraft.protocol.errors import CoordinatorNotAvailable, KafkaError, LeaderNotAvailable, NotCoordinator
from metadata.controller.requests import ErrorDetail, NewTopic
from metadata.environment import Clock
from metadata.retries import ELECTION_RETRY_MS, retry_until

COORDINATOR_WAIT_MS = 10_000
"""How long a request waits for its group or transactional id to have a coordinator that takes it."""

Answer = TypeVar("Answer")


async def until_taken(
    ask: Callable[[], Awaitable[Answer]],
    *,
    of: str,
    clock: Clock,
    again: tuple[type[Exception], ...],
    deadline_ms: int,
    wait_ms: int = COORDINATOR_WAIT_MS,
) -> Answer:
    """What `ask` answers, once it ends with none of the errors `again`. At the deadline raises the last of them if it
    is a KafkaError, else CoordinatorNotAvailable 15, which says that the coordinator `of` a group or a transactional id
    did not answer within `wait_ms`."""
    try:
        return await retry_until(
            deadline_ms,
            ask,
            clock=clock,
            retriable=lambda error: isinstance(error, again),
            wake=lambda: clock.sleep(ELECTION_RETRY_MS),
        )
    except again as error:
        if isinstance(error, KafkaError):
            raise
        raise CoordinatorNotAvailable(f"the coordinator of {of} did not answer within {wait_ms} ms") from error


class CoordinatorTopic:
    def __init__(self, gateway: Gateway, name: str, new: Callable[[Gateway], NewTopic]) -> None:
        self._gateway = gateway
        self._name = name
        self._new = new

    async def ensure(self) -> None:
        """G5, T1: it comes into being when it is first needed. Raises CoordinatorNotAvailable 15."""
        if self._gateway.image.topic(self._name) is not None:
            return
        try:
            created = await self._gateway.ensure_topic(self._new(self._gateway))
        except LeaderNotAvailable as unknown:
            raise CoordinatorNotAvailable(str(unknown)) from unknown
        if isinstance(created, ErrorDetail):
            raise CoordinatorNotAvailable(f"{self._name} cannot be created: {created.message}")

    def coordinator_of(self, key: str) -> int:
        """Node id of the leader of the partition of a group or a transactional id; the topic is there. Raises
        NotCoordinator 16 while it has none."""
        image = self._gateway.image
        number = partition_of(key, self._name, image)
        topic = image.topic(self._name)
        assert topic is not None, key
        partition = topic.partitions[number]
        if not partition.has_leader:
            raise NotCoordinator(f"partition {number} of {self._name} has no leader")
        return partition.leader
