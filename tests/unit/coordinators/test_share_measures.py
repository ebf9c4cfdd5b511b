"""Metrics and events of share groups: what was handed out, what became of it, and what nobody will ever get."""

from __future__ import annotations

import asyncio
from typing import cast
from uuid import UUID

from kraft.broker.gateway import Gateway
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.coordinators.shares.dead_letters import DeadLetterWriter
from kraft.coordinators.shares.leaders import ShareLeaders
from kraft.coordinators.shares.measures import OTHERS, SERIES_MAX, ShareTotals
from kraft.coordinators.shares.state import ShareKey
from kraft.system_clock import SystemClock
from metadata.settings import BrokerSettings, group_settings
from replication.shares.partition import REJECTED, DeadLetters, ShareCounts
from tests.support.fake_gateway import FakeGateway
from tests.unit.coordinators.test_share_coordinator import at
from tests.unit.coordinators.test_share_dead_letters import events
from tests.unit.coordinators.test_share_leaders import (
    ACCEPT,
    REJECT,
    RELEASE,
    SETTINGS,
    Member,
    configure,
    topic_of,
)
from tests.unit.coordinators.test_transaction_cluster import play


def leaders_of(member: Member) -> ShareLeaders:
    node = member.leader().node
    assert node is not None
    assert node.broker is not None
    return node.broker.shares.leaders


def measured(leaders: ShareLeaders) -> dict[str, dict[tuple[str, ...], float]]:
    return {each.name: dict(each.samples) for each in leaders.measures()}


def test_what_became_of_records_stays_counted() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        member = Member(cluster, where)
        leaders, names = leaders_of(member), ("g", "t")
        assert await member.got() == [(0, 9, 1)]
        assert await member.acknowledge((0, 3, ACCEPT), (4, 5, REJECT), (6, 9, RELEASE)) == 0
        assert await member.got(records=1, mode=1) == [(6, 6, 2)]
        found = measured(leaders)
        assert leaders.gauges() == {"share_partitions": 1.0, "share_sessions": 1.0}
        assert found["share_records_in_flight"] == {names: 4}
        assert found["share_deliveries"] == {(*names, "1"): 10, (*names, "2"): 1}
        assert found["share_records_archived"] == {(*names, "rejected"): 2}
        counters = {name: samples[names] for name, samples in found.items() if names in samples}
        assert counters == {
            "share_records_in_flight": 4,
            "share_records_redelivered": 1,
            "share_records_accepted": 4,
            "share_records_released": 4,
            "share_locks_timed_out": 0,
            "share_records_lost_by_retention": 0,
        }
        assert await member.acknowledge((6, 6, ACCEPT), epoch=-1) == 0
        assert await Member(cluster, where).got(wait_ms=1_000), "the leader has loaded the partition again"
        assert measured(leaders)["share_records_accepted"] == {names: 5}

    play(story, **SETTINGS)


def test_records_that_the_log_deletes_before_anybody_accepted_them_are_an_event() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        member = Member(cluster, where)
        leaders = leaders_of(member)
        assert await member.got(records=2, mode=1) == [(0, 1, 1)]
        assert await member.acknowledge((0, 0, ACCEPT)) == 0
        node = member.leader()
        assert node.node is not None
        await at(node, node.node.gateway.delete_records(where, offset=5, timeout_ms=10_000))
        assert await member.got() == [], "what it read is out of range"
        assert await member.got(records=1, mode=1) == [(5, 5, 1)]
        assert measured(leaders)["share_records_lost_by_retention"] == {("g", "t"): 3}
        assert await member.acknowledge((1, 1, RELEASE)) == 0
        assert measured(leaders)["share_records_lost_by_retention"] == {("g", "t"): 4}
        lost = events(cluster, "share_records_lost_by_retention")
        assert [(each["group"], each["topic"], each["partition"], each["records"]) for each in lost] == [
            ("g", "t", 0, 3),
            ("g", "t", 0, 1),
        ]

    play(story, **SETTINGS)


def test_settings_of_groups_are_made_once_and_again_when_they_are_others() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        member = Member(cluster, await topic_of(cluster, records=10))
        leaders = leaders_of(member)
        assert leaders.settings_of("g") is leaders.settings_of("g")
        await configure(cluster, "g", **{"share.delivery.count.limit": "7"})
        own = leaders.settings_of("g")
        assert (own.share_delivery_count_limit, leaders.settings_of("other").share_delivery_count_limit) == (7, 5)
        await configure(cluster, "other", **{"share.delivery.count.limit": "9"})
        assert leaders.settings_of("g") is own
        assert leaders.settings_of("other").share_delivery_count_limit == 9
        await configure(cluster, "g", **{"share.delivery.count.limit": "3"})
        assert leaders.settings_of("g").share_delivery_count_limit == 3

    play(story, **SETTINGS)


def test_series_are_bounded() -> None:
    totals = ShareTotals()
    for number in range(SERIES_MAX + 5):
        totals.add((f"g{number}", "t"), ShareCounts(accepted=1))
    found = {each.name: dict(each.samples) for each in totals.measures([])}["share_records_accepted"]
    assert len(found) == SERIES_MAX + 1
    assert found[OTHERS] == 5


class NoEvents:
    def emit(self, event: str, /, **fields: object) -> None:
        pass


def test_series_of_dead_letters_are_bounded() -> None:
    """None of these groups has a topic for them, so that each loses one."""
    settings = group_settings(BrokerSettings(), {})
    gateway = cast(Gateway, FakeGateway())
    keys = [ShareKey(f"g{number}", UUID(int=1), 0) for number in range(SERIES_MAX + 5)]

    async def lose() -> DeadLetterWriter:
        clock = SystemClock(asyncio.get_running_loop())
        writer = DeadLetterWriter(lambda: gateway, clock, NoEvents(), lambda group: settings)
        for key in [*keys, keys[-1]]:
            assert await writer.write(key, [DeadLetters(7, 7, 1, REJECTED)]) == {7}
        return writer

    writer = asyncio.run(lose())
    lost = {each.name: dict(each.samples) for each in writer.measures()}["share_dead_letters_lost"]
    assert len(lost) == SERIES_MAX + 1
    assert lost[OTHERS] == 6
    assert writer.lost_of(keys[-1]).records == 2
    assert "has no errors.deadletterqueue.topic.name" in writer.lost_of(keys[-1]).last_error
    assert writer.lost_of(keys[0]) == (0, ""), "others have lost some later"
