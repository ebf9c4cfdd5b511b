"""v2 produce: records, or raw batches, and an answer with an entry for each record, in request order.

The status is 200 also where records were not written (the v2 dialect's way); with acks=0 nobody knows where they are,
and the answer is 202 without entries, or 204 for Strimzi's `async=true`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from kraft.http.batch_sender import BatchSender, Piece
from kraft.http.dialects import Dialect
from kraft.http.endpoint import Body, Call, Route
from kraft.http.errors import KAFKA_RETRIABLE, HttpError
from kraft.http.extension_fields import STRUCT_ADDITION
from kraft.http.idempotency import HEADERS
from kraft.http.media import Format, produce_format, v2_answer
from kraft.http.produce import Parsed, Result, Results, error_of, produce_body, write_batches
from kraft.http.produce_params import ASYNC, PARAMETERS, ProduceParams, read_params
from kraft.http.raw_records import decode_records
from kraft.http.record_counts import TOO_LARGE, check_counts
from kraft.http.transactional import InTransaction
from kraft.http.v2.record_bodies import BinaryProduce, JsonProduce, TextProduce, parse_produce
from kraft.protocol.acks import ACKS_NONE
from kraft.protocol.errors import NotEnoughReplicas, NotEnoughReplicasAfterAppend, UnknownTopicOrPartition
from kraft.protocol.media_types import RECORD_BATCH, RECORDS, V2_JSON
from replication.requests import ProduceOutcome

_ISR_TOO_SMALL = (NotEnoughReplicas.code, NotEnoughReplicasAfterAppend.code)
_Number: TypeAlias = Annotated[int | UnsetType, STRUCT_ADDITION]


class WrittenOffset(Struct, gc=False):
    """The entry of a record that was written, or whose offset nobody knows: the first fields of ProducedOffset."""

    partition: int
    offset: int | None
    error_code: None = None
    error: None = None


class ProducedOffset(Struct):
    """What became of one record. The fields after `error` are there only when it failed."""

    partition: int | None
    """None: no topic, and the record names none."""
    offset: int | None
    error_code: Annotated[int | None, Meta(description="50002: fatal, 50003: retriable; null when it was written.")]
    error: str | None
    last_offset: Annotated[
        int | UnsetType | None, Meta(description="Of raw batches, which have one entry for all."), STRUCT_ADDITION
    ] = UNSET
    kafka_code: _Number = UNSET
    retriable: Annotated[bool | UnsetType, STRUCT_ADDITION] = UNSET
    is_appended: Annotated[
        bool | UnsetType, Meta(description="The record is in the leader's log and may survive."), STRUCT_ADDITION
    ] = UNSET
    isr: Annotated[list[int] | UnsetType, STRUCT_ADDITION] = UNSET
    min_isr: _Number = UNSET
    leader: _Number = UNSET
    leader_epoch: _Number = UNSET


class WrittenPartition(Struct):
    """The leader that appended the records; an addition of ours."""

    partition: int
    leader: int
    leader_epoch: int
    isr: Annotated[
        list[int], Meta(description="The replicas that had the records, or had to, when they were acknowledged.")
    ]


class ProduceAnswer(Struct):
    """One entry for each record, in request order."""

    offsets: list[ProducedOffset]
    partitions: Annotated[list[WrittenPartition], STRUCT_ADDITION]
    key_schema_id: int | None = None
    value_schema_id: int | None = None


class AcceptedAnswer(Struct):
    """The answer with acks=0: the request was taken, and no result will be known."""

    offsets: Annotated[list[Any], Meta(max_length=0)] = []
    key_schema_id: int | None = None
    value_schema_id: int | None = None
    partitions: Annotated[list[Any], Meta(max_length=0), STRUCT_ADDITION] = []


Entry: TypeAlias = WrittenOffset | ProducedOffset
_encode = msgspec.json.Encoder().encode


def produce_to_topic(call: Call, params: ProduceParams) -> Awaitable[web.Response]:
    """200 with one entry for each record: partition and offset, or an error; 202 for acks=0. Raises HttpError 40401,
    413, 422."""
    return _produce(call, params, None)


def produce_to_partition(call: Call, params: ProduceParams) -> Awaitable[web.Response]:
    """The same for one partition; a RecordBatch v2 goes into the log as it is. Raises HttpError 40402 besides."""
    return _produce(call, params, call.partition)


class Done(Struct, frozen=True):
    """The results of a produce request."""

    entries: Sequence[Entry]
    pieces: Mapping[int, Sequence[Piece]]
    """The parts that were sent to each partition."""

    def outcomes(self) -> Iterator[tuple[int, ProduceOutcome]]:
        """Partition and outcome of each part that was sent."""
        return ((number, piece.outcome) for number, pieces in self.pieces.items() for piece in pieces)


async def _produce(call: Call, params: ProduceParams, partition: int | None) -> web.Response:
    return answer(params, await write(call, params, partition))


async def write(call: Call, params: ProduceParams, partition: int | None) -> Done:
    """The records of a body. Raises KafkaError, HttpError."""
    context = call.context
    try:
        topic = await context.topic_or_create(call.topic)
        if partition is not None:
            context.partition_or_raise(topic, partition)
    except (UnknownTopicOrPartition, HttpError) as error:
        if context.dialect.refuses_unknown_produce or isinstance(params.sender, InTransaction):
            raise
        return _nowhere(call, params, partition, error.message)
    if params.form is Format.RECORD_BATCH:
        assert partition is not None
        pieces = await write_batches(call, params, topic, partition)
        raw = [_raw_entry(partition, piece) for piece in pieces]
        return Done(_in_dialect(context.dialect, raw), {partition: pieces})
    _, results = await produce_body(call, params, topic, partial(_parse, call, params), partition=partition)
    pieces_of = {number: each.pieces for number, each in results.written.items()}
    return Done(_in_dialect(context.dialect, entries(results)), pieces_of)


def _in_dialect(dialect: Dialect, made: Sequence[Entry]) -> Sequence[Entry]:
    """The entries, in which records for partitions that do not exist have the dialect's code and offset."""
    if dialect.unknown_produce != KAFKA_RETRIABLE:
        for entry in made:
            if isinstance(entry, ProducedOffset) and entry.kafka_code == UnknownTopicOrPartition.code:
                entry.error_code, entry.offset = dialect.unknown_produce, dialect.unwritten_offset
    return made


