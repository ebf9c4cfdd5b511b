"""The consumer protocol (KIP-848) as stories of one group: epochs, assignments, static members, patterns, refusals."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from kraft.coordinators.groups.consumer_group import GroupState, MemberState
from kraft.coordinators.groups.consumer_protocol import check_heartbeat
from kraft.coordinators.groups.consumer_records import CurrentKey, EpochKey, MemberKey, TargetKey
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer
from kraft.protocol import errors
from metadata.records import AccessControlEntryRecord, RemoveAccessControlEntryRecord
from tests.unit.coordinators.consumer_story import Client, Story, image_of, partitions


def settle(*clients: Client, rounds: int = 10) -> None:
    for _ in range(rounds):
        for client in clients:
            answer = client.beat()
            assert isinstance(answer, ConsumerHeartbeatAnswer), answer


def test_first_member_gets_all_partitions():
    story = Story({"a": 3, "b": 2})
    answer = story.join("m1", "a", "b")
    assert answer == ConsumerHeartbeatAnswer(
        member_id="m1",
        member_epoch=2,
        heartbeat_interval_ms=5_000,
        assignment=partitions(story.image, "a", 0, 1, 2) | partitions(story.image, "b", 0, 1),
    )
    assert [type(each.key) for each in story.last][:2] == [MemberKey, EpochKey]
    again = story.beat("m1", 2)
    assert (again.member_epoch, again.assignment, story.last) == (2, None, ())
    assert story.here.state is GroupState.STABLE


def test_a_second_member_gets_its_half_when_the_first_has_given_it_up():
    story = Story({"a": 4})
    first, second = Client(story, "m1"), Client(story, "m2")
    first.beat()
    assert second.beat().assignment == frozenset()
    assert story.here.members["m2"].state is MemberState.UNRELEASED_PARTITIONS
    assert len(first.beat().assignment) == 2, "told to give up"
    assert (first.epoch, story.here.state) == (2, GroupState.RECONCILING)
    assert second.beat().assignment is None, "the first has not said yet that it gave up"
    assert first.beat().member_epoch == 3
    assert len(second.beat().assignment) == 2
    assert first.owned | second.owned == partitions(story.image, "a", 0, 1, 2, 3)
    assert story.here.state is GroupState.STABLE


def test_a_member_that_leaves_frees_what_it_had():
    story = Story({"a": 4})
    first, second = Client(story, "m1"), Client(story, "m2")
    settle(first, second)
    left = second.leave()
    assert (left.member_id, left.member_epoch, left.assignment) == ("m2", -1, None)
    settle(first)
    assert first.owned == partitions(story.image, "a", 0, 1, 2, 3)
    first.leave()
    assert story.here.state is GroupState.EMPTY


def test_silent_member_is_evicted_after_session():
    story = Story({"a": 4})
    first, second = Client(story, "m1"), Client(story, "m2")
    settle(first, second)
    story.wait(44_000)
    first.beat()
    story.wait(1_000)
    assert list(story.here.members) == ["m1"]
    assert isinstance(second.beat(), errors.UnknownMemberId)
    settle(first)
    assert len(first.owned) == 4


def test_who_does_not_give_up_in_time_is_out():
    story = Story({"a": 4})
    story.join("m1")
    story.join("m2")
    epoch = story.here.members["m1"].member_epoch
    story.beat("m1", epoch)
    for _ in range(6):
        story.wait(5_000)
        story.beat("m1", epoch)
        story.beat("m2", story.here.members["m2"].member_epoch)
    assert list(story.here.members) == ["m2"]
    assert isinstance(story.beat("m1", epoch), errors.UnknownMemberId)


def test_who_gave_up_in_time_is_not_out():
    story = Story({"a": 4})
    first, second = Client(story, "m1"), Client(story, "m2")
    settle(first, second)
    for _ in range(20):
        story.wait(5_000)
        settle(first, second, rounds=1)
    assert list(story.here.members) == ["m1", "m2"]


# --- epochs -----------------------------------------------------------------------------------------------------------


def test_the_epoch_before_is_taken_from_who_owns_no_more_than_it_has():
    story = Story({"a": 2})
    story.join("m1")
    everything = partitions(story.image, "a", 0, 1)
    story.beat("m1", 2, topics=frozenset({"a", "nothing"}))  # its answer is lost
    assert story.here.members["m1"].member_epoch == 3
    assert isinstance(story.beat("m1", 2), errors.FencedMemberEpoch), "it does not say what it owns"
    again = story.beat("m1", 2, owned=everything)
    assert again.member_epoch == 3
    more = everything | partitions(image_of({"a": 3}), "a", 2)
    assert isinstance(story.beat("m1", 2, owned=more), errors.FencedMemberEpoch)


@pytest.mark.parametrize("epoch", [3, 5])
def test_an_epoch_ahead_is_fenced(epoch: int):
    story = Story()
    story.join("m1")
    assert isinstance(story.beat("m1", epoch), errors.FencedMemberEpoch)


def test_who_was_fenced_begins_again_with_epoch_0_under_its_id():
    story = Story({"a": 2})
    story.join("m1")
    assert isinstance(story.beat("m1", 7), errors.FencedMemberEpoch)
    assert story.join("m1").assignment == partitions(story.image, "a", 0, 1)
    assert list(story.here.members) == ["m1"]


def test_a_full_heartbeat_receives_all():
    story = Story({"a": 2})
    story.join("m1")
    everything = partitions(story.image, "a", 0, 1)
    full = story.beat("m1", 2, rebalance_timeout_ms=30_000, topics=frozenset({"a"}), owned=everything)
    assert full.assignment == everything
    assert story.beat("m1", 2, owned=everything).assignment is None


def test_refusals_change_nothing():
    story = Story(members_max=1)
    assert isinstance(story.beat("m1", 3), errors.GroupIdNotFound)
    assert story.consumer is None
    story.join("m1")
    before = story.here
    assert isinstance(story.join("m2"), errors.GroupMaxSizeReached)
    assert isinstance(story.beat("m2", 1), errors.GroupMaxSizeReached)
    assert isinstance(story.beat("m2", -1), errors.UnknownMemberId)
    assert story.here == before
    assert story.last == ()


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "version", "error"),
    [
        ({}, 1, None),
        ({"member_id": ""}, 0, None),
        ({"member_id": ""}, 1, errors.InvalidRequest),
        ({"member_id": "", "member_epoch": 4}, 0, errors.InvalidRequest),
        ({"member_id": "", "member_epoch": -1}, 0, errors.InvalidRequest),
        ({"instance_id": " "}, 1, errors.InvalidRequest),
        ({"rack_id": ""}, 1, errors.InvalidRequest),
        ({"rebalance_timeout_ms": -1}, 1, errors.InvalidRequest),
        ({"owned": None}, 1, errors.InvalidRequest),
        ({"owned": partitions(image_of({"a": 1}), "a", 0)}, 1, errors.InvalidRequest),
        ({"topics": None}, 1, errors.InvalidRequest),
        ({"topics": None, "pattern": ""}, 1, None),
        ({"topics": frozenset()}, 1, None),
        ({"member_epoch": -2}, 1, errors.InvalidRequest),
        ({"member_epoch": -2, "instance_id": "i"}, 1, None),
        ({"member_epoch": -3}, 1, errors.InvalidRequest),
        ({"assignor": "range"}, 1, None),
        ({"assignor": "cooperative"}, 1, errors.UnsupportedAssignor),
    ],
)
def test_what_a_request_must_say(changes: dict[str, Any], version: int, error: type[errors.KafkaError] | None):
    fields: dict[str, Any] = {
        "ticket": 1,
        "member_id": "m",
        "member_epoch": 0,
        "client_id": "c",
        "client_host": "/h",
        "rebalance_timeout_ms": 1_000,
        "topics": frozenset({"a"}),
        "owned": frozenset(),
    }
    event = ConsumerHeartbeat(**{**fields, **changes})
    if error is None:
        check_heartbeat(event, assignors=("uniform", "range"), version=version)
    else:
        with pytest.raises(error):
            check_heartbeat(event, assignors=("uniform", "range"), version=version)


# --- static members ---------------------------------------------------------------------------------------------------


def test_static_member_gets_its_partitions_back():
    story = Story({"a": 4})
    first, second = Client(story, "m1", instance_id="i1"), Client(story, "m2", instance_id="i2")
    settle(first, second)
    had, epoch = second.owned, story.here.epoch
    left = second.leave(-2)
    assert (left.member_epoch, story.here.members["m2"].member_epoch) == (-2, -2)
    settle(first)
    assert len(first.owned) == 2
    back = Client(story, "m3", instance_id="i2")
    assert back.beat().assignment == had
    assert (story.here.epoch, sorted(story.here.members)) == (epoch, ["m1", "m3"])
    assert isinstance(second.beat(), errors.UnreleasedInstanceId)
    assert isinstance(story.beat("m2", epoch, instance_id="i2"), errors.FencedInstanceId)


def test_the_place_of_a_static_member_is_kept_for_its_session_only():
    story = Story({"a": 4})
    first, second = Client(story, "m1"), Client(story, "m2", instance_id="i2")
    settle(first, second)
    second.leave(-2)
    for _ in range(9):
        settle(first, rounds=1)
        story.wait(5_000)
    assert list(story.here.members) == ["m1"]
    settle(first)
    assert len(first.owned) == 4


def test_an_instance_id_is_held_until_it_is_released():
    story = Story()
    story.join("m1", instance_id="i")
    assert isinstance(story.join("m2", instance_id="i"), errors.UnreleasedInstanceId)
    assert isinstance(story.beat("m2", 1, instance_id="i"), errors.FencedInstanceId)
    assert isinstance(story.beat("m2", -1, instance_id="i"), errors.FencedInstanceId)
    assert isinstance(story.beat("m2", 1, instance_id="other"), errors.UnknownMemberId)
    assert story.beat("m1", -1, instance_id="i").member_epoch == -1
    assert story.join("m2", instance_id="i").member_epoch > 1


def test_a_static_member_comes_back_with_another_subscription():
    story = Story({"a": 2, "b": 2})
    client = Client(story, "m1", instance_id="i")
    settle(client)
    client.leave(-2)
    back = Client(story, "m2", instance_id="i", topics=frozenset({"b"}))
    settle(back)
    assert back.owned == partitions(story.image, "b", 0, 1)


# --- topics and patterns ----------------------------------------------------------------------------------------------


def test_partitions_and_topics_that_come_are_assigned_at_the_next_heartbeat():
    story = Story({"a": 2})
    client = Client(story, "m1", topics=frozenset({"a", "later"}))
    settle(client)
    story.image = image_of({"a": 3, "later": 1}, base=story.image)
    story.consumer.is_metadata_checked = False
    settle(client)
    assert client.owned == partitions(story.image, "a", 0, 1, 2) | partitions(story.image, "later", 0)
    assert client.epoch == 3


def test_pattern_matches_whole_names_and_new_topics():
    story = Story({"t1": 1, "t2": 1, "other": 1, "__consumer_offsets": 1})
    client = Client(story, "m1", topics=frozenset(), pattern="t.*")
    client.beat()
    assert client.owned == partitions(story.image, "t1", 0) | partitions(story.image, "t2", 0)
    story.image = image_of({"t3": 1}, base=story.image)
    client.beat()
    assert len(client.owned) == 2, "too soon"
    story.wait(10_000)
    client.beat()
    assert len(client.owned) == 3
    everything = Client(story, "m2", topics=frozenset({"other"}), pattern=".*")
    settle(everything, client)
    assert len(client.owned | everything.owned) == 4
    client.leave()
    assert list(story.here.patterns) == [".*"]


def test_a_pattern_matches_what_its_member_may_describe_until_acls_change():
    story = Story({"t1": 1, "t2": 1, "other": 1})
    allowed = {"t2", "other"}
    client = Client(story, "m1", topics=frozenset(), pattern="t.*", may_describe=lambda name: name in allowed)
    settle(client)
    assert client.owned == partitions(story.image, "t2", 0)
    allowed.add("t1")
    story.wait(10_000)
    settle(client)
    assert len(client.owned) == 1, "nothing has changed that the coordinator could know"
    acl = {"resource_type": 2, "resource_name": "t1", "pattern_type": 3, "principal": "User:alice", "host": "*"}
    record = AccessControlEntryRecord(id=uuid.uuid4(), operation=8, permission_type=3, **acl)
    story.image = story.image.apply([record])
    settle(client)
    assert len(client.owned) == 2
    allowed.remove("t2")
    story.image = story.image.apply([RemoveAccessControlEntryRecord(id=record.id)])
    story.wait(10_000)
    settle(client)
    assert client.owned == partitions(story.image, "t1", 0)


def test_a_pattern_that_is_no_re2_is_refused():
    story = Story()
    for pattern in ("(?=a)", "(", "a{2000}"):
        answer = story.join("m1", pattern=pattern)
        assert isinstance(answer, errors.InvalidRegularExpression), pattern
    assert story.consumer is None


def test_a_member_changes_its_pattern_for_names_and_loses_the_rest_at_once():
    story = Story({"t1": 1, "t2": 1})
    client = Client(story, "m1", topics=frozenset(), pattern="t.*")
    settle(client)
    answer = story.beat("m1", client.epoch, topics=frozenset({"t1"}), pattern="")
    assert answer.assignment == partitions(story.image, "t1", 0)
    assert story.here.patterns == {}


def test_the_assignor_that_most_members_name_is_used():
    story = Story({"a": 2, "b": 2})
    for member_id in ("m1", "m2"):
        story.join(member_id, "a", "b", assignor="range")
    assert story.here.preferred_assignor(story.rules.assignors) == "range"
    targets = story.here.targets
    assert targets["m1"] == partitions(story.image, "a", 0) | partitions(story.image, "b", 0)
    assert targets["m2"] == partitions(story.image, "a", 1) | partitions(story.image, "b", 1)


def test_a_member_that_wants_nothing_is_in_the_group():
    story = Story()
    answer = story.join("m1", topics=frozenset())
    assert (answer.member_epoch, answer.assignment) == (1, frozenset())
    assert story.here.state is GroupState.STABLE


# --- the log ----------------------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_written():
    story = Story({"a": 2})
    first, second = Client(story, "m1"), Client(story, "m2")
    settle(first, second)
    written = len(story.log)
    settle(first, second)
    assert len(story.log) == written
    third = Client(story, "m3")
    third.beat()
    assert {type(each.key) for each in story.last} >= {MemberKey, EpochKey}
    assert [each.key for each in story.last if isinstance(each.key, TargetKey)] == [TargetKey("g", "m3")]
    assert [each.key for each in story.last if isinstance(each.key, CurrentKey)] == [CurrentKey("g", "m3")]
