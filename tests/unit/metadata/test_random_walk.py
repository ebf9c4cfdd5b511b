"""Thousands of random events: the invariants hold after each, and replay and snapshots give the same image."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kraft.protocol.errors import KafkaError
from metadata.controller.decide import (
    ActivationEvent,
    BrokerDisconnected,
    BrokerUnreachable,
    Liveness,
    PreferredElectionTick,
    SessionsTick,
    UncleanSweepTick,
)
from metadata.controller.requests import (
    NO_FAILED_REPLICAS,
    AllocateProducerIds,
    AlterConfigs,
    AlterPartition,
    AlterReassignments,
    ConfigAlteration,
    ConfigResource,
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ElectLeaders,
    FailedReplicas,
    IsrMember,
    NewPartitions,
    NewTopic,
    PartitionAlteration,
    PartitionReassignment,
)
from metadata.delta import delta_between
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.image_codec import decode_image, encode_image
from metadata.records import LeaderRecovery, Reason, decode_records, encode_records
from tests.support.controller_world import World

EVENTS_PER_WALK = 3000
BROKERS = range(1, 6)


class Walk:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(seed)
        self.incarnations = dict.fromkeys(BROKERS, 1)
        self.failed = dict.fromkeys(BROKERS, NO_FAILED_REPLICAS)

    def step(self) -> None:
        rng = self.rng
        actions: list[tuple[int, Callable[[], object]]] = [
            (12, self.beat),
            (5, self.register),
            (3, self.unreachable),
            (4, self.pass_time),
            (20, self.alter),
            (4, self.reassign),
            (3, self.elect),
            (2, self.create),
            (1, self.delete),
            (1, self.grow),
            (2, self.configure),
            (6, self.answer),
            (1, lambda: self.world.decide(PreferredElectionTick())),
            (1, lambda: self.world.decide(UncleanSweepTick())),
            (1, lambda: self.world.decide(ActivationEvent())),
            (1, self.allocate),
        ]
        weights, choices = zip(*actions, strict=True)
        rng.choices(choices, weights)[0]()

    def beat(self) -> None:
        broker_id = self.rng.choice(BROKERS)
        offset = self.world.image.offset - self.rng.choice([0, 0, 0, 5])
        self.fail_logs(broker_id)
        self.world.beat(
            broker_id,
            offset=offset,
            fence=self.rng.random() < 0.03,
            shutdown=self.rng.random() < 0.1,
            failed=self.failed[broker_id],
        )

    def fail_logs(self, broker_id: int) -> None:
        """A log here and there fails, and works again two heartbeats later or so."""
        failed, partition = self.failed[broker_id], self.partition()
        if self.rng.random() < 0.4:
            self.failed[broker_id] = NO_FAILED_REPLICAS
        elif partition is not None and self.rng.random() < 0.5:
            key = frozenset([TopicIdPartition(partition.topic_id, partition.partition)])
            if self.rng.random() < 0.5:
                changed = FailedReplicas(offline=failed.offline | key, read_only=failed.read_only - key)
            else:
                changed = FailedReplicas(offline=failed.offline - key, read_only=failed.read_only | key)
            self.failed[broker_id] = changed

    def register(self) -> None:
        broker_id = self.rng.choice(BROKERS)
        self.incarnations[broker_id] += self.rng.choice([0, 1])
        self.world.register(broker_id, incarnation=self.incarnations[broker_id], rack=f"r{broker_id % 2}")

    def unreachable(self) -> None:
        broker_id = self.rng.choice(BROKERS)
        epoch = self.world.epoch(broker_id)
        kind = self.rng.choice([BrokerUnreachable, BrokerDisconnected])
        self.world.decide(kind(broker_id=broker_id, broker_epoch=epoch))

    def pass_time(self) -> None:
        self.world.now_ms += self.rng.randrange(4000)
        self.world.decide(SessionsTick(late_ms=self.rng.choice([0, 0, 0, 2000])))

    def partition(self) -> PartitionImage | None:
        partitions = list(self.world.image.all_partitions())
        return self.rng.choice(partitions) if partitions else None

    def alter(self) -> None:
        partition = self.partition()
        if partition is None:
            return
        isr = self.rng.sample(partition.replicas, self.rng.randint(1, len(partition.replicas)))
        if partition.has_leader and partition.leader not in isr and self.rng.random() < 0.9:
            isr.append(partition.leader)
        alteration = PartitionAlteration(
            topic_id=partition.topic_id,
            partition=partition.partition,
            leader_epoch=partition.leader_epoch,
            partition_epoch=partition.partition_epoch - (self.rng.random() < 0.1),
            new_isr=tuple(IsrMember(broker_id=id_, broker_epoch=self.world.epoch(id_)) for id_ in isr),
            recovered=self.rng.random() < 0.7,
        )
        sender = partition.leader
        epoch = self.world.epoch(sender)
        self.world.decide(AlterPartition(broker_id=sender, broker_epoch=epoch, alterations=(alteration,)))

    def reassign(self) -> None:
        partition = self.partition()
        if partition is None:
            return
        target = None if self.rng.random() < 0.3 else tuple(self.rng.sample(BROKERS, self.rng.randint(1, 3)))
        topic = self.world.image.topics[partition.topic_id].name
        wanted = PartitionReassignment(topic=topic, partition=partition.partition, replicas=target)
        self.world.decide(AlterReassignments(reassignments=(wanted,)))

    def elect(self) -> None:
        self.world.decide(ElectLeaders(election=self.rng.choice(["preferred", "unclean"]), partitions=None))

    def create(self) -> None:
        if len(self.world.image.topics) < 8:
            configs = self.rng.choice([{}, {"unclean.leader.election.enable": "true"}])
            topic = NewTopic(
                name=f"t{self.rng.randrange(20)}",
                partitions=self.rng.randint(1, 4),
                replication_factor=self.rng.randint(1, 3),
                configs=configs,
            )
            self.world.decide(CreateTopics(topics=(topic,)))

    def delete(self) -> None:
        if self.world.image.topic_ids and self.rng.random() < 0.3:
            self.world.decide(DeleteTopics(topics=(self.rng.choice(sorted(self.world.image.topic_ids)),)))

    def grow(self) -> None:
        if self.world.image.topic_ids:
            name = self.rng.choice(sorted(self.world.image.topic_ids))
            self.world.decide(CreatePartitions(topics=(NewPartitions(topic=name, count=self.rng.randint(1, 6)),)))

    def configure(self) -> None:
        change = ConfigAlteration(
            name="unclean.leader.election.enable", operation="set", value=self.rng.choice(["true", "false"])
        )
        names = sorted(self.world.image.topic_ids)
        resource = ConfigResource(resource_type="broker", name="")
        if names and self.rng.random() < 0.7:
            resource = ConfigResource(resource_type="topic", name=self.rng.choice(names))
        self.world.decide(AlterConfigs(resources={resource: (change,)}))

    def answer(self) -> None:
        if self.world.asked:
            ends = {id_: (self.rng.randrange(3), self.rng.randrange(9), self.rng.randrange(9)) for id_ in BROKERS}
            for silent in self.rng.sample(BROKERS, self.rng.randrange(6)):
                del ends[silent]
            self.world.answer(ends)

    def allocate(self) -> None:
        broker_id = self.rng.choice(BROKERS)
        self.world.decide(AllocateProducerIds(broker_id=broker_id, broker_epoch=self.world.epoch(broker_id)))


def check(old: MetadataImage, new: MetadataImage, liveness: Liveness) -> None:
    def may_lead(partition: PartitionImage, member: int) -> bool:
        heard = liveness.brokers.get(member)
        key = TopicIdPartition(partition.topic_id, partition.partition)
        return new.is_active_broker(member) and (heard is None or key not in heard.failed.offline)

    for key, (before, after) in delta_between(old, new).changed_partitions.items():
        if after is None:
            assert key.topic_id not in new.topics
            continue
        assert after.isr, after
        assert set(after.isr) <= set(after.replicas), after
        assert len(set(after.isr)) == len(after.isr), after
        assert after.leader == -1 or after.leader in after.isr, after
        assert after.leader == -1 or may_lead(after, after.leader), after
        assert set(after.adding_replicas) | set(after.removing_replicas) <= set(after.replicas), after
        if before is not None:
            assert after.partition_epoch > before.partition_epoch, (before, after)
            assert after.leader_epoch >= before.leader_epoch, (before, after)
            if after.leader != before.leader:
                assert after.leader_epoch > before.leader_epoch, (before, after)
    for partition in new.all_partitions():
        if partition.leader == -1:
            assert not any(may_lead(partition, member) for member in partition.isr), partition
        inactive = [member for member in partition.isr if not new.is_active_broker(member)]
        assert not inactive or partition.isr == tuple(inactive), partition
        if partition.leader_recovery is LeaderRecovery.RECOVERING:
            assert len(partition.isr) == 1, partition


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_walk(seed: int) -> None:
    walk = Walk(seed)
    refused = 0
    for count in range(EVENTS_PER_WALK):
        before = walk.world.image
        try:
            walk.step()
        except KafkaError:
            refused += 1
        check(before, walk.world.image, walk.world.liveness)
        if count % 100 == 0:
            assert decode_image(encode_image(walk.world.image)) == walk.world.image
    records = walk.world.records
    image = walk.world.image
    assert MetadataImage().apply(decode_records(encode_records(records))) == image
    assert decode_image(encode_image(image)) == image
    assert encode_image(decode_image(encode_image(image))) == encode_image(image)
    reasons = {record.reason for record in records if record.type == "partition_change"}
    assert reasons >= set(Reason) - {Reason.CREATED}, set(Reason) - reasons
    assert refused < EVENTS_PER_WALK / 2
