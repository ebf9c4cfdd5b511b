"""Where the proxies differ (`rest.dialect`), and that strict answers hold nothing that no other proxy knows."""

from __future__ import annotations

import json
from typing import Any, get_args

import jsonschema
import pytest

from kraft.client.response import ALWAYS
from kraft.http.dialects import DIALECTS
from kraft.http.extension_fields import MARK, prefers_additions
from kraft.http.openapi import schema_of
from kraft.http.v2.produce import ProducedOffset
from kraft.http.v3 import models as v3
from kraft.protocol import errors
from kraft.protocol.media_types import RECORD_BATCH
from metadata.records import ConfigRecord
from metadata.settings import RestDialect
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, PLAIN, V3, Answer, Door, with_door

V2 = "application/vnd.kafka.v2+json"
ONE = {"records": [{"value": 1}]}


def gateway(dialect: str | None = None) -> FakeGateway:
    fake = FakeGateway(static={"default.replication.factor": 3} | ({"rest.dialect": dialect} if dialect else {}))
    fake.add_topic("t", 2)
    return fake


def reported(answer: Answer) -> tuple[int, int, str]:
    return answer.status, answer.json["error_code"], answer.headers["Content-Type"]


def test_every_dialect_of_the_setting_has_its_line() -> None:
    assert tuple(DIALECTS) == get_args(RestDialect)


@pytest.mark.parametrize(
    ("dialect", "unknown", "missing_partition", "bad_body"),
    [
        (None, (404, 40403, V2), (404, 40402, V2), (422, 422, V2)),
        ("confluent", (404, 40403, V2), (404, 40402, V2), (422, 422, V2)),
        ("strimzi", (404, 404, V2), (404, 40402, V2), (422, 422, V2)),
        ("redpanda", (404, 40402, PLAIN), (404, 40402, PLAIN), (422, 422, PLAIN)),
    ],
)
def test_errors_are_reported_as_the_dialect_reports_them(
    dialect: str | None, unknown: Any, missing_partition: Any, bad_body: Any
) -> None:
    async def story(door: Door) -> None:
        for tail in ("", "/partitions", "/partitions/0", "/partitions/0/offsets", "/partitions/0/records", "/records"):
            accept = {"Accept": "text/event-stream, */*;q=0.1"} if tail == "/records" else {}
            assert reported(await door.ask("GET", f"/topics/no{tail}", **accept)) == unknown, tail
        assert reported(await door.ask("GET", "/topics/t/partitions/7")) == missing_partition
        assert reported(await door.ask("POST", "/topics/t", {"records": []}, Content_Type=JSON)) == bad_body
        plain = await door.ask("GET", "/topics/t/partitions/7", Accept=PLAIN)
        assert reported(plain) == (404, 40402, PLAIN), "a client is told in what it takes"
        for accept in (PLAIN, "*/json"):
            plain = await door.ask("GET", "/topics/t/partitions/7", Accept=accept)
            assert reported(plain) == (404, 40402, PLAIN), accept
        assert reported(await door.ask("GET", f"{V3}/topics/no")) == (404, 40403, PLAIN), "v3 is Confluent's alone"

    with_door(story, gateway(dialect))


@pytest.mark.parametrize(
    ("dialect", "code", "offset"), [(None, 50003, None), ("confluent", 50003, None), ("redpanda", 3, -1)]
)
def test_a_produce_to_nowhere_has_an_error_for_each_record(dialect: str | None, code: int, offset: int | None) -> None:
    records = {"records": [{"value": 1}, {"value": 2, "partition": 5}]}

    async def story(door: Door) -> None:
        for path, places in (("/topics/no", [None, 5]), ("/topics/t/partitions/9", [9, 5])):
            answer = await door.ask("POST", path, records, Content_Type=JSON)
            assert answer.status == 200, answer.body
            entries = answer.json["offsets"]
            assert [(each["partition"], each["offset"], each["error_code"]) for each in entries] == [
                (place, offset, code) for place in places
            ]
            assert all(each["error"] and each["retriable"] is False for each in entries)
        raw = await door.ask("POST", "/topics/no/partitions/0", b"x", Content_Type=RECORD_BATCH)
        assert [each["error_code"] for each in raw.json["offsets"]] == [code]
        assert (await door.ask("POST", "/topics/no", b"{", Content_Type=JSON)).status == 400

    with_door(story, gateway(dialect))


def test_strimzis_bridge_refuses_a_produce_to_nowhere() -> None:
    async def story(door: Door) -> None:
        written = await door.ask("POST", "/topics/no", ONE, Content_Type=JSON)
        assert (written.status, written.json["error_code"]) == (404, 40401)

    with_door(story, gateway("strimzi"))


@pytest.mark.parametrize(
    ("dialect", "code", "offset"), [(None, 50003, None), ("strimzi", 50003, None), ("redpanda", 3, -1)]
)
def test_a_record_for_a_missing_partition_fails_alone_and_not_retriably(
    dialect: str | None, code: int, offset: int | None
) -> None:
    async def story(door: Door) -> None:
        records = {"records": [{"value": 1, "partition": 9}, {"value": 2, "partition": 0}]}
        answer = await door.ask("POST", "/topics/t", records, Content_Type=JSON)
        missing, written = answer.json["offsets"]
        assert (answer.status, missing["kafka_code"], missing["retriable"]) == (200, 3, False)
        assert (missing["partition"], missing["error_code"], missing["offset"]) == (9, code, offset)
        assert (written["error_code"], written["offset"]) == (None, 0)

    with_door(story, gateway(dialect))


