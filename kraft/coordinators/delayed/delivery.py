"""Writes copies of due records to their target, each once, for every reader: also for one of uncommitted records.

Before copies are written, the group of the delay partition notes two things in one commit: what is done until then, and
for each partition of the target an offset below which no copy of this turn is. Copies are batches of an idempotent
producer, and each names its record in a header. So a forwarder that takes over, on whatever node and after whatever
failure, reads the target from the noted offsets on, and knows which records of the last turn have arrived.

Nobody writes meanwhile: a commit names the one that it follows, so that the forwarder before can begin no turn any
more, and what it has under way is fenced by markers of the next epoch of the producer in the noted partitions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from kraft.broker.consumer_fetch import readable_batches
from kraft.broker.gateway import Gateway
from kraft.coordinators.copies import TRANSACTION_TIMEOUT_MS, parts_of
from kraft.coordinators.delayed.index import Progress
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.offsets import DELAYED_PREFIX
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.batches.records import NewRecord, build_batch, open_batch
from kraft.protocol.errors import InvalidRequest, for_code
from kraft.protocol.primitives import Buffer, TopicPartition
from kraft.protocol.transactions import Producer
from metadata.environment import Clock
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ProduceOptions, ReadOptions

FROM_HEADER: Final = "kraft.delivered.from"
"""The record that a copy was made of: `later-0@17`."""
OFFSET_DIGITS: Final = 19
SCAN_BYTES: Final = 131_072
KNOWN_MS: Final = 1_000
"""How long the end of a partition of the target that was seen is noted again: a later scan begins there."""
RESEND_MS: Final = 100
"""Wait before copies that a partition cannot take now are sent again; their sequence numbers let no copy in twice."""
_PROGRESS: Final = re.compile(r"([0-9]{1,18}):([0-9]{1,18})(?::([0-9]{1,18}):([0-9]{1,18}):[0-9.]{1,40})?")
_POSITION: Final = re.compile(r"([0-9]{1,18}):(-1|[0-9]{1,18})")
ANY: Final = -1
"""Copies of more than one producer id stand behind the position."""


class Routes(Protocol):
    """A node's ways to the rest of the cluster; they exist once its parts do."""

    gateway: Gateway
    groups: Groups
    transactions: Transactions


class Noted(NamedTuple):
    """The content of a commit."""

    progress: Progress = Progress()
    since: int = 0
    """The first turn whose copies may be missing in `progress`."""
    turn: int = 0


def noted(offset: int, metadata: str) -> Noted:
    """Nothing for the offset -1. Raises InvalidRequest 42 for what no forwarder has written."""
    if offset < 0:
        return Noted()
    found = _PROGRESS.fullmatch(metadata)
    if found is None:
        raise InvalidRequest(f"{metadata[:100]!r} is no progress of delayed records: something else has committed it")
    due_ms, at, since, turn = (int(each or 0) for each in found.groups())
    return Noted(Progress(offset, due_ms, at), since, turn)


