"""Limits of a listener for connections that have not authenticated: short frames, few of them, few places, little time.

One table holds all limits, a row for each listener, so that a listener without authentication gets a row of its own
and not the limits between nodes. A frame is judged by its length, before memory is taken for it
(`FrameConnection.take_frames` raises the limit afterwards).
A new connection always gets a place. When all are taken, the address that holds most places loses its oldest
connection. So no client keeps others out by connecting without authenticating.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnauthenticatedLimits:
    frame_bytes_max: int
    frames_max: int
    """Requests before authentication is done; one more ends the connection."""
    connections_max: int
    """Places for connections that have sent nothing yet, or are authenticating, at the same time."""
    wait_ms: int
    """Time from the connection to the end of authentication."""


KAFKA_LISTENER = UnauthenticatedLimits(frame_bytes_max=16_384, frames_max=16, connections_max=1_024, wait_ms=10_000)
"""A SASL exchange is ApiVersions, SaslHandshake and two SaslAuthenticate of some hundred bytes each (Kafka's
sasl.server.max.receive.size is 524,288). After a broker's restart its clients connect all at once; a connection that
has sent nothing costs some KiB. Where clients are served, the first frame may be as long as any other."""
QUORUM_LISTENER = UnauthenticatedLimits(frame_bytes_max=4_096, frames_max=3, connections_max=64, wait_ms=2_000)
"""A hello, a proof, and the confirmation that the acceptor's proof was right."""
TLS_HANDSHAKES = UnauthenticatedLimits(frame_bytes_max=0, frames_max=0, connections_max=1_024, wait_ms=10_000)
"""A row for each listener with TLS: no frame is taken before the handshake is done."""


class Waiting(Protocol):
    """A connection that has not authenticated."""

    @property
    def peer(self) -> str: ...
    def abort(self) -> None: ...


class UnauthenticatedConnections:
    """The connections of one listener that have not authenticated yet."""

    def __init__(self, limits: UnauthenticatedLimits) -> None:
        self.limits = limits
        self._waiting: dict[Waiting, str] = {}
        """Connection -> address of the peer, in the order of arrival."""
        self._is_crowded = False

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def waiting(self, connection: Waiting) -> Iterator[None]:
        """Hold a place until the end of the block. The connection may be aborted meanwhile, in favour of another."""
        if len(self._waiting) >= self.limits.connections_max:
            self._make_room(connection)
        self._waiting[connection] = connection.peer.rpartition(":")[0]
        try:
            yield
        finally:
            self._waiting.pop(connection, None)
            if len(self._waiting) <= self.limits.connections_max // 2:
                self._is_crowded = False

    def end_one(self, newcomer: Waiting) -> bool:
        """End one connection in favour of a new one for which all places are taken. False when there is none to end."""
        if not self._waiting:
            return False
        self._make_room(newcomer)
        return True

    def _make_room(self, newcomer: Waiting) -> None:
        crowd, _ = Counter(self._waiting.values()).most_common(1)[0]
        oldest = next(connection for connection, address in self._waiting.items() if address == crowd)
        if not self._is_crowded:  # one line for each crowd: clients that are not authenticated must not fill the log
            self._is_crowded = True
            LOG.warning(
                "%d connections have not authenticated, most of them from %s: the oldest of them make room for %s",
                len(self._waiting),
                crowd,
                newcomer.peer,
            )
        del self._waiting[oldest]
        oldest.abort()
