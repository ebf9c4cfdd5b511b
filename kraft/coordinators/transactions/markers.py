"""Writing the markers of transactions that are decided: to the leader of each of their partitions, until all have it.

One request is under way to a node at most; what comes meanwhile goes with the next one, so that many small
transactions cost few requests (as Kafka's TransactionMarkerChannelManager gathers them). A partition whose topic is
gone counts as done; one without a leader is waited for, however long, and so is a node that does not answer: nobody
may read committed records there until its marker stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from kraft.broker.txn_markers import WriteMarkers
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import (
    InvalidProducerEpoch,
    KafkaError,
    TransactionCoordinatorFenced,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import MarkersToWrite
from metadata.environment import Clock, ConnectionClosed
from metadata.image import MetadataImage
from metadata.retries import RETRY_BACKOFF_MS

MARKERS_AT_ONCE = 1_000
"""Transactions in one request to a node; the others follow in the next."""
FENCED = (InvalidProducerEpoch.code, TransactionCoordinatorFenced.code)
"""A newer coordinator, or a newer epoch of the producer, has been there: this marker is of the past."""
GONE = (UnknownTopicOrPartition.code, UnknownTopicId.code)
"""Asked again: the node may not know the topic yet. The metadata of this node shows when a topic is gone."""


class MarkerWriter:
    def __init__(self, clock: Clock, *, image: Callable[[], MetadataImage], write: WriteMarkers) -> None:
        self._clock = clock
        self._image = image
        self._write = write
        self._batchers: dict[int, _MarkerBatcher] = {}

    async def write(
        self,
        transaction: Transaction,
        *,
        coordinator_epoch: int,
        is_over: Callable[[], bool],
        on_left: Callable[[frozenset[TopicPartition]], None] = lambda left: None,
    ) -> None:
        """Returns when every partition has its marker, or when `is_over`: another coordinator does it. `on_left` gets
        the partitions without a marker after each round."""
        assert transaction.phase.is_preparing, transaction
        marker = Marker(transaction.phase is Phase.PREPARE_COMMIT, coordinator_epoch)
        left = transaction.partitions
        while left and not is_over():
            written = await asyncio.gather(
                *(
                    self._batcher(leader).write(
                        MarkersToWrite(
                            transaction.producer_id,
                            transaction.epoch,
                            marker,
                            partitions,
                            transaction.client_version,
                        )
                    )
                    for leader, partitions in self._by_leader(left).items()
                )
            )
            left = frozenset(each for each in left.difference(*written) if self._exists(each))
            on_left(left)
            if left:
                await self._clock.sleep(RETRY_BACKOFF_MS)

    def _by_leader(self, partitions: frozenset[TopicPartition]) -> dict[int, frozenset[TopicPartition]]:
        found: dict[int, set[TopicPartition]] = {}
        for name, number in sorted(partitions):
            topic = self._image().topic(name)
            partition = None if topic is None else topic.partitions.get(number)
            if partition is not None and partition.has_leader:
                found.setdefault(partition.leader, set()).add((name, number))
        return {leader: frozenset(each) for leader, each in found.items()}

    def _exists(self, partition: TopicPartition) -> bool:
        topic = self._image().topic(partition[0])
        return topic is not None and partition[1] in topic.partitions

    def _batcher(self, node_id: int) -> _MarkerBatcher:
        batcher = self._batchers.get(node_id)
        if batcher is None:
            batcher = self._batchers[node_id] = _MarkerBatcher(node_id, self._write)
        return batcher


class _MarkerBatcher:
    """Sends markers to one node, many in one request."""

    def __init__(self, node_id: int, write: WriteMarkers) -> None:
        self._node_id = node_id
        self._write = write
        self._waiting: list[tuple[MarkersToWrite, asyncio.Future[frozenset[TopicPartition]]]] = []
        self._running: asyncio.Task[None] | None = None

    async def write(self, markers: MarkersToWrite) -> frozenset[TopicPartition]:
        """The partitions for which nothing is left to do."""
        done: asyncio.Future[frozenset[TopicPartition]] = asyncio.get_running_loop().create_future()
        self._waiting.append((markers, done))
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())
        return await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MARKERS_AT_ONCE], self._waiting[MARKERS_AT_ONCE:]
                for (_, future), written in zip(batch, await self._written([each for each, _ in batch]), strict=True):
                    if not future.done():
                        future.set_result(written)
        finally:
            self._running = None
            for _, future in self._waiting:
                future.cancel()

    async def _written(self, markers: Sequence[MarkersToWrite]) -> list[frozenset[TopicPartition]]:
        try:
            answers = await self._write(self._node_id, markers)
        except (KafkaError, ConnectionClosed, OSError, TimeoutError):
            return [frozenset() for _ in markers]
        return [
            frozenset(each for each in asked.partitions if codes.get(each, GONE[0]) in (0, *FENCED))
            for asked, codes in zip(markers, answers, strict=True)
        ]
