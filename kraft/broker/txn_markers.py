"""Markers of decided transactions, written to the partitions that this broker leads (WriteTxnMarkers, KIP-98).

A partition of `__consumer_offsets` has its marker written by the group coordinator, which knows what it ends. A marker
is answered when it is replicated as acks=all asks. Source: KafkaApis.handleWriteTxnMarkersRequest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.batches.markers import Marker, build_marker
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    KafkaError,
    NotCoordinator,
    NotEnoughReplicas,
    NotLeaderOrFollower,
    ThrottlingQuotaExceeded,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Codes, MarkersToWrite
from metadata.environment import Clock
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC
from metadata.settings import BrokerSettings
from replication.manager.manager import ReplicaManager
from replication.producers.origin import Origin
from replication.requests import ProduceOptions, ProduceOutcome

UNREADY = (CoordinatorNotAvailable, CoordinatorLoadInProgress, NotCoordinator)
"""Errors of a group coordinator that is not ready. The transaction coordinator gets the error of a partition without a
leader, and asks again."""
AS_KAFKA_RETURNS = {
    ThrottlingQuotaExceeded.code: NotEnoughReplicas.code,
    UnknownTopicId.code: UnknownTopicOrPartition.code,
}


class Groups(Protocol):
    async def end_transaction(
        self, partition: int, producer_id: int, producer_epoch: int, marker: Marker, *, transaction_version: int
    ) -> None: ...


class TxnMarkers:
    def __init__(
        self, replicas: ReplicaManager, groups: Groups, *, clock: Clock, settings: Callable[[], BrokerSettings]
    ) -> None:
        self._replicas = replicas
        self._groups = groups
        self._clock = clock
        self._settings = settings

    async def write(self, markers: Sequence[MarkersToWrite]) -> Sequence[Codes]:
        """The error code of each partition, marker by marker; 0 when its marker is replicated. Markers of one partition
        are appended in their order."""
        return await asyncio.gather(*(asyncio.ensure_future(self._write(each)) for each in markers))

    async def _write(self, markers: MarkersToWrite) -> Codes:
        keys: dict[TopicIdPartition, TopicPartition] = {}
        offsets: list[TopicPartition] = []
        codes = dict.fromkeys(markers.partitions, UnknownTopicOrPartition.code)
        for name, number in sorted(markers.partitions):
            topic = self._replicas.image.topic(name)
            if topic is None or number not in topic.partitions:
                continue
            if name == OFFSETS_TOPIC:
                offsets.append((name, number))
            else:
                keys[TopicIdPartition(topic.topic_id, number)] = name, number
        begun = self._begun(markers, keys)
        ended = await asyncio.gather(*(self._end_in_groups(markers, number) for _, number in offsets))
        codes.update(zip(offsets, ended, strict=True))
        outcomes = await begun if isinstance(begun, asyncio.Future) else begun
        for key, outcome in outcomes.items():
            codes[keys[key]] = AS_KAFKA_RETURNS.get(outcome.error_code, outcome.error_code)
        return codes

    def _begun(
        self, markers: MarkersToWrite, keys: Mapping[TopicIdPartition, TopicPartition]
    ) -> Mapping[TopicIdPartition, ProduceOutcome] | asyncio.Future[dict[TopicIdPartition, ProduceOutcome]]:
        if not keys:
            return {}
        batch = build_marker(
            markers.marker,
            producer_id=markers.producer_id,
            producer_epoch=markers.producer_epoch,
            timestamp_ms=self._clock.wall_ms(),
        )
        try:
            return self._replicas.produce.begin(
                dict.fromkeys(keys, batch),
                ProduceOptions(ACKS_ALL, self._settings().request_timeout_ms),
                origin=Origin(is_coordinator=True, marker_version=markers.transaction_version),
            )
        except KafkaError as error:
            return dict.fromkeys(keys, ProduceOutcome(error_code=error.code, message=error.message))

    async def _end_in_groups(self, markers: MarkersToWrite, number: int) -> int:
        try:
            await self._groups.end_transaction(
                number,
                markers.producer_id,
                markers.producer_epoch,
                markers.marker,
                transaction_version=markers.transaction_version,
            )
        except UNREADY:
            return NotLeaderOrFollower.code
        except KafkaError as error:
            return error.code
        return 0


WriteMarkers: TypeAlias = Callable[[int, Sequence[MarkersToWrite]], Awaitable[Sequence[Codes]]]
"""(node id, markers) -> the error code of each partition, marker by marker. Raises OSError, ConnectionClosed,
TimeoutError or KafkaError when the outcome is unknown."""


class MarkerRouter:
    """Writes markers at any leader of partitions: here, if this node is it, or at another one."""

    def __init__(self, *, node_id: int, local: TxnMarkers | None, remote: WriteMarkers) -> None:
        self._node_id = node_id
        self._local = local
        self._remote = remote

    async def write(self, node_id: int, markers: Sequence[MarkersToWrite]) -> Sequence[Codes]:
        if node_id == self._node_id and self._local is not None:
            return await self._local.write(markers)
        return await self._remote(node_id, markers)
