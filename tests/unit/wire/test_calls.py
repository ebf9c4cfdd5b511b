"""Calls on one connection: who gets which answer, and what becomes of those that get none. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kraft.broker.principal import NodePrincipal
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.protocol import apis, codec
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from kraft.wire.connection import RpcConnection
from metadata.environment import ConnectionClosed, Environment, FrameConnection

API = apis.SASL_HANDSHAKE
SETTLE_MS = 5
"""Longer than a frame travels."""


class Peer:
    """The other side: keeps what it is asked, and answers what it is told to, when it is told to."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.connection: FrameConnection | None = None
        self.asked: list[tuple[int, str]] = []

    async def serve(self, connection: FrameConnection) -> None:
        self.connection = connection
        while True:
            frame = await connection.receive()
            header = codec.decode_request_head(frame)
            message, *_ = codec.decode_request(apis.request_type(API), header, frame)
            assert isinstance(message, SaslHandshakeRequestData)
            self.asked.append((header.correlation_id, message.mechanism))

    def answer(self, number: int) -> None:
        correlation_id, text = self.asked[number]
        response = SaslHandshakeResponseData.make(error_code=0, mechanisms=(text,))
        assert self.connection is not None
        self.connection.send(codec.encode_response(apis.response_type(API), API.version, correlation_id, response))

    async def settle(self) -> None:
        await self.environment.clock.sleep(SETTLE_MS)


def run(story: Callable[[RpcConnection, Peer], Awaitable[None]], *, in_flight_max: int = 10) -> None:
    world = SimulatedWorld(1)
    machine = world.machine("one")

    async def main() -> None:
        async with connected(machine.environment, in_flight_max=in_flight_max) as (rpc, peer):
            await story(rpc, peer)

    world.run(machine.run(main()))


@asynccontextmanager
async def connected(environment: Environment, *, in_flight_max: int) -> AsyncIterator[tuple[RpcConnection, Peer]]:
    peer = Peer(environment)
    listener = await environment.network.listen("127.0.0.1", 0, peer.serve, frame_bytes_max=10_000)
    address = ("127.0.0.1", listener.port)
    frames = await environment.network.connect(*address, frame_bytes_max=10_000, timeout_ms=1_000)
    rpc = RpcConnection(environment, frames, NodePrincipal(1, "fetch"), address=address, in_flight_max=in_flight_max)
    rpc.start()
    try:
        yield rpc, peer
    finally:
        await rpc.close()
        await listener.close()


def ask(rpc: RpcConnection, text: str, *, timeout_ms: int = 60_000) -> asyncio.Task[Any]:
    request = SaslHandshakeRequestData.make(mechanism=text)
    return asyncio.create_task(rpc.call(API, request, SaslHandshakeResponseData, timeout_ms=timeout_ms))


async def answer_of(asking: asyncio.Task[Any]) -> str:
    (text,) = (await asking).mechanisms
    return str(text)


def test_each_caller_gets_its_answer_in_whatever_order_they_come() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        asking = [ask(rpc, text) for text in "abc"]
        await peer.settle()
        for number in (2, 0, 1):
            peer.answer(number)
        assert [await answer_of(one) for one in asking] == ["a", "b", "c"]

    run(story)


def test_a_silent_peer_is_closed_at_the_first_timeout_for_all_that_wait() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        clock = peer.environment.clock
        await peer.settle()
        began_ms = clock.monotonic_ms()
        slow, fast = ask(rpc, "slow", timeout_ms=900), ask(rpc, "fast", timeout_ms=300)
        with pytest.raises(TimeoutError, match=r"^SaslHandshake: no answer from one:\d+ within 300 ms$"):
            await fast
        assert clock.monotonic_ms() - began_ms == 300
        with pytest.raises(ConnectionClosed, match="the outcome of requests in flight is unknown"):
            await slow
        assert rpc.is_closed
        with pytest.raises(ConnectionClosed, match="closed"):
            await ask(rpc, "late")

    run(story)


