"""The judge complains when it must, and not before: of what is read in a new era, whose logs have to agree in it, and
of what cannot be at all. Whole runs show the same with planted faults."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from metadata.image import (
    MetadataImage,
    PartitionImage,
    TopicIdPartition,
    TopicImage,
    topic_ids_map,
    topics_map,
)
from replication.partition.replica import Replica
from replication.partition.states import FollowerState
from tests.simulation import run
from tests.simulation.eras import Eras
from tests.simulation.oracle import IMPOSSIBLE, Oracle, Violation
from tests.simulation.plan_generator import draw_plan

KEY = TopicIdPartition(UUID(int=1), 0)
CHOSEN = 5
"""The epoch of the leader that an unclean election chose."""


def partition(leader_epoch: int, *, isr: tuple[int, ...] = (1, 2)) -> PartitionImage:
    return PartitionImage(
        topic_id=KEY.topic_id,
        partition=KEY.partition,
        replicas=(1, 2, 3),
        isr=isr,
        leader=1,
        leader_epoch=leader_epoch,
        partition_epoch=leader_epoch,
    )


def follower(leader_epoch: int) -> Replica:
    state = FollowerState(image=partition(leader_epoch), high_watermark=0)
    return Replica(key=KEY, topic="t", log=cast(Any, SimpleNamespace()), settings=cast(Any, None), state=state)


def oracle() -> Oracle:
    made = Oracle(SimulatedCluster(SimulatedWorld(1)))
    topic = TopicImage(name="t", topic_id=KEY.topic_id, partitions={0: partition(CHOSEN)})
    made.image = MetadataImage(topics=topics_map({KEY.topic_id: topic}), topic_ids=topic_ids_map({"t": KEY.topic_id}))
    return made


def test_read_records_stay_except_in_unclean_election() -> None:
    judge = oracle()
    judge.logs.was_read(KEY, [(7, b"a")], leader_epoch=4)
    with pytest.raises(Violation, match=r"read b'b' at offset 7, where b'a' was read before"):
        judge.logs.was_read(KEY, [(7, b"b")], leader_epoch=4)
    judge.promise.begin_era(KEY, CHOSEN)
    judge.logs.was_read(KEY, [(7, b"b")], leader_epoch=CHOSEN)
    judge.logs.was_read(KEY, [(7, b"a")], leader_epoch=CHOSEN - 1)  # of a node that does not know yet
    with pytest.raises(Violation, match=r"read b'a' at offset 7, where b'b' was read before"):
        judge.logs.was_read(KEY, [(7, b"a")], leader_epoch=CHOSEN + 1)


def test_era_of_a_log_begins_with_fetch_and_ends_with_reopening() -> None:
    eras, before, log = Eras(), follower(CHOSEN - 1), follower(CHOSEN)
    assert eras.must_agree(2, before)
    assert eras.begin(KEY, CHOSEN)
    eras.agreed(2, before)  # an answer of the leader that was given up
    assert not eras.must_agree(2, before)
    assert not eras.must_agree(2, log)
    eras.agreed(2, log)
    assert eras.must_agree(2, log)
    assert not eras.must_agree(2, follower(CHOSEN)), "opened again"
    assert not eras.begin(KEY, CHOSEN), "has begun already"
    assert eras.must_agree(2, log)
    assert eras.begin(KEY, CHOSEN + 1)
    assert not eras.must_agree(2, log)


def test_new_era_after_whole_isr_lost_data() -> None:
    judge = oracle()
    judge.promise.power_lost(2)
    assert not judge.promise.may_lose(KEY)
    judge.promise.power_lost(1)
    assert judge.promise.may_lose_of(KEY, CHOSEN)
    assert not judge.promise.may_lose_of(KEY, CHOSEN + 1)
    assert KEY not in judge.promise.excused


def test_bit_rot_excuses_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = oracle()
    monkeypatch.setattr(judge.promise, "has_damage", lambda *_: True)
    judge.promise.power_lost(2)
    judge.promise.rotted(1, KEY)
    assert judge.promise.may_lose_of(KEY, CHOSEN + 1)


def test_follower_with_newer_epoch_is_a_violation() -> None:
    judge = oracle()
    judge.event(1, "replica_fetch_refused", {"topic": "t"})
    with pytest.raises(Violation, match="node 1 knows an epoch that its leader does not"):
        judge.event(1, IMPOSSIBLE, {"topic": "t"})


def test_a_run_without_an_end_is_a_failure_and_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RUN_S_MAX", 2)
    result = run.play(draw_plan(1, "queues"))
    assert (result.failure or "").startswith("Livelock: no end within 2 s of virtual time; there run ")
    assert "QueueMember.run" in (result.failure or "")


def test_join_longer_than_rebalance_is_a_violation() -> None:
    world = SimulatedWorld(1)
    judge = Oracle(SimulatedCluster(world))
    now, node = {"ms": 0}, judge.cluster.nodes[1]
    node.node = cast(Any, object())
    settings = SimpleNamespace(offsets_commit_timeout_ms=1_000)
    context = SimpleNamespace(node_id=1, settings=lambda: settings)

    class Shard:
        @property
        def now_ms(self) -> int:
            return now["ms"]

    shard = cast(Any, Shard())
    shard.context = context
    members = {"m": SimpleNamespace(rebalance_timeout_ms=3_000)}
    group = SimpleNamespace(group_id="g", members=members)
    judge.group_waits.group_changed(cast(Any, SimpleNamespace(group=group)))
    wait = judge.group_waits.began(shard, "g")
    now["ms"] = 10_000
    judge.group_waits.check()
    node.machine.pause()
    node.machine.resume()
    judge.group_waits.check()  # it slept: its time begins again
    now["ms"] = 20_000
    judge.group_waits.check()
    now["ms"] = 20_001
    with pytest.raises(Violation, match="a join or sync of group g waits for 10001 ms on node 1"):
        judge.group_waits.check()
    judge.group_waits.ended(wait)
    judge.group_waits.check()
