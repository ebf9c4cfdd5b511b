"""The share coordinator of one broker: a shard for each partition of `__share_group_state` that it leads."""

from __future__ import annotations

from contextlib import suppress

from kraft.coordinators.shard import CoordinatorContext
from kraft.coordinators.shards import CoordinatorShards, Periodic
from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.shard import ShareStateShard
from kraft.coordinators.shares.state import ShareKey, Snapshot
from kraft.protocol.errors import InvalidRequest, KafkaError, UnknownTopicOrPartition
from metadata.delta import MetadataDelta
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition


class ShareCoordinator:
    """Each request raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, InvalidRequest
    42 for a key that makes no sense, UnknownTopicOrPartition 3, or its own refusal.
    """

    def __init__(self, context: CoordinatorContext, events: Events) -> None:
        self._context = context
        pruning: Periodic[ShareStateShard] = Periodic(
            lambda settings: settings.share_coordinator_state_topic_prune_interval_ms,
            work=lambda shard: self.shards.tasks.run(self._prune(shard)),
        )
        snapshots: Periodic[ShareStateShard] = Periodic(
            lambda settings: settings.share_coordinator_cold_partition_snapshot_interval_ms,
            work=ShareStateShard.write_cold_snapshots,
        )
        self.shards = CoordinatorShards(
            ShareStateShard.names, context, events, new=self._new_shard, periodic=(snapshots, pruning)
        )

    async def initialize(self, key: ShareKey, *, state_epoch: int, start_offset: int) -> None:
        """InitializeShareGroupState (83). Raises FencedStateEpoch 124."""
        shard = await self._shard(key)
        await shard.initialize(key, state_epoch=state_epoch, start_offset=start_offset)

    async def read(self, key: ShareKey, *, leader_epoch: int) -> Snapshot:
        """ReadShareGroupState (84): fences the leaders before this one. Raises FencedLeaderEpoch 74."""
        return await (await self._shard(key)).read(key, leader_epoch=leader_epoch)

    async def write(self, key: ShareKey, request: Write) -> None:
        """WriteShareGroupState (85). Raises FencedLeaderEpoch 74, FencedStateEpoch 124."""
        await (await self._shard(key)).write(key, request)

    async def delete(self, key: ShareKey) -> None:
        """DeleteShareGroupState (86): also of a share partition, or a topic, that is not there any more."""
        self._check(key)
        await (await self.shards.leading(key.coordinator_key)).delete(key)

    async def summary(self, key: ShareKey) -> Snapshot:
        """ReadShareGroupStateSummary (87)."""
        return await (await self._shard(key)).summary(key)

    async def _shard(self, key: ShareKey) -> ShareStateShard:
        self._check(key)
        topic = self._context.image().topics.get(key.topic_id)
        if topic is None or key.partition not in topic.partitions:
            raise UnknownTopicOrPartition(f"partition {key.partition} of topic {key.topic_id} does not exist")
        return await self.shards.leading(key.coordinator_key)

    @staticmethod
    def _check(key: ShareKey) -> None:
        if not key.group or key.partition < 0:
            raise InvalidRequest("a share partition has a group, and a partition from 0 on")

    # --- metadata and time --------------------------------------------------------------------------------------

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Loads and unloads shards as leaders move; forgets topics that were deleted."""
        self.shards.on_metadata(image)
        if delta.removed_topics:
            for shard in self.shards.loaded():
                shard.forget_topics(delta.removed_topics.keys())

    def _new_shard(self, partition: TopicIdPartition, leader_epoch: int) -> ShareStateShard:
        return ShareStateShard(partition, leader_epoch, self._context, on_failed=self.shards.failed)

    async def _prune(self, shard: ShareStateShard) -> None:
        with suppress(KafkaError):  # the next look tries again
            await shard.prune()

    def stop(self) -> None:
        """Ends all shards."""
        self.shards.stop()
