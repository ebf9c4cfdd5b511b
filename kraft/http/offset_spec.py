"""From where a reader wants to read: a number, `earliest`, `latest`, or the first record not older than a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kraft.broker.gateway import Gateway
from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.parameters import parse_integer
from kraft.protocol.primitives import INT64_MAX
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
"""The last time that an answer can say as ISO-8601; a zone can put what it is parsed from beyond it."""
_NAMED = {"earliest": EARLIEST_TIMESTAMP, "latest": LATEST_TIMESTAMP}

OFFSET = Parameter(
    name="offset",
    description="A number, `earliest`, `latest`, or `ts:` and a time in ms or ISO-8601 (the first record not older).",
    schema={"type": "string", "pattern": "^(earliest|latest|[0-9]{1,19}|ts:.+)$", "default": "earliest"},
)


async def wanted_offset(
    call: Call, which: TopicIdPartition, *, is_read_committed: bool, text: str | None = None
) -> int:
    """The offset that `text`, or `offset=` of the request, means in a partition. Raises HttpError, KafkaError."""
    query = call.request.query
    if "timestamp" in query:
        refuse_timestamp(query)
    text = query.get("offset", "earliest") if text is None else text
    gateway = call.context.gateway
    if text in _NAMED:
        return (await gateway.list_offset(which, _NAMED[text], is_read_committed=is_read_committed)).offset
    if not text.startswith("ts:"):
        return _plain_offset(text)
    return await offset_at(gateway, which, parse_timestamp(text[3:]), is_read_committed=is_read_committed)


def refuse_timestamp(query: Mapping[str, str]) -> None:
    """Raises HttpError 40002: a client that asks for a time and is answered from the beginning would not notice."""
    text = query.get("timestamp")
    if text is not None:
        raise HttpError(
            BAD_REQUEST,
            f"timestamp={text} is not a parameter here; read with offset=ts:<ms or ISO-8601> from a time on",
        )


async def offset_at(gateway: Gateway, which: TopicIdPartition, timestamp: int, *, is_read_committed: bool) -> int:
    """The offset of the first record that is not older; without one, the end of the log for this reader. Raises
    KafkaError."""
    answer = await gateway.list_offset(which, timestamp, is_read_committed=is_read_committed)
    if answer.offset >= 0:
        return answer.offset
    return (await gateway.list_offset(which, LATEST_TIMESTAMP, is_read_committed=is_read_committed)).offset


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
    """Raises HttpError 40002 for what is no time, or none from 1970 to 9999 in UTC."""
    try:
        # A `+` of a zone that came unescaped in a query is a space by now.
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError as error:
        raise HttpError(BAD_REQUEST, f"{what}{text} is no ISO-8601 time") from error
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    timestamp_ms = (when - _EPOCH) // timedelta(milliseconds=1)
    if timestamp_ms < 0:
        raise HttpError(BAD_REQUEST, f"{what}{text} is before 1970")
    if when > _LATEST:
        raise HttpError(BAD_REQUEST, f"{what}{text} is after the year 9999 in UTC")
    return timestamp_ms
