"""Fetches of thousands of partitions that exist: they hold neither the event loop nor more memory than dense frames
may, and are answered as others are."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct
import time
from collections.abc import Container, Coroutine, Iterator
from typing import Any

import pytest

from kraft.broker.gateway import Gateway
from kraft.protocol import codec
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.messages.fetch_request import FetchPartition, FetchRequestData, FetchTopic
from kraft.protocol.messages.fetch_response import FetchResponseData
from metadata.controller.requests import CreateTopics, NewTopic
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions
from tests.integration.attacks.test_dense_frames import hold
from tests.support.dense_frames import DenseFrame
from tests.support.measured_node import HOST, MeasuredNode

TOPIC = "many"
PARTITIONS = 2_000
VERSIONS = (4, 6, 11, 12, 13, 18)
FIRST_WITH_TOPIC_IDS = 13
DEADLINE_S = 60
QUIET_S = 0.5


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredNode]:
    logging.disable(logging.CRITICAL)
    try:
        with MeasuredNode(tmp_path_factory.mktemp("measured")) as node:
            new = NewTopic(name=TOPIC, partitions=PARTITIONS, replication_factor=1)
            _run(node, _gateway(node).control(CreateTopics(topics=(new,)), timeout_ms=DEADLINE_S * 1_000))
            while _errors(node, VERSIONS[-1]) != {0}:
                time.sleep(0.1)
            yield node
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.long
@pytest.mark.parametrize("wait_ms", [0, 100])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_fetch_of_existing_partitions_costs_little(node: MeasuredNode, version: int, wait_ms: int) -> None:
    hold(node, iter([DenseFrame("Fetch", version, "existing", _frame(node, version, wait_ms=wait_ms))]))


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_each_partition_is_answered_once(node: MeasuredNode, version: int) -> None:
    with socket.create_connection((HOST, node.port), timeout=DEADLINE_S) as client:
        answer = _asked(client, _frame(node, version, wait_ms=0), version)
    assert answer.session_id == 0
    (topic,) = answer.responses
    assert [each.partition_index for each in topic.partitions] == [*range(PARTITIONS)]
    assert _errors(node, version) == {0}


@pytest.mark.long
def test_a_fetch_that_waits_is_answered_when_a_record_comes(node: MeasuredNode) -> None:
    _answered_when_written(node, 0, written=())
    _answered_when_written(node, PARTITIONS - 1, written=(0,))


def _answered_when_written(node: MeasuredNode, place: int, *, written: Container[int]) -> None:
    version = 13
    partition = TopicIdPartition(_gateway(node).image.topics_by_name[TOPIC].topic_id, place)
    batch = build_batch([NewRecord(b"key", b"value", [], 0)])
    with socket.create_connection((HOST, node.port), timeout=DEADLINE_S) as client:
        begun = time.monotonic()
        _send(client, _frame(node, version, wait_ms=DEADLINE_S * 1_000, written=written))
        quiet = select.poll()  # unlike select.select, it takes descriptors above 1,023
        quiet.register(client, select.POLLIN)
        assert quiet.poll(QUIET_S * 1_000) == [], "nothing was there to read"
        _run(node, _gateway(node).produce({partition: batch}, ProduceOptions(-1, DEADLINE_S * 1_000)))
        answer = _received(client, version)
    assert time.monotonic() - begun < DEADLINE_S / 2
    read = {each.partition_index: len(each.records or b"") for each in answer.responses[0].partitions}
    assert len(read) == PARTITIONS
    assert read[place] == len(batch)


def _errors(node: MeasuredNode, version: int) -> set[int]:
    with socket.create_connection((HOST, node.port), timeout=DEADLINE_S) as client:
        answer = _asked(client, _frame(node, version, wait_ms=0), version)
    return {each.error_code for topic in answer.responses for each in topic.partitions}


def _frame(node: MeasuredNode, version: int, *, wait_ms: int, written: Container[int] = ()) -> bytes:
    """From the beginning of each log; from offset 1 of those partitions that have a record."""
    topic = _gateway(node).image.topics_by_name[TOPIC]
    request = FetchRequestData.make(
        replica_id=-1,
        max_wait_ms=wait_ms,
        min_bytes=1,
        topics=[
            FetchTopic.make(
                topic=TOPIC if version < FIRST_WITH_TOPIC_IDS else "",
                topic_id=topic.topic_id,
                partitions=[
                    FetchPartition.make(
                        partition=number, fetch_offset=int(number in written), partition_max_bytes=1_000
                    )
                    for number in range(PARTITIONS)
                ],
            )
        ],
    )
    head = struct.pack(">hhih", request.API_KEY, version, 7, -1) + (b"\0" if version >= request.FLEXIBLE_FROM else b"")
    return head + b"".join(codec.encode_body(request, version))


def _asked(client: socket.socket, frame: bytes, version: int) -> FetchResponseData:
    _send(client, frame)
    return _received(client, version)


def _send(client: socket.socket, frame: bytes) -> None:
    client.sendall(struct.pack(">i", len(frame)) + frame)


def _received(client: socket.socket, version: int) -> FetchResponseData:
    (size,) = struct.unpack(">i", client.recv(4, socket.MSG_WAITALL))
    body = memoryview(client.recv(size, socket.MSG_WAITALL))
    begin = 5 if version >= FetchResponseData.FLEXIBLE_FROM else 4
    return codec.decode_body(FetchResponseData, version, body, begin)


def _gateway(node: MeasuredNode) -> Gateway:
    assert node.node is not None
    return node.node.gateway


def _run(node: MeasuredNode, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, node.loop).result(DEADLINE_S)
