"""The oracle of the quorum and the controller: messages between voters, and effects of a controller's append.

Checked at every step: one vote per term; nothing promised to another voter that a power loss could take back; metadata
is appended, and an ISR altered, by compare-and-set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kraft.chaos.worlds.simulated.cluster import METADATA_FOLDER
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle


class QuorumOracle:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._votes: dict[tuple[int, int], int] = {}

    def message_sent(self, node_id: int, peer: int, message: Mapping[str, Any]) -> None:
        """A message of a voter at the moment of sending: its promise must be durable and unique."""
        match message["type"]:
            case "response_vote":
                self._voted(node_id, message["term"], peer)
            case "request_vote":
                self._voted(node_id, message["term"], node_id)
            case "next_node_idx" if message["success"]:
                self._check_durable(node_id, "journal", f"acknowledges entries to {peer}")

    def voter_wiped(self, node_id: int) -> None:
        """The votes of its next instance are counted again; those of this one no longer count."""
        self._votes = {at: candidate for at, candidate in self._votes.items() if at[0] != node_id}

    def _voted(self, node_id: int, term: int, candidate: int) -> None:
        self._oracle.count("vote given")
        other = self._votes.setdefault((node_id, term), candidate)
        if other != candidate:
            self._oracle.fail(f"node {node_id} voted for {other} and for {candidate} in term {term}")
        self._check_durable(node_id, "vote", f"votes for {candidate} in term {term}")

    def _check_durable(self, node_id: int, name: str, what: str) -> None:
        folder = self._oracle.cluster.nodes[node_id].machine.disk.directory(METADATA_FOLDER)
        inode = folder.names.get(name)
        if inode is None or folder.durable.get(name) is not inode or inode.unsynced:
            self._oracle.fail(f"node {node_id} {what}, and its {name} is not durable")

    def appended(self, before: MetadataImage, command: Any, after: object) -> None:
        """Compare-and-set: only what was decided on this image, by the controller of this epoch, may be applied."""
        is_applied = isinstance(after, MetadataImage)
        self._oracle.count("metadata command applied" if is_applied else "metadata command dropped")
        is_claim = len(command.records) == 1 and command.records[0].type == "controller_epoch"
        if is_applied and not is_claim:
            decided = (command.controller_epoch, command.expected_offset)
            now = (before.controller_epoch, before.offset)
            if decided != now:
                self._oracle.fail(f"a command decided at (epoch, offset) {decided} was applied at {now}")

    def altered(self, image: MetadataImage, request: Any, reply: Mapping[TopicIdPartition, object]) -> None:
        """I5, I6: only a sender with both current epochs changes an ISR, and only to members with their current
        epochs."""
        for alteration in request.alterations:
            key = TopicIdPartition(alteration.topic_id, alteration.partition)
            partition = image.partition(key.topic_id, key.partition)
            if not isinstance(reply[key], PartitionImage) or partition is None:
                continue
            knew = (alteration.leader_epoch, alteration.partition_epoch)
            now = (partition.leader_epoch, partition.partition_epoch)
            name = self._oracle.name(key)
            self._oracle.check(knew == now, f"{name}: an ISR decided at epochs {knew} was taken at {now}")
            for member in alteration.new_isr:
                broker = image.brokers[member.broker_id]
                self._oracle.check(
                    member.broker_epoch in (-1, broker.broker_epoch) and broker.is_active,
                    f"{name}: {member} was taken into the ISR, and the broker is {broker}",
                )
