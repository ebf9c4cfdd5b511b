"""Everything that a node needs of the world outside: clock, files, network, worker threads, randomness.

Only the composition root (`kraft/runtime`) implements these with the real thing; the simulator
implements them with virtual time, an in-memory disk and an in-memory network. No other module
touches sockets, files, threads, the clock or random numbers; a test enforces it.

Everything here is called from the event loop that owns the caller, except the methods that are documented as
blocking: blocking calls of `File`/`Files` that wait for a device (`sync`, `sync_directory`, `remove_tree`)
go through `Workers.run`, unless the caller is itself on a thread that may block (the quorum's).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from kraft.protocol.primitives import Buffer

P = ParamSpec("P")
T = TypeVar("T")


class TimerHandle(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """One node's clock. Durations are milliseconds; a simulated clock may drift and jump."""

    def monotonic_us(self) -> int:
        """Microseconds on a clock that never goes back; for durations and latency."""
        ...

    def monotonic_ms(self) -> int: ...

    def wall_ms(self) -> int:
        """Milliseconds since the epoch; for record timestamps and events only, never for timeouts."""
        ...

    async def sleep(self, ms: float) -> None: ...

    def timeout(self, ms: float) -> AbstractAsyncContextManager[object]:
        """Like `asyncio.timeout`: raises the builtin TimeoutError inside the block after `ms`."""
        ...

    def call_later(self, ms: float, callback: Callable[..., object], *args: object) -> TimerHandle: ...


class File(Protocol):
    """An open file. `append`, `pwrite` and `pread` touch the page cache only and stay inline."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int:
        """Length in bytes, known without a system call."""
        ...

    def append(self, parts: Sequence[Buffer]) -> int:
        """Write all parts at the end, wholly or not at all (a short write is cut back); returns the new size.

        Raises OSError (ENOSPC, EIO); the file is then as long as before.
        """
        ...

    def pwrite(self, offset: int, data: Buffer) -> None: ...
    def pread(self, offset: int, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end of the file."""
        ...

    def truncate(self, size: int) -> None: ...
    def sync(self) -> None:
        """fdatasync. Blocking."""
        ...

    def close(self) -> None: ...


class DirectoryLock(Protocol):
    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Space of the volume that a path is on."""

    total_bytes: int
    usable_bytes: int


class Files(Protocol):
    """A file system. Paths are absolute or relative to the process, as strings."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """Open for reading and writing. Raises FileNotFoundError unless `create`."""
        ...

    def exists(self, path: str) -> bool: ...
    def is_directory(self, path: str) -> bool: ...
    def size(self, path: str) -> int: ...
    def permissions(self, path: str) -> int:
        """Permission bits of a file or directory (`stat.S_IMODE`). Raises FileNotFoundError."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """Names in the directory, sorted."""
        ...

    def make_directories(self, path: str) -> None: ...
    def rename(self, old: str, new: str) -> None:
        """Atomic: replaces a file. Durable only after `sync_directory` of the parent."""
        ...

    def remove(self, path: str) -> None: ...
    def remove_tree(self, path: str) -> None:
        """Blocking."""
        ...

    def sync_directory(self, path: str) -> None:
        """fsync of the directory. Blocking."""
        ...

    def space(self, path: str) -> DiskSpace:
        """Blocking."""
        ...

    def lock_directory(self, path: str) -> DirectoryLock:
        """Exclusive lock on the folder's `.lock` file. Raises BlockingIOError when another process has it."""
        ...


class ConnectionClosed(Exception):
    """The peer or the network ended this connection; sent frames may or may not have arrived."""


class NotConnected(ConnectionError):
    """No usable connection was made; the request was certainly not sent."""


