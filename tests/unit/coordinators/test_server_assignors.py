"""The coordinator's assignors: every partition once, to somebody who wants it; balanced; moving as little as can be."""

from __future__ import annotations

import uuid
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.server_assignors import SERVER_ASSIGNORS, Subscriber, assign_range, assign_uniform
from metadata.image import TopicIdPartition
from tests.support.repetitions import few_and_many

TOPICS = [uuid.UUID(int=number) for number in range(1, 6)]
MEMBERS = [f"m{number}" for number in range(8)]
counts = st.fixed_dictionaries({topic: st.integers(0, 12) for topic in TOPICS})
choices = st.frozensets(st.sampled_from(TOPICS), max_size=5)


def of(topic: int, *numbers: int) -> Partitions:
    return frozenset(TopicIdPartition(TOPICS[topic], number) for number in numbers)


@st.composite
def groups(draw: st.DrawFn, *, is_alike: bool = False):
    sizes = draw(counts)
    ids = draw(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=8, unique=True))
    common = draw(choices)
    members = {}
    free = [TopicIdPartition(topic, number) for topic, size in sizes.items() for number in range(size)]
    for member_id in ids:
        had = frozenset(draw(st.lists(st.sampled_from(free), unique=True, max_size=10))) if free else frozenset()
        free = [each for each in free if each not in had]
        members[member_id] = Subscriber(topics=common if is_alike else draw(choices), target=had)
    return members, sizes


def check(members, sizes, assigned):
    wanted = {topic for member in members.values() for topic in member.topics}
    given_out = Counter(each for partitions in assigned.values() for each in partitions)
    assert set(given_out) == {TopicIdPartition(topic, number) for topic in wanted for number in range(sizes[topic])}
    assert set(given_out.values()) <= {1}
    assert set(assigned) == set(members)
    for member_id, partitions in assigned.items():
        assert {each.topic_id for each in partitions} <= members[member_id].topics


@few_and_many("examples", 60, 300)
def test_every_partition_goes_to_one_member_that_wants_it(examples: int):
    @seed(1)
    @settings(max_examples=examples, deadline=None)
    @given(groups(), st.sampled_from(sorted(SERVER_ASSIGNORS)))
    def holds(group, name):
        members, sizes = group
        check(members, sizes, SERVER_ASSIGNORS[name](members, sizes))

    holds()


@few_and_many("examples", 60, 300)
def test_uniform_among_alike_is_balanced_and_moves_the_least(examples: int):
    @seed(2)
    @settings(max_examples=examples, deadline=None)
    @given(groups(is_alike=True))
    def holds(group):
        members, sizes = group
        assigned = assign_uniform(members, sizes)
        loads = [len(partitions) for partitions in assigned.values()]
        assert max(loads) - min(loads) <= 1
        exist = frozenset().union(*assigned.values())
        had = [len(member.target & exist) for member in members.values()]
        share, extra = divmod(len(exist), len(members))
        most = sum(min(each, share) for each in had) + min(extra, sum(each > share for each in had))
        kept = sum(len(assigned[member_id] & member.target) for member_id, member in members.items())
        assert kept == most

    holds()


@few_and_many("examples", 60, 300)
def test_uniform_is_balanced_wherever_moving_one_partition_could_help(examples: int):
    @seed(3)
    @settings(max_examples=examples, deadline=None)
    @given(groups())
    def holds(group):
        members, sizes = group
        assigned = assign_uniform(members, sizes)
        for giver, taker in [*combinations(members, 2), *((b, a) for a, b in combinations(members, 2))]:
            if len(assigned[giver]) - len(assigned[taker]) > 1:
                movable = {each for each in assigned[giver] if each.topic_id in members[taker].topics}
                assert not movable, (giver, taker)

    holds()


@few_and_many("examples", 40, 200)
def test_uniform_is_at_rest_with_what_it_assigned(examples: int):
    @seed(4)
    @settings(max_examples=examples, deadline=None)
    @given(groups())
    def holds(group):
        members, sizes = group
        once = assign_uniform(members, sizes)
        again = {key: Subscriber(topics=each.topics, target=once[key]) for key, each in members.items()}
        assert assign_uniform(again, sizes) == once

    holds()


def test_range_puts_the_same_numbers_of_all_topics_together():
    members = {name: Subscriber(topics=frozenset(TOPICS[:2])) for name in ("m0", "m1")}
    assigned = assign_range(members, {TOPICS[0]: 3, TOPICS[1]: 3})
    assert assigned == {"m0": of(0, 0, 1) | of(1, 0, 1), "m1": of(0, 2) | of(1, 2)}


def test_range_takes_static_members_first_by_their_instance_ids():
    topics = frozenset(TOPICS[:1])
    members = {
        "m0": Subscriber(topics=topics),
        "m1": Subscriber(topics=topics, instance_id="b"),
        "m2": Subscriber(topics=topics, instance_id="a"),
    }
    assert assign_range(members, {TOPICS[0]: 3}) == {"m2": of(0, 0), "m1": of(0, 1), "m0": of(0, 2)}


@pytest.mark.parametrize("name", SERVER_ASSIGNORS)
def test_nobody_and_nothing(name: str):
    assert SERVER_ASSIGNORS[name]({}, {}) == {}
    assert SERVER_ASSIGNORS[name]({"m": Subscriber(topics=frozenset())}, {}) == {"m": frozenset()}
