"""The oracle of the metadata: it keeps the one history of the records, of which every node's image is a prefix.

Checked with every change that any node applies: the same records at the same offsets; one leader per partition and
epoch, and the leader in the ISR, and the ISR part of the replicas; epochs rise; a replica that joins an ISR has all
committed records; a new incarnation is in no ISR; an unclean election chooses the longest log of the newest epoch; a
node that serves requests has caught up with the commits before its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from kraft.node.assembly import Node
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.quorum.log import Committed, Leadership, SnapshotInstalled
from metadata.records import NO_LEADER, PartitionChangeRecord, Reason, Record, RegisterBrokerRecord
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from tests.simulation.moments import TRANSACTION_OPEN
from tests.simulation.transactions import Transactions

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

ANSWER_US_MAX = 20_000_000
"""Between a replica's answer about its log and its leadership, at most."""


class MetadataOracle:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.leader_epochs: dict[TopicIdPartition, int] = {}
        self._lives: dict[int, UUID] = {}
        """Node -> the incarnation that runs now."""
        self._records: dict[int, Record] = {}
        self._images: dict[int, MetadataImage] = {}
        self._leaders: dict[tuple[TopicIdPartition, int], int] = {}
        self._terms: dict[int, int] = {}
        self._transactions = Transactions(oracle.fail)
        self._chosen: dict[tuple[TopicIdPartition, int], int] = {}
        """(partition, leader epoch) of an unclean election -> the end of the log that was chosen."""

    def watch(self, node_id: int, node: Node) -> None:
        """A new life of a node, before it starts."""
        self._lives[node_id] = node._context.incarnation_id
        known_before = self._oracle.image.offset
        is_early = True

        def look() -> None:
            """A node that serves requests has all records that any node had applied when it started."""
            nonlocal is_early
            if is_early and not node.awaiting.metadata():
                is_early = False
                self._oracle.count("caught up with the quorum")
                knows = node.publisher.image.offset
                self._oracle.check(knows >= known_before, f"node {node_id} answers too early", (knows, known_before))

        def on_change(change: Committed | SnapshotInstalled) -> None:
            if isinstance(change, Committed):
                self._on_committed(node_id, change)
            else:
                self._on_installed(node_id, change.image)
            look()

        def on_leadership(leadership: Leadership) -> None:
            if leadership.is_self:
                other = self._terms.setdefault(leadership.term, node_id)
                if other != node_id:
                    self._oracle.fail(f"nodes {other} and {node_id} both lead the quorum in term {leadership.term}")
            look()

        node.log.subscribe(on_change, on_leadership)

    # --- the history --------------------------------------------------------------------------------------------

    def _on_committed(self, node_id: int, change: Committed) -> None:
        for offset, record in enumerate(change.records, start=change.base_offset):
            known = self._records.setdefault(offset, record)
            if known is not record and known != record:
                self._oracle.fail(f"node {node_id} applies {record} at offset {offset}, where {known} was committed")
        end = change.base_offset + len(change.records)
        known_image = self._images.setdefault(end, change.image)
        if known_image is not change.image and known_image.topics != change.image.topics:
            self._oracle.fail(f"node {node_id} has other topics at offset {end - 1}: {known_image} {change.image}")
        before = self._oracle.image
        if end > before.next_offset:
            self._oracle.check(change.base_offset == before.next_offset, "a gap in the history", change.base_offset)
            self._on_new(before, change.image, change.records)

    def _on_installed(self, node_id: int, image: MetadataImage) -> None:
        self._oracle.count("metadata snapshot installed")
        known, before = self._images.get(image.next_offset), self._oracle.image
        if image.next_offset > before.next_offset:  # applied by a node that died before it could publish
            self._images[image.next_offset] = image
            self._on_new(before, image, ())
        elif known is not None and known != image:
            self._oracle.fail(f"node {node_id} has another image at offset {image.offset}: {known} {image}")

    def _on_new(self, before: MetadataImage, image: MetadataImage, records: Sequence[Record]) -> None:
        self._oracle.image = image
        if records:
            self._transactions.take(records)
            self._transactions.check(image)
        if image.transaction is not None:
            self._oracle.moments.happened(TRANSACTION_OPEN, image.controller_id)
        for record in records:
            if isinstance(record, PartitionChangeRecord) and _is_unclean(record):
                self._check_unclean(record)
                self._become_unclean(record)
            if isinstance(record, RegisterBrokerRecord):
                self._check_left(record.broker_id)
        for partition in image.all_partitions():
            old = before.partition(partition.topic_id, partition.partition)
            if old is not partition and old != partition:
                self._check_partition(old, partition)
        for record in records:
            if isinstance(record, RegisterBrokerRecord) and self._is_of_this_life(record):
                self._oracle.promise.registered(record.broker_id)

    def _is_of_this_life(self, record: RegisterBrokerRecord) -> bool:
        """And not sent by one that has ended since: that one knows nothing of what was lost at its end."""
        is_newest = self._lives.get(record.broker_id) == record.incarnation_id
        return is_newest and self._oracle.cluster.nodes[record.broker_id].is_running

    # --- partitions ---------------------------------------------------------------------------------------------

    def _check_left(self, broker_id: int) -> None:
        """B7: a broker that comes again is in no ISR, unless it is the last member."""
        for partition in self._oracle.image.all_partitions():
            if broker_id in partition.isr and len(partition.isr) > 1:
                self._oracle.fail(f"broker {broker_id} has just registered, and is in the ISR of {partition}")

    def _check_partition(self, old: PartitionImage | None, new: PartitionImage) -> None:
        key, check = TopicIdPartition(new.topic_id, new.partition), self._oracle.check
        check(set(new.isr) <= set(new.replicas) and bool(new.isr), f"the ISR is no part of the replicas: {new}")
        check(new.leader in (NO_LEADER, *new.isr), f"the leader is not in the ISR: {new}")
        if new.has_leader:
            self.check_leader(new.leader, key, new.leader_epoch)
        if old is not None:
            check(new.partition_epoch > old.partition_epoch, f"the partition epoch did not rise: {old} {new}")
            check(
                new.leader_epoch > old.leader_epoch or new.leader == old.leader,
                f"a new leader, and the leader epoch did not rise: {old} {new}",
            )
            for member in new.isr:
                if member not in old.isr:
                    self._check_joined(key, member, new)
        self.leader_epochs[key] = new.leader_epoch
        self._oracle.promise.partition_changed(key, old, new)

    def check_leader(self, node_id: int, key: TopicIdPartition, leader_epoch: int) -> None:
        """One leader per epoch, in the committed records and in the state of each node."""
        other = self._leaders.setdefault((key, leader_epoch), node_id)
        if other != node_id:
            self._oracle.fail(f"{self._oracle.name(key)}: {other} and {node_id} both lead in epoch {leader_epoch}")

    def _check_joined(self, key: TopicIdPartition, member: int, new: PartitionImage) -> None:
        """I4: a replica that joins the ISR has all committed records."""
        oracle = self._oracle
        held, leading = oracle.replica(member, key), oracle.replica(new.leader, key) if new.has_leader else None
        if held is None or leading is None or leading.state.leader_epoch != new.leader_epoch:
            return
        if oracle.promise.may_lose_of(key, new.leader_epoch):
            return
        oracle.check(
            held.log.log_end_offset >= leading.state.high_watermark,
            f"{oracle.name(key)}: {member} joins the ISR {new.isr} with log end {held.log.log_end_offset}, and the "
            f"high watermark is {leading.state.high_watermark}",
        )

    # --- unclean elections --------------------------------------------------------------------------------------

    def _check_unclean(self, record: PartitionChangeRecord) -> None:
        """L8: the longest log of the newest epoch, by the answers in the record."""
        if record.unclean is not None and record.unclean.answers:
            answers = record.unclean.answers
            chosen = answers.get(-1 if record.leader is None else record.leader)
            self._oracle.check(
                chosen == max(answers.values()), f"an unclean election did not choose the longest log: {record}"
            )

    def _become_unclean(self, record: PartitionChangeRecord) -> None:
        key = TopicIdPartition(record.topic_id, record.partition)
        self._oracle.promise.begin_era(key, record.leader_epoch)
        if record.unclean is not None and record.leader is not None:
            self._chosen[key, record.leader_epoch] = record.unclean.log_end_offset

    def check_chosen(self, node_id: int, replica: Replica, state: LeaderState) -> None:
        """L8: an unclean election gives up what is above the end of the chosen log, and no more."""
        end_offset = self._chosen.pop((replica.key, state.leader_epoch), None)
        if end_offset is None or self._oracle.promise.has_lost_within(node_id, ANSWER_US_MAX):
            return  # it may have lost what it answered with
        self._oracle.count("leader of an unclean election")
        self._oracle.check(
            replica.log.log_end_offset >= end_offset,
            f"{self._oracle.name(replica.key)}: {node_id} was chosen in an unclean election for a log that ends at "
            f"{end_offset}, and leads with one that ends at {replica.log.log_end_offset}",
        )


def _is_unclean(record: PartitionChangeRecord) -> bool:
    return record.reason is Reason.UNCLEAN_ELECTION or record.unclean is not None
