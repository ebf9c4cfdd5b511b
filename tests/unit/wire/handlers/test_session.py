"""A client's connection on a real socket, with handlers that a test holds: order, limits, and what closes it."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from kraft.protocol import codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import InvalidRequest
from kraft.protocol.messages.api_versions_request import ApiVersionsRequestData
from kraft.protocol.messages.fetch_request import FetchRequestData
from kraft.protocol.messages.fetch_response import FetchResponseData
from kraft.protocol.messages.heartbeat_request import HeartbeatRequestData
from kraft.protocol.messages.heartbeat_response import HeartbeatResponseData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import ProduceResponseData
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.wire import connection_watch
from kraft.wire.api_handler import Answer, ApiHandler, Call
from kraft.wire.handler_table import ROWS, SERVED, ApiHandlers
from kraft.wire.node_parts import NodeParts
from kraft.wire.refusals import Refusals
from kraft.wire.server import ClientListener
from tests.unit.wire.fakes import Loopback, loopback, run, until
from tests.unit.wire.test_server_defends_itself import assert_alive

DEADLINE_S = 20
PRODUCE, FETCH, HEARTBEAT, METADATA = 0, 1, 12, 3
VERSION = {PRODUCE: 9, FETCH: 12, HEARTBEAT: 4, METADATA: 12}
NOT_SERVED = sorted({*range(-1, 100), 999, 10_000} - ROWS.keys() - {18})
"""Among them those of nodes (52 to 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 10000). A connection may also ask for
ApiVersions 18."""


class Held(ApiHandlers):
    """Handlers that begin at once and end when the test says so; Heartbeats are answered at once."""

    def __init__(self) -> None:
        super().__init__(cast(NodeParts, None))
        self.begun: list[tuple[str, Any]] = []
        self.ends: dict[tuple[str, Any], asyncio.Future[TopLevel | None]] = {}
        self.is_held = True
        self.problem: Exception | None = None
        self.why_not_yet = ""
        self.awaited = lambda: self.why_not_yet
        for request, response, handle in (
            (ProduceRequestData, ProduceResponseData, self._produce),
            (FetchRequestData, FetchResponseData, self._fetch),
            (HeartbeatRequestData, HeartbeatResponseData, self._heartbeat),
        ):
            self._loaded[request.API_KEY] = ApiHandler(
                request=request, response=response, handle=handle, refuse=self._refuse
            )

    @property
    def metadata_offset(self) -> int:
        return 1

    def _refuse(self, message: TopLevel, version: int, error: Any) -> TopLevel:
        return HeartbeatResponseData.make(error_code=error.code)

    def _later(self, name: str, number: Any, response: TopLevel | None) -> Answer:
        self.begun.append((name, number))
        if not self.is_held:
            return response
        future = self.ends[name, number] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: None)

        async def waited() -> TopLevel | None:
            await future
            return response

        return waited()

    def _produce(self, call: Call[ProduceRequestData]) -> Answer:
        number = call.message.timeout_ms
        response = None if call.message.acks == 0 else ProduceResponseData.make(throttle_time_ms=number)
        return self._later("produce", number, response)

    def _fetch(self, call: Call[FetchRequestData]) -> Answer:
        number = call.message.max_wait_ms
        return self._later("fetch", number, FetchResponseData.make(session_id=number))

    def _heartbeat(self, call: Call[HeartbeatRequestData]) -> Answer:
        self.begun.append(("heartbeat", call.message.generation_id))
        if self.problem is not None:
            raise self.problem
        return HeartbeatResponseData.make(error_code=call.message.generation_id)

    def end(self, name: str, number: Any) -> None:
        self.ends.pop((name, number)).set_result(None)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, key: int, body: TopLevel, correlation_id: int, *, version: int | None = None, tags: bytes = b"\0"):
        version = VERSION[key] if version is None else version
        self.raw(framed(key, version, body, correlation_id, tags=tags))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Correlation id and the rest."""
        async with asyncio.timeout(DEADLINE_S):
            (size,) = struct.unpack(">i", await self.reader.readexactly(4))
            frame = await self.reader.readexactly(size)
        return struct.unpack(">i", frame[:4])[0], frame[4:]

    async def end(self) -> bytes:
        """What comes before the connection ends."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def is_served(self) -> None:
        self.send(HEARTBEAT, heartbeat(5), 4_711)
        assert await self.answer() == (4_711, b"\0" + b"\0\0\0\0" + b"\0\x05" + b"\0")


def framed(
    key: int,
    version: int,
    body: TopLevel,
    correlation_id: int,
    *,
    client_id: bytes = b"me",
    tags: bytes = b"\0",
) -> bytes:
    head = struct.pack(">hhih", key, version, correlation_id, len(client_id)) + client_id + tags
    data = head + b"".join(codec.encode_body(body, version))
    return struct.pack(">i", len(data)) + data


def heartbeat(number: int) -> TopLevel:
    return HeartbeatRequestData.make(group_id="g", generation_id=number, member_id="m")


def fetch(number: int) -> TopLevel:
    return FetchRequestData.make(max_wait_ms=number)


def produce(number: int, *, size: int = 10, acks: int = 1) -> TopLevel:
    partition = PartitionProduceData.make(index=0, records=bytes(size))
    topic = TopicProduceData.make(name="t", partition_data=[partition])
    return ProduceRequestData.make(acks=acks, timeout_ms=number, topic_data=[topic])


DIALED: list[Client] = []


async def dial(world: Loopback, port: int | None = None) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", port or world.server.port))
    DIALED.append(client)
    return client


def served(story: Callable[[Loopback, Held], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        held = Held()
        async with loopback(clients=held, **options) as world:
            try:
                await story(world, held)
            finally:
                for client in DIALED:
                    client.writer.close()
                DIALED.clear()

    run(main())


# --- order ----------------------------------------------------------------------------------------------------------


def test_a_long_poll_holds_up_answers_behind_it_but_not_what_they_do():
    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        client.send(FETCH, fetch(1), 1)
        for number in range(2, 6):
            client.send(HEARTBEAT, heartbeat(number), number)
        await until(lambda: len(held.begun) == 5)
        held.end("fetch", 1)
        assert [(await client.answer())[0] for _ in range(5)] == [1, 2, 3, 4, 5]

    served(story)


def test_produces_are_answered_in_order():
    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        for number in range(6):
            client.send(PRODUCE, produce(number), number)
        await until(lambda: len(held.begun) == 6)
        assert held.begun == [("produce", number) for number in range(6)]
        for number in (3, 5, 1, 0, 4, 2):
            held.end("produce", number)
        assert [(await client.answer())[0] for _ in range(6)] == list(range(6))

    served(story)


def test_produces_that_wait_for_room_keep_their_order():
    """Memory for one and a half at a time."""

    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        for number in range(6):
            client.send(PRODUCE, produce(number, size=1_000), number)
        for number in range(6):
            await until(lambda wanted=number: held.begun[-1:] == [("produce", wanted)])
            held.end("produce", number)
        assert [(await client.answer())[0] for _ in range(6)] == list(range(6))
        assert held.begun == [("produce", number) for number in range(6)]

    served(story, queued_max_request_bytes=3_000)


def test_a_connection_has_one_fetch_at_a_time():
    async def story(world: Loopback, held: Held) -> None:
        client, other = await dial(world), await dial(world)
        for number in (1, 2):
            client.send(FETCH, fetch(number), number)
        other.send(FETCH, fetch(9), 9)
        await until(lambda: len(held.begun) == 2)
        held.end("fetch", 9)
        assert (await other.answer())[0] == 9
        await other.is_served()
        assert ("fetch", 2) not in held.begun
        held.end("fetch", 1)
        await until(lambda: ("fetch", 2) in held.begun)
        held.end("fetch", 2)
        assert [(await client.answer())[0] for _ in range(2)] == [1, 2]

    served(story)


def test_acks_0_puts_nothing_between_the_answers():
    async def story(world: Loopback, held: Held) -> None:
        held.is_held = False
        client = await dial(world)
        for number in range(1, 6):
            client.send(PRODUCE, produce(number, acks=0), 100 + number)
            client.send(HEARTBEAT, heartbeat(number), number)
        assert [(await client.answer())[0] for _ in range(5)] == [1, 2, 3, 4, 5]
        assert len(held.begun) == 10

    served(story)


def test_disconnect_ends_waiting_requests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_watch, "LOOK_MS", 20)

    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        for number in (1, 2):
            client.send(FETCH, fetch(number), number)
        await until(lambda: held.begun == [("fetch", 1)])
        client.writer.close()
        await until(lambda: world.server.connections == 0)
        assert held.ends["fetch", 1].cancelled()

    served(story)


def test_who_has_sent_thousands_of_requests_does_not_hold_up_others():
    async def story(world: Loopback, held: Held) -> None:
        flood, other = await dial(world), await dial(world)
        await other.is_served()
        flood.raw(framed(HEARTBEAT, 4, heartbeat(1), 1) * 20_000)
        await until(lambda: len(held.begun) > 2)
        await other.is_served()
        assert len(held.begun) < 10_000

    served(story)


# --- what closes a connection, and only that one --------------------------------------------------------------------


def test_an_api_that_clients_are_not_served_closes_with_one_line(caplog: pytest.LogCaptureFixture):
    async def story(world: Loopback, held: Held) -> None:
        other = await dial(world)
        for key in NOT_SERVED:
            client = await dial(world)
            client.raw(struct.pack(">ihhih", 10, key, 0, 1, -1))
            assert await client.end() == b"", key
        await other.is_served()
        assert held.begun == [("heartbeat", 5)]

    with caplog.at_level(logging.WARNING):
        served(story)
    reported = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert reported == [f"API key {key} is not served to clients" for key in NOT_SERVED]


@pytest.mark.parametrize("version", [-1, 5, 99])
def test_a_version_that_is_not_served_closes(version: int):
    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        client.raw(struct.pack(">ihhih", 10, HEARTBEAT, version, 1, -1))
        assert await client.end() == b""
        assert held.begun == []

    served(story)


def test_no_api_is_served_below_or_above_its_versions(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        outside = ClientListener("OUTSIDE", "127.0.0.1", 0)  # no node comes there with a SaslHandshake
        async with loopback(clients=Refusals()._apis, client_listeners=[outside]) as world:
            for api in SERVED:
                for version in (api.clients[0] - 1, api.clients[-1] + 1):
                    client = await dial(world, world.server.ports["OUTSIDE"])
                    client.raw(struct.pack(">ihhih", 10, api.key, version, 1, -1))
                    assert await client.end() == b"", (api.name, version)
                    client.writer.close()
        DIALED.clear()

    with caplog.at_level(logging.WARNING):
        run(main())
    reported = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert reported == [
        f"{api.name} version {version}; {api.clients[0]} to {api.clients[-1]} are served"
        for api in SERVED
        for version in (api.clients[0] - 1, api.clients[-1] + 1)
    ]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">i", -1),
        struct.pack(">i", 2_000_001),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        struct.pack(">ih", 2, 3),
        struct.pack(">i", 0),
        framed(HEARTBEAT, 4, heartbeat(1), 1)[:20] + b"\xff" * 30,
        struct.pack(">ihhih", 12, 3, 1, 1, 500) + b"ab",
        struct.pack(">ihhih", 14, HEARTBEAT, 4, 1, 2) + b"\xff\xfe\0\0",
    ],
    ids=["negative", "too long", "HTTP", "TLS", "short", "empty", "damaged", "client id", "no UTF-8"],
)
def test_what_cannot_be_parsed_closes_with_one_line(data: bytes, caplog: pytest.LogCaptureFixture):
    async def story(world: Loopback, held: Held) -> None:
        client, other = await dial(world), await dial(world)
        await other.is_served()
        client.raw(data)
        assert await client.end() == b""
        await other.is_served()

    with caplog.at_level(logging.WARNING):
        served(story, socket_request_max_bytes=2_000_000)
    assert len(caplog.records) == 1, [record.getMessage() for record in caplog.records]


def test_a_fault_of_a_handler_closes_that_connection_only():
    async def story(world: Loopback, held: Held) -> None:
        client, other = await dial(world), await dial(world)
        held.problem = ValueError("ours")
        client.send(HEARTBEAT, heartbeat(1), 1)
        assert await client.end() == b""
        held.problem = None
        await other.is_served()

    served(story)


def test_a_refusal_is_an_answer():
    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        held.problem = InvalidRequest("no")
        client.send(HEARTBEAT, heartbeat(1), 1)
        assert await client.answer() == (1, b"\0" + b"\0\0\0\0" + struct.pack(">h", InvalidRequest.code) + b"\0")

    served(story)


def test_tagged_fields_that_nobody_knows_are_skipped_in_header_and_body():
    """Ours too: what nodes tell each other in headers has no meaning from a client."""

    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        for tags in (b"\x01\x63\x02xy", b"\x01\x90\x4e\x04\0\0\0\1", b"\x02\x05\0\x91\x4e\x03\0\1x"):
            client.send(HEARTBEAT, heartbeat(3), 1, tags=tags)
            assert (await client.answer())[0] == 1
        whole = framed(HEARTBEAT, 4, heartbeat(3), 2)[4:-1] + b"\x01\x63\x02xy"
        client.raw(struct.pack(">i", len(whole)) + whole)
        assert (await client.answer())[0] == 2

    served(story)


def test_bytes_behind_a_body_are_not_looked_at():
    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        whole = framed(HEARTBEAT, 4, heartbeat(3), 2)[4:] + b"\1\0\0"
        client.raw(struct.pack(">i", len(whole)) + whole)
        assert (await client.answer())[0] == 2

    served(story)


# --- nodes and clients ----------------------------------------------------------------------------------------------


async def shakes_hands_in_vain(client: Client, *, mechanism: str = "SCRAM-SHA-256", client_id: bytes = b"me") -> None:
    handshake = SaslHandshakeRequestData.make(mechanism=mechanism)
    client.raw(framed(17, 1, handshake, 2, client_id=client_id, tags=b""))
    assert await client.answer() == (2, b"\0\x22" + bytes(4)), "ILLEGAL_SASL_STATE 34, and no mechanism"


async def receives_that_nobody_authenticates(client: Client) -> None:
    """And is served on, as what it was."""
    await shakes_hands_in_vain(client)
    client.raw(framed(36, 2, SaslAuthenticateRequestData.make(auth_bytes=b"n,,n=node-1,r=abc"), 3))
    correlation_id, answer = await client.answer()
    assert (correlation_id, answer[:3]) == (3, b"\0" + b"\0\x22")
    assert b"security.protocol=PLAINTEXT" in answer
    await client.is_served()


@pytest.mark.parametrize("asks_first", [False, True])
def test_a_client_that_is_set_up_to_authenticate_receives_that_nobody_does(asks_first: bool):
    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        if asks_first:
            software = ApiVersionsRequestData.make(client_software_name="a", client_software_version="1")
            client.raw(framed(18, 4, software, 1))
            await client.answer()
        await shakes_hands_in_vain(client, mechanism="PLAIN")
        await receives_that_nobody_authenticates(client)
        await assert_alive(world)

    served(story)


def test_a_client_does_not_become_a_node_after_its_first_request():
    async def story(world: Loopback, held: Held) -> None:
        client = await dial(world)
        await client.is_served()
        await shakes_hands_in_vain(client, client_id=b"node-2-fetch")
        await assert_alive(world)

    served(story)


def test_a_listener_for_clients_takes_no_node():
    async def story(world: Loopback, held: Held) -> None:
        node = await dial(world, world.server.ports["OUTSIDE"])
        await shakes_hands_in_vain(node, client_id=b"node-2-fetch")
        await receives_that_nobody_authenticates(node)

    served(story, client_listeners=[ClientListener("OUTSIDE", "127.0.0.1", 0)])


def test_nobody_is_served_before_the_metadata_has_caught_up_but_nodes_are(caplog: pytest.LogCaptureFixture):
    async def story(world: Loopback, held: Held) -> None:
        held.why_not_yet = "logs are loaded: 1 of 7"
        for body in (heartbeat(1), None):
            client = await dial(world)
            if body is None:
                software = ApiVersionsRequestData.make(client_software_name="a", client_software_version="1")
                client.raw(framed(18, 4, software, 1))
            else:
                client.send(HEARTBEAT, body, 1)
            with pytest.raises(ConnectionResetError):  # as at a port that is not open yet
                async with asyncio.timeout(DEADLINE_S):
                    await client.reader.read()
        await assert_alive(world)
        held.why_not_yet = ""
        await (await dial(world)).is_served()

    with caplog.at_level(logging.WARNING):
        served(story)
    assert [record.getMessage().count("logs are loaded: 1 of 7") for record in caplog.records] == [1, 1]


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [20_000, 1_100_000, 5_000_000])
def test_a_long_request_may_be_the_very_first(size: int):
    async def story(world: Loopback, held: Held) -> None:
        held.is_held = False
        client = await dial(world)
        client.send(PRODUCE, produce(7, size=size), 1)
        assert (await client.answer())[0] == 1
        assert held.begun == [("produce", 7)]

    served(story)


def test_clients_leave_places_for_nodes():
    async def story(world: Loopback, held: Held) -> None:
        clients = [await dial(world) for _ in range(3)]
        for client in clients:
            await client.is_served()
        fourth = await dial(world)
        fourth.send(HEARTBEAT, heartbeat(1), 1)
        assert await fourth.end() == b""
        await assert_alive(world)
        clients.pop().writer.close()
        await until(lambda: len(world.server.watch) == 2)
        await (await dial(world)).is_served()

    served(story, max_connections=3)


def test_one_that_sends_nothing_loses_his_place_to_clients_and_nodes():
    async def story(world: Loopback, held: Held) -> None:
        for _ in range(300):
            await dial(world)
        clients = [await dial(world) for _ in range(10)]
        for client in clients:
            await client.is_served()
        await assert_alive(world)

    served(story, max_connections=50)


def test_a_thousand_connections_that_say_nothing_keep_nobody_out():
    async def story(world: Loopback, held: Held) -> None:
        for _ in range(1_000):
            await dial(world)
        client = await dial(world)
        await client.is_served()
        await assert_alive(world)

    served(story)


def test_an_idle_client_is_closed_and_one_that_waits_for_an_answer_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_watch, "LOOK_MS", 20)

    async def story(world: Loopback, held: Held) -> None:
        idle, waiting = await dial(world), await dial(world)
        waiting.send(FETCH, fetch(1), 1)
        await idle.is_served()
        assert await idle.end() == b""
        held.end("fetch", 1)
        assert (await waiting.answer())[0] == 1

    served(story, connections_max_idle_ms=200)
