"""Every endpoint once: method, path, body, status, and a part of the answer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest

from kraft import __version__
from kraft.http.app import ROUTES
from metadata.controller.requests import AlterConfigs, AlterReassignments, ElectLeaders
from metadata.records import RouteBindingRecord, RouteRecord
from metadata.routes import RouteKind
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, TEXT, V3, Door, b64, with_door
from tests.unit.http.test_ranges import ROUTES as KNOWN_ROUTES
from tests.unit.http.waits import Waits


@dataclass(frozen=True)
class Case:
    method: str
    path: str
    status: int
    part: Any = None
    """A subset of the answer: of dicts some keys, of lists the first items."""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.status}"


def gateway() -> FakeGateway:
    fake = FakeGateway(static={"default.replication.factor": 3})
    fake.add_topic("one", 1, configs={"retention.ms": "1000"})
    fake.add_topic("two", 2)
    fake.apply(RouteRecord(name="posts", kind=RouteKind.DIRECT))
    for key, topic in (("1", "one"), ("both", "one"), ("both", "two")):
        fake.apply(RouteBindingRecord(route="posts", key=key, topic=topic))
    fake.change("two", 0, isr=(1, 2), adding_replicas=(3,), removing_replicas=(1,))
    return fake


OFFSET_0 = {"partition": 0, "offset": 0, "error_code": None, "error": None}
JSON_IN = {"Content_Type": JSON}
PLAIN_IN = {"Content_Type": "application/json"}
ONE_QUOTA = {"entity": {"user": None}, "quotas": {"producer_byte_rate": 1}}
SEVEN = {"configs": [{"name": "retention.ms", "value": 7}]}
CASES = (
    Case("GET", "/", 200, {"name": "kraft", "cluster_id": "test-cluster", "links": {"topics": "/topics"}}),
    Case("GET", "/healthz", 200, {"status": "ok"}),
    Case("GET", "/readyz", 200, {"status": "ready"}),
    Case("GET", "/healthy", 200, {"status": "ok"}),
    Case("GET", "/ready", 200, {"status": "ready"}),
    Case("GET", "/status/ready", 200, {"status": "ready"}),
    Case("GET", "/_health", 200, {"kraft_version": __version__}),
    Case("POST", "/admin/topics", 201, None, {"topic_name": "new", "partitions_count": 2}, PLAIN_IN),
    Case("POST", "/topics/one?async=true", 204, None, {"records": [{"value": 1}]}, JSON_IN),
    Case("GET", f"{V3}/routes", 200, {"kind": "KraftRouteList", "data": [{"route_name": "posts"}]}),
    Case(
        "POST",
        f"{V3}/routes",
        201,
        {"route_name": "new", "bindings": [{"binding_key": "", "topic_name": "one"}]},
        {"route_name": "new", "kind": "fanout", "bindings": [{"topic_name": "one"}]},
        PLAIN_IN,
    ),
    Case("GET", f"{V3}/routes/posts", 200, {"route_kind": "direct"}),
    Case("GET", f"{V3}/routes/none", 404, {"error_code": 40407}),
    Case("DELETE", f"{V3}/routes/posts", 204),
    Case(
        "POST",
        f"{V3}/routes/posts/bindings:alter",
        204,
        None,
        {"remove": [{"binding_key": "1", "topic_name": "one"}]},
        PLAIN_IN,
    ),
    Case("GET", f"{V3}/routes/posts/topics?routing_key=both", 200, {"routing_key": "both", "topics": ["one", "two"]}),
    Case("GET", f"{V3}/routes/posts/topics", 200, {"routing_key": "", "topics": []}),
    Case("GET", f"{V3}/client-quotas", 200, {"kind": "KafkaClientQuotaList", "data": []}),
    Case(
        "POST",
        f"{V3}/client-quotas:alter",
        204,
        None,
        {"entity": {"user": None}, "quotas": {"producer_byte_rate": 1}},
        PLAIN_IN,
    ),
    Case("GET", f"{V3}/acls", 400, {"error_code": 40002, "kafka_code": 54}),
    Case("POST", f"{V3}/acls", 400, {"error_code": 40002}),
    Case("DELETE", f"{V3}/acls", 400, {"error_code": 40002}),
    Case("POST", f"{V3}/acls:batch", 400, {"error_code": 40002}),
    Case("GET", "/kraft/status", 200, {"controller_id": 1, "topics": 2, "partitions": {"under_replicated": 1}}),
    Case("GET", "/brokers", 200, {"brokers": [1, 2, 3]}),
    Case("GET", "/brokers/", 200, {"brokers": [1, 2, 3]}),
    Case("GET", "/topics", 200, ["one", "two"]),
    Case("GET", "/topics/one", 200, {"name": "one", "configs": {"retention.ms": "1000", "preallocate": "false"}}),
    Case("GET", "/topics/one/partitions", 200, [{"partition": 0, "leader": 1}]),
    Case(
        "GET",
        "/topics/two/partitions/0",
        200,
        {"partition": 0, "leader": 1, "replicas": [{"broker": 1, "leader": True, "in_sync": True}]},
    ),
    Case("GET", "/topics/one/partitions/0/offsets", 200, {"beginning_offset": 0, "end_offset": 0}),
    Case("GET", "/topics/one/partitions/0/records?timeout=0", 200, []),
    Case("POST", "/topics/one", 200, {"offsets": [OFFSET_0]}, {"records": [{"value": {"a": 1}}]}, JSON_IN),
    Case(
        "POST", "/topics/one/", 200, {"offsets": [OFFSET_0]}, {"records": [{"value": "YQ=="}]}, {"Content_Type": BINARY}
    ),
    Case(
        "POST",
        "/topics/one/partitions/0",
        200,
        {"offsets": [OFFSET_0]},
        {"records": [{"value": "x"}]},
        {"Content_Type": TEXT},
    ),
    Case("POST", "/topics/one?acks=0", 202, {"offsets": []}, {"records": [{"value": 1}]}, JSON_IN),
    Case("GET", "/v3/clusters", 200, {"kind": "KafkaClusterList", "data": [{"cluster_id": "test-cluster"}]}),
    Case("GET", V3, 200, {"kind": "KafkaCluster", "metadata": {"resource_name": "crn:///kafka=test-cluster"}}),
    Case("GET", f"{V3}/brokers", 200, {"kind": "KafkaBrokerList", "data": [{"broker_id": 1, "port": 9092}]}),
    Case("GET", f"{V3}/brokers/2", 200, {"broker_id": 2, "host": "127.0.0.1", "rack": "rack-2", "is_fenced": False}),
    Case("GET", f"{V3}/brokers/2/partition-replicas", 200, {"data": [{"topic_name": "one", "is_leader": False}]}),
    Case("GET", f"{V3}/brokers/-/configs", 200, {"kind": "KafkaBrokerConfigList"}),
    Case("GET", f"{V3}/brokers/1/configs", 200, {"data": [{"name": "access.control.allow.origin", "value": ""}]}),
    Case(
        "GET",
        f"{V3}/brokers/1/configs/default.replication.factor",
        200,
        {"value": "3", "source": "STATIC_BROKER_CONFIG", "is_default": False},
    ),
    Case("GET", f"{V3}/brokers/1/configs/num.partitions", 200, {"is_read_only": True}),
    Case("GET", f"{V3}/brokers/1/configs/broker.rack", 200, {"value": None, "is_read_only": True, "synonyms": []}),
    Case("GET", f"{V3}/brokers/1/configs/background.threads", 200, {"is_read_only": False}),
    Case("PUT", f"{V3}/brokers/1/configs/background.threads", 204, None, {"value": "2"}, PLAIN_IN),
    Case("DELETE", f"{V3}/brokers/1/configs/num.partitions", 204),
    Case("POST", f"{V3}/brokers/1/configs:alter", 204, None, {"data": [{"name": "background.threads", "value": "2"}]}),
    Case("GET", f"{V3}/broker-configs", 200, {"kind": "KafkaClusterConfigList", "data": []}),
    Case("GET", f"{V3}/broker-configs/num.partitions", 404, {"error_code": 404}),
    Case("PUT", f"{V3}/broker-configs/background.threads", 204, None, {"value": "2"}),
    Case("DELETE", f"{V3}/broker-configs/num.partitions", 204),
    Case(
        "POST",
        f"{V3}/broker-configs:alter",
        204,
        None,
        {"data": [{"name": "num.partitions", "operation": "DELETE"}], "validate_only": True},
    ),
    Case("GET", f"{V3}/topics", 200, {"kind": "KafkaTopicList", "data": [{"topic_name": "one", "is_internal": False}]}),
    Case(
        "POST",
        f"{V3}/topics",
        201,
        {"kind": "KafkaTopic", "topic_name": "new", "partitions_count": 4, "replication_factor": 3},
        {"topic_name": "new", "partitions_count": 4, "configs": [{"name": "retention.ms", "value": "5"}]},
        PLAIN_IN,
    ),
    Case(
        "POST",
        f"{V3}/topics",
        201,
        {"partitions_count": 2},
        {"topic_name": "placed", "replicas_assignments": {"0": [1, 2, 3], "1": [2, 3, 1]}},
    ),
    Case("POST", f"{V3}/topics", 200, {"topic_id": None}, {"topic_name": "new", "validate_only": True}),
    Case("GET", f"{V3}/topics/two", 200, {"topic_name": "two", "partitions_count": 2, "replication_factor": 3}),
    Case("DELETE", f"{V3}/topics/two", 204),
    Case("PATCH", f"{V3}/topics/two", 200, {"partitions_count": 5}, {"partitions_count": 5}),
    Case("GET", f"{V3}/topics/-/configs", 200, {"data": [{"topic_name": "one"}]}),
    Case("POST", f"{V3}/topics/-/configs:alter", 204, None, {"data": [SEVEN | {"topic_name": "one"}]}),
    Case(
        "POST",
        f"{V3}/topics/-/configs:alter",
        404,
        {"error_code": 40403},
        {"data": [SEVEN | {"topic_name": "no"}, SEVEN | {"topic_name": "two"}]},
    ),
    Case("PUT", f"{V3}/topics/one/configs/preallocate", 204, None, {"value": True}),
    Case("GET", f"{V3}/topics/one/configs", 200, {"kind": "KafkaTopicConfigList"}),
    Case(
        "GET",
        f"{V3}/topics/one/configs/retention.ms",
        200,
        {
            "value": "1000",
            "source": "DYNAMIC_TOPIC_CONFIG",
            "synonyms": [{"name": "retention.ms", "value": "1000"}, {"name": "log.retention.ms", "value": "604800000"}],
        },
    ),
    Case("PUT", f"{V3}/topics/one/configs/retention.ms", 204, None, {"value": "2"}),
    Case("DELETE", f"{V3}/topics/one/configs/retention.ms", 204),
    Case("POST", f"{V3}/topics/one/configs:alter", 204, None, {"data": [{"name": "retention.ms", "value": "2"}]}),
    Case("GET", f"{V3}/topics/two/partitions", 200, {"data": [{"partition_id": 0}, {"partition_id": 1}]}),
    Case("GET", f"{V3}/topics/two/partitions/0", 200, {"isr": [1, 2], "partition_epoch": 1, "leader_epoch": 0}),
    Case("GET", f"{V3}/topics/two/partitions/0/offset", 200, {"earliest_offset": 0, "latest_offset": 0}),
    Case("GET", f"{V3}/topics/two/partitions/0/replicas", 200, {"data": [{"broker_id": 1, "is_leader": True}]}),
    Case("GET", f"{V3}/topics/two/partitions/0/replicas/3", 200, {"broker_id": 3, "is_in_sync": False}),
    Case("GET", f"{V3}/topics/-/partitions/-/reassignment", 200, {"data": [{"topic_name": "two"}]}),
    Case("GET", f"{V3}/topics/two/partitions/-/reassignment", 200, {"data": [{"adding_replicas": [3]}]}),
    Case("GET", f"{V3}/topics/two/partitions/0/reassignment", 200, {"removing_replicas": [1]}),
    Case("POST", f"{V3}/topics/two/partitions/0/reassignment", 204, None, {"replicas": [3, 2]}),
    Case("DELETE", f"{V3}/topics/two/partitions/0/reassignment", 204),
    Case("POST", f"{V3}/elections", 200, {"data": [{"topic_name": "one", "error_code": None}]}, {}),
    Case("POST", f"{V3}/topics/two/partitions/1:elect", 204, None, {"election_type": "unclean"}),
    Case("POST", f"{V3}/topics/two/partitions/1:elect", 204),
    Case("POST", f"{V3}/topics/one/records", 200, {"error_code": 200, "offset": 0}, {"partition_id": 0}),
    Case("GET", "/topics/nobody/records", 404, {"error_code": 40403}),
    Case(
        "POST",
        f"{V3}/topics/one/records:batch",
        207,
        {"successes": [{"id": "a", "offset": 0, "value": {"type": "STRING", "size": 2}}], "failures": [{"id": "b"}]},
        {
            "entries": [
                {"id": "a", "value": {"type": "STRING", "data": "hi"}, "timestamp": "2024-01-01T00:00:00Z"},
                {"id": "b", "value": {"type": "BINARY", "data": "!"}},
            ]
        },
    ),
)


def assert_part(part: Any, whole: Any, where: str = "answer") -> None:
    if isinstance(part, dict):
        for name, value in part.items():
            assert name in whole, f"{where}.{name} is missing in {whole}"
            assert_part(value, whole[name], f"{where}.{name}")
    elif isinstance(part, list) and part:
        assert len(whole) >= len(part), f"{where}: {whole}"
        for number, value in enumerate(part):
            assert_part(value, whole[number], f"{where}[{number}]")
    else:
        assert whole == part, f"{where}: {whole!r}, not {part!r}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_endpoint(case: Case) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask(case.method, case.path, case.body, **case.headers)
        assert answer.status == case.status, answer.body
        if case.part is None:
            assert answer.body == b""
        else:
            assert_part(case.part, answer.json)

    with_door(story, gateway())


def test_every_route_has_a_case() -> None:
    """The table above is complete: each route of the door is asked at least once."""

    async def story(door: Door) -> None:
        for case in CASES:
            await door.ask(case.method, case.path, case.body, **case.headers)
        for path in (
            "/openapi.json",
            "/openapi",
            "/openapi/v3",
            "/docs",
            "/docs/docs.js",
            "/console",
            "/console/console.js",
        ):
            await door.ask("GET", path)
        await door.ask("GET", "/metrics")
        text = (await door.ask("GET", "/metrics")).body.decode()
        for route in door.app[ROUTES]:
            line = f'kraft_http_requests_total{{method="{route.method}",route="{route.path}"'
            assert line in text, f"{route.method} {route.path} has no case"

    with_door(story, gateway())


def test_a_handler_takes_what_the_check_of_its_route_returns() -> None:
    for route in KNOWN_ROUTES:
        checked = "None" if route.check is None else inspect.signature(route.check).return_annotation
        parameters = inspect.signature(route.handler).parameters.values()
        taken = [each.annotation for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
        expected = ["Call"] if checked == "None" else ["Call", checked]
        assert taken == expected, f"{route.method} {route.path}: its check returns {checked}, its handler takes {taken}"


def test_topic_is_created_where_location_points() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", f"{V3}/topics", {"topic_name": "new"})
        location = answer.headers["Location"]
        assert location == answer.json["metadata"]["self"]
        path = "/" + location.split("/", 3)[3]
        assert (await door.ask("GET", path)).json["topic_id"] == answer.json["topic_id"]

    with_door(story, gateway())


def test_requests_to_the_controller_say_what_was_asked() -> None:
    async def story(door: Door) -> None:
        await door.ask(
            "POST",
            f"{V3}/elections",
            {"election_type": "unclean", "partitions": [{"topic_name": "two", "partition_id": 1}]},
        )
        await door.ask("POST", f"{V3}/topics/two/partitions/0/reassignment", {"replicas": [3, 2]})
        await door.ask("DELETE", f"{V3}/topics/two/partitions/0/reassignment")
        await door.ask(
            "POST",
            f"{V3}/topics/one/configs:alter",
            {"data": [{"name": "cleanup.policy", "operation": "APPEND", "value": "compact"}], "validate_only": True},
        )
        election, start, cancel, alter = door.gateway.requests
        assert election == ElectLeaders(election="unclean", partitions=(("two", 1),))
        assert isinstance(start, AlterReassignments)
        assert start.reassignments[0].replicas == (3, 2)
        assert isinstance(cancel, AlterReassignments)
        assert cancel.reassignments[0].replicas is None
        assert isinstance(alter, AlterConfigs)
        assert alter.validate_only
        assert [c.operation for changes in alter.resources.values() for c in changes] == ["append"]

    with_door(story, gateway())


def test_head_and_html_index_and_readiness() -> None:
    async def story(door: Door) -> None:
        head = await door.ask("HEAD", "/topics")
        assert (head.status, head.body) == (200, b"")
        html = await door.ask("GET", "/", Accept="text/html")
        assert html.headers["Content-Type"].startswith("text/html")
        assert b"/openapi.json" in html.body
        not_ready = await door.ask("GET", "/readyz")
        assert (not_ready.status, not_ready.json) == (503, {"status": "not ready", "reason": "fenced"})

    with_door(story, gateway(), awaiting=Waits(service="fenced"))


def test_status_reports_the_state_of_each_node() -> None:
    async def story(door: Door) -> None:
        nodes = (await door.ask("GET", "/kraft/status")).json["nodes"]
        assert {node["id"]: node["state"] for node in nodes} == {
            1: "active", 2: "active", 3: "active", 4: "down", 9: "controller",
        }  # fmt: skip

    with_door(story, gateway())


def test_metrics_count_requests_bytes_and_partitions() -> None:
    async def story(door: Door) -> None:
        await door.ask("POST", "/topics/one", {"records": [{"value": b64(b"x")}]}, Content_Type=BINARY)
        text = (await door.ask("GET", "/metrics")).body.decode()
        assert 'kraft_http_requests_total{method="POST",route="/topics/{topic}",status="200"} 1.0' in text
        assert 'kraft_http_request_seconds_count{method="POST",route="/topics/{topic}"} 1.0' in text
        assert 'route="/brokers"' not in text, "a route that nobody asked has no series"
        assert "kraft_http_produced_records_total 1.0" in text
        assert "kraft_partitions 3.0" in text
        assert "kraft_partitions_under_replicated 1.0" in text
        assert "kraft_extra 7.0" in text

    with_door(story, gateway(), gauges=lambda: {"extra": 7})
