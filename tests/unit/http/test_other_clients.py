"""What clients written for Confluent's proxy, Strimzi's bridge, Redpanda and Karapace send, as they send it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from kraft.http.body_models import IS_STRICT
from kraft.http.openapi import schema_of
from kraft.http.v2.consumers_models import ALSO_SPELLED, SETTINGS_OF_OTHERS, NewConsumer
from kraft.http.v3 import models as v3
from kraft.http.v3.consumer_groups_models import OffsetReset
from kraft.http.v3.record_bodies import BatchRequest, parse_batch
from kraft.protocol.batches.records import read_batches
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, PLAIN, TEXT, V3, Door, with_door

BOTH_PROFILES = pytest.mark.parametrize("is_strict", [False, True], ids=["default", "strict"])
NEW: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {"format": "binary", "auto_commit": True, "fetch_bytes_min": 1, "request_timeout_ms": 1_000}),
    (
        {"auto.commit.enable": "false", "fetch.min.bytes": "5", "consumer.request.timeout.ms": "700"},
        {"auto_commit": False, "fetch_bytes_min": 5, "request_timeout_ms": 700},
    ),
    ({"auto.commit.enable": "True", "fetch.min.bytes": "-1"}, {"auto_commit": True, "fetch_bytes_min": -1}),
    ({"auto.commit.enable": False, "fetch.min.bytes": 5}, {"auto_commit": False, "fetch_bytes_min": 5}),
    ({"format": "JSON", "auto.offset.reset": "EARLIEST"}, {"format": "json", "reset": "earliest"}),
    ({"format": "Binary", "isolation.level": "READ_COMMITTED"}, {"format": "binary", "isolation": "read_committed"}),
    ({"id": "mine", "name": "other"}, {"id": "mine", "name": "other"}),
    (
        dict.fromkeys(field.alias or name for name, field in NewConsumer.model_fields.items()),
        {"id": None, "name": None, "format": "binary", "reset": "latest", "auto_commit": True, "timeout_ms": None},
    ),
)


def new_consumer(body: Any, *, is_strict: bool) -> NewConsumer:
    return NewConsumer.model_validate_json(json.dumps(body), strict=is_strict or None, context={IS_STRICT: is_strict})


@BOTH_PROFILES
@pytest.mark.parametrize(("body", "fields"), NEW, ids=[str(body)[:60] for body, _ in NEW])
def test_a_consumer_is_created_as_its_client_writes_it(
    body: dict[str, Any], fields: dict[str, Any], *, is_strict: bool
) -> None:
    made = new_consumer(body, is_strict=is_strict)
    assert {name: getattr(made, name) for name in fields} == fields
    jsonschema.validate(body, schema_of(NewConsumer))


@BOTH_PROFILES
@pytest.mark.parametrize("name", ["avro", "AVRO", "jsonschema", "protobuf"])
def test_a_consumer_that_could_never_read_is_not_created(name: str, *, is_strict: bool) -> None:
    with pytest.raises(ValidationError, match="schema registry"):
        new_consumer({"format": name}, is_strict=is_strict)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"format": name}, schema_of(NewConsumer))


@pytest.mark.parametrize("name", sorted([*SETTINGS_OF_OTHERS, *ALSO_SPELLED]))
def test_settings_of_other_proxies(name: str) -> None:
    value = "true" if name == "enable.auto.commit" else "7"
    made = new_consumer({name: value}, is_strict=False)
    assert made.ignored == ((name,) if name in SETTINGS_OF_OTHERS else ())
    with pytest.raises(ValidationError, match="not permitted"):
        new_consumer({name: value}, is_strict=True)


def test_a_setting_that_no_proxy_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="not permitted"):
        new_consumer({"colour": "red"}, is_strict=False)


NULLS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (v3.NewTopic, {"topic_name": "t", "validate_only": None, "configs": [{"name": "retention.ms", "value": None}]}),
    (v3.PartitionsCount, {"partitions_count": 2, "validate_only": None}),
    (v3.ElectionRequest, {"election_type": None, "partitions": None}),
    (v3.PartitionElection, {"election_type": None}),
    (OffsetReset, {"to": "latest", "validate_only": None, "timestamp": None, "shift": None, "topics": None}),
    (
        BatchRequest,
        {
            "entries": [
                {
                    "id": "1",
                    "key": None,
                    "value": {"type": None, "data": "YQ==", "schema_id": None, "schema": None},
                    "headers": [{"name": "h", "value": None}],
                    "partition_id": None,
                }
            ]
        },
    ),
)


@BOTH_PROFILES
@pytest.mark.parametrize(("model", "body"), NULLS, ids=lambda each: getattr(each, "__name__", ""))
def test_null_is_as_good_as_absent(model: Any, body: dict[str, Any], *, is_strict: bool) -> None:
    def parsed(sent: Any) -> Any:
        text = json.dumps(sent)
        if model is BatchRequest:
            return parse_batch(text.encode(), now_ms=1, entries_max=5, is_strict=is_strict).records
        return model.model_validate_json(text, strict=is_strict or None, context={IS_STRICT: is_strict})

    def without_nulls(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: without_nulls(value) for name, value in each.items() if value is not None}
        return [without_nulls(item) for item in each] if isinstance(each, list) else each

    assert parsed(body) == parsed(without_nulls(body))
    jsonschema.validate(body, schema_of(model))


@BOTH_PROFILES
def test_replicas_are_placed_by_numbers_that_json_writes_as_text(*, is_strict: bool) -> None:
    text = '{"topic_name": "t", "replicas_assignments": {"0": [1, 2]}, "partitions_count": null}'
    made = v3.NewTopic.model_validate_json(text, strict=is_strict or None, context={IS_STRICT: is_strict})
    assert made.replicas_assignments == {0: [1, 2]}


def gateway() -> FakeGateway:
    fake = FakeGateway(static={"default.replication.factor": 3})
    fake.add_topic("t")
    return fake


def stored(door: Door) -> list[bytes | None]:
    return [record.value for record in read_batches(door.gateway.log("t").data)]


BATCHES: tuple[tuple[str, str, int, int], ...] = (
    ("a field that nobody knows", '{"id": "1", "x": 1}', 422, 422),
    ("which is null", '{"id": "1", "x": null}', 207, 422),
    ("in its data", '{"id": "1", "value": {"type": "JSON", "data": {"d": 1.10}, "x": null}}', 207, 422),
    ("in a header", '{"id": "1", "headers": [{"name": "h", "x": null}]}', 207, 422),
    ("in embedded JSON", '{"id": "1", "value": {"type": "JSON", "data": {"x": null}}}', 207, 207),
    ("a number as text", '{"id": "1", "partition_id": "0"}', 207, 400),
    ("a whole float", '{"id": "1", "partition_id": 0.0}', 207, 207),
    ("a negative number", '{"id": "1", "partition_id": -1}', 400, 400),
    ("a number for text", '{"id": 1}', 400, 400),
    ("no id", "{}", 400, 400),
    ("no number of JSON", '{"id": "1", "value": {"type": "JSON", "data": NaN}}', 400, 400),
)


@pytest.mark.parametrize(("name", "entry", "lenient", "strict"), BATCHES, ids=[each[0] for each in BATCHES])
def test_a_batch_is_taken_as_the_profile_demands(name: str, entry: str, lenient: int, strict: int) -> None:
    async def story(door: Door) -> None:
        body = f'{{"entries": [{entry}, {{"id": "other"}}]}}'.encode()
        answer = await door.ask("POST", f"{V3}/topics/t/records:batch", body, Content_Type=PLAIN)
        expected.append(answer.status)
        if answer.status == 207:
            assert [each["id"] for each in answer.json["successes"]] == ["1", "other"], answer.json

    expected: list[int] = []
    with_door(story, gateway())
    with_door(story, gateway(), is_strict=True)
    assert expected == [lenient, strict], name


def test_embedded_json_of_a_batch_keeps_every_digit_and_loses_only_white_space() -> None:
    async def story(door: Door) -> None:
        body = (
            b'{"entries": [{"id": "1", "value": {"type": "JSON", "data": { "n" : 12345678901234567890.123456789012345,'
            b' "f": 1.10, "e": 1e400, "t": "a b\\u00e9" } }, "key": {"data": 0.10000000000000000001, "type": "JSON"}}]}'
        )
        for extra in (b"", b', "unknown": null'):
            answer = await door.ask("POST", f"{V3}/topics/t/records:batch", body[:-1] + extra + b"}")
            assert answer.json["failures"] == []
        expected = b'{"n":12345678901234567890.123456789012345,"f":1.10,"e":1e400,"t":"a b\\u00e9"}'
        assert stored(door) == [expected] * 2
        (key,) = {record.key for record in read_batches(door.gateway.log("t").data)}
        assert key == b"0.10000000000000000001"

    with_door(story, gateway())


NEEDS_REGISTRY: tuple[dict[str, Any], ...] = (
    {"type": "AVRO", "data": {"a": 1}},
    {"type": "JSONSCHEMA", "data": 1},
    {"type": "PROTOBUF", "data": 1},
    {"schema_id": 7, "data": {"a": 1}},
    {"type": "JSON", "schema": "{}", "data": 1},
)


@pytest.mark.parametrize("data", NEEDS_REGISTRY, ids=str)
def test_an_entry_that_needs_a_registry_costs_itself_and_not_its_batch(data: dict[str, Any]) -> None:
    good = {"type": "STRING", "data": "x", "schema_id": None, "subject": None}

    async def story(door: Door) -> None:
        entries = [{"id": "1", "value": good}, {"id": "2", "value": data}, {"id": "3", "key": None, "value": good}]
        answer = await door.ask("POST", f"{V3}/topics/t/records:batch", {"entries": entries}, Content_Type=PLAIN)
        assert answer.status == 207, answer.body
        assert [each["id"] for each in answer.json["successes"]] == ["1", "3"]
        (failure,) = answer.json["failures"]
        assert (failure["id"], failure["error_code"]) == ("2", 422)
        assert "schema registry" in failure["message"]
        assert stored(door) == [b"x", b"x"]
        records = b"".join(json.dumps({"value": each}).encode() for each in (good, data, good))
        answer = await door.ask("POST", f"{V3}/topics/t/records", records, Content_Type=PLAIN)
        reported = [json.loads(line) for line in answer.body.splitlines()]
        assert [each["error_code"] for each in reported] == [200, 422, 200]
        assert "schema registry" in reported[1]["message"]
        assert stored(door) == [b"x"] * 4

    with_door(story, gateway())


@pytest.mark.parametrize("charset", ["ISO-8859-1", "iso-8859-1", '"latin1"'])
def test_a_body_in_latin_1_is_read_as_it_declares(charset: str) -> None:
    async def story(door: Door) -> None:
        body = '{"records": [{"value": "Zürich"}]}'.encode("latin-1")
        answer = await door.ask("POST", "/topics/t", body, Content_Type=f"{TEXT}; charset={charset}")
        assert answer.status == 200, answer.body
        plain = f"{PLAIN};charset={charset}"
        batch = '{"entries": [{"id": "1", "value": {"type": "STRING", "data": "Zürich"}}]}'.encode("latin-1")
        answer = await door.ask("POST", f"{V3}/topics/t/records:batch", batch, Content_Type=plain)
        assert answer.status == 207, answer.body
        stream = '{"value": {"type": "STRING", "data": "Zürich"}}'.encode("latin-1")
        answer = await door.ask("POST", f"{V3}/topics/t/records", stream, Content_Type=plain)
        assert answer.json["error_code"] == 200
        assert stored(door) == ["Zürich".encode()] * 3
        refused = await door.ask("POST", "/topics/t", body, Content_Type=f"{JSON}; charset=utf-16")
        assert refused.status == 400
        assert (await door.ask("POST", "/topics/t", body, Content_Type=f"{TEXT}; charset=utf-8")).status == 400

    with_door(story, gateway())


def test_the_strict_profile_takes_utf_8_only() -> None:
    async def story(door: Door) -> None:
        body = b'{"records": [{"value": "YQ=="}]}'
        answer = await door.ask("POST", "/topics/t", body, Content_Type=f"{BINARY}; charset=ISO-8859-1")
        assert answer.status == 415

    with_door(story, gateway(), is_strict=True)


def test_configs_of_several_topics_are_altered_each_alone() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("u")

        def set_to(topic: str, value: Any, name: str = "retention.ms") -> dict[str, Any]:
            return {"topic_name": topic, "configs": [{"name": name, "value": value}]}

        def values() -> list[int]:
            return [door.gateway.topic_settings(topic).retention_ms for topic in ("t", "u")]

        path = f"{V3}/topics/-/configs:alter"
        assert (await door.ask("POST", path, {"data": [set_to("t", "5000"), set_to("u", 6000)]})).status == 204
        assert values() == [5_000, 6_000]
        checked = await door.ask("POST", path, {"data": [set_to("t", "1")], "validate_only": True})
        assert (checked.status, values()) == (204, [5_000, 6_000])
        unknown = await door.ask("POST", path, {"data": [set_to("t", "7"), set_to("u", "7", "retentoin.ms")]})
        assert (unknown.status, unknown.json["error_code"], values()) == (404, 404, [5_000, 6_000])
        assert "retention.ms" in unknown.json["message"]
        twice = await door.ask("POST", path, {"data": [set_to("t", "7"), set_to("t", "8")]})
        assert (twice.status, twice.json["error_code"], values()) == (400, 40002, [5_000, 6_000])
        gone = await door.ask("POST", path, {"data": [set_to("u", "7"), set_to("gone", "7")]})
        assert (gone.status, gone.json["error_code"], values()) == (404, 40403, [5_000, 6_000])

    with_door(story, gateway())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"topic_name": 1}, 400),
        ({"topic_name": "new", "partitions_count": "many"}, 400),
        ({"topic_name": "new", "configs": {}}, 400),
        ([], 400),
        ({}, 400),
        ({"topic_name": "new", "colour": "red"}, 422),
        ({"colour": "red"}, 400),
    ],
    ids=str,
)
def test_a_v3_body_of_another_shape_is_400_and_an_unknown_field_422(body: Any, status: int) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", f"{V3}/topics", body, Content_Type=PLAIN)
        assert (answer.status, answer.json["error_code"]) == (status, status)

    with_door(story, gateway())


def test_offsets_are_named_in_full() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{V3}/topics/t/partitions/0/offset")
        assert answer.json["metadata"]["resource_name"] == (
            "crn:///kafka=test-cluster/topic=t/partition=0/offset_type=earliest_and_latest"
        )

    with_door(story, gateway())
