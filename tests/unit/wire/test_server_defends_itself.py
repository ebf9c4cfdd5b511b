"""What a server does with strangers, garbage and peers that break: it closes that connection and serves the others."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kraft.broker.node_facts import Scope
from kraft.coordinators.groups.requests import DescribeGroup
from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.leaders import ShareFetch
from kraft.coordinators.shares.state import ShareKey
from kraft.coordinators.transactions.list_filters import ListFilters
from kraft.protocol import apis, codec, scram
from kraft.protocol.apis import Api
from kraft.protocol.batches.markers import Marker
from kraft.protocol.codec import RequestHeader
from kraft.protocol.encoding import Message
from kraft.protocol.errors import SaslAuthenticationFailed
from kraft.protocol.messages.api_versions_request import ApiVersionsRequestData
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.transactions import MarkersToWrite, Producer
from kraft.wire.channels.controller import CONTROLLER_RPCS, ControllerChannel
from kraft.wire.channels.forward import (
    DELETE_RECORDS,
    DESCRIBE_PRODUCERS,
    LIST_OFFSETS,
    PRODUCE,
    DeleteRecords,
    ListOffset,
    ProduceRequest,
    RemotePartitionClient,
)
from kraft.wire.channels.groups import GROUP_REQUEST
from kraft.wire.channels.metadata_log import FETCH_SNAPSHOT
from kraft.wire.channels.node_facts import NODE_FACTS
from kraft.wire.channels.replicas import FETCH, OFFSET_FOR_LEADER_EPOCH, EpochQuestion
from kraft.wire.channels.routes import ALTER_ROUTE
from kraft.wire.channels.share_records import SHARE_FETCH, SHARE_SETTLE, Settling
from kraft.wire.channels.share_state import (
    DELETE_STATE,
    INITIALIZE_STATE,
    READ_STATE,
    STATE_SUMMARY,
    WRITE_STATE,
    InitializeState,
    ReadState,
    WriteState,
)
from kraft.wire.channels.transactions import (
    ADD_PARTITIONS_TO_TXN,
    DESCRIBE_TRANSACTION,
    END_TXN,
    INIT_PRODUCER_ID,
    LIST_TRANSACTIONS,
    WRITE_TXN_MARKERS,
    End,
    InitProducerId,
    PartitionsOfTransaction,
)
from kraft.wire.channels.users import ALTER_USERS
from kraft.wire.metadata_fetches import SnapshotFetch
from metadata.controller.requests import AllocateProducerIds, AlterRoute, AlterUsers, ProducerIdBlock, ScramDeletion
from metadata.environment import ConnectionClosed, FrameConnection, NotConnected
from metadata.routes import RouteKind
from metadata.unauthenticated import KAFKA_LISTENER
from replication.requests import ProduceOptions
from replication.shares.acknowledgements import Part
from replication.shares.settled import Lease
from replication.shares.states import AcknowledgeType, DeliveryState, StateBatch
from tests.unit.wire.fakes import T0, Loopback, loopback, run, until
from tests.unit.wire.test_controller_round_trips import CASES
from tests.unit.wire.test_data_round_trips import REQUEST


@asynccontextmanager
async def raw(world: Loopback) -> AsyncIterator[FrameConnection]:
    connection = await world.environment.network.connect(
        "127.0.0.1", world.server.port, frame_bytes_max=1 << 30, timeout_ms=20_000
    )
    try:
        yield connection
    finally:
        connection.abort()


def send(connection: FrameConnection, api: Api, body: Any, *, client_id: str | None = "test") -> None:
    header = RequestHeader(api_key=api.key, api_version=api.version, correlation_id=7, client_id=client_id)
    connection.send(codec.encode_request(api, header, body))


async def ask(connection: FrameConnection, api: Api, body: Any, *, client_id: str | None = "test") -> Any:
    send(connection, api, body, client_id=client_id)
    frame = await connection.receive()
    header, offset = codec.decode_response_head(api, api.version, frame)
    assert header.correlation_id == 7
    return codec.decode_body(apis.response_type(api), api.version, frame, offset)


async def assert_closed(connection: FrameConnection) -> None:
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionClosed):
            await connection.receive()


async def assert_alive(world: Loopback) -> None:
    world.controller.answer = ProducerIdBlock(first=1, count=2)
    peers = world.peers(node_id=99)
    reply = await ControllerChannel(peers).request(
        1, AllocateProducerIds(broker_id=1, broker_epoch=1), timeout_ms=20_000
    )
    assert reply == ProducerIdBlock(first=1, count=2)
    await peers.close()


SHARE = ShareKey("g", T0.topic_id, T0.partition)
EVERY_API: dict[str, tuple[Any, Any]] = {
    **{rpc.api.name: (rpc, request) for request, _ in CASES for rpc in [CONTROLLER_RPCS[type(request)]]},
    "ElectLeaders": (CONTROLLER_RPCS[type(CASES[6][0])], CASES[6][0]),
    "Fetch": (FETCH, REQUEST),
    "Produce": (PRODUCE, ProduceRequest(batches={T0: b"x"}, options=ProduceOptions(-1, 1))),
    "ListOffsets": (LIST_OFFSETS, ListOffset(partition=T0, timestamp=-1, timeout_ms=1)),
    "DeleteRecords": (DELETE_RECORDS, DeleteRecords(partition=T0, offset=1, timeout_ms=1)),
    "OffsetForLeaderEpoch": (
        OFFSET_FOR_LEADER_EPOCH,
        EpochQuestion(replica_id=1, partition=T0, current_leader_epoch=1, epoch=1),
    ),
    "FetchSnapshot": (
        FETCH_SNAPSHOT,
        SnapshotFetch(cluster_id="c", replica_id=1, end_offset=1, epoch=1, position=0, bytes_max=1),
    ),
    "InitProducerId": (INIT_PRODUCER_ID, InitProducerId()),
    "AddPartitionsToTxn": (
        ADD_PARTITIONS_TO_TXN,
        [PartitionsOfTransaction("id", Producer(7, 0), False, frozenset({("t", 0)}))],
    ),
    "EndTxn": (END_TXN, End("id", Producer(7, 0), True)),
    "WriteTxnMarkers": (WRITE_TXN_MARKERS, [MarkersToWrite(7, 0, Marker(True, 1), frozenset({("t", 0)}))]),
    "DescribeProducers": (DESCRIBE_PRODUCERS, T0),
    "DescribeTransactions": (DESCRIBE_TRANSACTION, "id"),
    "ListTransactions": (LIST_TRANSACTIONS, ListFilters()),
    "AlterRoute": (ALTER_ROUTE, AlterRoute(name="r", operation="create", kind=RouteKind.DIRECT)),
    "NodeFacts": (NODE_FACTS, Scope(filter="t-0", exact=True)),
    "GroupRequest": (GROUP_REQUEST, DescribeGroup(group="g")),
    "InitializeShareGroupState": (INITIALIZE_STATE, InitializeState(SHARE, 1, -1)),
    "ReadShareGroupState": (READ_STATE, ReadState(SHARE, 1)),
    "WriteShareGroupState": (
        WRITE_STATE,
        WriteState(
            SHARE,
            Write(
                state_epoch=1,
                leader_epoch=2,
                start_offset=3,
                delivery_complete_count=4,
                batches=[StateBatch(5, 6, DeliveryState.ACKNOWLEDGED, 1)],
            ),
        ),
    ),
    "DeleteShareGroupState": (DELETE_STATE, SHARE),
    "AlterUserScramCredentials": (
        ALTER_USERS,
        AlterUsers(deletions=(ScramDeletion(name="a", mechanism="SCRAM-SHA-256"),)),
    ),
    "ReadShareGroupStateSummary": (STATE_SUMMARY, SHARE),
    "ShareFetch": (
        SHARE_FETCH,
        ShareFetch(
            group="g",
            member="m",
            partitions=[T0],
            wait_ms=1,
            bytes_max=1,
            records_max=1,
            batch_size=1,
            is_strict=False,
            room=lambda: 1,
            lock_ms=15_000,
        ),
    ),
    "ShareAcknowledge": (
        SHARE_SETTLE,
        Settling(group="g", leases=[(T0, Lease("m", Part(1, 1, AcknowledgeType.ACCEPT, ""), 1, 1, 1, 1))]),
    ),
}


def error_codes(message: Any) -> set[int]:
    """Every error code anywhere in a message."""
    if isinstance(message, tuple):
        return set().union(*(error_codes(item) for item in message))
    fields = getattr(message, "__slots__", ()) if isinstance(message, Message) else ()
    found = {message.error_code} if "error_code" in fields else set()
    return found.union(*(error_codes(getattr(message, name)) for name in fields))


def test_the_table_names_every_api() -> None:
    free = {"ApiVersions", "SaslHandshake", "SaslAuthenticate"}
    assert set(EVERY_API) | free == {api.name for api in apis.BY_KEY.values() if api.nodes}


@pytest.mark.parametrize("name", sorted(EVERY_API))
def test_strangers_get_error_31_for_every_api(name: str) -> None:
    rpc, request = EVERY_API[name]

    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            response = await ask(connection, rpc.api, rpc.to_request(request, 1))
            assert 31 in error_codes(response)
            assert world.controller.asked == world.replicas.produced == world.replicas.fetched == []

    run(main())


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5, 99])
def test_api_versions_is_answered_to_strangers_in_every_version(version: int) -> None:
    answered = version if version <= 4 else 0

    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            head = struct.pack(">hhih", 18, version, 5, -1)
            software = b"\0\x02a\x02b\0" if version >= 3 else b""
            connection.send([head + software])
            frame = await connection.receive()
            assert frame[:4] == b"\0\0\0\x05"
            body = codec.decode_body(apis.response_type(apis.API_VERSIONS), answered, frame, 4)
            assert body.error_code == (0 if version <= 4 else 35)
            ranges = {item.api_key: (item.min_version, item.max_version) for item in body.api_keys}
            every = {api.key: (api.nodes[0], api.nodes[-1]) for api in apis.BY_KEY.values() if api.nodes}
            assert ranges == (every if version <= 4 else {18: (0, 4)})  # KIP-511
            assert not connection.is_closed

    run(main())


def handshake(mechanism: str = scram.MECHANISM) -> Any:
    return SaslHandshakeRequestData.make(mechanism=mechanism)


def token(data: bytes) -> Any:
    return SaslAuthenticateRequestData.make(auth_bytes=data)


def test_an_unknown_mechanism_is_refused_with_what_would_be_right() -> None:
    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            answer = await ask(connection, apis.SASL_HANDSHAKE, handshake("PLAIN"))
            assert (answer.error_code, answer.mechanisms) == (33, ("SCRAM-SHA-256",))
            await assert_closed(connection)

    run(main())


def test_a_token_before_the_handshake_is_illegal() -> None:
    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            answer = await ask(connection, apis.SASL_AUTHENTICATE, token(b"n,,n=x,r=y"))
            assert answer.error_code == 34
            await assert_closed(connection)

    run(main())


@pytest.mark.parametrize("client_id", [None, "", "node-1", "node-x-fetch", "node-1-fetch2", "kafka-python"])
def test_a_peer_without_a_node_id_is_refused(client_id: str | None) -> None:
    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            await ask(connection, apis.SASL_HANDSHAKE, handshake(), client_id=client_id)
            client = scram.ScramClient(user="__cluster__", password="a long and random cluster secret", nonce="abc")
            first = await ask(connection, apis.SASL_AUTHENTICATE, token(client.first()), client_id=client_id)
            final = token(client.final(first.auth_bytes))
            answer = await ask(connection, apis.SASL_AUTHENTICATE, final, client_id=client_id)
            assert answer.error_code == 58
            await assert_closed(connection)

    run(main())


def test_a_wrong_secret_gets_error_58_and_a_close() -> None:
    async def main() -> None:
        async with loopback() as world:
            peers = world.peers(password="wrong")
            with pytest.raises(SaslAuthenticationFailed, match="wrong cluster secret"):
                await RemotePartitionClient(peers, 1).list_offset(T0, -1)
            await until(lambda: world.server.connections == 0)
            await peers.close()
            await assert_alive(world)

    run(main())


def test_a_huge_request_before_authentication_closes() -> None:
    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            connection.send([bytes(KAFKA_LISTENER.frame_bytes_max + 1)])
            await assert_closed(connection)
            await assert_alive(world)

    run(main())


@pytest.mark.parametrize(
    "head",
    [
        struct.pack(">hhih", 999, 0, 1, -1),
        struct.pack(">hhih", 0, 3, 1, -1),
        struct.pack(">hhih", 1, 18, 1, -1),
        struct.pack(">hhih", 17, 0, 1, -1),
        struct.pack(">hhih", -1, -1, -1, -1),
        struct.pack(">hhih", 18, 3, 1, 500),
        b"",
        b"\0\x12",
    ],
    ids=["unknown api", "old produce", "new fetch", "raw sasl", "negative", "client id too long", "empty", "short"],
)
def test_what_we_do_not_speak_closes_the_connection(head: bytes) -> None:
    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            connection.send([head])
            await assert_closed(connection)
            await assert_alive(world)

    run(main())


@pytest.mark.parametrize("is_authenticated", [False, True])
def test_garbage_costs_only_its_own_connection(is_authenticated: bool) -> None:
    rng = random.Random(2024)
    good = [
        b"".join(codec.encode_request(rpc.api, _header(rpc.api), rpc.to_request(request, 1)))
        for rpc, request in EVERY_API.values()
    ]

    async def main() -> None:
        async with loopback() as world:
            peers = world.peers()
            for n in range(300):
                frame = _damaged(rng, rng.choice(good))
                if is_authenticated:
                    connection = await peers.connection(1, "forward", timeout_ms=20_000)
                    connection._connection.send([frame])
                else:
                    async with raw(world) as stranger:
                        stranger.send([frame])
                        await stranger.drain()
                if n % 100 == 99:
                    await assert_alive(world)
            await peers.close()

    run(main())


def _header(api: Api) -> RequestHeader:
    return RequestHeader(api_key=api.key, api_version=api.version, correlation_id=-5, client_id="node-1-fetch")


def _damaged(rng: random.Random, frame: bytes) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return frame[: rng.randrange(len(frame))]
    if kind == 1:
        return frame + rng.randbytes(rng.randrange(1, 20))
    if kind == 2:
        return frame[:10] + rng.randbytes(rng.randrange(100))
    damaged = bytearray(frame)
    for _ in range(rng.randrange(1, 8)):
        damaged[rng.randrange(8, len(damaged))] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(damaged)


def test_connection_beyond_limit_is_closed() -> None:
    async def main() -> None:
        async with loopback(max_connections=2) as world:
            peers = [world.peers(node_id=number) for number in (5, 6)]
            for each in peers:
                await each.connection(1, "forward", timeout_ms=20_000)
            async with raw(world) as third:
                await assert_closed(third)
            assert (world.server.connections, world.server.counts.refused) == (2, 1)
            for each in peers:
                await each.close()

    run(main())


def test_one_that_sends_nothing_loses_the_last_place_to_a_newcomer() -> None:
    async def main() -> None:
        async with loopback(max_connections=2) as world, raw(world) as first, raw(world) as second:
            await until(lambda: world.server.connections == 2)
            async with raw(world) as third:
                await assert_closed(first)
                software = {"client_software_name": "a", "client_software_version": "1"}
                answered = await ask(third, apis.API_VERSIONS, ApiVersionsRequestData.make(**software))
                assert answered.error_code == 0
                assert not second.is_closed
            assert world.server.counts.refused == 0

    run(main())


def test_a_broken_controller_connection_is_reported_once() -> None:
    async def main() -> None:
        async with loopback() as world:
            world.controller.answer = ProducerIdBlock(first=1, count=2)
            peers = world.peers(node_id=5)
            await RemotePartitionClient(peers, 1).list_offset(T0, -1)
            await ControllerChannel(peers).request(
                1, AllocateProducerIds(broker_id=1, broker_epoch=1), timeout_ms=20_000
            )
            assert world.lost == []
            await peers.close()
            await until(lambda: world.server.connections == 0)
            assert world.lost == [5]

    run(main())


def test_a_bug_in_a_handler_closes_that_connection_only() -> None:
    async def main() -> None:
        async with loopback() as world:
            peers = world.peers()
            world.controller.answer = ValueError("bug")
            with pytest.raises(ConnectionClosed):
                await ControllerChannel(peers).request(
                    1, AllocateProducerIds(broker_id=1, broker_epoch=1), timeout_ms=20_000
                )
            await peers.close()
            await assert_alive(world)

    run(main())


def test_peers_reconnect_after_the_server_restarts() -> None:
    async def main() -> None:
        async with loopback() as first:
            port = first.server.port
            peers = first.peers(connect_timeout_ms=20_000)
            peers.address = lambda node, purpose: ("127.0.0.1", port)
            channel = RemotePartitionClient(peers, 1)
            assert (await channel.list_offset(T0, -1)).offset == 7
            await first.server.stop()
            await until(lambda: first.server.connections == 0)
            with pytest.raises((ConnectionRefusedError, ConnectionClosed)):
                await channel.list_offset(T0, -1)
            with pytest.raises(ConnectionRefusedError):
                await channel.list_offset(T0, -1)
            async with loopback(port=port):
                assert (await channel.list_offset(T0, -1)).offset == 7
                await peers.close()

    run(main())


def test_a_silent_peer_is_given_up() -> None:
    async def main() -> None:
        async def silent(connection: FrameConnection) -> None:
            await asyncio.Event().wait()

        async with loopback() as world:
            listener = await world.environment.network.listen("127.0.0.1", 0, silent, frame_bytes_max=1_000)
            peers = world.peers()
            peers.address = lambda node, purpose: ("127.0.0.1", listener.port)
            with pytest.raises(NotConnected):
                await peers.connection(1, "fetch", timeout_ms=50)  # short: nobody answers
            await peers.close()
            await listener.close()

    run(main())


@pytest.mark.parametrize("count", [b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f", b"\x40"])
def test_an_array_that_claims_more_than_there_is_reserves_nothing(count: bytes) -> None:
    async def main() -> None:
        async with loopback() as world, raw(world) as connection:
            head = struct.pack(">hhih", 1, 17, 1, -1) + b"\0" + struct.pack(">iiibii", 0, 0, 0, 0, 0, 0)
            connection.send([head + count])
            await assert_closed(connection)
            await assert_alive(world)

    run(main())
