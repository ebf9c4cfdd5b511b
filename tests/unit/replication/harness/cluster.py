"""Three replica managers in one loop: in-memory logs and channels, a controller moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from uuid import UUID

from kraft.protocol.errors import FencedLeaderEpoch, IneligibleReplica, InvalidUpdateVersion, UnknownTopicOrPartition
from metadata.controller.requests import AlterPartition, ErrorDetail, PartitionAlteration
from metadata.delta import delta_between
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.records import (
    BrokerChangeRecord,
    ConfigRecord,
    LeaderRecovery,
    PartitionChangeRecord,
    PartitionRecord,
    Reason,
    Record,
    RegisterBrokerRecord,
    RemoveTopicRecord,
    TopicRecord,
)
from metadata.settings import broker_settings, topic_settings
from replication.manager.manager import ReplicaManager
from replication.partition.states import LeaderState
from replication.requests import FetchRequest, FetchResponse, LeaderChannel, ProduceOptions, ProduceOutcome
from tests.unit.replication.harness.memory_log import MemoryLog, MemoryLogs, batch, decode
from tests.unit.replication.harness.virtual import environment

TOPIC_ID = UUID(int=7)


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


class Channel:
    def __init__(self, cluster: Cluster, follower: int, leader: int) -> None:
        self._cluster, self._follower, self._leader = cluster, follower, leader

    async def fetch(self, request: FetchRequest, *, timeout_ms: int) -> FetchResponse:
        self._cluster.requests.append(request)
        async with asyncio.timeout(timeout_ms / 1_000):
            await asyncio.sleep(self._cluster.delay_ms / 1_000)
            self._check()
            response = await self._cluster.nodes[self._leader].manager.fetch.response(request)
            self._check()
            return response

    def _check(self) -> None:
        if (self._follower, self._leader) in self._cluster.cut or not self._cluster.nodes[self._leader].is_up:
            raise ConnectionRefusedError(f"{self._leader} refuses {self._follower}")

    async def close(self) -> None:
        pass


class Node:
    def __init__(self, cluster: Cluster, node_id: int, logs: MemoryLogs) -> None:
        self.node_id = node_id
        self.is_up = True
        self.hears_metadata = True
        self.logs = logs
        self.events = Recorder()

        def channel(leader: int) -> LeaderChannel:
            return Channel(cluster, node_id, leader)

        self.manager = ReplicaManager(
            node_id,
            environment=environment(node_id),
            logs=logs,
            channels=channel,
            alter_partition=cluster,
            events=self.events,
            settings=lambda: cluster.settings,
            topic_settings=lambda topic: topic_settings(cluster.settings, self.manager.image.config("topic", topic)),
        )


class Cluster:
    """Also the controller: facts go through `MetadataImage.apply`, as in production."""

    def __init__(self, nodes: int = 3, *, logs_of: Callable[[int], Any] | None = None, **settings: Any) -> None:
        """`logs_of` makes the logs of a node: in memory unless told."""
        self.settings = broker_settings({name.replace("_", "."): value for name, value in settings.items()})
        self.image = MetadataImage()
        self.racks: dict[int, str] = {}
        self.cut: set[tuple[int, int]] = set()
        self.requests: list[FetchRequest] = []
        self.alterations: list[AlterPartition] = []
        self.refusals: list[Exception | ErrorDetail] = []
        self.is_controller_up = True
        self.loses_replies = False
        self.delay_ms = 0.0
        make_logs = logs_of or (lambda _: MemoryLogs())
        self.nodes = {i: Node(self, i, make_logs(i)) for i in range(1, nodes + 1)}

    async def __aenter__(self) -> Cluster:
        for node in self.nodes.values():
            await node.manager.start()
        for node_id in self.nodes:
            self.register(node_id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            if node.is_up:
                await node.manager.stop()

    # --- the controller

    def commit(self, *records: Record) -> None:
        self.image = self.image.apply(records)
        self.publish()

    def publish(self) -> None:
        for node in self.nodes.values():
            if node.is_up and node.hears_metadata:
                node.manager.apply_metadata(delta_between(node.manager.image, self.image))

    def register(self, node_id: int) -> None:
        self.commit(
            RegisterBrokerRecord(
                broker_id=node_id,
                incarnation_id=UUID(int=node_id),
                rest=f"r:{node_id}",
                kafka=f"k:{node_id}",
                rack=self.racks.get(node_id),
            )
        )
        self.fence(node_id, fenced=False)

    def fence(self, node_id: int, *, fenced: bool = True) -> None:
        self.commit(
            BrokerChangeRecord(
                broker_id=node_id,
                broker_epoch=self.image.brokers[node_id].broker_epoch,
                fenced=fenced,
                in_controlled_shutdown=False,
                reason="",
            )
        )

    def create(
        self,
        topic: str = "t",
        *,
        topic_id: UUID = TOPIC_ID,
        partitions: int = 1,
        replicas: tuple[int, ...] = (1, 2, 3),
        isr: tuple[int, ...] | None = None,
        **configs: object,
    ) -> TopicIdPartition:
        records: list[Record] = [TopicRecord(name=topic, topic_id=topic_id)]
        records += [
            ConfigRecord(resource_type="topic", resource_name=topic, name=n.replace("_", "."), value=str(v))
            for n, v in configs.items()
        ]
        records += [
            PartitionRecord(topic_id=topic_id, partition=p, replicas=replicas, isr=isr or replicas, leader=replicas[0])
            for p in range(partitions)
        ]
        self.commit(*records)
        return TopicIdPartition(topic_id, 0)

    def configure(self, topic: str, name: str, value: str) -> None:
        self.commit(ConfigRecord(resource_type="topic", resource_name=topic, name=name, value=value))

    def remove_topic(self, topic_id: UUID = TOPIC_ID) -> None:
        self.commit(RemoveTopicRecord(topic_id=topic_id))

    def elect(
        self, key: TopicIdPartition, leader: int, isr: tuple[int, ...], *, recovery: LeaderRecovery | None = None
    ) -> None:
        old = self.partition(key)
        self.commit(
            PartitionChangeRecord(
                topic_id=key.topic_id,
                partition=key.partition,
                reason=Reason.BROKER_FENCED,
                leader=leader,
                isr=isr,
                leader_epoch=old.leader_epoch + 1,
                partition_epoch=old.partition_epoch + 1,
                leader_recovery=recovery,
            )
        )

    def change_isr(self, key: TopicIdPartition, isr: tuple[int, ...], **more: Any) -> None:
        old = self.partition(key)
        self.commit(
            PartitionChangeRecord(
                topic_id=key.topic_id,
                partition=key.partition,
                reason=Reason.ISR_SHRUNK,
                isr=isr,
                leader_epoch=old.leader_epoch,
                partition_epoch=old.partition_epoch + 1,
                **more,
            )
        )

    def partition(self, key: TopicIdPartition) -> PartitionImage:
        found = self.image.partition(key.topic_id, key.partition)
        assert found is not None
        return found

    async def alter(self, request: AlterPartition) -> Mapping[TopicIdPartition, PartitionImage | ErrorDetail]:
        await asyncio.sleep(0.001)
        if not self.is_controller_up:
            raise ConnectionRefusedError("no controller")
        self.alterations.append(request)
        if self.refusals and isinstance(refusal := self.refusals[0], Exception):
            del self.refusals[0]
            raise refusal
        reply = {
            TopicIdPartition(a.topic_id, a.partition): self._alter(a, request.broker_id) for a in request.alterations
        }
        if self.loses_replies:
            raise ConnectionResetError("committed, but the answer was lost")
        return reply

    def _alter(self, wish: PartitionAlteration, broker_id: int) -> PartitionImage | ErrorDetail:
        if self.refusals:
            refusal = self.refusals.pop(0)
            assert isinstance(refusal, ErrorDetail)
            return refusal
        key = TopicIdPartition(wish.topic_id, wish.partition)
        old = self.image.partition(key.topic_id, key.partition)
        if old is None:
            return ErrorDetail(UnknownTopicOrPartition, "")
        if old.leader != broker_id or old.leader_epoch != wish.leader_epoch:
            return ErrorDetail(FencedLeaderEpoch, "")
        if old.partition_epoch != wish.partition_epoch:
            return ErrorDetail(InvalidUpdateVersion, "")
        for member in wish.new_isr:
            broker = self.image.brokers[member.broker_id]
            if not broker.is_active or member.broker_epoch not in (-1, broker.broker_epoch):
                return ErrorDetail(IneligibleReplica, f"{member}")
        self.change_isr(key, tuple(m.broker_id for m in wish.new_isr), leader_recovery=LeaderRecovery.RECOVERED)
        return self.partition(key)

    # --- nodes

    async def kill(self, node_id: int) -> None:
        """Ends the process; what is in its log stays."""
        node = self.nodes[node_id]
        node.is_up = False
        await node.manager.stop()

    async def restart(self, node_id: int) -> None:
        node = self.nodes[node_id] = Node(self, node_id, self.nodes[node_id].logs)
        await node.manager.start()
        self.register(node_id)

    # --- looking

    def log(self, node_id: int, key: TopicIdPartition) -> MemoryLog:
        return self.nodes[node_id].logs.logs[key]

    def payloads(self, node_id: int, key: TopicIdPartition) -> list[bytes]:
        return [b.payload for b in self.log(node_id, key).batches]

    def leader(self, key: TopicIdPartition) -> LeaderState:
        node = self.nodes[self.partition(key).leader]
        state = node.manager._registry.replicas[key].state
        assert isinstance(state, LeaderState), state
        return state

    def high_watermark(self, node_id: int, key: TopicIdPartition) -> int:
        return self.nodes[node_id].manager.high_watermarks()[key]

    async def produce(
        self,
        key: TopicIdPartition,
        payload: bytes,
        *,
        acks: int = -1,
        timeout_ms: int = 5_000,
        at: int | None = None,
    ) -> ProduceOutcome:
        node = self.nodes[self.partition(key).leader if at is None else at]
        return (await node.manager.produce.outcomes({key: batch(payload)}, ProduceOptions(acks, timeout_ms)))[key]

    async def until(self, condition: Callable[[], bool], *, ms: int = 10_000) -> None:
        for _ in range(ms):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"not within {ms} ms: {condition}")

    def copies_agree(self, key: TopicIdPartition) -> bool:
        logs = [n.logs.logs[key] for n in self.nodes.values() if n.is_up]
        return all(decode(b"".join(b.encode() for b in log.batches)) == logs[0].batches for log in logs)
