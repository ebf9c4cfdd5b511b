"""Values of transactions that coordinators and leaders of partitions send to each other: producers and markers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from kraft.protocol.batches.markers import Marker
from kraft.protocol.primitives import TopicPartition
from kraft.values import value


@value()
class Producer:
    """A producer id with one of its epochs."""

    producer_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class MarkersToWrite:
    """One marker for some partitions of one leader."""

    producer_id: int
    producer_epoch: int
    marker: Marker
    partitions: frozenset[TopicPartition]
    transaction_version: int = 0
    """From 2 on its epoch is above that of the records (KIP-890, KIP-1228)."""


Codes: TypeAlias = Mapping[TopicPartition, int]
"""The error code of each partition."""