def test_the_dialect_changes_while_a_node_runs() -> None:
    async def story(door: Door) -> None:
        assert (await door.ask("GET", "/topics/no")).json["error_code"] == 40403
        record = ConfigRecord(resource_type="broker", resource_name="", name="rest.dialect", value="strimzi")
        door.gateway.apply(record)
        assert (await door.ask("GET", "/topics/no")).json["error_code"] == 404

    with_door(story, gateway())


ASKED: tuple[tuple[str, str, Any, dict[str, str]], ...] = (
    ("GET", "/topics", None, {}),
    ("GET", "/topics/t", None, {}),
    ("GET", "/topics/t/partitions/0", None, {}),
    ("GET", "/topics/no", None, {}),
    ("GET", "/topics/t/partitions/7", None, {}),
    ("POST", "/topics/t", ONE, {"Content_Type": JSON}),
    ("POST", "/topics/t", {"records": [{"value": 1, "partition": 7}]}, {"Content_Type": JSON}),
    ("POST", "/topics/t?acks=0", ONE, {"Content_Type": JSON}),
    ("POST", "/topics/no", ONE, {"Content_Type": JSON}),
    ("GET", f"{V3}", None, {}),
    ("GET", f"{V3}/brokers", None, {}),
    ("GET", f"{V3}/brokers/1", None, {}),
    ("GET", f"{V3}/topics", None, {}),
    ("GET", f"{V3}/topics/t", None, {}),
    ("GET", f"{V3}/topics/no", None, {}),
    ("POST", f"{V3}/topics", {"topic_name": "new"}, {"Content_Type": PLAIN}),
    ("GET", f"{V3}/topics/t/partitions", None, {}),
    ("GET", f"{V3}/topics/t/partitions/1", None, {}),
    ("GET", f"{V3}/topics/t/configs", None, {}),
    (
        "POST",
        f"{V3}/topics/t/records:batch",
        {"entries": [{"id": "1"}, {"id": "2", "partition_id": 7}]},
        {"Content_Type": PLAIN},
    ),
    ("POST", f"{V3}/topics/t/records", b'{}{"partition_id":7}{"x":1}', {"Content_Type": PLAIN}),
)
OURS = frozenset(
    name
    for model in (ProducedOffset, v3.Broker, v3.Topic, v3.Partition)
    for name, field in schema_of(model)["properties"].items()
    if MARK in field
) - {"leader"} | {"index"}


def names(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document) | {name for value in document.values() for name in names(value)}
    return {name for each in document for name in names(each)} if isinstance(document, list) else set()


def documents(answer: Answer) -> list[Any]:
    return [json.loads(line) for line in answer.body.splitlines()]


def closed(schema: Any) -> Any:
    """As generated clients read a schema: what is not in it may not be there."""
    if isinstance(schema, dict):
        shut = {name: closed(each) for name, each in schema.items()}
        return shut | {"additionalProperties": False} if "properties" in schema else shut
    return [closed(each) for each in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize(("method", "path", "body", "headers"), ASKED, ids=[f"{m} {p}" for m, p, _, _ in ASKED])
def test_strict_answers_hold_exactly_what_their_document_describes(
    method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    async def story(door: Door) -> None:
        api = (await door.ask("GET", "/openapi.json")).json
        answer = await door.ask(method, path, body, **headers)
        for document in documents(answer):
            assert not OURS & names(document), document
        described = operation(api, method, path.partition("?")[0])["responses"][str(answer.status)]
        schema = described["content"][answer.headers["Content-Type"]]["schema"]
        for document in documents(answer):
            jsonschema.validate(document, closed(schema | {"components": api["components"]}))
        asked_for = await door.ask(method, path, body, **headers, **ALWAYS)
        assert asked_for.status == answer.status or path.endswith("/topics")
        lenient.append(names(documents(asked_for)))

    lenient: list[set[str]] = []
    with_door(story, gateway(), is_strict=True)

    async def default(door: Door) -> None:
        answer = await door.ask(method, path, body, **headers)
        if answer.status != 201:
            assert lenient == [names(documents(answer))], "who asks for the additions has what a default answer has"

    with_door(default, gateway())


def operation(api: Any, method: str, path: str) -> Any:
    wanted = path.replace(V3, "/v3/clusters/{cluster_id}").split("/")
    for described, item in api["paths"].items():
        parts = described.split("/")
        if len(parts) == len(wanted) and method.lower() in item:
            pairs = zip(parts, wanted, strict=True)
            if all(p == w or (p.startswith("{") and p.endswith("}") and ":" not in w) for p, w in pairs):
                return item[method.lower()]
    raise AssertionError((method, path))


def test_additions_are_marked_in_openapi() -> None:
    async def marked(door: Door) -> None:
        schemas = (await door.ask("GET", "/openapi.json")).json["components"]["schemas"]
        assert schemas["Topic"]["properties"]["topic_id"][MARK]

    async def plain(door: Door) -> None:
        answer = await door.ask("GET", "/openapi.json")
        assert MARK.encode() + b'":' not in answer.body
        assert "topic_id" not in answer.json["components"]["schemas"]["Topic"]["required"]

    with_door(marked, gateway())
    with_door(plain, gateway(), is_strict=True)


def test_a_refusal_of_the_cluster_is_reported_strictly_in_two_fields() -> None:
    async def story(door: Door) -> None:
        door.gateway.fail_read = errors.LeaderNotAvailable("there is no leader")
        answer = await door.ask("GET", "/topics/t/partitions/0/records?timeout=0", Accept=BINARY)
        assert answer.json == {"error_code": 50302, "message": "there is no leader"}
        assert answer.headers["Retry-After"]

    with_door(story, gateway(), is_strict=True)


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [(None, False), ("", False), ("wait=10", False), ("kraft-fields", True), ("wait=10, Kraft-Fields", True)],
)
def test_the_preference_is_one_of_several(prefer: str | None, *, wanted: bool) -> None:
    assert prefers_additions(prefer) is wanted
