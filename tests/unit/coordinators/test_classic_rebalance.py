"""The classic protocol as stories of one group: phases, generations, static members, timeouts, and every refusal."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kraft.coordinators.groups.classic_draft import ClassicRules
from kraft.coordinators.groups.classic_group import ClassicGroup, Phase, restored
from kraft.coordinators.groups.classic_rebalance import decide
from kraft.coordinators.groups.classic_requests import Done, Event, Heartbeat, Join, Joined, Leave, Sync, Synced, Tick
from kraft.coordinators.groups.offsets import check_commit, commit_records, expired, subscribed_topics
from kraft.coordinators.groups.records import CommittedOffset, StoredGroup, encode_value
from kraft.coordinators.groups.subscriptions import Subscription, encode_subscription
from kraft.protocol import errors

RULES = ClassicRules(session_ms_min=6_000, session_ms_max=60_000, initial_delay_ms=0, members_max=50)


class Story:
    """One group, its virtual time, and who was answered what."""

    def __init__(self, **rules: int) -> None:
        options = {"session_ms_min": 6_000, "session_ms_max": 60_000, "initial_delay_ms": 0, "members_max": 50}
        self.rules = ClassicRules(**{**options, **rules})
        self.group = ClassicGroup(group_id="g")
        self.now_ms = 0
        self.answers: dict[int, Any] = {}
        self.stored: list[StoredGroup] = []
        self._tickets = 0

    def do(self, event: Event) -> Any:
        decision = decide(self.group, event, rules=self.rules, now_ms=self.now_ms, wall_ms=1_000_000 + self.now_ms)
        self.group = decision.group
        for reply in decision.replies:
            assert reply.ticket not in self.answers, "answered twice"
            self.answers[reply.ticket] = reply.answer
        self.stored += [record.value for record in decision.records if isinstance(record.value, StoredGroup)]
        return None if isinstance(event, Tick) else self.answers.get(event.ticket)

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def join(self, member_id: str = "", *, known: bool = False, **changes: Any) -> Any:
        options: dict[str, Any] = {
            "client_id": "c",
            "client_host": "/h",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 20_000,
            "protocol_type": "consumer",
            "protocols": (("range", b"r"),),
            "new_member_id": f"m{self._tickets + 1}",
        }
        return self.do(
            Join(ticket=self.ticket(), member_id=member_id, is_known_required=known, **{**options, **changes})
        )

    def sync(self, member_id: str, *assignments: tuple[str, bytes], generation: int | None = None, **who: Any) -> Any:
        number = self.group.generation if generation is None else generation
        return self.do(
            Sync(ticket=self.ticket(), member_id=member_id, generation=number, assignments=assignments, **who)
        )

    def beat(self, member_id: str, generation: int | None = None, **who: Any) -> Any:
        number = self.group.generation if generation is None else generation
        return self.do(Heartbeat(ticket=self.ticket(), member_id=member_id, generation=number, **who))

    def leave(self, member_id: str = "", **who: Any) -> Any:
        return self.do(Leave(ticket=self.ticket(), member_id=member_id, **who))

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.do(Tick())


def stable(*members: str, **rules: int) -> Story:
    story = Story(**rules)
    for member in members:
        story.join(new_member_id=member)
        for other in story.group.members.values():
            if other.joining is None:
                story.join(other.member_id)
    leader = story.group.leader
    assert leader is not None
    for member in members:
        if member != leader:
            story.sync(member)
    story.sync(leader, *((member, member.encode()) for member in members))
    assert story.group.phase is Phase.STABLE
    return story


def test_one_member_goes_all_the_way_and_leaves() -> None:
    story = Story()
    first = story.join(known=True)
    assert isinstance(first, errors.MemberIdRequired)
    joined = story.join(first.message, known=True)
    assert isinstance(joined, Joined)
    assert (joined.generation, joined.leader, len(joined.members)) == (1, first.message, 1)
    assert story.group.phase is Phase.COMPLETING
    synced = story.sync(first.message, (first.message, b"all"))
    assert isinstance(synced, Synced)
    assert synced.assignment == b"all"
    assert [stored.generation for stored in story.stored] == [1]
    assert isinstance(story.beat(first.message), Done)
    assert isinstance(story.leave(first.message), Done)
    assert (story.group.phase, story.group.generation) == (Phase.EMPTY, 2)
    assert story.stored[-1].members == ()


def test_a_second_member_waits_for_the_first_and_syncs_wait_for_the_leader() -> None:
    story = stable("a")
    assert story.join(new_member_id="b") is None
    assert isinstance(story.beat("a"), errors.RebalanceInProgress)
    again = story.join("a")
    assert (again.generation, again.leader, {m for m, _, _ in again.members}) == (2, "a", {"a", "b"})
    assert story.sync("b") is None
    assert story.sync("a", ("a", b"1"), ("b", b"2")).assignment == b"1"
    assert story.answers[max(story.answers) - 1].assignment == b"2"


def test_the_initial_delay_gathers_members_up_to_the_rebalance_timeout() -> None:
    story = Story(initial_delay_ms=3_000)
    assert story.join(new_member_id="a") is None
    story.wait(2_000)
    assert story.join(new_member_id="b") is None
    story.wait(2_000)
    assert story.group.phase is Phase.PREPARING
    story.wait(1_000)
    assert story.group.phase is Phase.COMPLETING
    assert len(story.group.members) == 2


def test_a_member_that_does_not_join_again_in_time_is_out() -> None:
    story = stable("a", "b")
    story.join(new_member_id="c")
    story.join("a")
    for _ in range(3):
        story.wait(6_000)
        story.beat("b")
    story.wait(2_000)
    assert set(story.group.members) == {"a", "c"}
    assert story.group.phase is Phase.COMPLETING


def test_a_silent_member_is_evicted_and_its_late_calls_refused() -> None:
    story = stable("a", "b")
    old = story.group.generation
    story.wait(6_000)
    story.beat("a")
    story.wait(5_000)
    assert set(story.group.members) == {"a"}
    assert isinstance(story.beat("b", old), errors.UnknownMemberId)
    with pytest.raises(errors.UnknownMemberId):
        check_commit(story.group, member_id="b", generation=old)
    story.join("a")
    with pytest.raises(errors.IllegalGeneration):
        check_commit(story.group, member_id="a", generation=old)
    with pytest.raises(errors.RebalanceInProgress):
        check_commit(story.group, member_id="a", generation=story.group.generation)


def test_a_leader_that_never_syncs_loses_its_place() -> None:
    story = stable("a", "b")
    story.join("a")
    story.join("b")
    assert story.group.phase is Phase.COMPLETING
    story.sync("b")
    for _ in range(4):
        story.wait(5_000)
        for member in ("a", "b"):
            story.beat(member)
    assert "a" not in story.group.members


def test_returning_static_member_fences_old_one() -> None:
    story = Story()
    story.join(instance_id="i", new_member_id="a")
    story.sync("a", ("a", b"mine"))
    generation = story.group.generation
    back = story.join(instance_id="i", new_member_id="a2")
    assert (back.generation, back.member_id, back.leader) == (generation, "a2", "a2")
    assert story.group.phase is Phase.STABLE
    assert story.sync("a2", instance_id="i").assignment == b"mine"
    assert isinstance(story.beat("a", instance_id="i"), errors.FencedInstanceId)
    assert isinstance(story.join("a", instance_id="i"), errors.FencedInstanceId)
    with pytest.raises(errors.FencedInstanceId):
        check_commit(story.group, member_id="a", generation=generation, instance_id="i")
    assert story.stored[-1].members[0].member_id == "a2"
    assert isinstance(story.leave(instance_id="i"), Done)
    assert story.group.phase is Phase.EMPTY


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"session_timeout_ms": 5_999}, errors.InvalidSessionTimeout),
        ({"session_timeout_ms": 60_001}, errors.InvalidSessionTimeout),
        ({"protocols": ()}, errors.InconsistentGroupProtocol),
        ({"protocols": (("other", b""),)}, errors.InconsistentGroupProtocol),
        ({"protocol_type": "connect"}, errors.InconsistentGroupProtocol),
        ({"member_id": "nobody"}, errors.UnknownMemberId),
        ({"member_id": "nobody", "instance_id": "i"}, errors.UnknownMemberId),
    ],
)
def test_joins_that_are_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    story = stable("a")
    before = story.group
    assert isinstance(story.join(**changes), error)
    assert story.group == before


def test_other_refusals() -> None:
    story = stable("a", "b", members_max=2)
    assert isinstance(story.join(), errors.GroupMaxSizeReached)
    assert isinstance(story.sync("a", generation=99), errors.IllegalGeneration)
    assert isinstance(story.sync("a", protocol="roundrobin"), errors.InconsistentGroupProtocol)
    assert isinstance(story.sync("x"), errors.UnknownMemberId)
    assert isinstance(story.beat("a", 99), errors.IllegalGeneration)
    assert isinstance(story.leave("x"), errors.UnknownMemberId)
    story.join("a")
    assert isinstance(story.sync("b"), errors.RebalanceInProgress)


def test_a_restored_group_is_stable_and_gives_each_member_a_whole_session() -> None:
    story = stable("a", "b")
    group = restored("g", story.stored[-1], now_ms=500)
    assert (group.phase, group.generation, group.leader) == (Phase.STABLE, story.group.generation, story.group.leader)
    assert {member.deadline_ms for member in group.members.values()} == {10_500}
    assert {key: each.assignment for key, each in group.members.items()} == {"a": b"a", "b": b"b"}


@pytest.mark.parametrize("seed", range(20))
def test_random_histories_never_give_a_partition_twice_in_a_generation(seed: int) -> None:
    rng = random.Random(seed)
    story = Story(initial_delay_ms=rng.choice([0, 3_000]))
    given: dict[int, tuple[bytes, ...]] = {}
    for _ in range(400):
        members = list(story.group.members)
        match rng.randrange(7):
            case 0 if len(members) < 6:
                story.join(new_member_id=f"m{story.ticket()}")
            case 1 | 2 if members:
                story.join(rng.choice(members))
            case 3 | 4 if members and story.group.leader:
                leader = story.group.leader
                parts = [(member, b"%d-%d" % (story.group.generation, at)) for at, member in enumerate(members)]
                for member in members:
                    story.sync(member, *(parts if member == leader else ()))
            case 5 if members:
                story.beat(rng.choice(members))
            case 6 if members and rng.random() < 0.3:
                story.leave(rng.choice(members))
        story.wait(rng.randrange(0, 2_500))
        group = story.group
        assert (group.phase is Phase.EMPTY) == (not group.members and not group.is_opening), group
        if group.phase is Phase.STABLE:
            assert group.leader in group.members
            owned = tuple(sorted(m.assignment for m in group.members.values() if m.assignment))
            assert len(set(owned)) == len(owned)
            assert set(owned) <= set(given.setdefault(group.generation, owned))
        generations = [stored.generation for stored in story.stored]
        assert generations == sorted(generations)


def test_offsets_expire_by_the_state_of_their_group() -> None:
    offsets = {("t", 0): CommittedOffset(offset=1, commit_timestamp=0), ("u", 0): CommittedOffset(offset=1)}
    assert len(expired(None, offsets, wall_ms=100, retention_ms=100)) == 2
    empty = ClassicGroup(group_id="g", protocol_type="consumer", state_timestamp=50)
    assert expired(empty, offsets, wall_ms=100, retention_ms=100) == []
    assert len(expired(empty, offsets, wall_ms=150, retention_ms=100)) == 2
    story = Story()
    story.join(new_member_id="a", protocols=(("range", encode_subscription(Subscription(topics=("t",)))),))
    assert subscribed_topics(story.group) == {"t"}
    assert expired(story.group, offsets, wall_ms=100, retention_ms=100) == [], "a rebalance may change who wants what"
    story.sync("a")
    assert expired(story.group, offsets, wall_ms=100, retention_ms=100) == [("u", 0)]


def test_a_commit_that_said_how_long_it_is_to_be_kept_goes_then() -> None:
    """OffsetCommit 2 to 4: neither offsets.retention.minutes nor the time at which its group became empty counts."""
    short, long = CommittedOffset(offset=1, expire_timestamp=80), CommittedOffset(offset=1, expire_timestamp=10_000)
    offsets = {("t", 0): short, ("u", 0): long}
    assert expired(None, offsets, wall_ms=79, retention_ms=50) == []
    assert expired(None, offsets, wall_ms=80, retention_ms=50) == [("t", 0)]
    empty = ClassicGroup(group_id="g", protocol_type="consumer", state_timestamp=500)
    assert expired(empty, offsets, wall_ms=501, retention_ms=100) == [("t", 0)]
    assert expired(empty, offsets, wall_ms=10_000, retention_ms=100) == [("t", 0), ("u", 0)]
    story = Story()
    story.join(new_member_id="a", protocols=(("range", encode_subscription(Subscription(topics=("t",)))),))
    story.sync("a")
    assert expired(story.group, offsets, wall_ms=10_000, retention_ms=100) == [("u", 0)], "who reads it keeps it"


@pytest.mark.parametrize(("retention_ms", "expected"), [(2**63 - 1, 2**63 - 1), (-(2**63), 0), (5, 1_005), (-1, -1)])
def test_however_long_a_commit_is_to_be_kept_its_record_can_be_written(retention_ms: int, expected: int) -> None:
    [record] = commit_records(
        "g", {("t", 0): (1, -1, "")}, metadata_bytes_max=10, wall_ms=1_000, retention_ms=retention_ms
    )
    assert isinstance(record.value, CommittedOffset)
    assert record.value.expire_timestamp == expected
    assert encode_value(record.value)
