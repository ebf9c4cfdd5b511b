"""What a node tells of its partitions, from its door to the snapshot that predicates look at."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kraft.chaos.evidence import read_faults
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.snapshot import NodeView, Snapshot, parse_view
from kraft.http.replicas import replica_routes
from metadata.image import TopicIdPartition
from replication.manager.status import ReplicaStatus
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import open_door


def replica(topic: str, *, is_leader: bool) -> ReplicaStatus:
    return ReplicaStatus(
        topic=topic,
        partition=0,
        is_leader=is_leader,
        leader=1,
        leader_epoch=4,
        partition_epoch=9,
        log_start_offset=2,
        log_end_offset=30,
        high_watermark=20,
        isr=(1, 3),
        maximal_isr=(1, 2, 3),
        replicas=(1, 2, 3),
        lag={},
        size_bytes=0,
    )


def view_of(gateway: FakeGateway, replicas: dict[TopicIdPartition, ReplicaStatus]) -> NodeView:
    async def main() -> NodeView:
        async with open_door(gateway, extra_routes=replica_routes(lambda: replicas)) as door:
            answer = await door.ask("GET", "/kraft/partitions")
            assert answer.status == 200
            return parse_view(answer.json)

    return asyncio.run(main())


def test_node_reports_metadata_and_own_replicas() -> None:
    gateway = FakeGateway(static={"default.replication.factor": 3})
    topic_id = gateway.add_topic("t")
    view = view_of(gateway, {TopicIdPartition(topic_id, 0): replica("t", is_leader=True)})
    assert view.metadata_offset == gateway.image.offset
    assert set(view.brokers.values()) == {"active"}
    assert view.partitions[("t", 0)].leader == gateway.image.topics[topic_id].partitions[0].leader
    own = view.replicas[("t", 0)]
    assert (own.role, own.leader_epoch, own.high_watermark, own.log_end_offset) == ("leader", 4, 20, 30)
    assert (own.isr, own.maximal_isr, own.topic_id) == ((1, 3), (1, 2, 3), str(topic_id))


def test_snapshot_uses_newest_metadata() -> None:
    gateway = FakeGateway(static={"default.replication.factor": 3})
    topic_id = gateway.add_topic("t")
    key = TopicIdPartition(topic_id, 0)
    old = view_of(gateway, {key: replica("t", is_leader=True)})
    gateway.change("t", 0, leader=2, isr=(2, 3))
    new = view_of(gateway, {key: replica("t", is_leader=False)})
    newer = Snapshot(at_us=0, states={1: "running", 2: "down"}, views={7: old, 8: new})
    assert newer.leader("t", 0) == 2
    assert newer.isr("t", 0) == (2, 3)
    assert (newer.role("t", 0, node=7), newer.role("t", 0, node=8)) == ("leader", "follower")
    assert newer.hw("t", 0) == -1, "the leader, node 2, does not answer"
    assert newer.hw("t", 0, node=7) == 20
    assert newer.log_end("t", 0, node=8) == 30
    assert "node 2 down, gives no answer" in newer.describe()


def test_nobody_answers() -> None:
    empty = Snapshot(at_us=0, states={1: "paused"}, views={})
    assert (empty.leader("t", 0), empty.isr("t", 0), empty.controller, empty.hw("t", 0)) == (-1, (), -1, -1)
    assert empty.partitions("t") == ()


def test_the_timeline_keeps_when_a_fault_ended(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path)
    seen = []
    timeline.watch(seen.append)
    first = timeline.begin("pause", nodes=[1], text="paused node 1")
    timeline.begin("kill", nodes=[2], text="killed node 2 with -9")
    assert [fault.until_us for fault in read_faults(tmp_path / "faults.jsonl")] == [None, None]
    timeline.end(first)
    timeline.save()
    paused, killed = read_faults(tmp_path / "faults.jsonl")
    assert paused.until_us is not None
    assert paused.until_us >= paused.at_us
    assert killed.until_us is None
    assert [fault.text for fault in seen] == ["paused node 1", "killed node 2 with -9"]
