"""Routing reads and other requests that are safe to repeat: routed again until taken, or until their wait is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from kraft.broker.consumer_fetch import consumer_fetch, records_of
from kraft.broker.gateway import Records
from kraft.broker.leaders import LEADER_WAIT_MS, MOVED, LeaderFinder, Leaders
from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.broker.tail_waits import Tails
from kraft.protocol.errors import KafkaStorageError, LeaderNotAvailable
from metadata.environment import Clock, ConnectionClosed
from metadata.image import PartitionImage, TopicIdPartition
from metadata.retries import retry_until
from replication.requests import ActiveProducer, OffsetAnswer

Answer = TypeVar("Answer")

READ_RETRY_MS = 20
"""Wait after a failed read before it is routed again."""


class ReadRouter:
    def __init__(self, *, clock: Clock, publisher: MetadataPublisher, finder: LeaderFinder, tails: Tails) -> None:
        self._clock = clock
        self._publisher = publisher
        self._finder = finder
        self._tails = tails

    async def read(
        self,
        partition: TopicIdPartition,
        *,
        offset: int,
        bytes_max: int,
        bytes_min: int,
        wait_ms_max: int,
        is_read_committed: bool = False,
    ) -> Records:
        """Reads what is there; waits, if it has to, with all others who wait, and reads again."""
        deadline_ms = self._clock.monotonic_ms() + wait_ms_max

        async def read_now(wait_ms: int) -> Records:
            return await self._read_now(
                partition,
                offset=offset,
                bytes_max=bytes_max,
                wait_ms_max=wait_ms,
                is_read_committed=is_read_committed,
            )

        found = await read_now(wait_ms_max)
        while len(found.data) < bytes_min:
            left_ms = deadline_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                break
            end = max(offset, found.end_offset)
            news = await self._tails.wait(
                {partition: end}, bytes_max=bytes_max, wait_ms=left_ms, is_read_committed=is_read_committed
            )
            if not news:
                break
            records = news[partition]
            if records is not None and not found.data and bytes_min <= len(records.data):
                return records
            found = await read_now(left_ms)
        return found

    async def _read_now(
        self,
        partition: TopicIdPartition,
        *,
        offset: int,
        bytes_max: int,
        wait_ms_max: int,
        is_read_committed: bool = False,
    ) -> Records:
        request = consumer_fetch(
            partition, offset=offset, bytes_max=bytes_max, wait_ms_max=0, is_read_committed=is_read_committed
        )

        async def attempt(leaders: Leaders, state: PartitionImage) -> Records:
            return records_of(await leaders.fetch(request), state, is_read_committed=is_read_committed)

        return await self._at_leader(partition, attempt, wait_ms_max=wait_ms_max)

    async def tail(
        self,
        positions: Mapping[TopicIdPartition, int],
        *,
        bytes_max: int,
        wait_ms: int,
        is_read_committed: bool = False,
    ) -> Mapping[TopicIdPartition, Records | None]:
        return await self._tails.wait(
            positions, bytes_max=bytes_max, wait_ms=wait_ms, is_read_committed=is_read_committed
        )

    async def wait_readable(
        self, positions: Mapping[TopicIdPartition, int], *, wait_ms: int, is_read_committed: bool = False
    ) -> None:
        """Errors are left to the read that follows, which is routed again."""
        await self._tails.wait(positions, bytes_max=1, wait_ms=wait_ms, is_read_committed=is_read_committed)

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        async def attempt(leaders: Leaders, _state: PartitionImage) -> OffsetAnswer:
            return await leaders.list_offset(partition, timestamp, is_read_committed=is_read_committed)

        return await self._at_leader(partition, attempt, wait_ms_max=0)

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        async def attempt(leaders: Leaders, _state: PartitionImage) -> Sequence[ActiveProducer]:
            return await leaders.producers(partition)

        return await self._at_leader(partition, attempt, wait_ms_max=0)

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        async def attempt(leaders: Leaders, _state: PartitionImage) -> int:
            return await leaders.delete_records(partition, offset=offset, timeout_ms=timeout_ms)

        return await self._at_leader(partition, attempt, wait_ms_max=timeout_ms)

    async def _at_leader(
        self,
        partition: TopicIdPartition,
        attempt: Callable[[Leaders, PartitionImage], Awaitable[Answer]],
        *,
        wait_ms_max: int,
    ) -> Answer:
        """Run a request that is safe to repeat, routing again until it is taken or the wait is over."""
        deadline_ms = self._clock.monotonic_ms() + max(LEADER_WAIT_MS, wait_ms_max)
        seen = self._publisher.version

        async def routed() -> Answer:
            nonlocal seen
            seen = self._publisher.version
            state = self._finder.leader_of(partition)
            try:
                return await attempt(self._finder.way_to(state.leader), state)
            except (ConnectionClosed, OSError) as lost:
                raise LeaderNotAvailable(f"the leader did not answer: {type(lost).__name__}") from lost

        def is_elsewhere(error: Exception) -> bool:
            if isinstance(error, KafkaStorageError):
                return self._finder.stand_in(partition) is not None
            return isinstance(error, MOVED)

        def news() -> Awaitable[object]:
            soon_ms = self._clock.monotonic_ms() + READ_RETRY_MS
            return self._publisher.wait_newer(seen, deadline_ms=min(deadline_ms, soon_ms))

        return await retry_until(deadline_ms, routed, clock=self._clock, retriable=is_elsewhere, wake=news)
