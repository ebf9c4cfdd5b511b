"""Groups that change their protocol, and members of the classic protocol in a group of the consumer protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kraft.coordinators.groups.classic_group import ClassicGroup, Phase, group_record
from kraft.coordinators.groups.classic_requests import Done, Join, Joined, Synced
from kraft.coordinators.groups.consumer_group import GroupState
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeatAnswer
from kraft.coordinators.groups.group_metadata import GroupMetadata, Kind
from kraft.coordinators.groups.modern_group import Timer
from kraft.coordinators.groups.records import GroupKey, decode_record, encode_key
from kraft.coordinators.groups.subscriptions import (
    Subscription,
    decode_assignment,
    encode_assignment,
    encode_subscription,
)
from kraft.protocol import errors
from tests.unit.coordinators.consumer_story import Client, Story


def wants(*topics: str, owned: tuple[tuple[str, int], ...] = ()) -> bytes:
    return encode_subscription(Subscription(topics=topics, owned=owned))


class ClassicClient:
    """A cooperative consumer of the classic protocol: it says what it owns when it joins, and gives up what it lost."""

    def __init__(self, story: Story, *topics: str, instance_id: str | None = None) -> None:
        self.story = story
        self.topics = topics or ("a",)
        self.instance_id = instance_id
        self.member_id = ""
        self.generation = -1
        self.owned: tuple[tuple[str, int], ...] = ()

    def join(self) -> Any:
        answer = self.story.classic_join(
            self.member_id, metadata=wants(*self.topics, owned=self.owned), instance_id=self.instance_id
        )
        if isinstance(answer, Joined):
            self.member_id, self.generation = answer.member_id, answer.generation
        return answer

    def sync(self, assignments: tuple[tuple[str, bytes], ...] = ()) -> Any:
        answer = self.story.classic_sync(
            self.member_id, self.generation, assignments=assignments, instance_id=self.instance_id
        )
        if isinstance(answer, Synced):
            self.owned = decode_assignment(answer.assignment)
        return answer

    def turn(self) -> Any:
        """A heartbeat, and what it is told to do."""
        beat = self.story.classic_beat(self.member_id, self.generation, instance_id=self.instance_id)
        if isinstance(beat, errors.RebalanceInProgress):
            joined = self.join()
            assert isinstance(joined, Joined), joined
            return self.sync()
        return beat


def joining(client: ClassicClient, story: Story) -> Any:
    number = len(story.group.members)
    client.member_id = f"c{number}"
    return Join(
        ticket=story.ticket(),
        client_id="c",
        client_host="/h",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=20_000,
        protocol_type="consumer",
        protocols=(("range", wants(*client.topics)),),
        new_member_id=client.member_id,
        instance_id=client.instance_id,
        is_known_required=False,
    )


def mixed() -> tuple[Story, list[ClassicClient], Client]:
    """A stable group of two classic members, and somebody who has not come yet and speaks the consumer protocol."""
    story = Story({"a": 4})
    classic = [ClassicClient(story), ClassicClient(story)]
    join_all(story, classic)
    return story, classic, Client(story, "n1")


def join_all(story: Story, clients: list[ClassicClient]) -> None:
    """All of them in one generation: the later ones make the earlier join again."""
    for client in clients:
        story.do(joining(client, story))
    for client in clients[:-1]:
        story.classic_join(client.member_id, metadata=wants(*client.topics), instance_id=client.instance_id)
    generation = story.group.generation
    share = 4 // len(clients)
    assignments = tuple(
        (client.member_id, encode_assignment(("a", number) for number in range(at * share, (at + 1) * share)))
        for at, client in enumerate(clients)
    )
    for client in clients:
        client.generation = generation
        is_leader = client.member_id == story.group.leader
        client.sync(assignments if is_leader else ())
    for client in clients:
        if not client.owned:
            client.sync()
    assert story.group.phase is Phase.STABLE


def settle(newer: list[Client], classic: list[ClassicClient], rounds: int = 10) -> None:
    for _ in range(rounds):
        for client in newer:
            assert isinstance(client.beat(), ConsumerHeartbeatAnswer)
        for member in classic:
            assert isinstance(member.turn(), Done | Synced)


def shares(newer: list[Client], classic: list[ClassicClient]) -> list[int]:
    numbers = [each.partition for client in newer for each in client.owned]
    numbers += [number for member in classic for _, number in member.owned]
    assert len(numbers) == len(set(numbers)), numbers
    return sorted([*(len(client.owned) for client in newer), *(len(member.owned) for member in classic)])


def test_a_heartbeat_upgrades_a_group_with_members_and_they_keep_what_they_can():
    story, classic, newer = mixed()
    generation, had = story.group.generation, [member.owned for member in classic]
    newer.beat()
    assert story.consumer is not None
    assert not story.group.members
    assert story.here.epoch == generation + 1
    settle([newer], classic)
    assert shares([newer], classic) == [1, 1, 2]
    assert all(set(member.owned) <= set(before) for member, before in zip(classic, had, strict=True))
    assert story.here.state is GroupState.STABLE


def test_the_last_member_of_the_consumer_protocol_takes_the_group_back_with_it():
    story, classic, newer = mixed()
    settle([newer], classic)
    newer.leave()
    assert story.consumer is None
    assert story.group.phase is Phase.PREPARING
    assert set(story.group.members) == {member.member_id for member in classic}
    restored, consumer = story.replayed(is_compacted=True)
    assert consumer is None
    assert set(restored.members) == set(story.group.members)
    assert restored.generation == story.group.generation


def test_group_is_downgraded_when_last_consumer_member_dies():
    story, classic, newer = mixed()
    settle([newer], classic)
    for _ in range(10):
        story.wait(5_000)
        for member in classic if story.consumer is not None else []:
            member.turn()
    assert story.consumer is None
    assert len(story.group.members) == 2


@pytest.mark.parametrize(
    ("changes", "reason"), [({"can_upgrade": False}, "disabled"), ({"members_max": 1}, "maximum size")]
)
def test_who_may_not_upgrade_receives_that_there_is_no_such_group(changes: dict[str, Any], reason: str):
    story, _, newer = mixed()
    story.rules = replace(story.rules, **changes)
    before = story.group
    answer = newer.beat()
    assert isinstance(answer, errors.GroupIdNotFound)
    assert reason in answer.message
    assert (story.group, story.consumer) == (before, None)


def test_a_group_that_may_not_be_downgraded_stays_what_it_is():
    story, classic, newer = mixed()
    story.rules = replace(story.rules, can_downgrade=False)
    settle([newer], classic)
    newer.leave()
    assert story.consumer is not None
    settle([], classic)
    assert shares([], classic) == [2, 2]


def test_groups_of_other_protocol_types_and_with_user_data_are_not_upgraded():
    story, _, newer = mixed()
    story.group = replace(story.group, protocol_type="connect")
    assert isinstance(newer.beat(), errors.GroupIdNotFound)
    story, classic, newer = mixed()
    member = story.group.members[classic[0].member_id]
    own = member._replace(assignment=encode_assignment([("a", 0)])[:-4] + b"\0\0\0\1x")
    story.group = replace(story.group, members={**story.group.members, own.member_id: own})
    assert "custom assignor" in newer.beat().message


def test_who_waits_for_an_answer_when_the_group_is_upgraded_joins_again():
    story = Story({"a": 4}, classic=replace(Story().rules.classic, initial_delay_ms=3_000))
    waiting = ClassicClient(story)
    event = joining(waiting, story)
    assert story.do(event) is None
    assert isinstance(Client(story, "n1").beat(), ConsumerHeartbeatAnswer)
    assert isinstance(story.answers[event.ticket], errors.RebalanceInProgress)
    assert set(story.here.members) == {"n1", waiting.member_id}


# --- members of the classic protocol ----------------------------------------------------------------------------------


def test_a_classic_member_joins_a_group_of_the_consumer_protocol():
    story = Story({"a": 4})
    newer, member = Client(story, "n1"), ClassicClient(story)
    settle([newer], [])
    joined = member.join()
    assert (joined.protocol_type, joined.protocol, joined.leader, joined.members) == ("consumer", "range", "", ())
    assert isinstance(member.sync(), Synced)
    settle([newer], [member])
    assert shares([newer], [member]) == [2, 2]
    assert isinstance(story.classic_leave(member.member_id), Done)
    settle([newer], [])
    assert len(newer.owned) == 4


def test_a_new_dynamic_member_receives_its_id_first():
    story = Story({"a": 4})
    settle([Client(story, "n1")], [])
    answer = story.classic_join(metadata=wants("a"), is_known_required=True)
    assert isinstance(answer, errors.MemberIdRequired)
    assert isinstance(story.classic_join(answer.message, metadata=wants("a"), is_known_required=True), Joined)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"protocol_type": "connect"}, errors.InconsistentGroupProtocol),
        ({"protocols": ()}, errors.InconsistentGroupProtocol),
        ({"protocols": (("range", b"\0"),)}, errors.InconsistentGroupProtocol),
        ({"session_timeout_ms": 1}, errors.InvalidSessionTimeout),
    ],
)
def test_a_classic_member_that_does_not_fit_is_refused(changes: dict[str, Any], error: type[errors.KafkaError]):
    story = Story({"a": 4})
    settle([Client(story, "n1")], [])
    before = story.here
    assert isinstance(story.classic_join(metadata=wants("a"), **changes), error)
    assert story.here == before


def test_a_classic_member_without_a_protocol_that_the_others_can_do_is_refused():
    story = Story({"a": 4})
    settle([Client(story, "n1")], [])
    story.classic_join(metadata=wants("a"))
    other = story.classic_join(metadata=wants("a"), protocols=(("sticky", wants("a")),))
    assert isinstance(other, errors.InconsistentGroupProtocol)


def test_generations_and_protocols_of_classic_members_are_checked():
    story = Story({"a": 4})
    newer, member = Client(story, "n1"), ClassicClient(story)
    settle([newer], [])
    member.join()
    assert isinstance(story.classic_sync(member.member_id, 99), errors.IllegalGeneration)
    assert isinstance(story.classic_beat(member.member_id, 99), errors.IllegalGeneration)
    assert isinstance(
        story.classic_sync(member.member_id, member.generation, protocol="sticky"), errors.InconsistentGroupProtocol
    )
    assert isinstance(story.classic_sync("nobody", 1), errors.UnknownMemberId)
    assert isinstance(story.classic_beat("n1", newer.epoch), errors.UnknownMemberId), "it speaks the other protocol"


@pytest.mark.parametrize("timer", [Timer.JOIN, Timer.SYNC])
def test_classic_member_without_sync_is_removed(timer: Timer):
    story = Story({"a": 4})
    newer, member = Client(story, "n1"), ClassicClient(story)
    settle([newer], [])
    member.join()
    if timer is Timer.JOIN:
        member.sync()
        settle([newer], [member])
        Client(story, "n2").beat()
        assert isinstance(story.classic_beat(member.member_id, member.generation), errors.RebalanceInProgress)
    assert [each for each, who in story.here.deadlines if who == member.member_id and each is not Timer.SESSION] == [
        timer
    ]
    for _ in range(3):
        story.wait(5_000)
        newer.beat()
        assert not isinstance(story.classic_beat(member.member_id, member.generation), errors.UnknownMemberId)
    story.wait(5_000)
    assert isinstance(story.classic_beat(member.member_id, member.generation), errors.UnknownMemberId)


def test_static_member_changes_protocol_and_back():
    story = Story({"a": 4})
    other, member = Client(story, "n1"), ClassicClient(story, instance_id="i")
    settle([other], [])
    member.join()
    member.sync()
    settle([other], [member])
    newer = Client(story, "n2", instance_id="i")
    settle([other, newer], [])
    assert shares([other, newer], []) == [2, 2]
    assert isinstance(story.classic_beat(member.member_id, member.generation, instance_id="i"), errors.FencedInstanceId)
    back = ClassicClient(story, instance_id="i")
    assert isinstance(back.join(), Joined)
    assert story.consumer is not None, "the other still speaks the consumer protocol"


def test_last_static_consumer_member_is_replaced():
    story = Story({"a": 4})
    newer = Client(story, "n1", instance_id="i")
    settle([newer], [])
    back = ClassicClient(story, instance_id="i")
    assert isinstance(back.join(), Joined)
    assert story.consumer is None
    assert (story.group.phase, list(story.group.members)) == (Phase.STABLE, [back.member_id])
    assert len(back.sync().assignment) > 0
    assert len(back.owned) == 4


def test_an_empty_group_takes_the_protocol_of_its_first_member():
    story = Story({"a": 4})
    newer = Client(story, "n1")
    newer.beat()
    newer.leave()
    member = ClassicClient(story)
    assert isinstance(story.classic_join("unknown", metadata=wants("a")), errors.UnknownMemberId)
    assert story.consumer is not None
    assert isinstance(member.join(), Joined)
    assert story.consumer is None
    assert story.replayed(is_compacted=True)[1] is None
    story.classic_leave(member.member_id)
    assert isinstance(Client(story, "n2").beat(), ConsumerHeartbeatAnswer)
    assert story.replayed(is_compacted=True)[0].generation == 0


def test_classic_group_of_kafka_3_9_replaces_a_consumer_group():
    """The group becomes a consumer group again with a tombstone first: Kafka 4 refuses to load it without."""
    story = Story({"a": 4})
    newer = Client(story, "n1")
    newer.beat()
    newer.leave()
    entry = GroupMetadata(group=ClassicGroup(group_id="g"))
    for key, value in story.log:
        record = decode_record(key, value)
        assert record is not None
        entry.apply(record, now_ms=0, is_replay=True)
    assert entry.kind is Kind.CONSUMER
    left = ClassicGroup(group_id="g", generation=3, protocol_type="consumer")
    entry.apply(group_record(left), now_ms=0, is_replay=True)
    assert (entry.kind, entry.group.generation, entry.protocol_type) == (Kind.CLASSIC, 3, "consumer")
    story.group, story.consumer, story.log = entry.group, entry.consumer, []
    assert isinstance(Client(story, "n2").beat(), ConsumerHeartbeatAnswer)
    assert story.log[0] == (encode_key(GroupKey("g")), None)
    assert set(story.here.members) == {"n2"}
