"""The oracle of the partitions' logs: high watermarks, log matching, and the answers to clients.

Checked at every step: a leader's high watermark only rises within its leadership and never passes the log end of a
member of the maximal ISR; a follower's lies within its log; an acknowledged record is held by the whole ISR; what was
read stays. Every few moments: logs match below the high watermark.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kraft.protocol.batches.header import whole_batches
from kraft.protocol.errors import CorruptMessage, KafkaStorageError
from metadata.image import TopicIdPartition
from replication.partition.replica import Replica
from replication.partition.states import FollowerState, LeaderState
from tests.simulation.promise import READ_BYTES, unnoticed

if TYPE_CHECKING:
    from tests.simulation.clients import Attempt
    from tests.simulation.oracle import Oracle


class LogOracle:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._committed: dict[TopicIdPartition, dict[int, tuple[int, int, int]]] = {}
        self._matched: dict[tuple[TopicIdPartition, int], int] = {}
        self._seen: dict[TopicIdPartition, dict[int, bytes]] = {}

    def begin_rebuild(self, key: TopicIdPartition) -> None:
        """A new era: what was committed and read before it counts no longer."""
        self._seen.pop(key, None)
        self._committed.pop(key, None)
        for at in [at for at in self._matched if at[0] == key]:
            del self._matched[at]

    # --- high watermarks ----------------------------------------------------------------------------------------

    def leader_moved(self, node_id: int, replica: Replica, old: object, new: LeaderState) -> None:
        """A leader's state was replaced."""
        oracle, key = self._oracle, replica.key
        oracle.metadata.check_leader(node_id, key, new.leader_epoch)
        was_leader = isinstance(old, LeaderState)
        if not was_leader:
            oracle.promise.began_to_lead(node_id, key)
        oracle.metadata.check_chosen(node_id, replica, new)
        if was_leader and new.high_watermark == old.high_watermark:
            return
        if was_leader and new.high_watermark < old.high_watermark:
            oracle.fail(
                f"{oracle.name(key)}: the high watermark of leader {node_id} fell from {old} to "
                f"{new.high_watermark} in epoch {new.leader_epoch}"
            )
        if not oracle.promise.may_lose_of(key, new.leader_epoch):
            self._check_held(node_id, key, new)

    def _check_held(self, leader: int, key: TopicIdPartition, state: LeaderState) -> None:
        """Committed records of the leader are in the logs of all replicas that are certainly in sync."""
        oracle, promise = self._oracle, self._oracle.promise
        for member in self._surely_in_sync(key, state):
            held = oracle.replica(member, key)
            if held is None or held.log.log_end_offset >= state.high_watermark or promise.is_lossy(member, key):
                continue
            if not promise.has_left(member, key, partition_epoch=state.partition_epoch):
                oracle.fail(
                    f"{oracle.name(key)}: leader {leader} moves its high watermark to {state.high_watermark}, but "
                    f"member {member} of the maximal ISR {state.isr.maximal} ends at {held.log.log_end_offset}"
                )

    def _surely_in_sync(self, key: TopicIdPartition, state: LeaderState) -> list[int]:
        """The maximal ISR, and what is committed whether this leader counts it or not."""
        committed = self._oracle.image.partition(key.topic_id, key.partition)
        known = {*state.isr.maximal, *state.isr.members}
        if (
            committed is not None
            and committed.leader_epoch == state.leader_epoch
            and committed.partition_epoch >= state.partition_epoch  # the leader may have its answer before any image
        ):
            known |= set(committed.isr)
        return sorted(known)

    def follower_took(self, node_id: int, replica: Replica) -> None:
        """R5: a follower's high watermark may fall, and stays within its log, also when that was cut."""
        state, log = replica.state, replica.log
        if not isinstance(state, FollowerState):
            return
        if not log.log_start_offset <= state.high_watermark <= log.log_end_offset:
            self._oracle.fail(
                f"{self._oracle.name(replica.key)}: follower {node_id} has high watermark {state.high_watermark} "
                f"outside its log {log.log_start_offset}..{log.log_end_offset}"
            )

    # --- answers to clients -------------------------------------------------------------------------------------

    def answered(self, attempt: Attempt) -> None:
        """A client has received its answer."""
        oracle, key, outcome = self._oracle, attempt.which, attempt.outcome
        assert outcome is not None
        oracle.count(f"produce acks={attempt.acks} error {outcome.error_code}")
        if not attempt.is_acked or attempt.acks != -1 or oracle.promise.may_lose_of(key, outcome.leader_epoch):
            return
        partition = oracle.image.partition(key.topic_id, key.partition)
        if partition is None:
            return
        for member in partition.isr:
            held = oracle.replica(member, key)
            if held is None or held.log.log_end_offset > outcome.last_offset or oracle.promise.is_lossy(member, key):
                continue
            oracle.fail(
                f"{oracle.name(key)}: offset {outcome.last_offset} was acknowledged, and ISR member "
                f"{member} of {partition.isr} ends at {held.log.log_end_offset}"
            )

    def was_read(self, key: TopicIdPartition, found: Iterable[tuple[int, bytes]], *, leader_epoch: int) -> None:
        """`leader_epoch`: the epoch in which the node asked the leader, or -1. The leader may have a newer epoch, but
        never an older one: a leader of an era has its first records."""
        oracle, eras = self._oracle, self._oracle.promise.eras
        if eras.is_before(key, leader_epoch):
            return
        seen = self._seen.setdefault(key, {})
        for offset, value in found:
            known = seen.setdefault(offset, value)
            if eras.has_begun_anew(key):
                oracle.count("read in a new era")
            if known != value:
                oracle.check(
                    oracle.promise.is_given_up(key),
                    f"{oracle.name(key)}: a consumer read {value!r} at offset {offset}, where {known!r} was read "
                    "before",
                )
                seen[offset] = value

    def called_out_of_range(self, key: TopicIdPartition, offset: int, *, by: int) -> None:
        """Out of range at an offset that a reader had reached: a deposed leader answers so about records of its
        successors. If records were deleted, all replicas are checked, or none."""
        oracle = self._oracle
        if oracle.promise.may_lose(key):
            return
        partition = oracle.image.partition(key.topic_id, key.partition)
        assert partition is not None, "it is given up"
        held = [oracle.replica(node_id, key) for node_id in partition.replicas]
        starts = [replica.log.log_start_offset for replica in held if replica is not None]
        if max(starts, default=0) > offset or (any(starts) and len(starts) < len(held)):
            return
        oracle.fail(
            f"{oracle.name(key)}: node {by} called offset {offset}, up to which somebody had read, out of range; "
            f"node {partition.leader} leads in epoch {partition.leader_epoch}"
        )

    # --- log matching -------------------------------------------------------------------------------------------

    def match(self) -> None:
        """Below the high watermarks all replicas have the same batches, and they stay (log matching)."""
        for node_id, node in self._oracle.cluster.nodes.items():
            if node.node is None or node.node.broker is None:
                continue
            for replica in node.node.broker.replicas._registry.replicas.values():
                if self._oracle.promise.must_agree(node_id, replica):
                    self._match(node_id, replica)

    def _match(self, node_id: int, replica: Replica) -> None:
        key, state, log = replica.key, replica.state, replica.log
        assert isinstance(state, (LeaderState, FollowerState)), state
        start, end = log.log_start_offset, log.log_end_offset
        if not start <= state.high_watermark <= end:
            self._oracle.fail(
                f"{self._oracle.name(key)}: node {node_id} has high watermark {state.high_watermark} outside its log "
                f"{start}..{end}"
            )
        offset = max(min(self._matched.get((key, node_id), 0), end), start)
        if offset < state.high_watermark:
            offset = self._matched_up_to(offset, state.high_watermark, node_id, replica)
        self._matched[key, node_id] = offset

    def _matched_up_to(self, offset: int, high_watermark: int, node_id: int, replica: Replica) -> int:
        """How far the committed batches from `offset` on could be read, and are what they were."""
        oracle, key, log = self._oracle, replica.key, replica.log
        committed, is_compacted = self._committed.setdefault(key, {}), oracle.is_compacted(key)
        while offset < high_watermark:
            try:
                with unnoticed(log):
                    read = log.read(offset, bytes_max=READ_BYTES, upper_bound=high_watermark)
            except KafkaStorageError:
                oracle.count("a failed log was looked at")
                break
            except CorruptMessage as error:
                flipped = node_id in oracle.promise.damaged.get(key, ())
                oracle.check(flipped, f"{oracle.name(key)}: node {node_id} is damaged, and no bit has flipped: {error}")
                oracle.count("a damaged log was looked at")
                break
            if not read.data:
                break
            for _, header in whole_batches(read.data):
                found = (header.last_offset, 0 if is_compacted else header.crc, header.leader_epoch)
                known = committed.setdefault(header.base_offset, found)
                if known != found:
                    oracle.fail(
                        f"{oracle.name(key)}: node {node_id} has batch {found} at committed offset "
                        f"{header.base_offset}, where {known} was (last offset, CRC, leader epoch)"
                        f"{oracle.promise.eras.describe(key)}"
                    )
            offset = read.next_offset
            if oracle.promise.eras.has_begun_anew(key):
                oracle.count("log matched in a new era")
        return offset
