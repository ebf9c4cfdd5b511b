"""The all-seeing judge of a run: it watches every node at once and keeps the one true history of the metadata.

Checked at every step: one leader per partition and epoch; a leader's high watermark only rises within its leadership
and never passes the log end of a member of the maximal ISR; the ISR is part of the replicas and contains the leader;
all nodes apply the same metadata records at the same offsets, by compare-and-set; one leader and one vote per term, and
nothing promised to another voter that a power loss could take back. Every few moments: logs match below the high
watermark. An acknowledged record is held by the whole ISR.

The promise (see docs/simulation.md) is followed as the run goes: when every member of an ISR has lost unsynced data, or
an unclean election has chosen a leader, a new era of the partition begins (see `eras`), and what was acknowledged
before it may be lost. `excused` holds the partitions whose whole ISR has lost data and a damaged log is part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from kraft.node.assembly import Node
from metadata.errors import CorruptMessage, KafkaStorageError
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.quorum.log import Committed, Leadership, SnapshotInstalled
from metadata.records import NO_LEADER, PartitionChangeRecord, Reason, Record, RegisterBrokerRecord
from replication.batches.header import whole_batches
from replication.partition.replica import Replica
from replication.partition.states import FollowerState, LeaderState
from tests.simulation.eras import Eras
from tests.simulation.group_waits import GroupWaits
from tests.simulation.moments import Moments

if TYPE_CHECKING:
    from tests.simulation.clients import Attempt
    from tests.simulation.cluster import SimulatedCluster

MATCH_BYTES = 1 << 20
COUNTED_EVENTS_WITH_REASON = ("leader_elected", "isr_changed")
IMPOSSIBLE = "replica_fetch_out_of_range"
"""R6 knows a follower that is out of range and yet ends within its leader's log: that has to know an epoch newer than
all that the leader knows. But a leader begins its own epoch before it leads (L9), and nobody follows with a newer one:
he asks in that epoch, and what a disk has changed is cut when a log is opened (`impossible_epochs`)."""
STORY_LINES = 60
ANSWER_US_MAX = 20_000_000
"""Between a replica's answer about its log and its leadership, at most."""


class Violation(AssertionError):
    """An invariant does not hold."""


@contextmanager
def unnoticed(log: Any) -> Iterator[None]:
    """What is damaged stays so for the product to find: the judge's look at a log tells it nothing."""
    availability = log._availability
    told, was_damaged = availability._on_damage, availability.is_damaged
    availability._on_damage = lambda *_: None
    try:
        yield
    finally:
        availability._on_damage, availability.is_damaged = told, was_damaged


