"""GET /kraft/events: the newest events of a node from its memory, in parts, and what was forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from kraft.events import OVERHEAD_BYTES, EventRing
from kraft.http.events import event_routes, names_only
from metadata.acls import CLUSTER_NAME, AclOperation, AclPattern, AclPermission, AclResource
from metadata.records import AccessControlEntryRecord
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import Door, with_door


def add(ring: EventRing, event: str, **fields: Any) -> None:
    head = {"at_ms": 5, "monotonic_us": 7, "node_id": 1, "sequence": 0, "event": event}
    ring.add(event, fields, json.dumps(fields | head).encode() + b"\n")


def ring_of(count: int, *, bytes_max: int = 1_000_000) -> EventRing:
    ring = EventRing(lambda: bytes_max)
    for number in range(count):
        add(ring, "isr_changed", topic="t", partition=number % 2, number=number)
    return ring


def asked(ring: EventRing, check: Callable[[Door], Any]) -> None:
    with_door(check, extra_routes=event_routes(ring, incarnation="first"))


def test_a_ring_holds_no_more_bytes_than_it_may_and_counts_what_it_forgot() -> None:
    ring = ring_of(100, bytes_max=10 * (OVERHEAD_BYTES + 140))
    page = ring.read(since=0, limit=1_000)
    assert 5 < len(page.events) < 20
    assert (page.forgotten, page.next) == (100 - len(page.events), 100)
    assert [each.position for each in page.events] == list(range(page.forgotten, 100))
    assert ring.bytes == sum(len(each.line) + OVERHEAD_BYTES for each in page.events)
    assert not ring_of(3, bytes_max=0).read(limit=10).events


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_parts_together_are_everything_once(limit: int) -> None:
    ring, found, since = ring_of(20), [], 0
    while since < 20:
        page = ring.read(since=since, limit=limit, topic="t", partition=1)
        assert page.next > since
        found += [each.position for each in page.events]
        since = page.next
    assert found == list(range(1, 20, 2))


def test_a_limit_of_nothing_stays_where_it_is() -> None:
    assert ring_of(20).read(since=4, limit=0).next == 4


def test_without_since_the_newest_and_after_a_restart_all() -> None:
    ring = ring_of(20)
    assert [each.position for each in ring.read(limit=3).events] == [17, 18, 19]
    assert ring.read(since=20, limit=3).events == []
    assert [each.position for each in ring.read(since=21, limit=3).events] == [0, 1, 2]


def test_partitions_that_are_named_in_one_field_are_found() -> None:
    ring = EventRing(lambda: 10_000)
    add(ring, "isr_change_refused", partition="my-topic-3")
    add(ring, "quorum_leadership", leader=1)
    add(ring, "log_offline", topic="my-topic", partition=3)
    found = ring.read(limit=9, topic="my-topic", partition=3).events
    assert [each.event for each in found] == ["isr_change_refused", "log_offline"]
    assert [each.event for each in ring.read(limit=9, events=("quorum_leadership", "no")).events] == [
        "quorum_leadership"
    ]


def test_the_answer_has_events_and_where_to_go_on() -> None:
    async def story(door: Door) -> None:
        answer = (await door.ask("GET", "/kraft/events?since=3&limit=2&event=isr_changed&topic=t")).json
        assert (answer["node_id"], answer["incarnation"]) == (door.gateway.node_id, "first")
        assert (answer["next"], answer["forgotten"]) == (5, 0)
        first = answer["events"][0]
        assert (first["position"], first["number"], first["event"], first["at_ms"]) == (3, 3, "isr_changed", 5)
        assert len((await door.ask("GET", "/kraft/events")).json["events"]) == 20

    asked(ring_of(20), story)


def test_text_that_is_no_unicode_is_shown_as_far_as_it_goes() -> None:
    ring = ring_of(1)
    add(ring, "log_damaged", reason="file \udcffx of \u1234 is bad")

    async def story(door: Door) -> None:
        found = (await door.ask("GET", "/kraft/events")).json["events"]
        assert found[1]["reason"] == "file ?x of \u1234 is bad"

    asked(ring, story)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=-1", "since=-1 is out of range"),
        ("limit=many", "limit=many is not a number"),
        ("limit=100000", "it is from 0 to"),
        ("topic=", "topic has 1 to 249 of the characters"),
    ],
)
def test_wrong_questions_are_refused_in_words(query: str, said: str) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"/kraft/events?{query}")
        assert (answer.status, said in answer.json["message"]) == (400, True), answer.json

    asked(ring_of(1), story)


@pytest.mark.parametrize(
    ("event", "is_shown"),
    [
        ({"event": "broker_fenced", "broker": 2}, True),
        ({"event": "isr_changed", "topic": "t", "partition": 0}, True),
        ({"event": "isr_changed", "topic": "hidden", "partition": 0}, False),
        ({"event": "isr_change_refused", "partition": "hidden-0"}, False),
        ({"event": "changed", "resources": ["topic t: retention.ms"], "topics": ["t"]}, True),
        ({"event": "changed", "resources": ["user bob"], "topics": []}, True),
        ({"event": "changed", "resources": ["t-0", "hidden-0"], "topics": ["t", "hidden"]}, False),
        ({"event": "changed", "resources": ["topic t"]}, False),
        ({"event": "refused", "resource_type": "TOPIC", "resource": "t"}, True),
        ({"event": "refused", "resource_type": "TOPIC", "resource": "hidden"}, False),
        ({"event": "refused", "resource_type": "GROUP", "resource": "hidden"}, True),
    ],
)
def test_an_event_that_names_a_topic_is_for_those_who_may_describe_it(event: dict[str, object], is_shown: bool) -> None:
    assert names_only({"t"}.__contains__, event) is is_shown


def test_events_of_an_invisible_topic_are_as_of_one_that_does_not_exist() -> None:
    fake = FakeGateway(static={"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"})
    fake.add_topic("t", 1)
    fake.apply(
        AccessControlEntryRecord(
            id=UUID(int=1), resource_type=AclResource.CLUSTER, resource_name=CLUSTER_NAME,
            pattern_type=AclPattern.LITERAL, principal="User:ANONYMOUS", host="*", operation=AclOperation.DESCRIBE,
            permission_type=AclPermission.ALLOW,
        )
    )  # fmt: skip

    async def story(door: Door) -> None:
        answers = [
            (await door.ask("GET", f"/kraft/events?since=0&limit=1&topic={topic}")).json for topic in ("t", "absent")
        ]
        assert [(each["next"], each["events"]) for each in answers] == [(20, []), (20, [])]

    with_door(story, fake, extra_routes=event_routes(ring_of(20), incarnation="first"))
