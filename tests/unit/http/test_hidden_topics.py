"""A topic that the caller may not describe is named by no answer: of events, explanations, groups and transactions."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, cast

import pytest

from kraft.broker.audit import Audit
from kraft.broker.permissions import Permissions, permissions_of
from kraft.broker.principal import Principal, UserPrincipal
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.peek import Peeked
from kraft.coordinators.shares.queue import Queues
from kraft.coordinators.transactions.routing import Transactions
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.events import EventRing
from kraft.explain.facts import Found, NodeEvidence
from kraft.http.events import event_routes
from kraft.http.explain import explain_routes
from kraft.http.explain_coordinated import coordinated_routes
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.consumer_groups import group_routes
from kraft.http.v3.share_groups import share_group_routes
from kraft.http.v3.transactions import transaction_admin_routes
from metadata.acls import (
    CLUSTER_NAME,
    WILDCARD,
    Acl,
    AclFilter,
    AclOperation,
    AclPattern,
    AclPermission,
    AclResource,
)
from metadata.controller.requests import (
    AlterConfigs,
    AlterReassignments,
    AlterRoute,
    ConfigAlteration,
    ConfigResource,
    CreateAcls,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    ElectLeaders,
    NewTopic,
    PartitionReassignment,
    Request,
)
from metadata.image import TopicIdPartition
from tests.support.fake_gateway import FakeGateway
from tests.support.fake_transactions import FakeTransactions
from tests.unit.http.door import V3, Door, with_door
from tests.unit.http.test_access import allow, gateway

ALICE = UserPrincipal("alice", "10.0.0.1")
NOTHING: Any = None
DESCRIBED = ((AclResource.CLUSTER, CLUSTER_NAME), (AclResource.GROUP, "g"), (AclResource.TRANSACTIONAL_ID, "one"))
BOTH = (("mine", 0), ("theirs", 0))
HEAD: dict[str, Any] = {"at_ms": 5, "monotonic_us": 7, "node_id": 1, "sequence": 0}


def restricted() -> FakeGateway:
    """The caller may describe all but the topic `theirs`."""
    fake = gateway()
    allow(fake, AclOperation.DESCRIBE)
    for resource, name in DESCRIBED:
        allow(fake, AclOperation.DESCRIBE, name, resource)
    return fake


# --- events and explanations --------------------------------------------------------------------------------------


class InMemory:
    """Events that only the ring keeps."""

    def __init__(self) -> None:
        self.ring = EventRing(lambda: 1_000_000)

    def emit(self, event: str, /, **fields: object) -> None:
        self.ring.add(event, fields, json.dumps(fields | HEAD | {"event": event}).encode() + b"\n")


class Still:
    """A clock."""

    def monotonic_ms(self) -> int:
        return 0


def acl(name: str, resource: AclResource = AclResource.TOPIC, pattern: AclPattern = AclPattern.LITERAL) -> Acl:
    return Acl(
        resource=resource, name=name, pattern=pattern, principal="User:a", host="*", operation=AclOperation.READ,
        permission=AclPermission.ALLOW,
    )  # fmt: skip


def altered(*topics: str) -> Request[Any]:
    change = ConfigAlteration(name="retention.ms", operation="set", value="1")
    return AlterConfigs(resources={ConfigResource(resource_type="topic", name=name): (change,) for name in topics})


def moved(topic: str) -> Request[Any]:
    return AlterReassignments(reassignments=(PartitionReassignment(topic=topic, partition=0, replicas=(1,)),))


@pytest.mark.parametrize(
    ("request_", "is_shown"),
    [
        (CreateTopics(topics=(NewTopic(name="mine"),)), True),
        (DeleteTopics(topics=("theirs",)), False),
        (altered("mine"), True),
        (altered("mine", "theirs"), False),
        (ElectLeaders(election="preferred", partitions=(("mine", 0),)), True),
        (ElectLeaders(election="preferred", partitions=BOTH), False),
        (ElectLeaders(election="preferred", partitions=None), True),
        (moved("mine"), True),
        (moved("theirs"), False),
        (AlterRoute(name="theirs", operation="delete"), False),
        (AlterRoute(name="mine", operation="delete"), True),
        (CreateAcls(acls=(acl("mine"), acl("g", AclResource.GROUP), acl(WILDCARD))), True),
        (CreateAcls(acls=(acl("theirs"),)), False),
        (CreateAcls(acls=(acl("thei", pattern=AclPattern.PREFIXED),)), False),
        (DeleteAcls(filters=(AclFilter(),)), True),
        (DeleteAcls(filters=(AclFilter(name="theirs"),)), False),
    ],
)
def test_a_change_is_shown_to_those_who_may_describe_its_topics(request_: Request[Any], is_shown: bool) -> None:
    events = InMemory()
    Audit(events, cast(Any, Still())).changed(ALICE, request_, {})

    async def story(door: Door) -> None:
        answer = await door.ask("GET", "/kraft/events")
        assert len(answer.json["events"]) == is_shown
        assert b"theirs" not in answer.body

    with_door(story, restricted(), extra_routes=event_routes(events.ring, incarnation="i"))


def test_events_name_no_hidden_topic_in_resources_and_texts() -> None:
    events = InMemory()
    audit = Audit(events, cast(Any, Still()))
    for resource, name in ((AclResource.TOPIC, "mine"), (AclResource.TOPIC, "theirs"), (AclResource.GROUP, "g")):
        audit.refused(ALICE, "Fetch", AclOperation.READ, resource, name)
    events.emit("http_request_failed", route="/topics/{topic}", error="KeyError('theirs')", traceback="theirs")
    events.emit("log_directory_offline", path="/data", reason="[Errno 5] '/data/theirs-0/0.log'")

    async def story(door: Door) -> None:
        answer = await door.ask("GET", "/kraft/events")
        assert [each["position"] for each in answer.json["events"]] == [0, 2, 3, 4]
        assert (b"/data" in answer.body, b"theirs" in answer.body) == (True, False)

    with_door(story, restricted(), extra_routes=event_routes(events.ring, incarnation="i"))


def test_a_refusal_is_written_with_the_route_and_not_with_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may name a topic beside the resource that was refused."""
    fake, asked = gateway(), list[str]()

    def permissions(principal: Principal, *, what: str) -> Permissions | None:
        asked.append(what)
        return permissions_of(fake.authorizer, principal)

    monkeypatch.setattr(fake, "permissions", permissions)

    async def story(door: Door) -> None:
        assert (await door.ask("POST", f"{V3}/topics/theirs/partitions/0:elect")).status == 403

    with_door(story, fake)
    assert set(asked) == {"POST /v3/clusters/{cluster_id}/topics/{topic}/partitions/{partition}:elect"}


