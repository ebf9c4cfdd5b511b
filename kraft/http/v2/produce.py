"""v2 produce: a body becomes one batch per partition, one gateway call, one answer with an entry per record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from kraft.http import query
from kraft.http.counting import TOO_LARGE, check_counts
from kraft.http.endpoint import Body, Call, Route
from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.idempotency import (
    HEADERS,
    IdempotencyKey,
    check_idempotency_key,
    idempotency_key,
    refuse_reserved_ids,
)
from kraft.http.keyed_produce import produce_keyed
from kraft.http.media import Format, produce_format, v2_answer
from kraft.http.partitioner import UNPLACED, places_of
from kraft.http.produce_params import WISHES, check_wishes, leaders, produce
from kraft.http.raw import decode_records
from kraft.http.records import INLINE_BYTES_MAX, INLINE_RECORDS_MAX, OutRecord
from kraft.http.v2 import models
from kraft.http.v2.outcomes import document, failed, written
from kraft.http.v2.parse import parse_produce
from kraft.http.writing import Written, write
from kraft.protocol.media_types import RECORD_BATCH, RECORDS, V2_JSON
from metadata.image import TopicIdPartition, TopicImage
from replication.requests import ProduceOutcome

NO_ACKS = 0


async def produce_to_topic(call: Call) -> web.Response:
    return await _produce(call, None)


async def produce_to_partition(call: Call) -> web.Response:
    return await _produce(call, call.partition)


async def _produce(call: Call, partition: int | None) -> web.Response:
    context = call.context
    form = produce_format(call.request.headers.get("Content-Type"))
    topic = await context.topic_or_create(call.topic)
    if partition is not None:
        context.partition_or_raise(topic, partition)
    if form is Format.RECORD_BATCH:
        assert partition is not None
        return await _produce_raw(call, topic, TopicIdPartition(topic.topic_id, partition))
    records, where = await _parsed(call, topic, form, partition)
    return await _produce_records(call, topic, records, context.partitioner.settle(topic, where))


async def _parsed(
    call: Call, topic: TopicImage, form: Format, partition: int | None
) -> tuple[list[OutRecord], list[int]]:
    """The records and where each of them goes, by a worker if they are many or large."""
    body, limits, now_ms = call.body, call.context.limits, call.context.clock.wall_ms()
    key = idempotency_key(call)
    keyless = UNPLACED if key is None else key.partition(len(topic.partitions))

    def parse() -> tuple[list[OutRecord], list[int]]:
        if form is Format.RECORDS:
            records = decode_records(
                bytes(body),
                now_ms=now_ms,
                records_max=limits.produce_records_max,
                headers_max=limits.produce_headers_max,
            )
        else:
            check_counts(
                body,
                "records",
                items_max=limits.produce_records_max,
                headers_max=limits.produce_headers_max,
                code=TOO_LARGE,
            )
            records = parse_produce(body, form, now_ms=now_ms)
        return records, place(topic, records, partition, keyless=keyless)

    if len(body) <= INLINE_BYTES_MAX and (form is Format.RECORDS or body.count(b"{") <= INLINE_RECORDS_MAX):
        return parse()
    return await call.context.large_work.run(parse)


async def _produce_raw(call: Call, topic: TopicImage, where: TopicIdPartition) -> web.Response:
    """The bytes go to the leader as they came; it validates them (CRC, counts, offsets)."""
    if not call.body:
        raise HttpError(UNPROCESSABLE, "the body is empty; send one or more RecordBatch v2")
    key = idempotency_key(call)
    if key is not None:
        return await _produce_raw_keyed(call, topic, where, key)
    refuse_reserved_ids(call.body)
    outcome = (await produce(call, {where: call.body}))[where]
    return _answer(call, [_raw_entry(where.partition, outcome)], [(where.partition, outcome)])


async def _produce_raw_keyed(
    call: Call, topic: TopicImage, where: TopicIdPartition, key: IdempotencyKey
) -> web.Response:
    """With several batches an entry for each: other requests' records may stand between them."""
    pieces = (await produce_keyed(partial(produce, call), {where: call.body}, key=key, topic=topic.name))[where]
    entries = [_raw_entry(where.partition, piece.outcome) for piece in pieces]
    return _answer(call, entries, [(where.partition, piece.outcome) for piece in pieces])


def _raw_entry(partition: int, outcome: ProduceOutcome) -> dict[str, Any]:
    if outcome.error_code:
        return failed(partition, outcome) | {"last_offset": None}
    return written(partition, outcome.base_offset) | {"last_offset": outcome.last_offset}


