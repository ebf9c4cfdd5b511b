"""The shards of one coordinator on this broker: loaded and unloaded as metadata moves leaders.

A shard whose append failed is loaded again while this broker leads its partition: what it decided may not be in the
log, so the log is read again. Kafka's CoordinatorRuntime has this part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kraft.coordinators.java import abs_hash
from kraft.coordinators.shard import CoordinatorContext, CoordinatorShard, ShardNames
from kraft.coordinators.tasks import Tasks
from kraft.protocol.errors import CoordinatorLoadInProgress, KafkaError, NotCoordinator
from metadata.environment import TimerHandle
from metadata.events import Events
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.retries import RETRY_BACKOFF_MS
from metadata.settings import BrokerSettings

SKIPPED_EVENTS_MAX = 100
"""Records that a load could not read and names in an event each; the event of the whole load counts them all."""

ShardT = TypeVar("ShardT", bound=CoordinatorShard[Any])


@dataclass(frozen=True, slots=True)
class Periodic(Generic[ShardT]):
    """Work on each loaded shard, again and again while the topic exists."""

    interval_ms: Callable[[BrokerSettings], int]
    work: Callable[[ShardT], object]


class CoordinatorShards(Generic[ShardT]):
    def __init__(
        self,
        names: ShardNames,
        context: CoordinatorContext,
        events: Events,
        *,
        new: Callable[[TopicIdPartition, int], ShardT],
        periodic: tuple[Periodic[ShardT], ...],
    ) -> None:
        """`new` makes a shard of its partition and leader epoch, not loaded yet, which reports a failed append to
        `failed`."""
        self._names = names
        self._context = context
        self._events = events
        self._new = new
        self._periodic = periodic
        self._timers: dict[int, TimerHandle] = {}
        self.by_partition: dict[int, ShardT] = {}
        self.tasks = Tasks(f"the coordinator of {names.contents}")
        self._knows_its_partitions = False
        """Since the first metadata, which a broker gets when it has caught up with the quorum."""
        self._is_stopped = False

    # --- asking -----------------------------------------------------------------------------------------------

    async def leading(self, key: str) -> ShardT:
        """The shard of a group or a transactional id, once it is certain that this broker leads it. Raises
        NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15."""
        shard = self.of_partition(partition_of(key, self._names.topic, self._context.image()))
        await shard.ensure_leadership()
        return shard

    def of_partition(self, number: int) -> ShardT:
        """Raises NotCoordinator 16."""
        shard = self.by_partition.get(number)
        if shard is None:
            raise NotCoordinator(f"this broker does not lead partition {number} of {self._names.topic}")
        return shard

    def all_or_raise(self) -> list[ShardT]:
        """All shards, loaded. Raises CoordinatorLoadInProgress 14, or the error of one that failed: a part is no
        list."""
        if not self._knows_its_partitions:
            raise CoordinatorLoadInProgress(
                f"this broker has just started, and does not know which {self._names.contents} are its own"
            )
        for shard in self.by_partition.values():
            shard.check()
        return list(self.by_partition.values())

    def loaded(self) -> Iterator[ShardT]:
        return (each for each in list(self.by_partition.values()) if each.is_loaded and not each.has_ended)

    # --- metadata ---------------------------------------------------------------------------------------------

    def on_metadata(self, image: MetadataImage) -> None:
        self._knows_its_partitions = True
        topic = image.topic(self._names.topic)
        partitions: Mapping[int, PartitionImage] = {} if topic is None else topic.partitions
        for number in list(self.by_partition):
            if number not in partitions or not self._leads(partitions[number]):
                self._unload(number)
        for number, partition in partitions.items():
            if self._leads(partition):
                self._lead(number, TopicIdPartition(partition.topic_id, number), partition.leader_epoch)
        if topic is not None and not self._timers and not self._is_stopped:
            for index in range(len(self._periodic)):
                self._set_timer(index)

    def _leads(self, partition: PartitionImage) -> bool:
        return partition.leader == self._context.node_id and not self._is_stopped

    def _lead(self, number: int, partition: TopicIdPartition, leader_epoch: int) -> None:
        known = self.by_partition.get(number)
        if known is not None and (known.partition, known.leader_epoch) == (partition, leader_epoch):
            return
        if known is not None:
            self._unload(number)
        self._start(number, partition, leader_epoch)

    def _start(self, number: int, partition: TopicIdPartition, leader_epoch: int) -> None:
        shard = self.by_partition[number] = self._new(partition, leader_epoch)
        self.tasks.run(self._load(shard))

    def _unload(self, number: int) -> None:
        self.by_partition.pop(number).end(NotCoordinator(f"partition {number} of {self._names.topic} has moved"))

    async def _load(self, shard: ShardT) -> None:
        started_ms, number = shard.now_ms, shard.partition.partition
        skipped = 0

        def skip(offset: int, reason: str) -> None:
            nonlocal skipped
            skipped += 1
            if skipped <= SKIPPED_EVENTS_MAX:
                self._events.emit(self._names.skipped_event, partition=number, offset=offset, reason=reason)

        try:
            count = await shard.load(skip)
        except KafkaError as error:
            shard.end(NotCoordinator(f"the {self._names.contents} of this partition cannot be loaded: {error.message}"))
            self.failed(shard)
            return
        took_ms = shard.now_ms - started_ms
        self._events.emit(self._names.loaded_event, partition=number, records=count, skipped=skipped, took_ms=took_ms)

    def failed(self, shard: CoordinatorShard[Any]) -> None:
        """What the shard decided may not be in the log: forget it and read the log."""
        if self._is_current(shard):
            self.tasks.run(self._reload(shard))

    async def _reload(self, failed: CoordinatorShard[Any]) -> None:
        await self._context.environment.clock.sleep(RETRY_BACKOFF_MS)
        if self._is_current(failed):
            self._start(failed.partition.partition, failed.partition, failed.leader_epoch)

    def _is_current(self, shard: CoordinatorShard[Any]) -> bool:
        return self.by_partition.get(shard.partition.partition) is shard and not self._is_stopped

    # --- time -------------------------------------------------------------------------------------------------

    def _set_timer(self, index: int) -> None:
        interval_ms = self._periodic[index].interval_ms(self._context.settings())
        clock = self._context.environment.clock
        self._timers[index] = clock.call_later(interval_ms, lambda: self._work(index))

    def _work(self, index: int) -> None:
        for shard in self.loaded():
            self._periodic[index].work(shard)
        if not self._is_stopped:
            self._set_timer(index)

    def stop(self) -> None:
        self._is_stopped = True
        for timer in self._timers.values():
            timer.cancel()
        for number in list(self.by_partition):
            self._unload(number)
        self.tasks.cancel()


def partition_of(key: str, topic_name: str, image: MetadataImage) -> int:
    """The partition of a group or a transactional id, as in Kafka: abs(String.hashCode) modulo the partitions of the
    topic. Raises NotCoordinator 16 while there is no topic."""
    topic = image.topic(topic_name)
    if topic is None:
        raise NotCoordinator(f"{topic_name} does not exist yet")
    return abs_hash(key) % len(topic.partitions)
