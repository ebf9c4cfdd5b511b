"""Named limits of the HTTP server, and the budget of request bodies held in memory.

Invariant: the bytes reserved in a `BodyBudget` are those of requests that are being answered now; each is
released when its request ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kraft.http.errors import overloaded
from kraft.protocol.primitives import INT32_MAX

LOOK_AT_MIN = 64
"""Connections let in before closed ones among them are forgotten; then twice as many as were open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the work that one node's HTTP server does at a time."""

    body_bytes_max: int = 104_857_600
    """Largest request body; a longer one is answered 413."""
    body_values_max: int = 50_000
    """Values of a JSON body that is not records (`socket.request.max.items`); one more is answered 413."""
    read_bytes_default: int = 1_048_576
    read_bytes_max: int = 57_671_680
    """A read that asks for more gets this much."""
    read_records_max: int = 50_000
    """Records of one answer, however small they are; the next ones are asked for with the next request."""
    read_wait_ms_default: int = 500
    read_wait_ms_max: int = 300_000
    produce_records_max: int = 100_000
    """Records of one produce request; one more is answered 413. Raw batches are bounded by their leader."""
    produce_headers_max: int = 400_000
    """Headers of all its records together."""
    batch_entries_max: int = 10_000
    """Entries of one `records:batch`; one more is answered 422."""
    room_wait_ms: int = 12_000
    """How long a read waits for room for its answer (queued.max.response.bytes); then 503."""
    control_timeout_ms: int = 30_000
    """How long an administrative request waits for the controller."""
    header_wait_ms: int = 10_000
    """From the connection, or the first byte of a later request, to the end of its headers; then 408, or the end of a
    connection that has said nothing."""
    body_wait_ms: int = 20_000
    """What a body may take whatever its length, beyond `body_bytes_per_second`; then 408."""
    body_bytes_per_second: int = 1_024
    """A body that comes slower than this is given up after `body_wait_ms`."""
    produce_streams_max: int = 512
    """v3 `records` requests at once, each with up to half a MiB in its connection's buffer; one more gets 503."""
    stream_unsent_bytes_max: int = 67_108_864
    """Bytes that clients of streams have not taken, of all together; beyond it the one held back longest is cut off."""
    answer_wait_ms: int = 60_000
    """A client that takes nothing of its answer for so long is disconnected."""
    unasked_connections: int = 1_024
    """Connections beyond `max.connections` that may be open without having asked anything; more are closed at once."""
    connections_max: int = INT32_MAX
    """What the process has descriptors for; more are closed at once."""

    @property
    def served_connections_max(self) -> int:
        """A fifth is left for those who have not asked yet, so that one too many hears why it is refused."""
        return max(self.connections_max - self.connections_max // 5, 1)


class BodyBudget:
    """Bytes of request bodies held at once (`queued.max.request.bytes`)."""

    def __init__(self, capacity: Callable[[], int]) -> None:
        self._capacity = capacity
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes that are reserved now."""
        return self._used

    def reserve(self, size: int) -> None:
        """Raises HttpError 503 when the budget is spent; a request alone in the house is always let in."""
        if self._used and self._used + size > self._capacity():
            raise overloaded(
                f"this node holds {self._used} bytes of request bodies and takes no {size} more "
                f"(queued.max.request.bytes is {self._capacity()}); try again"
            )
        self._used += size

    def release(self, size: int) -> None:
        """Gives back what `reserve` took."""
        assert 0 <= size <= self._used, (size, self._used)
        self._used -= size


class Slots:
    """A number of places, e.g. for long polls."""

    def __init__(self, limit: Callable[[], int], *, what: str) -> None:
        self._limit = limit
        self._what = what
        self.taken = 0

    def __enter__(self) -> None:
        if self.taken >= self._limit():
            raise overloaded(f"{self.taken} {self._what} are open, which is the most this node serves; try again")
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1


class Connections:
    """The connections that may send requests (`max.connections`): each is let in once, at its first request."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._admitted: set[object] = set()
        self._look_at = LOOK_AT_MIN
        self.live: Callable[[], Iterable[object]] = lambda: ()
        """The open connections; the listener sets it. Closed ones are forgotten now and then."""

    def admit(self, connection: object) -> None:
        """Raises HttpError 503, which closes the connection, when there are as many as may be."""
        if connection in self._admitted:
            return
        if len(self._admitted) >= min(self._limit(), self._look_at):
            # Not at every newcomer, which would cost as much as there are connections.
            self._admitted.intersection_update(self.live())
            self._look_at = max(2 * len(self._admitted), LOOK_AT_MIN)
        count = len(self._admitted)
        if count >= self._limit():
            raise overloaded(
                f"{count} connections are open, as many as max.connections or this process's limit of open files "
                "allows; try again",
                closes=True,
            )
        self._admitted.add(connection)
