"""The final check of all logs of a cluster against all sent and acknowledged records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from kraft.protocol.batches.records import read_batches
from metadata.image import PartitionImage, TopicIdPartition
from tests.simulation.clients import Attempt
from tests.simulation.convergence import Convergence
from tests.simulation.log_bytes import bytes_from, readable_bytes_from
from tests.simulation.oracle import Oracle

Judge = Callable[[Mapping[TopicIdPartition, Mapping[int, bytes]]], None]
"""Judges clients by what the logs have."""


class FinalCheck:
    def __init__(self, oracle: Oracle, judges: Sequence[Judge], wholeness: Convergence) -> None:
        self._oracle = oracle
        self._judges = judges
        self._wholeness = wholeness

    def judge(self) -> None:
        self._oracle.logs.match()
        contents = {}
        for partition in self._oracle.image.all_partitions():
            key = TopicIdPartition(partition.topic_id, partition.partition)
            contents[key] = self._same_everywhere(key, partition)
        for judge in self._judges:
            judge({key: values for key, (_, values) in contents.items()})
        by_partition: dict[TopicIdPartition, list[Attempt]] = defaultdict(list)
        for attempt in self._oracle.attempts:
            by_partition[attempt.which].append(attempt)
        for key, attempts in by_partition.items():
            if key in contents:
                self._judge_partition(key, attempts, *contents[key])

    def _same_everywhere(self, key: TopicIdPartition, partition: PartitionImage) -> tuple[int, dict[int, bytes]]:
        """Log start, and offset -> value, after all replicas were found to have the same bytes."""
        replicas = {node_id: self._oracle.replica(node_id, key) for node_id in partition.replicas}
        start = max(replica.log.log_start_offset for replica in replicas.values() if replica is not None)
        is_stuck = self._wholeness.is_stuck(key, partition)
        read = readable_bytes_from if is_stuck else bytes_from
        logs = {node_id: read(replica, start) for node_id, replica in replicas.items() if replica is not None}
        leader, is_excused = logs.get(partition.leader, b""), self._oracle.is_compacted(key)
        for node_id, data in logs.items():
            common = min(len(data), len(leader)) if is_stuck else None
            self._oracle.check(
                data[:common] == leader[:common] or is_excused,
                f"{self._oracle.name(key)}: nodes {node_id} and {partition.leader} have other bytes",
            )
        return start, {record.offset: record.value or b"" for record in read_batches(leader, from_offset=start)}

    def _judge_partition(
        self, key: TopicIdPartition, attempts: list[Attempt], start: int, found: dict[int, bytes]
    ) -> None:
        oracle, name = self._oracle, self._oracle.name(key)
        sent: Counter[bytes] = Counter()
        for attempt in attempts:
            if not attempt.is_surely_refused:
                sent.update(attempt.values)
        for value, times in Counter(found.values()).items():
            oracle.check(
                times <= sent[value], f"{name}: {value!r} is there {times} times and was sent {sent[value]} times"
            )
        for attempt in attempts:
            if not attempt.is_acked:
                continue
            assert attempt.outcome is not None
            for offset, value in enumerate(attempt.values, start=attempt.outcome.base_offset):
                if offset >= start and found.get(offset) != value:
                    self._lost(key, attempt, offset, value, found.get(offset))

    def _lost(self, key: TopicIdPartition, attempt: Attempt, offset: int, value: bytes, there: bytes | None) -> None:
        oracle = self._oracle
        assert attempt.outcome is not None
        oracle.count(f"acknowledged record lost, acks={attempt.acks}")
        if oracle.promise.may_lose_of(key, attempt.outcome.leader_epoch):
            return
        is_weak = attempt.acks == 1 and oracle.metadata.leader_epochs[key] > attempt.outcome.leader_epoch
        oracle.check(
            is_weak,
            f"{oracle.name(key)}: {value!r} was acknowledged (acks={attempt.acks}) at offset {offset} in epoch "
            f"{attempt.outcome.leader_epoch}, and is lost; there is {there!r}",
        )
