"""The partitions of a coordinator's topic that this broker leads: loaded when one comes, given up when it goes.

Follows metadata. One whose append failed is loaded again while this broker leads it: what it decided may not be in
the log, so what is there is read anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from kraft.coordinators.java import abs_hash
from kraft.coordinators.led_partition import LedPartition, Surroundings
from kraft.protocol.errors import CoordinatorLoadInProgress, KafkaError, NotCoordinator
from metadata.events import Events
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition

RELOAD_MS = 100
"""Wait before a partition that failed is loaded again."""
SKIPPED_EVENTS_MAX = 100
"""Records that a load could not read and says so of each; the event of the whole load counts them all."""


class Led(Protocol):
    """One of them, with whatever serves its requests."""

    @property
    def shard(self) -> LedPartition: ...


LedT = TypeVar("LedT", bound=Led)


class Names(NamedTuple):
    topic: str
    of_what: str
    """What is kept there, for messages: "groups"."""
    loaded: str
    """The event of a whole load; the next: of a record that it could not read."""
    skipped: str


class LedPartitions(Generic[LedT]):
    def __init__(
        self,
        names: Names,
        around: Surroundings,
        events: Events,
        *,
        new: Callable[[TopicIdPartition, int], LedT],
    ) -> None:
        """`new` makes one of its key and leader epoch, not loaded yet. Its shard reports failed appends to `failed`."""
        self._names = names
        self._around = around
        self._events = events
        self._new = new
        self.by_number: dict[int, LedT] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._knows_its_partitions = False
        """Since the first metadata, which is told to a broker when it has caught up with the quorum."""
        self.is_stopped = False

    # --- asking -----------------------------------------------------------------------------------------------

    def of(self, name: str) -> LedT:
        """Raises NotCoordinator 16."""
        return self.numbered(partition_of(name, self._names.topic, self._around.image()))

    def numbered(self, number: int) -> LedT:
        """Raises NotCoordinator 16."""
        led = self.by_number.get(number)
        if led is None:
            raise NotCoordinator(f"this broker does not lead partition {number} of {self._names.topic}")
        return led

    def all_or_raise(self) -> list[LedT]:
        """Each of them, loaded. Raises CoordinatorLoadInProgress 14, or the error of one that failed: a part is no
        list."""
        if not self._knows_its_partitions:
            raise CoordinatorLoadInProgress(
                f"this broker has just started, and does not know which {self._names.of_what} are its own"
            )
        for led in self.by_number.values():
            led.shard.check()
        return list(self.by_number.values())

    def loaded(self) -> Iterator[LedT]:
        return (led for led in list(self.by_number.values()) if led.shard.is_loaded and not led.shard.has_ended)

    # --- metadata ---------------------------------------------------------------------------------------------

    def on_metadata(self, image: MetadataImage) -> None:
        self._knows_its_partitions = True
        topic = image.topic(self._names.topic)
        partitions: Mapping[int, PartitionImage] = {} if topic is None else topic.partitions
        for number in list(self.by_number):
            if number not in partitions or not self._leads(partitions[number]):
                self._give_up(number)
        for number, partition in partitions.items():
            if self._leads(partition):
                self._lead(number, TopicIdPartition(partition.topic_id, number), partition.leader_epoch)

    def _leads(self, partition: PartitionImage) -> bool:
        return partition.leader == self._around.node_id and not self.is_stopped

    def _lead(self, number: int, key: TopicIdPartition, leader_epoch: int) -> None:
        known = self.by_number.get(number)
        if known is not None and (known.shard.partition, known.shard.leader_epoch) == (key, leader_epoch):
            return
        if known is not None:
            self._give_up(number)
        self._start(number, key, leader_epoch)

    def _start(self, number: int, key: TopicIdPartition, leader_epoch: int) -> None:
        led = self.by_number[number] = self._new(key, leader_epoch)
        self.run(self._load(led.shard))

    def _give_up(self, number: int) -> None:
        self.by_number.pop(number).shard.end(NotCoordinator(f"partition {number} of {self._names.topic} has moved"))

    async def _load(self, shard: LedPartition) -> None:
        started_ms, number = shard.now_ms, shard.partition.partition
        skipped = 0

        def skip(offset: int, reason: str) -> None:
            nonlocal skipped
            skipped += 1
            if skipped <= SKIPPED_EVENTS_MAX:
                self._events.emit(self._names.skipped, partition=number, offset=offset, reason=reason)

        try:
            count = await shard.load(skip)
        except KafkaError as error:
            shard.end(NotCoordinator(f"the {self._names.of_what} of this partition cannot be loaded: {error.message}"))
            self.failed(shard)
            return
        took_ms = shard.now_ms - started_ms
        self._events.emit(self._names.loaded, partition=number, records=count, skipped=skipped, took_ms=took_ms)

    def failed(self, shard: LedPartition) -> None:
        """What it decided may not be in the log: forget it and read what is."""
        if self._is_current(shard):
            self.run(self._reload(shard))

    async def _reload(self, failed: LedPartition) -> None:
        await self._around.environment.clock.sleep(RELOAD_MS)
        if self._is_current(failed):
            self._start(failed.partition.partition, failed.partition, failed.leader_epoch)

    def _is_current(self, shard: LedPartition) -> bool:
        led = self.by_number.get(shard.partition.partition)
        return led is not None and led.shard is shard and not self.is_stopped

    # --- tasks ------------------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            what = f"a task of the coordinator of {self._names.of_what} failed"
            task.get_loop().call_exception_handler({"message": what, "exception": error})

    def stop(self) -> None:
        self.is_stopped = True
        for number in list(self.by_number):
            self._give_up(number)
        for task in self._tasks:
            task.cancel()


def partition_of(name: str, topic_name: str, image: MetadataImage) -> int:
    """Kafka's: abs(String.hashCode) modulo the partitions of the topic. Raises NotCoordinator while there is none."""
    topic = image.topic(topic_name)
    if topic is None:
        raise NotCoordinator(f"{topic_name} does not exist yet")
    return abs_hash(name) % len(topic.partitions)
