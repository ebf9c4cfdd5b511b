"""What a client of the HTTP door can send within the rules of HTTP, and what must not come of it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from kraft.client.response import Answer
from kraft.protocol.batches.records import NewRecord, build_batch
from metadata.internal_topics import OFFSETS_TOPIC
from tests.integration.attacks.attack import AS_JSON, WITNESS, Attack, Target, withstand
from tests.integration.support.cluster import Cluster

AS_BINARY = "application/vnd.kafka.binary.v2+json"
AS_RECORDS = "application/vnd.kafka.records.v1"
AS_BATCH = "application/vnd.kafka.recordbatch.v2"
GARBAGE = b"no coordinator wrote this"


def now_ms() -> int:
    """Older records would be deleted by retention."""
    return time.time_ns() // 1_000_000


def answered(target: Target, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    outcome = target.call(method, path, data, **headers)
    assert isinstance(outcome, Answer), (method, path, outcome)
    return outcome


def write_to_an_internal_topic(target: Target) -> None:
    consumer = answered(target, "POST", "/consumers/attacked", {"name": "i"}, Content_Type="application/json")
    assert consumer.status == 200, consumer
    offsets = {"partitions": [{"topic": WITNESS, "partition": 0, "offset": 1}]}
    path = "/consumers/attacked/instances/i/offsets"
    assert answered(target, "POST", path, offsets, Content_Type="application/json").status in (200, 204)
    text = base64.b64encode(GARBAGE).decode()
    for number in range(50):
        batch = build_batch([NewRecord(GARBAGE, GARBAGE, [], 1)])
        into = f"/topics/{OFFSETS_TOPIC}/partitions/{number}"
        refusals = [
            answered(target, "POST", into, batch, Content_Type=AS_BATCH),
            answered(target, "POST", into, {"records": [{"key": text, "value": text}]}, Content_Type=AS_BINARY),
        ]
        for refused in refusals:
            assert (refused.status, refused.json()["kafka_code"]) == (422, 17), refused
    for node in target.cluster.nodes:
        asked = {"partitions": [{"topic": WITNESS, "partition": 0}]}
        found = answered(
            Target(target.cluster, node.id), "POST", f"{path}:query", asked, Content_Type="application/json"
        )
        assert [each["offset"] for each in found.json()["offsets"]] == [1], found
    assert answered(target, "DELETE", "/consumers/attacked/instances/i").status == 204


def read_values_nested_too_deep(target: Target) -> None:
    nested = base64.b64encode(b"[" * 5_000).decode()
    body = {"records": [{"value": nested, "partition": 0}]}
    written = answered(target, "POST", "/topics/nested", body, Content_Type=AS_BINARY)
    (offset,) = (each["offset"] for each in written.json()["offsets"])
    path = f"/topics/nested/partitions/0/records?offset={offset}"
    refused = answered(target, "GET", path, Accept=AS_JSON)
    assert (refused.status, refused.json()["offset"]) == (422, offset)
    assert answered(target, "GET", path, Accept=AS_BINARY).json()[0]["value"] == nested


def subscribe_to_a_pattern_that_backtracks(target: Target) -> None:
    made = answered(target, "POST", "/consumers/patterns", {"name": "i"}, Content_Type="application/json")
    assert made.status == 200, made
    path = "/consumers/patterns/instances/i"
    for pattern, status in (("(a+)+b", 204), ("(a|a)*b", 204), (r"(a)\1", 422), ("(?=a)+", 422), ("(" * 400, 422)):
        body = {"topic_pattern": pattern}
        answer = answered(target, "POST", f"{path}/subscription", body, Content_Type="application/json")
        assert answer.status == status, (pattern, answer)
        assert answered(target, "GET", f"{path}/records?timeout=0").status in (200, 409)
        assert answered(target, "DELETE", f"{path}/subscription").status == 204
    assert answered(target, "DELETE", path).status == 204


def bomb(values: int, size: int) -> bytes:
    """KB on the way, MiB in memory."""
    return build_batch([NewRecord(None, bytes(size), [], now_ms()) for _ in range(values)], compression="zstd")


def write_what_decompresses_to_gigabytes(target: Target) -> None:
    """Several batches of 60 MiB each; one alone is taken, and read in pages of a MiB."""
    path = "/topics/bombs/partitions/0"
    batch = bomb(60, 1024 * 1024)
    assert len(batch) < 10_000
    for _ in range(3):
        refused = answered(target, "POST", path, batch * 40, Content_Type=AS_BATCH).json()["offsets"][0]
        assert (refused["error_code"], refused["kafka_code"]) == (50002, 10), refused
        assert "in several" in refused["error"]
    taken = answered(target, "POST", path, batch, Content_Type=AS_BATCH).json()["offsets"][0]
    assert taken["error_code"] is None, taken
    for accept in (AS_BINARY, AS_RECORDS):
        for node in target.cluster.nodes:
            reader = Target(target.cluster, node.id)
            page = answered(reader, "GET", f"{path}/records?offset={taken['offset']}", Accept=accept)
            assert page.status == 200
            assert len(page.body) < 3 * 1024 * 1024
            assert int(page.headers["x-next-offset"]) == taken["offset"] + 1


def write_a_million_records_in_a_few_bytes(target: Target) -> None:
    path = "/topics/bombs/partitions/0"
    many = build_batch([NewRecord(None, None, [], now_ms())] * 1_000_001, compression="zstd")
    assert len(many) < 4_000_000
    refused = answered(target, "POST", path, many[:], Content_Type=AS_BATCH)
    assert "offsets" not in refused.json() or refused.json()["offsets"][0]["kafka_code"] == 10, refused
    some = build_batch([NewRecord(None, None, [], now_ms())] * 300_000, compression="zstd")
    taken = answered(target, "POST", path, some, Content_Type=AS_BATCH).json()["offsets"][0]
    assert taken["error_code"] is None, taken
    page = answered(target, "GET", f"{path}/records?offset={taken['offset']}&max_bytes=1000000000", Accept=AS_BINARY)
    assert len(page.json()) <= 50_000


def write_millions_of_empty_records(target: Target) -> None:
    """8 MiB of `{}`, in each dialect that has records of JSON."""
    empty = b",".join([b"{}"] * 2_796_202)
    for form in (AS_JSON, AS_BINARY):
        refused = answered(target, "POST", "/topics/nested", b'{"records":[' + empty + b"]}", Content_Type=form)
        assert (refused.status, refused.json()["error_code"]) == (413, 413), refused
        assert "more than 100000 records" in refused.json()["message"]
    clusters = target.cluster.v3
    refused = answered(target, "POST", f"{clusters}/topics/nested/records:batch", b'{"entries":[' + empty + b"]}")
    assert refused.json()["error_code"] == 42208, refused
    refused = answered(target, "POST", f"{clusters}/topics/nested/configs:alter", b'{"data":[' + empty + b"]}")
    assert refused.status == 413, refused


ATTACKS = {
    "writes to an internal topic": Attack(
        sends="records that no coordinator wrote to each partition of __consumer_offsets, as raw batches and as JSON",
        comes_back="422 with INVALID_TOPIC_EXCEPTION (17); the groups are as they were",
        run=write_to_an_internal_topic,
    ),
    "values nested too deep": Attack(
        sends="5,000 brackets as a binary value, read as JSON",
        comes_back="422 with the offset, as for any value that is not JSON; binary reads it",
        run=read_values_nested_too_deep,
    ),
    "batches that decompress to gigabytes": Attack(
        sends="300 KB of zstd that are 2.4 GiB of records, and one batch of 60 MiB read from all nodes",
        comes_back="MESSAGE_TOO_LARGE (10) before they are decompressed; pages of a MiB",
        run=write_what_decompresses_to_gigabytes,
        memory_mib_max=256,
    ),
    "more records than bytes": Attack(
        sends="a million records without key and value in a batch; 300,000 of them, read at once",
        comes_back="10 for the million; pages of 50,000 records",
        run=write_a_million_records_in_a_few_bytes,
        memory_mib_max=256,
    ),
    "millions of empty records": Attack(
        sends="8 MiB of `{}` as records, as entries of a batch, and as settings",
        comes_back="413 and 42208: more than 100,000 records, 10,000 entries, 500,000 values",
        run=write_millions_of_empty_records,
        memory_mib_max=128,
    ),
    "a pattern that backtracks": Attack(
        sends="topic_pattern (a+)+b, with a topic whose name is 240 times an a",
        comes_back="an answer at once; 422 for what RE2 does not have",
        run=subscribe_to_a_pattern_that_backtracks,
    ),
}


@pytest.fixture(scope="module")
def cluster_with_topics(attacked_cluster: Cluster) -> Cluster:
    for name in ("nested", "bombs", "a" * 240):
        attacked_cluster.create_topic(name)
    return attacked_cluster


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("node_id", [1, 3])
def test_an_http_client_harms_nobody(cluster_with_topics: Cluster, name: str, node_id: int) -> None:
    withstand(cluster_with_topics, ATTACKS[name], node_id=node_id)
