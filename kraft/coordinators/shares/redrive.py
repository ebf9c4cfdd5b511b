"""Dead letters of a queue go back to the partitions that they came from (KIP-1191 names them in headers).

The copies and the progress are one transaction, whose id belongs to the queue: what dies in the middle has done nothing
for readers of committed records, and the next redrive, which fences it, goes on where it stood. A record that has two
dead letters, as one may after a change of leaders, is brought back once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kraft.broker.consumer_fetch import readable_batches
from kraft.broker.gateway import Gateway, Records
from kraft.coordinators.copies import Copies
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.offsets import REDRIVE_PREFIX
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.dead_letters import HEADER_PREFIX
from kraft.coordinators.shares.redriven import Progress, progress_of
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.batches.records import NewRecord, ReadRecord, open_batch
from kraft.protocol.errors import InvalidRequest, OffsetOutOfRange
from kraft.protocol.transactions import Producer
from kraft.values import value
from metadata.environment import Clock
from metadata.image import TopicIdPartition, TopicImage
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ReadOptions

AT_ONCE: Final = 500
"""Letters of one transaction."""
LOOK_BACK: Final = 10_000
"""Offsets before the first letter that is not done, among which a second letter of a record is recognised: as many as a
share partition may have in flight."""
READ_BYTES: Final = 1_048_576
FROM_HEADER: Final = "kraft.redriven.from"
"""Names topic, partition and offset of the dead letter in the record that was brought back."""
_NUMBER: Final = re.compile("[0-9]{1,18}")
REDRIVEN, WAITS, GONE = "REDRIVEN", "WAITS", "GONE"


class Source(NamedTuple):
    """The record that became a dead letter."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


class Letter(NamedTuple):
    """One dead letter of the queue."""

    partition: int
    offset: int
    source: Source
    message: str
    record: ReadRecord


@value(kw_only=True)
class AskedRedrive:
    """What one request asks for."""

    queue: str
    dead_letters: str
    """The topic that has them."""
    records: frozenset[Source] | None
    """None: all of the queue."""
    letters_max: int
    is_dry: bool


class Row(NamedTuple):
    """What became of one letter."""

    letter: Letter
    state: str
    """REDRIVEN; WAITS in a dry run; GONE: neither the topic nor the letter has the record any more."""


