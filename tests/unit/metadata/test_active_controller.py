"""The shell around the pure controller: one append per batch, epochs, resignation, deadlines, probes, questions.

Time is virtual: a busy machine lets no session run out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import pytest

from kraft.protocol.errors import NotController, RequestTimedOut, StaleBrokerEpoch, ThrottlingQuotaExceeded
from metadata.controller.active import ActiveController
from metadata.controller.requests import (
    AlterConfigs,
    AlterReassignments,
    BrokerHeartbeat,
    ConfigAlteration,
    ConfigResource,
    CreateTopics,
    ElectLeaders,
    NewTopic,
    PartitionReassignment,
    RegisterBroker,
    ReplicaLogEnd,
)
from metadata.environment import Environment, TimerHandle
from metadata.image import TopicIdPartition
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.records import ControllerEpochRecord, encode_record
from tests.support.memory_log import MemoryLog, SharedLog
from tests.unit.replication.harness import virtual

CLUSTER = "c"


class LoopClock:
    """The event loop's clock, with a shift that tests move."""

    def __init__(self) -> None:
        self.shift_ms = 0

    def monotonic_us(self) -> int:
        return self.monotonic_ms() * 1000

    def monotonic_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000) + self.shift_ms

    def wall_ms(self) -> int:
        return self.monotonic_ms()

    async def sleep(self, ms: float) -> None:
        await asyncio.sleep(ms / 1000)

    def timeout(self, ms: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(ms / 1000)

    def call_later(self, ms: float, callback: Callable[..., object], *args: object) -> TimerHandle:
        return asyncio.get_running_loop().call_later(ms / 1000, callback, *args)


class RecordedEvents:
    def __init__(self) -> None:
        self.emitted: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, /, **fields: object) -> None:
        self.emitted.append((event, fields))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.emitted if event == name]


class Brokers:
    """Answers probes and questions."""

    def __init__(self) -> None:
        self.refusing: set[int] = set()
        self.ends: dict[int, int] = {}
        self.probes: list[int] = []

    async def is_refused(self, broker_id: int) -> bool:
        self.probes.append(broker_id)
        return broker_id in self.refusing

    async def log_ends(self, broker_id: int, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd]:
        if broker_id not in self.ends:
            raise ConnectionRefusedError(f"broker {broker_id} is away")
        end = self.ends[broker_id]
        return [
            ReplicaLogEnd(
                topic_id=key.topic_id, partition=key.partition, last_epoch=0, log_end_offset=end, high_watermark=end + 3
            )
            for key in partitions
        ]


class Node:
    def __init__(self, shared: SharedLog, node_id: int = 1, **static: object) -> None:
        self.shared = shared
        self.log: MemoryLog = shared.node(node_id)
        self.clock = LoopClock()
        self.events = RecordedEvents()
        self.brokers = Brokers()
        environment = Environment(
            clock=self.clock,
            files=None,  # type: ignore[arg-type]
            network=None,  # type: ignore[arg-type]
            workers=None,  # type: ignore[arg-type]
            rng=random.Random(node_id),
        )
        self.controller = ActiveController(
            node_id=node_id,
            cluster_id=CLUSTER,
            log=self.log,
            environment=environment,
            events=self.events,
            static_settings={name.replace("_", "."): value for name, value in static.items()},
            query=self.brokers,
            probe=self.brokers,
        )

    async def register(self, broker_id: int, incarnation: int = 1) -> int:
        request = RegisterBroker(
            cluster_id=CLUSTER,
            broker_id=broker_id,
            incarnation_id=UUID(int=broker_id * 100 + incarnation),
            rest=f"h{broker_id}:1",
            kafka=f"h{broker_id}:2",
        )
        reply = await self.controller.submit(request, timeout_ms=60_000)
        return reply.broker_epoch

    async def beat(self, broker_id: int, *, timeout_ms: int = 2000, wants_proof: bool = False) -> bool:
        image = self.shared.image
        request = BrokerHeartbeat(
            broker_id=broker_id,
            broker_epoch=image.brokers[broker_id].broker_epoch,
            metadata_offset=image.offset,
            wants_proof=wants_proof,
        )
        return not (await self.controller.submit(request, timeout_ms=timeout_ms)).is_fenced

    async def start_brokers(self, *broker_ids: int) -> None:
        for broker_id in broker_ids:
            await self.register(broker_id)
            assert await self.beat(broker_id)

    async def create(self, name: str, *replicas: int) -> UUID:
        topic = NewTopic(name=name, assignment={0: replicas})
        reply = await self.controller.submit(CreateTopics(topics=(topic,)), timeout_ms=60_000)
        return reply[name].topic_id  # type: ignore[union-attr]