class FrameConnection(Protocol):
    """A TCP connection that carries frames: a 4-byte big-endian length, then that many bytes."""

    @property
    def peer(self) -> str:
        """`host:port` of the other side, for messages."""
        ...

    @property
    def certificate_name(self) -> str:
        """Distinguished name of the peer's certificate (RFC 2253), which was verified; empty without one."""
        ...

    @property
    def is_encrypted(self) -> bool:
        """Whether it has TLS."""
        ...

    @property
    def is_closed(self) -> bool: ...
    @property
    def unsent_bytes(self) -> int:
        """Bytes accepted by `send` and not yet handed to the kernel."""
        ...

    @property
    def is_writable(self) -> bool:
        """Open, and the send buffer is below its limit: `drain` would return at once."""
        ...

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one frame made of the parts; never blocks. A closed connection drops it silently. A list of
        parts is the connection's from then on: it lets go of each as it is sent."""
        ...

    async def drain(self) -> None:
        """Wait until the send buffer is below its limit. Raises ConnectionClosed."""
        ...

    async def receive(self) -> memoryview:
        """Returns the next frame's payload. It belongs to the receiver for as long as it is referenced, and may be
        written into where it is not read-only. Raises ConnectionClosed.

        A frame longer than the limit of connect or listen closes the connection.
        While nobody receives, at most one read buffer is filled: the peer is held back by TCP.
        """
        ...

    async def receive_while(self, take: Callable[[memoryview], bool]) -> memoryview:
        """Pass each frame to `take` as it arrives, in order, for as long as it returns True; return the first frame
        that it refuses, as `receive` does. Raises ConnectionClosed, or the error that `take` raises.

        No task is woken for a frame that is taken: `take` runs where bytes arrive, and must be short. A frame that it
        refuses must have had no effect: `take` may get it again.
        """
        ...

    def bound_send_buffer(self, bytes_max: int) -> None:
        """Limit the sent bytes that the system holds; the rest stays `unsent_bytes`."""
        ...

    def bound_unsent(self, bytes_max: int) -> None:
        """From now on the send buffer is at its limit with so many bytes, and below it again when it is empty."""
        ...

    def when_taken(self, then: Callable[[], None]) -> None:
        """Call `then` when the send buffer is below its limit (at once where it is), or when the connection has ended
        and holds nothing any more."""
        ...

    def take_frames(self, *, bytes_max: int, is_trusted: bool = True) -> None:
        """Take frames up to this length from now on, because the peer has authenticated: the limits of connect or
        listen are for a peer that has not. The frames of one that is not trusted, a user, go on to share the memory for
        arriving frames with those of others."""
        ...

    def close(self) -> None:
        """Close after the queued frames are sent, within a time limit. Frames that arrived and that nobody has received
        are dropped."""
        ...

    def abort(self) -> None:
        """Close at once with a reset."""
        ...


class FrameListener(Protocol):
    @property
    def port(self) -> int: ...
    async def close(self) -> None:
        """Stop accepting and close all accepted connections."""
        ...


OnConnection: TypeAlias = Callable[[FrameConnection], Awaitable[None]]


class Tls(Protocol):
    """Certificates and rules of TLS; `kraft.runtime.tls` makes it. What it holds may change while connections live."""

    def context(self) -> Any:
        """The context of a new connection."""
        ...

    @property
    def takes_plain(self) -> bool:
        """Whether a listener also takes connections that do not begin with TLS."""
        ...


class Network(Protocol):
    async def connect(
        self, host: str, port: int, *, frame_bytes_max: int, timeout_ms: int, tls: Tls | None = None
    ) -> FrameConnection:
        """Open a connection. Raises ConnectionRefusedError, TimeoutError, or another OSError, also for a certificate
        that `tls` does not trust."""
        ...

    @property
    def connections_max(self) -> int:
        """Accepted connections that one listener has at a time; one more is reset."""
        ...

    async def listen(
        self,
        host: str,
        port: int,
        on_connection: OnConnection,
        *,
        frame_bytes_max: int,
        arriving_bytes_max: int | None = None,
        tls: Tls | None = None,
    ) -> FrameListener:
        """Serve each connection with its own task running `on_connection`; it is closed when that returns.

        `arriving_bytes_max`: bytes of long frames that arrive on all its connections together and that nobody has taken
        yet. A connection that needs more is held back by TCP; while others are held back, a frame that arrives too
        slowly is given up.
        Raises OSError (EADDRINUSE). Port 0 lets the system choose.
        """
        ...


class Workers(Protocol):
    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work on a worker thread. Exceptions pass through."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    clock: Clock
    files: Files
    network: Network
    workers: Workers
    rng: random.Random
    """Seeded in simulation, `random.SystemRandom` in production; also the source of UUIDs and nonces."""
