"""Forwards the records of delay topics when they are due: each leader those of the partitions that it leads.

A topic with delivery.target.topic is a delay topic. What is due is written to its target in one transaction with the
progress (`kraft.coordinators.copies`), whose id belongs to the partition: a new leader fences the one before. There is
one task for a partition, and no timer for a record. The leader's clock decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from kraft.broker.gateway import Gateway
from kraft.coordinators.copies import Copies
from kraft.coordinators.delayed.index import Delayed, DueIndex, Progress, progress_of
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.offsets import DELAYED_PREFIX
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.redrive import with_gaps
from kraft.coordinators.tasks import Tasks
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.batches.records import NewRecord, ReadRecord
from kraft.protocol.errors import ConcurrentTransactions, InvalidConfig, KafkaError
from kraft.protocol.partitioner import partition_of_key
from metadata.environment import Clock, ConnectionClosed
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition, TopicImage
from replication.record_times import CANCEL_HEADER, DELIVER_HEADER, TARGET, target_problem
from replication.requests import EARLIEST_TIMESTAMP, ReadOptions

AT_ONCE: Final = 500
"""Records of one transaction."""
READ_BYTES: Final = 131_072
"""What is read at once: a few milliseconds of work, between which others have the event loop."""
WAIT_MS_MAX: Final = 1_000
"""Longest wait for new records, after which the clock is looked at again: it may have stepped."""
WAIT_MS_MIN: Final = 5
RETRY_MS: Final = 1_000
"""Wait after a failure. All is read again then: what was done is known from the progress alone."""


class Routes(Protocol):
    """A node's ways to the rest of the cluster; they exist once its parts do."""

    gateway: Gateway
    groups: Groups
    transactions: Transactions


class DelayForwarders:
    """The delay partitions that one broker leads."""

    def __init__(self, node_id: int, routes: Routes, clock: Clock, events: Events) -> None:
        self._node_id = node_id
        self._routes = routes
        self._clock = clock
        self._events = events
        self._tasks = Tasks("a delay topic")
        self._running: dict[tuple[TopicIdPartition, int], asyncio.Task[None]] = {}
        """Key: the partition and its leader epoch."""
        self._configs: object = None
        self._targets: Mapping[str, str] = {}
        """Target of each delay topic."""

    def on_metadata(self, _: object, image: MetadataImage) -> None:
        """Begins and ends what this broker leads, or leads no longer."""
        if self._configs is not image.configs:
            self._configs = image.configs
            self._targets = {
                name: named[TARGET]
                for (kind, name), named in image.configs.items()
                if kind == "topic" and named.get(TARGET)
            }
        led: set[tuple[TopicIdPartition, int]] = set()
        for name in self._targets:
            topic = image.topic(name)
            for number, partition in () if topic is None else topic.partitions.items():
                if topic is not None and partition.leader == self._node_id:
                    led.add((TopicIdPartition(topic.topic_id, number), partition.leader_epoch))
        for key in self._running.keys() - led:
            self._running.pop(key).cancel()
        for where, epoch in led - self._running.keys():
            forwarder = _Forwarder(where, self._routes, self._clock, self._events)
            self._running[where, epoch] = self._tasks.run(forwarder.run())

    def stop(self) -> None:
        """Ends all; the next leaders go on."""
        self._tasks.cancel()


