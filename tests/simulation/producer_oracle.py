"""The promises to idempotent producers and Idempotency-Keys: D1 to D8, and the same answer for a repeated key.

Always, whatever is lost: a batch is in the log at most once, and a producer's batches are there in order. While its
partition may not lose what acks=all acknowledged (see `oracle`): every answer to a batch has the same offset, none
refuses its sequence or epoch, and the sequence has no holes. With acks=1 the same, until the leader changes. At the end
each replica's memory of its producers is what a replay of its log gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from kraft.protocol.batches.header import NO_PRODUCER_ID, whole_batches
from metadata.image import TopicIdPartition
from replication.partition.replica import Replica
from replication.producers.state import Producer, ProducerLimits, ProducerStates
from replication.storage.partition_log import PartitionLog
from tests.simulation.clients import Attempt
from tests.simulation.group_oracle import log_bytes
from tests.simulation.oracle import Oracle

WRONG_SEQUENCE = (45, 47)
LOG_BYTES = 1 << 24


@dataclass(slots=True)
class Answered:
    """The first answer that a batch got."""

    base_offset: int
    leader_epoch: int
    acks: int


@dataclass(slots=True)
class ProducerOracle:
    oracle: Oracle
    _ids: set[int] = field(default_factory=set)
    _first: dict[Hashable, Answered] = field(default_factory=dict)
    _unique: set[bytes] = field(default_factory=set)
    """Values that may be in a log once."""

    # --- as it happens ------------------------------------------------------------------------------------------

    def id_given(self, producer_id: int) -> None:
        self.oracle.count("producer id given")
        self.oracle.check(producer_id not in self._ids, f"producer id {producer_id} was given twice")
        self._ids.add(producer_id)

    def sends(self, values: Iterable[bytes]) -> None:
        self._unique.update(values)

    def answered(self, batch: Hashable, attempt: Attempt) -> None:
        """`batch`: the same for each attempt to send it."""
        outcome = attempt.outcome
        assert outcome is not None
        if outcome.error_code in WRONG_SEQUENCE:
            self.oracle.count(f"producer refused, error {outcome.error_code}")
        if not attempt.is_acked:
            return
        known = self._first.get(batch)
        if known is None:
            self._first[batch] = Answered(outcome.base_offset, outcome.leader_epoch, attempt.acks)
            return
        self.oracle.count("batch acknowledged again")
        # With acks=1 a deposed leader may be the second to answer: from the end of its log that nobody has copied.
        known_epochs = [epoch for epoch in (known.leader_epoch, outcome.leader_epoch) if epoch >= 0]
        self.oracle.check(
            known.base_offset == outcome.base_offset
            or self.may_forget(attempt.which, attempt.acks, min(known_epochs, default=known.leader_epoch)),
            f"{self.oracle.name(attempt.which)}: {batch} was answered with offset {known.base_offset} in epoch "
            f"{known.leader_epoch}, and now with {outcome.base_offset} in epoch {outcome.leader_epoch}",
        )

    def refused_sequence(
        self, which: TopicIdPartition, acks: int, *, since_epoch: int, producer_id: int, sequence: int, what: str
    ) -> None:
        """A batch after all acknowledged ones. After a restart a leader knows only the last batch of each id, because
        Kafka's snapshots keep no more: an earlier batch is refused even if it is in the log.
        """
        if self._is_in_log(which, producer_id, sequence):
            self.oracle.count("batch refused that is in the log")
            return
        self.oracle.check(self.may_forget(which, acks, since_epoch), f"{self.oracle.name(which)}: {what}")

    def _is_in_log(self, which: TopicIdPartition, producer_id: int, sequence: int) -> bool:
        partition = self.oracle.image.partition(which.topic_id, which.partition)
        if partition is None or not partition.has_leader:
            return False
        replica = self.oracle.replica(partition.leader, which)
        return replica is not None and any(
            (header.producer_id, header.base_sequence) == (producer_id, sequence)
            for _, header in whole_batches(log_bytes(replica.log))
        )

    def may_forget(self, which: TopicIdPartition, acks: int, since_epoch: int) -> bool:
        """Acknowledged records, and so what their producers have sent, may be gone."""
        oracle = self.oracle
        return oracle.promise.may_lose(which) or (
            acks == 1 and oracle.metadata.leader_epochs.get(which, 0) > since_epoch
        )

    # --- at the end ---------------------------------------------------------------------------------------------

    def judge(self, logs: Mapping[TopicIdPartition, Mapping[int, bytes]]) -> None:
        """`logs`: offset -> value, of each partition."""
        for which, found in logs.items():
            times = Counter(value for value in found.values() if value in self._unique)
            for value, count in times.items():
                name = self.oracle.name(which)
                self.oracle.check(count == 1, f"{name}: {value!r} of an idempotent producer is there {count} times")
        for node_id in self.oracle.cluster.nodes:
            for which in logs:
                replica = self.oracle.replica(node_id, which)
                if replica is not None and not self.oracle.promise.rotten:
                    self._judge_replica(node_id, which, replica)

    def _judge_replica(self, node_id: int, which: TopicIdPartition, replica: Replica) -> None:
        log = replica.log
        assert isinstance(log, PartitionLog), log
        replayed = self._replay(which, log)
        kept = log.producers.states
        for producer_id, expected in replayed.items():
            state = kept.get(producer_id)
            self.oracle.check(
                state is not None and _facts(state) == _facts(expected),
                f"{self.oracle.name(which)}: node {node_id} has {state} of producer {producer_id}; its log gives "
                f"{expected}",
            )
        if log.log_start_offset == 0 and self.oracle.name(which)[:2] != "__":
            extra = {producer_id for producer_id, _ in kept.items()} - {
                producer_id for producer_id, _ in replayed.items()
            }
            self.oracle.check(
                not extra, f"{self.oracle.name(which)}: node {node_id} remembers producers {extra} that its log lacks"
            )

    def _replay(self, which: TopicIdPartition, log: PartitionLog) -> ProducerStates:
        """And on the way: a producer's sequence goes on, without a hole while nothing may be lost."""
        states = ProducerStates()
        next_sequence: dict[int, int] = {}
        limits = ProducerLimits(expiration_ms=1 << 60, allocated_max=1 << 30, reserved_max=1 << 30, aborted_max=1 << 30)
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            read = log.read(offset, bytes_max=LOG_BYTES, upper_bound=log.log_end_offset)
            if not read.data:
                break
            for _, header in whole_batches(read.data):
                if header.producer_id == NO_PRODUCER_ID or header.base_offset < log.log_start_offset:
                    continue
                expected = next_sequence.get(header.producer_id, header.base_sequence)
                self.oracle.check(
                    header.base_sequence == expected,
                    f"{self.oracle.name(which)}: producer {header.producer_id} goes on with sequence "
                    f"{header.base_sequence} at offset {header.base_offset}; {expected} is next",
                )
                next_sequence[header.producer_id] = header.base_sequence + header.record_count
                states.update(header, limits)
            offset = read.next_offset
        return states


def _facts(producer: Producer) -> tuple[object, ...]:
    return producer.epoch, producer.batches[-1:]
