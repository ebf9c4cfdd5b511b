"""Settings for clients: described with their sources, changed as asked or refused with Kafka's codes."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from types import SimpleNamespace
from uuid import UUID

import pytest

from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import NotController
from kraft.protocol.messages import alter_configs_request as replacing
from kraft.protocol.messages import incremental_alter_configs_request as incremental
from kraft.protocol.messages.alter_configs_response import AlterConfigsResponseData
from kraft.protocol.messages.describe_configs_request import DescribeConfigsRequestData, DescribeConfigsResource
from kraft.protocol.messages.describe_configs_response import (
    DescribeConfigsResourceResult,
    DescribeConfigsResponseData,
    DescribeConfigsResult,
)
from kraft.protocol.messages.get_telemetry_subscriptions_request import GetTelemetrySubscriptionsRequestData
from kraft.protocol.messages.get_telemetry_subscriptions_response import GetTelemetrySubscriptionsResponseData
from kraft.protocol.messages.incremental_alter_configs_response import IncrementalAlterConfigsResponseData
from kraft.protocol.messages.list_config_resources_request import ListConfigResourcesRequestData
from kraft.protocol.messages.list_config_resources_response import ListConfigResourcesResponseData
from kraft.protocol.messages.push_telemetry_request import PushTelemetryRequestData
from kraft.protocol.messages.push_telemetry_response import PushTelemetryResponseData
from kraft.wire.handlers import client_metrics, configs
from kraft.wire.handlers.configs import BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource
from metadata.records import ConfigRecord
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World

NEWEST = 4
SET, DELETE, APPEND, SUBTRACT = range(4)


def client(**static: str) -> AdminClient:
    world = World(**static)
    world.start(1, 2, 3)
    world.create("t", (1, 2), retention_ms="5000")
    return AdminClient(configs.apis, world)


def describe(
    admin: AdminClient,
    resource_type: int,
    name: str,
    *,
    version: int = NEWEST,
    keys: list[str] | None = None,
    documentation: bool = False,
) -> DescribeConfigsResult:
    resource = DescribeConfigsResource.make(resource_type=resource_type, resource_name=name, configuration_keys=keys)
    request = DescribeConfigsRequestData.make(
        resources=[resource], include_synonyms=True, include_documentation=documentation
    )
    [result] = admin.ask(request, version, DescribeConfigsResponseData).results
    assert (result.resource_type, result.resource_name) == (resource_type, name)
    return result


def entries(result: DescribeConfigsResult) -> Mapping[str, DescribeConfigsResourceResult]:
    assert (result.error_code, result.error_message) == (0, None)
    return {config.name: config for config in result.configs}


def sources(config: DescribeConfigsResourceResult) -> list[tuple[str, str | None, int]]:
    return [(each.name, each.value, each.source) for each in config.synonyms]


@pytest.mark.parametrize("version", range(1, 5))
def test_a_topic_is_described(version: int) -> None:
    admin = client(log_segment_bytes="5000")
    found = entries(describe(admin, TOPIC, "t", version=version))
    assert (found["retention.ms"].value, found["retention.ms"].config_source) == ("5000", 1)
    assert sources(found["retention.ms"]) == [
        ("retention.ms", "5000", 1),
        ("log.retention.ms", "604800000", 5),
    ]
    assert (found["segment.bytes"].value, found["segment.bytes"].config_source) == ("5000", 4)
    assert (found["cleanup.policy"].value, found["cleanup.policy"].config_source) == ("delete", 5)
    assert not any(config.read_only or config.is_sensitive for config in found.values())
    types = {name: found[name].config_type for name in ("preallocate", "retention.ms", "segment.bytes")}
    types |= {name: found[name].config_type for name in ("min.cleanable.dirty.ratio", "cleanup.policy", "flush.ms")}
    expected = {
        "preallocate": 1,
        "retention.ms": 5,
        "segment.bytes": 3,
        "min.cleanable.dirty.ratio": 6,
        "cleanup.policy": 7,
        "flush.ms": 5,
    }
    assert types == (expected if version >= 3 else dict.fromkeys(expected, 0))


def test_only_what_is_asked_for_is_named_and_documented() -> None:
    admin = client()
    found = entries(describe(admin, TOPIC, "t", keys=["flush.ms", "no.such.thing"], documentation=True))
    assert list(found) == ["flush.ms"]
    assert found["flush.ms"].documentation
    assert entries(describe(admin, TOPIC, "t"))["flush.ms"].documentation is None
    assert len(entries(describe(admin, TOPIC, "t", keys=[]))) > 20, "an empty list names all of them"


def test_a_broker_is_described_by_itself() -> None:
    admin = client(num_partitions="4")
    everybody, one = ConfigResource(resource_type="broker", name=""), ConfigResource(resource_type="broker", name="1")
    for resource, value in ((everybody, "20000"), (one, "30000")):
        change = ConfigAlteration(name="log.retention.ms", operation="set", value=value)
        admin.gateway.world.decide(AlterConfigs(resources={resource: (change,)}))
    found = entries(describe(admin, BROKER, "1"))
    assert sources(found["log.retention.ms"]) == [
        ("log.retention.ms", "30000", 2),
        ("log.retention.ms", "20000", 3),
        ("log.retention.ms", "604800000", 5),
    ]
    assert (found["num.partitions"].value, found["num.partitions"].config_source) == ("4", 4)
    read_only = {name for name, config in found.items() if config.read_only}
    assert read_only >= {"socket.request.max.bytes", "num.partitions", "auto.create.topics.enable"}
    assert not read_only & {"log.retention.ms", "min.insync.replicas", "background.threads", "max.connections"}
    default = entries(describe(admin, BROKER, ""))
    assert list(default) == ["log.retention.ms"]
    assert sources(default["log.retention.ms"]) == [("log.retention.ms", "20000", 3)]


def test_a_broker_without_a_rack_is_described_with_none() -> None:
    rack = entries(describe(client(), BROKER, "1"))["broker.rack"]
    assert (rack.value, rack.config_source, sources(rack), rack.read_only) == (None, 5, [], True)
    assert "broker.rack" not in entries(describe(client(), BROKER, "")), "the cluster's list has only what was set"


def test_a_static_value_stays_among_the_synonyms_below_a_dynamic_one() -> None:
    admin = client(log_retention_ms="7000")
    assert change(admin, (BROKER, "1", [("log.retention.ms", SET, "8000")])) == [(BROKER, "1", 0)]
    assert sources(entries(describe(admin, BROKER, "1"))["log.retention.ms"]) == [
        ("log.retention.ms", "8000", 2),
        ("log.retention.ms", "7000", 4),
        ("log.retention.ms", "604800000", 5),
    ]


def test_a_stored_value_that_is_not_applied_is_shown_behind_the_one_that_is() -> None:
    admin = client(num_partitions="4")
    stored = ConfigRecord(resource_type="broker", resource_name="", name="num.partitions", value="9")
    admin.gateway.world.image = admin.gateway.world.image.apply([stored])
    found = entries(describe(admin, BROKER, "1"))["num.partitions"]
    assert (found.value, found.config_source, found.read_only) == ("4", 4, True)
    assert sources(found)[-1] == ("num.partitions", "9", 3)
    assert entries(describe(admin, BROKER, ""))["num.partitions"].value == "9"
    assert admin.gateway.settings.num_partitions == 4
    assert change(admin, (BROKER, "", [("num.partitions", DELETE, None)])) == [(BROKER, "", 0)]
    assert not entries(describe(admin, BROKER, ""))


# --- client metrics (KIP-714) ---------------------------------------------------------------------------------------


def metrics_client() -> AdminClient:
    admin = client()
    return AdminClient(
        lambda broker: [*configs.apis(broker), *client_metrics.apis(broker)],
        admin.gateway.world,
        environment=SimpleNamespace(rng=random.Random(1)),
    )


def subscriptions(admin: AdminClient, instance: UUID = ZERO_UUID) -> GetTelemetrySubscriptionsResponseData:
    request = GetTelemetrySubscriptionsRequestData.make(client_instance_id=instance)
    return admin.ask(request, 0, GetTelemetrySubscriptionsResponseData)


def test_client_metrics_are_stored_described_and_listed() -> None:
    admin = metrics_client()
    wanted: list[tuple[str, int, str | None]] = [("interval.ms", SET, "60000"), ("metrics", SET, "org.apache.")]
    assert change(admin, (CLIENT_METRICS, "s", wanted)) == [(CLIENT_METRICS, "s", 0)]
    found = entries(describe(admin, CLIENT_METRICS, "s"))
    assert sources(found["interval.ms"]) == [("interval.ms", "60000", 7)]
    assert (found["match"].config_source, sources(found["match"])) == (5, [])
    assert [config.config_type for _, config in sorted(found.items())] == [3, 7, 7]
    assert entries(describe(admin, CLIENT_METRICS, "nobody"))["interval.ms"].value == "300000"
    answer = admin.ask(ListConfigResourcesRequestData.make(), 0, ListConfigResourcesResponseData)
    assert [each.resource_name for each in answer.config_resources] == ["s"]


def test_client_telemetry_subscription_and_push() -> None:
    admin = metrics_client()
    nothing = subscriptions(admin)
    assert (nothing.error_code, nothing.push_interval_ms, list(nothing.requested_metrics)) == (0, 300_000, [])
    assert nothing.client_instance_id != ZERO_UUID
    for name, match in (("mine", "client_id=adm.*,client_source_address=127\\..*"), ("other", "client_id=x")):
        wanted: list[tuple[str, int, str | None]] = [("metrics", SET, name), ("match", SET, match)]
        wanted.append(("interval.ms", SET, "1000"))
        assert change(admin, (CLIENT_METRICS, name, wanted)) == [(CLIENT_METRICS, name, 0)]
    reported = subscriptions(admin, nothing.client_instance_id)
    assert (reported.push_interval_ms, list(reported.requested_metrics)) == (1_000, ["mine"])
    assert reported.client_instance_id == nothing.client_instance_id
    push = PushTelemetryRequestData.make(
        client_instance_id=reported.client_instance_id, subscription_id=reported.subscription_id, metrics=b"any"
    )
    assert admin.ask(push, 0, PushTelemetryResponseData).error_code == 0
    old = PushTelemetryRequestData.make(
        client_instance_id=reported.client_instance_id, subscription_id=nothing.subscription_id
    )
    assert admin.ask(old, 0, PushTelemetryResponseData).error_code == 117
    assert admin.ask(PushTelemetryRequestData.make(), 0, PushTelemetryResponseData).error_code == 42


@pytest.mark.parametrize(
    ("resource_type", "name", "code"),
    [
        (TOPIC, "none", 3),
        (TOPIC, "a b", 17),
        (TOPIC, "", 17),
        (BROKER, "2", 42),
        (BROKER, "two", 42),
        (BROKER, "01", 42),
        (BROKER_LOGGER, "2", 42),
        (BROKER_LOGGER, "", 42),
        (GROUP, "", 42),
        (CLIENT_METRICS, "", 42),
        (77, "x", 42),
    ],
)
def test_what_cannot_be_described_is_refused_in_words(resource_type: int, name: str, code: int) -> None:
    result = describe(client(), resource_type, name)
    assert (result.error_code, list(result.configs)) == (code, [])
    assert result.error_message


# --- IncrementalAlterConfigs ----------------------------------------------------------------------------------------


def change(
    admin: AdminClient,
    *resources: tuple[int, str, list[tuple[str, int, str | None]]],
    version: int = 1,
    validate_only: bool = False,
) -> list[tuple[int, str, int]]:
    request = incremental.IncrementalAlterConfigsRequestData.make(
        resources=[
            incremental.AlterConfigsResource.make(
                resource_type=number,
                resource_name=name,
                configs=[
                    incremental.AlterableConfig.make(name=key, config_operation=operation, value=value)
                    for key, operation, value in changes
                ],
            )
            for number, name, changes in resources
        ],
        validate_only=validate_only,
    )
    answer = admin.ask(request, version, IncrementalAlterConfigsResponseData)
    assert all(bool(each.error_code) == bool(each.error_message) for each in answer.responses)
    return [(each.resource_type, each.resource_name, each.error_code) for each in answer.responses]


@pytest.mark.parametrize("version", [0, 1])
def test_settings_are_changed_one_by_one(version: int) -> None:
    admin = client()
    changes: list[tuple[str, int, str | None]] = [
        ("flush.ms", SET, "9"),
        ("retention.ms", DELETE, None),
        ("cleanup.policy", APPEND, "compact"),
    ]
    broker: list[tuple[str, int, str | None]] = [("log.retention.ms", SET, "7")]
    assert change(admin, (TOPIC, "t", changes), (BROKER, "", broker), (BROKER, "2", broker), version=version) == [
        (TOPIC, "t", 0),
        (BROKER, "", 0),
        (BROKER, "2", 0),
    ]
    image = admin.gateway.image
    assert image.config("topic", "t") == {"flush.ms": "9", "cleanup.policy": "delete,compact"}
    assert image.config("broker", "") == image.config("broker", "2") == {"log.retention.ms": "7"}
    assert change(admin, (TOPIC, "t", [("cleanup.policy", SUBTRACT, "delete")])) == [(TOPIC, "t", 0)]
    assert admin.gateway.image.config("topic", "t")["cleanup.policy"] == "compact"


def test_what_is_named_many_times_is_described_once() -> None:
    resources = [DescribeConfigsResource.make(resource_type=BROKER, resource_name="1") for _ in range(100)]
    resources.append(DescribeConfigsResource.make(resource_type=TOPIC, resource_name="t"))
    answer = client().ask(DescribeConfigsRequestData.make(resources=resources), 4, DescribeConfigsResponseData)
    assert [(each.resource_type, each.resource_name) for each in answer.results] == [(BROKER, "1"), (TOPIC, "t")]


def test_a_group_has_settings_of_its_own_whether_there_is_one_or_not() -> None:
    admin = client(group_consumer_heartbeat_interval_ms="6000")
    session, beat = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
    found = entries(describe(admin, GROUP, "g"))
    others = {"consumer.assignment.interval.ms": "1000", "consumer.assignor.offload.enable": "true"}
    shown = {name: config.value for name, config in found.items() if name.startswith("consumer.")}
    assert shown == {session: "45000", beat: "6000", **others}
    share = {"share.session.timeout.ms", "share.heartbeat.interval.ms", "share.assignment.interval.ms"}
    assert [found[name].value for name in sorted(share)] == ["1000", "5000", "45000"]
    assert {name: config.value for name, config in found.items() if name.startswith("share.")}.items() >= {
        "share.auto.offset.reset": "latest",
        "share.delivery.count.limit": "5",
        "share.isolation.level": "read_uncommitted",
        "share.partition.max.record.locks": "2000",
        "share.record.lock.duration.ms": "30000",
        "share.renew.acknowledge.enable": "true",
    }.items()
    assert sources(found[beat]) == [
        ("group.consumer.heartbeat.interval.ms", "6000", 4),
        ("group.consumer.heartbeat.interval.ms", "5000", 5),
    ]
    assert not found[session].read_only
    changes: list[tuple[str, int, str | None]] = [(session, SET, "60000"), (beat, SET, "15000")]
    assert change(admin, (GROUP, "g", changes)) == [(GROUP, "g", 0)]
    found = entries(describe(admin, GROUP, "g"))
    assert (found[session].value, found[session].config_source) == ("60000", 8)
    assert sources(found[beat])[0] == (beat, "15000", 8)
    assert entries(describe(admin, GROUP, "other"))[session].value == "45000"
    answer = admin.ask(ListConfigResourcesRequestData.make(resource_types=[GROUP]), 1, ListConfigResourcesResponseData)
    assert [(each.resource_type, each.resource_name) for each in answer.config_resources] == [(GROUP, "g")]
    back: list[tuple[str, int, str | None]] = [(session, DELETE, None), (beat, DELETE, None)]
    assert change(admin, (GROUP, "g", back)) == [(GROUP, "g", 0)]
    assert not admin.gateway.image.config("group", "g")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("share.session.timeout.ms", "45000"),
        ("share.session.timeout.ms", "60000"),
        ("share.heartbeat.interval.ms", "15000"),
        ("share.record.lock.duration.ms", "15000"),
        ("share.record.lock.duration.ms", "60000"),
        ("share.delivery.count.limit", "2"),
        ("share.delivery.count.limit", "10"),
        ("share.partition.max.record.locks", "100"),
        ("share.partition.max.record.locks", "4000"),
        ("share.assignment.interval.ms", "0"),
        ("share.assignment.interval.ms", "15000"),
        ("share.auto.offset.reset", "earliest"),
        ("share.auto.offset.reset", "by_duration:P1DT2H3M4.5S"),
        ("share.isolation.level", "read_committed"),
        ("share.renew.acknowledge.enable", "false"),
    ],
)
def test_a_share_group_has_settings_up_to_their_bounds(name: str, value: str) -> None:
    admin = client()
    assert change(admin, (GROUP, "g", [(name, SET, value)])) == [(GROUP, "g", 0)]
    found = entries(describe(admin, GROUP, "g"))[name]
    assert (found.value, found.config_source) == (value, 8)


def test_validated_settings_are_not_changed() -> None:
    admin = client()
    assert change(admin, (TOPIC, "t", [("flush.ms", SET, "9")]), validate_only=True) == [(TOPIC, "t", 0)]
    assert change(admin, (TOPIC, "t", [("flush.ms", SET, "x")]), validate_only=True) == [(TOPIC, "t", 40)]
    assert admin.gateway.image.config("topic", "t") == {"retention.ms": "5000"}


@pytest.mark.parametrize(
    ("number", "name", "changes", "code"),
    [
        (TOPIC, "none", [("flush.ms", SET, "9")], 3),
        (TOPIC, "t", [("flush.m", SET, "9")], 40),
        (TOPIC, "t", [("flush.ms", APPEND, "9")], 40),
        (TOPIC, "t", [("flush.ms", SET, None)], 42),
        (TOPIC, "t", [("flush.ms", 9, "9")], 42),
        (TOPIC, "t", [("flush.ms", SET, "9"), ("flush.ms", DELETE, None)], 42),
        (BROKER, "9", [("log.retention.ms", SET, "9")], 102),
        (BROKER, "one", [("log.retention.ms", SET, "9")], 42),
        (BROKER, "1", [("num.partitions", SET, "9")], 42),
        (BROKER, "1", [("security.inter.broker.protocol", SET, "PLAINTEXT")], 42),
        (BROKER, "1", [("nobody.knows.it", SET, "9")], 40),
        (CLIENT_METRICS, "", [("interval.ms", SET, "60000")], 42),
        (CLIENT_METRICS, "m", [("interval.ms", SET, "5")], 42),
        (CLIENT_METRICS, "m", [("interval.ms", SET, "x")], 40),
        (CLIENT_METRICS, "m", [("interval", SET, "60000")], 42),
        (CLIENT_METRICS, "m", [("match", SET, "client_id=a,shoe_size=9")], 40),
        (CLIENT_METRICS, "m", [("match", SET, "client_software_name=[")], 40),
        (GROUP, "g", [("consumer.session.timeout.ms", SET, "9")], 40),
        (GROUP, "g", [("consumer.session.timeout.ms", SET, "60001")], 40),
        (GROUP, "g", [("consumer.heartbeat.interval.ms", SET, "4999")], 40),
        (GROUP, "g", [("consumer.heartbeat.interval.ms", SET, "x")], 40),
        (GROUP, "g", [("consumer.heartbeat.interval.ms", APPEND, "6000")], 40),
        (GROUP, "g", [("share.session.timeout.ms", SET, "44999")], 40),
        (GROUP, "g", [("share.session.timeout.ms", SET, "60001")], 40),
        (GROUP, "g", [("share.heartbeat.interval.ms", SET, "15001")], 40),
        (GROUP, "g", [("share.assignment.interval.ms", SET, "15001")], 40),
        (GROUP, "g", [("share.session.timeout.ms", SET, "x")], 40),
        (GROUP, "g", [("share.heartbeat.interval.ms", SET, "4999")], 40),
        (GROUP, "g", [("share.record.lock.duration.ms", SET, "14999")], 40),
        (GROUP, "g", [("share.record.lock.duration.ms", SET, "60001")], 40),
        (GROUP, "g", [("share.record.expiry.ms", SET, "-1")], 40),
        (GROUP, "g", [("share.record.expiry.ms", SET, "9" * 30)], 40),
        (GROUP, "g", [("share.retry.backoff.ms", SET, "-1")], 40),
        (GROUP, "g", [("share.retry.backoff.ms", SET, "1.5")], 40),
        (GROUP, "g", [("share.retry.backoff.ms", SET, "300001")], 40),
        (GROUP, "g", [("share.retry.backoff.max.ms", SET, "43200001")], 40),
        (GROUP, "g", [("share.delivery.count.limit", SET, "1")], 40),
        (GROUP, "g", [("share.delivery.count.limit", SET, "11")], 40),
        (GROUP, "g", [("share.partition.max.record.locks", SET, "99")], 40),
        (GROUP, "g", [("share.partition.max.record.locks", SET, "4001")], 40),
        (GROUP, "g", [("share.assignment.interval.ms", SET, "-1")], 40),
        (GROUP, "g", [("share.auto.offset.reset", SET, "none")], 40),
        (GROUP, "g", [("share.auto.offset.reset", SET, "by_duration:-PT1S")], 40),
        (GROUP, "g", [("share.auto.offset.reset", SET, "by_duration:P1M")], 40),
        (GROUP, "g", [("share.isolation.level", SET, "serializable")], 40),
        (GROUP, "g", [("share.renew.acknowledge.enable", SET, "yes")], 40),
        (GROUP, "g", [("streams.session.timeout.ms", SET, "45000")], 40),
        (GROUP, "g", [("flush.ms", SET, "9")], 40),
        (GROUP, "", [("consumer.session.timeout.ms", SET, "50000")], 42),
        (99, "x", [], 42),
    ],
)
def test_a_refused_change_does_not_hinder_the_others(
    number: int, name: str, changes: list[tuple[str, int, str | None]], code: int
) -> None:
    admin = client()
    admin.gateway.world.create("other", (1,))
    fine: list[tuple[str, int, str | None]] = [("flush.ms", SET, "9")]
    assert change(admin, (number, name, changes), (TOPIC, "other", fine)) == [(number, name, code), (TOPIC, "other", 0)]
    assert admin.gateway.image.config("topic", "other") == {"flush.ms": "9"}
    assert admin.gateway.image.config("topic", "t") == {"retention.ms": "5000"}


def test_a_resource_named_twice_is_not_changed() -> None:
    admin = client()
    fine: list[tuple[str, int, str | None]] = [("flush.ms", SET, "9")]
    assert change(admin, (TOPIC, "t", fine), (TOPIC, "t", fine)) == [(TOPIC, "t", 42)] * 2
    assert admin.gateway.image.config("topic", "t") == {"retention.ms": "5000"}


def test_settings_named_twice_in_a_resource_are_not_changed() -> None:
    admin = client()
    twice: list[tuple[str, int, str | None]] = [("flush.ms", SET, "9"), ("flush.ms", DELETE, None)]
    assert change(admin, (TOPIC, "t", twice), (BROKER, "", twice)) == [(TOPIC, "t", 42), (BROKER, "", 42)]
    repeated = replacing.AlterConfigsResource.make(
        resource_type=TOPIC,
        resource_name="t",
        configs=[replacing.AlterableConfig.make(name="flush.ms", value=value) for value in ("1", "2")],
    )
    answer = admin.ask(replacing.AlterConfigsRequestData.make(resources=[repeated]), 2, AlterConfigsResponseData)
    assert [each.error_code for each in answer.responses] == [42]
    assert admin.gateway.image.config("topic", "t") == {"retention.ms": "5000"}


def test_each_resource_receives_that_there_is_no_controller() -> None:
    admin = client()
    admin.gateway.unreachable = NotController("none")
    fine: list[tuple[str, int, str | None]] = [("flush.ms", SET, "9")]
    assert change(admin, (TOPIC, "t", fine), (BROKER, "", fine)) == [(TOPIC, "t", 41), (BROKER, "", 41)]
    assert replace(admin, ("t", {"flush.ms": "1"})) == [("t", 41)]


# --- AlterConfigs ---------------------------------------------------------------------------------------------------


def replace(
    admin: AdminClient, *topics: tuple[str, Mapping[str, str | None]], version: int = 2, validate_only: bool = False
) -> list[tuple[str, int]]:
    request = replacing.AlterConfigsRequestData.make(
        resources=[
            replacing.AlterConfigsResource.make(
                resource_type=TOPIC,
                resource_name=name,
                configs=[replacing.AlterableConfig.make(name=key, value=value) for key, value in wanted.items()],
            )
            for name, wanted in topics
        ],
        validate_only=validate_only,
    )
    answer = admin.ask(request, version, AlterConfigsResponseData)
    assert all(bool(each.error_code) == bool(each.error_message) for each in answer.responses)
    return [(each.resource_name, each.error_code) for each in answer.responses]


@pytest.mark.parametrize("version", range(3))
def test_all_settings_are_replaced(version: int) -> None:
    admin = client()
    assert replace(admin, ("t", {"flush.ms": "9"}), version=version, validate_only=True) == [("t", 0)]
    assert admin.gateway.image.config("topic", "t") == {"retention.ms": "5000"}
    assert replace(admin, ("t", {"flush.ms": "9"}), version=version) == [("t", 0)]
    assert admin.gateway.image.config("topic", "t") == {"flush.ms": "9"}


@pytest.mark.parametrize(("wanted", "code"), [({"flush.ms": None}, 42), ({"flush.ms": "x"}, 40), ({"flush": "1"}, 40)])
def test_a_refused_replacement_keeps_what_was_set(wanted: Mapping[str, str | None], code: int) -> None:
    admin = client()
    assert replace(admin, ("t", wanted), ("none", {})) == [("t", code), ("none", 3)]
    assert replace(admin, ("t", {}), ("t", {})) == [("t", 42)] * 2
    assert admin.gateway.image.config("topic", "t") == {"retention.ms": "5000"}


# --- loggers --------------------------------------------------------------------------------------------------------


def test_levels_of_loggers_are_shown_set_and_taken_away() -> None:
    admin = client()
    logger = logging.getLogger("kraft.wire.session")
    before = entries(describe(admin, BROKER_LOGGER, "1"))
    assert before["root"].value in ("WARN", "INFO", "DEBUG", "ERROR")
    assert before[logger.name].config_source == 6
    assert change(admin, (BROKER_LOGGER, "1", [(logger.name, SET, "TRACE")]), validate_only=True)[0][2] == 0
    assert logger.level == logging.NOTSET
    try:
        assert change(admin, (BROKER_LOGGER, "1", [(logger.name, SET, "DEBUG")])) == [(BROKER_LOGGER, "1", 0)]
        assert logger.level == logging.DEBUG
        assert entries(describe(admin, BROKER_LOGGER, "1"))[logger.name].value == "DEBUG"
        assert change(admin, (BROKER_LOGGER, "1", [(logger.name, DELETE, None)])) == [(BROKER_LOGGER, "1", 0)]
        assert logger.level == logging.NOTSET
    finally:
        logger.setLevel(logging.NOTSET)
    assert not admin.gateway.asked, "loggers are this node's own"


@pytest.mark.parametrize(
    ("broker", "changes", "code"),
    [
        ("2", [("root", SET, "INFO")], 42),
        ("1", [("root", SET, "LOUD")], 40),
        ("1", [("no.such.logger", SET, "INFO")], 40),
        ("1", [("root", DELETE, None)], 42),
        ("1", [("root", APPEND, "INFO")], 42),
        ("1", [("root", SET, "INFO"), ("root", SET, "ERROR")], 42),
    ],
)
def test_levels_are_refused_in_words(broker: str, changes: list[tuple[str, int, str | None]], code: int) -> None:
    before = logging.root.level
    assert change(client(), (BROKER_LOGGER, broker, changes)) == [(BROKER_LOGGER, broker, code)]
    assert logging.root.level == before


# --- ListConfigResources --------------------------------------------------------------------------------------------


def test_resources_are_listed_by_type() -> None:
    admin = client()
    admin.gateway.world.decide_fence(3)

    def listed(*types: int, version: int = 1) -> tuple[int, list[tuple[int, str]]]:
        request = ListConfigResourcesRequestData.make(resource_types=types)
        answer = admin.ask(request, version, ListConfigResourcesResponseData)
        return answer.error_code, [(each.resource_type, each.resource_name) for each in answer.config_resources]

    assert listed(TOPIC, BROKER) == (0, [(TOPIC, "t"), (BROKER, "1"), (BROKER, "2")])
    assert len(listed()[1]) == 5
    assert listed(TOPIC, 99) == (35, [])
    assert listed(version=0) == (0, [])
