"""Records on their way into partitions: judged one by one, made into batches, sent, and each told its own result.

A leader takes a batch or refuses it, so one record that it has to refuse would cost all its neighbours. This door knows
the topic's settings as well: what they forbid is refused here, alone, and the rest goes on without it.

Invariant: every record has one result, in the order of its partition, and those that were written stand in that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from kraft.http.endpoint import Call
from kraft.http.idempotency import IdempotencyKey
from kraft.http.keyed_produce import Piece, not_sent, per_record, produce_keyed
from kraft.http.produce_params import produce
from kraft.http.records import INLINE_RECORDS_MAX, OutRecord, to_batch
from kraft.protocol.errors import InvalidRecord, InvalidTimestamp, KafkaError, MessageTooLarge, UnknownTopicOrPartition
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition, TopicImage
from metadata.settings import TopicSettings
from replication.requests import ProduceOutcome

SET_BYTES_MAX = 33_554_432
"""Of the batches that are sent to one partition at once; segment.bytes may say less."""


@dataclass(slots=True)
class Packed:
    """The records of one request for one partition."""

    records: int = 0
    batches: list[tuple[int, Buffer]] = field(default_factory=list)
    """Number of records, and the batch that holds them."""
    refused: dict[int, ProduceOutcome] = field(default_factory=dict)
    """By index among the records: what is in no batch."""


@dataclass(slots=True)
class Written:
    """What became of the records of one partition."""

    packed: Packed
    pieces: Sequence[Piece] = ()

    def results(self) -> Iterator[tuple[int, ProduceOutcome]]:
        """The offset (-1: none) and the outcome of each record, in order."""
        sent, refused = per_record(self.pieces), self.packed.refused
        if not refused:
            return sent
        return ((-1, refused[n]) if n in refused else next(sent) for n in range(self.packed.records))

    @property
    def is_one_batch(self) -> bool:
        return len(self.pieces) == 1 and not self.packed.refused


async def write(
    call: Call, topic: TopicImage, groups: Mapping[int, list[OutRecord]], key: IdempotencyKey | None = None
) -> Mapping[int, Written]:
    """Records by partition, with the `acks` and the `timeout` of the request. Raises KafkaError, HttpError."""
    call.context.metrics.produced_records.inc(sum(map(len, groups.values())))
    settings, now_ms = call.context.gateway.topic_settings(topic.name), call.context.clock.wall_ms()

    def pack_all() -> dict[int, Written]:
        return {
            number: Written(pack(group, settings, now_ms=now_ms, is_keyed=key is not None))
            if number in topic.partitions
            else Written(Packed(len(group)), [Piece(len(group), _no_such_partition(topic, number))])
            for number, group in groups.items()
        }

    is_much = sum(map(len, groups.values())) > INLINE_RECORDS_MAX
    written = await call.context.large_work.run(pack_all) if is_much else pack_all()
    sets = {
        TopicIdPartition(topic.topic_id, number): record_sets(each.packed.batches, settings)
        for number, each in written.items()
        if each.packed.batches
    }
    if key is None:
        pieces = await _send(call, sets)
    else:
        whole = {which: b"".join(data for _, data in parts) for which, parts in sets.items()}
        pieces = await produce_keyed(partial(produce, call), whole, key=key, topic=topic.name)
    for which, done in pieces.items():
        written[which.partition].pieces = done
    return written


def pack(records: Sequence[OutRecord], settings: TopicSettings, *, now_ms: int, is_keyed: bool = False) -> Packed:
    """Batches of at most max.message.bytes, as few as halving finds, and what no batch may hold.

    `is_keyed`: a repetition has to make the same batches. So nothing is left out that might not be left out later: of
    timestamps the leader judges, and refuses what is with them.
    """
    packed = Packed(len(records), refused=_forbidden(records, settings, now_ms=None if is_keyed else now_ms))
    indexes: Sequence[int] = range(len(records))
    if packed.refused:
        indexes = [index for index in indexes if index not in packed.refused]
        records = [records[index] for index in indexes]
    if records:
        _batch(packed, records, indexes, limit=min(settings.max_message_bytes, settings.segment_bytes))
    return packed


def _forbidden(
    records: Sequence[OutRecord], settings: TopicSettings, *, now_ms: int | None
) -> dict[int, ProduceOutcome]:
    """As the leader would (replication.log_validator), but record by record."""
    refused: dict[int, ProduceOutcome] = {}
    if now_ms is not None and settings.message_timestamp_type == "CreateTime":
        earliest = now_ms - settings.message_timestamp_before_max_ms
        latest = now_ms + settings.message_timestamp_after_max_ms
        times = [record.timestamp_ms for record in records]
        if times and not (earliest <= min(times) and max(times) <= latest):
            for index, timestamp_ms in enumerate(times):
                if not earliest <= timestamp_ms <= latest:
                    refused[index] = _refusal(_bad_time(timestamp_ms, now_ms=now_ms, settings=settings))
    if "compact" in settings.cleanup_policy:
        needs_key = _refusal(InvalidRecord("a record without a key cannot be in a compacted topic; give it a key"))
        refused |= {index: needs_key for index, record in enumerate(records) if record.key is None}
    return refused


def _bad_time(timestamp_ms: int, *, now_ms: int, settings: TopicSettings) -> KafkaError:
    ahead_ms = timestamp_ms - now_ms
    if ahead_ms > 0:
        limit = f"message.timestamp.after.max.ms is {settings.message_timestamp_after_max_ms}"
        return InvalidTimestamp(f"timestamp {timestamp_ms} is {ahead_ms} ms ahead; {limit}")
    limit = f"message.timestamp.before.max.ms is {settings.message_timestamp_before_max_ms}"
    return InvalidTimestamp(f"timestamp {timestamp_ms} is {-ahead_ms} ms old; {limit}")


def _batch(packed: Packed, records: Sequence[OutRecord], indexes: Sequence[int], *, limit: int) -> None:
    batch = to_batch(records)
    if len(batch) <= limit:
        packed.batches.append((len(records), batch))
    elif len(records) == 1:
        message = f"the record makes a batch of {len(batch)} bytes; the topic's max.message.bytes is {limit}"
        packed.refused[indexes[0]] = _refusal(MessageTooLarge(message))
    else:
        middle = len(records) // 2
        _batch(packed, records[:middle], indexes[:middle], limit=limit)
        _batch(packed, records[middle:], indexes[middle:], limit=limit)


def record_sets(batches: Sequence[tuple[int, Buffer]], settings: TopicSettings) -> list[tuple[int, Buffer]]:
    """Batches put together that a leader appends at once: what does not fit a segment goes after the others."""
    limit = min(settings.segment_bytes, SET_BYTES_MAX)
    sets: list[list[tuple[int, Buffer]]] = []
    size = limit + 1
    for batch in batches:
        if size + len(batch[1]) > limit:
            sets.append([])
            size = 0
        sets[-1].append(batch)
        size += len(batch[1])
    return [each[0] if len(each) == 1 else _joined(each) for each in sets]


def _joined(batches: Sequence[tuple[int, Buffer]]) -> tuple[int, Buffer]:
    return sum(records for records, _ in batches), b"".join(data for _, data in batches)


async def _send(
    call: Call, sets: Mapping[TopicIdPartition, Sequence[tuple[int, Buffer]]]
) -> Mapping[TopicIdPartition, Sequence[Piece]]:
    """A partition's next set when its last one is in the log; after one that failed none, so that the order stays."""
    pieces: dict[TopicIdPartition, list[Piece]] = {which: [] for which in sets}
    for number in range(max(map(len, sets.values()), default=0)):
        going = {
            which: parts[number][1]
            for which, parts in sets.items()
            if number < len(parts) and not (number and pieces[which][-1].outcome.error_code)
        }
        if not going:
            break
        outcomes = await produce(call, going)
        for which in going:
            pieces[which].append(Piece(sets[which][number][0], outcomes[which]))
    for which, parts in sets.items():
        done = pieces[which]
        done += [Piece(records, not_sent(done[-1])) for records, _ in parts[len(done) :]]
    return pieces


def _no_such_partition(topic: TopicImage, number: int) -> ProduceOutcome:
    return _refusal(
        UnknownTopicOrPartition(
            f"topic {topic.name!r} has no partition {number}; it has {len(topic.partitions)}, from 0"
        )
    )


def _refusal(error: KafkaError) -> ProduceOutcome:
    return ProduceOutcome(error_code=error.code, message=error.message)
