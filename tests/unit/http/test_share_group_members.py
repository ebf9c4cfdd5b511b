"""v3 share groups: members, their partitions, and where the group stands in each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.peek import Peeked
from kraft.coordinators.shares.queue import Queues
from kraft.http.v3.share_groups import share_group_routes
from metadata.image import TopicIdPartition
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import V3, Door, with_door

PATH = f"{V3}/share-groups/g"
MEMBERS = (
    a.MemberDescription(
        member_id="m-1", instance_id=None, client_id="worker", client_host="/127.0.0.1", partitions=(("t", 0), ("t", 1))
    ),
    a.MemberDescription(member_id="m-2", instance_id=None, client_id="idle", client_host="/127.0.0.1", partitions=()),
)
OFFSETS = (
    a.ShareOffset("t", 0, start_offset=4, lag=2),
    a.ShareOffset("t", 1, start_offset=9, lag=0),
    a.ShareOffset("gone", 0, start_offset=1),
)


class OneGroup:
    """Groups of which there is one, `g`, with two members."""

    async def ask(self, request: r.Request) -> a.Answer:
        if request == r.DescribeShareOffsets(group="g"):
            return a.ShareOffsets(offsets=OFFSETS)
        assert request == r.DescribeGroup(group="g")
        return a.GroupDescription(
            group="g", state="Stable", protocol_type="share", protocol="simple", generation=2, coordinator=1,
            members=MEMBERS, offsets=(), group_type="share",
        )  # fmt: skip


class OneQueue:
    """The leader of t-0 has lost dead letters; that of t-1 does not answer."""

    async def glance(self, group: str, partitions: Collection[TopicIdPartition]) -> Mapping[TopicIdPartition, Peeked]:
        assert (group, [where.partition for where in partitions]) == ("g", [0, 1])
        return {
            where: Peeked(dead_letters_lost=3, last_dead_letter_error="no such topic") for where in [*partitions][:1]
        }


def test_consumers_assignments_and_lags_of_a_share_group() -> None:
    async def story(door: Door) -> None:
        group = (await door.ask("GET", PATH)).json
        assert (group["state"], group["consumer_count"], group["partition_count"]) == ("STABLE", 2, 3)
        consumers = (await door.ask("GET", f"{PATH}/consumers")).json
        assert consumers["kind"] == "KafkaShareConsumerList"
        first, second = consumers["data"]
        assert [(each["share_group_id"], each["consumer_id"], each["client_id"]) for each in (first, second)] == [
            ("g", "m-1", "worker"),
            ("g", "m-2", "idle"),
        ]
        assert (await door.ask("GET", f"{PATH}/consumers/m-1")).json == first
        assert first["metadata"]["resource_name"].endswith("/share-group=g/consumer=m-1")
        assert first["assignments"]["related"].endswith(f"{PATH}/consumers/m-1/assignments")
        assigned = (await door.ask("GET", f"{PATH}/consumers/m-1/assignments")).json
        assert assigned["kind"] == "KafkaShareConsumerAssignmentList"
        assert [(row["consumer_id"], row["topic_name"], row["partition_id"]) for row in assigned["data"]] == [
            ("m-1", "t", 0),
            ("m-1", "t", 1),
        ]
        assert assigned["data"][1]["partition"]["related"].endswith(f"{V3}/topics/t/partitions/1")
        assert (await door.ask("GET", f"{PATH}/consumers/m-2/assignments")).json["data"] == []
        for tail in ("", "/assignments"):
            assert (await door.ask("GET", f"{PATH}/consumers/m-3{tail}")).status == 404
        lags = (await door.ask("GET", f"{PATH}/lags")).json["data"]
        assert [(row["lag"], row["dead_letters_lost"], row["last_dead_letter_error"]) for row in lags] == [
            (2, 3, "no such topic"),
            (0, None, None),
            (-1, None, None),
        ]

    gateway = FakeGateway()
    gateway.add_topic("t", 2)
    routes = share_group_routes(cast(Groups, OneGroup()), cast(Queues, OneQueue()))
    with_door(story, gateway, extra_routes=routes)
