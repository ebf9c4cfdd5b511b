"""Topics on three real nodes: made, listed, grown, configured, deleted and made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kraft.client.response import Answer
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.inside import forward
from tests.integration.support.reading import RECORD_BATCH, TEXT, page, values
from tests.integration.support.waiting import wait_until


@pytest.fixture(scope="module")
def nodes(shared_cluster: Cluster) -> Cluster:
    shared_cluster.heal()
    return shared_cluster


def create(nodes: Cluster, name: str, **more: Any) -> Answer:
    return nodes.call("POST", "/topics", {"topic_name": name, **more})


def names(nodes: Cluster, node_id: int) -> set[str]:
    return {topic["topic_name"] for topic in nodes.call("GET", "/topics", node_id=node_id).json()["data"]}


def ids(nodes: Cluster, name: str) -> set[str | None]:
    """Of the topic that each node knows by this name."""
    return {nodes.call("GET", f"/topics/{name}", node_id=node_id).json().get("topic_id") for node_id in nodes.ids}


def everywhere(nodes: Cluster, name: str, *, is_there: bool) -> bool:
    return all((name in names(nodes, node_id)) == is_there for node_id in nodes.ids)


def test_a_topic_is_known_to_all_nodes_and_gone_from_all(nodes: Cluster):
    assert create(nodes, "life", partitions_count=4).status == 201
    wait_until(lambda: everywhere(nodes, "life", is_there=True), what="the topic everywhere")
    described = nodes.call("GET", "/topics/life", node_id=2).json()
    assert (described["partitions_count"], described["replication_factor"]) == (4, 3)
    partitions = nodes.call("GET", "/topics/life/partitions").json()["data"]
    assert [partition["partition_id"] for partition in partitions] == [0, 1, 2, 3]
    assert all(sorted(partition["assignment"]) == [1, 2, 3] for partition in partitions)
    assert len({partition["assignment"][0] for partition in partitions}) == 3, "leaders are spread"
    folders = [nodes.folder(node_id, "life", 2) for node_id in nodes.ids]
    wait_until(lambda: all(folder.is_dir() for folder in folders), what="its folders everywhere")
    assert nodes.call("DELETE", "/topics/life").status == 204
    wait_until(lambda: everywhere(nodes, "life", is_there=False), what="the topic nowhere")
    wait_until(lambda: not any(folder.exists() for folder in folders), what="its folders gone")
    assert nodes.call("GET", "/topics/life").json()["error_code"] == 40403
    assert nodes.call("DELETE", "/topics/life").json()["error_code"] == 40403


def test_validate_only_reports_what_would_be_and_makes_nothing(nodes: Cluster):
    answer = create(nodes, "maybe", partitions_count=2, validate_only=True)
    assert (answer.status, answer.json()["partitions_count"], answer.json()["topic_id"]) == (200, 2, None)
    refused = create(nodes, "maybe", replication_factor=9, validate_only=True)
    assert refused.json()["kafka_code"] == 38
    assert everywhere(nodes, "maybe", is_there=False)


BAD_TOPICS: dict[str, tuple[dict[str, Any], int, str]] = {
    "exists": ({"topic_name": "taken"}, 36, "taken"),
    "slash": ({"topic_name": "a/b"}, 17, "a/b"),
    "too long": ({"topic_name": "x" * 250}, 17, "249"),
    "dots": ({"topic_name": ".."}, 17, ".."),
    "collision": ({"topic_name": "with.dot"}, 17, "with_dot"),
    "replication factor": ({"topic_name": "x", "replication_factor": 4}, 38, "4"),
    "no such broker": ({"topic_name": "x", "replicas_assignments": {0: [1, 9]}}, 39, "9"),
    "broker twice": ({"topic_name": "x", "replicas_assignments": {0: [1, 1]}}, 39, "1"),
    "gap": ({"topic_name": "x", "replicas_assignments": {1: [1]}}, 39, ""),
    "unknown config": ({"topic_name": "x", "configs": [{"name": "retention.sm", "value": "1"}]}, 40, "retention.ms"),
    "bad config": ({"topic_name": "x", "configs": [{"name": "retention.ms", "value": "soon"}]}, 40, "soon"),
    "bad minimum": ({"topic_name": "x", "configs": [{"name": "min.insync.replicas", "value": "0"}]}, 40, "0"),
}


@pytest.mark.parametrize("name", BAD_TOPICS)
def test_a_topic_that_cannot_be_is_refused_with_kafkas_code(nodes: Cluster, name: str):
    create(nodes, "taken")
    create(nodes, "with_dot")
    document, kafka_code, said = BAD_TOPICS[name]
    for node_id in nodes.ids:
        answer = nodes.call("POST", "/topics", document, node_id=node_id)
        assert answer.status in (400, 422), answer
        assert answer.json()["kafka_code"] == kafka_code, answer.json()
        assert said in answer.json()["message"], answer.json()
    assert "x" not in names(nodes, 1)


def test_a_topic_grows_and_never_shrinks(nodes: Cluster):
    create(nodes, "grows", partitions_count=2)
    nodes.wait_for_isr("grows", 1, nodes.ids)
    nodes.write_all("grows", ["before"], partition=1)
    assert nodes.call("PATCH", "/topics/grows", {"partitions_count": 5}).status == 200
    wait_until(lambda: len(nodes.call("GET", "/topics/grows/partitions").json()["data"]) == 5, what="five partitions")
    nodes.wait_for_isr("grows", 4, nodes.ids)
    nodes.write_all("grows", ["after"], partition=4)
    assert (values(nodes, 2, "grows", 1), values(nodes, 2, "grows", 4)) == (["before"], ["after"])
    for count in (5, 4):
        assert nodes.call("PATCH", "/topics/grows", {"partitions_count": count}).json()["kafka_code"] == 37
    validated = nodes.call("PATCH", "/topics/grows", {"partitions_count": 7, "validate_only": True})
    assert validated.status == 200
    assert len(nodes.call("GET", "/topics/grows/partitions").json()["data"]) == 5


def test_a_topic_made_again_under_its_name_is_another_topic(nodes: Cluster):
    create(nodes, "phoenix")
    nodes.wait_for_isr("phoenix", 0, nodes.ids)
    nodes.write_all("phoenix", [f"old {n}" for n in range(50)])
    old_id = nodes.topic_id("phoenix")
    assert nodes.call("DELETE", "/topics/phoenix").status == 204
    assert create(nodes, "phoenix").status == 201
    new_id = nodes.topic_id("phoenix")
    assert new_id != old_id
    wait_until(lambda: ids(nodes, "phoenix") == {str(new_id)}, what="every node to know the new topic")
    nodes.wait_for_isr("phoenix", 0, nodes.ids)
    nodes.write_all("phoenix", ["new"])
    for node_id in nodes.ids:
        assert values(nodes, node_id, "phoenix") == ["new"]
        metadata = nodes.folder(node_id, "phoenix") / "partition.metadata"
        wait_until(metadata.exists, what="the identity of the folder")
        wait_until(lambda at=node_id: b"new" in nodes.log_bytes(at, "phoenix"), what="the new record in the folder")
        assert b"old 1" not in nodes.log_bytes(node_id, "phoenix")
    stale: dict[TopicIdPartition, Buffer] = {
        TopicIdPartition(old_id, 0): bytes(build_batch([NewRecord(None, b"stale", [], 0)]))
    }
    for node_id in nodes.ids:
        outcomes = forward(nodes, node_id, lambda way: way.produce(stale, ProduceOptions(-1, 60_000)))
        assert [outcome.error_code for outcome in outcomes.values()] == [100]
    assert values(nodes, 1, "phoenix") == ["new"]


def config(nodes: Cluster, path: str, name: str) -> str | None:
    document = nodes.call("GET", f"{path}/{name}").json()
    return document["value"]  # type: ignore[no-any-return]


def test_configs_of_a_topic_and_of_the_cluster_layer_over_each_other(nodes: Cluster):
    create(nodes, "dressed", configs=[{"name": "retention.ms", "value": "5000"}])
    of_topic, of_cluster = "/topics/dressed/configs", "/broker-configs"
    assert config(nodes, of_topic, "retention.ms") == "5000"
    assert config(nodes, of_topic, "max.message.bytes") == "1048588"
    assert nodes.call("PUT", f"{of_cluster}/message.max.bytes", {"value": "5000"}).status == 204
    wait_until(lambda: config(nodes, of_topic, "max.message.bytes") == "5000", what="the cluster's default")
    wait_until(lambda: nodes.write("dressed", ["x" * 6_000])[0].get("kafka_code") == 10, what="the leader to know it")
    assert nodes.call("PUT", f"{of_topic}/max.message.bytes", {"value": "9000"}).status == 204
    wait_until(lambda: config(nodes, of_topic, "max.message.bytes") == "9000", what="the topic's own")
    wait_until(lambda: not nodes.write("dressed", ["x" * 6_000])[0]["error_code"], what="the leader to know that")
    assert nodes.call("DELETE", f"{of_topic}/max.message.bytes").status == 204
    assert nodes.call("DELETE", f"{of_cluster}/message.max.bytes").status == 204
    wait_until(lambda: config(nodes, of_topic, "max.message.bytes") == "1048588", what="Kafka's default")
    alter = {"data": [{"name": "retention.ms", "operation": "DELETE"}, {"name": "segment.bytes", "value": "x"}]}
    refused = nodes.call("POST", "/topics/dressed/configs:alter", alter)
    assert refused.json()["kafka_code"] == 40
    assert config(nodes, of_topic, "retention.ms") == "5000", "all or nothing"


def test_compression_type_of_stored_batches(nodes: Cluster):
    create(nodes, "squeezed")
    text = ["a value that says itself again and again " * 20] * 5

    def codecs() -> list[str]:
        data = page(nodes, 1, "squeezed", 0, "offset=0&timeout=0", accept=RECORD_BATCH).body
        return [header.codec_name for _, header in whole_batches(data)]

    def write(key: str) -> list[int]:
        body, headers = {"records": [{"value": each} for each in text]}, {"Content_Type": TEXT, "Idempotency_Key": key}
        answer = nodes.send(2, "POST", "/topics/squeezed", body, **headers)
        assert isinstance(answer, Answer)
        return [entry["offset"] for entry in answer.json()["offsets"]]

    setting = "/broker-configs/compression.type"
    assert nodes.call("PUT", setting, {"value": "none"}).status == 400, "Kafka calls it uncompressed"
    assert nodes.call("PUT", setting, {"value": "zstd"}).status == 204
    try:
        wait_until(lambda: write(f"{len(codecs())}") and codecs()[-1] == "zstd", what="the cluster's codec")
        first = write("once")
        assert codecs()[-1] == "zstd"
        assert write("once") == first, "the same records, however they are stored"
        assert nodes.call("PUT", "/topics/squeezed/configs/compression.type", {"value": "gzip"}).status == 204
        wait_until(lambda: write(f"{len(codecs())}") and codecs()[-1] == "gzip", what="the topic's own codec")
        assert write("once") == first
    finally:
        nodes.call("DELETE", setting)
    assert values(nodes, 3, "squeezed")[-5:] == text


@pytest.mark.long
def test_produce_creates_a_topic_when_the_cluster_allows_it(tmp_path: Path) -> None:
    for nodes in run_cluster(tmp_path, settings={"auto.create.topics.enable": True, "default.replication.factor": 3}):
        assert page(nodes, 1, "made-by-writing", 0, "offset=0").json()["error_code"] == 40403
        wait_until(lambda nodes=nodes: made_by_writing(nodes), what="the topic to be made")
        found = wait_until(lambda nodes=nodes: values(nodes, 3, "made-by-writing"), what="the record elsewhere")
        assert found[0] == "first"
        assert nodes.call("GET", "/topics/made-by-writing").json()["replication_factor"] == 3


def made_by_writing(nodes: Cluster) -> bool:
    body = {"records": [{"value": "first"}]}
    outcome = nodes.send(1, "POST", "/topics/made-by-writing", body, Content_Type="application/vnd.kafka.text.v2+json")
    return isinstance(outcome, Answer) and outcome.is_success and not outcome.json()["offsets"][0]["error_code"]
