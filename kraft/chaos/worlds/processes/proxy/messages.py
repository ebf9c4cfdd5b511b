"""Find the messages in the bytes of a link, so that a fault can hit exactly one answer or request.

Kafka and quorum links carry frames (length u32, then a Kafka header: api key i16, version i16, correlation id i32;
answers: correlation id first). Client links carry HTTP/1.1 without pipelining, so the first bytes after an answer begin
a request, and the first bytes after a request begin its answer. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from kraft.chaos.worlds.processes.proxy.rules import Kind

CONNECTING_APIS: Final = frozenset({17, 18, 36})
"""SaslHandshake, ApiVersions, SaslAuthenticate: faults ignore them."""
HEAD_BYTES: Final = 10
PENDING_MAX: Final = 10_000
"""The most requests without an answer that are kept; acks=0 never gets one."""
SAFE_METHODS: Final = (b"GET", b"HEAD", b"OPTIONS")


class Messages(Protocol):
    """Both methods yield (position in the data, length of the message) for each message that begins in the data and
    that a fault may hit; a position is negative if the header began in earlier data."""

    def requests(self, data: bytes) -> Iterator[tuple[int, int]]: ...
    def answers(self, data: bytes) -> Iterator[tuple[int, int]]: ...


def messages_of(kind: Kind) -> Messages:
    match kind:
        case "http":
            return HttpMessages()
        case "kafka" | "clients":
            return KafkaMessages()
        case "quorum":
            return QuorumMessages()


class NoMessages:
    """Bytes in which no message can be found: TLS from end to end."""

    def requests(self, data: bytes) -> Iterator[tuple[int, int]]:
        return iter(())

    def answers(self, data: bytes) -> Iterator[tuple[int, int]]:
        return iter(())


class Frames:
    """Splits a stream into frames; yields (position, length with prefix, first bytes) when the header of a frame is
    complete."""

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        at, end = 0, len(data)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            start = at - len(self._head)
            take = data[at : at + HEAD_BYTES + 4 - len(self._head)]
            head = self._head + take
            length = 4 + int.from_bytes(head[:4], "big")
            if len(head) < min(HEAD_BYTES + 4, length) or len(head) < 4:
                self._head = head
                return
            self._head = b""
            self._skip = start + length - at
            yield start, length, head[4:]


class KafkaMessages:
    def __init__(self) -> None:
        self._requests, self._answers = Frames(), Frames()
        self._pending: deque[tuple[bytes, bool]] = deque(maxlen=PENDING_MAX)

    def requests(self, data: bytes) -> Iterator[tuple[int, int]]:
        for start, length, head in self._requests.feed(data):
            is_work = int.from_bytes(head[:2], "big") not in CONNECTING_APIS
            self._pending.append((head[4:8], is_work))
            if is_work:
                yield start, length

    def answers(self, data: bytes) -> Iterator[tuple[int, int]]:
        for start, length, head in self._answers.feed(data):
            while self._pending:
                correlation, is_work = self._pending.popleft()
                if correlation == head[:4]:
                    if is_work:
                        yield start, length
                    break


class QuorumMessages:
    """Encrypted frames: all are equal, and there are no answers."""

    def __init__(self) -> None:
        self._requests, self._answers = Frames(), Frames()

    def requests(self, data: bytes) -> Iterator[tuple[int, int]]:
        return ((start, length) for start, length, _ in self._requests.feed(data))

    def answers(self, data: bytes) -> Iterator[tuple[int, int]]:
        return ((start, length) for start, length, _ in self._answers.feed(data))


class HttpMessages:
    """Only requests that change something count, with their answers. Lengths are those of the first bytes."""

    def __init__(self) -> None:
        self._is_asking = False
        self._is_work = False

    def requests(self, data: bytes) -> Iterator[tuple[int, int]]:
        if not self._is_asking:
            self._is_asking = True
            self._is_work = not data.startswith(SAFE_METHODS)
            if self._is_work:
                yield 0, len(data)

    def answers(self, data: bytes) -> Iterator[tuple[int, int]]:
        if self._is_asking:
            self._is_asking = False
            if self._is_work:
                yield 0, len(data)
