"""Since which leader epoch the logs of a partition have to agree again, after records were given up or lost.

The promise begins again with the leader that an unclean election chooses, and with the next leader after all members of
an ISR have lost data. Its own log is right from then on, and so is that of every later leader. A follower may hold what
was given up until a leader of the new era has found nothing in its log that diverges (R2, the answer to its fetch); it
may again after its log was opened again, for a truncation is not durable at once, and its high watermark comes from a
checkpoint (R7). So it is one opened log that agrees, not a node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from metadata.image import TopicIdPartition
from replication.partition.replica import Replica
from replication.partition.states import LeaderState


@dataclass(slots=True)
class Eras:
    _begun: dict[TopicIdPartition, int] = field(default_factory=dict)
    _agreed: dict[tuple[TopicIdPartition, int], Replica] = field(default_factory=dict)
    """(partition, node) -> its log, as it was opened last."""

    def begin(self, key: TopicIdPartition, leader_epoch: int) -> bool:
        """False: it has begun already."""
        if leader_epoch <= self._begun.get(key, -1):
            return False
        self._begun[key] = leader_epoch
        for known in [known for known in self._agreed if known[0] == key]:
            del self._agreed[known]
        return True

    def has_begun_anew(self, key: TopicIdPartition) -> bool:
        return key in self._begun

    def is_before(self, key: TopicIdPartition, leader_epoch: int) -> bool:
        """True for an epoch of an earlier era: its records may be lost."""
        return leader_epoch < self._begun.get(key, leader_epoch)

    def agreed(self, node_id: int, replica: Replica) -> None:
        """Its leader compared the logs up to the end of the follower's, and found the same."""
        if not self.is_before(replica.key, replica.state.leader_epoch):
            self._agreed[replica.key, node_id] = replica

    def must_agree(self, node_id: int, replica: Replica) -> bool:
        key, state = replica.key, replica.state
        if key not in self._begun:
            return True
        if self.is_before(key, state.leader_epoch):
            return False
        return isinstance(state, LeaderState) or self._agreed.get((key, node_id)) is replica

    def describe(self, key: TopicIdPartition) -> str:
        begun = self._begun.get(key)
        return "" if begun is None else f", in the era that began with epoch {begun}"
