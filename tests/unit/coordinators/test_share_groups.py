"""Decisions about share groups (KIP-932): members, epochs, targets, and the states of share partitions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kraft.coordinators.groups.classic_group import ClassicGroup
from kraft.coordinators.groups.classic_requests import GroupEvent, Heartbeat, Join, Leave, Sync, Tick, Untold
from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat
from kraft.coordinators.groups.group_metadata import GroupMetadata, Kind
from kraft.coordinators.groups.group_protocols import decide_share_group
from kraft.coordinators.groups.records import GroupRecord, decode_record, encode_key, encode_value
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_protocol import INITIALIZING_HEARTBEAT_MS, ShareRules, check_share_heartbeat
from kraft.coordinators.groups.share_records import ShareStatesKey, ShareTargetEpochKey
from kraft.coordinators.groups.share_requests import (
    InitializeStates,
    ShareHeartbeat,
    ShareHeartbeatAnswer,
    ShareTopicsDeleted,
    StatesInitialized,
)
from kraft.protocol.errors import (
    FencedMemberEpoch,
    GroupIdNotFound,
    GroupMaxSizeReached,
    InconsistentGroupProtocol,
    InvalidRequest,
    KafkaError,
    UnknownMemberId,
)
from metadata.image import TopicIdPartition
from metadata.records import RemoveTopicRecord
from tests.unit.coordinators.consumer_story import image_of

RULES: dict[str, Any] = {
    "session_timeout_ms": 45_000,
    "heartbeat_interval_ms": 5_000,
    "assignment_interval_ms": 1_000,
    "members_max": 200,
    "initialize_retry_ms": 30_000,
}


class Story:
    """One share group in virtual time; a share coordinator that answers when it is told to."""

    def __init__(self, topics: dict[str, int] | None = None, **changes: Any) -> None:
        self.rules = ShareRules(**{**RULES, **changes})
        self.image = image_of(topics or {"a": 4})
        self.share: ShareGroup | None = None
        self.now_ms = 0
        self.asked: InitializeStates | None = None
        """By the last event."""
        self.last: tuple[GroupRecord, ...] = ()
        self._replayed = GroupMetadata(group=ClassicGroup(group_id="g"))

    @property
    def here(self) -> ShareGroup:
        assert self.share is not None
        return self.share

    def do(self, event: GroupEvent, *, exists: bool = False) -> Any:
        before = self.share
        decision = decide_share_group(
            ClassicGroup(group_id="g"),
            None,
            self.share,
            event,
            exists=exists,
            rules=self.rules,
            image=self.image,
            now_ms=self.now_ms,
            wall_ms=1_000_000 + self.now_ms,
        )
        self.share, self.asked, self.last = decision.share, decision.to_initialize, decision.records
        self._replay(decision.records)
        if isinstance(event, Untold):
            assert not decision.replies
            return None
        (reply,) = decision.replies
        assert reply.ticket == event.ticket
        if isinstance(reply.answer, KafkaError):
            assert (self.share, self.last) == (before, ()), "a refusal changes nothing"
        return reply.answer

    def _replay(self, records: tuple[GroupRecord, ...]) -> None:
        """The next coordinator knows the same."""
        for each in records:
            record = decode_record(encode_key(each.key), encode_value(each.value))
            assert record is not None
            self._replayed.apply(record, now_ms=0, is_replay=True)
        mine, replayed = self.share, self._replayed.share
        if mine is None or replayed is None:
            assert mine is None
            assert replayed is None
            return
        for name in ("epoch", "metadata_hash", "assignment_epoch", "states"):
            assert getattr(mine, name) == getattr(replayed, name), name
        for name in ("members", "targets", "topic_counts"):
            assert dict(getattr(mine, name)) == dict(getattr(replayed, name)), name

    def beat(self, member_id: str, epoch: int, **fields: Any) -> Any:
        event = ShareHeartbeat(
            ticket=1, member_id=member_id, member_epoch=epoch, client_id="c", client_host="/h", **fields
        )
        return self.do(event)

    def join(self, member_id: str, *topics: str) -> ShareHeartbeatAnswer:
        answer = self.beat(member_id, 0, topics=frozenset(topics or ("a",)))
        assert isinstance(answer, ShareHeartbeatAnswer), answer
        return answer

    def initialize(self) -> None:
        """The share coordinator has all that it was asked for."""
        assert self.asked is not None
        self.do(StatesInitialized(initialized=frozenset(self.asked.start_offsets)))

    def of(self, topic: str, *numbers: int) -> Partitions:
        topic_id = self.image.topic_ids[topic]
        return frozenset(TopicIdPartition(topic_id, number) for number in numbers)

    def settle(self, *member_ids: str) -> dict[str, Partitions]:
        """Heartbeats until nobody has news."""
        for _ in range(4):
            for member_id in member_ids:
                answer = self.beat(member_id, self.here.members[member_id].member_epoch)
                assert isinstance(answer, ShareHeartbeatAnswer), answer
        return {member_id: self.here.members[member_id].assigned for member_id in member_ids}


def test_a_partition_is_assigned_once_it_has_a_state() -> None:
    story = Story()
    first = story.join("m")
    assert (first.member_epoch, first.heartbeat_interval_ms, first.assignment) == (2, 5_000, frozenset())
    assert story.asked is not None
    assert (story.asked.group_id, story.asked.state_epoch) == ("g", 2)
    assert story.asked.start_offsets == dict.fromkeys(story.of("a", 0, 1, 2, 3), -1)
    assert story.here.initializing == story.of("a", 0, 1, 2, 3)
    assert story.here.state == "Stable"
    story.initialize()
    assert story.here.initialized == story.of("a", 0, 1, 2, 3)
    second = story.beat("m", 2)
    assert (second.member_epoch, second.assignment) == (3, story.of("a", 0, 1, 2, 3))
    third = story.beat("m", 3)
    assert (third.member_epoch, third.assignment) == (3, None)
    assert story.last == (), "a heartbeat without news writes nothing"


def test_the_first_assignment_comes_soon_after_late_states() -> None:
    """Kafka's comes with the second heartbeat, or with a later one, a whole interval behind the states."""
    story = Story()
    assert story.join("m").heartbeat_interval_ms == 5_000
    story.now_ms += 5_000
    late = story.beat("m", 2)
    assert (late.heartbeat_interval_ms, late.assignment) == (INITIALIZING_HEARTBEAT_MS, None)
    story.do(StatesInitialized(initialized=story.of("a", 0, 1), failed=story.of("a", 2, 3)))
    story.now_ms += INITIALIZING_HEARTBEAT_MS
    some = story.beat("m", 2)
    assert (some.heartbeat_interval_ms, some.assignment) == (5_000, story.of("a", 0, 1)), "it has work to do"
    other = story.join("other", "nothing")
    idle = story.beat("other", other.member_epoch)
    assert story.here.initializing == story.of("a", 2, 3)
    assert (idle.heartbeat_interval_ms, idle.assignment) == (5_000, None), "nothing that it wants is missing"


