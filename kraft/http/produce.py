"""The way of a produce request's records into their partitions, the same for all dialects and body formats.

    parse      a dialect's parser makes `Parsed` of the body: records, and those that are refused alone
    place      each record gets a partition: its own, that of its key, or one for all that have neither
    pack       what the topic's settings forbid is refused alone; the rest becomes batches of at most max.message.bytes
    send       the request's sender (`kraft.http.batch_sender`) sends batches to the partitions' leaders in their order
    results    each record has one; the dialect renders them

Raw batches are sent as they are, by `send`. A leader takes a batch or refuses it, so one record that it has to
refuse would cost all its neighbours: this is why a node judges records by the topic's settings as well.

Invariant: every record has one result, in the order of its partition, and those that were written stand in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from msgspec import Struct

from kraft.http.batch_sender import Part, Piece
from kraft.http.endpoint import Call
from kraft.http.errors import KAFKA_FATAL, KAFKA_RETRIABLE, UNPROCESSABLE, HttpError, worded
from kraft.http.media import Format
from kraft.http.partitioner import places_of
from kraft.http.produce_params import MIN_ISR, ProduceParams
from kraft.http.records import INLINE_RECORDS_MAX, OutRecord, to_batch
from kraft.protocol.errors import (
    InvalidRecord,
    InvalidTimestamp,
    KafkaError,
    MessageTooLarge,
    NotEnoughReplicas,
    NotEnoughReplicasAfterAppend,
    UnknownTopicOrPartition,
    for_code,
)
from kraft.protocol.primitives import Buffer
from kraft.values import value
from metadata.image import TopicIdPartition, TopicImage
from metadata.settings import TopicSettings
from replication.record_times import TimeRules
from replication.requests import ProduceOutcome

INLINE_BODY_BYTES_MAX = 262_144
"""Largest body that the event loop parses and packs itself; a worker thread takes a larger one."""


class Result(Struct, frozen=True):
    """What became of one record."""

    partition: int
    offset: int
    """-1: the record was not written, or its offset is unknown (acks=0)."""
    outcome: ProduceOutcome
    """The outcome of the batch that has the record."""


P = TypeVar("P", bound="Parsed")


class Parsed(Struct):
    """The records of a body, in its order."""

    records: list[OutRecord]
    refused: Mapping[int, HttpError] = {}
    """What is no record, by its index in the body; `records` has only the others."""


class Packed(Struct):
    """The records of one request for one partition."""

    records: int = 0
    batches: list[Part] = []
    """Each a single batch."""
    refused: dict[int, ProduceOutcome] = {}
    """Records that are in no batch, because they were refused. Key: index among the records."""


class Written(Struct):
    """What became of the records of one partition."""

    packed: Packed
    pieces: Sequence[Piece] = ()

    def results(self) -> Iterator[tuple[int, ProduceOutcome]]:
        """The offset (-1: none) and the outcome of each record, in order."""
        sent, refused = _per_record(self.pieces), self.packed.refused
        if not refused:
            return sent
        return ((-1, refused[n]) if n in refused else next(sent) for n in range(self.packed.records))


class Results(Struct):
    """One Result for each record, in the order of the request."""

    where: Sequence[int]
    """The partition of each record."""
    written: Mapping[int, Written]
    """The results of each partition. Key: partition."""

    def __iter__(self) -> Iterator[Result]:
        results = {number: each.results() for number, each in self.written.items()}
        return (Result(number, *next(results[number])) for number in self.where)

    def single_outcomes(self) -> Mapping[int, ProduceOutcome] | None:
        """The outcome of each partition where that is one for all its records; None where a partition has several.

        Offsets then count up from each `base_offset`, and there is no need to make a Result for each record.
        """
        found: dict[int, ProduceOutcome] = {}
        for number, each in self.written.items():
            if len(each.pieces) != 1 or each.packed.refused:
                return None
            found[number] = each.pieces[0].outcome
        return found

    def outcomes(self) -> Iterator[tuple[int, ProduceOutcome]]:
        """Partition and outcome of each part that was sent."""
        return ((number, piece.outcome) for number, each in self.written.items() for piece in each.pieces)


# --- a request, step by step ------------------------------------------------------------------------------------------


async def produce_body(
    call: Call, params: ProduceParams, topic: TopicImage, parse: Callable[[], P], *, partition: int | None = None
) -> tuple[P, Results]:
    """All steps for the body of `call`. `partition`: that of the path, for all records.

    Many records are parsed, placed and packed by a worker. Raises what `parse` raises, HttpError 422 for a record of
    another partition than the path's and for a key that was used for other records, and KafkaError.
    """
    keyless = params.sender.keyless_partition(len(topic.partitions))
    if _is_much(call, params.form):
        parsed, places = await call.context.record_workers.run(
            _parsed_and_placed, parse, topic, partition, keyless=keyless
        )
    else:
        parsed, places = _parsed_and_placed(parse, topic, partition, keyless=keyless)
    where = call.context.partitioner.settle(topic, places)
    return parsed, await write_records(call, params, topic, parsed.records, where)


def _is_much(call: Call, form: Format) -> bool:
    if len(call.body) > INLINE_BODY_BYTES_MAX:
        return True
    return form is not Format.RECORDS and call.objects > INLINE_RECORDS_MAX


def _parsed_and_placed(
    parse: Callable[[], P], topic: TopicImage, partition: int | None, *, keyless: int
) -> tuple[P, list[int]]:
    parsed = parse()
    return parsed, place(topic, parsed.records, partition, keyless=keyless)


def place(topic: TopicImage, records: Sequence[OutRecord], partition: int | None, *, keyless: int) -> list[int]:
    """The partition of each record: of the path, its own, by its key, or `keyless`. Pure."""
    if partition is None:
        return places_of(topic, records, keyless=keyless)
    others = {record.partition for record in records} - {None, partition}
    if others:
        raise HttpError(UNPROCESSABLE, f"a record names partition {others.pop()}, the path names {partition}")
    return [partition] * len(records)


async def write_records(
    call: Call, params: ProduceParams, topic: TopicImage, records: list[OutRecord], where: Sequence[int]
) -> Results:
    """`where`: the partition of each record. Raises KafkaError, and HttpError 422 for a key used for other records."""
    call.context.metrics.produced_records.inc(len(records))
    settings, now_ms = call.context.gateway.topic_settings(topic.name), call.context.clock.wall_ms()
    is_repeatable = params.sender.is_repeatable
    if len(records) > INLINE_RECORDS_MAX:
        written = await call.context.record_workers.run(
            _all_packed, records, where, topic, settings, now_ms=now_ms, is_repeatable=is_repeatable
        )
    else:
        written = _all_packed(records, where, topic, settings, now_ms=now_ms, is_repeatable=is_repeatable)
    batches = {
        TopicIdPartition(topic.topic_id, number): each.packed.batches
        for number, each in written.items()
        if each.packed.batches
    }
    pieces = await params.sender.send(partial(_send, call, params), batches, topic=topic.name, settings=settings)
    for which, done in pieces.items():
        written[which.partition].pieces = done
    return Results(where, written)


def _by_partition(records: list[OutRecord], where: Sequence[int]) -> Mapping[int, list[OutRecord]]:
    groups: dict[int, list[OutRecord]] = {}
    if len(set(where)) == 1:
        return {where[0]: records}
    for record, number in zip(records, where, strict=True):
        groups.setdefault(number, []).append(record)
    return groups


async def write_batches(call: Call, params: ProduceParams, topic: TopicImage, partition: int) -> Sequence[Piece]:
    """The body as it came, one RecordBatch v2 or several: its leader validates it (CRC, counts, offsets).

    One piece for each part that the request's sender makes of it. Raises KafkaError, HttpError 422 for a body that is
    empty, or whose batches speak for a key of their own making, and HttpError 413 for more batches than a
    transaction's request may have.
    """
    if not call.body:
        raise HttpError(UNPROCESSABLE, "the body is empty; send one or more RecordBatch v2")
    sender, which = params.sender, TopicIdPartition(topic.topic_id, partition)
    batches, settings = {which: sender.raw_parts(call.body)}, call.context.gateway.topic_settings(topic.name)
    pieces = await sender.send(partial(_send, call, params), batches, topic=topic.name, settings=settings)
    return pieces[which]


# --- packing: pure ----------------------------------------------------------------------------------------------------


def _all_packed(
    records: list[OutRecord],
    where: Sequence[int],
    topic: TopicImage,
    settings: TopicSettings,
    *,
    now_ms: int,
    is_repeatable: bool,
) -> dict[int, Written]:
    written: dict[int, Written] = {}
    for number, group in _by_partition(records, where).items():
        if number in topic.partitions:
            written[number] = Written(pack(group, settings, now_ms=now_ms, is_repeatable=is_repeatable))
        else:
            written[number] = Written(Packed(len(group)), [Piece(len(group), _no_such_partition(topic, number))])
    return written


def pack(records: Sequence[OutRecord], settings: TopicSettings, *, now_ms: int, is_repeatable: bool = False) -> Packed:
    """Batches of at most max.message.bytes, as few as halving finds, and what no batch may hold.

    `is_repeatable`: a repetition has to make the same batches. So nothing is left out that might not be left out later:
    of timestamps the leader judges, and refuses what is with them.
    """
    packed = Packed(len(records), refused=_forbidden(records, settings, now_ms=None if is_repeatable else now_ms))
    indexes: Sequence[int] = range(len(records))
    if packed.refused:
        indexes = [index for index in indexes if index not in packed.refused]
        records = [records[index] for index in indexes]
    if records:
        _batch(packed, records, indexes, limit=min(settings.max_message_bytes, settings.segment_size))
    return packed


def _forbidden(
    records: Sequence[OutRecord], settings: TopicSettings, *, now_ms: int | None
) -> dict[int, ProduceOutcome]:
    """Records that the leader (replication.log_validator) would refuse, one by one instead of the whole batch."""
    refused: dict[int, ProduceOutcome] = {}
    rules = TimeRules.of(settings)
    if rules is not None and now_ms is not None:
        problems = ((index, rules.problem_of(record.headers, now_ms)) for index, record in enumerate(records))
        refused = {index: _refusal(InvalidRecord(problem)) for index, problem in problems if problem}
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
        packed.batches.append(Part(len(records), batch))
    elif len(records) == 1:
        message = f"the record makes a batch of {len(batch)} bytes; the topic's max.message.bytes is {limit}"
        packed.refused[indexes[0]] = _refusal(MessageTooLarge(message))
    else:
        middle = len(records) // 2
        _batch(packed, records[:middle], indexes[:middle], limit=limit)
        _batch(packed, records[middle:], indexes[middle:], limit=limit)


# --- sending ----------------------------------------------------------------------------------------------------------


async def _send(
    call: Call, params: ProduceParams, parts: Mapping[TopicIdPartition, Buffer]
) -> Mapping[TopicIdPartition, ProduceOutcome]:
    """With the acks, the timeout and the least ISR that the request asks for."""
    gateway, options = call.context.gateway, params.options
    if not params.min_isr:
        call.context.metrics.produced_bytes.inc(sum(map(len, parts.values())))
        return await gateway.produce(parts, options)
    too_few = {which: outcome for which in parts if (outcome := _too_few(call, params.min_isr, which)) is not None}
    going = {which: data for which, data in parts.items() if which not in too_few}
    call.context.metrics.produced_bytes.inc(sum(map(len, going.values())))
    if not going:
        return too_few
    outcomes = await gateway.produce(going, options)
    return too_few | {which: _checked(outcome, params.min_isr) for which, outcome in outcomes.items()}


def _too_few(call: Call, wanted: int, which: TopicIdPartition) -> ProduceOutcome | None:
    """The error when this node's metadata has too small an ISR; `_checked` looks at the ISR of the answer."""
    topic = call.context.gateway.image.topics.get(which.topic_id)
    partition = None if topic is None else topic.partitions.get(which.partition)
    if partition is None or len(partition.isr) >= wanted:
        return None
    return ProduceOutcome(
        error_code=NotEnoughReplicas.code,
        message=f"the ISR is {list(partition.isr)}; the request asks for {MIN_ISR.name}={wanted}; nothing was written",
        leader_id=partition.leader,
        leader_epoch=partition.leader_epoch,
        isr=tuple(partition.isr),
        min_isr=wanted,
    )


