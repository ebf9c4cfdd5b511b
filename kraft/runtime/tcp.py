"""One TCP connection: frames of a 4-byte big-endian length and that many bytes, as in Kafka's protocol.

Reading: bytes arrive in one buffer that all connections of a loop share, because it is not used between two calls of
the loop. Complete frames are copied out of it as they are taken, `SPLIT_MAX` ahead; a longer incomplete one gets a
buffer of its own size into which the kernel writes directly, so a large payload is copied once. While no receiver
waits, reading stops after `QUEUED_BYTES_MAX` of complete frames, or `SPLIT_MAX` of them. `kraft.runtime.frame_memory`
limits the frames of all connections of a listener. Writing: small frames are joined into one write; large parts are
passed to the kernel without a copy.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from kraft.protocol.primitives import Buffer
from kraft.runtime.frame_memory import STEP_BYTES, ArrivingFrames
from kraft.runtime.frame_receiver import FrameReceiver, take_nothing
from kraft.runtime.heap import uncleared
from kraft.runtime.tls import distinguished_name

LOG = logging.getLogger(__name__)

READ_BUFFER_BYTES = 64 * 1024
"""Size of the buffer that all connections of a loop share."""
REST_BYTES_MAX = 16 * 1024
"""The beginning of a frame that a connection keeps between two reads; a longer frame gets a buffer of its own."""
QUEUED_BYTES_MAX = READ_BUFFER_BYTES
"""Complete frames kept while no receiver waits; then the peer is held back by TCP."""
SPLIT_MAX = 32
"""Frames of a connection that are split off before they are taken: as objects they have some 400 bytes each, so a read
of only the shortest would become thirty times as large."""
JOINED_BYTES_MAX = 32 * 1024
"""Frames up to this size are joined into one buffer: a copy costs less than another vector."""
AT_ONCE_BYTES_MAX = 128 * 1024
"""Before Python 3.12 a transport joins what is written at once, and keeps a copy of what the kernel does not take: the
parts of a longer frame are written one by one, each let go when the transport has it."""
TRUSTED_BYTES_MAX = 16 * 1024 * 1024
"""Size of an announced frame of a trusted peer that gets all of its memory at once: a follower's answer is shorter
(replica.fetch.response.max.bytes)."""
WRITE_HIGH_BYTES = 1024 * 1024
"""`drain` waits while more is unsent, until `WRITE_LOW_BYTES`."""
WRITE_LOW_BYTES = 256 * 1024
FLUSH_MS_MAX = 10_000
"""Time in which a closed connection may send its queued frames; then it is reset, and its memory is returned."""

_LENGTH = struct.Struct(">i")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TcpConnection(FrameReceiver, asyncio.BufferedProtocol):
    """One connection: the protocol that the loop calls, and the `FrameConnection` that its owner uses."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        frame_bytes_max: int,
        buffer: memoryview | None = None,
        arriving: ArrivingFrames | None = None,
    ) -> None:
        """`buffer`: the loop's, or else one of its own. `arriving`: the memory that its frames share with others."""
        super().__init__(loop)
        self._frame_bytes_max = frame_bytes_max
        self._arriving = arriving
        self._transport: asyncio.Transport | None = None
        self._buffer = read_buffer() if buffer is None else buffer
        self._rest: Buffer = b""
        """Rest of the last read: the beginning of a frame, or everything that is not split yet."""
        self._is_behind = False
        """Frames that have arrived are not split yet; nothing is read meanwhile."""
        self._large: memoryview | None = None
        self._large_filled = 0
        self._large_granted = 0
        """Bytes of it that memory was granted for."""
        self._queued_bytes = 0
        self._is_reading_paused = False
        self._waits_for_memory = False
        self._has_large_frames = False
        """Some frames that were not taken yet hold memory."""
        self._writable: asyncio.Future[None] | None = None
        self._when_taken: list[Callable[[], None]] = []
        self._flush: asyncio.TimerHandle | None = None
        self._certificate_name = ""
        self._is_encrypted = False
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done after the socket is closed."""

    # --- what the owner calls -----------------------------------------------------------------------------

    @property
    def certificate_name(self) -> str:
        return self._certificate_name

    @property
    def is_encrypted(self) -> bool:
        return self._is_encrypted

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._transport is None or self._is_closed else self._transport.get_write_buffer_size()

    @property
    def is_writable(self) -> bool:
        return self._writable is None and not self._is_closed

    def send(self, parts: Sequence[Buffer]) -> None:
        if self._is_closed or self._transport is None:
            return
        size = sum(map(len, parts))
        if size <= JOINED_BYTES_MAX:
            self._transport.write(b"".join((_LENGTH.pack(size), *parts)))
        elif size <= AT_ONCE_BYTES_MAX:
            self._transport.writelines(_gathered(_LENGTH.pack(size), parts))
        else:
            for run in _let_go(_LENGTH.pack(size), parts if isinstance(parts, list) else list(parts)):
                self._transport.write(run)

    async def drain(self) -> None:
        while self._writable is not None and not self._writable.done() and not self._is_closed:
            await asyncio.shield(self._writable)
        if self._is_closed:
            raise self._closed_error()

    def bound_send_buffer(self, bytes_max: int) -> None:
        if self._transport is not None and not self._is_closed:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, bytes_max)

    def bound_unsent(self, bytes_max: int) -> None:
        if self._transport is not None and not self._is_closed:
            self._transport.set_write_buffer_limits(high=bytes_max, low=0)

    def when_taken(self, then: Callable[[], None]) -> None:
        if self.lost.done() or (self._writable is None and not self._is_closed):
            then()
        else:
            self._when_taken.append(then)

    def take_frames(self, *, bytes_max: int, is_trusted: bool = True) -> None:
        self._frame_bytes_max = bytes_max
        if self._arriving is not None and is_trusted:
            self._arriving.leave(self)
            self._arriving = None
            self._large_granted = 0 if self._large is None else len(self._large)
            self._memory_came()

    def close(self) -> None:
        unsent = self.unsent_bytes
        self._end("closed here")
        self._forget_frames()
        if self._transport is not None:
            self._transport.close()
            if unsent and not self.lost.done():
                self._flush = self._loop.call_later(FLUSH_MS_MAX / 1_000, self.abort)

    def abort(self) -> None:
        self._end("aborted here")
        if self._transport is not None and not self.lost.done():
            _reset_on_close(self._transport)
            self._transport.abort()

    # --- what the event loop calls ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = _address(transport.get_extra_info("peername"))
        self._is_encrypted = transport.get_extra_info("ssl_object") is not None
        certificate = transport.get_extra_info("peercert")
        if certificate:
            self._certificate_name = distinguished_name(certificate)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)
        _set_options(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._large is not None:
            return self._large[self._large_filled : self._large_granted]
        kept = len(self._rest)
        if kept:
            self._buffer[:kept] = self._rest
        return self._buffer[kept:]

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_closed:
            return
        if self._large is None:
            data = self._buffer[: len(self._rest) + nbytes]
            if self._is_taken_at_once(data):
                return
            self._parse(data)
        else:
            self._large_filled += nbytes
            if self._large_filled == len(self._large):
                frame, self._large = self._large, None
                self._has_large_frames = True
                self._deliver(frame)
            elif self._large_filled == self._large_granted:
                self._ask_for_memory()
        self._after_read()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exception: Exception | None) -> None:
        self._end("closed by the peer" if exception is None else str(exception))
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if not self.lost.done():
            self.lost.set_result(None)
        self._tell_taken()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        self._release_writer()
        if not self._is_closed:
            self._tell_taken()

    # --- inside -------------------------------------------------------------------------------------------

    def _is_taken_at_once(self, data: memoryview) -> bool:
        """Nearly always a read is one whole frame, and a waiting receiver takes it: it does not pass the queue."""
        receiver, size = self._receiver, len(data) - _LENGTH.size
        if receiver is None or receiver.done() or self._frames or not 0 <= size <= self._frame_bytes_max:
            return False
        if _LENGTH.unpack_from(data)[0] != size:
            return False
        self._rest = b""
        frame = memoryview(bytearray(data[_LENGTH.size :]))
        try:
            is_taken = self._take(frame)
        except Exception as error:  # noqa: BLE001 - the receiver's own, raised where it waits
            self._deliver(frame)
            if not receiver.done():
                receiver.set_exception(error)
        else:
            if not is_taken:
                self._deliver(frame)
                self._wake(receiver, True)
        return True

    def _parse(self, data: memoryview) -> None:
        """Process a read: deliver complete frames while a receiver takes them, and keep the rest."""
        self._rest = b""
        data = self._split(data)
        while self._is_behind and self._give():
            data = self._split(data)
        self._rest = bytes(data)

    def _split(self, data: memoryview) -> memoryview:
        """Split up to `SPLIT_MAX` frames off its beginning; return the rest."""
        position, filled = 0, len(data)
        self._is_behind = False
        while filled - position >= _LENGTH.size:
            if len(self._frames) >= SPLIT_MAX:
                self._is_behind = True
                break
            (size,) = _LENGTH.unpack_from(data, position)
            if not 0 <= size <= self._frame_bytes_max:
                self._refuse(size)
                return data[:0]
            start = position + _LENGTH.size
            if start + size > filled:
                if size + _LENGTH.size > REST_BYTES_MAX:
                    self._begin_large(size, data[start:])
                    return data[:0]
                break
            self._deliver(memoryview(bytearray(data[start : start + size])))
            position = start + size
        return data[position:]

    def _catch_up(self) -> None:
        """All split frames are taken: split the next ones."""
        rest = self._split(memoryview(self._rest))
        self._rest = rest if self._is_behind else bytes(rest)

    def _begin_large(self, size: int, head: memoryview) -> None:
        # The system maps memory as bytes arrive, however much was announced; but it is cleared page by page.
        is_mapped = size > (TRUSTED_BYTES_MAX if self._arriving is None else STEP_BYTES)
        self._large = memoryview(mmap.mmap(-1, size) if is_mapped else uncleared(size))
        self._large[: len(head)] = head
        self._large_filled = len(head)
        self._large_granted = size if self._arriving is None else 0
        if self._arriving is not None:
            self._ask_for_memory()

    @property
    def arrived(self) -> int | None:
        """Implements `kraft.runtime.frame_memory.Arriving`, as `granted` does."""
        return None if self._large is None else self._large_filled

    def granted(self, size: int) -> None:
        assert self._large is not None, self
        self._large_granted += size
        self._memory_came()

    def _ask_for_memory(self) -> None:
        """Ask for memory for the arriving frame; until it is granted, nothing is read."""
        assert self._large is not None, self
        assert self._arriving is not None, self
        step = min(STEP_BYTES, len(self._large) - self._large_granted)
        if self._arriving.ask(self, step):
            self._large_granted += step
        else:
            self._waits_for_memory = True
            self._hold_reading()

    def _memory_came(self) -> None:
        if self._waits_for_memory:
            self._waits_for_memory = False
            self._maybe_resume_reading()

    def _refuse(self, size: int) -> None:
        LOG.warning("closing %s: frame of %d bytes, the limit is %d", self._peer, size, self._frame_bytes_max)
        self.abort()

    def _deliver(self, frame: memoryview) -> None:
        self._frames.append(frame)
        self._queued_bytes += len(frame) + _LENGTH.size

    def _next_frame(self) -> memoryview:
        frame = self._frames.popleft()
        self._queued_bytes -= len(frame) + _LENGTH.size
        if not self._frames:
            if self._has_large_frames and self._arriving is not None:
                self._has_large_frames = False
                self._arriving.give_back(self, keep=0 if self._large is None else self._large_granted)
            if self._is_behind and self._rest:
                self._catch_up()
            if self._is_reading_paused and not self._frames:
                self._is_reading_paused = False
                self._maybe_resume_reading()
        return frame

    def _wake_if_refused(self, receiver: asyncio.Future[bool]) -> None:
        try:
            is_refused = self._hand_over()
        except Exception as error:  # noqa: BLE001 - the receiver's own, raised where it waits
            if not receiver.done():
                receiver.set_exception(error)
        else:
            if is_refused:
                self._wake(receiver, True)

    def _give(self) -> bool:
        """Pass frames to the waiting receiver; True when all were taken."""
        if self._frames and self._receiver is not None and not self._receiver.done():
            self._wake_if_refused(self._receiver)
        return not self._frames

    def _after_read(self) -> None:
        if self._give() or self._is_reading_paused or self._is_closed:
            return
        if self._is_behind or (self._receiver is None and self._queued_bytes >= QUEUED_BYTES_MAX):
            self._is_reading_paused = True
            self._hold_reading()

    def _hold_reading(self) -> None:
        if self._transport is not None and not self._is_closed:
            self._transport.pause_reading()

    def _maybe_resume_reading(self) -> None:
        if self._transport is None or self._is_closed or self._is_reading_paused or self._waits_for_memory:
            return
        self._transport.resume_reading()

    def _end(self, reason: str) -> None:
        if self._is_closed:
            return
        self._mark_closed(reason)
        if self._arriving is not None:
            self._arriving.leave(self)
        # The connection, its transport and its session hold each other until a cyclic collection looks at them.
        self._large = None
        self._large_granted = self._large_filled = 0
        self._release_writer()

    def _forget_frames(self) -> None:
        """Drop the frames: there is no receiver any more."""
        self._frames.clear()
        self._rest, self._take = b"", take_nothing

    def _tell_taken(self) -> None:
        waiting, self._when_taken = self._when_taken, []
        for then in waiting:
            then()

    def _release_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)


def read_buffer() -> memoryview:
    return memoryview(bytearray(READ_BUFFER_BYTES))


def _gathered(length: bytes, parts: Sequence[Buffer]) -> list[Buffer]:
    """The frame in few buffers: runs of small parts joined, large ones untouched."""
    gathered: list[Buffer] = []
    small: list[Buffer] = [length]
    for part in parts:
        if len(part) < JOINED_BYTES_MAX:
            small.append(part)
            continue
        if small:
            gathered.append(b"".join(small))
            small = []
        gathered.append(part)
    if small:
        gathered.append(b"".join(small))
    return gathered


def _let_go(length: bytes, parts: list[Buffer]) -> Iterator[Buffer]:
    """The frame as few buffers, too; each part is taken out of the list, which is empty in the end."""
    parts.insert(0, length)
    parts.reverse()
    while parts:
        part = parts.pop()
        size = len(part)
        if parts and (size := size + len(parts[-1])) <= JOINED_BYTES_MAX:
            run = [part, parts.pop()]
            while parts and (size := size + len(parts[-1])) <= JOINED_BYTES_MAX:
                run.append(parts.pop())
            part = b"".join(run)
        yield part


def _set_options(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _reset_on_close(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def _address(name: object) -> str:
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