def refused(topic: str) -> dict[str, Any]:
    return HEAD | {
        "event": "refused", "position": 1, "principal": "User:alice", "host": "10.0.0.1", "request": "Fetch",
        "operation": "READ", "resource_type": "TOPIC", "resource": topic, "left_out": 0,
    }  # fmt: skip


class Known:
    """What the only node knows."""

    def __init__(self) -> None:
        self._node = NodeEvidence(
            node_id=1, at_ms=10, awaits="", metadata_offset=1, controller_id=1, term=1, voters=[1],
            brokers={1: "active"}, failed_directories={"/data": "[Errno 5] '/data/theirs-0/0.log'"},
            events=[HEAD | {"event": "log_directory_offline", "path": "/data", "reason": "'/data/theirs-0/0.log'"}],
            clients=[refused("mine"), refused("theirs")],
        )  # fmt: skip

    def __call__(self, topic: str | None = None, partition: int = 0, /) -> NodeEvidence:
        return self._node

    async def find(self, topic: str | None = None, partition: int = 0) -> Found:
        return Found(asked=1, at_ms=10, nodes={1: self._node})


@pytest.mark.parametrize("is_super", [False, True])
def test_evidence_and_explanations_name_no_hidden_topic(is_super: bool) -> None:
    known = Known()

    async def story(door: Door) -> None:
        for path in ("/kraft/evidence", "/kraft/explain/node/1", "/kraft/explain/client/alice"):
            answer = await door.ask("GET", path)
            assert (answer.status, b"theirs" in answer.body) == (200, is_super), path
            assert b"mine" in answer.body or path.endswith("/1")

    fake = gateway(**{"super.users": "User:ANONYMOUS"}) if is_super else restricted()
    with_door(story, fake, extra_routes=explain_routes(known, known))


