"""The difference of two images, for the parts that act on changes: replica manager, coordinators, configs, events.

It compares the shared structure by identity: `MetadataImage.apply` keeps every value that it does not change, so an
unchanged topic is the same object in both images. After a snapshot nothing is shared, and equality decides. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from kraft.values import value
from metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicIdPartition, TopicImage
from metadata.persistent_map import differences


@value(kw_only=True)
class MetadataDelta:
    old: MetadataImage
    new: MetadataImage
    created_topics: Mapping[UUID, TopicImage]
    removed_topics: Mapping[UUID, TopicImage]
    changed_topics: Mapping[UUID, tuple[TopicImage, TopicImage]]
    """Topics in both images whose partitions changed."""
    changed_partitions: Mapping[TopicIdPartition, tuple[PartitionImage | None, PartitionImage | None]]
    """Old and new state of every partition that appeared, changed, or disappeared."""
    changed_brokers: Mapping[int, tuple[BrokerImage | None, BrokerImage | None]]
    changed_configs: Mapping[tuple[str, str], tuple[Mapping[str, str] | None, Mapping[str, str] | None]]
    """(resource type, resource name) -> dynamic settings before and after; None: no settings."""

    @property
    def is_controller_changed(self) -> bool:
        return self.old.controller_epoch != self.new.controller_epoch

    @property
    def is_empty(self) -> bool:
        """No topic, partition, broker or config differs; offsets and epochs may."""
        has_topics = self.created_topics or self.removed_topics or self.changed_topics
        return not (has_topics or self.changed_brokers or self.changed_configs)


def delta_between(old: MetadataImage, new: MetadataImage) -> MetadataDelta:
    topics = old.topics.differences(new.topics)
    return MetadataDelta(
        old=old,
        new=new,
        created_topics={id_: after for id_, (before, after) in topics.items() if before is None and after is not None},
        removed_topics={id_: before for id_, (before, after) in topics.items() if after is None and before is not None},
        changed_topics={
            id_: (before, after) for id_, (before, after) in topics.items() if before is not None and after is not None
        },
        changed_partitions=_changed_partitions(topics),
        changed_brokers=old.brokers.differences(new.brokers),
        changed_configs=old.configs.differences(new.configs),
    )


def _changed_partitions(
    topics: Mapping[UUID, tuple[TopicImage | None, TopicImage | None]],
) -> dict[TopicIdPartition, tuple[PartitionImage | None, PartitionImage | None]]:
    changes: dict[TopicIdPartition, tuple[PartitionImage | None, PartitionImage | None]] = {}
    for topic_id, (old, new) in topics.items():
        pairs = differences(old.partitions if old else {}, new.partitions if new else {})
        changes.update({TopicIdPartition(topic_id, index): pair for index, pair in pairs.items()})
    return changes