async def until(condition: Callable[[], bool], *, what: str) -> None:
    for _ in range(2500):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError(f"not within 5 seconds: {what}")


def run(story: Callable[[Node], Awaitable[None]], **static: object) -> None:
    async def main() -> None:
        shared = SharedLog()
        node = Node(shared, **static)
        await node.controller.start()
        shared.elect(1)
        await until(lambda: node.controller.is_active, what="activation")
        try:
            await story(node)
        finally:
            await node.controller.stop()

    virtual.run(main())


def test_claims_its_epoch_before_it_decides() -> None:
    async def story(node: Node) -> None:
        assert isinstance(node.shared.records[0], ControllerEpochRecord)
        assert node.controller.epoch == node.shared.image.controller_epoch == 1
        assert node.events.named("controller_changed") == [{"controller": 1, "epoch": 1, "term": 1}]
        assert await node.register(1) == 1

    run(story)


def test_heartbeat_with_proof_waits_for_quorum() -> None:
    """A controller that was deposed and has not heard of it answers the others: they change nothing."""

    async def story(node: Node) -> None:
        await node.start_brokers(1)
        records = len(node.shared.records)
        assert await node.beat(1, wants_proof=True)
        node.shared.may_commit.clear()
        assert await node.beat(1), "this one changes nothing"
        asked = asyncio.ensure_future(node.beat(1, wants_proof=True))
        await asyncio.sleep(0.5)
        assert not asked.done()
        node.shared.elect(2)
        node.shared.may_commit.set()
        with pytest.raises(NotController):
            await asked
        assert len(node.shared.records) == records, "a proof is no metadata"

    run(story)


def test_it_stops_in_the_moment_in_which_it_is_relieved() -> None:
    async def story(node: Node) -> None:
        node.shared.elect(2)
        await asyncio.sleep(0)
        await node.controller.stop()

    run(story)


def test_a_node_that_does_not_lead_refuses() -> None:
    async def story(node: Node) -> None:
        node.shared.elect(2)
        await until(lambda: not node.controller.is_active, what="resignation")
        with pytest.raises(NotController):
            await node.register(1)
        assert node.controller.epoch == -1

    run(story)


def test_requests_at_once_become_one_append() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        before = len(node.shared.appends)
        await asyncio.gather(*(node.create(f"t{index}", 1) for index in range(20)))
        assert len(node.shared.appends) == before + 1
        assert sorted(node.shared.image.topic_ids) == sorted(f"t{index}" for index in range(20))

    run(story)


def test_a_heartbeat_that_changes_nothing_is_not_appended() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        before = len(node.shared.appends)
        assert await node.beat(1)
        assert len(node.shared.appends) == before

    run(story)


def test_a_refusal_reaches_only_its_sender() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        stale = BrokerHeartbeat(broker_id=1, broker_epoch=0, metadata_offset=0)
        refused, created = await asyncio.gather(
            node.controller.submit(stale, timeout_ms=60_000), node.create("t", 1), return_exceptions=True
        )
        assert isinstance(refused, StaleBrokerEpoch)
        assert node.shared.image.topic_ids["t"] == created

    run(story)


@pytest.mark.parametrize(
    ("failure", "reported"), [(AppendLost("x"), NotController), (AppendUnknown("x"), RequestTimedOut)]
)
def test_a_failed_append_ends_the_controller_term(
    failure: AppendLost | AppendUnknown, reported: type[Exception]
) -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        node.log.fail_next = failure
        with pytest.raises(reported):
            await node.create("t", 1)
        await until(lambda: node.controller.epoch == 2, what="a new controller term")
        await node.create("u", 1)
        assert set(node.shared.image.topic_ids) == {"u"}

    run(story)


def test_an_append_that_was_committed_though_nobody_knew() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        node.log.fail_next, node.log.fail_after_commit = AppendUnknown("x"), True
        with pytest.raises(RequestTimedOut):
            await node.create("t", 1)
        await until(lambda: node.controller.epoch == 2, what="a new controller term")
        assert set(node.shared.image.topic_ids) == {"t"}

    run(story)


