"""A node with the strict profile: what other clients send and are answered; our own tools work all the same."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kraft.client import Client
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.waiting import wait_until

pytestmark = pytest.mark.slow

V2 = "application/vnd.kafka.v2+json"
JSON = "application/vnd.kafka.json.v2+json"
PLAIN = "application/json"
CONFIG = """\
strict = true
[settings]
default.replication.factor = 1
min.insync.replicas = 1
offsets.topic.replication.factor = 1
offsets.topic.num.partitions = 1
group.initial.rebalance.delay.ms = 0
[[nodes]]
id = 1
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("strict")
    config = folder / "cluster.toml"
    config.write_text(CONFIG)
    cluster = Cluster(data=str(folder / "data"), config=str(config))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()


def ask(node: Cluster, method: str, path: str, body: Any = None, media: str = V2) -> tuple[int, Any, str | None]:
    """As other people's clients ask: without the preference that ours state."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": media}
    request = urllib.request.Request(node.node(1).rest + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            text, status, kind = response.read(), response.status, response.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        text, status, kind = error.read(), error.code, error.headers["Content-Type"]
    return status, json.loads(text) if text else None, kind


def test_answers_hold_only_what_other_proxies_know(node: Cluster) -> None:
    v3 = node.v3
    status, topic, _ = ask(node, "POST", f"{v3}/topics", {"topic_name": "known", "partitions_count": None}, PLAIN)
    assert status == 201
    assert "topic_id" not in topic
    wait_until(lambda: ask(node, "GET", f"{v3}/topics/known/partitions/0")[0] == 200, what="the topic")
    _, partition, _ = ask(node, "GET", f"{v3}/topics/known/partitions/0")
    assert set(partition) == {
        "kind", "metadata", "cluster_id", "topic_name", "partition_id", "leader", "replicas", "reassignment"
    }  # fmt: skip
    _, broker, _ = ask(node, "GET", f"{v3}/brokers/1")
    assert not {"broker_epoch", "is_fenced", "rest"} & set(broker)
    status, written, _ = ask(node, "POST", "/topics/known", {"records": [{"value": 1}]}, JSON)
    assert (status, written) == (200, {
        "offsets": [{"partition": 0, "offset": 0, "error_code": None, "error": None}],
        "key_schema_id": None, "value_schema_id": None,
    })  # fmt: skip
    assert ask(node, "GET", "/topics/unknown") == (
        404, {"error_code": 40403, "message": "topic 'unknown' does not exist"}, PLAIN
    )  # fmt: skip
    entries = {"entries": [{"id": "1", "value": {"type": "JSON", "data": 1}}, {"id": "2", "partition_id": 9}]}
    status, batch, _ = ask(node, "POST", f"{v3}/topics/known/records:batch", entries, PLAIN)
    assert status == 207
    assert set(batch["successes"][0]) == {
        "id", "cluster_id", "topic_name", "partition_id", "offset", "timestamp", "value"
    }  # fmt: skip
    assert set(batch["failures"][0]) == {"id", "error_code", "message"}


def test_a_consumer_lives_as_clients_of_other_proxies_write_it(node: Cluster) -> None:
    v3 = node.v3
    assert ask(node, "POST", f"{v3}/topics", {"topic_name": "consumed", "partitions_count": 1}, PLAIN)[0] == 201
    wait_until(lambda: ask(node, "GET", "/topics/consumed")[0] == 200, what="the topic")
    ask(node, "POST", "/topics/consumed", {"records": [{"value": number} for number in range(3)]}, JSON)
    new = {"id": "mine", "name": None, "format": "JSON", "auto.commit.enable": "false", "fetch.min.bytes": "1"}
    new |= {"auto.offset.reset": "EARLIEST", "consumer.request.timeout.ms": "3000", "isolation.level": None}
    status, made, _ = ask(node, "POST", "/consumers/others", new)
    assert (status, made["instance_id"]) == (200, "mine")
    for refused in ({"format": "avro"}, {"session.timeout.ms": 6000}, {"enable.auto.commit": True}):
        status, document, _ = ask(node, "POST", "/consumers/others", refused)
        assert (status, document["error_code"]) == (422, 42204)
        assert set(document) == {"error_code", "message"}
    one = "/consumers/others/instances/mine"
    assert ask(node, "POST", f"{one}/subscription", {"topics": ["consumed"], "topic_pattern": None})[0] == 204
    assert ask(node, "GET", f"{one}/subscription")[1] == {"topics": ["consumed"]}
    assert [record["value"] for record in ask(node, "GET", f"{one}/records")[1]] == [0, 1, 2]
    assert ask(node, "POST", f"{one}/offsets", {}) == (200, [], V2)
    status, summary, _ = ask(node, "GET", f"{v3}/consumer-groups/others/lag-summary")
    assert (status, summary["total_lag"]) == (200, 0)
    assert "generation" not in ask(node, "GET", f"{v3}/consumer-groups/others")[1]
    nowhere = {"offsets": [{"topic": "nowhere", "partition": 0, "offset": 0}]}
    status, refusal, kind = ask(node, "POST", f"{one}/positions", nowhere)
    assert (status, refusal["error_code"], kind) == (409, 40903, V2)
    assert ask(node, "DELETE", one)[0] == 204
    assert ask(node, "GET", f"{one}/assignments")[1]["error_code"] == 40403


def test_our_own_tools_have_what_they_need(node: Cluster) -> None:
    data = ("--data", node.data)
    kraft("topics", "create", "tools", *data)
    kraft("produce", "tools", *data, stdin="a line\n")
    assert "isr" in kraft("topics", "describe", "tools", *data).stdout
    assert kraft("consume", "tools", *data).stdout.split()[-1] == "line"
    grouped = kraft("consume", "tools", "--group", "tools", "--timeout", "5000", *data)
    assert grouped.stdout.split()[-1] == "line"
    assert json.loads(kraft("groups", "describe", "tools", "--json", *data).stdout)["generation"] > 0
    with Client(node.node(1).rest) as client:
        with client.producer() as producer:
            producer.send("tools", b"another")
        with client.consumer("tools", group="more-tools", auto_offset_reset="earliest") as consumer:
            assert [next(iter(batch)).value for batch in [next(consumer.batches())]] == [b"a line"]
