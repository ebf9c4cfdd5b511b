"""What one node answers over HTTP where other proxies' clients look closely, and what it writes about it."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kraft.protocol.messages.describe_configs_request import DescribeConfigsRequestData, DescribeConfigsResource
from kraft.wire.handlers.config_sources import SOURCES
from metadata.rate_limited_log import LINES_MAX
from tests.integration.support.cluster import Cluster
from tests.integration.support.transactional import ask
from tests.integration.support.waiting import wait_until

pytestmark = pytest.mark.long

V2 = "application/vnd.kafka.v2+json"
JSON = "application/vnd.kafka.json.v2+json"
BINARY = "application/vnd.kafka.binary.v2+json"
PLAIN = "application/json"
CONFIG = """\
[settings]
default.replication.factor = 1
min.insync.replicas = 1
offsets.topic.replication.factor = 1
offsets.topic.num.partitions = 1
group.initial.rebalance.delay.ms = 0
auto.create.topics.enable = false
rest.dialect = "{dialect}"
[[nodes]]
id = 1
rack = "north"
"""
INSTANCE_TIMEOUT_MS = 1_000
READ_MS = 3_000


class OneNode:
    """A running node, and requests to it as other people's clients send them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, str | None]:
        """Status, document and content type."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named.setdefault("Content-Type", V2)
        connection = http.client.HTTPConnection(urlsplit(self.cluster.node(1).rest).netloc, timeout=30)
        try:
            connection.request(method, path, data, named)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None, answer.getheader("Content-Type")
        finally:
            connection.close()

    def consumer(self, group: str, **settings: str) -> str:
        """The path of a new consumer that has been assigned partition 0 of topic t, from its beginning on."""
        status, made, _ = self.ask("POST", f"/consumers/{group}", {"name": "i", **settings})
        assert status == 200, made
        path = f"/consumers/{group}/instances/i"
        partition = {"topic": "t", "partition": 0}
        assert self.ask("POST", f"{path}/assignments", {"partitions": [partition]})[0] == 204
        assert self.ask("POST", f"{path}/positions/beginning", {"partitions": [partition]})[0] == 204
        return path

    @property
    def v3(self) -> str:
        return f"/v3/clusters/{self.ask('GET', '/v3/clusters')[1]['data'][0]['cluster_id']}"


def started(folder: Path, dialect: str) -> Iterator[OneNode]:
    config = folder / "cluster.toml"
    config.write_text(CONFIG.format(dialect=dialect))
    cluster = Cluster(data=str(folder / "data"), config=str(config))
    try:
        cluster.start()
        cluster.create_topic("t", replication_factor=1)
        cluster.create_topic("bytes", replication_factor=1)
        yield OneNode(cluster)
    finally:
        cluster.destroy()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    yield from started(tmp_path_factory.mktemp("confluent"), "confluent")


@pytest.fixture(scope="module")
def redpanda(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    yield from started(tmp_path_factory.mktemp("redpanda"), "redpanda")


def test_an_unknown_topic_changes_no_setting_of_the_others(node: OneNode) -> None:
    change = {"name": "retention.ms", "value": "12345"}
    data = [{"topic_name": name, "configs": [change]} for name in ("t", "no")]
    status, document, _ = node.ask("POST", f"{node.v3}/topics/-/configs:alter", {"data": data}, Content_Type=PLAIN)
    assert (status, document["error_code"]) == (404, 40403)
    _, config, _ = node.ask("GET", f"{node.v3}/topics/t/configs/retention.ms")
    assert config["is_default"]


def test_texts_that_other_clients_know_by_their_beginning(node: OneNode) -> None:
    node.consumer("texts")
    status, document, _ = node.ask("POST", "/consumers/texts", {"name": "i"})
    assert (status, document["error_code"]) == (409, 40902)
    begin = "Consumer with specified consumer ID already exists in the specified consumer group."
    assert document["message"].startswith(begin)
    for path in ("/topics/t/partitions/7", "/topics/t/partitions/seven"):
        status, document, _ = node.ask("GET", path)
        assert (status, document["error_code"]) == (404, 40402)
        assert document["message"].startswith("Partition not found.")
    status, document, _ = node.ask("POST", "/consumers/texts", {"auto.offset.reset": "middle"})
    assert (status, document["error_code"]) == (422, 42204)
    assert document["message"].startswith("Invalid consumer configuration: ")


def test_a_waiting_read_keeps_its_consumer(node: OneNode) -> None:
    node.cluster.create_topic("empty", replication_factor=1)
    status, made, _ = node.ask(
        "POST", "/consumers/waits", {"name": "i", "consumer.instance.timeout.ms": str(INSTANCE_TIMEOUT_MS)}
    )
    assert status == 200, made
    path = "/consumers/waits/instances/i"
    assert node.ask("POST", f"{path}/assignments", {"partitions": [{"topic": "empty", "partition": 0}]})[0] == 204
    for _ in range(2):
        assert node.ask("GET", f"{path}/records?timeout={READ_MS}", Accept=BINARY)[:2] == (200, [])
    assert node.ask("DELETE", path)[0] == 204


def test_a_value_that_cannot_be_read_is_named_by_its_place(node: OneNode) -> None:
    written = {"records": [{"value": "/w==", "partition": 0}, {"value": "MQ==", "partition": 0}]}
    assert node.ask("POST", "/topics/bytes", written, Content_Type=BINARY)[0] == 200
    path = "/consumers/reads/instances/i"
    assert node.ask("POST", "/consumers/reads", {"name": "i", "format": "json"})[0] == 200
    place = {"topic": "bytes", "partition": 0}
    assert node.ask("POST", f"{path}/assignments", {"partitions": [place]})[0] == 204
    assert node.ask("POST", f"{path}/positions/beginning", {"partitions": [place]})[0] == 204
    status, refused, _ = node.ask("GET", f"{path}/records", Accept=JSON)
    assert status == 422
    assert {name: refused[name] for name in ("topic", "partition", "offset")} == {**place, "offset": 0}
    assert node.ask("POST", f"{path}/positions", {"offsets": [{**place, "offset": 1}]})[0] == 204
    status, records, _ = node.ask("GET", f"{path}/records", Accept=JSON)
    assert [each["value"] for each in records] == [1]


def test_a_body_that_breaks_off_is_one_line_of_the_log(node: OneNode) -> None:
    host, port = urlsplit(node.cluster.node(1).rest).netloc.split(":")
    head = "POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\n{more}\r\n"
    bodies = (
        head.format(media=JSON, more="Content-Length: 1000\r\n") + '{"rec',
        head.format(media=JSON, more="Content-Encoding: gzip\r\nContent-Length: 9\r\n") + "no gzip!!",
        head.format(media=JSON, more="Transfer-Encoding: chunked\r\n") + "5\r\n{...",
    )
    for text in bodies * 20:
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(text.encode())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    log = Path(node.cluster.node(1).data, "node.log")
    wait_until(lambda: "could not be read to its end" in log.read_text(), deadline_s=10)
    text = log.read_text()
    assert text.count("could not be read to its end") <= LINES_MAX, "of 60"
    assert "Traceback" not in text
    assert "Unhandled" not in text


def test_a_time_that_is_no_parameter_is_refused(node: OneNode) -> None:
    for path in ("/topics/t/partitions/0/records", "/topics/t/partitions/0/offsets", "/topics/t/records"):
        status, document, _ = node.ask("GET", f"{path}?timestamp=1", Accept=f"{JSON}, text/event-stream")
        assert (status, document["error_code"]) == (400, 40002), path
        assert "offset=ts:" in document["message"]


def test_names_that_redpanda_refuses(redpanda: OneNode) -> None:
    for path in ("/topics/a%0ab", "/topics/a%7fb/partitions/0/records?offset=0"):
        status, document, media = redpanda.ask("GET", path)
        assert (status, media) == (400, PLAIN), document
        assert document["message"].startswith("Parameter contained invalid control characters: a"), document
    for path in ("/topics//partitions/0/records?offset=0", "/topics/t/partitions/0/records?offset="):
        status, document, media = redpanda.ask("GET", path, Accept=BINARY)
        assert (status, media) == (400, PLAIN), (path, document)


def test_accept_chooses_the_format_of_a_read_as_with_redpanda(redpanda: OneNode) -> None:
    path = redpanda.consumer("reads", format="binary")
    assert redpanda.ask("POST", "/topics/t", {"records": [{"value": 1}]}, Content_Type=JSON)[0] == 200
    status, records, media = redpanda.ask("GET", f"{path}/records", Accept=JSON)
    assert (status, media, [each["value"] for each in records]) == (200, JSON, [1])


def test_no_content_has_no_type(redpanda: OneNode, node: OneNode) -> None:
    for each in (redpanda, node):
        path = each.consumer("types")
        assert each.ask("DELETE", path) == (204, None, None)


def test_what_a_kafka_client_calls_itself_is_escaped(node: OneNode) -> None:
    name = b"evil\n\x1b[31mclient"
    host, port = node.cluster.node(1).kafka.split(":")
    frame = struct.pack(">hhih", 18, 0, 1, len(name)) + name
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        assert len(connection.recv(65_536)) > 8
    with urllib.request.urlopen(f"{node.cluster.node(1).rest}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    assert "evil\\\\u000a\\\\u001b[31mclient" in metrics
    assert "\x1b" not in metrics


BROKER = 4
"""Type of a resource of DescribeConfigs."""
Synonyms = dict[str, list[tuple[str, str | None, int]]]


def synonyms_on_the_wire(node: OneNode, broker: str) -> tuple[dict[str, str | None], Synonyms]:
    """Values and synonyms of all settings of a broker; of all brokers for the empty name."""
    resource = DescribeConfigsResource.make(resource_type=BROKER, resource_name=broker, configuration_keys=None)
    answer = ask(node.cluster, 1, DescribeConfigsRequestData.make(resources=[resource], include_synonyms=True), 4)
    (result,) = answer.results
    assert result.error_code == 0, result
    return {each.name: each.value for each in result.configs}, {
        each.name: [(synonym.name, synonym.value, synonym.source) for synonym in each.synonyms]
        for each in result.configs
    }


def synonyms_over_rest(node: OneNode, path: str) -> Synonyms:
    _, document, _ = node.ask("GET", f"{node.v3}/{path}")
    return {
        each["name"]: [(synonym["name"], synonym["value"], SOURCES[synonym["source"]]) for synonym in each["synonyms"]]
        for each in document["data"]
    }


def test_settings_of_a_broker_are_the_same_over_rest_and_on_the_wire(node: OneNode) -> None:
    """Synonyms, sources, and what is not among the settings: its listeners, folders and id."""
    for path, value in (("broker-configs", "20000"), ("brokers/1/configs", "30000")):
        url = f"{node.v3}/{path}/log.retention.ms"
        assert node.ask("PUT", url, {"value": value}, Content_Type=PLAIN)[0] == 204

    def has_both() -> bool:
        return len(synonyms_on_the_wire(node, "1")[1]["log.retention.ms"]) == 3

    wait_until(has_both, what="both values")
    values, synonyms = synonyms_on_the_wire(node, "1")
    assert synonyms == synonyms_over_rest(node, "brokers/1/configs")
    assert [value for _, value, _ in synonyms["log.retention.ms"]][:2] == ["30000", "20000"]
    assert [source for _, _, source in synonyms["min.insync.replicas"]] == [4, 5]
    _, for_all = synonyms_on_the_wire(node, "")
    assert (
        for_all
        == synonyms_over_rest(node, "broker-configs")
        == {"log.retention.ms": [("log.retention.ms", "20000", 3)]}
    )
    assert values["node.id"] == values["broker.id"] == "1"
    assert values["advertised.listeners"] == f"PLAINTEXT://{node.cluster.node(1).kafka}"
    assert (values["listeners"] or "").startswith("PLAINTEXT://")
    assert (values["log.dirs"] or "").startswith(str(node.cluster.data))
    assert values["broker.rack"] == "north"
