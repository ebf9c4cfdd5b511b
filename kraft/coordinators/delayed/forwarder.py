"""Forwards the records of delay topics when they are due: each leader those of the partitions that it leads.

A topic with delivery.target.topic is a delay topic. What is due is written to its target, each record once
(`kraft.coordinators.copies`): a new leader fences the one before. There is one task for a partition, and no
timer for a record. The leader's clock decides. What nobody waits for any more is deleted: the start of the log moves to
the lowest record that waits, as by DeleteRecords, so that disk and the next start do not grow with what was forwarded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from kraft.coordinators.copies import Copies, Routes
from kraft.coordinators.delayed.index import KEPT_MAX, Delayed, DueIndex, Progress, progress_of
from kraft.coordinators.groups.offsets import DELAYED_PREFIX
from kraft.coordinators.shares.redrive import with_gaps
from kraft.coordinators.tasks import Tasks
from kraft.protocol.batches.records import Header, NewRecord, ReadRecord
from kraft.protocol.errors import InvalidConfig, KafkaError, PolicyViolation
from kraft.protocol.partitioner import partition_of_key
from metadata.environment import Clock, ConnectionClosed
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition, TopicImage
from replication.record_times import CANCEL_HEADER, DELIVER_HEADER, TARGET, target_problem
from replication.requests import EARLIEST_TIMESTAMP, ReadOptions

FROM_HEADER: Final = "kraft.delivered.from"
"""The record that a copy was made of: `later-0@17`."""
AT_ONCE: Final = 500
"""Records of one turn."""
READ_BYTES: Final = 131_072
"""What is read at once: a few milliseconds of work, between which others have the event loop."""
DENSE: Final = 8
DENSE_SPAN: Final = 64
"""`DENSE` records within so many offsets are read with what is between them."""
WAIT_MS_MAX: Final = 1_000
"""Longest wait for new records, after which the clock is looked at again: it may have stepped."""
WAIT_MS_MIN: Final = 5
RETRY_MS: Final = 1_000
"""Wait after a failure. All is read again then: what was done is known from the progress and the target alone."""
BEHIND_MS_MAX: Final = 60_000
"""How long a new leader's high watermark may be behind what was looked at before; then an unclean election has lost
records, and others have their offsets."""
TRIM_MS: Final = 30_000
"""Wait between two deletions of what was forwarded."""
TRIM_TIMEOUT_MS: Final = 5_000
NOT_COPIED: Final = (DELIVER_HEADER, CANCEL_HEADER, FROM_HEADER)
"""Headers of records that their copies have not."""


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
            forwarder = _Forwarder(where, self._routes, self._clock, self._events, self._tasks)
            self._running[where, epoch] = self._tasks.run(forwarder.run())

    def stop(self) -> None:
        """Ends all; the next leaders go on."""
        self._tasks.cancel()


class _Forwarder:
    """One delay partition."""

    def __init__(self, where: TopicIdPartition, routes: Routes, clock: Clock, events: Events, tasks: Tasks) -> None:
        self._where = where
        self._routes = routes
        self._clock = clock
        self._events = events
        self._tasks = tasks
        self._trimmed_to = 0
        self._trims_at_ms = clock.monotonic_ms() + TRIM_MS

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
                        topic=self._name,
                        partition=self._where.partition,
                        error=error.message,
                    )
            await self._clock.sleep(RETRY_MS)

    @property
    def _topic(self) -> TopicImage | None:
        return self._routes.gateway.image.topics.get(self._where.topic_id)

    @property
    def _name(self) -> str:
        return str(self._where.topic_id) if self._topic is None else self._topic.name

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
        topic = self._topic
        if topic is None:
            return
        self._target()
        copies = self._copies_in(topic.name)
        index = DueIndex(progress_of(*await copies.begin()), kept_max=KEPT_MAX)
        await self._read_again(index, copies.arrived)
        while True:
            done = index.progress
            late = await self._look(index)
            if index.needs_reading:
                index = DueIndex(index.progress, kept_max=KEPT_MAX, cancelled=index.cancelled)
                await self._read_again(index)
            due = [*late, *index.take(self._clock.wall_ms(), AT_ONCE)]
            if due:
                missing = [each for each in due if each.offset not in copies.arrived]
                await copies.write(done.noted, await self._copies_of(missing, copies))
                copies.arrived.difference_update(each.offset for each in due)
            self._maybe_trim(index)

    def _maybe_trim(self, index: DueIndex) -> None:
        """Nothing waits for it: replicas that are late are not in the way of what is due."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._trims_at_ms:
            return
        self._trims_at_ms = now_ms + TRIM_MS
        offset = index.lowest_waiting()
        if offset > self._trimmed_to:
            self._tasks.run(self._trim(offset))

    async def _trim(self, offset: int) -> None:
        """Not in a topic that is only compacted. After a failure the next one deletes as much and more."""
        try:
            await self._routes.gateway.delete_records(self._where, offset=offset, timeout_ms=TRIM_TIMEOUT_MS)
        except PolicyViolation:
            pass
        except (KafkaError, ConnectionClosed, OSError, TimeoutError):
            return
        self._trimmed_to = offset

    async def _read_again(self, index: DueIndex, arrived: set[int] | None = None) -> None:
        """What was looked at before and is not done. What is done is taken out of `arrived`."""
        arrived = set() if arrived is None else arrived
        gateway, end = self._routes.gateway, index.progress.next_offset
        position = (await gateway.list_offset(self._where, EARLIEST_TIMESTAMP)).offset
        arrived.difference_update([each for each in arrived if each < position])
        if end < position:
            index.passed(position)
        options = ReadOptions(bytes_max=READ_BYTES, bytes_min=1, wait_ms_max=WAIT_MS_MAX, is_read_committed=True)
        deadline_ms = self._clock.monotonic_ms() + BEHIND_MS_MAX
        while position < end:
            found = await gateway.read(self._where, position, options)
            before = position
            for next_offset, record in with_gaps(found, before):
                if record is not None and record.offset < end and index.read_again(record):
                    arrived.discard(record.offset)
                position = next_offset
            if position > before:
                deadline_ms = self._clock.monotonic_ms() + BEHIND_MS_MAX
            elif self._clock.monotonic_ms() > deadline_ms:
                index.passed(position)
                return
            await self._clock.sleep(0 if position > before else WAIT_MS_MIN)

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
        asked_ms = self._clock.monotonic_ms()
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
        if not found.data:  # a read may end before its time
            left_ms = wait_ms - (self._clock.monotonic_ms() - asked_ms)
            await self._clock.sleep(max(0, min(WAIT_MS_MIN, left_ms)))
        return late

    def _copies_in(self, topic: str) -> Copies:
        number = self._where.partition
        return Copies(
            f"{DELAYED_PREFIX}{topic}-{number}",
            (topic, number),
            header=FROM_HEADER,
            nothing=Progress().noted,
            routes=self._routes,
            clock=self._clock,
        )

    async def _copies_of(self, due: Sequence[Delayed], maker: Copies) -> Mapping[TopicIdPartition, Sequence[NewRecord]]:
        """The records as they go to the target."""
        target, now_ms = self._target(), self._clock.wall_ms()
        read = await self._read(sorted(each.offset for each in due))
        copies: dict[TopicIdPartition, list[NewRecord]] = {}
        lost = 0
        for each in due:
            record = read.get(each.offset)
            if record is None:
                lost += 1
                continue
            headers: list[Header] = [header for header in record.headers if header[0] not in NOT_COPIED]
            headers.append(maker.header(each.offset))
            key, count = record.key, len(target.partitions)
            number = self._where.partition % count if key is None else partition_of_key(key, count)
            where = TopicIdPartition(target.topic_id, number)
            copies.setdefault(where, []).append(NewRecord(key, record.value, headers, now_ms))
        if lost:  # retention by size, or a retention.ms that was lowered, has deleted them
            self._events.emit("delayed_records_lost", topic=self._name, partition=self._where.partition, records=lost)
        return copies

    async def _read(self, wanted: Sequence[int]) -> dict[int, ReadRecord]:
        """The records at these offsets, which ascend. Of records that are far from each other only their batches are
        read and opened."""
        found: dict[int, ReadRecord] = {}
        at = 0
        while at < len(wanted):
            begin = wanted[at]
            is_dense = at + DENSE <= len(wanted) and wanted[at + DENSE - 1] - begin < DENSE_SPAN
            options = ReadOptions(bytes_max=READ_BYTES if is_dense else 1, is_read_committed=True)
            end = begin + 1
            for next_offset, record in with_gaps(await self._routes.gateway.read(self._where, begin, options), begin):
                end = max(end, next_offset)
                while at < len(wanted) and wanted[at] < next_offset:
                    if record is not None and record.offset == wanted[at]:
                        found[record.offset] = record
                    at += 1
                if at == len(wanted):
                    break
            while at < len(wanted) and wanted[at] < end:
                at += 1
            await self._clock.sleep(0)
        return found
