"""The consumer protocol (KIP-848) as clients speak it, to coordinators of three simulated nodes."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from kraft.coordinators.groups.answers import GroupDescription
from kraft.coordinators.groups.requests import DescribeGroup
from kraft.coordinators.groups.subscriptions import Subscription, encode_subscription
from kraft.protocol.messages.consumer_group_describe_request import ConsumerGroupDescribeRequestData
from kraft.protocol.messages.consumer_group_heartbeat_request import ConsumerGroupHeartbeatRequestData, TopicPartitions
from kraft.protocol.messages.delete_groups_request import DeleteGroupsRequestData
from kraft.protocol.messages.describe_groups_request import DescribeGroupsRequestData
from kraft.protocol.messages.heartbeat_request import HeartbeatRequestData
from kraft.protocol.messages.leave_group_request import LeaveGroupRequestData, MemberIdentity
from kraft.protocol.messages.list_groups_request import ListGroupsRequestData
from kraft.protocol.messages.offset_delete_request import (
    OffsetDeleteRequestData,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kraft.protocol.messages.offset_fetch_request import (
    OffsetFetchRequestData,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from kraft.wire.handlers import operations
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource
from tests.support.client_door import ClientDoor
from tests.unit.wire.handlers.test_groups import (
    Groups,
    codes,
    create,
    join_group,
    member,
    offset_commit,
    play,
    settled,
    sync_group,
    topic_id,
)

BEAT, DESCRIBE = 1, 1
SUBSCRIPTION = encode_subscription(Subscription(topics=("t",)))


def beat(group: str, member_id: str, epoch: int, **fields: Any) -> ConsumerGroupHeartbeatRequestData:
    return ConsumerGroupHeartbeatRequestData.make(group_id=group, member_id=member_id, member_epoch=epoch, **fields)


def joining(group: str, member_id: str = "m", topics: tuple[str, ...] = ("t",), **fields: Any) -> Any:
    options: dict[str, Any] = {
        "rebalance_timeout_ms": 20_000,
        "subscribed_topic_names": list(topics),
        "topic_partitions": [],
    }
    return beat(group, member_id, 0, **{**options, **fields})


def owned(door: ClientDoor, *numbers: int) -> list[TopicPartitions]:
    return [TopicPartitions.make(topic_id=topic_id(door.node, "t"), partitions=list(numbers))]


def assigned(response: Any) -> dict[UUID, list[int]] | None:
    if response.assignment is None:
        return None
    return {each.topic_id: list(each.partitions) for each in response.assignment.topic_partitions}


async def describe(door: ClientDoor, group: str, version: int = DESCRIBE) -> Any:
    (described,) = (await door.ask(ConsumerGroupDescribeRequestData.make(group_ids=[group]), version)).groups
    return described


async def as_rest_sees_it(door: ClientDoor, group: str) -> GroupDescription:
    assert door.node.node is not None
    described = await door.node.machine.run(door.node.node.groups.ask(DescribeGroup(group=group)))
    assert isinstance(described, GroupDescription), described
    return described


@pytest.mark.parametrize("version", [0, 1])
def test_a_member_joins_receives_its_partitions_by_id_and_leaves(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await door.ask(joining("g", "m" if version else ""), version)
        assert (joined.error_code, joined.member_epoch, joined.heartbeat_interval_ms) == (0, 2, 5_000)
        assert len(UUID(joined.member_id).bytes) == 16 if not version else joined.member_id == "m"
        assert assigned(joined) == {topic_id(door.node, "t"): [0, 1]}
        again = await door.ask(beat("g", joined.member_id, 2, topic_partitions=owned(door, 0, 1)), version)
        assert (again.error_code, again.member_epoch, again.assignment) == (0, 2, None)
        left = await door.ask(beat("g", joined.member_id, -1), version)
        assert (left.error_code, left.member_id, left.member_epoch) == (0, joined.member_id, -1)
        assert (await describe(door, "g")).group_state == "Empty"

    play(story)


def test_a_group_beats_as_often_as_its_own_settings_say() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await door.ask(joining("g"), BEAT)
        assert joined.heartbeat_interval_ms == 5_000
        node = groups.cluster.alive[0]
        assert node.node is not None
        group = ConfigResource(resource_type="group", name="g")
        changes = (ConfigAlteration(name="consumer.heartbeat.interval.ms", operation="set", value="7000"),)
        request = AlterConfigs(resources={group: changes})
        assert await node.machine.run(node.node.gateway.control(request, timeout_ms=10_000)) == {group: None}
        await asyncio.sleep(1)
        again = await door.ask(beat("g", "m", 2, topic_partitions=owned(door, 0, 1)), BEAT)
        assert again.heartbeat_interval_ms == 7_000
        other = await groups.coordinator("h")
        assert (await other.ask(joining("h"), BEAT)).heartbeat_interval_ms == 5_000

    play(story)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (joining("", "m"), 42),
        (joining("g", ""), 42),
        (joining("g", topic_partitions=None), 42),
        (joining("g", subscribed_topic_names=None), 42),
        (joining("g", server_assignor="mine"), 112),
        (joining("g", subscribed_topic_names=[], subscribed_topic_regex="(?=a)"), 128),
        (beat("g", "m", 3), 69),
        (beat("g", "m", -1), 69),
        (beat("g", "m", -3), 42),
    ],
)
def test_a_refusal_has_its_code_and_words_and_leaves_no_group(request_: Any, code: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        answer = await door.ask(request_, BEAT)
        assert answer.error_code == code
        assert answer.error_message
        assert (await describe(door, "g")).error_code == 69

    play(story)


def test_others_than_the_coordinator_say_so() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        for node in groups.cluster.alive:
            if node is not door.node:
                answer = await ClientDoor(node).ask(joining("g"), BEAT)
                assert answer.error_code == 16
                assert (await describe(ClientDoor(node), "g")).error_code == 16

    play(story)


@pytest.mark.parametrize("version", [0, 1])
def test_a_group_is_described_with_what_members_have_and_should_have(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await door.ask(joining("g", "m1", instance_id="i", rack_id="r"), BEAT)
        await door.ask(joining("g", "m2", subscribed_topic_names=[], subscribed_topic_regex="t.*"), BEAT)
        request = ConsumerGroupDescribeRequestData.make(group_ids=["g", ""], include_authorized_operations=True)
        described, nameless = (await door.ask(request, version)).groups
        assert nameless.error_code == 24
        assert (described.group_state, described.group_epoch, described.assignment_epoch) == ("Reconciling", 3, 3)
        assert (described.assignor_name, described.authorized_operations) == ("uniform", operations.GROUP)
        first, second = sorted(described.members, key=lambda each: each.member_id)
        assert (first.instance_id, first.rack_id, first.client_id, first.client_host) == (
            "i",
            "r",
            "client",
            "/10.1.2.3",
        )
        assert (list(first.subscribed_topic_names), first.subscribed_topic_regex) == (["t"], "")
        assert (list(second.subscribed_topic_names), second.subscribed_topic_regex) == ([], "t.*")
        (has,), (should,) = first.assignment.topic_partitions, first.target_assignment.topic_partitions
        assert (has.topic_name, has.topic_id) == ("t", topic_id(door.node, "t"))
        assert (list(has.partitions), len(should.partitions)) == ([0, 1], 1)
        assert list(second.assignment.topic_partitions) == []
        assert first.member_type == (1 if version else -1)
        reported = await as_rest_sees_it(door, "g")
        assert (reported.state, reported.group_type, reported.is_mixed) == ("Reconciling", "consumer", False)

    play(story)


def test_the_classic_way_to_describe_and_list_reports_the_type() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await door.ask(joining("g"), BEAT)
        for version, code in ((5, 0), (6, 69)):
            request = DescribeGroupsRequestData.make(groups=["g"])
            (described,) = (await door.ask(request, version)).groups
            assert (described.error_code, described.group_state) == (code, "Dead")
        for types, found in ((["Consumer"], 1), (["classic"], 0), ([], 1)):
            listed = (await door.ask(ListGroupsRequestData.make(types_filter=types), 5)).groups
            assert [(each.group_type, each.group_state) for each in listed] == [("consumer", "Stable")] * found
        states = await door.ask(ListGroupsRequestData.make(states_filter=["Empty"]), 5)
        assert list(states.groups) == []

    play(story)


def test_commits_and_fetches_of_members_are_of_their_epoch() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await door.ask(joining("g", "m1"), BEAT)

        async def commit(member_id: str, epoch: int, version: int = 9) -> int:
            request = offset_commit("g", ("t", 0, 7), member_id=member_id, generation_id_or_member_epoch=epoch)
            (code,) = codes(await door.ask(request, version))
            return code

        assert await commit("m1", 2) == 0
        assert await commit("m1", 3) == 113
        assert await commit("m1", 2, version=8) == 35
        assert await commit("m1", 9, version=8) == 35, "before its epoch is looked at"
        assert await commit("other", 1) == 25
        assert await commit("", -1) == 25, "the group has members"
        # m1 keeps one of its partitions in epoch 3, and has had it since epoch 2
        await door.ask(joining("g", "m2"), BEAT)
        kept = assigned(await door.ask(beat("g", "m1", 2), BEAT))
        assert kept is not None
        ((keeps,),) = kept.values()
        moved = await door.ask(beat("g", "m1", 2, topic_partitions=owned(door, keeps)), BEAT)
        assert moved.member_epoch == 3
        late = offset_commit("g", ("t", keeps, 9), member_id="m1", generation_id_or_member_epoch=2)
        assert codes(await door.ask(late, 9)) == [0]
        lost = offset_commit("g", ("t", 1 - keeps, 9), member_id="m1", generation_id_or_member_epoch=2)
        assert codes(await door.ask(lost, 9)) == [113]

        async def fetch(member_id: str | None, epoch: int) -> Any:
            topics = [OffsetFetchRequestTopics.make(name="t", partition_indexes=[keeps])]
            group = OffsetFetchRequestGroup.make(group_id="g", member_id=member_id, member_epoch=epoch, topics=topics)
            (found,) = (await door.ask(OffsetFetchRequestData.make(groups=[group]), 9)).groups
            return found.error_code or found.topics[0].partitions[0].committed_offset

        assert await fetch("m1", 3) == 9
        assert await fetch(None, -1) == 9
        assert await fetch("m1", 2) == 113
        assert await fetch("nobody", 1) == 25

    play(story)


def test_delete_group_with_and_without_members() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await door.ask(joining("g", subscribed_topic_regex="t.*"), BEAT)
        commit = offset_commit("g", ("t", 0, 7), member_id="m", generation_id_or_member_epoch=2)
        assert codes(await door.ask(commit, 9)) == [0]

        async def delete() -> int:
            (result,) = (await door.ask(DeleteGroupsRequestData.make(groups_names=["g"]), 2)).results
            code: int = result.error_code
            return code

        partitions = [OffsetDeleteRequestPartition.make(partition_index=0)]
        offsets = OffsetDeleteRequestData.make(
            group_id="g", topics=[OffsetDeleteRequestTopic.make(name="t", partitions=partitions)]
        )
        assert codes(await door.ask(offsets, 0)) == [86]
        assert await delete() == 68
        await door.ask(beat("g", "m", -1), BEAT)
        assert await delete() == 0
        assert (await describe(door, "g")).error_code == 69
        assert list((await door.ask(ListGroupsRequestData.make(), 5)).groups) == []
        assert (await door.ask(joining("g"), BEAT)).member_epoch == 2, "it begins anew"

    play(story)


def test_members_and_epochs_survive_the_coordinator_and_silent_ones_do_not() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await door.ask(joining("g", "m1", instance_id="i"), BEAT)
        await door.ask(joining("g", "m2", subscribed_topic_names=[], subscribed_topic_regex="t.*"), BEAT)
        before = await describe(door, "g")
        door.node.kill()
        await asyncio.sleep(15)  # of virtual time: the others have noticed
        door = await groups.coordinator("g")
        after = await describe(door, "g")
        assert after == before
        reported = await door.ask(beat("g", "m1", 2, instance_id="i"), BEAT)
        assert (reported.error_code, reported.member_epoch) == (0, 2)
        epoch = 3
        for _ in range(10):
            await asyncio.sleep(5)
            answer = await door.ask(beat("g", "m2", epoch), BEAT)
            assert answer.error_code == 0
            epoch = answer.member_epoch
        assert epoch > 3, "the other is out"
        assert [each.member_id for each in (await describe(door, "g")).members] == ["m2"]

    play(story)


def test_topics_that_grow_come_and_go_are_followed() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await door.ask(joining("g", topics=("t", "u")), BEAT)
        assert len(assigned(joined) or ()) == 1
        await create(groups.cluster, "u", 3)
        reported = await door.ask(beat("g", "m", 2), BEAT)
        assert assigned(reported) == {topic_id(door.node, "t"): [0, 1], topic_id(door.node, "u"): [0, 1, 2]}
        assert reported.member_epoch == 3

    play(story)


def test_a_group_of_the_classic_protocol_goes_over_and_its_members_join_again() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        protocols = [("range", SUBSCRIPTION)]
        old = await member(door, "g", protocols=protocols)
        everything = b"\0\0\0\0\0\1\0\1t\0\0\0\2\0\0\0\0\0\0\0\1\xff\xff\xff\xff"
        synced = await door.ask(sync_group("g", old.member_id, 1, **{old.member_id: everything}), 5)
        assert synced.error_code == 0
        newer = await door.ask(joining("g", "n"), BEAT)
        assert (newer.error_code, newer.member_epoch, assigned(newer)) == (0, 2, {})
        heart = HeartbeatRequestData.make(group_id="g", generation_id=1, member_id=old.member_id)
        assert (await door.ask(heart, 4)).error_code == 27
        again = await door.ask(join_group("g", old.member_id, protocols), 9)
        assert (again.error_code, again.generation_id, again.leader, again.protocol_name) == (0, 2, "", "range")
        synced = await door.ask(sync_group("g", old.member_id, 2), 5)
        assert len(synced.assignment) == len(everything) - 4, "one partition"
        assert sum(map(len, (assigned(await door.ask(beat("g", "n", 2), BEAT)) or {}).values())) == 1
        types = {each.member_id: each.member_type for each in (await describe(door, "g")).members}
        assert types == {"n": 1, old.member_id: 0}
        assert (await as_rest_sees_it(door, "g")).is_mixed
        leaving = LeaveGroupRequestData.make(group_id="g", members=[MemberIdentity.make(member_id=old.member_id)])
        assert (await door.ask(leaving, 5)).error_code == 0
        assert sum(map(len, (assigned(await door.ask(beat("g", "n", 2), BEAT)) or {}).values())) == 2
        assert not (await as_rest_sees_it(door, "g")).is_mixed

    play(story)


def test_a_policy_keeps_a_group_what_it_is() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await settled(door, "g", protocols=[("range", SUBSCRIPTION)])
        refused = await door.ask(joining("g", "n"), BEAT)
        assert (refused.error_code, "disabled" in refused.error_message) == (69, True)
        assert (await describe(door, "g")).error_code == 69

    play(story, group_consumer_migration_policy="disabled")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["disabled", "downgrade"])
def test_a_policy_keeps_classic_members_out_of_a_consumer_group(policy: str) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        assert (await door.ask(joining("g", "n"), BEAT)).error_code == 0
        for member_id, protocols in (("", [("range", SUBSCRIPTION)]), ("unknown", [("none", b"")])):
            request = join_group("g", member_id, protocols=protocols)
            refused = await door.ask(request, 9)
            assert (refused.error_code, refused.member_id) == (23, "")
        assert [each.member_id for each in (await describe(door, "g")).members] == ["n"]

    play(story, group_consumer_migration_policy=policy)  # type: ignore[arg-type]


def test_first_epoch_of_a_new_group() -> None:
    """KAFKA-20268: epoch 1 is that of the empty target assignment with which a group begins."""

    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        waiting = await door.ask(joining("g", "m", subscribed_topic_names=[], subscribed_topic_regex="later.*"), BEAT)
        assert (waiting.error_code, waiting.member_epoch) == (0, 1)
        described = await describe(door, "g")
        assert (described.group_epoch, described.assignment_epoch, described.group_state) == (1, 1, "Stable")
        await create(groups.cluster, "later", 1)
        await asyncio.sleep(11)  # of virtual time: patterns are looked at again
        found = await door.ask(beat("g", "m", 1), BEAT)
        assert (found.member_epoch, assigned(found)) == (2, {topic_id(door.node, "later"): [0]})

    play(story)


def test_classic_assignment_has_version_of_subscription() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        assert (await door.ask(joining("g", "n"), BEAT)).error_code == 0
        for version in range(4):
            subscription = (
                version.to_bytes(2, "big")
                + encode_subscription(Subscription(topics=("t",), owned=(), generation=-1))[2:]
            )
            joined = await member(door, "g", protocols=[("range", subscription)])
            assert joined.error_code == 0, joined
            synced = await door.ask(sync_group("g", joined.member_id, joined.generation_id), 5)
            assert int.from_bytes(synced.assignment[:2], "big") == version

    play(story)


def test_unsubscribed_offsets_and_empty_groups_expire() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await create(groups.cluster, "u", 1)
        await door.ask(joining("g", topics=("t",)), BEAT)
        who = {"member_id": "m", "generation_id_or_member_epoch": 2}
        assert codes(await door.ask(offset_commit("g", ("t", 0, 7), ("u", 0, 7), **who), 9)) == [0, 0]

        async def known() -> set[str]:
            group = OffsetFetchRequestGroup.make(group_id="g", topics=None)
            (found,) = (await door.ask(OffsetFetchRequestData.make(groups=[group]), 9)).groups
            return {each.name for each in found.topics}

        for _ in range(8):
            await asyncio.sleep(10)
            assert (await door.ask(beat("g", "m", 2), BEAT)).error_code == 0
        assert await known() == {"t"}
        await door.ask(beat("g", "m", -1), BEAT)
        await asyncio.sleep(80)
        assert await known() == set()
        assert (await describe(door, "g")).error_code == 69

    play(story, offsets_retention_minutes=1, offsets_retention_check_interval_ms=5_000)
