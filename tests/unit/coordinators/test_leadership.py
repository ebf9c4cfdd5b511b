"""A coordinator that may have been relieved without knowing it proves that it leads before it answers anything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.records import decode_record
from kraft.coordinators.groups.request_handlers import RequestHandlers
from kraft.coordinators.groups.shard import NOTHING, GroupShard
from kraft.coordinators.shard import CoordinatorContext
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    KafkaError,
    NotCoordinator,
    NotEnoughReplicasAfterAppend,
    NotLeaderOrFollower,
)
from kraft.protocol.primitives import Buffer
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.producers.origin import Origin
from replication.requests import ProduceOptions, ProduceOutcome
from tests.unit.coordinators.test_coordinator_cluster import SETTINGS, ask, commit, create, play
from tests.unit.coordinators.test_stale_answers import TOPIC_ID

PARTITION = TopicIdPartition(TOPIC_ID, 0)


class Replicas:
    """Takes 10 ms to replicate a batch."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self.error_code = 0
        self.batches: list[bytes] = []
        self.produce = self.producers = self

    def get(self, partition: TopicIdPartition, producer_id: int) -> None:
        return None

    def check_appendable(self, partition: TopicIdPartition) -> None:
        """There are enough replicas in sync."""

    async def outcomes(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions, *, origin: Origin
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        assert (options.acks, list(batches)) == (-1, [PARTITION])
        assert options.timeout_ms > 0
        assert origin.is_coordinator
        self.batches.append(bytes(batches[PARTITION]))
        await asyncio.sleep(0.01)
        return {PARTITION: ProduceOutcome(error_code=self.error_code, base_offset=0, log_start_offset=0)}


def shard_of(world: SimulatedWorld, replicas: Replicas, failed: list[GroupShard]) -> GroupShard:
    context = CoordinatorContext(
        node_id=1,
        environment=world.machine("node-1").environment,
        replicas=cast(Any, replicas),
        settings=lambda: BrokerSettings(group_initial_rebalance_delay_ms=0),
        topic_settings=lambda _: TopicSettings(),
        image=MetadataImage,
        has_session=lambda: False,
    )
    shard = GroupShard(PARTITION, 4, context, on_failed=failed.append)
    shard._is_loaded = True
    return shard


def run(story: Callable[[Replicas, GroupShard, list[GroupShard]], Any]) -> None:
    world, failed = SimulatedWorld(1), list[GroupShard]()
    replicas = Replicas(world)
    world.run(story(replicas, shard_of(world, replicas, failed), failed))


def test_requests_wait_for_later_proof() -> None:
    async def story(replicas: Replicas, shard: GroupShard, failed: list[GroupShard]) -> None:
        first = asyncio.ensure_future(shard.prove_leadership())
        await asyncio.sleep(0.005)
        later = [asyncio.ensure_future(shard.prove_leadership()) for _ in range(50)]
        await first
        assert not any(task.done() for task in later), "that proof had begun before they asked"
        await asyncio.gather(*later)
        assert len(replicas.batches) == 2
        (record,) = read_batches(replicas.batches[0], from_offset=0)
        assert record.key is not None
        assert decode_record(record.key, record.value) == NOTHING
        assert not shard.entries, "it leaves nothing behind"

    run(story)


@pytest.mark.parametrize("error", [NotLeaderOrFollower, CoordinatorNotAvailable])
def test_who_cannot_prove_it_sends_everybody_on_and_loads_again(error: type[KafkaError]) -> None:
    async def story(replicas: Replicas, shard: GroupShard, failed: list[GroupShard]) -> None:
        replicas.error_code = error.code
        asked = [asyncio.ensure_future(shard.prove_leadership()) for _ in range(3)]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, NotCoordinator)
        assert len(replicas.batches) == 1
        assert failed == [shard]
        assert shard.has_ended

    run(story)


def test_request_at_end_of_proof_waits_for_next() -> None:
    """The proof's task is done and has told nobody: awaiting it does not suspend, so a loop around it never ends."""

    async def story(replicas: Replicas, shard: GroupShard, failed: list[GroupShard]) -> None:
        rounds, check = itertools.count(1), shard.check

        def check_that_it_suspends() -> None:
            assert next(rounds) < 100, "it spins, and nothing else on this loop will ever run"
            check()

        shard.check = check_that_it_suspends  # type: ignore[method-assign]
        first = asyncio.ensure_future(shard.prove_leadership())
        for _ in range(3):  # it asks, its append begins, and waits to be replicated
            await asyncio.sleep(0)
        (proof,) = shard._appends
        await asyncio.sleep(0.01)  # a timer of the same instant as the proof's, set after it
        assert proof.done()
        assert not first.done()
        assert proof in shard._appends, "its callbacks have not run"
        await shard.prove_leadership()
        await first
        assert len(replicas.batches) == 2, "that proof had begun before it asked"

    run(story)


