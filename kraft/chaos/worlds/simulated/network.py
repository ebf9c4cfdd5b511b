"""The network between simulated machines: frames over connections, with all faults of a network.

One frame is the unit: a message cut in the middle never arrives and resets its connection, as TCP with framing has it.
Frames of one direction of a connection arrive in order. While a direction is cut, frames wait as TCP's
retransmission would have it, and go on when it heals; `reset` breaks the connections instead.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

from kraft.chaos.worlds.simulated.loop import BESIDE, PROCESS, Process, VirtualLoop
from kraft.protocol.primitives import Buffer
from kraft.runtime.frame_receiver import FrameReceiver
from metadata.environment import ConnectionClosed, OnConnection, Tls

UNSENT_BYTES_MAX = 1024 * 1024
"""`drain` waits while the sender has more unsent bytes than this."""
CONNECTIONS_MAX = 10_000
UNREAD_BYTES_MAX = 256 * 1024
"""The sender waits while the receiver has more unread bytes than this."""
SYN_RETRY_S = 1.0
PORTS_FROM = 49_152
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1", "0.0.0.0")

Trace = Callable[..., None]


@dataclass(slots=True)
class Link:
    """The link of one direction between two machines."""

    latency_us: tuple[int, int] = (100, 500)
    bytes_per_s: int = 1_000_000_000
    is_cut: bool = False
    frames_until_reset: int | None = None
    """The number of frames that pass; the next one is cut in the middle and its connection reset."""
    resets_more: int = 0
    """The number of further cuts, each with the next frame."""
    frames_lost: int = 0
    """The number of frames to lose, each with its connection."""


@dataclass(slots=True, eq=False)
class _Pipe:
    """One direction of a connection: its frames in flight, as (frame or the end, earliest arrival)."""

    link: Link
    sender: SimulatedConnection
    receiver: SimulatedConnection
    waiting: deque[tuple[bytes | None, float]] = field(default_factory=deque)
    unsent_bytes: int = 0
    free_at: float = 0.0
    is_pumping: bool = False
    is_gone: bool = False
    """True after the connection ended in the network; nothing arrives any more."""


class SimulatedConnection(FrameReceiver):
    def __init__(self, network: SimulatedNetwork, *, number: int, host: str, peer: str, frame_bytes_max: int) -> None:
        super().__init__(network.loop, peer=peer)
        self._network = network
        self.number = number
        self.host = host
        self.process = PROCESS.get()
        self._frame_bytes_max = frame_bytes_max
        self.unread_bytes = 0
        self.way: tuple[str, str] = (host, peer)
        """The connecting host, and the name that it connected to."""
        self._context: contextvars.Context | None = None
        """The callback that receives frames in the process of the receiver."""
        self._wake_drained: list[asyncio.Future[None]] = []
        self._when_taken: list[Callable[[], None]] = []
        self.out: _Pipe | None = None
        self.into: _Pipe | None = None

    @property
    def unsent_bytes(self) -> int:
        return self.out.unsent_bytes if self.out is not None and not self._is_closed else 0

    @property
    def is_writable(self) -> bool:
        return not self._is_closed and (self.out is None or self.out.unsent_bytes <= UNSENT_BYTES_MAX)

    def send(self, parts: Sequence[Buffer]) -> None:
        if not self._is_closed:
            self._network.send(self, b"".join(parts))

    async def drain(self) -> None:
        while self.unsent_bytes > UNSENT_BYTES_MAX:
            drained = self._network.loop.create_future()
            self._wake_drained.append(drained)
            await drained
        if self._is_closed:
            raise self._closed_error()

    async def receive_while(self, take: Callable[[memoryview], bool]) -> memoryview:
        if self._context is None:
            self._context = contextvars.copy_context()
        return await super().receive_while(take)

    def _next_frame(self) -> memoryview:
        frame = self._frames.popleft()
        self.unread_bytes -= len(frame)
        if self.into is not None and self.into.waiting:
            self._network.read(self)
        return frame

    def bound_send_buffer(self, bytes_max: int) -> None:
        """No effect: the simulated network has its own limits."""

    def bound_unsent(self, bytes_max: int) -> None:
        """No effect: `UNSENT_BYTES_MAX` is the limit."""

    def when_taken(self, then: Callable[[], None]) -> None:
        if self.is_writable or self._is_closed:
            then()
        else:
            self._when_taken.append(then)

    def take_frames(self, *, bytes_max: int, is_trusted: bool = True) -> None:
        self._frame_bytes_max = bytes_max

    def close(self) -> None:
        if not self._is_closed:
            self.end("closed here")
            self._network.send(self, None)

    def abort(self) -> None:
        if not self._is_closed:
            self.end("aborted here")
            self._network.abort(self)

    # What the network calls

    def deliver(self, frame: bytes) -> None:
        if len(frame) > self._frame_bytes_max:
            self.abort()
        elif not self._is_closed:
            view = memoryview(frame)
            if self._receiver is None or not self._is_taken(view, self._receiver):
                self._frames.append(view)
                self.unread_bytes += len(frame)

    def _is_taken(self, frame: memoryview, receiver: asyncio.Future[bool]) -> bool:
        """Deliver frames in the process of the receiver; frames that it does not take stay in the list of arrived
        ones."""
        if receiver.done() or self._frames:
            return False
        assert self._context is not None
        if self.process is not None and self.process.is_paused and self.process.stands_still(self._context):
            self.process.held.append((self._wake, (receiver, False), self._context))
            return False
        try:
            is_taken = self._context.run(self._take, frame)
        except Exception as error:  # noqa: BLE001 - the receiver's own, raised where it waits
            if not receiver.done():
                receiver.set_exception(error)
            return False
        if not is_taken:
            self._wake(receiver, True)
        return is_taken

    def end(self, reason: str) -> None:
        self._mark_closed(reason)
        _wake_all(self._wake_drained)
        self._notify_taken()

    def drained(self) -> None:
        """A frame has left the sender."""
        if self._wake_drained:
            _wake_all(self._wake_drained)
        if self._when_taken and self.is_writable:
            self._notify_taken()

    def _notify_taken(self) -> None:
        callbacks, self._when_taken = self._when_taken, []
        for then in callbacks:
            then()


def _wake_all(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


class SimulatedListener:
    def __init__(
        self, network: SimulatedNetwork, key: tuple[str, int], on_connection: OnConnection, limit: int
    ) -> None:
        self._network = network
        self._key = key
        self._on_connection = on_connection
        self.frame_bytes_max = limit
        self.process = PROCESS.get()
        self._is_beside = BESIDE.get()
        self._serving: dict[asyncio.Task[None], SimulatedConnection] = {}

    @property
    def port(self) -> int:
        return self._key[1]

    def accept(self, connection: SimulatedConnection) -> None:
        task = self._network.loop.spawn(self.process, self._serve(connection), is_beside=self._is_beside)
        self._serving[task] = connection
        task.add_done_callback(self._serving.pop)

    async def _serve(self, connection: SimulatedConnection) -> None:
        try:
            await self._on_connection(connection)
        except ConnectionClosed:
            pass
        finally:
            connection.close()

    async def close(self) -> None:
        self._network.listeners.pop(self._key, None)
        serving = dict(self._serving)
        for task, connection in serving.items():
            connection.close()
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


class SimulatedNetwork:
    """The wires between all machines; each machine sees it through its `HostNetwork`."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, trace: Trace) -> None:
        self.loop = loop
        self._rng = rng
        self._trace = trace
        self.turn_us = 0
        """Frames that arrive within so many microseconds arrive together, as in a loop that polls many sockets: one
        turn handles them."""
        self._links: dict[tuple[str, str], Link] = {}
        self._numbers = itertools.count(1)
        self._ports = itertools.count(PORTS_FROM)
        self._pairs: dict[SimulatedConnection, SimulatedConnection] = {}
        self._pipes: dict[SimulatedConnection, _Pipe] = {}
        self.listeners: dict[tuple[str, int], SimulatedListener] = {}
        self.hosts_off: set[str] = set()
        self.aliases: dict[str, str] = {}
        """Alias -> host: connections to an alias have their own links."""
        self.refusing: set[tuple[str, str]] = set()
        """(connecting host, name) pairs whose ports refuse."""
        self._orphans: list[tuple[SimulatedConnection, str]] = []
        """Connection ends whose other end lost power, with its host."""

    # The switches a test turns

    def link(self, source: str, target: str) -> Link:
        return self._links.setdefault((source, target), Link())

    def cut(self, one: str, other: str, *, direction: Literal["both", "to", "from"] = "both") -> None:
        """Packets are lost without an error. "to": only those from `one` to `other`."""
        self._set_cut(one, other, direction, is_cut=True)

    def heal(self, one: str, other: str) -> None:
        self._set_cut(one, other, "both", is_cut=False)

    def _set_cut(self, one: str, other: str, direction: str, *, is_cut: bool) -> None:
        if direction != "from":
            self.link(one, other).is_cut = is_cut
        if direction != "to":
            self.link(other, one).is_cut = is_cut
        for pipe in list(self._pipes.values()):
            self._pump(pipe)

    def isolate(self, host: str, others: Sequence[str]) -> None:
        for other in others:
            self.cut(host, other)

    def reset(self, one: str, other: str) -> None:
        """Reset every connection between the two; bytes in flight are lost."""
        for connection, peer in list(self._pairs.items()):
            if {connection.host, peer.host} == {one, other}:
                self._break(connection, peer, "connection reset")

    def reset_way(self, dials: str, name: str) -> None:
        """Reset every connection to this name."""
        for connection, peer in list(self._pairs.items()):
            if connection.way == (dials, name):
                self._break(connection, peer, "connection reset")

    def kill(self, process: Process) -> None:
        """The kernel closes the sockets of a dead process: peers get a reset, its ports refuse."""
        for key in [key for key, listener in self.listeners.items() if listener.process is process]:
            del self.listeners[key]
        for connection in [c for c in self._pairs if c.process is process]:
            connection.end("the process died")
            self.abort(connection)

    def power_off(self, host: str) -> None:
        """The machine is gone: no reset, no refusal."""
        self.hosts_off.add(host)
        for key in [key for key in self.listeners if key[0] == host]:
            del self.listeners[key]
        for connection, peer in list(self._pairs.items()):
            if connection.host == host:
                self._forget(connection)
                connection.end("the machine is off")
                self._orphans.append((peer, host))

    def power_on(self, host: str) -> None:
        """The machine is back, and resets old connections."""
        self.hosts_off.discard(host)
        gone = [connection for connection, target in self._orphans if target == host]
        self._orphans = [orphan for orphan in self._orphans if orphan[1] != host]
        for connection in gone:
            if not connection.is_closed:
                self.loop.outside(
                    connection.end, "connection reset", delay_us=self.link(host, connection.host).latency_us[1]
                )

    # Connecting

    def listen(self, host: str, port: int, on_connection: OnConnection, limit: int) -> SimulatedListener:
        port = port or next(self._ports)
        if (host, port) in self.listeners:
            raise OSError(98, f"{host}:{port}: Address already in use")
        listener = SimulatedListener(self, (host, port), on_connection, limit)
        self.listeners[(host, port)] = listener
        return listener

    async def connect(self, host: str, target: str, port: int, limit: int) -> SimulatedConnection:
        there, back, machine = self.link(host, target), self.link(target, host), self.aliases.get(target, target)
        await asyncio.sleep(self._latency(there))
        while there.is_cut or back.is_cut or machine in self.hosts_off:  # noqa: ASYNC110  (TCP sends SYN again)
            await asyncio.sleep(SYN_RETRY_S)
        listener = None if (host, target) in self.refusing else self.listeners.get((machine, port))
        if listener is None:
            await asyncio.sleep(self._latency(back))
            raise ConnectionRefusedError(111, f"connect to {target}:{port}: the port refuses")
        local = self._pair(host, target, port, limit, listener)
        try:
            await asyncio.sleep(self._latency(back))
        except asyncio.CancelledError:
            local.abort()
            raise
        self._trace("connect", host, target, port, local.number)
        return local

    def _pair(self, host: str, target: str, port: int, limit: int, listener: SimulatedListener) -> SimulatedConnection:
        number, from_port = next(self._numbers), next(self._ports)
        local = SimulatedConnection(self, number=number, host=host, peer=f"{target}:{port}", frame_bytes_max=limit)
        remote = contextvars.Context().run(
            SimulatedConnection,
            self,
            number=number,
            host=self.aliases.get(target, target),
            peer=f"{host}:{from_port}",
            frame_bytes_max=listener.frame_bytes_max,
        )
        remote.process = listener.process
        local.way = remote.way = (host, target)
        self._pairs[local], self._pairs[remote] = remote, local
        local.out = self._pipes[local] = _Pipe(self.link(host, target), local, remote)
        remote.out = self._pipes[remote] = _Pipe(self.link(target, host), remote, local)
        local.into, remote.into = remote.out, local.out
        listener.accept(remote)
        return local

    # Carrying

    def send(self, sender: SimulatedConnection, frame: bytes | None) -> None:
        pipe = sender.out
        if pipe is None or pipe.is_gone:
            return
        size, link, now = 0 if frame is None else len(frame), pipe.link, self.loop.time()
        start = pipe.free_at if pipe.free_at > now else now
        pipe.free_at = start + size / link.bytes_per_s
        pipe.waiting.append((frame, pipe.free_at + self._latency(link)))
        pipe.unsent_bytes += size
        if not pipe.is_pumping:
            self._pump(pipe)

    def read(self, receiver: SimulatedConnection) -> None:
        """The receiver took a frame: a waiting sender may continue."""
        if receiver.into is not None:
            self._pump(receiver.into)

    def _pump(self, pipe: _Pipe) -> None:
        if pipe.waiting and not pipe.is_pumping and not pipe.link.is_cut and not pipe.is_gone:
            if pipe.waiting[0][0] is not None and pipe.receiver.unread_bytes > UNREAD_BYTES_MAX:
                return
            pipe.is_pumping = True
            delay = pipe.waiting[0][1] - self.loop.time()
            delay_us = round(delay * 1_000_000) if delay > 0 else 0
            if self.turn_us:
                delay_us += -(self.loop.now_us + delay_us) % self.turn_us
            self.loop.outside(self._arrive, pipe, delay_us=delay_us)

    def _arrive(self, pipe: _Pipe) -> None:
        pipe.is_pumping = False
        if pipe.link.is_cut or not pipe.waiting or pipe.is_gone:
            return
        sender, receiver = pipe.sender, pipe.receiver
        frame, _ = pipe.waiting.popleft()
        if frame is None:
            self._end_of_stream(sender, receiver)
            return
        pipe.unsent_bytes -= len(frame)
        sender.drained()
        if pipe.link.frames_until_reset is not None and self._cuts_message(pipe.link):
            self._break(sender, receiver, "connection reset in the middle of a message")
            return
        if pipe.link.frames_lost:
            pipe.link.frames_lost -= 1
            self._break(sender, receiver, "connection reset")
            return
        self._trace("frame", sender.host, receiver.host, sender.number, len(frame), crc32(frame))
        receiver.deliver(frame)
        if pipe.waiting:
            self._pump(pipe)

    def _cuts_message(self, link: Link) -> bool:
        assert link.frames_until_reset is not None
        link.frames_until_reset -= 1
        if link.frames_until_reset >= 0:
            return False
        link.frames_until_reset = 0 if link.resets_more else None
        link.resets_more = max(0, link.resets_more - 1)
        return True

    def _end_of_stream(self, sender: SimulatedConnection, receiver: SimulatedConnection) -> None:
        self._trace("end", sender.host, receiver.host, sender.number)
        self._forget(receiver)
        if not receiver.is_closed:
            receiver.end("closed by the peer")

    def abort(self, connection: SimulatedConnection) -> None:
        """Drop unsent frames; the peer gets the reset after the frames in flight."""
        pipe = self._pipes.get(connection)
        if pipe is not None:
            now = self.loop.time()
            on_the_way = [entry for entry in pipe.waiting if entry[1] - now <= pipe.link.latency_us[1] / 1_000_000]
            pipe.waiting = deque(on_the_way)
            self.send(connection, None)

    def _break(self, one: SimulatedConnection, other: SimulatedConnection, reason: str) -> None:
        self._forget(one)
        for connection in (one, other):
            if not connection.is_closed:
                self._trace("reset", connection.host, connection.number)
                connection.end(reason)

    def _forget(self, connection: SimulatedConnection) -> None:
        for half in (connection, self._pairs.get(connection)):
            if half is not None:
                self._pairs.pop(half, None)
                pipe = self._pipes.pop(half, None)
                if pipe is not None:
                    pipe.is_gone = True

    def _latency(self, link: Link) -> float:
        """`randint` without its layers, because every frame needs one."""
        low, high = link.latency_us
        span = high - low + 1
        bits = span.bit_length()
        while (above := self._rng.getrandbits(bits)) >= span:
            pass
        return (low + above) / 1_000_000


class HostNetwork:
    """The network of one machine."""

    def __init__(self, network: SimulatedNetwork, host: str) -> None:
        self._network = network
        self._host = host

    async def connect(
        self, host: str, port: int, *, frame_bytes_max: int, timeout_ms: int, tls: Tls | None = None
    ) -> SimulatedConnection:
        assert tls is None, "a simulated network is not encrypted"
        target = self._host if host in LOCAL_NAMES else host
        async with asyncio.timeout(timeout_ms / 1000):
            return await self._network.connect(self._host, target, port, frame_bytes_max)

    @property
    def connections_max(self) -> int:
        return CONNECTIONS_MAX

    async def listen(
        self,
        host: str,
        port: int,
        on_connection: OnConnection,
        *,
        frame_bytes_max: int,
        arriving_bytes_max: int | None = None,
        tls: Tls | None = None,
    ) -> SimulatedListener:
        assert tls is None, "a simulated network is not encrypted"
        return self._network.listen(self._host, port, on_connection, frame_bytes_max)
