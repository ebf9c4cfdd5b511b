"""What clients and strangers send wrong: a clear typed error, nothing written, and a client beside them that never
notices."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import crc32c
import pytest

from kraft.client.response import Answer
from kraft.protocol import codec
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.codec import RequestHeader
from kraft.protocol.errors import SaslAuthenticationFailed
from kraft.runtime.environment import close_environment, system_environment
from kraft.wire.channels.controller import CONTROLLER_RPCS, ControllerChannel
from kraft.wire.channels.forward import RemotePartitionClient
from kraft.wire.peers import Peers
from metadata.controller.requests import AllocateProducerIds
from replication.requests import ProduceOptions
from tests.integration.support.cluster import Cluster
from tests.integration.support.load import Load
from tests.integration.support.reading import RECORD_BATCH, TEXT, page, read_all

BINARY = "application/vnd.kafka.binary.v2+json"
AS_JSON = "application/vnd.kafka.json.v2+json"
RECORDS = "application/vnd.kafka.records.v1"
NOW_MS = 1_700_000_000_000
GARBAGE_WAIT_S = 30


@pytest.fixture(scope="module")
def nodes(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Beside all these tests a client writes: it has no error, and every record of its is there at the end."""
    shared_cluster.heal()
    troubles = ("broker_fenced", "http_request_failed")
    before = shared_cluster.events(*troubles)
    shared_cluster.create_topic("witness")
    shared_cluster.create_topic("t", partitions=2, max_message_bytes="10000")
    with Load(shared_cluster, "witness", pause_s=0.05) as load:
        yield shared_cluster
    assert load.errors == []
    for node_id in shared_cluster.ids:
        load.verify(node_id=node_id)
    assert shared_cluster.events(*troubles) == before


@pytest.fixture(autouse=True)
def _nothing_written(nodes: Cluster) -> Iterator[None]:
    before = [end_offset(nodes, partition) for partition in (0, 1)]
    yield
    assert [end_offset(nodes, partition) for partition in (0, 1)] == before


def end_offset(nodes: Cluster, partition: int) -> int:
    offsets = nodes.get(f"/topics/t/partitions/{partition}/offsets")
    return int(offsets["end_offset"])


def post(nodes: Cluster, path: str, body: Any, media_type: str, *, node_id: int = 1) -> Answer:
    outcome = nodes.send(node_id, "POST", path, body, Content_Type=media_type)
    assert isinstance(outcome, Answer), outcome
    return outcome


def one(value: Any, **more: Any) -> dict[str, Any]:
    return {"records": [{"value": value, **more}]}