class Delivery:
    """The turns of one forwarder. After any error a new one begins."""

    def __init__(self, topic: str, partition: int, *, routes: Routes, clock: Clock) -> None:
        self.name = f"{DELAYED_PREFIX}{topic}-{partition}"
        self.arrived: set[int] = set()
        """Records at or behind the progress that `begin` returned, whose copies are in the target."""
        self._topic = topic
        self._partition = partition
        self._routes = routes
        self._clock = clock
        self._producer = Producer(-1, -1)
        self._owner = ""
        self._last = r.OffsetToCommit(topic, partition, -1)
        self._since = self._turn = 0
        self._positions: dict[TopicPartition, tuple[int, int]] = {}
        """Offset and producer id that are noted for partitions of the target, while `arrived` is needed."""
        self._sequences: dict[TopicIdPartition, int] = {}
        self._ends: dict[TopicIdPartition, tuple[int, int]] = {}
        """An offset where a partition has ended, and when that was."""

    # --- taking over ------------------------------------------------------------------------------------------

    async def begin(self) -> Progress:
        """Fences the forwarder before, and finds out what it has done."""
        transactions = self._routes.transactions
        self._producer = await transactions.init(self.name, timeout_ms=TRANSACTION_TIMEOUT_MS)
        self._owner = f"{self._producer.producer_id}.{self._producer.epoch}"
        known = await self._read_group()
        await self._note(known.progress, since=known.since, turn=known.turn, positions=())
        if self._positions:
            await transactions.add_partitions(self.name, self._producer, frozenset(self._positions))
            await transactions.end(self.name, self._producer, is_commit=True)
            # the next epoch is given out when all markers are written
            self._producer = await transactions.init(self.name, timeout_ms=TRANSACTION_TIMEOUT_MS)
            for (topic, number), (offset, producer_id) in self._positions.items():
                await self._scan(topic, number, offset, producer_id)
        self._since, self._turn = known.since, known.turn
        return known.progress

    async def _read_group(self) -> Noted:
        answer = await self._routes.groups.ask(r.FetchOffsets(group=self.name))
        assert isinstance(answer, a.GroupOffsets), answer
        found = Noted()
        rows: list[a.OffsetOfGroup] = []
        for each in answer.offsets:
            if (each.topic, each.partition) == (self._topic, self._partition):
                found = noted(each.offset, each.metadata)
                self._last = r.OffsetToCommit(each.topic, each.partition, each.offset, each.metadata)
            else:
                rows.append(each)
        image = self._routes.gateway.image
        for each in rows:
            text, topic = _POSITION.fullmatch(each.metadata), image.topic(each.topic)
            if text and int(text[1]) >= found.since and topic is not None and each.partition in topic.partitions:
                self._positions[each.topic, each.partition] = each.offset, int(text[2])
        return found

    async def _scan(self, topic: str, number: int, offset: int, producer_id: int) -> None:
        gateway, image = self._routes.gateway, self._routes.gateway.image.topic(topic)
        if image is None:
            return
        where = TopicIdPartition(image.topic_id, number)
        end = (await gateway.list_offset(where, LATEST_TIMESTAMP)).offset
        position = max(offset, (await gateway.list_offset(where, EARLIEST_TIMESTAMP)).offset)
        while position < end:
            found = await gateway.read(where, position, ReadOptions(bytes_max=SCAN_BYTES))
            before = position
            for at, header, _ in readable_batches(found.data):
                if producer_id in (header.producer_id, ANY) and not header.is_control:
                    batch = memoryview(found.data)[at : at + header.size]
                    for record in open_batch(batch, header, from_offset=position)[1]:
                        self.look_at(record.headers)
                position = max(position, header.next_offset)
            if position == before:
                return
            await self._clock.sleep(0)

    def look_at(self, headers: Iterable[tuple[str, bytes | None]]) -> None:
        """The headers of a record of the target, which is a copy of ours or is none."""
        for name, text in headers:
            if name == FROM_HEADER and text is not None:
                source, _, offset = text.decode(errors="replace").rpartition("@")
                if source == self._source and offset.isascii() and offset.isdecimal() and len(offset) <= OFFSET_DIGITS:
                    self.arrived.add(int(offset))

    @property
    def _source(self) -> str:
        return f"{self._topic}-{self._partition}"

    # --- a turn -----------------------------------------------------------------------------------------------

    def header(self, offset: int) -> tuple[str, bytes]:
        """What the copy of a record has, so that it is known again."""
        return FROM_HEADER, f"{self._source}@{offset}".encode()

    async def deliver(self, done: Progress, copies: Mapping[TopicIdPartition, Sequence[NewRecord]]) -> None:
        """One turn. `done`: what was done before it. Returns when all copies are replicated. Raises KafkaError: then
        some of them may be."""
        if not copies:
            return
        self._turn += 1
        if not self.arrived:
            self._since = self._turn
            self._positions.clear()
        await self._find_ends(copies)
        await self._note(done, since=self._since, turn=self._turn, positions=self._noted_positions(copies))
        queues = {where: self._batches(where, records) for where, records in copies.items()}
        while queues:
            await self._send({where: queue[0] for where, queue in queues.items()})
            queues = {where: queue[1:] for where, queue in queues.items() if len(queue) > 1}

    async def _find_ends(self, wanted: Iterable[TopicIdPartition]) -> None:
        gateway, now_ms = self._routes.gateway, self._clock.monotonic_ms()
        unknown = [each for each in wanted if each not in self._ends or now_ms - self._ends[each][1] > KNOWN_MS]
        found = await asyncio.gather(*(gateway.list_offset(each, LATEST_TIMESTAMP) for each in unknown))
        self._ends.update({where: (each.offset, now_ms) for where, each in zip(unknown, found, strict=True)})

    def _noted_positions(self, wanted: Iterable[TopicIdPartition]) -> list[r.OffsetToCommit]:
        """While `arrived` is needed, the offsets that were noted before count on."""
        positions = []
        for where in wanted:
            topic = self._routes.gateway.image.topics.get(where.topic_id)
            name = "" if topic is None else topic.name
            own = self._producer.producer_id
            offset, known = self._positions.get((name, where.partition), (self._ends[where][0], own))
            metadata = f"{self._turn}:{own if known == own else ANY}"
            positions.append(r.OffsetToCommit(name, where.partition, offset, metadata))
        return positions

    async def _note(self, progress: Progress, *, since: int, turn: int, positions: Sequence[r.OffsetToCommit]) -> None:
        metadata = f"{progress.due_ms}:{progress.offset}:{since}:{turn}:{self._owner}"
        new = r.OffsetToCommit(self._topic, self._partition, progress.next_offset, metadata)
        answer = await self._routes.groups.ask(
            r.CommitOffsets(group=self.name, offsets=(new, *positions), follows=self._last)
        )
        if isinstance(answer, a.Refused):
            raise InvalidRequest(answer.message)
        self._last = new

    def _batches(self, where: TopicIdPartition, records: Sequence[NewRecord]) -> list[bytes]:
        topic = self._routes.gateway.image.topics.get(where.topic_id)
        if topic is None:
            raise InvalidRequest("the target was deleted meanwhile")
        settings = self._routes.gateway.topic_settings(topic.name)
        batches, sequence = [], self._sequences.get(where, 0)
        for part in parts_of(records, bytes_max=min(settings.max_message_bytes, settings.segment_size)):
            batches.append(
                build_batch(
                    part,
                    producer_id=self._producer.producer_id,
                    producer_epoch=self._producer.epoch,
                    base_sequence=sequence,
                )
            )
            sequence = (sequence + len(part)) % 2**31
        self._sequences[where] = sequence
        return batches

    async def _send(self, batches: Mapping[TopicIdPartition, Buffer]) -> None:
        """Until all are in the log: what cannot be taken now is sent again, as often as it needs."""
        gateway = self._routes.gateway
        options = ProduceOptions(ACKS_ALL, gateway.settings.request_timeout_ms)
        while True:
            left: dict[TopicIdPartition, Buffer] = {}
            for where, outcome in (await gateway.produce(batches, options)).items():
                if not outcome.error_code:
                    self._ends[where] = outcome.last_offset + 1, self._clock.monotonic_ms()
                    continue
                error = for_code(outcome.error_code, outcome.message)
                if not error.retriable:
                    raise error
                left[where] = batches[where]
            if not left:
                return
            batches = left
            await self._clock.sleep(RESEND_MS)