@dataclass(slots=True)
class Redriven:
    """What a redrive has done."""

    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why letters were left where they are."""
    is_complete: bool = True
    """False: there are more letters than were asked for at once."""


class Redrive:
    """One redrive; raises ProducerFenced 90 when another one of the queue begins meanwhile."""

    def __init__(
        self, asked: AskedRedrive, *, gateway: Gateway, groups: Groups, transactions: Transactions, clock: Clock
    ) -> None:
        """`gateway`: the cluster as the principal of the request may read and write it."""
        self.done = Redriven()
        self._asked = asked
        self._gateway = gateway
        self._groups = groups
        self._clock = clock
        self._group = REDRIVE_PREFIX + asked.queue
        self._copies = Copies(self._group, gateway=gateway, groups=groups, transactions=transactions)
        self._left = asked.letters_max

    async def run(self, topic: TopicImage) -> Redriven:
        """Brings back what was asked for, partition by partition of the dead letter topic."""
        producer = None
        if not self._asked.is_dry:
            producer = await self._copies.begin()
        known = await self._progress(topic)
        for number in topic.partitions:
            scan = _Scan(self._asked, TopicIdPartition(topic.topic_id, number), topic.name, known[number])
            while self._left > 0:
                letters = await scan.next_letters(self._gateway, min(self._left, AT_ONCE))
                rows, problem = await self._resolved(letters)
                scan.settle(len(rows), has_problem=bool(problem))
                moved = [(row, record) for row, record in rows if record is not None]
                if producer is not None and scan.has_moved:
                    producer = await self._move(producer, moved, scan)
                self.done.rows += [row for row, _ in rows]
                self._left -= len(rows)
                if problem:
                    self.done.problems.append(problem)
                if problem or scan.is_at_end:
                    break
            self.done.is_complete &= scan.is_at_end
        self._name_missing()
        return self.done

    def _name_missing(self) -> None:
        asked = self._asked
        if asked.records is not None and self.done.is_complete and not self.done.problems:
            for source in sorted(asked.records - {row.letter.source for row in self.done.rows}):
                self.done.problems.append(
                    f"no dead letter of {source} waits in {asked.dead_letters}: it was brought back, or there is none"
                )

    async def _progress(self, topic: TopicImage) -> Mapping[int, Progress]:
        partitions = tuple((topic.name, number) for number in topic.partitions)
        known = await self._groups.ask(
            r.FetchOffsets(group=self._group, partitions=partitions, requires_stable=not self._asked.is_dry)
        )
        assert isinstance(known, a.GroupOffsets), known
        if any(each.is_unstable for each in known.offsets):
            raise InvalidRequest(f"another redrive of {self._asked.queue!r} is about to end: try again")
        return {each.partition: progress_of(each.offset, each.metadata) for each in known.offsets}

    # --- records --------------------------------------------------------------------------------------------------

    async def _resolved(self, letters: Sequence[Letter]) -> tuple[list[tuple[Row, NewRecord | None]], str]:
        """What goes back for each letter, up to the first one that has no way back, and why that has none."""
        found: list[tuple[Row, NewRecord | None]] = []
        read: dict[Source, ReadRecord] = {}
        for letter in letters:
            topic = self._gateway.image.topic(letter.source.topic)
            if topic is None or letter.source.partition not in topic.partitions:
                which = f"{letter.source.topic}-{letter.source.partition}"
                return found, (
                    f"{which} is not there any more, to which the dead letter {self._place(letter)} goes back: create "
                    "it again, or name the records of other topics"
                )
            if letter.source not in read:
                read = await self._read(topic, letter.source)
            record = _record_of(letter, read.get(letter.source))
            state = GONE if record is None else WAITS if self._asked.is_dry else REDRIVEN
            if record is not None:
                header = FROM_HEADER, self._place(letter).encode()
                record = NewRecord(record.key, record.value, [*record.headers, header], self._clock.wall_ms())
            found.append((Row(letter, state), record))
        return found, ""

    def _place(self, letter: Letter) -> str:
        return f"{self._asked.dead_letters}-{letter.partition}@{letter.offset}"

    async def _read(self, topic: TopicImage, source: Source) -> dict[Source, ReadRecord]:
        """The record, and those behind it that come along."""
        where = TopicIdPartition(topic.topic_id, source.partition)
        try:
            found = await self._gateway.read(where, source.offset, ReadOptions(bytes_max=READ_BYTES))
        except OffsetOutOfRange:
            return {}
        return {source._replace(offset=record.offset): record for record in records_of(found, source.offset)}

    async def _move(self, producer: Producer, moved: Sequence[tuple[Row, NewRecord]], scan: _Scan) -> Producer:
        """One transaction. Returns the producer of the next one."""
        metadata, longest = scan.progress.metadata, self._gateway.settings.offset_metadata_max_bytes
        if len(metadata) > longest:
            raise InvalidRequest(
                f"the letters that were brought back one by one take {len(metadata)} bytes to remember, and "
                f"offset.metadata.max.bytes is {longest}: bring back all letters of the queue first"
            )
        by_target: dict[TopicIdPartition, list[NewRecord]] = {}
        for row, record in moved:
            topic = self._gateway.image.topic(row.letter.source.topic)
            if topic is None:
                raise InvalidRequest(f"topic {row.letter.source.topic} was deleted meanwhile")
            by_target.setdefault(TopicIdPartition(topic.topic_id, row.letter.source.partition), []).append(record)
        offset = r.OffsetToCommit(self._asked.dead_letters, scan.where.partition, scan.progress.offset, metadata)
        return await self._copies.commit(producer, by_target, offset)


class _Scan:
    """Reads one partition of the dead letter topic, from the first letter that is not done."""

    def __init__(self, asked: AskedRedrive, where: TopicIdPartition, topic: str, progress: Progress) -> None:
        self.where = where
        self.progress = progress
        self.has_moved = False
        """Whether the last `settle` has changed the progress."""
        self.is_at_end = False
        self._asked = asked
        self._topic = topic
        self._seen: set[Source] = set()
        self._position = -1
        self._end = -1
        self._pending: list[Letter] = []
        """Letters that were read, and not settled."""
        self._open: list[int] = []
        """Offsets of letters that were not asked for."""
        self._read_to = -1

    async def next_letters(self, gateway: Gateway, count: int) -> Sequence[Letter]:
        """The next ones to be brought back; fewer than `count` at the end of the partition as it was at first."""
        if self._end < 0:
            begin = (await gateway.list_offset(self.where, EARLIEST_TIMESTAMP)).offset
            latest = await gateway.list_offset(self.where, LATEST_TIMESTAMP, is_read_committed=True)
            self._end = latest.offset
            self._position = max(begin, self.progress.offset - LOOK_BACK)
            self._read_to = max(begin, self.progress.offset)
            self.progress = self.progress.with_done(0, begin - 1)
        while len(self._pending) < count and self._position < self._end:
            options = ReadOptions(bytes_max=READ_BYTES, is_read_committed=True)
            found = await gateway.read(self.where, self._position, options)
            before = self._position
            for next_offset, record in with_gaps(found, before):
                self._position = next_offset
                if record is not None:
                    self._look_at(record)
                if len(self._pending) >= count:
                    break
            if self._position == before:
                break
        self.is_at_end = self._position >= self._end
        return self._pending

    def _look_at(self, record: ReadRecord) -> None:
        letter = letter_of(record, self._asked.queue, self.where.partition)
        if letter is None or record.offset >= self._end:
            return
        is_known = letter.source in self._seen
        if is_known or self.progress.has(record.offset):
            self._seen.add(letter.source)
        elif self._asked.records is not None and letter.source not in self._asked.records:
            self._open.append(record.offset)
        else:
            self._seen.add(letter.source)
            self._pending.append(letter)

    def settle(self, count: int, *, has_problem: bool) -> None:
        """So many of the letters are done now, and all that lies between them and was not left out."""
        before = self.progress
        left, self._pending = self._pending[count:], []
        to = left[0].offset if left else self._position
        if has_problem:
            self.is_at_end = False
        at = self._read_to
        for offset in [each for each in self._open if each < to]:
            self.progress = self.progress.with_done(at, offset - 1)
            at = offset + 1
        self.progress = self.progress.with_done(at, to - 1)
        self._read_to, self._open = to, []
        self.has_moved = self.progress != before


def letter_of(record: ReadRecord, queue: str, partition: int) -> Letter | None:
    """The dead letter of the queue that the record is; None: it is none, or that of another queue."""
    named = {
        name.removeprefix(HEADER_PREFIX): (text or b"").decode(errors="replace")
        for name, text in record.headers
        if name.startswith(HEADER_PREFIX)
    }
    numbers = named.get("partition", ""), named.get("offset", "")
    if named.get("group") != queue or not all(_NUMBER.fullmatch(text) for text in numbers):
        return None
    source = Source(named.get("topic", ""), int(numbers[0]), int(numbers[1]))
    return Letter(partition, record.offset, source, named.get("message", ""), record)


def _record_of(letter: Letter, found: ReadRecord | None) -> ReadRecord | NewRecord | None:
    """The record itself with its headers. A topic of the same name may have another one there by now: a copy in the
    letter is compared with it, and without one it must not be younger than the letter."""
    copy = letter.record
    has_copy = copy.key is not None or copy.value is not None
    if found is not None:
        is_same = (found.key, found.value) == (copy.key, copy.value) if has_copy else found.timestamp <= copy.timestamp
        if is_same:
            return found
    return NewRecord(copy.key, copy.value, [], copy.timestamp) if has_copy else None


def records_of(found: Records, from_offset: int) -> Iterator[ReadRecord]:
    """The records of a read, without control records and those of aborted transactions."""
    return (record for _, record in with_gaps(found, from_offset) if record is not None)


def with_gaps(found: Records, from_offset: int) -> Iterator[tuple[int, ReadRecord | None]]:
    """The offset behind each record and the record; None for batches that have none for people."""
    view = memoryview(found.data)
    for position, header, is_readable in readable_batches(found.data, found.aborted):
        if header.next_offset <= from_offset:
            continue
        if is_readable:
            batch = view[position : position + header.size]
            for record in open_batch(batch, header, from_offset=from_offset)[1]:
                yield record.offset + 1, record
        yield header.next_offset, None
