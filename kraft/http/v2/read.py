"""The stateless read: records of one partition from an offset on; safe to repeat, nothing is kept between requests.

The answer has at least one record when there is one, also when that is larger than `max_bytes`. Its headers have the
next offset, the high watermark, the last stable offset and the log start offset, and `Link: rel="next"` is the next
request. A read skips markers, and with isolation_level=read_committed the records of aborted transactions; the next
offset is behind them.
"""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict

from kraft.broker.gateway import Records
from kraft.http.dialects import UNKNOWN_TOPIC
from kraft.http.embedded_records import ConsumedRecord, encode_json
from kraft.http.endpoint import Body, Call, Header, Parameter, Route
from kraft.http.media import EMBEDDED, Format, read_answer, stream_answer
from kraft.http.offset_spec import OFFSET, wanted_offset
from kraft.http.parameters import ISOLATION_LEVEL, integer, is_read_committed
from kraft.http.raw_records import encode_records
from kraft.http.records import end_of_batches, on_records, take_records, without_aborted
from kraft.http.responses import with_body
from kraft.http.streaming.read import STREAM_CONTENT, STREAM_QUERY, stream_partition
from kraft.protocol.media_types import RECORD_BATCH, RECORDS
from kraft.protocol.primitives import INT32_MAX
from replication.requests import ReadOptions

READ_OVER_MS_MAX = 2_000
"""How long a read goes on over records that are not for its reader, if its own wait is shorter; then it answers none
and where to go on."""


async def read_records(call: Call) -> web.StreamResponse:
    """200 with records from `offset` on, up to `max_bytes`, after `timeout` ms at most; empty when none came. A stream
    for a client that accepts one. Raises HttpError 40401, 40402, OffsetOutOfRange 1, and NotLeaderOrFollower 6 while
    nobody leads."""
    if stream_answer(call.accept) is not None:
        return await stream_partition(call)
    context = call.context
    form, content_type = read_answer(call.accept)
    bytes_max, bytes_min, wait_ms = _bounds(call)
    is_committed = is_read_committed(call)
    which, _ = context.find_partition(call.topic, call.partition)
    offset = await wanted_offset(call, which, is_read_committed=is_committed)
    now_ms = context.clock.monotonic_ms()
    deadline_ms, end_ms = now_ms + wait_ms, now_ms + max(wait_ms, READ_OVER_MS_MAX)
    with context.long_polls, call.while_allowed():
        while True:
            options = ReadOptions(
                bytes_max=await context.room(bytes_max),
                bytes_min=bytes_min,
                wait_ms_max=max(deadline_ms - context.clock.monotonic_ms(), 0),
                is_read_committed=is_committed,
            )
            records = await context.gateway.read(which, offset, options)
            context.hold(call.request, len(records.data))
            context.metrics.fetched_bytes.inc(len(records.data))
            count, body, next_offset = await _encode(call, records, form, offset=offset, bytes_max=bytes_max)
            has_more = next_offset < records.end_offset
            if count or next_offset == offset or context.clock.monotonic_ms() >= (end_ms if has_more else deadline_ms):
                break
            offset = next_offset
            await context.clock.sleep(0)  # neither a read of a log that is here nor a small encoding suspends
    return with_body(body, _headers(call, records, content_type, next_offset))


class _Encoded(NamedTuple):
    size: int
    """In records; of whole batches in bytes."""
    body: bytes | bytearray
    next_offset: int
    """Where to go on."""


def _bounds(call: Call) -> tuple[int, int, int]:
    limits = call.context.limits
    bytes_max = min(integer(call, "max_bytes", default=limits.read_bytes_default), limits.read_bytes_max)
    bytes_min = min(integer(call, "min_bytes", default=1), max(bytes_max, 1))
    wait_ms = min(integer(call, "timeout", default=limits.read_wait_ms_default), limits.read_wait_ms_max)
    return bytes_max, bytes_min, wait_ms


async def _encode(call: Call, records: Records, form: Format, *, offset: int, bytes_max: int) -> _Encoded:
    if form is Format.RECORD_BATCH:
        data = records.data
        body = without_aborted(data, records.aborted) if records.is_read_committed else bytes(data)
        return _Encoded(len(body), body, end_of_batches(data, offset))
    topic, partition, records_max = call.topic, call.partition, call.context.limits.read_records_max

    def encode(inflated_max: int) -> _Encoded:
        taken = take_records(
            records.data,
            offset,
            bytes_max=bytes_max,
            records_max=records_max,
            inflated_max=inflated_max,
            aborted=records.aborted,
        )
        count = len(taken.records)
        if form is Format.RECORDS:
            return _Encoded(count, encode_records(taken.records), taken.next_offset)
        body = encode_json(taken.records, form, topic=topic, partition=partition)
        return _Encoded(count, body, taken.next_offset)

    return await on_records(call.context.record_workers, records.data, encode)


def _headers(call: Call, records: Records, content_type: str, next_offset: int) -> CIMultiDict[str]:
    link = call.request.rel_url.update_query(offset=str(next_offset))
    return CIMultiDict(
        {
            "Content-Type": content_type,
            "Link": f'<{link}>; rel="next"',
            "X-Next-Offset": str(next_offset),
            "X-High-Watermark": str(records.high_watermark),
            "X-Last-Stable-Offset": str(records.last_stable_offset),
            "X-Log-Start-Offset": str(records.log_start_offset),
            "X-Leader": str(records.leader_id),
            "X-Leader-Epoch": str(records.leader_epoch),
        }
    )


def _check(call: Call) -> None:
    if stream_answer(call.accept) is None:
        read_answer(call.accept)


def _number(name: str, description: str, default: int) -> Parameter:
    schema = {"type": "integer", "minimum": 0, "maximum": INT32_MAX, "default": default}
    return Parameter(name=name, description=description, schema=schema)


def _answer_header(description: str, kind: str = "integer") -> Header:
    """A stream has none of them."""
    return Header(description=description, schema={"type": kind}, is_optional=True)


_ANSWER_HEADERS = {
    "X-Next-Offset": _answer_header("Where to go on."),
    "Link": _answer_header('The request to go on with, as rel="next".', "string"),
    "X-High-Watermark": _answer_header("The end of what can be read."),
    "X-Last-Stable-Offset": _answer_header("The end of what can be read with isolation_level=read_committed."),
    "X-Log-Start-Offset": _answer_header("The first offset there is."),
    "X-Leader": _answer_header("The broker that has read it."),
    "X-Leader-Epoch": _answer_header("The epoch in which it leads."),
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/topics/{topic}/partitions/{partition}/records", handler=read_records, check=_check,
        tag="v2", summary="Read records from an offset on, waiting for new ones, or stream them.",
        query=(
            OFFSET,
            ISOLATION_LEVEL,
            _number("max_bytes", "Most bytes of records, decompressed; at least one is answered.", 1_048_576),
            _number("min_bytes", "Wait until there are this many bytes.", 1),
            _number("timeout", "Longest wait in ms.", 500),
            *STREAM_QUERY,
        ),
        answers={
            200: Body(
                content={form.media_type: list[ConsumedRecord] for form in EMBEDDED}
                | {RECORD_BATCH: None, RECORDS: None}
                | STREAM_CONTENT,
                headers=_ANSWER_HEADERS,
            )
        },
        errors=(40002, *UNKNOWN_TOPIC, 406, 422, 50302),
    ),
)  # fmt: skip
