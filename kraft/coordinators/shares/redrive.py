"""Dead letters of a queue go back to the partitions that they came from (KIP-1191 names them in headers).

Each comes back once, for every reader and whatever dies in the middle (`kraft.coordinators.copies`): a group for each
partition of the dead letter topic, `kraft.redrive.QUEUE:TOPIC-PARTITION`, notes how far its letters were brought back,
and the next redrive fences the one before. A record that has two dead letters, as one may after a change of leaders, is
brought back once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kraft.broker.consumer_fetch import readable_batches
from kraft.broker.gateway import Gateway, Records
from kraft.coordinators.copies import Copies, Routes
from kraft.coordinators.groups.offsets import REDRIVE_PREFIX
from kraft.coordinators.shares.dead_letters import HEADER_PREFIX
from kraft.coordinators.shares.redriven import Progress, progress_of
from kraft.protocol.batches.records import NewRecord, ReadRecord, open_batch
from kraft.protocol.errors import (
    IllegalGeneration,
    InvalidProducerEpoch,
    InvalidRequest,
    OffsetOutOfRange,
    ProducerFenced,
)
from kraft.values import value
from metadata.environment import Clock
from metadata.image import TopicIdPartition, TopicImage
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ReadOptions

AT_ONCE: Final = 500
"""Letters of one turn."""
NOTED_BYTES: Final = 96
"""At most what stands beside the progress in a commit."""
PATIENCE_MS: Final = 20_000
"""How long a partition that cannot take its copies is asked again. They may arrive later: the next redrive looks."""
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

    def __init__(self, asked: AskedRedrive, *, routes: Routes, clock: Clock) -> None:
        """`routes`: to the cluster as the principal of the request may read and write it."""
        self.done = Redriven()
        self._asked = asked
        self._routes = routes
        self._gateway = routes.gateway
        self._clock = clock
        self._left = asked.letters_max
        self._bounds: dict[TopicIdPartition, tuple[int, int]] = {}
        """Begin and end of the logs of sources whose records are gone: these are not asked for one by one."""

    async def run(self, topic: TopicImage) -> Redriven:
        """Brings back what was asked for, partition by partition of the dead letter topic."""
        try:
            for number in topic.partitions:
                scan = _Scan(self._asked, TopicIdPartition(topic.topic_id, number))
                if await scan.has_letters(self._gateway):
                    await self._bring_back(scan, self._copies_of(topic.name, number))
                    self.done.is_complete &= scan.is_at_end
        except (IllegalGeneration, InvalidProducerEpoch) as error:
            raise ProducerFenced(f"another redrive of {self._asked.queue!r} has begun meanwhile") from error
        self._name_missing()
        return self.done

    def _copies_of(self, topic: str, number: int) -> Copies:
        return Copies(
            f"{REDRIVE_PREFIX}{self._asked.queue}:{topic}-{number}",
            (topic, number),
            header=FROM_HEADER,
            nothing=Progress().noted,
            routes=self._routes,
            clock=self._clock,
            patience_ms=PATIENCE_MS,
        )

    async def _bring_back(self, scan: _Scan, copies: Copies) -> None:
        """From one partition."""
        scan.begin(progress_of(*await (copies.look() if self._asked.is_dry else copies.begin())))
        copies.arrived = {offset for offset in copies.arrived if not scan.progress.has(offset)}
        if self._asked.is_dry:
            for offset in copies.arrived:
                scan.progress = scan.progress.with_done(offset, offset)
        noted = scan.progress
        while self._left > 0:
            letters = await scan.next_letters(self._gateway, min(self._left, AT_ONCE))
            rows, problem = await self._resolved(letters, copies)
            before = scan.progress
            scan.settle(len(rows), has_problem=bool(problem))
            if not self._asked.is_dry and scan.progress != before:
                self._check_can_be_noted(scan.progress)
                await copies.write(before.noted, self._by_target(rows))
                copies.arrived.difference_update(row.letter.offset for row, _ in rows)
            self.done.rows += [row for row, _ in rows]
            self._left -= len(rows)
            if problem:
                self.done.problems.append(problem)
            if problem or scan.is_at_end:
                break
        if not self._asked.is_dry and scan.progress != noted:
            await copies.finish(scan.progress.noted)

    def _name_missing(self) -> None:
        asked = self._asked
        if asked.records is not None and self.done.is_complete and not self.done.problems:
            for source in sorted(asked.records - {row.letter.source for row in self.done.rows}):
                self.done.problems.append(
                    f"no dead letter of {source} waits in {asked.dead_letters}: it was brought back, or there is none"
                )

    def _check_can_be_noted(self, progress: Progress) -> None:
        """Before there are copies that could not be noted."""
        size, longest = len(progress.metadata), self._gateway.settings.offset_metadata_max_bytes
        if size and size + NOTED_BYTES > longest:
            raise InvalidRequest(
                f"the letters that were brought back one by one take {size + NOTED_BYTES} bytes to remember, and "
                f"offset.metadata.max.bytes is {longest}: bring back all letters of the queue first"
            )

    # --- records --------------------------------------------------------------------------------------------------

    async def _resolved(
        self, letters: Sequence[Letter], copies: Copies
    ) -> tuple[list[tuple[Row, NewRecord | None]], str]:
        """What goes back for each letter, up to the first one that has no way back, and why that has none. Nothing for
        one whose copy has arrived in the turn of a redrive that has died."""
        found: list[tuple[Row, NewRecord | None]] = []
        read: dict[Source, ReadRecord] = {}
        for letter in letters:
            if letter.offset in copies.arrived:
                found.append((Row(letter, REDRIVEN), None))
                continue
            topic = self._gateway.image.topic(letter.source.topic)
            if topic is None or letter.source.partition not in topic.partitions:
                which = f"{letter.source.topic}-{letter.source.partition}"
                place = f"{self._asked.dead_letters}-{letter.partition}@{letter.offset}"
                return found, (
                    f"{which} is not there any more, to which the dead letter {place} goes back: create it again, or "
                    "name the records of other topics"
                )
            if letter.source not in read:
                read = await self._read(topic, letter.source)
            record = _record_of(letter, read.get(letter.source))
            state = GONE if record is None else WAITS if self._asked.is_dry else REDRIVEN
            if record is not None:
                headers = [*record.headers, copies.header(letter.offset)]
                record = NewRecord(record.key, record.value, headers, self._clock.wall_ms())
            found.append((Row(letter, state), record))
        return found, ""

    async def _read(self, topic: TopicImage, source: Source) -> dict[Source, ReadRecord]:
        """The record, and those behind it that come along."""
        where = TopicIdPartition(topic.topic_id, source.partition)
        start, end = self._bounds.get(where, (0, source.offset + 1))
        if not start <= source.offset < end:
            return {}
        try:
            found = await self._gateway.read(where, source.offset, ReadOptions(bytes_max=READ_BYTES))
        except OffsetOutOfRange:
            start = (await self._gateway.list_offset(where, EARLIEST_TIMESTAMP)).offset
            self._bounds[where] = start, (await self._gateway.list_offset(where, LATEST_TIMESTAMP)).offset
            return {}
        return {source._replace(offset=record.offset): record for record in records_of(found, source.offset)}

    def _by_target(
        self, rows: Sequence[tuple[Row, NewRecord | None]]
    ) -> Mapping[TopicIdPartition, Sequence[NewRecord]]:
        by_target: dict[TopicIdPartition, list[NewRecord]] = {}
        for row, record in rows:
            if record is None:
                continue
            topic = self._gateway.image.topic(row.letter.source.topic)
            if topic is None:
                raise InvalidRequest(f"topic {row.letter.source.topic} was deleted meanwhile")
            by_target.setdefault(TopicIdPartition(topic.topic_id, row.letter.source.partition), []).append(record)
        return by_target


class _Scan:
    """Reads one partition of the dead letter topic, from the first letter that is not done."""

    def __init__(self, asked: AskedRedrive, where: TopicIdPartition) -> None:
        self.where = where
        self.progress = Progress()
        self.is_at_end = False
        self._asked = asked
        self._seen: set[Source] = set()
        self._start = self._position = self._end = -1
        self._pending: list[Letter] = []
        """Letters that were read, and not settled."""
        self._open: list[int] = []
        """Offsets of letters that were not asked for."""
        self._read_to = -1

    async def has_letters(self, gateway: Gateway) -> bool:
        """Finds where the partition begins and ends; letters that come later are left to another redrive."""
        self._start = (await gateway.list_offset(self.where, EARLIEST_TIMESTAMP)).offset
        self._end = (await gateway.list_offset(self.where, LATEST_TIMESTAMP, is_read_committed=True)).offset
        return self._start < self._end

    def begin(self, progress: Progress) -> None:
        """With what is done."""
        self._position = max(self._start, progress.offset - LOOK_BACK)
        self._read_to = max(self._start, progress.offset)
        self.progress = progress.with_done(0, self._start - 1)

    async def next_letters(self, gateway: Gateway, count: int) -> Sequence[Letter]:
        """The next ones to be brought back; fewer than `count` at the end of the partition."""
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
