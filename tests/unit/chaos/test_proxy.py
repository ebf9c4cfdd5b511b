"""One proxied link in front of a server of frames: it shows what the target shows, and each fault does what it says."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvloop

from kraft.chaos.worlds.processes.proxy.connection import Connection, Owner
from kraft.chaos.worlds.processes.proxy.link import Link
from kraft.chaos.worlds.processes.proxy.messages import messages_of
from kraft.chaos.worlds.processes.proxy.rules import FOR_EVER, Flow, Kind, OpenLink, Rules
from kraft.chaos.worlds.processes.proxy.target import Target

HOST = "127.0.0.1"
DEADLINE_S = 20.0
PRODUCE, HANDSHAKE = 0, 17
DELAYED = 150


@dataclass
class Server:
    """Answers each frame with its own correlation id and payload, or as `answers` says; remembers what arrived."""

    port: int = 0
    arrived: list[bytes] = field(default_factory=list)
    answers: dict[int, bytes | None] = field(default_factory=dict)
    """By correlation id; None: none."""
    broken: int = 0
    """Connections that ended in the middle of a frame."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                frame = await receive(reader)
                self.arrived.append(frame)
                answer = self.answers.get(int.from_bytes(frame[4:8]), frame[4:])
                if answer is not None:
                    writer.write(struct.pack(">I", len(answer)) + answer)
        except asyncio.IncompleteReadError as error:
            self.broken += bool(error.partial)
        except OSError:
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def die(self) -> None:
        """As a killed process: the listener goes first, then its connections."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


def request(correlation: int, *, api: int = PRODUCE, payload: bytes = b"x" * 40) -> bytes:
    body = struct.pack(">hhi", api, 0, correlation) + payload
    return struct.pack(">I", len(body)) + body


async def receive(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return await reader.readexactly(int.from_bytes(head, "big"))


@dataclass
class Proxied:
    server: Server
    link: Link
    target: Target
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.port)

    async def ask(self, correlation: int, *, api: int = PRODUCE, payload: bytes = b"x" * 40) -> bytes:
        """One request on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(request(correlation, api=api, payload=payload))
            return await receive(reader)
        finally:
            writer.close()

    async def is_refused(self) -> bool:
        try:
            _, writer = await self.connect()
        except ConnectionRefusedError:
            return True
        writer.close()
        return False