def test_a_new_group_has_an_epoch_before_its_first_assignment() -> None:
    """KAFKA-20268."""
    group = ShareGroup(group_id="g")
    assert (group.epoch, group.assignment_epoch, group.state) == (1, 1, "Empty")


def test_members_share_the_partitions_and_get_all_when_the_others_have_gone() -> None:
    story = Story({"a": 2})
    story.join("m1")
    story.initialize()
    for name in ("m2", "m3", "m4"):
        story.join(name)
    assigned = story.settle("m1", "m2", "m3", "m4")
    assert sorted(len(each) for each in assigned.values()) == [1, 1, 1, 1]
    assert frozenset().union(*assigned.values()) == story.of("a", 0, 1)
    for name in ("m2", "m3", "m4"):
        answer = story.beat(name, -1)
        assert (answer.member_id, answer.member_epoch) == (name, -1)
    assert story.settle("m1") == {"m1": story.of("a", 0, 1)}


def test_the_last_member_leaves_no_target_of_an_older_epoch_behind() -> None:
    """KAFKA-20442."""
    story = Story()
    story.join("m")
    story.initialize()
    story.settle("m")
    story.beat("m", -1)
    assert isinstance(story.last[-1].key, ShareTargetEpochKey)
    assert story.here.epoch == story.here.assignment_epoch
    assert (story.here.state, dict(story.here.targets), story.here.subscribed_topics) == ("Empty", {}, frozenset())
    assert story.here.initialized == story.of("a", 0, 1, 2, 3), "the group begins there again"
    assert story.join("m").assignment == story.of("a", 0, 1, 2, 3)


