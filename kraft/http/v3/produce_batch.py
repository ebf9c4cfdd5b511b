"""v3 `records:batch`: entries with ids, answered 207 with one success or failure each."""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import web

from kraft.http.counting import check_counts
from kraft.http.endpoint import Call
from kraft.http.errors import BATCH, UNPROCESSABLE, HttpError
from kraft.http.idempotency import HEADERS, check_idempotency_key, idempotency_key
from kraft.http.offset_spec import parse_iso_time
from kraft.http.produce_params import WISHES, check_wishes
from kraft.http.records import OutRecord
from kraft.http.v2.outcomes import failed
from kraft.http.v3 import records_models as models
from kraft.http.v3.envelope import Document, answer, check, route
from kraft.http.writing import write
from metadata.image import TopicImage
from replication.requests import ProduceOutcome


async def produce_batch(call: Call) -> web.Response:
    topic = await call.context.topic_or_create(call.topic)
    limits = call.context.limits
    check_counts(
        call.body, "entries", items_max=limits.batch_entries_max, headers_max=limits.produce_headers_max, code=BATCH
    )
    entries = call.model(models.BatchRequest, has_records=True).entries
    _check_entries(entries, maximum=call.context.limits.batch_entries_max)
    now_ms = call.context.clock.wall_ms()
    failures: list[Document] = []
    good: list[tuple[models.BatchEntry, OutRecord]] = []
    for entry in entries:
        try:
            good.append((entry, _record(entry, now_ms)))
        except HttpError as error:
            failures.append({"id": entry.id, "error_code": 422, "message": f"Error: 42206 : {error.message}"})
    successes = await _write(call, topic, good, failures)
    order = {entry.id: number for number, entry in enumerate(entries)}
    failures.sort(key=lambda failure: order[failure["id"]])
    return answer({"successes": successes, "failures": failures}, status=207)


def _check_entries(entries: list[models.BatchEntry], *, maximum: int) -> None:
    if not entries:
        raise HttpError(BATCH, "entries is empty; send at least one")
    if len(entries) > maximum:
        raise HttpError(BATCH, f"{len(entries)} entries in a batch; it has at most {maximum}")
    if not all(0 < len(entry.id) <= models.ID_LENGTH_MAX for entry in entries):
        raise HttpError(BATCH, f"an entry's id has 1 to {models.ID_LENGTH_MAX} characters")
    if len({entry.id for entry in entries}) != len(entries):
        raise HttpError(BATCH, "entry ids are not unique")


async def _write(
    call: Call, topic: TopicImage, good: list[tuple[models.BatchEntry, OutRecord]], failures: list[Document]
) -> list[Document]:
    key = idempotency_key(call)
    keyless = -1 if key is None else key.partition(len(topic.partitions))
    where = call.context.partitioner.place(topic, [record for _, record in good], keyless=keyless)
    groups: dict[int, list[OutRecord]] = {}
    for (_, record), number in zip(good, where, strict=True):
        groups.setdefault(number, []).append(record)
    results = {number: done.results() for number, done in (await write(call, topic, groups, key)).items()}
    successes: list[Document] = []
    for (entry, record), number in zip(good, where, strict=True):
        offset, outcome = next(results[number])
        if outcome.error_code:
            failures.append({"id": entry.id, **refusal(number, outcome)})
        else:
            is_own = entry.timestamp is not None
            stored = record._replace(timestamp_ms=stored_timestamp(call, topic.name, record, outcome, is_own=is_own))
            fields = (("key", entry.key), ("value", entry.value))
            types = {name: data.type for name, data in fields if data is not None}
            successes.append({"id": entry.id, **receipt(call, topic.name, types, stored, number, offset, outcome)})
    return successes


def stored_timestamp(call: Call, topic: str, record: OutRecord, outcome: ProduceOutcome, *, is_own: bool) -> int:
    """As the log has it: the leader's under LogAppendTime, that of the first attempt when this is a retry."""
    if is_own and call.context.gateway.topic_settings(topic).message_timestamp_type == "CreateTime":
        return record.timestamp_ms
    return record.timestamp_ms if outcome.log_append_time_ms < 0 else outcome.log_append_time_ms


def refusal(number: int, outcome: ProduceOutcome) -> Document:
    """What is said of a record that was not written."""
    fields = failed(number, outcome)
    return {
        "error_code": fields["error_code"],
        "message": fields["error"],
        "kafka_code": fields["kafka_code"],
        "retriable": fields["retriable"],
        "is_appended": fields["is_appended"],
    }


def receipt(
    call: Call,
    topic: str,
    types: Mapping[str, str],
    record: OutRecord,
    number: int,
    offset: int,
    outcome: ProduceOutcome,
) -> Document:
    """What is said of a record that was written. `types`: those named for `key` and `value`; offset -1: not known."""
    document: Document = {
        "cluster_id": call.context.gateway.cluster_id,
        "topic_name": topic,
        "partition_id": number,
        "offset": offset if offset >= 0 else None,
        "timestamp": datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).isoformat().replace("+00:00", "Z"),
        "leader_id": outcome.leader_id if outcome.leader_id >= 0 else None,
        "leader_epoch": outcome.leader_epoch if outcome.leader_id >= 0 else None,
    }
    for field, stored in (("key", record.key), ("value", record.value)):
        if field in types:
            document[field] = {"type": types[field], "size": len(stored or b"")}
    return document


def _record(entry: models.BatchEntry, now_ms: int) -> OutRecord:
    headers = [(h.name, None if h.value is None else _base64(h.value, "header")) for h in entry.headers or ()]
    timestamp = now_ms if entry.timestamp is None else parse_iso_time(entry.timestamp, "timestamp ")
    return OutRecord(_data(entry.key, "key"), _data(entry.value, "value"), headers, timestamp, entry.partition_id)


def _data(data: models.BatchData | None, what: str) -> bytes | None:
    if data is None:
        return None
    if data.needs_registry:
        raise HttpError(UNPROCESSABLE, f"{what}: {models.NO_REGISTRY}")
    if data.data is None:
        return None
    if data.type == "JSON":
        return _json(data.data, what)
    if not isinstance(data.data, str):
        raise HttpError(UNPROCESSABLE, f"{what}: data of type {data.type} is a string")
    return data.data.encode() if data.type == "STRING" else _base64(data.data, what)


def _json(data: object, what: str) -> bytes:
    try:
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise HttpError(UNPROCESSABLE, f"{what}: data is not JSON: {error}") from error


def _base64(text: str, what: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError) as error:
        raise HttpError(UNPROCESSABLE, f"{what}: data is not base64: {error}") from error


def _check(call: Call) -> None:
    check(call)
    check_wishes(call)
    check_idempotency_key(call)


ROUTES = (
    route(
        "POST",
        "/topics/{topic}/records:batch",
        produce_batch,
        "Write a batch of records, each with an id.",
        models.BatchAnswer,
        body=models.BatchRequest,
        status=207,
        query=WISHES,
        headers=HEADERS,
        errors=(40002, 40403, 42206, 42208, 50302),
        before=_check,
    ),
)
