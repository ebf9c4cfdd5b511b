"""Strangers at the Kafka port: they know the protocol, and no secret. They are clients, and get what clients get."""

from __future__ import annotations

import socket
import struct
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from kraft.protocol import apis, codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.add_partitions_to_txn_request import (
    AddPartitionsToTxnRequestData,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kraft.protocol.messages.add_partitions_to_txn_response import AddPartitionsToTxnResponseData
from kraft.protocol.messages.fetch_request import FetchPartition, FetchRequestData, FetchTopic, ReplicaState
from kraft.protocol.messages.fetch_response import FetchResponseData
from kraft.protocol.messages.metadata_request import MetadataRequestData
from kraft.protocol.messages.metadata_response import MetadataResponseData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import ProduceResponseData
from kraft.wire.handler_table import ROWS
from metadata.unauthenticated import KAFKA_LISTENER
from tests.integration.attacks.attack import (
    MEMORY_MIB_MAX,
    WITNESS,
    Attack,
    Target,
    at_once,
    connected,
    framed,
    sent,
    spoken,
    until_closed,
    withstand,
)
from tests.integration.support.cluster import Cluster

MIB = 1024 * 1024
ANNOUNCED = struct.pack(">i", 100 * MIB)
"""socket.request.max.bytes: as long as a client's request may be."""
TOO_LONG = struct.pack(">i", 100 * MIB + 1)
MEMORY_OF_FRAMES_MIB = 128 + 100
"""Half of queued.max.request.bytes, and one frame: the oldest gets what it needs."""
CROWD = 200
API_VERSIONS = framed(struct.pack(">hhih", 18, 0, 1, -1))
BROKEN_OFF = 5
FLOOD = 200_000
"""Requests of one stranger that reads no answers: without a limit they cost some 50 MB."""
LONG_ARRAY = struct.pack(">i", 0x7FFFFFFF)
NODES_ONLY = (52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 10_000)
CLUSTER_AUTHORIZATION_FAILED, SASL_AUTHENTICATION_FAILED = 31, 58
ELECT_LEADERS, UNREGISTER_BROKER = 43, 64
"""A few bytes are a whole request of these, and it moves leaders: a client that lists offsets then may get 78."""
Response = TypeVar("Response", bound=TopLevel)


def request(message: TopLevel, version: int, *, tags: bytes = b"\0") -> bytes:
    head = struct.pack(">hhih", message.API_KEY, version, 7, 2) + b"me"
    head += tags if version >= message.FLEXIBLE_FROM else b""
    return framed(head + b"".join(codec.encode_body(message, version)))


def answer(connection: socket.socket, kind: type[Response], version: int) -> Response:
    (size,) = struct.unpack(">i", exactly(connection, 4))
    frame = memoryview(exactly(connection, size))
    head = 5 if version >= kind.FLEXIBLE_FROM else 4
    return codec.decode_body(kind, version, frame, head)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, "the connection was closed in place of an answer"
        data += part
    return bytes(data)


def is_served(target: Target, *, size: int = 10) -> None:
    """A client beside the attack, with a request of so many bytes."""
    partition = PartitionProduceData.make(index=0, records=bytes(size))
    topic = TopicProduceData.make(name="nobody", partition_data=[partition])
    with connected(target.kafka) as (connection,):
        assert sent(connection, request(ProduceRequestData.make(acks=1, timeout_ms=30_000, topic_data=[topic]), 9))
        (found,) = answer(connection, ProduceResponseData, 9).responses
        assert found.partition_responses[0].error_code, "that is no batch, and no topic either"


def long_frames(target: Target) -> None:
    """As much of them as the node takes; meanwhile others send what is long, too."""
    with connected(target.kafka, 10) as connections:
        for connection in connections:
            sent(connection, ANNOUNCED)
        pushed(connections, bytes(MIB), count=90)
        is_served(target)
        is_served(target, size=3 * MIB)


def broken_off(target: Target) -> None:
    """One after the other, each most of the way: what breaks off is given back before the next one begins."""
    for _ in range(BROKEN_OFF):
        with connected(target.kafka) as (connection,):
            assert sent(connection, API_VERSIONS + ANNOUNCED)
            pushed([connection], bytes(MIB), count=90)
        is_served(target)


def pushed(connections: list[socket.socket], data: bytes, *, count: int) -> None:
    """So many times to each, as far as it goes: until nothing more is taken for a second."""
    left = dict.fromkeys(connections, count * len(data))
    chunk = memoryview(data * max(1, MIB // len(data)))
    for connection in connections:
        connection.setblocking(False)
    moved_s = time.monotonic()
    while left and time.monotonic() - moved_s < 1:
        for connection, rest in list(left.items()):
            begin = (count * len(data) - rest) % len(chunk)
            try:
                taken = connection.send(chunk[begin : begin + rest])
            except BlockingIOError:
                continue
            except ConnectionError:
                del left[connection]
                continue
            moved_s = time.monotonic()
            left[connection] = rest - taken
            if not left[connection]:
                del left[connection]
        time.sleep(0.001)


def half_open(target: Target) -> None:
    with connected(target.kafka, 1_500):
        is_served(target)
        is_served(target, size=3 * MIB)


def never_reads(target: Target) -> None:
    metadata = request(MetadataRequestData.make(topics=None), 12)
    with connected(target.kafka, 20) as connections:
        pushed(connections, metadata, count=20_000)
        is_served(target)


def asks_as_a_node(target: Target) -> None:
    for key in NODES_ONLY:
        for version in (0, 1, 4):
            with connected(target.kafka) as (connection,):
                sent(connection, framed(struct.pack(">hhih", key, version, 1, -1) + b"\0" * 40))
                assert until_closed(connection) == b"", (key, version)


def asks_as_a_leader(target: Target) -> None:
    """AddPartitionsToTxn 4 and 5, which brokers alone send: several transactions at once, or to look only."""
    topics = [AddPartitionsToTxnTopic.make(name=WITNESS, partitions=[0])]
    for version in (4, 5):
        for verify_only in (False, True):
            one = AddPartitionsToTxnTransaction.make(
                transactional_id="of another", producer_id=0, producer_epoch=0, verify_only=verify_only, topics=topics
            )
            with connected(target.kafka) as (connection,):
                sent(connection, request(AddPartitionsToTxnRequestData.make(transactions=[one]), version))
                found = answer(connection, AddPartitionsToTxnResponseData, version)
                assert found.error_code == CLUSTER_AUTHORIZATION_FAILED, (version, found)
                assert not found.results_by_transaction


def fetches_as_a_replica(target: Target) -> None:
    """A follower's fetch reads beyond the high watermark, and moves it."""
    (topic_id,) = (topic.topic_id for topic in metadata_of(target).topics if topic.name == WITNESS)
    partition = FetchPartition.make(partition=0, fetch_offset=0, partition_max_bytes=MIB)
    topic = FetchTopic.make(topic=WITNESS, topic_id=topic_id, partitions=[partition])
    replica = ReplicaState.make(replica_id=2, replica_epoch=1)
    for version in range(4, 19):
        who = {"replica_id": 2} if version < 15 else {"replica_state": replica}
        as_replica = FetchRequestData.make(max_wait_ms=0, max_bytes=MIB, topics=[topic], **who)
        with connected(target.kafka) as (connection,):
            sent(connection, request(as_replica, version))
            found = answer(connection, FetchResponseData, version)
            partitions = [each for one in found.responses for each in one.partitions]
            codes = {found.error_code, *(each.error_code for each in partitions)}
            assert CLUSTER_AUTHORIZATION_FAILED in codes, (version, codes)
            assert not any(each.records for each in partitions)


def metadata_of(target: Target, *, tags: bytes = b"\0") -> MetadataResponseData:
    with connected(target.kafka) as (connection,):
        sent(connection, request(MetadataRequestData.make(topics=None), 12, tags=tags))
        return answer(connection, MetadataResponseData, 12)


def wants_its_answers_as_they_come(target: Target) -> None:
    """Nodes are answered as answers are there. A stranger's come in the order of its requests, whatever it calls itself
    and however long the first one takes."""
    (topic_id,) = (topic.topic_id for topic in metadata_of(target).topics if topic.name == WITNESS)
    partition = FetchPartition.make(partition=0, fetch_offset=0, partition_max_bytes=MIB)
    topic = FetchTopic.make(topic_id=topic_id, partitions=[partition])
    slow = FetchRequestData.make(max_wait_ms=500, min_bytes=MIB, max_bytes=MIB, topics=[topic])
    body = b"".join(codec.encode_body(slow, 13))
    for client_id in (b"me", b"node-2-fetch", b"node-2-forward"):
        name = struct.pack(">h", len(client_id)) + client_id
        frames = [framed(struct.pack(">hhi", 1, 13, 0) + name + b"\0" + body)]
        frames += [framed(struct.pack(">hhi", 18, 0, number) + name) for number in range(1, 20)]
        with connected(target.kafka) as (connection,):
            sent(connection, b"".join(frames))
            order = []
            for _ in frames:
                (size,) = struct.unpack(">i", exactly(connection, 4))
                order += struct.unpack_from(">i", exactly(connection, size))
            assert order == list(range(20)), client_id


def uses_our_tags(target: Target) -> None:
    """The fields that nodes put into headers mean nothing from a client, and none comes back."""
    plain = metadata_of(target)
    for tags in (b"\x01\x90\x4e\x04\0\0\0\1", b"\x01\x91\x4e\x05\0\1abc", b"\x01\x90\x4e\0"):
        assert metadata_of(target, tags=tags) == plain


def knows_no_secret(target: Target) -> None:
    """A handshake, and then everything but the proof: nothing is answered but that, and nothing after it."""
    me = struct.pack(">h", 12) + b"node-2-fetch"
    handshake = framed(struct.pack(">hhi", 17, 1, 1) + me + struct.pack(">h", 13) + b"SCRAM-SHA-256")
    fetch = request(FetchRequestData.make(replica_id=2, max_wait_ms=0), 12)

    def token(text: bytes) -> bytes:
        return framed(struct.pack(">hhi", 36, 2, 1) + me + b"\0" + bytes([len(text) + 1]) + text + b"\0")

    somebody, cluster = token(b"n,,n=x,r=abc"), token(b"n,,n=__cluster__,r=abc")
    proof = token(b"c=biws,r=abc,p=" + b64encode(bytes(32)))
    for after, codes in (
        (fetch, []),
        (somebody + somebody, [SASL_AUTHENTICATION_FAILED]),
        (somebody + fetch, [SASL_AUTHENTICATION_FAILED]),
        (cluster + fetch, [0]),
        (cluster + proof + fetch, [0, SASL_AUTHENTICATION_FAILED]),
    ):
        with connected(target.kafka) as (connection,):
            if sent(connection, handshake + after):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
            begun, *rest = frames(until_closed(connection))
            assert bytes(begun[:6]) == struct.pack(">ih", 1, 0)
            assert [struct.unpack_from(">ixh", each) for each in rest] == [(1, code) for code in codes]


def frames(data: bytes) -> list[memoryview]:
    found, left = [], memoryview(data)
    while left:
        (size,) = struct.unpack_from(">i", left)
        found.append(left[4 : 4 + size])
        left = left[4 + size :]
    return found


def silence(target: Target) -> None:
    """Frames are as long as they may be, and their last byte never comes."""
    with connected(target.kafka, 3 * CROWD) as connections:
        for connection in connections[::2]:
            sent(connection, framed(bytes(KAFKA_LISTENER.frame_bytes_max))[:-1])
        for connection in connections:
            assert until_closed(connection) == b""


def flood(target: Target) -> None:
    with connected(target.kafka, 3) as connections:
        pushed(connections, API_VERSIONS, count=FLOOD)
        is_served(target)


def says(frame: bytes) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        with connected(target.kafka, 20) as connections:
            for connection in connections:
                sent(connection, framed(frame))
                sent(connection, API_VERSIONS * 16)
            for connection in connections:
                assert until_closed(connection) == b""

    return run


def claims(target: Target) -> None:
    """In every API and version: an array or text of 2 GiB, in a short frame."""
    versions = {api.key: api.nodes for api in apis.BY_KEY.values() if api.nodes}
    versions |= {key: apis.BY_KEY[key].clients for key in ROWS}
    for key in sorted(versions.keys() - {ELECT_LEADERS, UNREGISTER_BROKER}):
        for version in versions[key]:
            for claim in (LONG_ARRAY * 8, b"\xff\xff\xff\xff\x07" * 8, b"\0\0\0\1" * 8, b"\x7f\xff" * 16):
                reports_at_once(target, struct.pack(">hhih", key, version, 1, -1) + b"\0" + claim)


def reports_at_once(target: Target, frame: bytes) -> None:
    with connected(target.kafka) as (connection,):
        if sent(connection, framed(frame) + API_VERSIONS):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        until_closed(connection)


def storm(target: Target) -> None:
    before = spoken(target)
    for _ in range(40):
        with connected(target.kafka, 50) as connections:
            for number, connection in enumerate(connections):
                sent(connection, TOO_LONG if number % 2 else framed(b"\xff" * 100))
            for connection in connections:
                assert until_closed(connection) == b""
    assert spoken(target) - before < 64 * 1024


ATTACKS = {
    "a storm": Attack(sends="2,000 refused frames", comes_back="the end, and a few lines in the log", run=storm),
    "long frames": Attack(
        sends="ten frames that announce 100 MiB, and as much of them as is taken",
        comes_back="nothing, but the memory is bounded and others are served",
        run=long_frames,
        memory_mib_max=MEMORY_OF_FRAMES_MIB + MEMORY_MIB_MAX,
    ),
    "frames that break off": Attack(
        sends=f"90 MiB of a frame of 100 MiB, {BROKEN_OFF} times, each on a connection that ends then",
        comes_back="nothing, and the memory of one of them at a time",
        run=broken_off,
        memory_mib_max=100 + MEMORY_MIB_MAX,
    ),
    "half open": Attack(sends="nothing, on 1,500 connections", comes_back="nothing; others are served", run=half_open),
    "never reads": Attack(
        sends="20,000 questions on each of 20 connections, whose answers are not read",
        comes_back="as much as the kernel and one buffer of a connection take",
        run=never_reads,
    ),
    "a false node": Attack(sends="the APIs of nodes", comes_back="the end", run=asks_as_a_node),
    "a false leader": Attack(
        sends="AddPartitionsToTxn as leaders ask for it, to add and to look", comes_back="31", run=asks_as_a_leader
    ),
    "a false replica": Attack(
        sends="a fetch with the id of a replica, in every version", comes_back="31", run=fetches_as_a_replica
    ),
    "out of turn": Attack(
        sends="a fetch that waits, and more behind it, by the names of nodes",
        comes_back="answers in the order of the requests",
        run=wants_its_answers_as_they_come,
    ),
    "tags of nodes": Attack(sends="our tagged fields", comes_back="what all clients get", run=uses_our_tags),
    "no secret": Attack(sends="a handshake and no proof", comes_back="an error, the end", run=knows_no_secret),
    "silence": Attack(
        sends=f"nothing, or all but the last byte of a frame, on {3 * CROWD} connections",
        comes_back="the end within 10 s",
        run=silence,
        outwaits=True,
    ),
    "a flood": Attack(
        sends=f"{FLOOD} ApiVersions, whose answers are not read", comes_back="what nobody reads", run=flood
    ),
    "claims": Attack(
        sends="arrays and texts of 2 GiB, claimed in short frames of every API and version",
        comes_back="an error or the end",
        run=claims,
    ),
    "garbage": Attack(sends="what is no request", comes_back="the end", run=says(b"\xff" * 10_000)),
    "an empty frame": Attack(sends="a frame of no bytes", comes_back="the end", run=says(b"")),
    "HTTP": Attack(sends="a GET", comes_back="the end", run=says(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    "a client id": Attack(
        sends="a client id that is no UTF-8",
        comes_back="the end",
        run=says(struct.pack(">hhih", 18, 0, 1, 4) + b"\xff" * 4),
    ),
}


@pytest.mark.parametrize("name", at_once(ATTACKS))
def test_the_kafka_port_withstands(attacked_cluster: Cluster, name: str):
    withstand(attacked_cluster, ATTACKS[name], node_id=1)
