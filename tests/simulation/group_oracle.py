"""The promises to members of groups (G1 to G6), judged by the answers to clients and the times of requests.

Once a generation was given to a member (its sync was answered), no request of an older generation that is sent
afterwards is taken, so no two members may commit for one partition; in a generation a partition has one owner; a new
holder of a static name fences the old one. What was committed and answered, and what was fetched, never goes back.
A group is excused when its partition of `__consumer_offsets` may lose what acks=all acknowledged, is another one by
now, or a disk rots; a partition's offsets when its own records may be lost or its topic is another one by now.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.coordinators.groups.answers import OffsetOfGroup
from kraft.coordinators.java import abs_hash
from kraft.protocol.primitives import TopicPartition
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC
from replication.partition.log import ReplicaLog
from tests.simulation.clients import choose
from tests.simulation.oracle import Oracle
from tests.support.ownership import Ownership, batches_of

LOG_BYTES = 1 << 24
Offsets = dict[TopicIdPartition, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """The certain state of a group when a request was sent."""

    generation: int
    fenced: frozenset[str]
    committed: Mapping[TopicIdPartition, int]


@dataclass(slots=True)
class Known:
    """The known state of one group."""

    home: TopicIdPartition | None = None
    """Its partition of the offsets topic."""
    is_uncertain: bool = False
    generation: int = -1
    fenced: set[str] = field(default_factory=set)
    holders: dict[str, str] = field(default_factory=dict)
    """Instance id -> the member that has it."""
    owners: dict[int, dict[str, frozenset[TopicPartition]]] = field(default_factory=dict)
    """Generation -> owner (instance or member id) -> partitions."""
    committed: Offsets = field(default_factory=dict)
    seen: dict[TopicIdPartition, dict[int, bytes]] = field(default_factory=dict)


class GroupOracle:
    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self._groups: dict[str, Known] = {}
        self.first_topics = {name: topic.topic_id for name, topic in oracle.image.topics_by_name.items()}

    def _known(self, group: str) -> Known:
        return self._groups.setdefault(group, Known())

    def choose_node(self, rng: random.Random) -> SimulatedNode | None:
        """The node that a member sends its request to."""
        return choose(self.oracle.cluster, rng, out_of_reach=self.oracle.out_of_reach)

    def is_certain(self, group: str) -> bool:
        """Is what the group was answered still promised?"""
        known, home = self._known(group), self._home(group)
        if known.home is None:
            known.home = home
        has_moved = known.home != home
        if has_moved or self.oracle.promise.rotten or (home is not None and self.oracle.promise.may_lose(home)):
            if not known.is_uncertain:
                self.oracle.count("group excused")
            known.is_uncertain = True
        return not known.is_uncertain

    def has_home(self, group: str) -> bool:
        """False: the offsets topic was created again, or grown, with settings that may not work."""
        return self._known(group).home in (None, self._home(group))

    def _home(self, group: str) -> TopicIdPartition | None:
        topic = self.oracle.image.topic(OFFSETS_TOPIC)
        return None if topic is None else TopicIdPartition(topic.topic_id, abs_hash(group) % len(topic.partitions))

    def _check(self, group: str, holds: bool, what: str) -> None:
        if not holds:
            self.oracle.check(not self.is_certain(group), f"group {group}: {what}")

    def moment(self, group: str) -> Moment:
        self.is_certain(group)
        known = self._known(group)
        return Moment(known.generation, frozenset(known.fenced), dict(known.committed))

    # --- members ------------------------------------------------------------------------------------------------

    def synced(
        self,
        group: str,
        generation: int,
        member_id: str,
        instance_id: str | None,
        partitions: Iterable[TopicPartition],
    ) -> None:
        known, mine = self._known(group), frozenset(partitions)
        self.oracle.note(f"group {group} generation {generation}: {member_id} has {sorted(mine)}")
        owners = known.owners.setdefault(generation, {})
        for owner, theirs in owners.items():
            both = sorted(mine & theirs) if owner != (instance_id or member_id) else []
            self._check(group, not both, f"generation {generation} gives {both} to {owner} and to {member_id}")
        owners[instance_id or member_id] = mine
        if generation > known.generation:
            self.oracle.count("group generation")
            known.generation = generation
        if instance_id is not None:
            before = known.holders.get(instance_id)
            known.holders[instance_id] = member_id
            if before not in (None, member_id):
                assert before is not None, instance_id
                self.oracle.count("static member came back")
                known.fenced.add(before)

    def taken(self, group: str, generation: int, member_id: str, what: str, since: Moment) -> None:
        """A heartbeat or commit was answered with success."""
        self._check(
            group,
            generation >= since.generation,
            f"{what} of member {member_id} in generation {generation} was taken, and {since.generation} had begun",
        )
        is_fenced = member_id in since.fenced
        self._check(group, not is_fenced, f"{what} of {member_id} was taken, and its name has a new holder")

    def refused(self, member: str, code: int) -> None:
        self.oracle.count(f"member refused, error {code}")
        self.oracle.note(f"member {member} is refused: {code}")

    # --- offsets ------------------------------------------------------------------------------------------------

    def committed(self, group: str, offsets: Mapping[TopicIdPartition, int]) -> None:
        self.oracle.count("offsets committed")
        self._raise(group, offsets)

    def _raise(self, group: str, offsets: Mapping[TopicIdPartition, int]) -> None:
        known = self._known(group).committed
        for which, offset in offsets.items():
            known[which] = max(known.get(which, -1), offset)

    def fetched(self, group: str, rows: Iterable[OffsetOfGroup], since: Moment) -> None:
        offsets = {}
        for row in rows:
            which = self.which((row.topic, row.partition))
            if which is None:
                continue
            offsets[which] = row.offset
            floor = since.committed.get(which, -1)
            if row.offset < floor and not self.oracle.promise.may_lose(which):
                self._check(
                    group,
                    False,
                    f"offset {floor} of {self.oracle.name(which)} was committed or read before; now it is {row.offset}",
                )
        self._raise(group, offsets)

    def which(self, partition: TopicPartition) -> TopicIdPartition | None:
        """None: there is no such topic, or another one than at first."""
        topic = self.oracle.image.topic(partition[0])
        if topic is None or self.first_topics.setdefault(partition[0], topic.topic_id) != topic.topic_id:
            return None
        return TopicIdPartition(topic.topic_id, partition[1])

    # --- records ------------------------------------------------------------------------------------------------

    def saw(
        self, group: str, which: TopicIdPartition, found: Iterable[tuple[int, bytes]], *, leader_epoch: int = -1
    ) -> None:
        records = list(found)
        self.oracle.logs.was_read(which, records, leader_epoch=leader_epoch)
        self._known(group).seen.setdefault(which, {}).update(records)

    def _judge_log(self, group: str) -> None:
        """The coordinator's own account: in no generation, and after no batch, has a partition two owners."""
        home = self._home(group)
        partition = None if home is None else self.oracle.image.partition(home.topic_id, home.partition)
        replica = None if partition is None or home is None else self.oracle.replica(partition.leader, home)
        if replica is not None:
            account = Ownership(group).follow(batches_of(log_bytes(replica.log), group))
            self.oracle.check(not account.violations, f"group {group}: {account.violations[:3]}")

    def judge(self, group: str, topics: Iterable[str], logs: Mapping[TopicIdPartition, Mapping[int, bytes]]) -> None:
        """Everything that the group has committed was seen by it, at least once."""
        if not self.is_certain(group):
            return
        self._judge_log(group)
        for which, found in logs.items():
            topic = self.oracle.image.topics[which.topic_id]
            if topic.name not in topics or self.which((topic.name, 0)) is None or self.oracle.promise.may_lose(which):
                continue
            known = self._known(group)
            read = set(known.seen.get(which, {}))
            missed = [offset for offset in found if offset < known.committed.get(which, -1) and offset not in read]
            self.oracle.check(
                not missed, f"group {group} has committed {self.oracle.name(which)} and never saw {missed[:20]}"
            )


def log_bytes(log: ReplicaLog) -> bytes:
    data, offset = b"", log.log_start_offset
    while offset < log.log_end_offset:
        read = log.read(offset, bytes_max=LOG_BYTES, upper_bound=log.log_end_offset)
        if not read.data:
            break
        data, offset = data + read.data, read.next_offset
    return data