class _Forwarder:
    """One delay partition."""

    def __init__(self, where: TopicIdPartition, routes: Routes, clock: Clock, events: Events) -> None:
        self._where = where
        self._routes = routes
        self._clock = clock
        self._events = events

    async def run(self) -> None:
        """Until it is cancelled."""
        last_error = ""
        while True:
            try:
                await self._forward()
            except (ConnectionClosed, OSError, TimeoutError):
                pass  # of another node: it is asked again
            except KafkaError as error:
                if not error.retriable and error.message != last_error:
                    last_error = error.message
                    self._events.emit(
                        "delayed_records_wait",
                        topic=str(self._where.topic_id) if self._topic is None else self._topic.name,
                        partition=self._where.partition,
                        error=error.message,
                    )
            await self._clock.sleep(RETRY_MS)

    @property
    def _topic(self) -> TopicImage | None:
        return self._routes.gateway.image.topics.get(self._where.topic_id)

    def _target(self) -> TopicImage:
        """Raises InvalidConfig 40 for a target that cannot be: then nothing is forwarded, and nothing is lost."""
        image, topic = self._routes.gateway.image, self._topic
        name = "" if topic is None else image.config("topic", topic.name).get(TARGET, "")
        problem = target_problem(image, name)
        if problem:
            raise InvalidConfig(problem)
        found = image.topic(name)
        assert found is not None
        return found

    async def _forward(self) -> None:
        topic, gateway = self._topic, self._routes.gateway
        if topic is None:
            return
        self._target()
        name = f"{DELAYED_PREFIX}{topic.name}"
        copies = Copies(
            f"{name}-{self._where.partition}",
            gateway=gateway,
            groups=self._routes.groups,
            transactions=self._routes.transactions,
        )
        producer = await copies.begin()
        index = DueIndex(await self._progress(copies.name, topic.name))
        await self._read_again(index)
        while True:
            late = await self._look(index)
            if index.needs_reading:
                index = DueIndex(index.progress, cancelled=index.cancelled)
                await self._read_again(index)
            due = [*late, *index.take(self._clock.wall_ms(), AT_ONCE)]
            if due:
                records = await self._copies_of(due)
                progress = index.progress
                offset = r.OffsetToCommit(topic.name, self._where.partition, progress.next_offset, progress.metadata)
                producer = await copies.commit(producer, records, offset)

    async def _progress(self, group: str, topic: str) -> Progress:
        asked = r.FetchOffsets(group=group, partitions=((topic, self._where.partition),), requires_stable=True)
        known = await self._routes.groups.ask(asked)
        assert isinstance(known, a.GroupOffsets), known
        (found,) = known.offsets
        if found.is_unstable:
            raise ConcurrentTransactions("the transaction of the leader before is about to end")
        return progress_of(found.offset, found.metadata)

    async def _read_again(self, index: DueIndex) -> None:
        """What was looked at before and is not done."""
        gateway, end = self._routes.gateway, index.progress.next_offset
        position = (await gateway.list_offset(self._where, EARLIEST_TIMESTAMP)).offset
        if end < position:
            index.passed(position)
        while position < end:
            found = await gateway.read(self._where, position, ReadOptions(bytes_max=READ_BYTES, is_read_committed=True))
            before = position
            for next_offset, record in with_gaps(found, before):
                if record is not None and record.offset < end:
                    index.read_again(record)
                position = next_offset
            if position == before:
                return
            await self._clock.sleep(0)

    async def _look(self, index: DueIndex) -> list[Delayed]:
        """Waits for new records or for the next one that is due. Returns those that are due since before they came."""
        gateway, now_ms = self._routes.gateway, self._clock.wall_ms()
        next_ms = index.next_due_ms()
        wait_ms = WAIT_MS_MAX if next_ms is None else max(0, min(next_ms - now_ms, WAIT_MS_MAX))
        if index.blocked_until_ms > now_ms:
            await self._clock.sleep(min(wait_ms, index.blocked_until_ms - now_ms))
            return []
        options = ReadOptions(bytes_max=READ_BYTES, bytes_min=1, wait_ms_max=wait_ms, is_read_committed=True)
        begin = index.progress.next_offset
        found = await gateway.read(self._where, begin, options)
        late: list[Delayed] = []
        for next_offset, record in with_gaps(found, begin):
            if record is None:
                index.passed(next_offset)
                continue
            each = index.arrived(record, self._clock.wall_ms())
            if each is False:
                break
            if isinstance(each, Delayed):
                late.append(each)
            if len(late) >= AT_ONCE:
                break
        if not found.data and wait_ms:
            await self._clock.sleep(min(WAIT_MS_MIN, wait_ms))
        return late

    async def _copies_of(self, due: Sequence[Delayed]) -> Mapping[TopicIdPartition, Sequence[NewRecord]]:
        """The records as they go to the target."""
        target, now_ms = self._target(), self._clock.wall_ms()
        read: dict[int, ReadRecord] = {}
        copies: dict[TopicIdPartition, list[NewRecord]] = {}
        for each in due:
            if each.offset not in read:
                read = await self._read(each.offset)
            record = read.get(each.offset)
            if record is None:
                continue  # retention has deleted it
            headers = [header for header in record.headers if header[0] not in (DELIVER_HEADER, CANCEL_HEADER)]
            key, count = record.key, len(target.partitions)
            number = self._where.partition % count if key is None else partition_of_key(key, count)
            where = TopicIdPartition(target.topic_id, number)
            copies.setdefault(where, []).append(NewRecord(key, record.value, headers, now_ms))
        return copies

    async def _read(self, offset: int) -> dict[int, ReadRecord]:
        options = ReadOptions(bytes_max=READ_BYTES, is_read_committed=True)
        found = await self._routes.gateway.read(self._where, offset, options)
        return {record.offset: record for _, record in with_gaps(found, offset) if record is not None}