async def until(condition: Callable[[], object], *, what: str) -> float:
    """Milliseconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + DEADLINE_S, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.001)
    return (time.monotonic() - begun) * 1000


Story = Callable[[Proxied], Awaitable[None]]


Build = Callable[[asyncio.AbstractEventLoop, Owner], Connection]


def of_kind(kind: Kind) -> Build:
    return lambda loop, owner: Connection(loop, owner, messages_of(kind), random.Random(1))


def play(story: Story, *, kind: Kind = "kafka", build: Build | None = None) -> None:
    async def main() -> None:
        server = Server()
        await server.start()
        loop, new_connection = asyncio.get_running_loop(), build or of_kind(kind)
        target = Target(loop, HOST, server.port)
        wanted = OpenLink(name="1->2 fetch", kind=kind, host=HOST, target_host=HOST, target_port=server.port)
        for _ in range(50):
            port = random.randint(10_000, 32_000)
            link = Link(loop, wanted, target, lambda owner: new_connection(loop, owner))
            try:
                await link.open(port)
                break
            except OSError:
                continue
        await until(lambda: link.counts().is_listening, what="the link listens")
        async with asyncio.timeout(60):
            await story(Proxied(server, link, target, port))
        await link.set_rules(Rules(is_cut=True))
        server.die()
        await target.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_bytes_go_through_both_ways() -> None:
    async def story(p: Proxied) -> None:
        big = b"y" * 3_000_000
        assert (await p.ask(7, payload=big))[4:] == big
        assert p.link.counts().requests_bytes == p.link.counts().answers_bytes + 4 == len(big) + 12

    play(story)


def test_link_refuses_while_target_is_dead() -> None:
    async def story(p: Proxied) -> None:
        reader, writer = await p.connect()
        writer.write(request(1))
        await receive(reader)
        p.server.die()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(1)
        assert await p.is_refused(), "whoever sees the connection break must find the port closed"
        writer.close()
        await p.server.start()
        back_ms = await until(lambda: p.link.counts().is_listening, what="the link listens again")
        print(f"listening again after {back_ms:.1f} ms")
        assert await p.ask(2)

    play(story)


def test_a_target_that_only_drops_a_connection_is_not_refused() -> None:
    async def story(p: Proxied) -> None:
        reader, writer = await p.connect()
        writer.write(request(1))
        await receive(reader)
        for connection in list(p.server._writers):
            connection.close()
        assert await reader.read() == b""
        assert not await p.is_refused()
        writer.close()

    play(story)


def test_cut_resets_what_is_open_refuses_what_is_new_and_heals() -> None:
    async def story(p: Proxied) -> None:
        reader, writer = await p.connect()
        writer.write(request(1))
        await receive(reader)
        await p.link.set_rules(Rules(is_cut=True))
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        assert await p.is_refused()
        await p.link.set_rules(Rules())
        assert await p.ask(2)
        writer.close()

    play(story)


def test_blackhole_holds_requests_until_healed() -> None:
    async def story(p: Proxied) -> None:
        await p.link.set_rules(Rules(requests=Flow(is_held=True), answers=Flow(is_held=True)))
        asked = asyncio.ensure_future(p.ask(1))
        done, _ = await asyncio.wait([asked], timeout=0.1)  # short: nothing passes
        assert not done
        assert p.server.arrived == []
        await p.link.set_rules(Rules())
        assert await asked

    play(story)


def test_answers_can_be_held_alone() -> None:
    async def story(p: Proxied) -> None:
        await p.link.set_rules(Rules(answers=Flow(is_held=True)))
        asked = asyncio.ensure_future(p.ask(1))
        await until(lambda: p.server.arrived, what="the request arrives")
        done, _ = await asyncio.wait([asked], timeout=0.05)  # short: nothing passes
        assert not done
        await p.link.set_rules(Rules())
        assert await asked

    play(story)


def test_delay_is_added_per_direction_and_order_stays() -> None:
    async def story(p: Proxied) -> None:
        await p.link.set_rules(Rules(requests=Flow(delay_ms=40, jitter_ms=20)))
        reader, writer = await p.connect()
        begun = time.monotonic()
        for number in range(DELAYED):
            writer.write(request(number))
            await asyncio.sleep(0.001)
        for number in range(DELAYED):
            assert (await receive(reader))[:4] == struct.pack(">i", number)
        took_ms = (time.monotonic() - begun) * 1000
        assert 40 <= took_ms < 40 * DELAYED, "each waits from when it came, not for the one before it"
        writer.close()

    play(story)


def test_bandwidth_is_limited() -> None:
    async def story(p: Proxied) -> None:
        await p.link.set_rules(Rules(requests=Flow(bytes_per_second=100_000)))
        begun = time.monotonic()
        await p.ask(1, payload=b"z" * 30_000)
        took_ms = (time.monotonic() - begun) * 1000
        assert 280 <= took_ms < 60_000, took_ms

    play(story)


def test_one_answer_is_dropped_after_handshake() -> None:
    async def story(p: Proxied) -> None:
        await p.link.set_rules(Rules(drop_answers=1))
        assert await p.ask(1, api=HANDSHAKE)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await p.ask(2)
        assert [frame[4:8] for frame in p.server.arrived] == [struct.pack(">i", 1), struct.pack(">i", 2)]
        assert await p.ask(3), "only one answer was to be dropped"
        assert p.link.counts().dropped_answers == 1

    play(story)


def test_a_request_is_closed_in_the_middle() -> None:
    async def story(p: Proxied) -> None:
        await p.link.set_rules(Rules(close_mid_request=1))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await p.ask(1, payload=b"q" * 100_000)
        await until(lambda: p.server.broken, what="the server sees half a frame")
        assert p.server.arrived == []
        assert await p.ask(2)

    play(story)


def test_an_answer_is_closed_in_the_middle() -> None:
    async def story(p: Proxied) -> None:
        await p.link.set_rules(Rules(close_mid_answer=FOR_EVER))
        for number in range(2):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as caught:
                await p.ask(number, payload=b"q" * 1000)
            if isinstance(caught.value, asyncio.IncompleteReadError):
                assert 0 < len(caught.value.partial) < 1000
        assert len(p.server.arrived) == 2

    play(story)


def test_a_hop_is_cheap() -> None:
    """Loose, for machines that have other things to do; what was measured is printed."""

    async def round_trip_us(port: int) -> float:
        reader, writer = await asyncio.open_connection(HOST, port)
        times = []
        for number in range(300):
            begun = time.perf_counter()
            writer.write(request(number))
            await receive(reader)
            times.append(time.perf_counter() - begun)
        writer.close()
        return sorted(times)[len(times) // 2] * 1e6

    async def story(p: Proxied) -> None:
        direct, through = await round_trip_us(p.server.port), await round_trip_us(p.port)
        print(f"round trip {direct:.0f} us, through the proxy {through:.0f} us")
        assert through - direct < 5_000

    play(story)
