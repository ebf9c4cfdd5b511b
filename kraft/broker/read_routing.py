"""Routing reads and other requests that are safe to repeat: routed again until taken, or until their wait is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from kraft.broker.gateway import Records
from kraft.broker.leaders import LEADER_WAIT_MS, MOVED, LeaderFinder, Leaders
from kraft.broker.publishing import MetadataPublisher
from metadata.environment import Clock, ConnectionClosed
from metadata.errors import CorruptMessage, KafkaError, KafkaStorageError, LeaderNotAvailable, for_code
from metadata.image import PartitionImage, TopicIdPartition
from replication.requests import (
    CONSUMER,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
)

Answer = TypeVar("Answer")

READ_RETRY_MS = 20
"""Wait after a failed read before it is routed again."""


class ReadRouter:
    def __init__(self, *, clock: Clock, publisher: MetadataPublisher, finder: LeaderFinder) -> None:
        self._clock = clock
        self._publisher = publisher
        self._finder = finder

    async def read(
        self, partition: TopicIdPartition, *, offset: int, bytes_max: int, bytes_min: int, wait_ms_max: int
    ) -> Records:
        async def attempt(leaders: Leaders, state: PartitionImage) -> Records:
            request = FetchRequest(
                replica_id=CONSUMER,
                replica_epoch=-1,
                wait_ms_max=wait_ms_max,
                bytes_min=bytes_min,
                bytes_max=bytes_max,
                partitions=(_consumer_fetch(partition, offset=offset, bytes_max=bytes_max),),
            )
            response = await leaders.fetch(request)
            return _records(response, state)

        return await self._at_leader(partition, attempt, wait_ms_max=wait_ms_max)

    async def wait_readable(self, positions: Mapping[TopicIdPartition, int], *, wait_ms: int) -> None:
        """Errors are left to the read that follows, which is routed again."""
        by_leader: dict[int, list[FetchPartition]] = {}
        for partition, offset in positions.items():
            fetch = _consumer_fetch(partition, offset=offset, bytes_max=1)
            by_leader.setdefault(self._finder.leader_of(partition).leader, []).append(fetch)
        waits = [
            asyncio.get_running_loop().create_task(self._wait_at(leader, fetches, wait_ms=wait_ms))
            for leader, fetches in by_leader.items()
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _wait_at(self, leader: int, fetches: list[FetchPartition], *, wait_ms: int) -> None:
        request = FetchRequest(
            replica_id=CONSUMER,
            replica_epoch=-1,
            wait_ms_max=wait_ms,
            bytes_min=1,
            bytes_max=1,
            partitions=tuple(fetches),
        )
        try:
            await self._finder.way_to(leader).fetch(request)
        except (KafkaError, ConnectionClosed, OSError):
            await self._clock.sleep(min(READ_RETRY_MS, wait_ms))

    async def list_offset(self, partition: TopicIdPartition, timestamp: int) -> OffsetAnswer:
        async def attempt(leaders: Leaders, _state: PartitionImage) -> OffsetAnswer:
            return await leaders.list_offset(partition, timestamp)

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
        while True:
            epoch_seen = self._publisher.version
            try:
                state = self._finder.leader_of(partition)
                return await attempt(self._finder.way_to(state.leader), state)
            except MOVED as error:
                failure: KafkaError = error
            except (ConnectionClosed, OSError) as lost:
                failure = LeaderNotAvailable(f"the leader did not answer: {type(lost).__name__}")
            now_ms = self._clock.monotonic_ms()
            if now_ms >= deadline_ms:
                raise failure
            await self._publisher.wait_newer(epoch_seen, deadline_ms=min(deadline_ms, now_ms + READ_RETRY_MS))


def _consumer_fetch(partition: TopicIdPartition, *, offset: int, bytes_max: int) -> FetchPartition:
    return FetchPartition(
        topic_id=partition.topic_id,
        partition=partition.partition,
        current_leader_epoch=-1,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        bytes_max=bytes_max,
    )


def _records(response: FetchResponse, state: PartitionImage) -> Records:
    if response.error_code:
        raise for_code(response.error_code)
    fetched: FetchedPartition = response.partitions[0]
    if fetched.error_code:
        raise for_code(fetched.error_code, _explain(fetched))
    return Records(
        data=fetched.records,
        high_watermark=fetched.high_watermark,
        log_start_offset=fetched.log_start_offset,
        leader_id=state.leader,
        leader_epoch=state.leader_epoch,
    )


def _explain(fetched: FetchedPartition) -> str:
    if fetched.error_code == CorruptMessage.code:
        return "the leader's log is damaged at this offset; another replica may have it whole"
    if fetched.error_code == KafkaStorageError.code:
        return "the leader cannot read its log of this partition; see the events of that node"
    if fetched.error_code == 1:
        return (
            f"the offset is out of range: the log starts at {fetched.log_start_offset} "
            f"and its high watermark is {fetched.high_watermark}"
        )
    return ""