async def join_group(handlers: RequestHandlers, name: str, *, member_id: str = "") -> a.GroupJoined:
    answer = await handlers.handle(
        r.JoinGroup(
            group="g",
            member_id=member_id,
            client_id=name,
            client_host="/127.0.0.1",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            protocol_type="consumer",
            protocols=(("range", b""),),
            is_known_required=False,
        )
    )
    assert isinstance(answer, a.GroupJoined)
    return answer


@pytest.mark.parametrize("error_code", [0, NotEnoughReplicasAfterAppend.code])
def test_sync_waits_for_replicated_assignment(error_code: int) -> None:
    """Until then another coordinator could give the same generation to others. Kafka's groups are stable, and its
    coordinators answer what needs no record, only when what was written before is replicated."""
    world = SimulatedWorld(1)
    replicas = Replicas(world)

    async def story() -> None:
        handlers = RequestHandlers(shard := shard_of(world, replicas, []), cast(Any, None), cast(Any, None))
        one = await join_group(handlers, "one")
        await handlers.handle(r.SyncGroup(group="g", member_id=one.member_id, generation=one.generation))
        joining = asyncio.ensure_future(join_group(handlers, "other"))
        await asyncio.sleep(0.001)
        one = await join_group(handlers, "one", member_id=one.member_id)
        members = [one, await joining]
        assert one.leader == one.member_id
        replicas.error_code = error_code
        syncs = [
            asyncio.ensure_future(
                handlers.handle(
                    r.SyncGroup(
                        group="g",
                        member_id=each.member_id,
                        generation=each.generation,
                        assignments=tuple((member.member_id, b"x") for member in members) if each is one else (),
                    )
                )
            )
            for each in members
        ]
        await asyncio.sleep(0.005)
        assert shard.unreplicated_append is not None
        assert not any(sync.done() for sync in syncs)
        for answer in await asyncio.gather(*syncs, return_exceptions=True):
            if error_code:
                assert isinstance(answer, CoordinatorNotAvailable)
            else:
                assert isinstance(answer, a.GroupSynced)
                assert answer.assignment == b"x"

    world.run(story())


# --- whole nodes --------------------------------------------------------------------------------------------------

FAST = {"broker_session_timeout_ms": 1_000, "broker_heartbeat_interval_ms": 200, "offsets_commit_timeout_ms": 300}
FETCH = r.FetchOffsets(group="g", partitions=(("t", 0),))


async def coordinator_of(cluster: SimulatedCluster) -> tuple[SimulatedNode, SimulatedNode]:
    """And another node."""
    one = cluster.alive[0]
    assert one.node is not None
    found = cluster.nodes[await one.machine.run(one.node.groups.coordinator_of("g"))]
    return found, next(node for node in cluster.alive if node is not found)


async def _commit_elsewhere(deposed: SimulatedNode, other: SimulatedNode) -> None:
    """With a new coordinator, of which the old one hears nothing."""
    await asyncio.sleep(3)
    await ask(other, commit("g", 7))
    assert deposed.node is not None
    assert await deposed.machine.run(deposed.node.groups.coordinator_of("g")) == deposed.node_id
    with pytest.raises((NotCoordinator, CoordinatorLoadInProgress)):
        await ask(deposed, FETCH)
    assert [row.offset for row in (await ask(other, FETCH)).offsets] == [7]


def test_a_coordinator_that_is_cut_off_reports_no_offset() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "t", 1)
        await ask(cluster.alive[0], commit("g", 5))
        deposed, other = await coordinator_of(cluster)
        hosts = [host for host in cluster.hosts if host != deposed.machine.name]
        cluster.world.network.isolate(deposed.machine.name, hosts)
        await _commit_elsewhere(deposed, other)
        for host in hosts:
            cluster.world.network.heal(deposed.machine.name, host)
        assert [row.offset for row in (await ask(deposed, FETCH)).offsets] == [7]

    play(story, **FAST)


def test_coordinator_with_full_disk_returns_no_offset() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "t", 1)
        await ask(cluster.alive[0], commit("g", 5))
        deposed, other = await coordinator_of(cluster)
        deposed.machine.disk.is_full = True
        with pytest.raises(NotCoordinator):
            await ask(deposed, commit("g", 6))
        await _commit_elsewhere(deposed, other)
        deposed.machine.disk.is_full = False
        assert [row.offset for row in (await ask(deposed, FETCH)).offsets] == [7]

    play(story, **FAST)


def test_groups_go_on_without_a_controller() -> None:
    async def story() -> None:
        await cluster.start()
        one, two, controller = cluster.nodes.values()
        await ask(one, commit("g", 5))
        controller.kill()
        await asyncio.sleep(3)
        for node, offset in ((one, 6), (two, 7)):
            await ask(node, commit("g", offset))
            assert [row.offset for row in (await ask(two, FETCH)).offsets] == [offset]
        cluster.raise_fatal()

    settings = {**SETTINGS, **{name.replace("_", "."): value for name, value in FAST.items()}}
    cluster = SimulatedCluster(SimulatedWorld(1), settings=settings, roles=(("broker",), ("broker",), ("controller",)))
    cluster.world.run(story())
