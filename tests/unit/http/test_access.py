"""HTTP routes are checked against the ACLs, and a request sees only what its principal may describe."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any
from uuid import UUID

import pytest

from kraft.events import EventRing
from kraft.http.access_table import ROUTE_ACCESS
from kraft.http.app import CONTEXT, ROUTES
from kraft.http.console.live import live_routes
from kraft.http.endpoint import Route
from kraft.http.events import event_routes
from kraft.http.explain import explain_routes
from kraft.http.explain_coordinated import coordinated_routes
from kraft.http.replicas import replica_routes
from kraft.http.users import user_routes
from kraft.http.v2.consumers_routes import consumer_routes
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.consumer_groups import group_routes
from kraft.http.v3.produce_route import route_produce_routes
from kraft.http.v3.share_groups import share_group_routes
from kraft.http.v3.share_records import share_record_routes
from kraft.http.v3.transactions import transaction_admin_routes
from metadata.acls import CLUSTER_NAME, AclOperation, AclPattern, AclPermission, AclResource
from metadata.controller.requests import CreateAcls, CreateTopics, DeleteAcls
from metadata.image import TopicIdPartition
from metadata.records import AccessControlEntryRecord, ClientQuotaRecord, RemoveAccessControlEntryRecord
from replication.manager.status import ReplicaStatus
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, V3, Door, with_door

STANDARD = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}
TOPIC, CLUSTER = AclResource.TOPIC, AclResource.CLUSTER
NOTHING: Any = None
VALUE = {"records": [{"value": 1}]}


def gateway(**static: Any) -> FakeGateway:
    fake = FakeGateway(static={**STANDARD, **static})
    fake.add_topic("mine", 1)
    fake.add_topic("theirs", 1)
    return fake


def allow(fake: FakeGateway, operation: AclOperation, name: str = "mine", resource: AclResource = TOPIC) -> UUID:
    acl_id = UUID(int=fake.image.next_offset)
    fake.apply(
        AccessControlEntryRecord(
            id=acl_id,
            resource_type=resource,
            resource_name=name,
            pattern_type=AclPattern.LITERAL,
            principal="User:ANONYMOUS",
            host="*",
            operation=operation,
            permission_type=AclPermission.ALLOW,
        )
    )
    return acl_id


def more_routes() -> tuple[Route, ...]:
    return (
        *consumer_routes(NOTHING, random.Random(1)),
        *transaction_routes(NOTHING, NOTHING),
        *transaction_admin_routes(NOTHING, NOTHING),
        *route_produce_routes(NOTHING),
        *group_routes(NOTHING),
        *share_record_routes(NOTHING),
        *share_group_routes(NOTHING, NOTHING),
        *user_routes(NOTHING, NOTHING),
        *replica_routes(dict),
        *event_routes(EventRing(lambda: 0), incarnation="i"),
        *live_routes(NOTHING, lambda scope: NOTHING),
        *explain_routes(NOTHING, NOTHING),
        *coordinated_routes(NOTHING, NOTHING, NOTHING),
    )


def test_every_route_has_a_row_and_is_refused_without_acls() -> None:
    """What a row leaves to the gateway answers as if there were no topics."""
    fake = gateway()

    async def story(door: Door) -> None:
        routes = door.app[ROUTES]
        assert {f"{route.method} {route.path}" for route in routes} == set(ROUTE_ACCESS)
        for route in routes:
            row = ROUTE_ACCESS[f"{route.method} {route.path}"]
            path = route.path.replace("{cluster_id}", "test-cluster")
            for name in ("partition", "broker_id", "offset"):
                path = path.replace("{" + name + "}", "0")
            path = re.sub(r"{\w+}", "mine", path)
            if row.needs:
                answer = await door.ask(route.method, path)
                assert (answer.status, answer.json["error_code"]) == (403, 40301), route

    with_door(story, fake, extra_routes=more_routes())
    assert fake.requests == []
    assert fake.produced == []


def test_a_route_without_a_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: row for name, row in ROUTE_ACCESS.items() if name != "GET /brokers"}
    monkeypatch.setattr("kraft.http.access_table.ROUTE_ACCESS", rows)

    async def story(door: Door) -> None:
        assert (await door.ask("GET", "/brokers")).status == 403
        assert (await door.ask("GET", "/readyz")).status == 200

    with_door(story, gateway())


def test_lists_show_what_may_be_described() -> None:
    fake = gateway()
    allow(fake, AclOperation.READ)

    async def story(door: Door) -> None:
        assert (await door.ask("GET", "/topics")).json == ["mine"]
        assert [each["topic_name"] for each in (await door.ask("GET", f"{V3}/topics")).json["data"]] == ["mine"]
        assert (await door.ask("GET", f"{V3}/topics/-/configs")).json["data"] == []
        assert (await door.ask("GET", f"{V3}/topics/theirs")).status == 403
        assert (await door.ask("GET", f"{V3}/topics/absent")).status == 403

    with_door(story, fake)


def test_topics_list_what_the_client_may_do_when_it_asks() -> None:
    fake = gateway()
    allow(fake, AclOperation.READ)
    allow(fake, AclOperation.ALTER_CONFIGS)

    async def story(door: Door) -> None:
        for path, of in ((f"{V3}/topics", lambda found: found["data"][0]), (f"{V3}/topics/mine", lambda found: found)):
            assert of((await door.ask("GET", path)).json)["authorized_operations"] == []
            found = of((await door.ask("GET", f"{path}?include_authorized_operations=true")).json)
            assert found["authorized_operations"] == ["READ", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"]

    with_door(story, fake)


def test_without_an_authorizer_a_topic_has_all_operations() -> None:
    fake = FakeGateway()
    fake.add_topic("mine", 1)

    async def story(door: Door) -> None:
        found = (await door.ask("GET", f"{V3}/topics/mine?include_authorized_operations=true")).json
        assert found["authorized_operations"] == [
            "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS",
        ]  # fmt: skip

    with_door(story, fake)


def replica(topic: str) -> ReplicaStatus:
    return ReplicaStatus(
        topic=topic, partition=0, is_leader=True, leader=1, leader_epoch=0, partition_epoch=0, log_start_offset=0,
        log_end_offset=1, high_watermark=1, isr=(1,), maximal_isr=(1,), replicas=(1,), lag={}, size_bytes=0,
    )  # fmt: skip


def test_a_node_shows_its_replicas_of_topics_that_may_be_described() -> None:
    fake = gateway()
    for name, resource in ((CLUSTER_NAME, CLUSTER), ("mine", TOPIC)):
        allow(fake, AclOperation.DESCRIBE, name, resource)
    replicas = {TopicIdPartition(topic.topic_id, 0): replica(topic.name) for topic in fake.image.topics.values()}

    async def story(door: Door) -> None:
        found = (await door.ask("GET", "/kraft/partitions")).json
        assert [each["topic"] for each in (*found["partitions"], *found["replicas"])] == ["mine", "mine"]

    with_door(story, fake, extra_routes=replica_routes(lambda: replicas))


async def produce(door: Door, topic: str) -> int:
    return (await door.ask("POST", f"/topics/{topic}", VALUE, Content_Type=JSON)).status


def test_produce_and_read_until_the_acl_goes() -> None:
    """An open connection is refused at its next request."""
    fake = gateway()
    reads, writes = allow(fake, AclOperation.READ), allow(fake, AclOperation.WRITE)
    records = "/topics/mine/partitions/0/records?offset=0"

    async def story(door: Door) -> None:
        assert (await produce(door, "mine"), await produce(door, "theirs")) == (200, 403)
        assert (await door.ask("GET", records, Accept=BINARY)).status == 200
        fake.apply(RemoveAccessControlEntryRecord(id=writes))
        assert await produce(door, "mine") == 403
        assert (await door.ask("GET", records, Accept=BINARY)).status == 200
        fake.apply(RemoveAccessControlEntryRecord(id=reads))
        assert (await door.ask("GET", records, Accept=BINARY)).status == 403

    with_door(story, fake)


def test_what_waits_ends_soon_after_its_acl_has_gone() -> None:
    """Long polls with the error, streams with an event that has it."""
    fake = gateway()
    reads = allow(fake, AclOperation.READ)

    async def story(door: Door) -> None:
        polls = "/topics/mine/partitions/0/records?offset=0&timeout=60000&min_bytes=1"
        poll = asyncio.ensure_future(door.ask("GET", polls, Accept=BINARY))
        streams = [
            asyncio.ensure_future(door.ask("GET", path, Accept="application/x-ndjson"))
            for path in ("/topics/mine/records", "/topics/mine/partitions/0/records")
        ]
        async with asyncio.timeout(30):
            while door.app[CONTEXT].long_polls.taken < 3:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)
        fake.apply(RemoveAccessControlEntryRecord(id=reads))
        begun_s = asyncio.get_running_loop().time()
        answer, *ended = [await each for each in (poll, *streams)]
        assert asyncio.get_running_loop().time() - begun_s < 5
        assert (answer.status, answer.json["error_code"]) == (403, 40301)
        for each in ended:
            assert each.status == 200
            assert b'"error_code":40301' in each.body

    with_door(story, fake)


def test_topics_in_bodies_are_checked() -> None:
    fake = gateway()
    allow(fake, AclOperation.CREATE, "new")

    async def story(door: Door) -> None:
        for name, status in (("other", 403), ("new", 201)):
            body = {"topic_name": name, "partitions_count": 1, "replication_factor": 1}
            assert (await door.ask("POST", f"{V3}/topics", body, Content_Type="application/json")).status == status
        changes = {"data": [{"name": "retention.ms", "value": "1"}], "resources": [{"topic_name": "mine"}]}
        altered = await door.ask("POST", f"{V3}/topics/-/configs:alter", changes, Content_Type="application/json")
        assert altered.status in (400, 403, 404)

    with_door(story, fake)
    assert [type(each) for each in fake.requests] == [CreateTopics]


ACL = {
    "resource_type": "TOPIC", "resource_name": "orders", "pattern_type": "PREFIXED", "principal": "User:alice",
    "host": "*", "operation": "READ", "permission": "ALLOW",
}  # fmt: skip
EVERY = "resource_type=ANY&pattern_type=ANY&operation=ANY&permission=ANY"


def test_acls_in_confluents_form() -> None:
    fake = gateway(**{"super.users": "User:ANONYMOUS"})
    allow(fake, AclOperation.ALTER, CLUSTER_NAME, CLUSTER)

    async def story(door: Door) -> None:
        plain = {"Content_Type": "application/json"}
        made = await door.ask("POST", f"{V3}/acls", ACL, **plain)
        assert (made.status, made.body) == (201, b"")
        assert "resource_name=orders" in made.headers["Location"]
        assert (await door.ask("POST", f"{V3}/acls:batch", {"data": [ACL, ACL]}, **plain)).status == 201
        for bad in ({**ACL, "resource_name": ""}, {**ACL, "operation": "ANY"}):
            assert (await door.ask("POST", f"{V3}/acls:batch", {"data": [bad]}, **plain)).status == 400
        assert (await door.ask("POST", f"{V3}/acls", {**ACL, "operation": "SING"}, **plain)).status == 400
        listed = (await door.ask("GET", f"{V3}/acls?resource_type=CLUSTER")).json
        assert listed["kind"] == "KafkaAclList"
        [only] = listed["data"]
        assert (only["kind"], only["resource_name"], only["operation"]) == ("KafkaAcl", CLUSTER_NAME, "ALTER")
        assert (await door.ask("GET", f"{V3}/acls?principal=User:nobody")).json["data"] == []
        assert (await door.ask("DELETE", f"{V3}/acls?resource_type=ANY")).status == 400
        assert (await door.ask("DELETE", f"{V3}/acls?{EVERY}")).status == 200

    with_door(story, fake)
    assert [type(each) for each in fake.requests] == [CreateAcls, CreateAcls, DeleteAcls]


def test_a_super_user_is_not_restricted() -> None:
    async def story(door: Door) -> None:
        assert (await door.ask("GET", "/topics")).json == ["mine", "theirs"]
        assert (await door.ask("GET", "/metrics")).status == 200

    with_door(story, gateway(**{"super.users": "User:ANONYMOUS"}))


def test_a_quota_of_bytes_is_429_with_the_time_to_wait() -> None:
    fake = FakeGateway()
    fake.add_topic("mine", 1)
    fake.apply(ClientQuotaRecord(entity=(("user", None),), key="producer_byte_rate", value=1.0))

    async def story(door: Door) -> None:
        assert await produce(door, "mine") == 200
        refused = await door.ask("POST", "/topics/mine", VALUE, Content_Type=JSON)
        assert (refused.status, refused.json["error_code"]) == (429, 42901)
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert (await door.ask("GET", "/topics")).status == 200

    with_door(story, fake)
    assert len(fake.produced) == 1
