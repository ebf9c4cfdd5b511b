"""v3 `records`: a stream of records in, a result for each out, in order, while the request is still being written.

What has arrived while the last produce was under way becomes the next one, so that records of one stream are never
reordered and cost less the faster they come. Nothing is read while results cannot be written: a client that sends and
does not read is held back. Invariant: a stream holds what aiohttp has buffered and one unfinished record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec
from aiohttp import web

from kraft.http.batch_sender import AS_THEY_ARE, KEY_HEADER
from kraft.http.endpoint import Call
from kraft.http.errors import BAD_REQUEST, V3_TOPIC_NOT_FOUND, HttpError, error_body, from_kafka
from kraft.http.media import utf8_of_latin_1
from kraft.http.problems import unreadable
from kraft.http.produce import write_records
from kraft.http.produce_params import PARAMETERS, ProduceParams, read_params
from kraft.http.records import OutRecord
from kraft.http.responses import plain
from kraft.http.streaming.splitter import ObjectSplitter
from kraft.http.streaming.streams import Outlet
from kraft.http.v3.envelope import Document, check, route
from kraft.http.v3.record_bodies import Malformed, StreamRecord, fields_taken, parse_record
from kraft.http.v3.record_results import Receipts, StreamResult, refusal
from kraft.protocol.errors import KafkaError
from kraft.protocol.media_types import PLAIN_JSON
from metadata.retries import retry_until

RECORD_BYTES_MAX = 8_388_608
"""Largest record, as JSON; a longer one ends the stream."""
IDLE_MS_MAX = 300_000
"""Without a byte from the client; then the stream ends with 408."""
AGE_MS_MAX = 86_400_000
"""Longest life of a stream, as at Confluent's proxy; then it ends with 408."""
BUDGET_WAIT_MS = 30_000
"""How long a stream waits for room for its next bytes (queued.max.request.bytes); then it ends with 503."""
BUDGET_RETRY_MS = 50
PORTION_RECORDS = 1_000
"""Records that are taken on at once, more or less, while others wait for the event loop."""
PORTION_BYTES_MIN = 1_024
END = b"\r\n"


async def produce_stream(call: Call, params: ProduceParams) -> web.StreamResponse:
    """200, then one document for each record of the body as it comes, a receipt or an error, in the order of the
    records. What ends the stream is said in its last document."""
    await call.context.topic_or_create(call.topic)
    response = web.StreamResponse(headers={"Content-Type": PLAIN_JSON})
    with call.context.produce_streams, call.context.streams.opened():
        await response.prepare(call.request)
        stream = _Stream(call, params, Outlet(call.context.streams, call.request))
        try:
            error = await stream.run_to_end()
            if error is not None:
                await stream.outlet.write(stream.said(error))
                response.force_close()
            await response.write_eof()
        except ConnectionError:
            pass  # the client has gone
    return response


def portions(data: bytes) -> Iterator[bytes]:
    """Splits the bytes that have arrived into pieces with few enough records for the event loop: a record begins with a
    brace."""
    size = len(data) * PORTION_RECORDS // max(data.count(b"{"), PORTION_RECORDS)
    for at in range(0, len(data), max(size, PORTION_BYTES_MIN)):
        yield data[at : at + max(size, PORTION_BYTES_MIN)]