async def _produce_records(call: Call, topic: TopicImage, records: list[OutRecord], where: list[int]) -> web.Response:
    done = await write(call, topic, _group(records, where), idempotency_key(call))
    last = [(number, each.pieces[-1].outcome) for number, each in done.items() if each.pieces]
    return _answer(call, entries(where, done), last)


def place(topic: TopicImage, records: Sequence[OutRecord], partition: int | None, *, keyless: int) -> list[int]:
    """The partition of each record: of the path, its own, by its key, by the request's, or UNPLACED. Pure."""
    if partition is not None:
        wrong = next((r.partition for r in records if r.partition not in (None, partition)), None)
        if wrong is not None:
            raise HttpError(UNPROCESSABLE, f"a record names partition {wrong}, the path names {partition}")
        return [partition] * len(records)
    return places_of(topic, records, keyless=keyless)


def _group(records: list[OutRecord], where: list[int]) -> dict[int, list[OutRecord]]:
    first = where[0]
    if where.count(first) == len(where):
        return {first: records}
    groups: dict[int, list[OutRecord]] = {}
    for record, number in zip(records, where, strict=True):
        groups.setdefault(number, []).append(record)
    return groups


def entries(where: list[int], done: Mapping[int, Written]) -> list[dict[str, Any]]:
    """One entry per record, in request order."""
    if all(each.is_one_batch for each in done.values()):
        return _counted(where, {number: each.pieces[0].outcome for number, each in done.items()})
    results = {number: each.results() for number, each in done.items()}
    told = ((number, *next(results[number])) for number in where)
    return [
        failed(number, outcome) if outcome.error_code else written(number, offset) for number, offset, outcome in told
    ]


def _counted(where: list[int], outcomes: Mapping[int, ProduceOutcome]) -> list[dict[str, Any]]:
    """The same, faster, where offsets of a partition count up from one base offset."""
    result: list[dict[str, Any]] = []
    next_offset = {number: outcome.base_offset for number, outcome in outcomes.items() if not outcome.error_code}
    failures = {number: failed(number, outcome) for number, outcome in outcomes.items() if outcome.error_code}
    for number in where:
        offset = next_offset.get(number)
        if offset is None:
            result.append(failures[number])
            continue
        next_offset[number] = offset + 1
        result.append({"partition": number, "offset": offset, "error_code": None, "error": None})
    return result


def _answer(call: Call, offsets: list[dict[str, Any]], outcomes: Iterable[tuple[int, ProduceOutcome]]) -> web.Response:
    content_type = v2_answer(call.accept)
    status = 200
    if query.acks_of(call) == NO_ACKS and not any(entry["error_code"] for entry in offsets):
        if query.flag(call, query.ASYNC.name):
            return web.Response(status=204)
        status, offsets, outcomes = 202, [], ()
    body = orjson.dumps(document(offsets, leaders(outcomes)))
    return web.Response(status=status, body=body, headers={"Content-Type": content_type})


def _check(call: Call) -> None:
    """Everything that can be refused before the body is read."""
    headers = call.request.headers
    form = produce_format(headers.get("Content-Type"))
    v2_answer(call.accept)
    check_wishes(call)
    check_idempotency_key(call)
    if form is Format.RECORD_BATCH and "partition" not in call.path:
        raise HttpError(415, f"{RECORD_BATCH} is for one partition: POST it to /topics/{call.topic}/partitions/N")


_EMBEDDED = {
    Format.BINARY.media_type: models.BinaryProduce,
    Format.JSON.media_type: models.JsonProduce,
    Format.TEXT.media_type: models.TextProduce,
    RECORDS: None,
}
_ANSWERS = {
    200: Body(content={V2_JSON: models.ProduceAnswer}, description="One entry per record, failed ones included."),
    202: Body(content={V2_JSON: models.AcceptedAnswer}, description="acks=0: taken, without offsets."),
    204: None,
}
_QUERY = (*WISHES, query.ASYNC)
_ERRORS = (400, 40002, 40401, 406, 413, 415, 422, 50302)

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST", path="/topics/{topic}", handler=produce_to_topic, check=_check, tag="v2",
        summary="Write records to the partitions of a topic.", query=_QUERY, headers=HEADERS,
        body=Body(content=_EMBEDDED), answers=_ANSWERS, errors=_ERRORS,
    ),
    Route(
        method="POST", path="/topics/{topic}/partitions/{partition}", handler=produce_to_partition, check=_check,
        tag="v2", summary="Write records, or a RecordBatch v2 as it is, to one partition.",
        query=_QUERY, headers=HEADERS, body=Body(content={**_EMBEDDED, RECORD_BATCH: None}),
        answers=_ANSWERS, errors=(*_ERRORS, 40402),
    ),
)  # fmt: skip