class Oracle:
    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.image = MetadataImage()
        """The newest committed image that any node has applied."""
        self.attempts: list[Attempt] = []
        self.states: Counter[str] = Counter()
        self.eras = Eras()
        """An unclean election begins one, and the loss of a whole ISR's data."""
        self.excused: dict[TopicIdPartition, str] = {}
        self.rotten: set[int] = set()
        """Nodes in whose logs a bit has flipped, or whose logs were wiped."""
        self.damaged: dict[TopicIdPartition, set[int]] = {}
        """Nodes whose log of a partition holds a flipped bit, until it reads well again."""
        self.group_waits = GroupWaits(self)
        self.moments = Moments(cluster.world.loop)
        self.history: list[str] = []
        self.violation: BaseException | None = None
        self._lives: dict[int, UUID] = {}
        """Node -> the incarnation that runs now."""
        self._records: dict[int, Record] = {}
        self._images: dict[int, MetadataImage] = {}
        self._chosen: dict[tuple[TopicIdPartition, int], int] = {}
        """(partition, leader epoch) of an unclean election -> the end of the log that was chosen."""
        self._lost_us: dict[int, int] = {}
        """When a node last lost unsynced data."""
        self._lossy: dict[TopicIdPartition, set[int]] = {}
        self._left_at: dict[tuple[TopicIdPartition, int], int] = {}
        """Who left an ISR after losing data, or the replicas, whose log is deleted then: the partition epoch of that,
        which an older leader does not know yet."""
        self._leaders: dict[tuple[TopicIdPartition, int], int] = {}
        self.leader_epochs: dict[TopicIdPartition, int] = {}
        self._terms: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._committed: dict[TopicIdPartition, dict[int, tuple[int, int, int]]] = {}
        self._matched: dict[tuple[TopicIdPartition, int], int] = {}
        self._seen: dict[TopicIdPartition, dict[int, bytes]] = {}

    # --- what is told -------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.history.append(f"{self.cluster.world.loop.now_us / 1000:10.3f} ms  {text}")
        self.cluster.world.trace("note", text)

    def count(self, state: str) -> None:
        self.states[state] += 1

    def check(self, holds: bool, *what: object) -> None:
        """Where it costs too much to put into words what holds nearly always, ask first and then `fail`."""
        if not holds:
            self.fail(*what)

    def fail(self, *what: object) -> NoReturn:
        violation = Violation(" ".join(str(each) for each in what))
        self.note(f"VIOLATION {violation}")
        if self.violation is None:
            self.violation = violation
        raise violation

    def event(self, node_id: int, event: str, fields: Mapping[str, object]) -> None:
        """From the node's own event log."""
        self.count(event)
        if event in COUNTED_EVENTS_WITH_REASON:
            self.count(f"{event}: {fields.get('reason')}")
        elif event == "isr_change_refused":
            self.count(f"{event}: {fields.get('error')}")
        self.note(f"node {node_id} {event} " + " ".join(f"{k}={v}" for k, v in fields.items()))
        if event == IMPOSSIBLE:
            self.check(False, f"node {node_id} knows an epoch that its leader does not: {fields}")
        other = fields.get("leader", fields.get("broker"))
        self.moments.happened(event, node_id, other if isinstance(other, int) else None)

    # --- metadata -----------------------------------------------------------------------------------------------

    def watch(self, node_id: int, node: Node) -> None:
        """A new life of a node, before it starts."""
        self._lives[node_id] = node._incarnation_id

        def on_change(change: Committed | SnapshotInstalled) -> None:
            if isinstance(change, Committed):
                self._on_committed(node_id, change)
            else:
                self._on_installed(node_id, change.image)

        def on_leadership(leadership: Leadership) -> None:
            if leadership.is_self:
                other = self._terms.setdefault(leadership.term, node_id)
                self.check(
                    other == node_id, f"nodes {other} and {node_id} both lead the quorum in term {leadership.term}"
                )

        node.log.subscribe(on_change, on_leadership)

    def _on_committed(self, node_id: int, change: Committed) -> None:
        for offset, record in enumerate(change.records, start=change.base_offset):
            known = self._records.setdefault(offset, record)
            if known is not record and known != record:
                self.fail(f"node {node_id} applies {record} at offset {offset}, where {known} was committed")
        end = change.base_offset + len(change.records)
        self._images.setdefault(end, change.image)
        if end > self.image.next_offset:
            self.check(change.base_offset == self.image.next_offset, "a gap in the history", change.base_offset)
            before, self.image = self.image, change.image
            self._on_new(before, change.records)

    def _on_installed(self, node_id: int, image: MetadataImage) -> None:
        self.count("metadata snapshot installed")
        known = self._images.get(image.next_offset)
        if image.next_offset > self.image.next_offset:  # applied by a node that died before it could publish
            before, self.image = self.image, image
            self._images[image.next_offset] = image
            self._on_new(before, ())
            return
        if known is not None:
            self.check(known == image, f"node {node_id} has another image at offset {image.offset}: {known} {image}")

    def _on_new(self, before: MetadataImage, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, PartitionChangeRecord):
                key = TopicIdPartition(record.topic_id, record.partition)
                if record.reason is Reason.UNCLEAN_ELECTION or record.unclean is not None:
                    self._check_unclean(record)
                    self._become_unclean(key, record)
            if isinstance(record, RegisterBrokerRecord):
                self._check_left(record.broker_id)
        for partition in self.image.all_partitions():
            old = before.partition(partition.topic_id, partition.partition)
            if old is not partition and old != partition:
                self._check_partition(old, partition)
        for record in records:
            if isinstance(record, RegisterBrokerRecord) and self._is_of_this_life(record):
                self._take_as_it_is(record.broker_id)

    def _check_unclean(self, record: PartitionChangeRecord) -> None:
        """L8: the longest log of the newest epoch, by the answers that the record itself tells."""
        if record.unclean is not None and record.unclean.answers:
            answers = record.unclean.answers
            chosen = answers.get(-1 if record.leader is None else record.leader)
            self.check(chosen == max(answers.values()), f"an unclean election did not choose the longest log: {record}")

    def _check_left(self, broker_id: int) -> None:
        """B7: a broker that comes anew is in no ISR, unless it is the last member."""
        for partition in self.image.all_partitions():
            self.check(
                broker_id not in partition.isr or len(partition.isr) == 1,
                f"broker {broker_id} has just registered, and is in the ISR of {partition}",
            )

    def _check_joined(self, key: TopicIdPartition, member: int, new: PartitionImage) -> None:
        """I4: who joins the ISR has all that is committed."""
        held, leading = self.replica(member, key), self.replica(new.leader, key) if new.has_leader else None
        if held is None or leading is None or leading.state.leader_epoch != new.leader_epoch:
            return
        if self.may_lose_of(key, new.leader_epoch):
            return
        self.check(
            held.log.log_end_offset >= leading.state.high_watermark,
            f"{self.name(key)}: {member} joins the ISR {new.isr} with log end {held.log.log_end_offset}, and the high "
            f"watermark is {leading.state.high_watermark}",
        )

    def _check_partition(self, old: PartitionImage | None, new: PartitionImage) -> None:
        key = TopicIdPartition(new.topic_id, new.partition)
        self.check(set(new.isr) <= set(new.replicas) and bool(new.isr), f"the ISR is no part of the replicas: {new}")
        self.check(new.leader in (NO_LEADER, *new.isr), f"the leader is not in the ISR: {new}")
        if new.has_leader:
            other = self._leaders.setdefault((key, new.leader_epoch), new.leader)
            self.check(other == new.leader, f"two leaders in epoch {new.leader_epoch}: {other} and {new}")
        if old is not None:
            self.check(new.partition_epoch > old.partition_epoch, f"the partition epoch did not rise: {old} {new}")
            self.check(
                new.leader_epoch > old.leader_epoch or new.leader == old.leader,
                f"a new leader, and the leader epoch did not rise: {old} {new}",
            )
            for member in new.isr:
                if member not in old.isr:
                    self._check_joined(key, member, new)
            for member in set(old.replicas) - set(new.replicas):
                self._left_at[key, member] = new.partition_epoch
        self.leader_epochs[key] = new.leader_epoch
        lossy, damaged = self._lossy.get(key, set()), self.damaged.get(key, set())
        if lossy or damaged:
            for member in (lossy | damaged) - set(new.isr):
                self._left_at[key, member] = new.partition_epoch
            lossy &= set(new.isr)
            self._maybe_excuse(key, new)

    # --- the promise --------------------------------------------------------------------------------------------

    def power_lost(self, node_id: int) -> None:
        """What the node had not synced is gone, in part or wholly; topics with flush.messages=1 had synced it."""
        self.count("power lost")
        self._lose(node_id, all_partitions=False)

    def disk_lost(self, node_id: int) -> None:
        self.rotten.add(node_id)
        self._lose(node_id, all_partitions=True)

    def rotted(self, node_id: int, key: TopicIdPartition) -> None:
        """A bit flipped in this log (an index can be made again). Nobody needs to notice before it is read."""
        self.rotten.add(node_id)
        self.damaged.setdefault(key, set()).add(node_id)
        partition = self.image.partition(key.topic_id, key.partition)
        if partition is not None and node_id in partition.isr:
            self._lossy.setdefault(key, set()).add(node_id)
            self._maybe_excuse(key, partition)

    def _lose(self, node_id: int, *, all_partitions: bool) -> None:
        self._lost_us[node_id] = self.cluster.world.loop.now_us
        for topic in self.image.topics.values():
            if not all_partitions and self.image.config("topic", topic.name).get("flush.messages") == "1":
                continue
            for partition in topic.partitions.values():
                if node_id in partition.isr:
                    key = TopicIdPartition(partition.topic_id, partition.partition)
                    self._lossy.setdefault(key, set()).add(node_id)
                    self._maybe_excuse(key, partition)

    def _is_of_this_life(self, record: RegisterBrokerRecord) -> bool:
        """And not sent by one that has ended since: that one knows nothing of what was lost at its end."""
        is_newest = self._lives.get(record.broker_id) == record.incarnation_id
        return is_newest and self.cluster.nodes[record.broker_id].is_running

    def _take_as_it_is(self, broker_id: int) -> None:
        """It has registered since it lost data. Where it is in an ISR still, as the last one, its log is what counts,
        and was cut before it leads again, in a later epoch."""
        for lossy in self._lossy.values():
            lossy.discard(broker_id)

    def _maybe_excuse(self, key: TopicIdPartition, partition: PartitionImage) -> None:
        self.damaged[key] = {each for each in self.damaged.get(key, ()) if self.has_damage(each, key)}
        if not set(partition.isr) <= self._lossy.get(key, set()) | self.damaged[key]:
            return
        if not self.eras.is_before(key, partition.leader_epoch):
            self.count("whole ISR lost unsynced data")
            self.note(f"{self.name(key)}: every member of the ISR {partition.isr} has lost data")
        if self.damaged[key] & set(partition.isr):
            self.excused[key] = f"the whole ISR {partition.isr} has lost data"
        # Who leads next does so in a later epoch, and in a life that began after the loss.
        self._begin_era(key, partition.leader_epoch + 1)

    def _become_unclean(self, key: TopicIdPartition, record: PartitionChangeRecord) -> None:
        """The promise begins anew with the epoch of the leader that was chosen."""
        self._begin_era(key, record.leader_epoch)
        if record.unclean is not None and record.leader is not None:
            self._chosen[key, record.leader_epoch] = record.unclean.log_end_offset

    def _begin_era(self, key: TopicIdPartition, leader_epoch: int) -> None:
        if self.eras.begin(key, leader_epoch):
            self._seen.pop(key, None)
            self._forget_match(key)

    def _check_chosen(self, node_id: int, replica: Replica, state: LeaderState) -> None:
        """L8: an unclean election gives up what is above the end of the chosen log, and no more."""
        end_offset = self._chosen.pop((replica.key, state.leader_epoch), -1)
        lost_us_ago = self.cluster.world.loop.now_us - self._lost_us.get(node_id, -ANSWER_US_MAX)
        if lost_us_ago >= ANSWER_US_MAX:  # else it may have lost what it answered with
            self.count("leader of an unclean election")
            self.check(
                replica.log.log_end_offset >= end_offset,
                f"{self.name(replica.key)}: {node_id} was chosen in an unclean election for a log that ends at "
                f"{end_offset}, and leads with one that ends at {replica.log.log_end_offset}",
            )

    def may_lose_of(self, key: TopicIdPartition, leader_epoch: int) -> bool:
        """May what was acknowledged under acks=all in this epoch be lost?"""
        return self._is_given_up(key) or self.eras.is_before(key, leader_epoch)

    def may_lose(self, key: TopicIdPartition) -> bool:
        """May anything that was acknowledged under acks=all, whenever it was, be lost?"""
        return self._is_given_up(key) or self.eras.has_begun_anew(key)

    def _is_given_up(self, key: TopicIdPartition) -> bool:
        return key in self.excused or self.image.partition(key.topic_id, key.partition) is None

    def is_compacted(self, key: TopicIdPartition) -> bool:
        """Each replica cleans when it wants: what remains of a batch may differ, its offsets and epoch may not."""
        topic = self.image.topics.get(key.topic_id)
        return topic is not None and "compact" in self.image.config("topic", topic.name).get("cleanup.policy", "")

    def name(self, key: TopicIdPartition) -> str:
        topic = self.image.topics.get(key.topic_id)
        return f"{topic.name if topic else key.topic_id}-{key.partition}"

    # --- replication --------------------------------------------------------------------------------------------

    def replica(self, node_id: int, key: TopicIdPartition) -> Replica | None:
        node = self.cluster.nodes[node_id].node
        if node is None or node.replicas is None:
            return None
        return node.replicas._registry.replicas.get(key)

    def leader_moved(self, node_id: int, replica: Replica, old: object, new: LeaderState) -> None:
        """A leader's state was replaced."""
        key = replica.key
        other = self._leaders.setdefault((key, new.leader_epoch), node_id)
        if other != node_id:
            self.fail(f"{self.name(key)}: {other} and {node_id} both lead in epoch {new.leader_epoch}")
        was_leader = isinstance(old, LeaderState)
        if not was_leader:
            self._lossy.get(key, set()).discard(node_id)  # the last of its ISR: what it has now is what there is
        if (key, new.leader_epoch) in self._chosen:
            self._check_chosen(node_id, replica, new)
        if was_leader and new.high_watermark == old.high_watermark:
            return
        if was_leader and new.high_watermark < old.high_watermark:
            self.fail(
                f"{self.name(key)}: the high watermark of leader {node_id} fell from {old} to "
                f"{new.high_watermark} in epoch {new.leader_epoch}"
            )
        if self.may_lose_of(key, new.leader_epoch):
            return
        for member in self._surely_in_sync(key, new):
            held = self.replica(member, key)
            if (
                held is not None
                and member not in self._lossy.get(key, ())
                and new.partition_epoch >= self._left_at.get((key, member), -1)
                and held.log.log_end_offset < new.high_watermark
            ):
                self.fail(
                    f"{self.name(key)}: leader {node_id} moves its high watermark to {new.high_watermark}, but member "
                    f"{member} of the maximal ISR {new.isr.maximal} ends at {held.log.log_end_offset}"
                )

    def _surely_in_sync(self, key: TopicIdPartition, state: LeaderState) -> list[int]:
        """The maximal ISR, and what is committed whether this leader counts it or not."""
        committed = self.image.partition(key.topic_id, key.partition)
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
            self.fail(
                f"{self.name(replica.key)}: follower {node_id} has high watermark {state.high_watermark} outside its "
                f"log {log.log_start_offset}..{log.log_end_offset}"
            )

    def answered(self, attempt: Attempt) -> None:
        """A client has got its answer."""
        outcome = attempt.outcome
        assert outcome is not None
        self.count(f"produce acks={attempt.acks} error {outcome.error_code}")
        if not attempt.is_acked or attempt.acks != -1 or self.may_lose_of(attempt.which, outcome.leader_epoch):
            return
        partition = self.image.partition(attempt.which.topic_id, attempt.which.partition)
        if partition is None:
            return
        for member in partition.isr:
            held = self.replica(member, attempt.which)
            if held is None or member in self._lossy.get(attempt.which, ()):
                continue
            if held.log.log_end_offset <= outcome.last_offset:
                self.fail(
                    f"{self.name(attempt.which)}: offset {outcome.last_offset} was acknowledged, and ISR member "
                    f"{member} of {partition.isr} ends at {held.log.log_end_offset}"
                )

    def was_read(self, key: TopicIdPartition, found: Iterable[tuple[int, bytes]], *, leader_epoch: int) -> None:
        """`leader_epoch`: of the leader that was asked, as the asking node knew it, -1 when nobody says. The leader may
        be ahead of that, but never behind: who leads in an era has what the era began with."""
        if self.eras.is_before(key, leader_epoch):
            return
        seen = self._seen.setdefault(key, {})
        for offset, value in found:
            known = seen.setdefault(offset, value)
            if self.eras.has_begun_anew(key):
                self.count("read in a new era")
            if known != value:
                self.check(
                    self._is_given_up(key),
                    f"{self.name(key)}: a consumer read {value!r} at offset {offset}, where {known!r} was read before",
                )
                seen[offset] = value

    def has_damage(self, node_id: int, key: TopicIdPartition) -> bool:
        """Of a log that cannot be read now: it is taken to be as it was."""
        replica = self.replica(node_id, key)
        if replica is None:
            return True
        log, offset = replica.log, replica.log.log_start_offset
        with unnoticed(log):
            while offset < log.log_end_offset:
                try:
                    read = log.read(offset, bytes_max=MATCH_BYTES, upper_bound=log.log_end_offset)
                except (CorruptMessage, KafkaStorageError):
                    return True
                offset = read.next_offset if len(read.data) else log.log_end_offset
        return False

    def match_logs(self) -> None:
        """Below the high watermarks all replicas have the same batches, and they stay (log matching)."""
        for node_id, node in self.cluster.nodes.items():
            if node.node is None or node.node.replicas is None:
                continue
            for key, replica in node.node.replicas._registry.replicas.items():
                if not self._is_given_up(key) and self.eras.must_agree(node_id, replica):
                    self._match(node_id, key, replica)

    def _match(self, node_id: int, key: TopicIdPartition, replica: Replica) -> None:
        state = replica.state
        assert isinstance(state, (LeaderState, FollowerState)), state
        log = replica.log
        start, end = log.log_start_offset, log.log_end_offset
        if not start <= state.high_watermark <= end:
            self.fail(
                f"{self.name(key)}: node {node_id} has high watermark {state.high_watermark} outside its log "
                f"{start}..{end}"
            )
        offset = max(min(self._matched.get((key, node_id), 0), end), start)
        if offset < state.high_watermark:
            offset = self._matched_up_to(offset, node_id, replica)
        self._matched[key, node_id] = offset

    def _matched_up_to(self, offset: int, node_id: int, replica: Replica) -> int:
        """How far the committed batches from `offset` on could be read, and are what they were."""
        key, log, high_watermark = replica.key, replica.log, replica.state.high_watermark
        committed, is_compacted = self._committed.setdefault(key, {}), self.is_compacted(key)
        while offset < high_watermark:
            try:
                with unnoticed(log):
                    read = log.read(offset, bytes_max=MATCH_BYTES, upper_bound=high_watermark)
            except KafkaStorageError:
                self.count("a failed log was looked at")
                break
            except CorruptMessage as error:
                flipped = node_id in self.damaged.get(key, ())
                self.check(flipped, f"{self.name(key)}: node {node_id} is damaged, and no bit has flipped: {error}")
                self.count("a damaged log was looked at")
                break
            if not read.data:
                break
            for _, header in whole_batches(read.data):
                found = (header.last_offset, 0 if is_compacted else header.crc, header.leader_epoch)
                known = committed.setdefault(header.base_offset, found)
                if known != found:
                    self.fail(
                        f"{self.name(key)}: node {node_id} has batch {found} at committed offset {header.base_offset}, "
                        f"where {known} was (last offset, CRC, leader epoch){self.eras.told(key)}"
                    )
            offset = read.next_offset
            if self.eras.has_begun_anew(key):
                self.count("log matched in a new era")
        return offset

    def _forget_match(self, key: TopicIdPartition) -> None:
        self._committed.pop(key, None)
        for at in [at for at in self._matched if at[0] == key]:
            del self._matched[at]

    # --- quorum -------------------------------------------------------------------------------------------------

    def message_sent(self, node_id: int, peer: int, message: Mapping[str, Any]) -> None:
        """What a voter says to another, at the moment it leaves: it must be durable, and said once."""
        match message["type"]:
            case "response_vote":
                self._voted(node_id, message["term"], peer)
            case "request_vote":
                self._voted(node_id, message["term"], node_id)
            case "next_node_idx" if message["success"]:
                self._check_durable(node_id, "journal", f"acknowledges entries to {peer}")

    def _voted(self, node_id: int, term: int, candidate: int) -> None:
        self.count("vote given")
        other = self._votes.setdefault((node_id, term), candidate)
        self.check(other == candidate, f"node {node_id} voted for {other} and for {candidate} in term {term}")
        self._check_durable(node_id, "vote", f"votes for {candidate} in term {term}")

    def _check_durable(self, node_id: int, name: str, what: str) -> None:
        disk = self.cluster.nodes[node_id].machine.disk
        folder = disk.directory("/data/__cluster_metadata")
        inode = folder.names.get(name)
        is_durable = inode is not None and folder.durable.get(name) is inode and not inode.unsynced
        if not is_durable:
            self.fail(f"node {node_id} {what}, and its {name} is not durable")

    def appended(self, before: MetadataImage, command: Any, after: object) -> None:
        """Compare-and-set: only what was decided on this image, by the controller of this epoch, may be applied."""
        self.count("metadata command applied" if isinstance(after, MetadataImage) else "metadata command dropped")
        is_claim = len(command.records) == 1 and command.records[0].type == "controller_epoch"
        if isinstance(after, MetadataImage) and not is_claim:
            decided = (command.controller_epoch, command.expected_offset)
            now = (before.controller_epoch, before.offset)
            if decided != now:
                self.fail(f"a command decided at (epoch, offset) {decided} was applied at {now}")

    def altered(self, image: MetadataImage, request: Any, reply: Mapping[TopicIdPartition, object]) -> None:
        """I5, I6: an ISR is changed only by who knew both epochs, and only to members that are what they say."""
        for alteration in request.alterations:
            key = TopicIdPartition(alteration.topic_id, alteration.partition)
            partition = image.partition(*_pair(key))
            if not isinstance(reply[key], PartitionImage) or partition is None:
                continue
            knew = (alteration.leader_epoch, alteration.partition_epoch)
            now = (partition.leader_epoch, partition.partition_epoch)
            self.check(knew == now, f"{self.name(key)}: an ISR decided at epochs {knew} was taken at {now}")
            for member in alteration.new_isr:
                broker = image.brokers[member.broker_id]
                self.check(
                    member.broker_epoch in (-1, broker.broker_epoch) and broker.is_active,
                    f"{self.name(key)}: {member} was taken into the ISR, and the broker is {broker}",
                )


def _pair(key: TopicIdPartition) -> tuple[UUID, int]:
    return key.topic_id, key.partition