class _Stream:
    """One request. `index` is that of the next record whose result is written."""

    def __init__(self, call: Call, params: ProduceParams, outlet: Outlet) -> None:
        self.call = call
        self._params = params
        self.outlet = outlet
        self._splitter = ObjectSplitter(bytes_max=RECORD_BYTES_MAX)
        self._index = 0

    def said(self, error: HttpError) -> bytes:
        return self._line(error_body(error) | {"index": self._index})

    def _line(self, document: Document) -> bytes:
        return msgspec.json.encode(plain(self.call, document, StreamResult)) + END

    async def run_to_end(self) -> HttpError | None:
        """What ended it; None when the client did. Raises ConnectionError."""
        try:
            await self._run()
        except HttpError as error:
            return error
        except KafkaError as error:
            return from_kafka(error, unknown_topic=V3_TOPIC_NOT_FOUND)
        except web.RequestPayloadError as error:
            return HttpError(400, unreadable(error))
        except asyncio.CancelledError:
            stopped = self.call.context.streams.ended()
            if stopped is None:
                raise
            return stopped
        return None

    async def _run(self) -> None:
        """Raises what ends the stream before its client does."""
        clock = self.call.context.clock
        ends_ms = clock.monotonic_ms() + AGE_MS_MAX
        while True:
            left_ms = min(IDLE_MS_MAX, ends_ms - clock.monotonic_ms())
            with self.call.while_allowed():
                data = await self._arrived(left_ms)
            if not data:
                break
            await self._take(data)
        if len(self._splitter):
            raise HttpError(400, f"the body ends within a record, after {len(self._splitter)} bytes of it")
        if not self._index:
            raise HttpError(400, "the body holds no record")

    async def _arrived(self, wait_ms: int) -> bytes:
        """The bytes that have arrived since; empty at the end of the body."""
        content = self.call.request.content
        is_latin_1 = self.call.is_latin_1
        try:
            async with self.call.context.clock.timeout(wait_ms):
                data = b""
                while not data and not content.at_eof():
                    data = await content.readany()
                return utf8_of_latin_1(data) if is_latin_1 else data
        except TimeoutError as error:
            raise HttpError(408, f"nothing came for {wait_ms} ms; send the rest with another request") from error

    async def _take(self, data: bytes) -> None:
        size = len(data) + len(self._splitter)
        await self._reserve(size)
        try:
            problem = None
            for part in portions(data):
                objects, problem = self._splitter.feed(part)
                problem = await self._write(objects) or problem
                if problem is not None:
                    break
                await self.call.context.clock.sleep(0)  # others have their turn
        finally:
            self.call.context.bodies.release(size)
        if problem is not None:
            raise HttpError(400, problem)

    async def _reserve(self, size: int) -> None:
        """Raises HttpError 503 when there was no room for long: until then the client is held back."""
        clock = self.call.context.clock

        async def reserve() -> None:
            self.call.context.bodies.reserve(size)

        await retry_until(
            clock.monotonic_ms() + BUDGET_WAIT_MS,
            reserve,
            clock=clock,
            retriable=lambda error: isinstance(error, HttpError),
            wake=lambda: clock.sleep(BUDGET_RETRY_MS),
        )

    async def _write(self, objects: list[bytes]) -> str | None:
        """One produce for these, one result for each. Returns why nothing after them can be understood."""
        now_ms = self.call.context.clock.wall_ms()
        times = fields_taken(self.call.topic, self.call.context.gateway.topic_settings)
        parsed: list[tuple[StreamRecord, OutRecord] | HttpError] = []
        problem = None
        for text in objects:
            try:
                parsed.append(parse_record(text, now_ms=now_ms, times=times))
            except HttpError as error:
                if isinstance(error, Malformed):
                    problem = error.message
                    break
                parsed.append(error)
        good = [each for each in parsed if not isinstance(each, HttpError)]
        results = await self._produce(good) if good else iter(())
        lines: list[bytes] = []
        for each in parsed:
            document = error_body(each) if isinstance(each, HttpError) else next(results)
            if document["error_code"] != 200:
                document["index"] = self._index
            self._index += 1
            lines.append(self._line(document))
        await self.outlet.write(b"".join(lines))
        return problem

    async def _produce(self, sent: Sequence[tuple[StreamRecord, OutRecord]]) -> Iterator[Document]:
        """A result for each, made when it is written."""
        call, records = self.call, [record for _, record in sent]
        topic = await call.context.topic_or_create(call.topic)
        results = await write_records(
            call, self._params, topic, records, call.context.partitioner.place(topic, records)
        )
        receipts = Receipts(call, topic.name)
        return (
            refusal(result.outcome)
            if result.outcome.error_code
            else {"error_code": 200, **receipts.receipt(each, record, result)}
            for (each, record), result in zip(sent, results, strict=True)
        )


def _check(call: Call) -> ProduceParams:
    check(call)
    if KEY_HEADER in call.request.headers:
        raise HttpError(BAD_REQUEST, f"a stream has no {KEY_HEADER}: send the records with records:batch")
    return read_params(call, sender=AS_THEY_ARE)


ROUTES = (
    route(
        "POST",
        "/topics/{topic}/records",
        produce_stream,
        "Write records as they arrive; the result of each is sent at once.",
        StreamResult,
        body=StreamRecord,
        query=PARAMETERS,
        errors=(40002, 40403, 50302),
        before=_check,
        streams_body=True,
    ),
)