def test_a_slow_answer_alone_closes_nothing_and_is_dropped_when_it_comes() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        slow, other = ask(rpc, "slow", timeout_ms=100), ask(rpc, "other")
        await peer.settle()
        peer.answer(1)
        assert await answer_of(other) == "other"
        with pytest.raises(TimeoutError):
            await slow
        peer.answer(0)
        await peer.settle()
        again = ask(rpc, "again")
        await peer.settle()
        peer.answer(2)
        assert await answer_of(again) == "again"
        assert not rpc.is_closed

    run(story)


def test_one_timer_ends_each_call_at_its_own_time() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        clock, ended = peer.environment.clock, list[tuple[int, int]]()
        began_ms = clock.monotonic_ms()

        async def timed(timeout_ms: int) -> None:
            with pytest.raises(TimeoutError):
                await ask(rpc, "x", timeout_ms=timeout_ms)
            ended.append((timeout_ms, clock.monotonic_ms() - began_ms))

        async def heard() -> None:
            """So that the peer is slow, and not dead."""
            for number in range(1, 40):
                asking = ask(rpc, "y", timeout_ms=60_000)
                await clock.sleep(20)
                peer.answer(next(n for n in range(len(peer.asked) - 1, -1, -1) if peer.asked[n][1] == "y"))
                assert await answer_of(asking) == "y", number

        await asyncio.gather(heard(), *(timed(ms) for ms in (500, 120, 310, 120, 700)))
        assert ended == [(120, 120), (120, 120), (310, 310), (500, 500), (700, 700)]

    run(story)


def test_a_caller_that_goes_leaves_its_place_and_the_connection_to_others() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        gone, waiting = ask(rpc, "gone"), ask(rpc, "waiting")
        await peer.settle()
        assert [text for _, text in peer.asked] == ["gone"]
        gone.cancel()
        await peer.settle()
        peer.answer(0)
        peer.answer(1)
        assert await answer_of(waiting) == "waiting"
        assert gone.cancelled()

    run(story, in_flight_max=1)


def test_no_more_are_in_flight_than_may_be_and_the_rest_follow_in_order() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        asking = [ask(rpc, text) for text in "abcde"]
        for answered in range(4):
            await peer.settle()
            assert "".join(text for _, text in peer.asked) == "abcde"[: answered + 2]
            peer.answer(answered)
        await peer.settle()
        peer.answer(4)
        assert [await answer_of(one) for one in asking] == list("abcde")

    run(story, in_flight_max=2)


def test_waiting_for_a_place_is_part_of_the_timeout_and_sends_nothing() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        clock = peer.environment.clock
        first = ask(rpc, "first")
        second, third = ask(rpc, "second", timeout_ms=200), ask(rpc, "third", timeout_ms=400)
        await clock.sleep(100)
        peer.answer(0)
        assert await answer_of(first) == "first"
        began_ms = clock.monotonic_ms()
        with pytest.raises(TimeoutError):
            await second
        assert clock.monotonic_ms() - began_ms < 110
        await peer.settle()
        assert [text for _, text in peer.asked] == ["first", "second", "third"]
        peer.answer(2)
        assert await answer_of(third) == "third"
        fourth, fifth = ask(rpc, "fourth"), ask(rpc, "fifth", timeout_ms=50)
        await peer.settle()
        peer.answer(0)  # an answer to nobody: the peer is alive
        with pytest.raises(TimeoutError):
            await fifth
        peer.answer(3)
        assert await answer_of(fourth) == "fourth"
        assert [text for _, text in peer.asked] == ["first", "second", "third", "fourth"]

    run(story, in_flight_max=1)


def test_lost_connection_fails_all_requests() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        asking = [ask(rpc, text) for text in "abc"]
        await peer.settle()
        assert peer.connection is not None
        peer.connection.abort()
        reported = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(error, ConnectionClosed) for error in reported), reported
        assert ["unknown" in str(error) for error in reported] == [True, True, False]
        assert "".join(text for _, text in peer.asked) == "ab"

    run(story, in_flight_max=2)


def test_an_answer_that_cannot_be_read_closes_the_connection() -> None:
    async def story(rpc: RpcConnection, peer: Peer) -> None:
        asking = ask(rpc, "a")
        await peer.settle()
        assert peer.connection is not None
        peer.connection.send([b"\0\0"])
        with pytest.raises(ConnectionClosed):
            await asking
        assert rpc.is_closed

    run(story)
