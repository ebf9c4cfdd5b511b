"""What one connection may have under way, and that all of it is given back: requests, their bytes, produced bytes."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.principal import NodePrincipal
from kraft.protocol import apis, codec
from kraft.protocol.apis import Api
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.errors import NotLeaderOrFollower
from kraft.protocol.messages.produce_response import ProduceResponseData
from kraft.protocol.primitives import Buffer
from kraft.wire import session
from kraft.wire.api_handler import Answer, ApiHandler, Call, ClientConnection, CloseConnection, Later
from kraft.wire.budget import Budget
from kraft.wire.channels.forward import LIST_OFFSETS, PRODUCE, ListOffset, ProduceRequest
from kraft.wire.channels.replicas import FETCH
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.large_requests import LargeRequests
from kraft.wire.rpc import Rpc
from kraft.wire.session import Session, Shared
from metadata.environment import ConnectionClosed
from replication.requests import ProduceOptions
from tests.unit.replication.harness.virtual import environment, run
from tests.unit.wire.fakes import T0, handlers_of
from tests.unit.wire.test_data_round_trips import REQUEST

ONE = NodePrincipal(2, "forward")


class Line:
    """The server's end of a connection, into which a test puts frames."""

    def __init__(self) -> None:
        self.peer = "test:1"
        self.is_closed = False
        self.is_writable = True
        self.unsent_bytes = 0
        self.sent: list[Sequence[Buffer]] = []
        self.frames: deque[memoryview] = deque()
        self._come = asyncio.Event()
        self._drained = asyncio.Event()

    def put(self, *frames: bytes) -> None:
        self.frames.extend(map(memoryview, frames))
        self._come.set()

    def end(self) -> None:
        self.is_closed = True
        self._come.set()

    def congest(self) -> None:
        self.is_writable = False

    def relieve(self) -> None:
        self.is_writable = True
        self._drained.set()

    def send(self, parts: Sequence[Buffer]) -> None:
        self.sent.append(parts)

    async def drain(self) -> None:
        while not self.is_writable:
            await self._drained.wait()
        if self.is_closed:
            raise ConnectionClosed("test")

    async def receive(self) -> memoryview:
        return await self.receive_while(lambda _: False)

    async def receive_while(self, take: Callable[[memoryview], bool]) -> memoryview:
        while True:
            while self.frames:
                if not take(self.frames[0]):
                    return self.frames.popleft()
                self.frames.popleft()
            if self.is_closed:
                raise ConnectionClosed("test")
            self._come.clear()
            await self._come.wait()

    def close(self) -> None:
        self.end()

    def abort(self) -> None:
        self.end()


class Handlers:
    def __init__(self) -> None:
        self.begun: list[int] = []
        self.may_end = asyncio.Semaphore(0)

    async def handle(self, call: Call) -> Any:
        self.begun.append(call.timeout_ms or 0)
        await self.may_end.acquire()
        return None

    def served(self, reply: Callable[[], Answer] | None) -> dict[int, ApiHandler]:
        produce = self.handle if reply is None else lambda _: reply()
        rpcs = ((PRODUCE, produce), (FETCH, self.handle), (LIST_OFFSETS, self.handle))
        return {rpc.api.key: served(rpc, handle) for rpc, handle in rpcs}


def served(rpc: Rpc[Any, Any, Any, Any], handle: Callable[[Call[Any]], Answer]) -> ApiHandler:
    """Refusals are those of the product."""
    real = handlers_of().get(rpc.api.key)
    assert real is not None
    return replace(real, handle=handle)


class World:
    def __init__(
        self,
        *,
        connection_bytes_max: int = 1 << 20,
        produce_bytes_max: int = 1 << 20,
        reply: Callable[[], Answer] | None = None,
        instead: Sequence[ApiHandler] = (),
    ) -> None:
        """`reply`: of a produce, instead of one that comes when the test says so; `instead`: other handlers."""
        self.handlers = Handlers()
        self.line = Line()
        self.produce_budget = Budget(produce_bytes_max)
        around = environment(1)
        self.shared = Shared(
            clock=around.clock,
            handlers=cast(ApiHandlers, self.handlers.served(reply) | {one.request.API_KEY: one for one in instead}),
            bytes_max=connection_bytes_max,
            produce_budget=self.produce_budget,
            answers=AnswerBudget(1 << 20),
            large=LargeRequests(around, items_max=1_000),
        )
        node = ClientConnection(peer=self.line.peer, listener="PLAINTEXT", principal=ONE)
        self.session = Session(self.shared, self.line, node, takes_nodes=False)
        self.serving = asyncio.create_task(self.session.serve())

    @property
    def begun(self) -> int:
        return len(self.handlers.begun)

    async def turns(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    async def end_one(self) -> None:
        self.handlers.may_end.release()
        await self.turns()

    async def end(self) -> None:
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)