def test_a_stale_controller_cannot_append() -> None:
    async def main() -> None:
        shared = SharedLog()
        old, new = Node(shared, 1), Node(shared, 2)
        await old.controller.start()
        await new.controller.start()
        shared.elect(1)
        await until(lambda: old.controller.is_active, what="first")
        await old.start_brokers(5)
        shared.may_commit.clear()
        waiting = asyncio.create_task(old.create("lost", 5))
        await asyncio.sleep(0.01)
        shared.elect(2)
        shared.may_commit.set()
        with pytest.raises(RequestTimedOut):
            await waiting
        await until(lambda: new.controller.is_active, what="second")
        assert (shared.image.controller_id, shared.image.controller_epoch) == (2, 2)
        assert not shared.image.topic_ids
        await new.create("t", 5)
        await old.controller.stop()
        await new.controller.stop()

    virtual.run(main())


def test_deadline_passes() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        node.shared.may_commit.clear()
        request = CreateTopics(topics=(NewTopic(name="t", assignment={0: (1,)}),))
        with pytest.raises(RequestTimedOut, match="not known"):
            await node.controller.submit(request, timeout_ms=20)  # short: it is not committed before
        node.shared.may_commit.set()
        await node.create("u", 1)
        assert set(node.shared.image.topic_ids) == {"t", "u"}

    run(story)


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metadata.controller.inbox.REQUESTS_WAITING_MAX", 3)

    async def story(node: Node) -> None:
        await node.start_brokers(1)
        outcomes = await asyncio.gather(*(node.create(f"t{index}", 1) for index in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UUID] * 3 + [ThrottlingQuotaExceeded] * 2

    run(story)


def test_appends_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metadata.controller.event_batch.APPEND_BYTES_MAX", 700)

    async def story(node: Node) -> None:
        await node.start_brokers(1)
        before = len(node.shared.appends)
        await asyncio.gather(*(node.create(f"t{index}", 1) for index in range(10)))
        appends = node.shared.appends[before:]
        assert [len(records) for records in appends] == [4, 2, 4, 2, 4, 2, 2]
        assert max(sum(len(encode_record(record)) for record in records) for records in appends) <= 700

    run(story)


def test_a_dead_broker_is_fenced_when_its_connection_breaks() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2)
        topic_id = await node.create("t", 1, 2)
        node.brokers.refusing.add(1)
        node.controller.broker_connection_lost(1)
        await until(lambda: node.shared.image.brokers[1].fenced, what="fencing")
        await until(lambda: bool(node.events.named("leader_elected")), what="announcement")
        elected = node.events.named("leader_elected")[0]
        assert (elected["old_leader"], elected["leader"], elected["leader_epoch"]) == (1, 2, 1)
        assert elected["topic_id"] == str(topic_id)
        partition = node.shared.image.topics[topic_id].partitions[0]
        assert (partition.leader, partition.isr) == (2, (2,))
        (changed,) = node.events.named("isr_changed")
        for event in (elected, changed):
            assert (event["leader"], event["leader_epoch"], event["isr"]) == (2, 1, [2])
            assert event["partition_epoch"] == partition.partition_epoch

    run(story)


def test_a_broker_that_still_listens_is_not_fenced_but_may_be_replaced() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        node.controller.broker_connection_lost(1)
        await until(lambda: len(node.brokers.probes) >= 2, what="repeated probes")
        assert not node.shared.image.brokers[1].fenced
        await node.register(1, incarnation=2)
        assert node.shared.image.brokers[1].incarnation_id == UUID(int=102)

    run(story, broker_probe_timeout_ms=50)


def test_a_silent_broker_is_fenced_by_its_session() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2)
        while not node.shared.image.brokers[1].fenced:
            assert await node.beat(2)
            await asyncio.sleep(0.01)
        assert not node.shared.image.brokers[2].fenced
        assert "silent for" in node.events.named("broker_fenced")[0]["reason"]

    run(story, broker_session_timeout_ms=150)


def test_a_late_heartbeat_renews_and_the_late_controller_fences_nobody() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        node.shared.may_commit.clear()
        creating = asyncio.create_task(node.create("t", 1))
        await asyncio.sleep(0.01)
        beating = asyncio.create_task(node.beat(1))
        await asyncio.sleep(0.01)
        node.clock.shift_ms += 20_000
        node.shared.may_commit.set()
        await creating
        with pytest.raises(RequestTimedOut, match="late"):
            await beating
        assert await node.beat(1)
        await asyncio.sleep(0.6)
        assert not node.shared.image.brokers[1].fenced

    run(story)


