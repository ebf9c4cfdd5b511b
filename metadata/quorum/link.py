"""Authenticated connections between the voters: at most one live session per pair; a dead one is found within two
seconds.

The voter with the higher id dials. A peer is identified by its proof in the hello (see `seal`), never by its address,
which may be a proxy's. A connection that fails a check is closed with one event and affects nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from metadata.decode_errors import DECODE_ERRORS
from metadata.environment import ConnectionClosed, Environment, FrameConnection, FrameListener, Tls
from metadata.quorum.filters import Message
from metadata.quorum.frame_auth import NONCE_BYTES, REASON_LENGTH_MAX, Hello, Refused, Seal
from metadata.quorum.handshake import ANYBODY, shake_hands
from metadata.quorum.messages import MalformedMessage
from metadata.rate_limited_log import RateLimitedLog
from metadata.unauthenticated import QUORUM_LISTENER, UnauthenticatedConnections

FRAME_BYTES_MAX = 8 * 1024 * 1024
"""Longest frame of a voter: more than the largest batch of entries (1 MiB and one command) and than a piece of a
snapshot."""
UNSENT_BYTES_MAX = 128 * 1024 * 1024
"""A peer that takes no more is disconnected and starts over (SO-L12)."""
PING_MS = 500
"""Short enough that a voter's first vote request finds a live connection (SO-L2)."""
DEAD_MS = 2_000
CONNECT_TIMEOUT_MS = 1_000
RECONNECT_MS = 100
REFUSED_RETRY_MS = 2_000
"""Wait after a failed check, which a person has to correct."""
DUPLICATE_CHECK_MS = PING_MS + 250
"""The old session of a node that appears again must be silent for this long to be replaced."""
NO_TLS: Final[Mapping[int, Tls]] = {}
DUPLICATE: Final = {"type": "duplicate"}
"""Sent to a node before it is refused, so that it can report the reason."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class LinkHandler(Protocol):
    def on_connected(self, peer: int) -> None: ...
    def on_disconnected(self, peer: int) -> None: ...
    def on_message(self, peer: int, message: Any) -> None:
        """Process a message. Raises MalformedMessage."""
        ...

    def on_refused(self, peer: int) -> None:
        """The peer's port refuses connections: no process listens there."""
        ...

    def on_duplicate(self, peer: int) -> None:
        """The peer refuses this node: it is connected with another process of its id."""
        ...

    def emit(self, event: str, /, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkIdentity:
    cluster_id: str
    node_id: int
    key: bytes


@dataclass(slots=True, kw_only=True, eq=False)
class _Session:
    peer: int
    connection: FrameConnection
    seal: Seal
    incarnation: bytes
    received_at_ms: int
    frames: int = 0


class Link:
    def __init__(
        self,
        environment: Environment,
        identity: LinkIdentity,
        *,
        peers: Mapping[int, tuple[str, int]],
        listen: tuple[str, int],
        handler: LinkHandler,
        listen_tls: Tls | None = None,
        dial_tls: Mapping[int, Tls] = NO_TLS,
    ) -> None:
        self._listen_tls, self._dial_tls = listen_tls, dial_tls
        self._clock = environment.clock
        self._network = environment.network
        self._rng = environment.rng
        self._identity = identity
        self._incarnation = environment.rng.randbytes(NONCE_BYTES)
        self._peers = dict(peers)
        self._listen = listen
        self._handler = handler
        self._unauthenticated = UnauthenticatedConnections(QUORUM_LISTENER)
        self._refusals = RateLimitedLog()
        self._sessions: dict[int, _Session] = {}
        self._listener: FrameListener | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the port is in use."""
        if self._peers:
            host, port = self._listen
            self._listener = await self._network.listen(
                host,
                port,
                self._accept,
                frame_bytes_max=QUORUM_LISTENER.frame_bytes_max,
                tls=self._listen_tls,
            )

    async def run(self) -> None:
        """Keep the sessions alive until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            for peer in self._peers:
                if peer < self._identity.node_id:
                    tasks.create_task(self._dial_forever(peer))

    async def close_port(self) -> None:
        """Called before anything else ends: a voter that loses this one at once tries our port, and becomes a candidate
        only if it refuses."""
        if self._listener is not None:
            await self._listener.close()

    def send(self, peer: int, message: Message) -> bool:
        """Send a message. False when the peer is not connected."""
        session = self._sessions.get(peer)
        if session is None or session.connection.is_closed:
            return False
        if session.connection.unsent_bytes > UNSENT_BYTES_MAX:
            self._handler.emit("quorum_peer_too_slow", peer=peer, unsent_bytes=session.connection.unsent_bytes)
            self._drop(session)
            return False
        session.connection.send(session.seal.close(_encode(message)))
        return True

    def disconnect_all(self) -> None:
        for session in list(self._sessions.values()):
            self._drop(session)

    # --- making sessions ----------------------------------------------------------------------------------------

    async def _dial_forever(self, peer: int) -> None:
        while True:
            await self._clock.sleep(await self._dial(peer))

    async def _dial(self, peer: int) -> int:
        """Open one session, if possible; return the wait before the next try."""
        connection = await self._connect(peer)
        if connection is None:
            return RECONNECT_MS
        return await self._serve(connection, peer)

    async def _connect(self, peer: int) -> FrameConnection | None:
        host, port = self._peers[peer]
        try:
            return await self._network.connect(
                host,
                port,
                frame_bytes_max=QUORUM_LISTENER.frame_bytes_max,
                timeout_ms=CONNECT_TIMEOUT_MS,
                tls=self._dial_tls.get(peer),
            )
        except ConnectionRefusedError:
            self._handler.on_refused(peer)
        except (OSError, TimeoutError):
            pass  # unreachable for now; the caller tries again
        return None

    async def _accept(self, connection: FrameConnection) -> None:
        await self._serve(connection, ANYBODY)

    async def _probe(self, peer: int) -> None:
        """A peer that called this node is lost: find out whether only the connection broke or its process is gone."""
        connection = await self._connect(peer)
        if connection is not None:
            connection.abort()

    async def _serve(self, connection: FrameConnection, receiver: int) -> int:
        """Run a session to its end. Return the wait of a dialer before the next."""
        try:
            async with self._clock.timeout(QUORUM_LISTENER.wait_ms):
                with self._unauthenticated.waiting(connection) if receiver == ANYBODY else nullcontext():
                    session = await self._shake_hands(connection, receiver)
            await self._admit(session)
        except Refused as refused:
            self._send_refusal(connection, refused)
            connection.close()
            return REFUSED_RETRY_MS
        except (ConnectionClosed, TimeoutError):
            connection.abort()
            return RECONNECT_MS
        retry_ms = await self._receive_all(session)
        if session.peer > self._identity.node_id:
            await self._probe(session.peer)
        return retry_ms

    async def _shake_hands(self, connection: FrameConnection, receiver: int) -> _Session:
        """Authenticate both sides. Raises Refused, ConnectionClosed."""
        ours = Hello(
            cluster_id=self._identity.cluster_id,
            sender=self._identity.node_id,
            receiver=receiver,
            nonce=self._rng.randbytes(NONCE_BYTES),
            incarnation=self._incarnation,
        )
        theirs, seal = await shake_hands(
            connection, ours, voters=sorted(self._peers), key=self._identity.key, frame_bytes_max=FRAME_BYTES_MAX
        )
        return _Session(
            peer=theirs.sender,
            connection=connection,
            seal=seal,
            incarnation=theirs.incarnation,
            received_at_ms=self._clock.monotonic_ms(),
        )

    async def _admit(self, session: _Session) -> None:
        """Replace the peer's older session (SO-L12), but let no second node with its id replace it."""
        old = self._sessions.get(session.peer)
        if old is not None and old.incarnation != session.incarnation:
            frames = old.frames
            await self._clock.sleep(DUPLICATE_CHECK_MS)
            if self._sessions.get(session.peer) is old and old.frames != frames:
                self._handler.emit("quorum_duplicate_node_id", node=session.peer, address=session.connection.peer)
                session.connection.send(session.seal.close(_encode(DUPLICATE)))
                raise Refused(f"node {session.peer} is connected already: two processes have this id")
        current = self._sessions.get(session.peer)
        if current is not None:
            self._drop(current)
        self._sessions[session.peer] = session
        self._handler.on_connected(session.peer)

    # --- a session's life ---------------------------------------------------------------------------------------

    async def _receive_all(self, session: _Session) -> int:
        try:
            await session.connection.receive_while(partial(self._take, session))
        except ConnectionClosed:
            return RECONNECT_MS if session.frames == 0 else 0
        except (Refused, MalformedMessage) as error:
            self._send_refusal(session.connection, error)
            return REFUSED_RETRY_MS
        finally:
            self._drop(session)
        return RECONNECT_MS

    def _send_refusal(self, connection: FrameConnection, why: Exception) -> None:
        left_out = self._refusals.admit(self._clock.monotonic_ms())
        if left_out is not None:
            more = {"left_out": left_out} if left_out else {}
            self._handler.emit("quorum_connection_refused", address=connection.peer, reason=str(why), **more)

    def _take(self, session: _Session, frame: memoryview) -> bool:
        """Process a frame. False when a newer session has replaced this one: it may have begun with its messages
        (SO-L12)."""
        if self._sessions.get(session.peer) is not session:
            return False
        body = session.seal.open(frame)
        session.received_at_ms = self._clock.monotonic_ms()
        session.frames += 1
        if body:
            message = message_of(body)
            if message == DUPLICATE:
                self._handler.on_duplicate(session.peer)
                raise Refused(f"node {session.peer} is connected with another process of our id")
            self._handler.on_message(session.peer, message)
        return True

    def _drop(self, session: _Session) -> None:
        session.connection.abort()
        if self._sessions.get(session.peer) is session:
            del self._sessions[session.peer]
            self._handler.on_disconnected(session.peer)

    async def _watch(self) -> None:
        """Send an empty frame to each peer regularly, and close sessions that were silent for too long."""
        while True:
            await self._clock.sleep(PING_MS)
            now_ms = self._clock.monotonic_ms()
            for session in list(self._sessions.values()):
                if now_ms - session.received_at_ms > DEAD_MS:
                    self._handler.emit("quorum_peer_silent", peer=session.peer)
                    self._drop(session)
                else:
                    session.connection.send(session.seal.close(b""))


def message_of(body: memoryview) -> Any:
    """The message of a frame. Raises MalformedMessage. The handler checks its content."""
    try:
        return _decode(body)
    except DECODE_ERRORS as error:
        raise MalformedMessage(f"no msgpack: {type(error).__name__} {error}"[:REASON_LENGTH_MAX]) from error