def test_partitions_that_a_known_topic_gets_later_begin_with_their_first_record() -> None:
    """KAFKA-20742: with `latest` what is written before the state exists would be lost."""
    story = Story()
    story.join("m")
    story.initialize()
    story.settle("m")
    story.image = image_of({"a": 6, "b": 1}, base=story.image)
    story.share = _unchecked(story.here)
    epoch = story.here.epoch
    story.beat("m", story.here.members["m"].member_epoch)
    assert story.here.epoch == epoch + 1, "the topics have changed"
    assert story.asked is not None
    assert story.asked.start_offsets == dict.fromkeys(story.of("a", 4, 5), 0)
    story.initialize()
    assert story.settle("m") == {"m": story.of("a", 0, 1, 2, 3, 4, 5)}
    story.beat("m", story.here.members["m"].member_epoch, topics=frozenset({"a", "b"}))
    assert story.asked is not None
    assert story.asked.start_offsets == dict.fromkeys(story.of("b", 0), -1)


def _unchecked(group: ShareGroup) -> ShareGroup:
    """As the shell marks all groups when topics have come, grown or gone."""
    group = group.copy()
    group.is_metadata_checked = False
    return group


def test_what_is_not_initialised_in_time_is_asked_for_again() -> None:
    story = Story()
    epoch = story.join("m").member_epoch
    story.now_ms = 29_999
    story.beat("m", epoch)
    assert story.asked is None
    story.now_ms = 30_000
    story.beat("m", epoch)
    assert story.asked is not None
    assert len(story.asked.start_offsets) == 4
    assert story.last == (), "they are known to be in initialisation"
    story.beat("m", epoch)
    assert story.asked is None


def test_what_failed_is_asked_for_with_the_next_heartbeat() -> None:
    story = Story()
    epoch = story.join("m").member_epoch
    story.do(StatesInitialized(initialized=story.of("a", 0), failed=story.of("a", 1, 2, 3)))
    assert (story.here.initialized, story.here.initializing) == (story.of("a", 0), frozenset())
    epoch = story.beat("m", epoch).member_epoch
    assert story.asked is not None
    assert frozenset(story.asked.start_offsets) == story.of("a", 1, 2, 3)
    story.initialize()
    assert story.settle("m") == {"m": story.of("a", 0, 1, 2, 3)}


def test_states_of_another_time_change_nothing() -> None:
    story = Story()
    story.join("m")
    story.initialize()
    story.do(StatesInitialized(initialized=story.of("a", 0), failed=story.of("a", 1)))
    assert story.last == ()
    assert story.here.initialized == story.of("a", 0, 1, 2, 3)


def test_a_coordinator_that_loads_the_group_asks_again_at_once() -> None:
    story = Story()
    epoch = story.join("m").member_epoch
    loaded = story.here.copy()
    loaded.asked_ms = {}
    story.share = loaded
    story.beat("m", epoch)
    assert story.asked is not None
    assert len(story.asked.start_offsets) == 4


def test_a_topic_that_is_deleted_takes_its_states_along() -> None:
    story = Story({"a": 2, "b": 1})
    story.join("m", "a", "b")
    story.initialize()
    story.settle("m")
    gone = story.image.topic_ids["a"]
    story.image = story.image.apply([RemoveTopicRecord(topic_id=gone)])
    story.share = _unchecked(story.here)
    story.do(ShareTopicsDeleted(topic_ids=frozenset({gone})))
    assert [type(each.key) for each in story.last] == [ShareStatesKey]
    assert story.here.with_state == story.of("b", 0)
    story.do(ShareTopicsDeleted(topic_ids=frozenset({gone})))
    assert story.last == ()
    assert story.settle("m") == {"m": story.of("b", 0)}


def test_what_a_member_does_not_want_any_more_it_has_no_more_at_once() -> None:
    """KAFKA-19431."""
    story = Story({"a": 1, "b": 1})
    story.join("m", "a", "b")
    story.initialize()
    story.settle("m")
    answer = story.beat("m", story.here.members["m"].member_epoch, topics=frozenset({"b"}))
    assert answer.assignment == story.of("b", 0)
    assert story.here.subscribed_topics == {"b"}


def test_unsubscribed_topics_are_revoked_before_next_assignment() -> None:
    story = Story({"a": 8, "b": 8})
    story.join("m", "a", "b")
    story.initialize()
    story.settle("m")
    for number in range(100):
        story.join(f"m{number:02}", "a", "b")
    assert len(story.here.members) == 101
    story.now_ms += 1_000
    (has, *_) = story.settle("m")["m"]
    left = "b" if has.topic_id == story.image.topic_ids["a"] else "a"
    before = story.here.assignment_epoch
    answer = story.beat("m", story.here.members["m"].member_epoch, topics=frozenset({left}))
    assert story.here.assignment_epoch == before < story.here.epoch
    assert answer.assignment is not None
    assert has not in answer.assignment
    assert {each.topic_id for each in answer.assignment} <= {story.image.topic_ids[left]}