def frame_of(api: Api, message: Any) -> bytes:
    header = RequestHeader(api_key=api.key, api_version=api.version, correlation_id=1, client_id="node-2-forward")
    return b"".join(codec.encode_request(api, header, message))


def a_produce(size: int = 10) -> bytes:
    request = ProduceRequest(batches={T0: bytes(size)}, options=ProduceOptions(-1, 1))
    return frame_of(PRODUCE.api, PRODUCE.to_request(request, 1))


def a_lookup() -> bytes:
    return frame_of(LIST_OFFSETS.api, LIST_OFFSETS.to_request(ListOffset(partition=T0, timestamp=-1, timeout_ms=1), 1))


def a_fetch(**fields: int) -> bytes:
    return frame_of(FETCH.api, FETCH.to_request(replace(REQUEST, **fields), 1))


def test_one_request_more_than_may_be_served_waits_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NODE_IN_FLIGHT_MAX", 3)

    async def story() -> None:
        world = World()
        world.line.put(*[a_lookup() for _ in range(6)])
        await world.turns()
        for served in (3, 4, 5, 6, 6):
            assert world.begun == served
            await world.end_one()
        world.line.put(a_lookup())
        await world.turns()
        assert world.begun == 7
        await world.end()

    run(story())


def test_a_client_whose_repeated_login_has_failed_is_served_no_more() -> None:
    async def story() -> None:
        world = World()
        login: Any = SimpleNamespace(has_failed=False)
        world.session.client.login = login
        world.line.put(a_lookup())
        await world.end_one()
        assert world.begun == 1
        login.has_failed = True
        world.line.put(a_lookup())
        await world.turns()
        assert world.begun == 1
        assert world.serving.done()
        await world.end()

    run(story())


def test_fetches_have_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NODE_IN_FLIGHT_MAX", 1)
    monkeypatch.setattr(session, "NODE_FETCHES_MAX", 2)

    async def story() -> None:
        world = World()
        world.line.put(a_lookup(), a_fetch(), a_fetch(), a_fetch(), a_lookup())
        await world.turns()
        assert world.begun == 3
        await world.end()

    run(story())


def test_what_came_with_a_fetch_goes_first_and_what_was_done_with_it_too() -> None:
    """So that it carries away what producers have sent in the same turn."""

    async def story() -> None:
        order: list[str] = []
        ends: list[asyncio.Future[None]] = []

        def failing(rpc: Rpc[Any, Any, Any, Any]) -> ApiHandler:
            def answered(_: None) -> None:
                order.append(f"{rpc.api.name} answered")

            def handle(call: Call) -> Later:
                order.append(f"{rpc.api.name} begun")
                ends.append(asyncio.get_running_loop().create_future())
                return Later(ends[-1], answered)

            return served(rpc, handle)

        world = World(instead=[failing(FETCH), failing(PRODUCE)])
        world.line.put(a_fetch(), a_produce())
        await world.turns()
        assert order == ["Produce begun", "Fetch begun"]
        for end in reversed(ends):  # the fetch's first
            end.set_result(None)
        await world.turns()
        assert order[2:] == ["Produce answered", "Fetch answered"]
        await world.end()

    run(story())


def test_a_fetch_that_has_its_turn_after_the_connection_has_ended_is_not_begun() -> None:
    async def story() -> None:
        world = World()
        await world.turns()
        world.line.put(a_fetch())
        world.line.end()
        await world.turns()
        assert world.begun == 0
        assert world.serving.done()
        assert world.session._fetches == world.session._room.taken == 0
        await world.end()

    run(story())


def test_bytes_of_a_connection_are_bounded_and_given_back() -> None:
    frame = a_lookup()

    async def story() -> None:
        world = World(connection_bytes_max=2 * len(frame))
        world.line.put(*[frame] * 4)
        await world.turns()
        assert world.begun == 2
        await world.end_one()
        assert world.begun == 3
        await world.end()

    run(story())


def test_produced_bytes_are_bounded_in_order() -> None:
    frame = a_produce()

    async def story() -> None:
        one = World(produce_bytes_max=2 * len(frame))
        assert one.produce_budget.try_take(len(frame))
        one.line.put(frame, frame, frame)
        await one.turns()
        assert (one.begun, one.produce_budget.taken) == (1, 2 * len(frame))
        one.produce_budget.give_back(len(frame))
        await one.turns()
        assert one.begun == 2
        await one.end_one()
        assert one.begun == 3
        await one.end()
        assert one.produce_budget.taken == 0

    run(story())


