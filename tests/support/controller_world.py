"""The pure controller driven by hand: an image, soft state, a clock that stands still, and the questions asked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from uuid import UUID

from metadata.controller.decide import BrokerUnreachable, Decision, Input, Liveness, LogEndsLearned, decide
from metadata.controller.requests import (
    NO_FAILED_REPLICAS,
    BrokerHeartbeat,
    CreateTopics,
    ElectLeaders,
    FailedReplicas,
    NewTopic,
    RegisterBroker,
    ReplicaLogEnd,
    TopicCreated,
)
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.records import Record
from metadata.settings import applied, broker_settings

CLUSTER_ID = "test-cluster"


class World:
    def __init__(self, seed: int = 1, **static: str) -> None:
        self.image = MetadataImage()
        self.liveness = Liveness()
        self.now_ms = 0
        self.rng = random.Random(seed)
        self.static = {name.replace("_", "."): value for name, value in static.items()}
        self.records: list[Record] = []
        self.last: tuple[Record, ...] = ()
        """Records since the one who looks at them last emptied it."""
        self.asked: list[tuple[Decision, ElectLeaders | None]] = []

    def decide(self, request: Input) -> Decision:
        """Decide and apply; follow-ups are decided too, as the shell does."""
        decision = self._once(request)
        follow_up = decision.follow_up
        while follow_up is not None:
            after = self._once(follow_up)
            follow_up = after.follow_up
        return decision

    def _once(self, request: Input) -> Decision:
        settings = broker_settings(self.static, applied(self.image.config("broker", "")))
        decision = decide(
            self.image,
            self.liveness,
            request,
            now_ms=self.now_ms,
            settings=settings,
            rng=self.rng,
            cluster_id=CLUSTER_ID,
        )
        self.liveness = decision.liveness
        self.image = self.image.apply(decision.records)
        self.records.extend(decision.records)
        self.last = (*self.last, *decision.records)
        if decision.queries:
            deferred = request if decision.is_deferred and isinstance(request, ElectLeaders) else None
            self.asked.append((decision, deferred))
        return decision

    # --- the usual ----------------------------------------------------------------------------------------------

    def register(
        self,
        broker_id: int,
        *,
        incarnation: int = 1,
        rack: str | None = None,
        listeners: Mapping[str, str] | None = None,
    ) -> int:
        request = RegisterBroker(
            cluster_id=CLUSTER_ID,
            broker_id=broker_id,
            incarnation_id=UUID(int=broker_id * 1000 + incarnation),
            rest=f"host{broker_id}:8082",
            kafka=f"host{broker_id}:9092",
            rack=rack,
            listeners=listeners or {},
        )
        reply = self.decide(request).reply
        return reply.broker_epoch  # type: ignore[attr-defined,no-any-return]

    def beat(
        self,
        broker_id: int,
        *,
        offset: int | None = None,
        fence: bool = False,
        shutdown: bool = False,
        failed: FailedReplicas = NO_FAILED_REPLICAS,
    ) -> Decision:
        request = BrokerHeartbeat(
            broker_id=broker_id,
            broker_epoch=self.epoch(broker_id),
            metadata_offset=self.image.offset if offset is None else offset,
            wants_fence=fence,
            wants_shutdown=shutdown,
            failed=failed,
        )
        return self.decide(request)

    def start(self, *broker_ids: int, racks: Sequence[str | None] = ()) -> None:
        """Register and unfence."""
        for position, broker_id in enumerate(broker_ids):
            self.register(broker_id, rack=racks[position] if racks else None)
            self.beat(broker_id)

    def create(self, name: str, *assignment: tuple[int, ...], **configs: str) -> UUID:
        topic = NewTopic(
            name=name,
            assignment=dict(enumerate(assignment)),
            configs={key.replace("_", "."): value for key, value in configs.items()},
        )
        created = self.decide(CreateTopics(topics=(topic,))).reply[name]  # type: ignore[index]
        assert isinstance(created, TopicCreated), created
        return created.topic_id

    def answer(self, ends: dict[int, tuple[int, int, int]]) -> Decision:
        """Answer the oldest question: broker -> (last epoch, log end offset, high watermark), the same for all."""
        decision, request = self.asked.pop(0)
        answers = {
            broker_id: tuple(_end(key, *ends[broker_id]) for key in keys)
            for broker_id, keys in decision.queries
            if broker_id in ends
        }
        return self.decide(LogEndsLearned(partitions=decision.candidates, answers=answers, request=request))

    def decide_fence(self, broker_id: int) -> Decision:
        """Its connection broke and its port refuses."""
        return self.decide(BrokerUnreachable(broker_id=broker_id, broker_epoch=self.epoch(broker_id)))

    def epoch(self, broker_id: int) -> int:
        broker = self.image.brokers.get(broker_id)
        return -1 if broker is None else broker.broker_epoch

    def partition(self, name: str, index: int = 0) -> PartitionImage:
        topic = self.image.topic(name)
        assert topic is not None, name
        return topic.partitions[index]


def _end(key: TopicIdPartition, epoch: int, end: int, high_watermark: int) -> ReplicaLogEnd:
    return ReplicaLogEnd(
        topic_id=key.topic_id,
        partition=key.partition,
        last_epoch=epoch,
        log_end_offset=end,
        high_watermark=high_watermark,
    )