def test_another_topic_is_asked_for_without_those_that_are_being_initialised() -> None:
    story = Story({"a": 2, "b": 1})
    story.join("m1", "a")
    story.join("m2", "a", "b")
    assert story.asked is not None
    assert frozenset(story.asked.start_offsets) == story.of("b", 0)
    assert story.here.initializing == story.of("a", 0, 1) | story.of("b", 0)


def test_all_is_reported_to_a_member_that_joins_again_or_names_its_topics() -> None:
    story = Story()
    story.join("m")
    story.initialize()
    story.settle("m")
    epoch = story.here.members["m"].member_epoch
    assert story.beat("m", epoch, topics=frozenset({"a"})).assignment == story.of("a", 0, 1, 2, 3)
    again = story.join("m")
    assert (again.member_epoch, again.assignment) == (epoch, story.of("a", 0, 1, 2, 3)), "KAFKA-19233"
    assert story.last == ()


def test_the_epoch_before_the_current_one_is_taken_and_no_other() -> None:
    story = Story()
    first = story.join("m").member_epoch
    story.initialize()
    second = story.beat("m", first).member_epoch
    assert second == first + 1
    assert story.beat("m", first).member_epoch == second, "the answer was lost"
    story.join("other")
    third = story.beat("m", second).member_epoch
    assert third > second
    for epoch in (first, third + 1):
        assert isinstance(story.beat("m", epoch), FencedMemberEpoch)
    assert isinstance(story.beat("nobody", third), UnknownMemberId)
    assert isinstance(story.beat("nobody", -1), UnknownMemberId)


def test_a_member_that_is_silent_is_out_and_its_partitions_are_the_others() -> None:
    story = Story({"a": 2})
    story.join("m1")
    story.initialize()
    story.join("m2")
    story.settle("m1", "m2")
    story.now_ms = 40_000
    story.settle("m2")
    story.now_ms = 45_000
    story.do(Tick())
    assert list(story.here.members) == ["m2"]
    assert story.here.next_deadline_ms() == 85_000
    assert story.settle("m2") == {"m2": story.of("a", 0, 1)}


def test_one_member_more_than_allowed_is_refused() -> None:
    story = Story(members_max=2)
    story.join("m1")
    story.join("m2")
    assert isinstance(story.beat("m3", 0, topics=frozenset({"a"})), GroupMaxSizeReached)
    assert story.beat("m2", 0, topics=frozenset({"a"})).member_id == "m2"


@pytest.mark.long
def test_ten_thousand_members_come_and_go_and_leave_nothing_behind() -> None:
    """Half of them leave, and half are silent from then on."""
    story = Story(members_max=11)
    story._replay = lambda records: None  # type: ignore[method-assign]  # it has most of the time
    story.join("stays")
    story.initialize()
    for wave in range(1_000):
        names = [f"{wave}-{number}" for number in range(10)]
        for name in names:
            story.join(name)
        assert isinstance(story.beat("late", 0, topics=frozenset({"a"})), GroupMaxSizeReached)
        for name in names[::2]:
            story.beat(name, -1)
        story.now_ms += 30_000
        story.beat("stays", story.here.members["stays"].member_epoch)
        story.now_ms += 30_000
        story.do(Tick())
        assert list(story.here.members) == ["stays"]
    assert story.settle("stays") == {"stays": story.of("a", 0, 1, 2, 3)}
    assert list(story.here.targets) == ["stays"]
    story.beat("stays", -1)
    assert (dict(story.here.members), dict(story.here.targets)) == ({}, {})


def test_a_large_group_is_assigned_once_in_an_interval() -> None:
    story = Story({"a": 8})
    for number in range(101):
        story.join(f"m{number}")
        if number == 0:
            story.initialize()
    epoch = story.here.epoch
    assigned = story.here.assignment_epoch
    answer = story.join("late")
    assert story.here.epoch == epoch + 1
    assert story.here.assignment_epoch == assigned == answer.member_epoch
    assert answer.assignment == frozenset()
    story.now_ms += 1_000
    answer = story.beat("late", answer.member_epoch)
    assert answer.member_epoch == story.here.epoch
    assert answer.assignment


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Sync(ticket=1, member_id="x", generation=1), UnknownMemberId),
        (Heartbeat(ticket=1, member_id="x", generation=1), UnknownMemberId),
        (Leave(ticket=1, member_id="x"), UnknownMemberId),
        (ConsumerHeartbeat(ticket=1, member_id="x", member_epoch=0, client_id="c", client_host="/h"), GroupIdNotFound),
        (
            Join(
                ticket=1,
                client_id="c",
                client_host="/h",
                session_timeout_ms=10_000,
                rebalance_timeout_ms=10_000,
                protocol_type="consumer",
                protocols=(("range", b""),),
                new_member_id="x",
            ),
            InconsistentGroupProtocol,
        ),
    ],
)
def test_a_member_of_another_protocol_is_refused(event: GroupEvent, error: type[KafkaError]) -> None:
    story = Story()
    story.join("m")
    assert isinstance(story.do(event), error)


