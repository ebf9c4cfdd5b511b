"""What large frames and large answers leave in the memory of a node whose clients break off, or do not read."""

from __future__ import annotations

import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from kraft.client.response import Answer
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.media_types import RECORD_BATCH
from kraft.protocol.messages.fetch_request import FetchPartition, FetchRequestData, FetchTopic
from kraft.protocol.messages.fetch_response import FetchResponseData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import ProduceResponseData
from kraft.wire.handlers.fetch import ROOM_WAIT_MS
from metadata.settings import BrokerSettings
from tests.integration.attacks.attack import MEMORY_MIB_MAX, Attack, Target, connected, sent, withstand
from tests.integration.attacks.test_kafka_port import (
    ANNOUNCED,
    API_VERSIONS,
    MIB,
    answer,
    exactly,
    metadata_of,
    request,
)
from tests.integration.support.cluster import Cluster

LARGE = "large"
ANSWER_BYTES = 55 * MIB
"""fetch.max.bytes"""
BATCHES = 60
ROOM_MIB = BrokerSettings().queued_max_response_bytes // MIB
KEPT_MIB = ROOM_MIB + MEMORY_MIB_MAX + 64
"""The limit, a batch, and what the allocator keeps free of what answers have held (`kraft.runtime.heap`)."""
ARRIVED_MIB = 90
WAIT_MS = 500
SERVED_S_MAX = (WAIT_MS + ROOM_WAIT_MS) / 1_000 + 3
"""A fetch beside the attack: its own wait, the wait for room, and what a busy machine adds."""


@pytest.fixture(scope="module")
def large_topic(attacked_cluster: Cluster) -> Iterator[Cluster]:
    attacked_cluster.create_topic(LARGE, replication_factor=1)
    batch = build_batch([NewRecord(None, bytes(MIB - 1024), [], 1)])
    partition = PartitionProduceData.make(index=0, records=batch)
    topic = TopicProduceData.make(name=LARGE, partition_data=[partition])
    produce = request(ProduceRequestData.make(acks=1, timeout_ms=30_000, topic_data=[topic]), 9)
    with connected(Target(attacked_cluster, leader(attacked_cluster)).kafka) as (connection,):
        for _ in range(BATCHES):
            assert sent(connection, produce)
            (found,) = answer(connection, ProduceResponseData, 9).responses
            assert found.partition_responses[0].error_code == 0
    yield attacked_cluster
    attacked_cluster.call("DELETE", f"/topics/{LARGE}")


def leader(cluster: Cluster) -> int:
    (topic,) = (each for each in metadata_of(Target(cluster, 1)).topics if each.name == LARGE)
    return topic.partitions[0].leader_id


def fetch(bytes_max: int) -> bytes:
    partition = FetchPartition.make(partition=0, fetch_offset=0, partition_max_bytes=bytes_max)
    topic = FetchTopic.make(topic=LARGE, partitions=[partition])
    return request(FetchRequestData.make(max_wait_ms=WAIT_MS, min_bytes=1, max_bytes=bytes_max, topics=[topic]), 12)


def reads_nothing(clients: int, *, rounds: int) -> Callable[[Target], None]:
    """Beside them a consumer reads: each of its fetches is answered in time, and it gets records."""

    def run(target: Target) -> None:
        with ExitStack() as stack:
            for _ in range(clients):
                stack.enter_context(_unread(target.kafka, fetch(ANSWER_BYTES)))
            (consumer,) = stack.enter_context(connected(target.kafka))
            got = 0
            for _ in range(rounds):
                began_s = time.monotonic()
                assert sent(consumer, fetch(MIB))
                (found,) = answer(consumer, FetchResponseData, 12).responses
                assert time.monotonic() - began_s < SERVED_S_MAX
                got += len(found.partitions[0].records or b"")
            assert got > MIB // 2, "the consumer gets no records"

    return run


def _unread(address: tuple[str, int], frame: bytes) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(address)
    assert sent(connection, frame)
    return connection


@pytest.mark.long
def test_thirty_fetches_that_nobody_reads_stay_within_the_limit(large_topic: Cluster) -> None:
    attack = Attack(
        sends="a fetch of 55 MiB on each of 30 connections",
        comes_back="as much as the kernel takes, and the end after a standstill",
        run=reads_nothing(30, rounds=3),
        memory_mib_max=KEPT_MIB,
    )
    withstand(large_topic, attack, node_id=leader(large_topic))


def reads_no_http(target: Target) -> None:
    path = f"/topics/{LARGE}/partitions/0/records?offset=0&max_bytes={ANSWER_BYTES}"
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {RECORD_BATCH}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(_unread(target.rest, head.encode()))
        began_s = time.monotonic()
        path = f"/topics/{LARGE}/partitions/0/records?offset=0&max_bytes={MIB}"
        answered = target.call("GET", path, Accept=RECORD_BATCH)
        assert isinstance(answered, Answer)
        assert answered.status in (200, 503), answered
        assert time.monotonic() - began_s < SERVED_S_MAX


@pytest.mark.long
def test_thirty_reads_over_http_that_nobody_takes_stay_within_the_limit(large_topic: Cluster) -> None:
    attack = Attack(
        sends="a read of 55 MiB on each of 30 connections to the REST port",
        comes_back="as much as the kernel takes, or 503",
        run=reads_no_http,
        memory_mib_max=KEPT_MIB,
    )
    withstand(large_topic, attack, node_id=leader(large_topic))


@pytest.mark.slow
def test_two_thousand_fetches_that_nobody_reads_stay_within_the_limit(large_topic: Cluster) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 2_200, f"this test opens 2,000 connections and may have {soft} files"
    attack = Attack(
        sends="a fetch of 55 MiB on each of 2,000 connections",
        comes_back="as much as the kernel takes, and the end after a standstill",
        run=reads_nothing(2_000, rounds=20),
        memory_mib_max=KEPT_MIB + 64,
    )
    withstand(large_topic, attack, node_id=leader(large_topic))


def breaks_off(target: Target) -> None:
    data = bytes(MIB)
    for _ in range(20):
        with connected(target.kafka) as (connection,):
            assert sent(connection, API_VERSIONS)
            (size,) = struct.unpack(">i", exactly(connection, 4))
            exactly(connection, size)
            assert sent(connection, ANNOUNCED)
            for _ in range(ARRIVED_MIB):
                assert sent(connection, data)


@pytest.mark.long
def test_frames_that_break_off_leave_no_memory(attacked_cluster: Cluster) -> None:
    attack = Attack(
        sends="90 MiB of a frame of 100, and the end of the connection, 20 times",
        comes_back="nothing",
        run=breaks_off,
        memory_mib_max=ARRIVED_MIB + 10 + MEMORY_MIB_MAX,
    )
    withstand(attacked_cluster, attack, node_id=1)
