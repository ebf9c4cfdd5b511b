"""What a member costs does not grow with the members of its group, and many of them hold no turn of the loop."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from time import thread_time
from typing import Any

import pytest

from kraft.coordinators.groups.classic_requests import GroupEvent, Joined, Sync, Tick
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_protocol import PATTERN_REFRESH_MS, PATTERNS_AT_ONCE
from kraft.coordinators.groups.records import encode_batch
from kraft.coordinators.groups.target_assignment import ASSIGNED_AT_ONCE_MAX, changed_targets, in_parts
from tests.unit.coordinators.consumer_story import CLASSIC, Story, image_of

FEW = 100
TIMES_MAX = 2.5
"""The cost of a member of a large group, compared with one of a group of `FEW`."""
TURN_MS_MAX = 50
TRIES = 5
"""What is measured is the least of so many: a machine does other things, too."""
SAMPLE = 50
ROOMY = replace(CLASSIC, initial_delay_ms=3_000, members_max=100_000)


def classic(count: int) -> Story:
    """A stable group of so many members; the first leads."""
    story = Story(classic=ROOMY)
    for _ in range(count):
        story.classic_join(metadata=b"m" * 40)
    story.wait(story.rules.classic.initial_delay_ms * 2)
    members = list(story.group.members)
    assert len(members) == count
    for member_id in members:
        if member_id != story.group.leader:
            story.classic_sync(member_id, 1)
    assert story.group.leader is not None
    story.classic_sync(story.group.leader, 1, assignments=tuple((each, b"a" * 30) for each in members))
    story.log.clear()
    return story


def patterned(count: int) -> Story:
    """A group whose members each have a pattern of their own."""
    story = Story({f"t{number}": 1 for number in range(FEW)}, members_max=100_000)
    for number in range(count):
        story.now_ms += 10
        story.join(f"m{number}", topics=frozenset(), pattern=f"t{number % FEW}|x{number}")
    story.log.clear()
    return story


def beats_of_classic(count: int) -> Callable[[], None]:
    story = classic(count)
    ids = list(story.group.members)[:SAMPLE]

    def beat() -> None:
        for member_id in ids:
            story.classic_beat(member_id, 1)

    return beat


def beats_of_patterns(count: int) -> Callable[[], None]:
    """The patterns were looked at some time ago: that is when they are due again."""
    story = patterned(count)
    story.now_ms += PATTERN_REFRESH_MS
    members = [story.here.members[f"m{number}"] for number in range(SAMPLE)]
    for member in members:
        story.beat(member.member_id, member.member_epoch, owned=frozenset(member.assigned))

    def beat() -> None:
        for member in members:
            here = story.here.members[member.member_id]
            story.beat(here.member_id, here.member_epoch)

    return beat


def least_s(run: Callable[[], None]) -> float:
    def once() -> float:
        begun = thread_time()
        run()
        return thread_time() - begun

    return min(once() for _ in range(TRIES))


def turn_ms(story: Story, event: GroupEvent) -> float:
    """What the shell does with an event in one turn; many answers are handed out in others."""

    def submit() -> None:
        if records := story.decided(event).records:
            encode_batch(records, timestamp_ms=0)

    return least_s(submit) * 1_000


@pytest.mark.parametrize("made", [beats_of_classic, beats_of_patterns])
@pytest.mark.parametrize("many", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_heartbeat_costs_the_same_in_a_large_group(made: Callable[[int], Callable[[], None]], many: int) -> None:
    few_s = least_s(made(FEW))
    many_s = least_s(made(many))
    assert many_s <= few_s * TIMES_MAX, (few_s, many_s)


@pytest.mark.parametrize("many", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_rebalance_is_decided_within_a_turn(many: int) -> None:
    story = Story(classic=ROOMY)
    for _ in range(many):
        story.classic_join(metadata=b"m" * 40)
    story.now_ms += story.rules.classic.initial_delay_ms * 2
    assert turn_ms(story, Tick()) <= TURN_MS_MAX
    before = story.group
    story.do(Tick())
    leader = story.group.leader
    assert leader is not None
    joined = story.answers[before.members[leader].joining]
    assert isinstance(joined, Joined)
    assert len(joined.members) == len(story.answers) == many
    for member_id in story.group.members:
        if member_id != leader:
            story.classic_sync(member_id, 1)
    assignments = tuple((each, b"a" * 30) for each in story.group.members)
    sync = Sync(ticket=story.ticket(), member_id=leader, generation=1, assignments=assignments)
    assert turn_ms(story, sync) <= TURN_MS_MAX
    story.answers.clear()
    story.do(sync)
    assert len(story.answers) == many


def facts(group: ConsumerGroup) -> dict[str, Any]:
    maps = ("members", "targets", "patterns", "owners", "static", "subscribed_patterns", "topic_counts", "deadlines")
    return {name: dict(getattr(group, name)) for name in maps} | {"epoch": group.epoch, "due_ms": group.due_ms}


def test_the_state_before_a_decision_is_as_it_was() -> None:
    """A decision whose record is not appended leaves the group as it was; more than one may begin from it."""
    story = Story()
    for number in range(FEW):
        story.join(f"m{number}", pattern="a.*" if number % 2 else "")
    before = story.here
    kept = facts(before)
    story.join("another", "b", pattern="other.*")
    story.beat("m1", -1)
    after = story.here
    assert facts(before) == kept
    assert before.subscribed_topics == {"a"}
    assert "another" not in before.members
    assert "m1" in before.members
    assert "another" in after.members
    assert "m1" not in after.members


def test_new_topics_are_matched_in_steps() -> None:
    count = PATTERNS_AT_ONCE * 3
    story = patterned(count)
    clock, epoch = story.now_ms, story.here.epoch
    story.image = image_of({f"x{number}": 1 for number in range(count)}, base=story.image)
    story.here.is_metadata_checked = False
    story.now_ms = clock + PATTERN_REFRESH_MS
    resolved = []
    for number in range(3):
        member = story.here.members[f"m{number}"]
        story.beat(member.member_id, member.member_epoch, owned=frozenset(member.assigned))
        resolved.append(sum(len(each.topics) == 2 for each in story.here.patterns.values()))
        assert (story.here.epoch > epoch) == (number == 2)
    assert resolved == [PATTERNS_AT_ONCE, 2 * PATTERNS_AT_ONCE, 3 * PATTERNS_AT_ONCE]
    assert story.here.epoch == epoch + 1


def test_a_large_group_is_assigned_once_in_an_interval() -> None:
    story = Story({"a": 3 * ASSIGNED_AT_ONCE_MAX}, members_max=1_000)
    for number in range(ASSIGNED_AT_ONCE_MAX + 1):
        story.join(f"m{number}")
    assert story.here.assignment_epoch < story.here.epoch
    late = f"m{ASSIGNED_AT_ONCE_MAX}"
    assert not story.here.members[late].assigned
    story.now_ms += story.rules.assignment_interval_ms
    story.beat("m0", story.here.members["m0"].member_epoch)
    assert story.here.assignment_epoch == story.here.epoch
    assert story.here.targets[late]


@pytest.mark.parametrize("assignor", ["uniform", pytest.param("range", marks=pytest.mark.long)])
def test_no_part_of_an_assignment_holds_a_turn(assignor: str) -> None:
    """The whole is computed apart from the loop; `range` moves everything when a member comes first."""
    many = 1_000
    story = Story({f"t{number}": many // 4 for number in range(8)}, members_max=100_000, assignors=(assignor,))
    for number in range(many):
        story.join(f"m{number:05}", *(f"t{number}" for number in range(8)))
    story.rules = replace(story.rules, assignment_interval_ms=10**9)
    story.join("a", *(f"t{number}" for number in range(8)))
    parts = list(in_parts(changed_targets(story.here, story.image, story.rules.assignors), story.here.epoch))
    assert len(parts) > 1
    for part in parts:
        assert turn_ms(story, part) <= TURN_MS_MAX
        story.do(part)
    assert story.here.assignment_epoch == story.here.epoch
    targets = [each for partitions in story.here.targets.values() for each in partitions]
    assert len(targets) == len(set(targets)) == many // 4 * 8


def test_an_assignment_that_comes_late_gives_nothing_to_who_has_gone() -> None:
    story = Story({"a": 3 * ASSIGNED_AT_ONCE_MAX}, members_max=1_000, assignment_interval_ms=10**9)
    for number in range(ASSIGNED_AT_ONCE_MAX + 2):
        story.join(f"m{number}")
    parts = list(in_parts(changed_targets(story.here, story.image, story.rules.assignors), story.here.epoch))
    story.beat("m0", -1)
    for part in parts:
        story.do(part)
    assert "m0" not in story.here.targets
    assert story.here.assignment_epoch == story.here.epoch - 1, "the next assignment is due"
    before = story.here
    story.do(parts[-1])
    assert story.here.targets == before.targets
    assert not story.last, "an assignment that is not newer changes nothing"


@pytest.mark.long
def test_no_decision_is_left_to_a_collection() -> None:
    """What is refused has neither its own frames nor itself: thousands of members of one request may be unknown."""
    story, modern = classic(2), Story()
    member_id = next(iter(story.group.members))
    modern.join("m0")
    gc.collect()
    gc.disable()
    try:
        story.classic_beat(member_id, 1)
        story.classic_leave("unknown")
        modern.beat("unknown", 1)
        modern.classic_leave("unknown")
        assert gc.collect() == 0
    finally:
        gc.enable()