def test_a_group_of_another_type_and_one_that_is_not_there_are_not_found() -> None:
    story = Story()
    assert isinstance(story.beat("m", 1), GroupIdNotFound)
    assert isinstance(story.beat("m", -1), GroupIdNotFound)
    joining = ShareHeartbeat(
        ticket=1, member_id="m", member_epoch=0, client_id="c", client_host="/h", topics=frozenset({"a"})
    )
    refused = story.do(joining, exists=True)
    assert isinstance(refused, GroupIdNotFound)
    assert refused.message == "Group g is not a share group."
    assert story.share is None


@pytest.mark.parametrize(
    "fields",
    [
        {"member_id": " "},
        {"rack_id": ""},
        {"topics": None},
        {"topics": frozenset()},
        {"member_epoch": -2},
        {"member_epoch": -(2**31)},
    ],
)
def test_a_heartbeat_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    plain: dict[str, Any] = {
        "ticket": 1,
        "member_id": "m",
        "member_epoch": 0,
        "client_id": "c",
        "client_host": "/h",
        "topics": frozenset({"a"}),
    }
    check_share_heartbeat(ShareHeartbeat(**plain))
    with pytest.raises(InvalidRequest):
        check_share_heartbeat(ShareHeartbeat(**plain | fields))


def test_a_share_group_is_one_among_groups() -> None:
    story = Story()
    story.join("m")
    entry = GroupMetadata(group=ClassicGroup(group_id="g"), share=story.here)
    assert (entry.kind, entry.state, entry.protocol_type) == (Kind.SHARE, "Stable", "share")
    assert set(entry.member_ids) == {"m"}
    assert entry.exists
    assert not entry.is_empty
    assert entry.next_deadline_ms() == 45_000
    for tombstone in entry.group_tombstones():
        entry.apply(tombstone, now_ms=0, is_replay=True)
    assert entry.share is None
    assert not entry.exists


@pytest.mark.parametrize("seed", range(40))
def test_members_that_come_and_go_are_served_and_the_log_holds_the_same(seed: int) -> None:
    rng = random.Random(seed)
    story = Story({"a": rng.randint(1, 5), "b": rng.randint(1, 3)})
    names = [f"m{number}" for number in range(8)]
    for _ in range(60):
        name = rng.choice(names)
        known = None if story.share is None else story.share.members.get(name)
        match rng.randint(0, 9):
            case 0 if known is not None:
                story.beat(name, -1)
            case 1:
                story.now_ms += rng.randint(0, 50_000)
                if story.share is not None:
                    story.do(Tick())
            case 2 if story.share is not None and story.share.initializing:
                done = frozenset(rng.sample(sorted(story.share.initializing), rng.randint(1, 2) % 2))
                story.do(StatesInitialized(initialized=done, failed=story.share.initializing - done))
            case 3 if story.share is not None and story.share.initializing:
                story.do(StatesInitialized(initialized=story.share.initializing))
            case 4 if known is not None:
                story.beat(name, known.member_epoch, topics=frozenset(rng.sample("ab", rng.randint(1, 2))))
            case _ if known is None:
                story.join(name, *rng.sample("ab", rng.randint(1, 2)))
            case _:
                story.beat(name, known.member_epoch)
    alive = sorted(story.here.members) if story.share is not None else []
    if not alive:
        return
    story.now_ms += 30_000
    for _ in range(4):
        for name in alive:
            story.beat(name, story.here.members[name].member_epoch)
            if story.asked is not None:
                story.initialize()
    assigned = story.settle(*alive)
    wanted = frozenset().union(*(story.here.members[name].topics for name in alive))
    ids = {story.image.topic_ids[each]: each for each in wanted}
    for name, partitions in assigned.items():
        assert {ids[each.topic_id] for each in partitions} <= story.here.members[name].topics
    everything = {each for each in story.here.initialized if each.topic_id in ids}
    assert frozenset().union(*assigned.values()) == everything
    counts = [len(story.image.topics[topic_id].partitions) for topic_id in ids]
    assert len(everything) == sum(counts)
