"""The stateless read: records of one partition from an offset on; safe to repeat, nothing is kept between requests.

At least one record is answered when there is one, whatever `max_bytes` says. The answer's headers carry the next
offset, the high watermark and the log start, and `Link: rel="next"` the request to go on with.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from aiohttp import web
from multidict import CIMultiDict

from kraft.broker.gateway import Records
from kraft.http.embed import encode_json
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.limits import INT32_MAX
from kraft.http.media import EMBEDDED, RECORD_BATCH, RECORDS, Format, read_answer
from kraft.http.query import integer, parse_integer
from kraft.http.raw import encode_records
from kraft.http.records import end_of_batches, take_records
from kraft.http.routes import Body, Call, Parameter, Route
from kraft.http.v2 import models
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

INT64_MAX = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMED = {"earliest": EARLIEST_TIMESTAMP, "latest": LATEST_TIMESTAMP}


async def read_records(call: Call) -> web.Response:
    context = call.context
    form, content_type = read_answer(call.request.headers.get("Accept"))
    bytes_max, bytes_min, wait_ms = _bounds(call)
    which, _ = context.find_partition(call.topic, call.partition)
    offset = await _offset(call, which)
    with context.long_polls:
        records = await context.gateway.read(
            which, offset=offset, bytes_max=bytes_max, bytes_min=bytes_min, wait_ms_max=wait_ms
        )
    context.metrics.fetched_bytes.inc(len(records.data))
    body, next_offset = _encode(call, records, form, offset=offset, bytes_max=bytes_max)
    return web.Response(body=body, headers=_headers(call, records, content_type, next_offset))


def _bounds(call: Call) -> tuple[int, int, int]:
    limits = call.context.limits
    bytes_max = min(integer(call, "max_bytes", default=limits.read_bytes_default), limits.read_bytes_max)
    bytes_min = min(integer(call, "min_bytes", default=1), max(bytes_max, 1))
    wait_ms = min(integer(call, "timeout", default=limits.read_wait_ms_default), limits.read_wait_ms_max)
    return bytes_max, bytes_min, wait_ms


async def _offset(call: Call, which: TopicIdPartition) -> int:
    text = call.request.query.get("offset", "earliest")
    gateway = call.context.gateway
    if text in _NAMED:
        return (await gateway.list_offset(which, _NAMED[text])).offset
    if not text.startswith("ts:"):
        return _plain_offset(text)
    answer = await gateway.list_offset(which, parse_timestamp(text[3:]))
    if answer.offset >= 0:
        return answer.offset
    return (await gateway.list_offset(which, LATEST_TIMESTAMP)).offset


def _plain_offset(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise HttpError(
            BAD_REQUEST, f"offset={text} is not an offset: send a number, earliest, latest, or ts:<ms or ISO-8601>"
        )
    return parse_integer(text, "offset", high=INT64_MAX)


def parse_timestamp(text: str) -> int:
    """Milliseconds since the epoch, from themselves or from ISO-8601; a time without zone is UTC."""
    if text.isascii() and text.isdigit():
        return parse_integer(text, "offset=ts:", high=INT64_MAX)
    return parse_iso_time(text, "offset=ts:")


def parse_iso_time(text: str, what: str) -> int:
    try:
        # A `+` of a zone that came unescaped in a query is a space by now.
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError as error:
        raise HttpError(BAD_REQUEST, f"{what}{text} is no ISO-8601 time") from error
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    timestamp_ms = (when - _EPOCH) // timedelta(milliseconds=1)
    if timestamp_ms < 0:
        raise HttpError(BAD_REQUEST, f"{what}{text} is before 1970")
    return timestamp_ms


def _encode(call: Call, records: Records, form: Format, *, offset: int, bytes_max: int) -> tuple[bytes, int]:
    if form is Format.RECORD_BATCH:
        return bytes(records.data), end_of_batches(records.data, offset)
    taken, next_offset = take_records(records.data, offset, bytes_max=bytes_max)
    if form is Format.RECORDS:
        return encode_records(taken), next_offset
    return encode_json(taken, form, topic=call.topic, partition=call.partition), next_offset


def _headers(call: Call, records: Records, content_type: str, next_offset: int) -> CIMultiDict[str]:
    link = call.request.rel_url.update_query(offset=str(next_offset))
    return CIMultiDict(
        {
            "Content-Type": content_type,
            "Link": f'<{link}>; rel="next"',
            "X-Next-Offset": str(next_offset),
            "X-High-Watermark": str(records.high_watermark),
            "X-Log-Start-Offset": str(records.log_start_offset),
        }
    )


def _check(call: Call) -> None:
    read_answer(call.request.headers.get("Accept"))


def _number(name: str, description: str, default: int) -> Parameter:
    schema = {"type": "integer", "minimum": 0, "maximum": INT32_MAX, "default": default}
    return Parameter(name=name, description=description, schema=schema)


_OFFSET = Parameter(
    name="offset",
    description="A number, `earliest`, `latest`, or `ts:` and a time in ms or ISO-8601 (the first record not older).",
    schema={"type": "string", "default": "earliest"},
)

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/topics/{topic}/partitions/{partition}/records", handler=read_records, check=_check,
        tag="v2", summary="Read records from an offset on; waits for new ones.",
        query=(
            _OFFSET,
            _number("max_bytes", "Most bytes of batches; at least one record is answered.", 1_048_576),
            _number("min_bytes", "Wait until there are this many bytes.", 1),
            _number("timeout", "Longest wait in ms.", 500),
        ),
        answers={
            200: Body(
                content={form.media_type: list[models.ConsumedRecord] for form in EMBEDDED}
                | {RECORD_BATCH: None, RECORDS: None}
            )
        },
        errors=(40002, 40401, 40402, 406, 422, 50302),
    ),
)  # fmt: skip