@pytest.mark.parametrize("turns", range(5))
def test_a_connection_that_ends_gives_everything_back(turns: int) -> None:
    """Also for requests that were begun and never ran, and for the one that waited for room."""
    frame = a_produce()

    async def story() -> None:
        world = World(produce_bytes_max=2 * len(frame))
        world.line.put(frame, frame, frame)
        for _ in range(turns):
            await asyncio.sleep(0)
        await world.end()
        assert world.produce_budget.taken == 0
        assert world.produce_budget.try_take(2 * len(frame))

    run(story())


def test_a_broken_request_gives_back_its_room_and_that_of_one_that_never_ran() -> None:
    async def story() -> None:
        world = World()
        world.line.put(a_produce(), a_produce()[:-3])
        await world.serving
        assert (world.begun, world.produce_budget.taken) == (0, 0)

    run(story())


def test_nothing_is_begun_for_a_peer_that_takes_no_answers() -> None:
    async def story() -> None:
        world = World()
        world.line.put(a_lookup())
        await world.turns()
        world.line.congest()
        world.line.put(a_lookup(), a_lookup())
        await world.turns()
        assert world.begun == 1
        world.line.relieve()
        await world.turns()
        assert world.begun == 3
        await world.end()

    run(story())


def test_versions_are_returned_even_when_all_places_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NODE_IN_FLIGHT_MAX", 1)

    async def story() -> None:
        world = World()
        world.line.put(a_lookup(), struct.pack(">hhih", apis.API_VERSIONS.key, 0, 9, -1))
        await world.turns()
        assert (world.begun, len(world.line.sent)) == (1, 1)
        await world.end()

    run(story())


def a_produced() -> ProduceResponseData:
    return ProduceResponseData.make(responses=())


def test_what_is_known_at_once_is_answered_where_the_request_arrives() -> None:
    async def story() -> None:
        world = World(reply=a_produced)
        await world.turns()
        tasks = asyncio.all_tasks()
        world.line.put(*[a_produce()] * 3)
        await asyncio.sleep(0)
        assert len(world.line.sent) == 3
        assert asyncio.all_tasks() == tasks
        assert world.produce_budget.taken == 0
        await world.end()

    run(story())


def test_deferred_answers_need_no_task() -> None:
    async def story() -> None:
        waits: list[asyncio.Future[None]] = []

        def later() -> Later:
            waits.append(asyncio.get_running_loop().create_future())
            return Later(waits[-1], lambda _: a_produced())

        frame = a_produce()
        world = World(produce_bytes_max=2 * len(frame), reply=later)
        await world.turns()
        tasks = asyncio.all_tasks()
        world.line.put(frame, frame, frame)
        await world.turns()
        assert (len(waits), len(world.line.sent), asyncio.all_tasks()) == (2, 0, tasks)
        waits[1].set_result(None)
        await world.turns()
        assert (len(waits), len(world.line.sent)) == (3, 1)
        await world.end()
        assert waits[0].cancelled()
        assert waits[2].cancelled()
        assert world.produce_budget.taken == 0

    run(story())


class _Broken(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "sent", "is_closed"),
    [(NotLeaderOrFollower(""), 1, False), (CloseConnection(""), 0, True), (_Broken(), 0, True)],
)
@pytest.mark.parametrize("where", ["at once", "later", "when it is rendered"])
def test_a_refusal_is_reported_wherever_it_comes_from(error: Exception, sent: int, is_closed: bool, where: str) -> None:
    def raised(*_: object) -> Any:
        raise error

    def reply() -> Answer:
        future = asyncio.get_running_loop().create_future()
        if where == "at once":
            raised()
        if where == "later":
            future.set_exception(error)
            return Later(future, lambda _: a_produced())
        future.set_result(None)
        return Later(future, raised)

    async def story() -> None:
        world = World(reply=reply)
        world.line.put(a_produce())
        await world.turns()
        assert (len(world.line.sent), world.line.is_closed, world.produce_budget.taken) == (sent, is_closed, 0)
        await world.end()

    run(story())


@pytest.mark.parametrize(
    ("error", "logged"), [(Malformed("too many items"), ["closing test:1: too many items"]), (CloseConnection("0"), [])]
)
def test_closed_connection_of_malformed_request_is_logged(
    error: Exception, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def reply() -> Answer:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return Later(future, lambda _: a_produced())

    async def story() -> None:
        world = World(reply=reply)
        world.line.put(a_produce())
        await world.turns()
        assert world.line.is_closed
        await world.end()

    with caplog.at_level(logging.WARNING):  # as a node has it
        run(story())
    assert [record.getMessage() for record in caplog.records] == logged


def test_unencodable_answer_closes_connection() -> None:
    async def story() -> None:
        unencodable: Any = (None,)
        world = World(reply=lambda: ProduceResponseData.make(responses=unencodable))
        world.line.put(a_produce())
        await world.turns()
        assert (world.line.is_closed, world.produce_budget.taken) == (True, 0)
        await world.end()

    run(story())
