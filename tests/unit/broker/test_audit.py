"""The audit: refusals are limited for each principal, and changes name what was changed and not the values."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from kraft.broker import audit as module
from kraft.broker.audit import Audit, subjects
from kraft.broker.principal import ANONYMOUS, CLIENT, UserPrincipal
from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.audited import audited
from kraft.protocol.errors import InvalidConfig, KafkaError, NonEmptyGroup, RequestTimedOut
from metadata.acls import Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource
from metadata.controller.requests import (
    AlterClientQuotas,
    AlterConfigs,
    ConfigAlteration,
    ConfigResource,
    CreateAcls,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    ErrorDetail,
    NewTopic,
    QuotaAlteration,
    UnregisterBroker,
)
from metadata.rate_limited_log import LINES_MAX, WINDOW_MS
from tests.support.fake_gateway import FakeGateway
from tests.unit.broker.support import HandLog, Recorded, publisher_on, router_on, run

ALICE, BOB = UserPrincipal("alice", "10.0.0.1"), UserPrincipal("bob", "10.0.0.2")
READ, TOPIC = AclOperation.READ, AclResource.TOPIC


class Clock:
    now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms


def made() -> tuple[Audit, Recorded, Clock]:
    events, clock = Recorded(), Clock()
    return Audit(events, clock), events, clock  # type: ignore[arg-type]


def test_a_refusal_names_who_where_what_and_the_resource() -> None:
    audit, events, _ = made()
    audit.refused(ALICE, "Fetch", READ, TOPIC, "orders")
    assert events.lines == [
        {
            "event": "refused", "principal": "User:alice", "host": "10.0.0.1", "request": "Fetch", "operation": "READ",
            "resource_type": "TOPIC", "resource": "orders", "left_out": 0,
        }
    ]  # fmt: skip


def test_refusals_are_limited_for_each_principal() -> None:
    audit, events, clock = made()
    for _ in range(LINES_MAX + 5):
        audit.refused(ALICE, "Fetch", READ, TOPIC, "orders")
    audit.refused(BOB, "Fetch", READ, TOPIC, "orders")
    assert len(events.lines) == LINES_MAX + 1
    clock.now_ms = int(WINDOW_MS)
    audit.refused(ALICE, "Fetch", READ, TOPIC, "orders")
    assert events.lines[-1]["left_out"] == 5


def test_principals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRINCIPALS_MAX", 2)
    audit, _, _ = made()
    for number in range(5):
        audit.refused(UserPrincipal(f"u{number}"), "Fetch", READ, TOPIC, "orders")
    assert len(audit._refusals) == 2


ACL = Acl(
    resource=TOPIC, name="orders", pattern=AclPattern.LITERAL, principal="User:a", host="*", operation=READ,
    permission=AclPermission.ALLOW,
)  # fmt: skip
SECRET = ConfigAlteration(name="sasl.jaas.config", operation="set", value="hidden")


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (CreateTopics(topics=(NewTopic(name="a"),)), ["topic a"]),
        (DeleteTopics(topics=("a",)), ["topic a"]),
        (
            AlterConfigs(resources={ConfigResource(resource_type="broker", name="1"): (SECRET,)}),
            ["broker 1: sasl.jaas.config"],
        ),
        (UnregisterBroker(broker_id=3), ["broker 3"]),
        (CreateAcls(acls=(ACL,)), ["ALLOW User:a READ on LITERAL TOPIC orders from *"]),
        (DeleteAcls(filters=(AclFilter(),)), ["ANY anybody ANY on ANY ANY any from anywhere"]),
        (
            AlterClientQuotas(
                alterations=(QuotaAlteration(entity=(("user", "a"),), quotas={"producer_byte_rate": 1.0}),)
            ),
            ["quotas of {'user': 'a'}: producer_byte_rate"],
        ),
    ],
)
def test_a_change_names_what_and_no_value(request_: Any, names: list[str]) -> None:
    assert list(subjects(request_)) == names
    audit, events, _ = made()
    audit.changed(ALICE, request_, {"a": None})
    [line] = events.lines
    assert (line["principal"], line["resources"], line["errors"]) == ("User:alice", names, [])
    assert "hidden" not in str(line)


def test_outcomes_are_names_of_errors() -> None:
    audit, events, _ = made()
    many = CreateTopics(topics=tuple(NewTopic(name=str(number)) for number in range(150)))
    audit.changed(ALICE, many, {"1": ErrorDetail(InvalidConfig, "x"), "2": None})
    audit.changed(ALICE, many, [None, ErrorDetail(InvalidConfig, "x")])
    audit.changed(ALICE, many, RequestTimedOut("x"))
    assert [line["errors"] for line in events.lines] == [["INVALID_CONFIG"], ["INVALID_CONFIG"], ["REQUEST_TIMED_OUT"]]
    assert [(len(line["resources"]), line["count"]) for line in events.lines] == [(100, 150)] * 3  # type: ignore[arg-type]


STANDARD = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}


@pytest.mark.parametrize(
    ("principal", "static", "is_written"),
    [(ALICE, {}, True), (ANONYMOUS, {}, False), (ALICE, STANDARD, True), (ANONYMOUS, STANDARD, True)],
)
def test_without_an_authorizer_changes_of_users_are_written(
    principal: UserPrincipal, static: dict[str, str], is_written: bool
) -> None:
    async def main(clock: SimulatedClock) -> None:
        events = Recorded()
        router = router_on(clock, publisher_on(clock, HandLog(), static), {}, events=events)
        router.note_change(principal, "DeleteRecords", ["t-0"], ["UNKNOWN_TOPIC_OR_PARTITION"])
        router.note_change(principal, "DeleteRecords", [])
        router.note_change(None, "DeleteRecords", ["t-0"])
        token = CLIENT.set(principal)
        try:
            with pytest.raises(KafkaError):
                await router.control(DeleteTopics(topics=("a",)), timeout_ms=1)
        finally:
            CLIENT.reset(token)
        found = [(line["request"], line["resources"]) for line in events.lines]
        assert found == ([("DeleteRecords", ["t-0"]), ("DeleteTopics", ["topic a"])] if is_written else [])

    run(main)


@pytest.mark.parametrize(
    ("request_", "answer", "line"),
    [
        (r.DeleteGroup(group="g"), a.Taken(), ("DeleteGroups", ["group g"], [])),
        (r.DeleteGroup(group="g"), NonEmptyGroup(""), ("DeleteGroups", ["group g"], ["NON_EMPTY_GROUP"])),
        (
            r.DeleteOffsets(group="g", partitions=(("t", 0),)),
            a.OffsetsDeleted(refused=(("t", 0),)),
            ("OffsetDelete", ["group g: t-0"], ["GROUP_SUBSCRIBED_TO_TOPIC"]),
        ),
        (
            r.ResetOffsets(group="g", offsets=(r.OffsetToCommit("t", 0, 1),)),
            a.Taken(),
            ("ResetOffsets", ["group g: t-0"], []),
        ),
        (
            r.ResetShareOffsets(group="g", offsets=(("t", 1, 7),)),
            a.ShareOffsets(offsets=(a.ShareOffset("t", 1, error_code=3),)),
            ("AlterShareGroupOffsets", ["group g: t-1"], ["UNKNOWN_TOPIC_OR_PARTITION"]),
        ),
        (
            r.DeleteShareOffsets(group="g", topics=("t",)),
            a.ShareOffsets(offsets=()),
            ("DeleteShareGroupOffsets", ["group g: t"], []),
        ),
        (r.ListGroups(group=""), a.GroupList(groups=()), None),
    ],
)
def test_changes_of_groups_leave_a_line(request_: Any, answer: Any, line: object) -> None:
    gateway = FakeGateway()

    async def ask(asked: object) -> Any:
        assert asked is request_
        if isinstance(answer, KafkaError):
            raise answer
        return answer

    with contextlib.suppress(NonEmptyGroup):
        assert asyncio.run(audited(gateway, ALICE, request_, ask)) is answer
    assert gateway.changes == ([] if line is None else [("User:alice", *line)])  # type: ignore[misc]
