"""v3 `records:batch` of a route, an addition of ours: each entry goes to every topic that its routing key matches.

Entries that go to one topic are written as by `records:batch` of that topic. Those of a request that go to several are
one transaction (`kraft.coordinators.routed`), whatever `acks` is. What matches nothing is refused alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from msgspec import Struct
from pydantic import BaseModel

from kraft.coordinators.routed import Batches, RoutedWrites, UnknownEnd
from kraft.http.batch_sender import AS_THEY_ARE
from kraft.http.endpoint import Call, Route
from kraft.http.errors import ROUTE_NOT_FOUND, UNROUTED, HttpError, from_kafka
from kraft.http.idempotency import HEADERS
from kraft.http.produce import INLINE_BODY_BYTES_MAX, Packed, Result, pack, place, write_records
from kraft.http.produce_params import PARAMETERS, ProduceParams, read_params
from kraft.http.records import OutRecord
from kraft.http.v3.envelope import Document, answer, check, route
from kraft.http.v3.produce_batch import read_batch
from kraft.http.v3.record_bodies import (
    ParsedBatch,
    RouteEntry,
    RouteRequest,
    fields_taken,
    no_delivery,
    no_expiry,
)
from kraft.http.v3.record_results import BatchFailure, Receipts, WrittenRecord, refusal
from kraft.http.v3.routes import route_of
from kraft.protocol.errors import InvalidRequest, KafkaError
from metadata.acls import AclOperation, AclResource
from metadata.image import TopicIdPartition, TopicImage
from metadata.routes import RouteImage, check_routing_key
from replication.record_times import TimeRules
from replication.requests import ProduceOutcome

INLINE_MATCHES_MAX = 1_000
"""Most pairs of an entry and a binding that the event loop looks at itself; a worker thread takes more."""
ANY_TIMES = TimeRules(reads_delivery=True, reads_expiry=True)
"""What entries may have whose topics are not known yet."""


class RoutedSuccess(BaseModel):
    id: str
    records: list[WrittenRecord]


class RoutedAnswer(BaseModel):
    successes: list[RoutedSuccess]
    failures: list[BatchFailure]


class _Entry(Struct):
    """An entry on its way."""

    sent: RouteEntry
    record: OutRecord
    topics: Sequence[str]
    refused: Document | None = None
    written: list[Document] = []


async def produce_to_route(call: Call, params: ProduceParams, writes: RoutedWrites) -> web.Response:
    """207 with `successes` and `failures`, each entry by its `id`. Raises HttpError 42208 for a bad batch, 40407."""
    target = route_of(call)
    if len(call.body) > INLINE_BODY_BYTES_MAX or call.objects * len(target.bindings) > INLINE_MATCHES_MAX:
        parsed, entries = await call.context.record_workers.run(_parsed_and_matched, call, target)
    else:
        parsed, entries = _parsed_and_matched(call, target)
    topics = _known_topics(call, entries)
    going = [entry for entry in entries if entry.refused is None]
    several = [entry for entry in going if len(entry.topics) > 1]
    if several and params.sender is not AS_THEY_ARE:
        raise HttpError(
            422,
            f"entry {several[0].sent.id!r} goes to {', '.join(several[0].topics)}: a request with an Idempotency-Key "
            "has only entries that go to one topic; nothing was written",
        )
    single: dict[str, list[_Entry]] = {}
    for entry in going:
        if len(entry.topics) == 1:
            single.setdefault(entry.topics[0], []).append(entry)
    tasks = [_write_single(call, params, topics[name], its) for name, its in single.items()]
    await asyncio.gather(*tasks, _write_several(call, params, topics, several, writes))
    return _answer(parsed, entries)


def _answer(parsed: ParsedBatch, entries: Sequence[_Entry]) -> web.Response:
    successes: list[Document] = []
    failures: list[Document] = []
    done = iter(entries)
    for index, sent in enumerate(parsed.entries):
        error = parsed.refused.get(index)
        if error is not None:
            failures.append({"id": sent.id, "error_code": error.code, "message": error.message})
            continue
        entry = next(done)
        if entry.refused is not None:
            failures.append({"id": sent.id, **entry.refused})
        else:
            successes.append({"id": sent.id, "records": entry.written})
    return answer({"successes": successes, "failures": failures}, status=207)


# --- which topics -----------------------------------------------------------------------------------------------------


def _parsed_and_matched(call: Call, target: RouteImage) -> tuple[ParsedBatch, list[_Entry]]:
    parsed = read_batch(call, ANY_TIMES, RouteRequest)
    good = (each for index, each in enumerate(parsed.entries) if index not in parsed.refused)
    known: dict[str, Sequence[str]] = {}
    entries: list[_Entry] = []
    for sent, record in zip(good, parsed.records, strict=True):
        assert isinstance(sent, RouteEntry), sent
        entry = _Entry(sent, record, ())
        entries.append(entry)
        try:
            key = _routing_key(sent, record)
        except InvalidRequest as error:
            entry.refused = _failure(from_kafka(error))
            continue
        if key not in known:
            known[key] = target.topics_of(key)
        entry.topics = known[key]
        if not entry.topics:
            what = f"no binding of route {target.name!r} matches routing key {key!r}: bind a topic, or send another key"
            entry.refused = _failure(HttpError(UNROUTED, what))
    return parsed, entries


def _routing_key(sent: RouteEntry, record: OutRecord) -> str:
    """The entry's own, else the record's key as text, else the empty one. Raises InvalidRequest 42."""
    key = sent.routing_key
    if key is None:
        try:
            key = bytes(record.key or b"").decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest("the record's key is no text: name the routing_key of the entry") from error
    check_routing_key(key)
    return key


def _known_topics(call: Call, entries: Sequence[_Entry]) -> Mapping[str, TopicImage]:
    """The topics of the entries. Refuses entries of which one topic may not be written, or is being deleted."""
    may, image = call.permissions, call.context.gateway.image
    found: dict[str, TopicImage] = {}
    errors: dict[str, Document] = {}
    for name in {name for entry in entries for name in entry.topics}:
        if may is not None and not may.silently(AclOperation.WRITE, AclResource.TOPIC, name):
            errors[name] = _failure(HttpError(40301, "one of the topics of this routing key may not be written"))
        elif (topic := image.topic(name)) is None:
            errors[name] = _failure(HttpError(40403, f"topic {name!r} was deleted just now"))
        else:
            found[name] = topic
    for entry in entries:
        entry.refused = next((errors[name] for name in entry.topics if name in errors), entry.refused)
        if entry.refused is None:
            entry.refused = _refused_times(call, entry)
    return found


def _refused_times(call: Call, entry: _Entry) -> Document | None:
    """Each topic has to take the times that the entry names."""
    sent = entry.sent
    if sent.expires_in_ms is None and sent.deliver_in_ms is None:
        return None
    for name in entry.topics:
        taken = fields_taken(name, call.context.gateway.topic_settings)
        if sent.expires_in_ms is not None and not (taken and taken.reads_expiry):
            return _failure(no_expiry(f"topic {name}, to which it goes"))
        if sent.deliver_in_ms is not None and not (taken and taken.reads_delivery):
            return _failure(no_delivery(f"topic {name}, to which it goes,"))
    return None


def _failure(error: HttpError) -> Document:
    return {"error_code": error.code, "message": error.message, **error.extra, "is_appended": False}


# --- to one topic -----------------------------------------------------------------------------------------------------


async def _write_single(call: Call, params: ProduceParams, topic: TopicImage, entries: Sequence[_Entry]) -> None:
    records = [entry.record for entry in entries]
    places = place(topic, records, None, keyless=params.sender.keyless_partition(len(topic.partitions)))
    try:
        results = await write_records(call, params, topic, records, call.context.partitioner.settle(topic, places))
    except (HttpError, KafkaError) as error:
        refused = _failure(error if isinstance(error, HttpError) else from_kafka(error, unknown_topic=40403))
        for entry in entries:
            entry.refused = refused
        return
    receipts = Receipts(call, topic.name)
    for entry, result in zip(entries, results, strict=True):
        if result.outcome.error_code:
            entry.refused = refusal(result.outcome)
        else:
            entry.written.append(receipts.receipt(entry.sent, entry.record, result))


# --- to several topics ------------------------------------------------------------------------------------------------


class _Group(Struct):
    """The entries for one partition, in their order."""

    entries: list[_Entry]
    packed: Packed


async def _write_several(
    call: Call, params: ProduceParams, topics: Mapping[str, TopicImage], entries: Sequence[_Entry], writes: RoutedWrites
) -> None:
    """What one of its topics cannot take goes to none of them."""
    groups = _packed(call, topics, entries)
    left = [entry for entry in entries if entry.refused is None]
    if len(left) < len(entries):
        groups = _packed(call, topics, left)
    if not left:
        return
    batches: Batches = {where: each.packed.batches for where, each in groups.items()}
    metrics = call.context.metrics
    metrics.produced_records.inc(sum(len(entry.topics) for entry in left))
    metrics.produced_bytes.inc(sum(len(data) for parts in batches.values() for _, data in parts))
    try:
        outcomes = await writes.write(batches, gateway=call.context.gateway, timeout_ms=params.options.timeout_ms)
    except (KafkaError, UnknownEnd) as failed:
        error = failed.error if isinstance(failed, UnknownEnd) else failed
        refused = _failure(from_kafka(error, unknown_topic=40403))
        if isinstance(failed, UnknownEnd):
            refused |= {"is_appended": None, "message": f"in all of its topics or in none: {refused['message']}"}
        for entry in left:
            entry.refused = refused
        return
    names = {topic.topic_id: name for name, topic in topics.items()}
    for where, group in groups.items():
        receipts, its = Receipts(call, names[where.topic_id]), iter(group.entries)
        for part, outcome in zip(group.packed.batches, outcomes[where], strict=True):
            for number in range(part.records):
                entry = next(its)
                result = Result(where.partition, outcome.base_offset + number, outcome)
                entry.written.append(receipts.receipt(entry.sent, entry.record, result))


def _packed(
    call: Call, topics: Mapping[str, TopicImage], entries: Sequence[_Entry]
) -> Mapping[TopicIdPartition, _Group]:
    """Batches for each partition; entries that cannot be in one are refused."""
    now_ms = call.context.clock.wall_ms()
    groups: dict[TopicIdPartition, _Group] = {}
    for name in sorted({name for entry in entries for name in entry.topics}):
        topic, its = topics[name], [entry for entry in entries if name in entry.topics]
        places = call.context.partitioner.place(topic, [entry.record for entry in its])
        settings = call.context.gateway.topic_settings(name)
        for number in sorted(set(places)):
            here = [entry for entry, where in zip(its, places, strict=True) if where == number]
            packed = pack([entry.record for entry in here], settings, now_ms=now_ms)
            for index, outcome in packed.refused.items():
                here[index].refused = _refused_by(name, outcome)
            groups[TopicIdPartition(topic.topic_id, number)] = _Group(here, packed)
    return groups


def _refused_by(topic: str, outcome: ProduceOutcome) -> Document:
    document = refusal(outcome)
    return document | {"message": f"topic {topic}: {document['message']}"}


def _check(call: Call) -> ProduceParams:
    check(call)
    return read_params(call)


def route_produce_routes(writes: RoutedWrites) -> tuple[Route, ...]:
    async def produce(call: Call, params: ProduceParams) -> web.Response:
        return await produce_to_route(call, params, writes)

    made: Any = RoutedAnswer
    return (
        route("POST", "/routes/{route}/records:batch", produce, "Write records to the topics that their keys match.",
              made, body=RouteRequest, status=207, query=PARAMETERS, headers=HEADERS, name="v3_produce_to_route",
              errors=(40002, ROUTE_NOT_FOUND, 42206, 42208, UNROUTED, 50302), before=_check),
    )  # fmt: skip
