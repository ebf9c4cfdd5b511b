"""Kafka's idempotent producer: an id from the cluster, a sequence per partition, up to five batches in flight.

As org.apache.kafka.clients.producer does it: what is not acknowledged is sent again in order with the same sequence,
and a sequence that is refused though all before it was acknowledged ends the id: what is in doubt then is not sent
again under another. The first batch of an id goes alone, for a leader that does not know the id takes any (D5).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from functools import partial

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import KafkaError
from kraft.wire.channels.transactions import INIT_PRODUCER_ID, InitProducerId
from kraft.wire.handler_table import ApiHandlers
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions
from tests.simulation.clients import GRACE_MS, RETRY_PAUSE_S, Attempt, choose
from tests.simulation.node_request import Unanswered, ask
from tests.simulation.producer_oracle import WRONG_SEQUENCE, ProducerOracle
from tests.simulation.stateful_plan import SequencedPlan
from tests.support.client_door import broker_of
from tests.support.node_call import node_call

INIT_S = 15
LAST_ROUNDS = 20
"""Rounds after the end of the load in which what is in doubt is sent again."""
DETOURS = 0.2


@dataclass(slots=True, eq=False)
class Batch:
    values: tuple[bytes, ...]
    sequence: int


@dataclass(slots=True)
class Session:
    """An id on one partition."""

    which: TopicIdPartition
    producer_id: int
    next_sequence: int = 0
    has_acked: bool = False
    epoch: int = -1
    """The newest leader epoch of an acknowledgement."""
    unacked: list[Batch] = field(default_factory=list)


class SequencedProducer:
    def __init__(self, plan: SequencedPlan, topic: str, promised: ProducerOracle) -> None:
        self._plan = plan
        self._topic = topic
        self._promised = promised
        self._oracle = promised.oracle
        self._rng: random.Random = self._oracle.cluster.world.rng(f"sequenced {plan.name}")
        self._number = 0
        self.is_stopping = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lane in range(self._plan.lanes):
                group.create_task(self._lane(lane))

    async def _lane(self, lane: int) -> None:
        session: Session | None = None
        rounds = 0
        while not self.is_stopping or (session is not None and session.unacked and rounds < LAST_ROUNDS):
            rounds += self.is_stopping
            node, which = (
                choose(self._oracle.cluster, self._rng, out_of_reach=self._oracle.out_of_reach),
                self._which(lane),
            )
            if node is None or which is None:
                await asyncio.sleep(RETRY_PAUSE_S)
            elif session is None or session.which != which:
                session = await self._begin(node, which)
            else:
                self._fill(session)
                if not await self._round(node, session):
                    session = None
                await asyncio.sleep(self._rng.uniform(0, 2 * self._plan.pause_ms) / 1000)

    def _which(self, lane: int) -> TopicIdPartition | None:
        topic = self._oracle.image.topic(self._topic)
        return None if topic is None or lane not in topic.partitions else TopicIdPartition(topic.topic_id, lane)

    async def _begin(self, node: SimulatedNode, which: TopicIdPartition) -> Session | None:
        assert node.node is not None
        served = ApiHandlers(broker_of(node)).get(INIT_PRODUCER_ID.api.key)
        assert served is not None
        call = node_call(INIT_PRODUCER_ID.to_request(InitProducerId(), INIT_S * 1000))
        try:
            answer = await ask(self._oracle, node, partial(served.handle, call), within_s=INIT_S, what="InitProducerId")
        except (KafkaError, Unanswered) as error:
            self._oracle.count(f"InitProducerId raised {type(error).__name__}")
            await asyncio.sleep(RETRY_PAUSE_S)
            return None
        producer_id = int(answer.producer_id)
        self._promised.id_given(producer_id)
        return Session(which, producer_id)

    def _fill(self, session: Session) -> None:
        while len(session.unacked) < self._plan.in_flight and not self.is_stopping:
            self._number += 1
            count = self._rng.randint(1, self._plan.records)
            values = tuple(b"%s.%d.%d" % (self._plan.name.encode(), self._number, i) for i in range(count))
            self._promised.sends(values)
            session.unacked.append(Batch(values, session.next_sequence))
            session.next_sequence += count

    async def _round(self, node: SimulatedNode, session: Session) -> bool:
        """Everything that is not acknowledged, in order, at once; False when the id is at its end."""
        window = session.unacked if session.has_acked else session.unacked[:1]
        attempts = await asyncio.gather(*[self._attempt(self._way(node), session, batch) for batch in list(window)])
        first = attempts[0].outcome if attempts else None
        if first is not None and first.error_code in WRONG_SEQUENCE and 0 <= first.leader_epoch < session.epoch:
            self._oracle.count("a deposed leader refuses a sequence")  # KIP-320: a client does not go back to it
        elif first is not None and first.error_code in WRONG_SEQUENCE:
            self._promised.refused_sequence(
                session.which,
                self._plan.acks,
                since_epoch=session.epoch,
                producer_id=session.producer_id,
                sequence=session.unacked[0].sequence,
                what=f"sequence {session.unacked[0].sequence} of producer {session.producer_id} comes after all that "
                f"was acknowledged, and was refused: {first.error_code} {first.message}",
            )
            return False
        acked = {batch for batch, attempt in zip(list(window), attempts, strict=True) if attempt.is_acked}
        session.unacked = [batch for batch in session.unacked if batch not in acked]
        return True

    def _way(self, node: SimulatedNode) -> SimulatedNode:
        """Mostly the same for all that is in flight; a batch that takes another may overtake."""
        other = (
            choose(self._oracle.cluster, self._rng, out_of_reach=self._oracle.out_of_reach)
            if self._rng.random() < DETOURS
            else None
        )
        return other or node

    async def _attempt(self, node: SimulatedNode, session: Session, batch: Batch) -> Attempt:
        plan, now_ms = self._plan, node.machine.clock.wall_ms()
        attempt = Attempt(batch.values, session.which, plan.acks, self._oracle.cluster.world.loop.now_us)
        self._oracle.attempts.append(attempt)
        data = build_batch(
            [NewRecord(None, value, [], now_ms) for value in batch.values],
            producer_id=session.producer_id,
            producer_epoch=0,
            base_sequence=batch.sequence,
        )
        if node.node is None:
            return attempt
        produce = partial(node.node.gateway.produce, {session.which: data}, ProduceOptions(plan.acks, plan.timeout_ms))
        try:
            within_s = (plan.timeout_ms + GRACE_MS) / 1000
            outcomes = await ask(self._oracle, node, produce, within_s=within_s, what="a sequenced produce")
        except (KafkaError, Unanswered) as error:
            self._oracle.count(f"sequenced produce raised {type(error).__name__}")
            return attempt
        attempt.outcome = outcomes[session.which]
        self._oracle.logs.answered(attempt)
        self._promised.answered((session.producer_id, batch.sequence, session.which), attempt)
        if attempt.is_acked:
            session.has_acked = True
            session.epoch = max(session.epoch, attempt.outcome.leader_epoch)
        return attempt
