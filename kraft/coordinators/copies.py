"""Writes copies of records to other topics, each once, for every reader: also for one of uncommitted records. Delayed
records that are due, and dead letters that are brought back, are copied so.

Before copies are written, a group of their partition notes two things in one commit: what is done until then, and for
each partition that may get some an offset below which no copy of this turn is. Copies are batches of an idempotent
producer, and each names its record in a header. So who takes over, on whatever node and after whatever failure, reads
those partitions from the noted offsets on, and knows which records have arrived since the note.

Nobody writes meanwhile: a commit names the one that it follows, so that the one before can note no turn any more, and
what it writes after its last note is fenced by markers of the next epoch of the producer in the noted partitions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from kraft.broker.consumer_fetch import readable_batches
from kraft.broker.gateway import Gateway
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
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

TRANSACTION_TIMEOUT_MS: Final = 60_000
"""Timeout of transactions that write markers and nothing else."""
RECORD_BYTES: Final = 64
"""At most what a record has beside its key, value and headers, and each header beside its name and value."""
OFFSET_DIGITS: Final = 19
SCAN_BYTES: Final = 131_072
KNOWN_MS: Final = 1_000
"""How long the end of a partition of the target that was seen is noted again: a later scan begins there."""
RESEND_MS: Final = 100
"""Wait before copies that a partition cannot take now are sent again; their sequence numbers let no copy in twice."""
NOTED_MS: Final = 200
"""How long turns follow one note: they write to the partitions that it names."""
NOTED_RECORDS: Final = 2_000
"""Copies that follow one note: the next one has to look for so many of them."""
_TURNS: Final = re.compile(r"(.*):([0-9]{1,18}):([0-9]{1,18}):[0-9.]{1,40}")
_POSITION: Final = re.compile(r"([0-9]{1,18}):(-1|[0-9]{1,18})")
ANY: Final = -1
"""Copies of more than one producer id stand behind the position."""

Done: TypeAlias = tuple[int, str]
"""What is done of a partition, as it stands in a commit: an offset and a text."""


class Routes(Protocol):
    """A node's ways to the rest of the cluster; they exist once its parts do."""

    @property
    def gateway(self) -> Gateway: ...
    @property
    def groups(self) -> Groups: ...
    @property
    def transactions(self) -> Transactions: ...


class Noted(NamedTuple):
    """The content of a commit."""

    done: Done
    since: int = 0
    """The first turn whose copies may be missing in `done`."""
    turn: int = 0


def noted(offset: int, metadata: str) -> Noted:
    """What was noted last; without turns by an earlier version, which used transactions."""
    found = _TURNS.fullmatch(metadata)
    if found is None:
        return Noted((offset, metadata))
    return Noted((offset, found[1]), int(found[2]), int(found[3]))