def _nowhere(call: Call, params: ProduceParams, partition: int | None, message: str) -> Done:
    """An error for each record of a body whose topic or partition does not exist."""
    if params.form is Format.RECORD_BATCH:
        places = [partition]
    else:
        places = [
            partition if record.partition is None else record.partition for record in _parse(call, params).records
        ]
    dialect = call.context.dialect
    entry = partial(
        ProducedOffset,
        offset=dialect.unwritten_offset,
        error_code=dialect.unknown_produce,
        error=message,
        kafka_code=UnknownTopicOrPartition.code,
        retriable=False,
        is_appended=False,
    )
    return Done([entry(place) for place in places], {})


def _parse(call: Call, params: ProduceParams) -> Parsed:
    """All or nothing: what is wrong with one record is wrong with the body."""
    body, limits, now_ms = call.body, call.context.limits, call.context.clock.wall_ms()
    items_max, headers_max = limits.produce_records_max, limits.produce_headers_max
    if params.form is Format.RECORDS:
        return Parsed(decode_records(bytes(body), now_ms=now_ms, records_max=items_max, headers_max=headers_max))
    check_counts(body, "records", objects=call.objects, items_max=items_max, headers_max=headers_max, code=TOO_LARGE)
    return Parsed(parse_produce(body, params.form, now_ms=now_ms))


# --- the answer -------------------------------------------------------------------------------------------------------


def answer(params: ProduceParams, done: Done) -> web.Response:
    """200 with what became of each record; for acks=0, where nobody knows, 202, or 204 for an asynchronous request."""
    offsets = done.entries
    headers = {"Content-Type": params.answer_type}
    if params.options.acks == ACKS_NONE and not any(entry.error_code for entry in offsets):
        if params.is_async:
            return web.Response(status=204)
        return web.Response(status=202, body=_encode(AcceptedAnswer()), headers=headers)
    written = leaders(done.pieces)
    document = {"offsets": offsets, "key_schema_id": None, "value_schema_id": None, "partitions": written}
    return web.Response(body=_encode(document), headers=headers)


def entries(results: Results) -> Sequence[Entry]:
    """One for each record, in request order."""
    outcomes = results.single_outcomes()
    return [_entry(each) for each in results] if outcomes is None else _counted(results.where, outcomes)


