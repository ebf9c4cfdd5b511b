"""Markers of decided transactions, written to the partitions that this broker leads (WriteTxnMarkers, KIP-98)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kraft.coordinators.transactions.markers import Codes, MarkersToWrite
from kraft.coordinators.transactions.state import TopicPartition
from kraft.protocol.batches.markers import build_marker
from kraft.protocol.errors import KafkaError, UnknownTopicOrPartition
from kraft.protocol.primitives import Buffer
from metadata.environment import Clock
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings
from replication.requests import ProduceOutcome

ACKS_ALL = -1


class Replicas(Protocol):
    @property
    def image(self) -> MetadataImage: ...

    async def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        *,
        acks: int,
        timeout_ms: int,
        is_from_coordinator: bool,
    ) -> Mapping[TopicIdPartition, ProduceOutcome]: ...


class TxnMarkers:
    def __init__(self, replicas: Replicas, *, clock: Clock, settings: Callable[[], BrokerSettings]) -> None:
        self._replicas = replicas
        self._clock = clock
        self._settings = settings

    async def write(self, markers: Sequence[MarkersToWrite]) -> Sequence[Codes]:
        """The error code of each partition, marker by marker; 0 when its marker is replicated."""
        return await asyncio.gather(*(self._write(each) for each in markers))

    async def _write(self, marker: MarkersToWrite) -> Codes:
        image = self._replicas.image
        keys: dict[TopicIdPartition, TopicPartition] = {}
        for name, number in marker.partitions:
            topic = image.topic(name)
            if topic is not None and number in topic.partitions:
                keys[TopicIdPartition(topic.topic_id, number)] = name, number
        batch = build_marker(
            marker.marker,
            producer_id=marker.producer_id,
            producer_epoch=marker.producer_epoch,
            timestamp_ms=self._clock.wall_ms(),
        )
        codes = dict.fromkeys(marker.partitions, UnknownTopicOrPartition.code)
        timeout_ms = self._settings().request_timeout_ms
        try:
            outcomes = await self._replicas.produce(
                dict.fromkeys(keys, batch), acks=ACKS_ALL, timeout_ms=timeout_ms, is_from_coordinator=True
            )
        except KafkaError as error:
            return codes | dict.fromkeys(keys.values(), error.code)
        return codes | {name: outcomes[key].error_code for key, name in keys.items()}