def test_after_activation_the_dead_are_fenced_at_once_and_the_others_get_time() -> None:
    async def main() -> None:
        shared = SharedLog()
        old, new = Node(shared, 1), Node(shared, 2)
        await old.controller.start()
        await new.controller.start()
        shared.elect(1)
        await until(lambda: old.controller.is_active, what="first")
        await old.start_brokers(5, 6)
        new.brokers.refusing.add(5)
        new.clock.shift_ms += 100_000
        shared.elect(2)
        await until(lambda: shared.image.brokers[5].fenced, what="fencing of the dead")
        assert not shared.image.brokers[6].fenced
        await old.controller.stop()
        await new.controller.stop()

    virtual.run(main())


def test_unclean_election_asks_first() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        topic_id = await node.create("t", 1, 2, 3)
        await lose_isr(node, topic_id)
        node.brokers.ends = {2: 10, 3: 20}
        change = ConfigAlteration(name="unclean.leader.election.enable", operation="set", value="true")
        resource = ConfigResource(resource_type="topic", name="t")
        await node.controller.submit(AlterConfigs(resources={resource: (change,)}), timeout_ms=60_000)
        await until(lambda: node.shared.image.topics[topic_id].partitions[0].leader == 3, what="unclean leader")
        await until(lambda: bool(node.events.named("unclean_election")), what="announcement")
        reported = node.events.named("unclean_election")[0]
        assert (reported["leader"], reported["answers"], reported["given_up"]) == (
            3,
            {"2": [0, 10], "3": [0, 20]},
            [20, 23],
        )

    run(story)


def test_elect_leaders_unclean_answers_after_the_replicas() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        topic_id = await node.create("t", 1, 2, 3)
        await lose_isr(node, topic_id)
        node.brokers.ends = {2: 10}
        request = ElectLeaders(election="unclean", partitions=(("t", 0),))
        assert await node.controller.submit(request, timeout_ms=60_000) == {("t", 0): None}
        assert node.shared.image.topics[topic_id].partitions[0].leader == 2
        assert [fields["broker"] for fields in node.events.named("log_end_unknown")] == [3]

    run(story)


async def lose_isr(node: Node, topic_id: UUID) -> None:
    """Leave broker 1 as the only ISR member, then kill it."""
    node.brokers.refusing.update({2, 3, 1})
    for broker_id in (2, 3, 1):
        node.controller.broker_connection_lost(broker_id)
        await until(lambda broker_id=broker_id: node.shared.image.brokers[broker_id].fenced, what="fenced")
    for broker_id in (2, 3):
        assert await node.beat(broker_id)
    assert node.shared.image.topics[topic_id].partitions[0].leader == -1


def test_a_broken_invariant_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("two leaders")

    async def main() -> None:
        shared = SharedLog()
        node = Node(shared)
        await node.controller.start()
        shared.elect(1)
        await until(lambda: node.controller.is_active, what="activation")
        monkeypatch.setattr("metadata.controller.event_batch.decide", broken)
        waiting = asyncio.create_task(node.register(1))
        with pytest.raises(ExceptionGroup) as failure:
            await node.controller.wait()
        assert failure.group_contains(AssertionError, match="two leaders")
        assert not node.controller.is_active
        with pytest.raises(RequestTimedOut):
            await waiting

    virtual.run(main())


def test_reassignment_and_shutdown_are_announced() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2)
        await node.create("t", 1)
        wanted = PartitionReassignment(topic="t", partition=0, replicas=(2,))
        await node.controller.submit(AlterReassignments(reassignments=(wanted,)), timeout_ms=60_000)
        moved = node.events.named("replicas_changed")[0]
        assert (moved["replicas"], moved["adding"], moved["removing"]) == ([2, 1], [2], [1])
        image = node.shared.image
        stop = BrokerHeartbeat(
            broker_id=1,
            broker_epoch=image.brokers[1].broker_epoch,
            metadata_offset=image.offset,
            wants_shutdown=True,
        )
        answer = await node.controller.submit(stop, timeout_ms=60_000)
        assert not answer.should_shut_down
        assert [fields["broker"] for fields in node.events.named("broker_shutting_down")] == [1]
        assert node.events.named("leader_elected")[0]["leader"] == -1

    run(story)


def test_stopping_answers_who_waits() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1)
        node.shared.may_commit.clear()
        first = asyncio.create_task(node.create("t", 1))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(node.create("u", 1))
        await asyncio.sleep(0.01)
        await node.controller.stop()
        with pytest.raises(NotController):
            await second
        with pytest.raises(RequestTimedOut):
            await first

    run(story)
