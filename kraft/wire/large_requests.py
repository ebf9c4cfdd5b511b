"""Clients' requests by the number of their items: read, handled and refused within bounds.

A frame of a few bytes is read as it is. Of a longer one the items are counted, and few are read at once. More are read
on a worker thread. More than `socket.request.max.items` are refused with the error of their API, and a frame with more
items than its length pays for (`items_paid`) ends its connection before they are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kraft.protocol import codec
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.encoding import TooManyItems, TopLevel, Written, WrittenOnce, counting
from kraft.protocol.errors import KafkaError, ThrottlingQuotaExceeded
from kraft.protocol.primitives import Buffer
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection
from kraft.wire.request_pieces import AT_ONCE_MAX_OF, PIECES, WHOLE_MAX, WHOLE_MAX_OF, answered, in_pieces, too_many
from metadata.environment import Environment
from replication.record_workers import RecordWorkers

UNCOUNTED_BYTES = 1_024
"""A frame as short as this is read without counting, unless its API is in `AT_ONCE_MAX_OF`."""
AT_ONCE_MAX = 2_048
"""Items that are read on the event loop."""
ITEMS_FREE = 2_048
"""Items that any frame may have."""
BYTES_PER_ITEM = 16
"""Bytes of a frame that pay for one item more: for what is made of it, and for its part of the answer."""
BYTES_PER_LIGHT_ITEM = 4
LIGHT = frozenset({2, 3, 8, 9, 10, 11, 14, 18, 20, 21, 23, 24, 28, 30, 31, 32, 37, 42, 46, 47})
"""APIs of which clients need many small items, and of which an item costs little: a partition of OffsetFetch has 4
bytes, a topic of Metadata as many as its name."""
BYTES_PER_HEAVY_ITEM = 64
HEAVY_ITEMS_FREE = 512
HEAVY = frozenset({0, 27, 33, 44, 49})
"""A batch of Produce has 61 bytes at least, much is kept for a marker, and much is said of settings and quotas that
cannot be altered."""
REFUSED_FACTOR = 2
"""Beyond so many times `socket.request.max.items` nothing is read any more."""
PRODUCE_MAX = 4_096
"""Items of a produce, which is read on the event loop: what is behind it must not be appended before it. More
partitions on one broker than Kafka recommends."""
JOINED_BYTES = 16_384
PRODUCE, FETCH = 0, 1
SETTING = "socket.request.max.items"


def items_paid(api_key: int, frame_bytes: int) -> int:
    """How many items a frame may have: what they and their answers hold is at most some times the frame."""
    if api_key in HEAVY:
        return HEAVY_ITEMS_FREE + frame_bytes // BYTES_PER_HEAVY_ITEM
    return ITEMS_FREE + frame_bytes // (BYTES_PER_LIGHT_ITEM if api_key in LIGHT else BYTES_PER_ITEM)


def at_once_max(api_key: int, frame_bytes: int) -> int:
    """Items of a request that is read on the event loop."""
    return min(PRODUCE_MAX, items_paid(PRODUCE, frame_bytes)) if api_key == PRODUCE else AT_ONCE_MAX


def read(api: ApiHandler, header: RequestHeader, frame: memoryview, *, items_max: int) -> tuple[TopLevel, int]:
    """The request and the number of its items, 0 for a frame too short to have many. Raises Malformed, TooManyItems."""
    offset = codec.body_offset(header, frame, is_flexible=header.api_version >= api.request.FLEXIBLE_FROM)
    if len(frame) <= UNCOUNTED_BYTES and header.api_key not in AT_ONCE_MAX_OF:
        return codec.decode_client_body(api.request, header.api_version, frame, offset), 0
    with counting(items_max) as counted:
        message = codec.decode_client_body(api.request, header.api_version, frame, offset)
    return message, counted.items


class LargeRequests:
    """What all clients of a node have in common for their requests with many items."""

    def __init__(self, environment: Environment, *, items_max: int) -> None:
        self._clock = environment.clock
        self._work = RecordWorkers(environment.workers)
        self._items_max = items_max

    async def in_pieces(self, api: ApiHandler, call: Call[Any]) -> TopLevel:
        """The answer to a request that was read at once."""
        return await in_pieces(api, call, self._clock)

    async def answer(
        self, api: ApiHandler, header: RequestHeader, frame: memoryview, client: ClientConnection
    ) -> TopLevel | None:
        """To a request that was too long to be read at once. Raises Malformed, or CloseConnection."""
        name, version = api.request.__name__, header.api_version
        readable = min(items_paid(header.api_key, len(frame)), REFUSED_FACTOR * self._items_max)
        try:
            message, items = await self._work.run(read, api, header, frame, items_max=readable)
        except TooManyItems:
            raise Malformed(
                f"{name} version {version} has more than {readable} items in {len(frame)} bytes: more than such a "
                f"frame may have, or than {REFUSED_FACTOR} times {SETTING} ({self._items_max})"
            ) from None
        except ThrottlingQuotaExceeded as error:
            raise Malformed(f"{name} version {version}: {error.message}") from error
        call = Call(message=message, version=version, client_id=header.client_id, connection=client)
        problem = too_many(items, self._items_max, SETTING) if items > self._items_max else None
        if api.request.API_KEY in PIECES:
            return await in_pieces(api, call, self._clock, problem)
        whole_max = (
            self._items_max if api.request.API_KEY == FETCH else WHOLE_MAX_OF.get(api.request.API_KEY, WHOLE_MAX)
        )
        if problem is None and items > whole_max:
            problem = too_many(items, whole_max, "handled at once")
        return await self._whole(api, call, problem)

    async def _whole(self, api: ApiHandler, call: Call[Any], problem: KafkaError | None) -> TopLevel | None:
        """Handled at once, and written on a worker thread."""
        if problem is None:
            try:
                response = await answered(api, call)
            except KafkaError as error:
                problem = error
            else:
                return None if response is None else await self._work.run(written, response, call.version)
        return await self._work.run(_refused, api, call, problem)


class _Joining(list[Buffer]):
    """Takes the parts of an answer and joins small ones: each for itself, they take five times their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._run = bytearray()

    def append(self, part: Buffer) -> None:
        if len(part) < JOINED_BYTES:
            self._run += part
        if len(part) >= JOINED_BYTES or len(self._run) >= JOINED_BYTES:
            self.end_run()
        if len(part) >= JOINED_BYTES:
            super().append(part)

    def __iadd__(self, parts: Iterable[Buffer]) -> _Joining:  # type: ignore[override,misc]
        for part in parts:
            self.append(part)
        return self

    def extend(self, parts: Iterable[Buffer]) -> None:
        for part in parts:
            self.append(part)

    def end_run(self) -> None:
        if self._run:
            super().append(bytes(self._run))
            self._run.clear()


def written(response: TopLevel, version: int) -> Written:
    parts = _Joining()
    response.WRITERS[version](parts, response)
    parts.end_run()
    return WrittenOnce.make(parts)


def _refused(api: ApiHandler, call: Call[Any], problem: KafkaError) -> Written:
    return written(api.refuse(call.message, call.version, problem), call.version)
