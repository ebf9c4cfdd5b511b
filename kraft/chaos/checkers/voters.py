"""Committed metadata is equal on all voters and is never lost, and no voter forgets the term in which it voted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kraft.chaos.checkers.findings import Findings
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.evidence import Event, VoterMetadata

if TYPE_CHECKING:
    from metadata.records import Record


class VoterCheck:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def check(self, voters: Sequence[VoterMetadata], events: Sequence[Event]) -> None:
        if not voters:
            return
        self._compare_records(voters)
        self._compare_images(voters)
        self._gone(max(voters, key=lambda voter: voter.newest.offset), events)
        self._terms(voters, events)

    def _compare_records(self, voters: Sequence[VoterMetadata]) -> None:
        known: dict[int, tuple[int, Record]] = {}
        for voter in voters:
            for offset, record in voter.records:
                first_voter, first = known.setdefault(offset, (voter.node, record))
                if record != first:
                    others = f"{record!r} on voter {voter.node}"
                    text = f"metadata offset {offset} is {first!r} on voter {first_voter}, {others}"
                    self._findings.add(Kind.METADATA_DIFFERS, text, offset=offset)

    def _compare_images(self, voters: Sequence[VoterMetadata]) -> None:
        # Checkers run in other people's programs, too: code of nodes is imported only for metadata that is there.
        from metadata.image_codec import encode_image

        known: dict[int, tuple[int, bytes]] = {}
        for voter in voters:
            encoded = encode_image(voter.image)
            first_voter, first = known.setdefault(voter.image.offset, (voter.node, encoded))
            if encoded != first:
                text = f"voters {first_voter} and {voter.node} have different images at offset {voter.image.offset}"
                self._findings.add(Kind.METADATA_DIFFERS, text, offset=voter.image.offset)

    def _gone(self, voter: VoterMetadata, events: Sequence[Event]) -> None:
        """Changes that controllers announced were committed; the most advanced voter must have them."""
        deleted = {event.fields["topic_id"] for event in events if event.event == "topic_deleted"}
        for event in events:
            fields = event.fields
            topic_id = fields.get("topic_id")
            if topic_id is None or topic_id in deleted:
                continue
            if event.event == "topic_created" and not _has_topic(voter, topic_id):
                self._add(f"topic {fields['topic']} was created and never deleted", event, voter)
            elif event.event == "leader_elected" and not _has_epoch(voter, event):
                epoch = f"epoch {fields['leader_epoch']} of {fields['topic']}-{fields['partition']}"
                self._add(f"{epoch} began with node {fields['leader']} as leader", event, voter)

    def _terms(self, voters: Sequence[VoterMetadata], events: Sequence[Event]) -> None:
        """Raft section 5.2: a term is on disk before it is sent or written into an event of the node."""
        latest: dict[int, Event] = {}
        for event in events:
            if event.event == "quorum_leadership":
                highest = latest.setdefault(event.node, event)
                if event.fields["term"] > highest.fields["term"]:
                    latest[event.node] = event
        for voter in voters:
            heard = latest.get(voter.node)
            if voter.term is not None and heard is not None and voter.term < heard.fields["term"]:
                took_part = f"voter {voter.node} took part in term {heard.fields['term']} of the quorum"
                text = f"{took_part}, and its disk knows term {voter.term}: after a restart it may vote a second time"
                self._findings.add(Kind.VOTE_FORGOTTEN, text, at_us=heard.at_us)

    def _add(self, what: str, event: Event, voter: VoterMetadata) -> None:
        text = f"{what}, and voter {voter.node}, which has the most metadata, does not know it"
        topic, partition = str(event.fields["topic"]), event.fields.get("partition", -1)
        self._findings.add(Kind.METADATA_GONE, text, topic=topic, partition=partition, at_us=event.at_us)


def _has_topic(voter: VoterMetadata, topic_id: str) -> bool:
    return any(str(known) == topic_id for known in voter.newest.topics)


def _has_epoch(voter: VoterMetadata, event: Event) -> bool:
    fields = event.fields
    topic = next((topic for known, topic in voter.newest.topics.items() if str(known) == fields["topic_id"]), None)
    if topic is None or fields["partition"] not in topic.partitions:
        return False
    partition = topic.partitions[fields["partition"]]
    if partition.leader_epoch == fields["leader_epoch"]:
        return bool(partition.leader == fields["leader"])
    return bool(partition.leader_epoch > fields["leader_epoch"])