class Copies:
    """The turns of one partition's copier. After any error a new one begins."""

    def __init__(
        self,
        name: str,
        source: TopicPartition,
        *,
        header: str,
        nothing: Done,
        routes: Routes,
        clock: Clock,
        patience_ms: int | None = None,
    ) -> None:
        """`name`: of the group, and of the transactional id whose producer it is. `header`: names the record in its
        copy. `nothing`: what is done before the first turn. `patience_ms`: how long copies are sent again; None: until
        they are taken."""
        self.name = name
        self.arrived: set[int] = set()
        """Records whose copies are there; those that `begin` has returned as done may be among them."""
        self._topic, self._partition = source
        self._header = header
        self._nothing = nothing
        self._routes = routes
        self._clock = clock
        self._patience_ms = patience_ms
        self._producer = Producer(-1, -1)
        self._owner = ""
        self._last = r.OffsetToCommit(self._topic, self._partition, -1)
        self._since = self._turn = 0
        self._positions: dict[TopicPartition, tuple[int, int]] = {}
        """Offset and producer id that are noted for partitions of the target, while `arrived` is needed."""
        self._sequences: dict[TopicIdPartition, int] = {}
        self._ends: dict[TopicIdPartition, tuple[int, int]] = {}
        """An offset where a partition has ended, and when that was."""
        self._covered: frozenset[TopicIdPartition] = frozenset()
        """What the last note names, and copies may go to without another one."""
        self._noted_ms = self._noted_records = 0
        """When that was, and the copies since."""

    # --- taking over ------------------------------------------------------------------------------------------

    async def look(self) -> Done:
        """Finds out what is done, and fences nobody: there may be more by now."""
        known = await self._read_group()
        await self._scan_all()
        return known.done

    async def begin(self) -> Done:
        """Fences the one before, and finds out what it has done."""
        transactions = self._routes.transactions
        self._producer = await transactions.init(self.name, timeout_ms=TRANSACTION_TIMEOUT_MS)
        self._owner = f"{self._producer.producer_id}.{self._producer.epoch}"
        known = await self._read_group()
        await self._note(known.done, since=known.since, turn=known.turn, positions=())
        if self._positions:
            await transactions.add_partitions(self.name, self._producer, frozenset(self._positions))
            await transactions.end(self.name, self._producer, is_commit=True)
            # the next epoch is given out when all markers are written
            self._producer = await transactions.init(self.name, timeout_ms=TRANSACTION_TIMEOUT_MS)
            await self._scan_all()
        self._since, self._turn = known.since, known.turn
        return known.done

    async def _read_group(self) -> Noted:
        answer = await self._routes.groups.ask(r.FetchOffsets(group=self.name))
        assert isinstance(answer, a.GroupOffsets), answer
        found = Noted(self._nothing)
        rows: list[a.OffsetOfGroup] = []
        for each in answer.offsets:
            if (each.topic, each.partition) != (self._topic, self._partition):
                rows.append(each)
            elif each.offset >= 0:
                found = noted(each.offset, each.metadata)
                self._last = r.OffsetToCommit(each.topic, each.partition, each.offset, each.metadata)
        image = self._routes.gateway.image
        for each in rows:
            text, topic = _POSITION.fullmatch(each.metadata), image.topic(each.topic)
            if text and int(text[1]) >= found.since and topic is not None and each.partition in topic.partitions:
                self._positions[each.topic, each.partition] = each.offset, int(text[2])
        return found

    async def _scan_all(self) -> None:
        for (topic, number), (offset, producer_id) in self._positions.items():
            await self._scan(topic, number, offset, producer_id)

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
            if name == self._header and text is not None:
                source, _, offset = text.decode(errors="replace").rpartition("@")
                if source == self._source and offset.isascii() and offset.isdecimal() and len(offset) <= OFFSET_DIGITS:
                    self.arrived.add(int(offset))

    @property
    def _source(self) -> str:
        return f"{self._topic}-{self._partition}"

    # --- a turn -----------------------------------------------------------------------------------------------

    def header(self, offset: int) -> tuple[str, bytes]:
        """What the copy of a record has, so that it is known again."""
        return self._header, f"{self._source}@{offset}".encode()

    async def write(self, done: Done, copies: Mapping[TopicIdPartition, Sequence[NewRecord]]) -> None:
        """One turn, after a note if the last one does not cover it. `done`: what was done before it. Returns when all
        copies are replicated. Raises KafkaError: then some of them may be."""
        if not copies:
            return
        count = sum(map(len, copies.values()))
        if self.arrived or not self._is_covered(copies, count):
            await self._begin_turn(done, copies)
        self._noted_records += count
        queues = {where: self._batches(where, records) for where, records in copies.items()}
        while queues:
            await self._send({where: queue[0] for where, queue in queues.items()})
            queues = {where: queue[1:] for where, queue in queues.items() if len(queue) > 1}

    def _is_covered(self, copies: Iterable[TopicIdPartition], count: int) -> bool:
        return (
            self._covered.issuperset(copies)
            and self._clock.monotonic_ms() - self._noted_ms <= NOTED_MS
            and self._noted_records + count <= NOTED_RECORDS
        )

    async def _begin_turn(self, done: Done, wanted: Iterable[TopicIdPartition]) -> None:
        """What the last note names, and has got copies just now, is named again: not each record has a note."""
        self._turn += 1
        if not self.arrived:
            self._since = self._turn
            self._positions.clear()
        topics = self._routes.gateway.image.topics
        named = {each for each in self._covered if each.topic_id in topics and self._knows_end(each)}.union(wanted)
        await self._find_ends(named)
        await self._note(done, since=self._since, turn=self._turn, positions=self._noted_positions(named))
        self._covered, self._noted_records, self._noted_ms = frozenset(named), 0, self._clock.monotonic_ms()

    async def finish(self, done: Done) -> None:
        """Notes what is done after the last turn, so that nobody has to look for its copies."""
        since = self._since if self.arrived else self._turn + 1
        self._covered = frozenset()
        await self._note(done, since=since, turn=self._turn, positions=())

    async def _find_ends(self, wanted: Iterable[TopicIdPartition]) -> None:
        gateway, now_ms = self._routes.gateway, self._clock.monotonic_ms()
        unknown = [each for each in wanted if not self._knows_end(each)]
        found = await asyncio.gather(*(gateway.list_offset(each, LATEST_TIMESTAMP) for each in unknown))
        self._ends.update({where: (each.offset, now_ms) for where, each in zip(unknown, found, strict=True)})

    def _knows_end(self, where: TopicIdPartition) -> bool:
        return where in self._ends and self._clock.monotonic_ms() - self._ends[where][1] <= KNOWN_MS

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

    async def _note(self, done: Done, *, since: int, turn: int, positions: Sequence[r.OffsetToCommit]) -> None:
        offset, text = done
        new = r.OffsetToCommit(self._topic, self._partition, offset, f"{text}:{since}:{turn}:{self._owner}")
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
        """What cannot be taken now is sent again, as often as the patience allows."""
        gateway, begun_ms = self._routes.gateway, self._clock.monotonic_ms()
        options = ProduceOptions(ACKS_ALL, gateway.settings.request_timeout_ms)
        while True:
            left: dict[TopicIdPartition, Buffer] = {}
            for where, outcome in (await gateway.produce(batches, options)).items():
                if not outcome.error_code:
                    self._ends[where] = outcome.last_offset + 1, self._clock.monotonic_ms()
                    continue
                error = for_code(outcome.error_code, outcome.message)
                is_late = self._patience_ms is not None and self._clock.monotonic_ms() - begun_ms > self._patience_ms
                if is_late or not error.retriable:
                    raise error
                left[where] = batches[where]
            if not left:
                return
            batches = left
            await self._clock.sleep(RESEND_MS)


def parts_of(records: Sequence[NewRecord], *, bytes_max: int) -> Iterator[Sequence[NewRecord]]:
    """Each part fits into one batch; a record that is too large comes alone, and is refused by its leader."""
    part: list[NewRecord] = []
    room = bytes_max
    for record in records:
        size = bytes_at_most(record)
        if part and size > room:
            yield part
            part, room = [], bytes_max
        part.append(record)
        room -= size
    if part:
        yield part


def bytes_at_most(record: NewRecord) -> int:
    """What the record takes of its batch."""
    headers = sum(RECORD_BYTES + len(name) + len(value or b"") for name, value in record.headers)
    return RECORD_BYTES + len(record.key or b"") + len(record.value or b"") + headers