def _checked(outcome: ProduceOutcome, wanted: int) -> ProduceOutcome:
    if outcome.error_code or len(outcome.isr) >= wanted:
        return outcome
    return replace(
        outcome,
        error_code=NotEnoughReplicasAfterAppend.code,
        message=f"written, and the ISR is {list(outcome.isr)}; the request asks for {MIN_ISR.name}={wanted}",
        min_isr=wanted,
    )


# --- results ----------------------------------------------------------------------------------------------------------


def _per_record(pieces: Sequence[Piece]) -> Iterator[tuple[int, ProduceOutcome]]:
    for piece in pieces:
        outcome = piece.outcome
        for index in range(piece.records):
            has_offset = outcome.base_offset >= 0 and not outcome.error_code
            yield outcome.base_offset + index if has_offset else -1, outcome


@value()
class NotWritten:
    """Why a record was not written, as REST has it."""

    code: int
    """50003 where Kafka's producer would send it again, else 50002."""
    message: str
    retriable: bool
    """Can sending it again help? Not where there is no such partition, though Kafka's producer tries it for a while."""


def error_of(outcome: ProduceOutcome) -> NotWritten:
    """The fields of an entry for an outcome that is an error."""
    error = for_code(outcome.error_code, outcome.message)
    can_help = error.retriable and outcome.error_code != UnknownTopicOrPartition.code
    return NotWritten(KAFKA_RETRIABLE if error.retriable else KAFKA_FATAL, worded(error), can_help)


def _no_such_partition(topic: TopicImage, number: int) -> ProduceOutcome:
    return _refusal(
        UnknownTopicOrPartition(
            f"topic {topic.name!r} has no partition {number}; it has {len(topic.partitions)}, from 0"
        )
    )


def _refusal(error: KafkaError) -> ProduceOutcome:
    return ProduceOutcome(error_code=error.code, message=error.message)
