"""The assignor `simple` of share groups: balance, then stickiness, also with more members than partitions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import pytest

from kraft.coordinators.groups.server_assignors import Assignment, Subscriber
from kraft.coordinators.groups.simple_assignor import assign_simple
from metadata.image import TopicIdPartition

A, B = UUID(int=10), UUID(int=11)


def members_of(count: int, *topics: UUID, targets: Mapping[str, frozenset[TopicIdPartition]] | None = None):
    return {
        (name := f"m{number:04}"): Subscriber(topics=frozenset(topics), target=(targets or {}).get(name, frozenset()))
        for number in range(count)
    }


def sharing(assigned: Assignment) -> Counter[TopicIdPartition]:
    return Counter(each for partitions in assigned.values() for each in partitions)


@pytest.mark.parametrize("partitions", [1, 2, 3, 6, 7, 20])
@pytest.mark.parametrize("members", [1, 2, 3, 5, 7, 19, 20, 21, 60])
def test_every_partition_has_as_many_members_as_are_needed(members: int, partitions: int) -> None:
    assigned = assign_simple(members_of(members, A), {A: range(partitions)})
    shared = sharing(assigned)
    wanted = -(-members // partitions)
    assert shared.keys() == {TopicIdPartition(A, number) for number in range(partitions)}
    assert max(shared.values()) <= wanted
    sizes = {len(each) for each in assigned.values()}
    assert max(sizes) - min(sizes) <= 1
    if members <= partitions:
        assert set(shared.values()) == {1}, "one member each"
    else:
        assert min(sizes) >= 1, "nobody is idle"


def test_a_member_keeps_what_it_has_when_others_come_and_go() -> None:
    partitions = {A: range(12)}
    three = assign_simple(members_of(3, A), partitions)
    four = assign_simple(members_of(4, A, targets=three), partitions)
    moved = sum(len(three[name] - four[name]) for name in three)
    assert moved == 3, "the newcomer has its quarter, and nothing else moves"
    assert {len(each) for each in four.values()} == {3}
    assert assign_simple(members_of(4, A, targets=four), partitions) == four
    again = assign_simple(members_of(3, A, targets=four), partitions)
    assert all(four[name] <= again[name] for name in again)


def test_members_beyond_the_partitions_share_and_one_that_leaves_moves_little() -> None:
    partitions = {A: range(2)}
    six = assign_simple(members_of(6, A), partitions)
    assert set(sharing(six).values()) == {3}
    five = {name: each for name, each in members_of(6, A, targets=six).items() if name != "m0000"}
    after = assign_simple(five, partitions)
    assert all(after[name] >= six[name] for name in five)


def test_topics_that_only_some_want_are_shared_among_those() -> None:
    members = {
        "both": Subscriber(topics=frozenset({A, B})),
        "a": Subscriber(topics=frozenset({A})),
        "none": Subscriber(topics=frozenset()),
    }
    assigned = assign_simple(members, {A: range(4), B: range(3)})
    assert {len({each for each in assigned[name] if each.topic_id == A}) for name in ("a", "both")} == {2}
    assert {each for each in assigned["both"] if each.topic_id == B} == {TopicIdPartition(B, n) for n in range(3)}
    assert all(each.topic_id == A for each in assigned["a"])
    assert assigned["none"] == frozenset()


def test_partitions_that_have_no_state_and_topics_that_nobody_wants_any_more_go() -> None:
    known = {"m0000": frozenset({TopicIdPartition(A, 0), TopicIdPartition(A, 5), TopicIdPartition(B, 0)})}
    assigned = assign_simple(members_of(1, A, targets=known), {A: [0, 1], B: [0]})
    assert assigned == {"m0000": frozenset({TopicIdPartition(A, 0), TopicIdPartition(A, 1)})}
    assert assign_simple({}, {A: [0]}) == {}
    assert assign_simple(members_of(2, A), {}) == {"m0000": frozenset(), "m0001": frozenset()}


@pytest.mark.parametrize("seed", range(60))
def test_members_that_come_go_and_change_never_leave_a_partition_alone(seed: int) -> None:
    rng = random.Random(seed)
    topics = [UUID(int=number) for number in range(20, 20 + rng.randint(1, 4))]
    counts = {topic: range(rng.randint(1, 9)) for topic in topics}
    targets: dict[str, frozenset[TopicIdPartition]] = {}
    for _ in range(12):
        names = rng.sample([f"m{number}" for number in range(30)], rng.randint(1, 30))
        is_alike = rng.random() < 0.5
        members = {
            name: Subscriber(
                topics=frozenset(topics if is_alike else rng.sample(topics, rng.randint(0, len(topics)))),
                target=targets.get(name, frozenset()),
            )
            for name in names
        }
        targets = assign_simple(members, counts)
        assert targets.keys() == members.keys()
        for name, partitions in targets.items():
            assert {each.topic_id for each in partitions} <= members[name].topics
        shared = sharing(targets)
        for topic in topics:
            takers = sum(topic in each.topics for each in members.values())
            for number in counts[topic]:
                count = shared[TopicIdPartition(topic, number)]
                assert (count >= 1) == (takers >= 1), "each has a member"
                most = -(-takers // (len(counts[topic]) if not is_alike else sum(map(len, counts.values()))))
                assert count <= max(most, 1)