# --- groups ---------------------------------------------------------------------------------------------------------


class OneGroup:
    """Groups of which there is one, `g`, with a member that reads two topics."""

    def __init__(self, group_type: str) -> None:
        self._type = group_type

    async def ask(self, request: r.Request) -> a.Answer:
        match request:
            case r.DescribeShareOffsets():
                return a.ShareOffsets(offsets=tuple(a.ShareOffset(topic=t, partition=p, lag=1) for t, p in BOTH))
        member = a.MemberDescription(
            member_id="m", instance_id=None, client_id="c", client_host="10.0.0.1", partitions=BOTH
        )
        return a.GroupDescription(
            group="g", state="Stable", protocol_type="consumer", protocol="", generation=1, coordinator=1,
            members=(member,), offsets=(), group_type=self._type,
        )  # fmt: skip


class NoQueue:
    """Leaders that do not answer."""

    async def glance(self, group: str, partitions: Collection[TopicIdPartition]) -> Mapping[TopicIdPartition, Peeked]:
        assert len(partitions) == 1
        return {}


@pytest.mark.parametrize(("collection", "kind"), [("consumer-groups", "consumer"), ("share-groups", "share")])
def test_assignments_of_hidden_topics_are_left_out(collection: str, kind: str) -> None:
    groups = cast(Groups, OneGroup(kind))

    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{V3}/{collection}/g/consumers/m/assignments")
        assert [(each["topic_name"], each["partition_id"]) for each in answer.json["data"]] == [("mine", 0)]
        assert b"theirs" not in answer.body

    with_door(story, restricted(), extra_routes=(*group_routes(groups), *share_group_routes(groups, NOTHING)))


def test_an_assignment_of_a_hidden_topic_is_as_of_one_that_does_not_exist() -> None:
    groups = cast(Groups, OneGroup("consumer"))

    async def story(door: Door) -> None:
        path = f"{V3}/consumer-groups/g/consumers/m/assignments"
        for topic, status in (("mine", 200), ("theirs", 403), ("absent", 403)):
            assert (await door.ask("GET", f"{path}/{topic}/partitions/0")).status == status

    with_door(story, restricted(), extra_routes=group_routes(groups))


def test_lags_of_hidden_topics_are_left_out_and_not_counted() -> None:
    groups = cast(Groups, OneGroup("share"))

    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{V3}/share-groups/g/lags")
        assert [each["topic_name"] for each in answer.json["data"]] == ["mine"]
        assert b"theirs" not in answer.body
        assert (await door.ask("GET", f"{V3}/share-groups/g")).json["partition_count"] == 1

    with_door(story, restricted(), extra_routes=share_group_routes(groups, cast(Queues, NoQueue())))


# --- transactions ---------------------------------------------------------------------------------------------------


def test_partitions_of_a_transaction_are_those_of_described_topics() -> None:
    fake = restricted()
    transactions = FakeTransactions(fake)
    transactions.known["one"] = Transaction(
        transactional_id="one", producer_id=1, epoch=0, timeout_ms=5_000, phase=Phase.ONGOING,
        partitions=frozenset(BOTH), updated_ms=1, started_ms=1,
    )  # fmt: skip
    known = cast(Transactions, transactions)

    async def story(door: Door) -> None:
        for path in ("/transactions/one", f"{V3}/transactions/one", "/kraft/explain/transaction/one"):
            answer = await door.ask("GET", path)
            assert (answer.status, b"theirs" in answer.body, b"mine" in answer.body) == (200, False, True), answer.body

    routes = (
        *transaction_routes(known, NOTHING),
        *transaction_admin_routes(known, NOTHING),
        *coordinated_routes(NOTHING, NOTHING, known),
    )
    with_door(story, fake, extra_routes=routes)
