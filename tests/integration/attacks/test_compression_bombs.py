"""Few bytes of zstd that are many, for a topic that is kept as gzip: an answer for each way to send them, and the
connection goes on."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from kraft.protocol import codec
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import CorruptMessage, InvalidRecord, MessageTooLarge
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import ProduceResponseData
from tests.support.dense_frames import KNOWN
from tests.support.measured_node import HOST, MeasuredNode

VERSION = 9
MIB = 1024 * 1024
REFUSED = (CorruptMessage.code, MessageTooLarge.code, InvalidRecord.code)
"""Of Kafka: it does not decompress, it is too large, its records are invalid."""
BOMBS = {
    "a record of 200 MiB": lambda: build_batch([NewRecord(None, bytes(200 * MIB), [], 1)], compression="zstd"),
    "two million records": lambda: build_batch([NewRecord(None, None, [], 1)] * 2_000_000, compression="zstd"),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredNode]:
    with MeasuredNode(tmp_path_factory.mktemp("squeezed"), **{"compression.type": "gzip"}) as node:
        yield node


@pytest.fixture(scope="module", params=BOMBS)
def bomb(request: pytest.FixtureRequest) -> bytes:
    made = BOMBS[request.param]()
    assert len(made) < 3 * MIB
    return made


def produce(acks: int, records: bytes) -> bytes:
    partition = PartitionProduceData.make(index=0, records=records)
    message = ProduceRequestData.make(
        acks=acks, timeout_ms=10_000, topic_data=[TopicProduceData.make(name=KNOWN, partition_data=[partition])]
    )
    head = struct.pack(">hhih", message.API_KEY, VERSION, 7, -1) + b"\0"
    return _framed(head + b"".join(codec.encode_body(message, VERSION)))


def _framed(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def _answer(connection: socket.socket) -> memoryview:
    (size,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
    return memoryview(connection.recv(size, socket.MSG_WAITALL))


def _error_of(connection: socket.socket) -> int:
    found = codec.decode_body(ProduceResponseData, VERSION, _answer(connection), 5)
    return found.responses[0].partition_responses[0].error_code


@pytest.mark.long
@pytest.mark.parametrize("acks", [-1, 1])
def test_a_bomb_that_is_to_be_compressed_again_is_answered(node: MeasuredNode, bomb: bytes, acks: int) -> None:
    with socket.create_connection((HOST, node.port), timeout=60) as connection:
        connection.sendall(produce(acks, bomb))
        assert _error_of(connection) in REFUSED
        connection.sendall(produce(acks, build_batch([NewRecord(None, b"v", [], 1)], compression="zstd")))
        assert _error_of(connection) == 0, "the connection goes on"


@pytest.mark.long
def test_a_bomb_without_an_answer_harms_nobody_else(node: MeasuredNode, bomb: bytes) -> None:
    """With acks=0 Kafka closes the connection: there is no other way to say that the records were refused."""
    with socket.create_connection((HOST, node.port), timeout=60) as connection:
        connection.sendall(produce(0, bomb))
        assert connection.recv(1) == b""
    with socket.create_connection((HOST, node.port), timeout=60) as connection:
        connection.sendall(produce(-1, build_batch([NewRecord(None, b"v", [], 1)], compression="zstd")))
        assert _error_of(connection) == 0


@pytest.mark.long
def test_a_bomb_over_rest_is_answered(node: MeasuredNode, bomb: bytes) -> None:
    one = build_batch([NewRecord(None, b"v", [], 1)], compression="zstd")
    with closing(HTTPConnection(HOST, node.rest_port, timeout=60)) as connection:
        for body, is_refused in ((bomb, True), (one, False)):
            path, kind = f"/topics/{KNOWN}/partitions/0", "application/vnd.kafka.recordbatch.v2"
            connection.request("POST", path, body, {"Content-Type": kind})
            answer = json.loads(connection.getresponse().read())
            assert (answer["offsets"][0].get("kafka_code") in REFUSED) is is_refused, answer
