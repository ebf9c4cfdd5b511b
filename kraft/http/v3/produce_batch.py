"""v3 `records:batch`: entries with ids, answered 207 with one success or failure each, in request order."""

from __future__ import annotations

from functools import partial

from aiohttp import web
from msgspec import Struct

from kraft.http.endpoint import Call
from kraft.http.errors import BATCH
from kraft.http.idempotency import HEADERS
from kraft.http.produce import produce_body
from kraft.http.produce_params import PARAMETERS, ProduceParams, read_params
from kraft.http.record_counts import check_counts
from kraft.http.v3.envelope import Document, answer, check, route
from kraft.http.v3.record_bodies import BatchRequest, ParsedBatch, fields_taken, parse_batch
from kraft.http.v3.record_results import BatchAnswer, Receipts, refusal
from replication.record_times import TimeRules


async def produce_batch(call: Call, params: ProduceParams) -> web.Response:
    """207 with `successes` and `failures`, each entry by the `id` that the request gave it. Raises HttpError 42208 for
    a bad batch, and 40403 for a topic that does not exist and is not created."""
    topic = await call.context.topic_or_create(call.topic)
    times = fields_taken(topic.name, call.context.gateway.topic_settings)
    parsed, results = await produce_body(call, params, topic, partial(read_batch, call, times))
    receipts, written = Receipts(call, topic.name), zip(parsed.records, results, strict=True)
    successes: list[Document] = []
    failures: list[Document] = []
    for index, entry in enumerate(parsed.entries):
        error = parsed.refused.get(index)
        if error is not None:
            failures.append({"id": entry.id, "error_code": error.code, "message": error.message})
            continue
        record, result = next(written)
        if result.outcome.error_code:
            failures.append({"id": entry.id, **refusal(result.outcome)})
        else:
            successes.append({"id": entry.id, **receipts.receipt(entry, record, result)})
    return answer({"successes": successes, "failures": failures}, status=207)


def read_batch(call: Call, times: TimeRules | None, kind: type[Struct] = BatchRequest) -> ParsedBatch:
    """The entries of a body; `kind`: its model, that of a topic or of a route. Raises HttpError 42208 for too many
    entries or headers, and what `parse_batch` raises."""
    limits, now_ms = call.context.limits, call.context.clock.wall_ms()
    entries_max = limits.batch_entries_max
    check_counts(
        call.body,
        "entries",
        objects=call.objects,
        items_max=entries_max,
        headers_max=limits.produce_headers_max,
        code=BATCH,
    )
    is_strict = call.context.is_strict
    return parse_batch(call.body, now_ms=now_ms, entries_max=entries_max, is_strict=is_strict, times=times, kind=kind)


def _check(call: Call) -> ProduceParams:
    check(call)
    return read_params(call)


ROUTES = (
    route(
        "POST",
        "/topics/{topic}/records:batch",
        produce_batch,
        "Write a batch of records, each with an id.",
        BatchAnswer,
        body=BatchRequest,
        status=207,
        query=PARAMETERS,
        headers=HEADERS,
        errors=(40002, 40403, 42206, 42208, 50302),
        before=_check,
    ),
)
