"""The difference of two images, for those who act on changes: replica manager, coordinators, configs, events.

Computed on first use by comparing the shared structure by identity: `MetadataImage.apply` keeps every value that it
does not change, so an unchanged topic is the same object in both images. After a snapshot nothing is shared, and
equality decides. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar
from uuid import UUID

from metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicIdPartition, TopicImage

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class MetadataDelta:
    old: MetadataImage
    new: MetadataImage

    @cached_property
    def created_topics(self) -> Mapping[UUID, TopicImage]:
        return {id_: new for id_, (old, new) in self._topics.items() if old is None and new is not None}

    @cached_property
    def removed_topics(self) -> Mapping[UUID, TopicImage]:
        return {id_: old for id_, (old, new) in self._topics.items() if new is None and old is not None}

    @cached_property
    def changed_topics(self) -> Mapping[UUID, tuple[TopicImage, TopicImage]]:
        """Topics in both images whose partitions changed."""
        return {id_: (old, new) for id_, (old, new) in self._topics.items() if old is not None and new is not None}

    @cached_property
    def changed_partitions(self) -> Mapping[TopicIdPartition, tuple[PartitionImage | None, PartitionImage | None]]:
        """Old and new state of every partition that appeared, changed, or went away."""
        changes: dict[TopicIdPartition, tuple[PartitionImage | None, PartitionImage | None]] = {}
        for topic_id, (old, new) in self._topics.items():
            pairs = _differences(old.partitions if old else {}, new.partitions if new else {})
            changes.update({TopicIdPartition(topic_id, index): pair for index, pair in pairs.items()})
        return changes

    @cached_property
    def changed_brokers(self) -> Mapping[int, tuple[BrokerImage | None, BrokerImage | None]]:
        return _differences(self.old.brokers, self.new.brokers)

    @cached_property
    def changed_configs(
        self,
    ) -> Mapping[tuple[str, str], tuple[Mapping[str, str] | None, Mapping[str, str] | None]]:
        """(resource type, resource name) -> dynamic settings before and after; None where there are none."""
        return _differences(self.old.configs, self.new.configs)

    @property
    def is_controller_changed(self) -> bool:
        return self.old.controller_epoch != self.new.controller_epoch

    @property
    def is_empty(self) -> bool:
        """No topic, partition, broker or config differs; offsets and epochs may."""
        return not (self._topics or self.changed_brokers or self.changed_configs)

    @cached_property
    def _topics(self) -> Mapping[UUID, tuple[TopicImage | None, TopicImage | None]]:
        return _differences(self.old.topics, self.new.topics)


def delta_between(old: MetadataImage, new: MetadataImage) -> MetadataDelta:
    return MetadataDelta(old=old, new=new)


def _differences(old: Mapping[K, V], new: Mapping[K, V]) -> dict[K, tuple[V | None, V | None]]:
    if old is new:
        return {}
    changes: dict[K, tuple[V | None, V | None]] = {}
    for key, after in new.items():
        before = old.get(key)
        if before is not after and before != after:
            changes[key] = (before, after)
    for key, before in old.items():
        if key not in new:
            changes[key] = (before, None)
    return changes