def _counted(where: Sequence[int], outcomes: Mapping[int, ProduceOutcome]) -> Sequence[Entry]:
    """The same, faster, where offsets of a partition count up from one base offset."""
    if len(outcomes) == 1:
        ((number, outcome),) = outcomes.items()
        first = outcome.base_offset
        if not _has_offset(outcome):
            return [_other(number, outcome)] * len(where)
        return [WrittenOffset(number, offset) for offset in range(first, first + len(where))]
    next_offset = {number: outcome.base_offset for number, outcome in outcomes.items() if _has_offset(outcome)}
    others = {number: _other(number, outcome) for number, outcome in outcomes.items() if number not in next_offset}
    made: list[Entry] = []
    for number in where:
        offset = next_offset.get(number)
        if offset is None:
            made.append(others[number])
            continue
        next_offset[number] = offset + 1
        made.append(WrittenOffset(number, offset))
    return made


def _has_offset(outcome: ProduceOutcome) -> bool:
    return not outcome.error_code and outcome.base_offset >= 0


def _other(partition: int, outcome: ProduceOutcome) -> Entry:
    """The entry of a record that was not written, or whose offset is unknown (acks=0)."""
    return _failed(partition, outcome) if outcome.error_code else WrittenOffset(partition, None)


def _entry(result: Result) -> Entry:
    if result.offset < 0:
        return _other(result.partition, result.outcome)
    return WrittenOffset(result.partition, result.offset)


def _raw_entry(partition: int, piece: Piece) -> ProducedOffset:
    outcome = piece.outcome
    if outcome.error_code:
        entry = _failed(partition, outcome)
        entry.last_offset = None
        return entry
    first = outcome.base_offset if outcome.base_offset >= 0 else None
    return ProducedOffset(partition, first, None, None, last_offset=outcome.last_offset)


def _failed(partition: int, outcome: ProduceOutcome) -> ProducedOffset:
    why = error_of(outcome)
    entry = ProducedOffset(
        partition,
        None,
        why.code,
        why.message,
        kafka_code=outcome.error_code,
        retriable=why.retriable,
        is_appended=outcome.is_appended,
    )
    if outcome.error_code in _ISR_TOO_SMALL:
        entry.isr, entry.min_isr = list(outcome.isr), outcome.min_isr
        entry.leader, entry.leader_epoch = outcome.leader_id, outcome.leader_epoch
    return entry


def leaders(pieces: Mapping[int, Sequence[Piece]]) -> list[WrittenPartition]:
    """Leader, leader epoch and ISR of each partition that was written to; none where the leader is unknown."""
    written: list[WrittenPartition] = []
    for number in sorted(pieces):
        known = [piece.outcome for piece in pieces[number] if piece.outcome.leader_id >= 0]
        if known:
            last = known[-1]
            written.append(WrittenPartition(number, last.leader_id, last.leader_epoch, list(last.isr)))
    return written


# --- routes -----------------------------------------------------------------------------------------------------------


def check(call: Call, *, sender: BatchSender | None = None) -> ProduceParams:
    """Everything that can be refused before the body is read."""
    form = produce_format(call.request.headers.get("Content-Type"))
    params = read_params(call, form=form, answer_type=v2_answer(call.accept), sender=sender)
    if form is Format.RECORD_BATCH and "partition" not in call.path:
        raise HttpError(415, f"{RECORD_BATCH} is for one partition: POST it to /topics/{call.topic}/partitions/N")
    return params


EMBEDDED = {
    Format.BINARY.media_type: BinaryProduce,
    Format.JSON.media_type: JsonProduce,
    Format.TEXT.media_type: TextProduce,
    RECORDS: None,
}
_ANSWERS = {
    200: Body(content={V2_JSON: ProduceAnswer}, description="One entry per record, failed ones included."),
    202: Body(content={V2_JSON: AcceptedAnswer}, description="acks=0: taken, without offsets."),
    204: None,
}
_QUERY = (*PARAMETERS, ASYNC)
ERRORS = (400, 40002, 40401, 406, 413, 415, 422, 50302)

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST", path="/topics/{topic}", handler=produce_to_topic, check=check, tag="v2",
        summary="Write records to the partitions of a topic.", query=_QUERY, headers=HEADERS,
        body=Body(content=EMBEDDED), answers=_ANSWERS, errors=ERRORS,
    ),
    Route(
        method="POST", path="/topics/{topic}/partitions/{partition}", handler=produce_to_partition, check=check,
        tag="v2", summary="Write records, or a RecordBatch v2 as it is, to one partition.",
        query=_QUERY, headers=HEADERS, body=Body(content={**EMBEDDED, RECORD_BATCH: None}),
        answers=_ANSWERS, errors=(*ERRORS, 40402),
    ),
)  # fmt: skip
