"""ShareGroupHeartbeat and ShareGroupDescribe as clients ask them, with a share coordinator that does as it is told."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from kraft.protocol.messages.consumer_group_heartbeat_request import ConsumerGroupHeartbeatRequestData
from kraft.protocol.messages.list_groups_request import ListGroupsRequestData
from kraft.protocol.messages.share_group_describe_request import ShareGroupDescribeRequestData
from kraft.protocol.messages.share_group_heartbeat_request import ShareGroupHeartbeatRequestData
from kraft.wire.handlers import operations
from tests.support.client_door import ClientDoor
from tests.unit.coordinators.test_share_coordinator_cluster import served_by
from tests.unit.wire.handlers.test_groups import Groups, play, topic_id

V = 1


def beat(group: str, member_id: str, epoch: int, **fields: Any) -> ShareGroupHeartbeatRequestData:
    return ShareGroupHeartbeatRequestData.make(group_id=group, member_id=member_id, member_epoch=epoch, **fields)


def assigned(response: Any) -> dict[UUID, list[int]] | None:
    if response.assignment is None:
        return None
    return {each.topic_id: list(each.partitions) for each in response.assignment.topic_partitions}


async def describe(door: ClientDoor, *groups: str) -> list[Any]:
    request = ShareGroupDescribeRequestData.make(group_ids=list(groups), include_authorized_operations=True)
    return list((await door.ask(request, V)).groups)


def test_a_member_joins_gets_partitions_and_leaves() -> None:
    async def story(groups: Groups) -> None:
        served_by(groups.cluster)
        door = await groups.coordinator("g")
        joined = await door.ask(beat("g", "m", 0, rack_id="r", subscribed_topic_names=["t"]), V)
        assert (joined.error_code, joined.member_id, joined.member_epoch) == (0, "m", 2)
        assert (joined.heartbeat_interval_ms, assigned(joined)) == (5_000, {})
        await asyncio.sleep(0.1)
        reported = await door.ask(beat("g", "m", 2), V)
        t = topic_id(door.node, "t")
        assert (reported.member_epoch, assigned(reported)) == (3, {t: [0, 1]})
        assert assigned(await door.ask(beat("g", "m", 3), V)) is None
        (found,) = await describe(door, "g")
        assert (found.error_code, found.group_state, found.group_epoch, found.assignment_epoch) == (0, "Stable", 3, 3)
        assert (found.assignor_name, found.authorized_operations) == ("simple", operations.GROUP)
        (member,) = found.members
        assert (member.member_id, member.rack_id, member.member_epoch) == ("m", "r", 3)
        assert list(member.subscribed_topic_names) == ["t"]
        (partitions,) = member.assignment.topic_partitions
        assert (partitions.topic_id, partitions.topic_name, list(partitions.partitions)) == (t, "t", [0, 1])
        (listed,) = (await door.ask(ListGroupsRequestData.make(types_filter=["Share"]), 5)).groups
        assert (listed.group_id, listed.protocol_type, listed.group_state) == ("g", "share", "Stable")
        left = await door.ask(beat("g", "m", -1), V)
        assert (left.error_code, left.member_id, left.member_epoch) == (0, "m", -1)
        (found,) = await describe(door, "g")
        assert (found.group_state, list(found.members)) == ("Empty", [])

    play(story)


def test_what_makes_no_sense_is_refused() -> None:
    async def story(groups: Groups) -> None:
        served_by(groups.cluster)
        door = await groups.coordinator("g")
        cases = [
            (beat("", "m", 0, subscribed_topic_names=["t"]), 42),
            (beat("g", "", 0, subscribed_topic_names=["t"]), 42),
            (beat("g", "m", 0), 42),
            (beat("g", "m", 0, rack_id="", subscribed_topic_names=["t"]), 42),
            (beat("g", "m", -2), 42),
            (beat("g", "m", 1), 69),
        ]
        for request, code in cases:
            answer = await door.ask(request, V)
            assert (answer.error_code, bool(answer.error_message)) == (code, True), request
        await door.ask(beat("g", "m", 0, subscribed_topic_names=["t"]), V)
        assert (await door.ask(beat("g", "other", 3), V)).error_code == 25
        assert (await door.ask(beat("g", "m", 9), V)).error_code == 110
        consumer = ConsumerGroupHeartbeatRequestData.make(
            group_id="g",
            member_id="c",
            rebalance_timeout_ms=1_000,
            subscribed_topic_names=["t"],
            topic_partitions=[],
        )
        assert (await door.ask(consumer, 1)).error_code == 69
        (none,) = await describe(await groups.coordinator("none"), "none")
        (nameless,) = await describe(door, "")
        assert (none.error_code, nameless.error_code) == (69, 24)

    play(story)
