"""Records on their way out (`Sent`, with its one result) and on their way in (`Record`).

A `Sent` is the record while it waits in the producer and its result afterwards: acknowledged with an offset, refused
or unknown. It gets exactly one of the three. Key and value are let go when the result is there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypedDict

from msgspec import Struct

from kraft.client.errors import ClientClosed, DeliveryFailed

Header: TypeAlias = tuple[str, bytes | None]
Headers: TypeAlias = Mapping[str, bytes | str | None] | Sequence[tuple[str, bytes | str | None]]
Data: TypeAlias = bytes | str | None
"""A key or a value; text is written as UTF-8, None is Kafka's null."""

RECORD_OVERHEAD_BYTES: Final = 21
"""Most that a record costs in a batch beside its key, value and headers (KIP-98: lengths, deltas, attributes)."""
_PENDING: Final = -2


class RecordOptions(TypedDict, total=False):
    """What each `send` takes beside topic and value."""

    key: Data
    partition: int | None
    headers: Headers
    timestamp: int | None
    """In ms; None: now."""


class Outgoing(Struct):
    """A record that a caller has handed to `send`."""

    key: bytes | None
    value: bytes | None
    partition: int | None
    headers: list[Header]
    timestamp_ms: int | None
    size: int
    """An upper bound of its bytes in an uncompressed batch."""


def outgoing(
    value: Data,
    *,
    key: Data = None,
    partition: int | None = None,
    headers: Headers = (),
    timestamp: int | None = None,
) -> Outgoing:
    """Raises TypeError for an option that is none of RecordOptions, and for a key or a value of another type."""
    key, value = to_bytes(key), to_bytes(value)
    named = to_headers(headers) if headers else []
    return Outgoing(key, value, partition, named, timestamp, size_of(key, value, named))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An acknowledged record."""

    topic: str
    partition: int
    offset: int
    """-1 with acks=0."""
    timestamp: int
    """The timestamp that was sent, in ms; with message.timestamp.type=LogAppendTime the log has another."""
    leader_epoch: int | None
    """The epoch of the leader that appended it, if the answer has it."""


class Sent:
    """`await sent` gives the Delivery, or raises RecordRefused or RecordUnknown. It may be awaited repeatedly."""

    __slots__ = (
        "_callbacks", "_failure", "_leader_epoch", "_offset",
        "created_ms", "headers", "key", "partition", "size", "timestamp_ms", "topic", "value",
    )  # fmt: skip

    def __init__(self, topic: str, partition: int, given: Outgoing, *, timestamp_ms: int, created_ms: float) -> None:
        self.topic = topic
        self.partition = partition
        self.key = given.key
        self.value = given.value
        self.headers = given.headers
        self.timestamp_ms = timestamp_ms
        self.created_ms = created_ms
        self.size = given.size
        self._offset = _PENDING
        self._leader_epoch: int | None = None
        self._failure: DeliveryFailed | None = None
        self._callbacks: list[Callable[[Sent], object]] | None = None

    @property
    def is_done(self) -> bool:
        return self._offset != _PENDING or self._failure is not None

    def result(self) -> Delivery:
        """The result that is there. Raises DeliveryFailed, or ClientClosed when there is none yet."""
        if self._failure is not None:
            raise self._failure
        if self._offset == _PENDING:
            raise ClientClosed("there is no result yet; await it")
        return Delivery(
            topic=self.topic,
            partition=self.partition,
            offset=self._offset,
            timestamp=self.timestamp_ms,
            leader_epoch=self._leader_epoch,
        )

    def add_done_callback(self, callback: Callable[[Sent], object]) -> None:
        """Called with this once the result is there, at once if it is."""
        if self.is_done:
            callback(self)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, Delivery]:
        if not self.is_done:
            # One future for each that waits: the one of a task that is cancelled is cancelled with it.
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if future.done() else future.set_result(None))
            yield from future
        return self.result()

    def acknowledge(self, offset: int, leader_epoch: int | None) -> None:
        assert not self.is_done, f"a second result for a record of {self.topic}-{self.partition}"
        self._offset = offset
        self._leader_epoch = leader_epoch
        self._finish()

    def fail(self, failure: DeliveryFailed) -> None:
        assert not self.is_done, f"a second result for a record of {self.topic}-{self.partition}"
        self._failure = failure
        self._finish()

    def _finish(self) -> None:
        self.key = self.value = None
        self.headers = []
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                callback(self)


def size_of(key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> int:
    """An upper bound of the bytes in an uncompressed batch."""
    size = RECORD_OVERHEAD_BYTES + (0 if key is None else len(key)) + (0 if value is None else len(value))
    for name, content in headers:
        size += 10 + len(name) * 4 + (0 if content is None else len(content))
    return size


def to_bytes(data: Data) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def to_headers(headers: Headers) -> list[Header]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, to_bytes(value)) for name, value in pairs]


def to_json(document: Any) -> bytes:
    """A value for `send`: compact UTF-8 JSON. Raises TypeError for what JSON has no word for."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it is in the log. Many are made, hence positional."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """The time in ms at the producer, or of the append with message.timestamp.type=LogAppendTime."""
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()

    def text(self) -> str | None:
        """The value as UTF-8. Raises UnicodeDecodeError, with the record at hand to decide what becomes of it."""
        return None if self.value is None else self.value.decode()

    def json(self) -> Any:
        """The value as JSON; None for null. Raises ValueError."""
        return None if self.value is None else json.loads(self.value)
