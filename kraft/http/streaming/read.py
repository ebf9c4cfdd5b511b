"""Streams of a partition and of a topic: `GET …/records` with `Accept: text/event-stream` or `application/x-ndjson`.

A stream of a topic follows partitions that are added, from their first record on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from kraft.http.dialects import UNKNOWN_TOPIC
from kraft.http.embedded_records import ConsumedRecord
from kraft.http.endpoint import Body, Call, Parameter, Route
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.media import EMBEDDED, Format, stream_answer
from kraft.http.offset_spec import OFFSET, wanted_offset
from kraft.http.parameters import ISOLATION_LEVEL, is_read_committed
from kraft.http.streaming.frames import FRAMES
from kraft.http.streaming.merge import Merge, Piece
from kraft.http.streaming.positions import PARTITIONS_MAX, Key, Positions, parse_positions
from kraft.http.streaming.serve import HEARTBEAT, heartbeat_ms, serve
from kraft.protocol.errors import UnknownTopicOrPartition
from kraft.protocol.media_types import EVENT_STREAM, NDJSON
from metadata.environment import Clock
from metadata.image import TopicIdPartition, TopicImage
from replication.requests import EARLIEST_TIMESTAMP

LAST_EVENT_ID = "Last-Event-ID"
NEW_PARTITIONS_MS = 1_000
"""How often a stream of a topic looks for new partitions."""
FORMAT = Parameter(
    name="format",
    description="Of a stream: how keys and values are embedded.",
    schema={"type": "string", "enum": [form.value for form in EMBEDDED], "default": "binary"},
)
POSITION = Parameter(
    name="position",
    description=f"Of a stream: go on from here, as `{LAST_EVENT_ID}` does, which wins.",
    schema={"type": "string"},
)


class TopicSource:
    """Partitions of one topic. With `follows` also those that are added to it."""

    def __init__(
        self,
        call: Call,
        topic: TopicImage,
        positions: Positions,
        form: Format,
        *,
        follows: bool,
        is_read_committed: bool,
    ) -> None:
        self._context = call.context
        self._clock: Clock = call.context.clock
        self._topic = topic
        self._follows = follows
        self.positions = positions
        self._merge = Merge(call.context, positions, form, is_read_committed=is_read_committed)

    async def next(self, *, wait_ms: int) -> list[Piece]:
        deadline_ms = self._clock.monotonic_ms() + wait_ms
        while True:
            await self._take_up()
            left_ms = max(deadline_ms - self._clock.monotonic_ms(), 0)
            pieces = await self._merge.next(wait_ms=min(left_ms, NEW_PARTITIONS_MS) if self._follows else left_ms)
            if pieces or self._clock.monotonic_ms() >= deadline_ms:
                return pieces

    async def _take_up(self) -> None:
        """New partitions, and the end of the topic."""
        known = self._context.gateway.image.topics.get(self._topic.topic_id)
        if known is None:
            raise UnknownTopicOrPartition(f"topic {self._topic.name!r} does not exist any more")
        if not self._follows or known is self._topic:
            return
        self._topic = known
        new = [(known.name, number) for number in known.partitions if (known.name, number) not in self.positions]
        if len(self.positions) + len(new) > PARTITIONS_MAX:
            raise _too_many(len(self.positions) + len(new))
        for key in new:
            which = TopicIdPartition(known.topic_id, key[1])
            self.positions[key] = (await self._context.gateway.list_offset(which, EARLIEST_TIMESTAMP)).offset
        self._merge.add(new)


async def stream_partition(call: Call) -> web.StreamResponse:
    """200 and a stream of one partition's records, as events or lines, until the client leaves. Raises HttpError 40401,
    40402."""
    topic = call.context.topic_or_raise(call.topic)
    call.context.partition_or_raise(topic, call.partition)
    return await _stream(call, topic, [call.partition], follows=False)


async def stream_topic(call: Call) -> web.StreamResponse:
    """The same of all partitions of a topic, those that are added later included. Raises HttpError 40401, and 40002 for
    a topic of more partitions than a stream may have."""
    topic = call.context.topic_or_raise(call.topic)
    if len(topic.partitions) > PARTITIONS_MAX:
        raise _too_many(len(topic.partitions))
    return await _stream(call, topic, list(topic.partitions), follows=True)


async def _stream(call: Call, topic: TopicImage, partitions: Sequence[int], *, follows: bool) -> web.StreamResponse:
    kind = stream_answer(call.accept, is_only=True)
    assert kind is not None
    wait_ms, form, is_committed = heartbeat_ms(call), stream_format(call), is_read_committed(call)
    positions = Positions(await _start(call, topic, partitions), topic=topic.name)
    source = TopicSource(call, topic, positions, form, follows=follows, is_read_committed=is_committed)
    return await serve(call, source, FRAMES[kind], wait_ms=wait_ms)


def stream_format(call: Call) -> Format:
    """Raises HttpError 40002."""
    text = call.request.query.get("format", Format.BINARY)
    if text not in EMBEDDED:
        raise HttpError(BAD_REQUEST, f"format={text} is not known; it is one of {', '.join(EMBEDDED)}")
    return Format(text)


def stream_position(call: Call) -> str | None:
    """What the client has had already."""
    return call.request.headers.get(LAST_EVENT_ID) or call.request.query.get("position") or None


async def _start(call: Call, topic: TopicImage, partitions: Sequence[int]) -> dict[Key, int]:
    """Where each partition begins: after what the client has had, else at the offset that `offset` names."""
    text = stream_position(call)
    had = {} if text is None else parse_positions(text, topic=topic.name)
    unknown = [number for _, number in had if number not in partitions]
    if unknown:
        raise HttpError(BAD_REQUEST, f"the position names partition {unknown[0]}, which this stream has not")
    if text is None and len(partitions) > 1 and call.request.query.get("offset", "earliest").lstrip("-").isdigit():
        raise HttpError(BAD_REQUEST, "one offset is not enough for several partitions; send `position`, or a name")
    missing = [number for number in partitions if (topic.name, number) not in had]
    named = None if text is None else "earliest"
    found = await asyncio.gather(
        *(
            wanted_offset(
                call,
                TopicIdPartition(topic.topic_id, number),
                text=named,
                is_read_committed=is_read_committed(call),
            )
            for number in missing
        )
    )
    return had | {(topic.name, number): offset for number, offset in zip(missing, found, strict=True)}


def _too_many(count: int) -> HttpError:
    return HttpError(
        BAD_REQUEST, f"a stream has at most {PARTITIONS_MAX} partitions, not {count}; stream its partitions one by one"
    )


def _check(call: Call) -> None:
    stream_answer(call.accept, is_only=True)


STREAM_QUERY = (FORMAT, POSITION, HEARTBEAT)
STREAM_CONTENT = {EVENT_STREAM: None, NDJSON: ConsumedRecord}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/topics/{topic}/records", handler=stream_topic, check=_check, tag="v2",
        summary="Stream the records of all partitions, new ones included.",
        query=(OFFSET, ISOLATION_LEVEL, *STREAM_QUERY),
        answers={200: Body(content=STREAM_CONTENT)}, errors=(40002, *UNKNOWN_TOPIC, 406, 50302),
    ),
)  # fmt: skip
