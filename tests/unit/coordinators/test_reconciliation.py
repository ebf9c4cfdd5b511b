"""One member's way to its target: each state with each situation, what comes out of it."""

from __future__ import annotations

import uuid

import pytest

from kraft.coordinators.groups.consumer_group import ConsumerMember, MemberState
from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.reconciliation import Situation, Target, reconciled
from kraft.protocol.errors import FencedMemberEpoch
from metadata.image import TopicIdPartition

TOPIC = uuid.UUID(int=7)
OTHER = uuid.UUID(int=8)
STABLE, UNREVOKED, UNRELEASED, UNKNOWN = (
    MemberState.STABLE,
    MemberState.UNREVOKED_PARTITIONS,
    MemberState.UNRELEASED_PARTITIONS,
    MemberState.UNKNOWN,
)


def of(*numbers: int, topic: uuid.UUID = TOPIC) -> Partitions:
    return frozenset(TopicIdPartition(topic, number) for number in numbers)


def member(state: MemberState, epoch: int, has: Partitions, gives_up: Partitions = frozenset()) -> ConsumerMember:
    return ConsumerMember(
        member_id="m",
        member_epoch=epoch,
        previous_epoch=epoch - 1,
        state=state,
        assigned=dict.fromkeys(has, epoch),
        revoking=dict.fromkeys(gives_up, epoch),
    )


def step(
    before: ConsumerMember,
    target: Partitions,
    *,
    others: Partitions = frozenset(),
    owned: Partitions | None = None,
    wants: frozenset[int] = frozenset({TOPIC.int, OTHER.int}),
    changed: bool = False,
) -> ConsumerMember:
    owners = dict.fromkeys(others, "another") | dict.fromkeys((*before.assigned, *before.revoking), "m")
    situation = Situation(
        target=Target(epoch=5, partitions=target),
        topics=wants,
        owner_of=owners.get,
        owned=owned,
        has_subscription_changed=changed,
    )
    return reconciled(before, situation)


# state, epoch, has, gives up, target, what others have, what it says it owns -> state, epoch, has, gives up
TABLE = {
    "a new member gets what is free": (
        (STABLE, 0, of(), of()), of(0, 1), of(), of(), (STABLE, 5, of(0, 1), of())
    ),
    "a new member waits for what others have": (
        (STABLE, 0, of(), of()), of(0, 1), of(1), of(), (UNRELEASED, 5, of(0), of())
    ),
    "a new member to whom nothing is free is in the epoch all the same": (
        (STABLE, 0, of(), of()), of(0), of(0), of(), (UNRELEASED, 5, of(), of())
    ),
    "who has its target already is in the epoch": (
        (STABLE, 4, of(0, 1), of()), of(0, 1), of(), None, (STABLE, 5, of(0, 1), of())
    ),
    "who has too much gives up first, in its old epoch": (
        (STABLE, 4, of(0, 1), of()), of(1, 2), of(), None, (UNREVOKED, 4, of(1), of(0))
    ),
    "who has given up already, as it says, goes on at once": (
        (STABLE, 4, of(0, 1), of()), of(1, 2), of(), of(1), (STABLE, 5, of(1, 2), of())
    ),
    "who says nothing has given up nothing": (
        (UNREVOKED, 4, of(1), of(0)), of(1, 2), of(), None, (UNREVOKED, 4, of(1), of(0))
    ),
    "who still owns it has not given up": (
        (UNREVOKED, 4, of(1), of(0)), of(1, 2), of(), of(0, 1), (UNREVOKED, 4, of(1), of(0))
    ),
    "who has given up gets the rest": (
        (UNREVOKED, 4, of(1), of(0)), of(1, 2), of(), of(1), (STABLE, 5, of(1, 2), of())
    ),
    "who has given up may be told to give up more": (
        (UNREVOKED, 4, of(1), of(0)), of(2), of(), of(1), (UNREVOKED, 4, of(), of(1))
    ),
    "who has given up may get it back": (
        (UNREVOKED, 4, of(1), of(0)), of(0, 1), of(), of(1), (STABLE, 5, of(0, 1), of())
    ),
    "who waits for others looks again": (
        (UNRELEASED, 5, of(0), of()), of(0, 1), of(1), None, (UNRELEASED, 5, of(0), of())
    ),
    "who waited gets it when it is free": (
        (UNRELEASED, 5, of(0), of()), of(0, 1), of(), None, (STABLE, 5, of(0, 1), of())
    ),
    "who waits is told to give up when the target changes": (
        (UNRELEASED, 4, of(0), of()), of(1), of(1), None, (UNREVOKED, 4, of(), of(0))
    ),
    "a state of later versions begins anew": (
        (UNKNOWN, 3, of(0), of()), of(1), of(), of(), (STABLE, 5, of(1), of())
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_a_step(case: str):
    before, target, others, owned, (state, epoch, has, gives_up) = TABLE[case]
    after = step(member(*before), target, others=others, owned=owned)
    assert (after.state, after.member_epoch, set(after.assigned), set(after.revoking)) == (
        state, epoch, set(has), set(gives_up),
    )  # fmt: skip


def test_what_a_member_keeps_keeps_the_epoch_in_which_it_was_assigned():
    after = step(member(STABLE, 4, of(0)), of(0, 1))
    assert dict(after.assigned) == {TopicIdPartition(TOPIC, 0): 4, TopicIdPartition(TOPIC, 1): 5}
    assert after.previous_epoch == 4


def test_an_unknown_state_fences_who_owns_something_or_does_not_say():
    for owned in (None, of(0)):
        with pytest.raises(FencedMemberEpoch):
            step(member(UNKNOWN, 3, of(0)), of(0), owned=owned)


def test_a_target_of_topics_that_the_member_wants_no_longer_counts_for_nothing():
    after = step(member(STABLE, 4, of(0)), of(0) | of(1, topic=OTHER), wants=frozenset({OTHER.int}), owned=None)
    assert (after.state, set(after.revoking)) == (UNREVOKED, set(of(0)))


@pytest.mark.parametrize("state", [STABLE, UNREVOKED])
def test_who_unsubscribes_from_a_topic_loses_it_before_there_is_a_new_target(state: MemberState):
    both = of(0) | of(0, topic=OTHER)
    pending = of(1) if state is UNREVOKED else of()
    after = step(member(state, 5, both, pending), both, wants=frozenset({OTHER.int}), changed=True)
    assert (after.state, set(after.assigned), set(after.revoking)) == (
        UNREVOKED,
        set(of(0, topic=OTHER)),
        of(0) | pending,
    )


def test_who_has_closed_what_it_unsubscribed_from_stays_as_it_is():
    both = of(0) | of(0, topic=OTHER)
    left = of(0, topic=OTHER)
    after = step(member(STABLE, 5, both), both, wants=frozenset({OTHER.int}), changed=True, owned=left)
    assert (after.state, set(after.assigned), set(after.revoking)) == (STABLE, left, set())


def test_nothing_to_do_is_the_member_itself():
    before = member(STABLE, 5, of(0))
    assert step(before, of(0)) is before
    assert step(before, of(0), changed=True) is before