REFUSED = {
    "malformed JSON": ("/topics/t", b'{"records": [{"value": 1}', AS_JSON, 400, 400, ""),
    "no object": ("/topics/t", b"[1, 2]", AS_JSON, 400, 400, "array"),
    "no records": ("/topics/t", {"records": []}, AS_JSON, 422, 422, "records"),
    "unknown field": ("/topics/t", one(1, colour="red"), AS_JSON, 422, 422, "colour"),
    "wrong content type": ("/topics/t", b"<value/>", "application/xml", 415, 415, "application/xml"),
    "schema registry": ("/topics/t", one(1), "application/vnd.kafka.avro.v2+json", 415, 415, "avro"),
    "bad base64": ("/topics/t", one("a&b="), BINARY, 422, 422, "base64"),
    "no string": ("/topics/t", one(17), TEXT, 400, 400, "records[0].value"),
    "no partition": ("/topics/t/partitions/first", one(1), AS_JSON, 404, 40402, "first"),
    "two partitions": ("/topics/t/partitions/1", one(1, partition=0), AS_JSON, 422, 422, "partition"),
    "negative partition": ("/topics/t", one(1, partition=-1), AS_JSON, 422, 422, "partition"),
    "bad acks": ("/topics/t?acks=2", one(1), AS_JSON, 400, 40002, "acks"),
    "no acks": ("/topics/t?acks=most", one(1), AS_JSON, 400, 40002, "acks"),
    "bad timeout": ("/topics/t?timeout=soon", one(1), AS_JSON, 400, 40002, "timeout"),
    "bad timestamp": ("/topics/t", one(1, timestamp="now"), AS_JSON, 400, 400, "timestamp"),
    "raw to no partition": ("/topics/t", b"xxx", RECORD_BATCH, 415, 415, "partitions"),
    "raw of nothing": ("/topics/t/partitions/0", b"", RECORD_BATCH, 422, 422, "empty"),
    "torn records": ("/topics/t/partitions/0", struct.pack(">i", 100) + b"short", RECORDS, 422, 422, "record 0"),
    "path": ("/topics/t/partition/0", one(1), AS_JSON, 404, 404, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_produce_is_refused_by_any_node(nodes: Cluster, name: str):
    path, body, media_type, status, error_code, said = REFUSED[name]
    for node_id in nodes.ids:
        answer = post(nodes, path, body, media_type, node_id=node_id)
        document = answer.json()
        assert (answer.status, document["error_code"]) == (status, error_code), document
        assert said in document["message"], document


@pytest.mark.parametrize(
    ("path", "said"), [("/topics/nobody", "nobody"), ("/topics/a%20b", "a b"), ("/topics/t/partitions/9", "9")]
)
def test_a_produce_to_nowhere_is_an_error_of_each_record(nodes: Cluster, path: str, said: str):
    for node_id in nodes.ids:
        answer = post(nodes, path, one(1), AS_JSON, node_id=node_id)
        (entry,) = answer.json()["offsets"]
        assert (answer.status, entry["error_code"], entry["retriable"]) == (200, 50003, False), entry
        assert said in entry["error"], entry


def test_a_method_that_is_not_there(nodes: Cluster):
    outcome = nodes.send(1, "PUT", "/topics/t", one(1))
    assert isinstance(outcome, Answer)
    assert (outcome.status, outcome.json()["error_code"]) == (405, 405)


def test_a_body_over_the_limit_is_refused_before_it_is_sent(nodes: Cluster):
    host, port = nodes.node(1).rest.removeprefix("http://").split(":")
    head = f"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: {AS_JSON}\r\nContent-Length: 200000000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=GARBAGE_WAIT_S) as connection:
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


def good_batch() -> bytes:
    return bytes(build_batch([NewRecord(b"k", b"v%d" % n, [], NOW_MS) for n in range(3)]))


def with_field(position: int, layout: str, value: int, *, crc: bool = True) -> bytes:
    """A batch with one number changed, and its checksum made to fit again."""
    data = bytearray(good_batch())
    struct.pack_into(layout, data, position, value)
    if crc:
        struct.pack_into(">I", data, 17, crc32c.crc32c(bytes(data[21:])))
    return bytes(data)


BATCHES = {
    "CRC": (with_field(17, ">I", 1, crc=False), 2),
    "flipped bit": (good_batch()[:-1] + bytes([good_batch()[-1] ^ 1]), 2),
    "count": (with_field(57, ">i", 2), 87),
    "count of millions": (with_field(57, ">i", 2_000_000_000), 87),
    "last offset delta": (with_field(23, ">i", 1_000_000), 87),
    "magic": (with_field(16, ">b", 1), 43),
    "codec": (with_field(21, ">h", 7), 76),
    "control batch": (with_field(21, ">h", 0x20), 87),
    "truncated": (good_batch()[:-5], 2),
    "trailing garbage": (good_batch() + b"garbage", 2),
    "length": (with_field(8, ">i", 10_000_000), 2),
    "only a length": (good_batch()[:11], 2),
    "second of two": (good_batch() + with_field(57, ">i", 2), 87),
    "larger than max.message.bytes": (bytes(build_batch([NewRecord(None, b"x" * 20_000, [], NOW_MS)])), 10),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_bad_batch_poisons_nothing(nodes: Cluster, name: str):
    batch, kafka_code = BATCHES[name]
    for node_id in nodes.ids:
        answer = post(nodes, "/topics/t/partitions/0", batch, RECORD_BATCH, node_id=node_id)
        assert answer.status == 200, answer
        (entry,) = answer.json()["offsets"]
        assert (entry["offset"], entry["kafka_code"]) == (None, kafka_code), entry
        assert entry["is_appended"] is False
        assert (entry["error_code"], entry["retriable"]) == ((50003, True) if kafka_code == 2 else (50002, False))


def test_a_record_that_is_too_large_reports_it_for_itself(nodes: Cluster):
    values = ["x", "x" * 20_000]
    body = {"records": [{"value": value, "partition": number} for number, value in enumerate(values)]}
    before = end_offset(nodes, 0)
    answer = post(nodes, "/topics/t", {"records": body["records"][1:]}, TEXT)
    (entry,) = answer.json()["offsets"]
    assert (answer.status, entry["kafka_code"], entry["error_code"]) == (200, 10, 50002)
    assert "10000" in entry["error"]
    assert end_offset(nodes, 0) == before


def test_a_record_for_a_partition_that_is_not_there_reports_it_for_itself(nodes: Cluster):
    (entry,) = post(nodes, "/topics/t", one("x", partition=7), TEXT).json()["offsets"]
    assert (entry["kafka_code"], entry["offset"]) == (3, None)


READS = {
    "negative": ("offset=-5", 400, 40002, "offset"),
    "beyond": ("offset=1000000", 400, 40002, "offset"),
    "no number": ("offset=first", 400, 40002, "offset"),
    "huge": (f"offset={2**70}", 400, 40002, "offset"),
    "no time": ("offset=ts:yesterday", 400, 40002, "ts:"),
    "negative bytes": ("offset=0&max_bytes=-1", 400, 40002, "max_bytes"),
    "no timeout": ("offset=0&timeout=long", 400, 40002, "timeout"),
}


@pytest.mark.parametrize("name", READS)
def test_a_bad_read_is_refused_by_any_node(nodes: Cluster, name: str):
    query, status, error_code, said = READS[name]
    for node_id in nodes.ids:
        answer = page(nodes, node_id, "t", 0, query)
        document = answer.json()
        assert (answer.status, document["error_code"]) == (status, error_code), document
        assert said in document["message"], document
        assert name != "beyond" or document["kafka_code"] == 1


def test_an_answer_that_nobody_can_give(nodes: Cluster):
    assert page(nodes, 1, "t", 0, "offset=0", accept="image/png").status == 406


# Ports


def garbage() -> dict[str, bytes]:
    rng = random.Random(7)
    return {
        "noise": rng.randbytes(5_000),
        "zeros": bytes(5_000),
        "huge frame": struct.pack(">i", 2**31 - 1) + b"x" * 100,
        "negative frame": struct.pack(">i", -5) + b"x" * 100,
        "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "noise in a frame": struct.pack(">i", 1_000) + rng.randbytes(1_000),
        "pickle": struct.pack(">i", 64) + b"\x80\x04cos\nsystem\n(S'true'\ntR.".ljust(64, b"."),
        "unknown API": struct.pack(">ihhih", 10, 999, 0, 1, -1),
        "old version of Fetch": struct.pack(">ihhih", 10, 1, 0, 1, -1),
    }


@pytest.mark.parametrize("port", ["kafka", "quorum"])
@pytest.mark.parametrize("name", garbage())
def test_garbage_on_an_inner_port_ends_that_connection_only(nodes: Cluster, name: str, port: str):
    for node in nodes.nodes:
        host, number = (node.kafka if port == "kafka" else str(node.quorum)).split(":")
        with socket.create_connection((host, int(number)), timeout=GARBAGE_WAIT_S) as connection:
            connection.sendall(garbage()[name])
            drain(connection)
        assert nodes.is_running(node.id)


def drain(connection: socket.socket) -> None:
    """Until the other side closes; it may answer first. A timeout fails the test."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        return


def test_many_strangers_who_say_nothing_do_not_keep_others_out(nodes: Cluster):
    host, port = nodes.node(1).kafka.split(":")
    silent = [socket.create_connection((host, int(port)), timeout=GARBAGE_WAIT_S) for _ in range(200)]
    try:
        (entry,) = post(nodes, "/topics/witness2", one(1), AS_JSON).json()["offsets"]
        assert entry["error_code"] == 50003
        assert nodes.status(1)["nodes"][0]["state"] == "active"
    finally:
        for connection in silent:
            connection.close()


# The inside without the secret


def test_without_the_secret_an_inner_request_ends_its_connection(nodes: Cluster):
    """As on Kafka's listener for clients, which has no such API; tests/integration/attacks has all of them."""
    host, port = nodes.node(1).kafka.split(":")
    rpc = CONTROLLER_RPCS[AllocateProducerIds]
    header = RequestHeader(api_key=rpc.api.key, api_version=rpc.api.version, correlation_id=7, client_id="me")
    body = rpc.to_request(AllocateProducerIds(broker_id=1, broker_epoch=1), 1_000)
    frame = b"".join(codec.encode_request(rpc.api, header, body))
    with socket.create_connection((host, int(port)), timeout=GARBAGE_WAIT_S) as connection:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        assert connection.recv(4, socket.MSG_WAITALL) == b""


def test_a_wrong_secret_is_refused(nodes: Cluster):
    async def attempt() -> None:
        environment = system_environment(threads=1)
        host, port = nodes.node(1).kafka.split(":")
        peers = Peers(environment, node_id=2, password="not the secret", address=lambda *_: (host, int(port)))
        try:
            with pytest.raises(SaslAuthenticationFailed):
                await ControllerChannel(peers).request(
                    1, AllocateProducerIds(broker_id=2, broker_epoch=1), timeout_ms=15_000
                )
            with pytest.raises(SaslAuthenticationFailed):
                await RemotePartitionClient(peers, 1).produce({}, ProduceOptions(-1, 15_000))
        finally:
            await peers.close()
            close_environment(environment)

    asyncio.run(attempt())


# Good input beside it


def test_what_is_good_is_still_taken(nodes: Cluster):
    nodes.create_topic("good")
    body = {"records": [{"value": base64.b64encode(b"\x00\xff").decode()}, {"value": None}]}
    offsets = post(nodes, "/topics/good", body, BINARY, node_id=2).json()["offsets"]
    assert [entry["offset"] for entry in offsets] == [0, 1]
    assert [record.offset for record in read_all_binary(nodes, "good")] == [0, 1]


def read_all_binary(nodes: Cluster, topic: str) -> Any:
    answer = page(nodes, 3, topic, 0, "offset=0", accept=BINARY)
    assert [each["value"] for each in json.loads(answer.body)] == [base64.b64encode(b"\x00\xff").decode(), None]
    assert page(nodes, 3, topic, 0, "offset=0").status == 422, "it is no text, and says so"
    nodes.create_topic("text")
    post(nodes, "/topics/text", {"records": [{"value": "a"}, {"value": "b"}]}, TEXT)
    return read_all(nodes, 1, "text")
