"""Why a record is lost, from the events: the first later leader epoch that began at or below its offset, and the
reason.

A cause that Kafka's rules permit has a reason. A clean election is no such cause for a promised record (acks=all, or
below a high watermark that a client saw): the verdict then contains the facts, and the loss stays unexplained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kraft.chaos.checkers.findings import UNEXPLAINED, Explanation
from kraft.chaos.checkers.timeline import DEATHS, SLACK_US, Cut, Leadership, PartitionTimeline, Timeline

FLUSH_MESSAGES: Final = "flush.messages"
POWER_LOSS: Final = frozenset({"power_loss"})
WIPE: Final = frozenset({"wipe"})
DAMAGE: Final = frozenset({"flip", "torn_tail", "delete_index"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRecord:
    """A record that was in the log: its offset, the time, and the node that acknowledged it."""

    topic: str
    partition: int
    offset: int
    invoke_us: int
    at_us: int
    """The time at which a client received the offset."""
    node: int = -1
    acks: str = ""
    """Empty: the record was read, not acknowledged."""

    @property
    def is_promised(self) -> bool:
        return self.acks not in ("0", "1")


class Causes:
    def __init__(self, timeline: Timeline, *, settings: Mapping[str, Any], log_starts: Mapping[tuple[str, int], int]):
        self._timeline = timeline
        self._settings = settings
        self._log_starts = log_starts
        """The log start offset of each partition at the end of the run."""

    def of(self, gone: LostRecord) -> Explanation:
        """The explanation of the loss. Without a reason its text contains the facts, or is empty."""
        deleted_us = self._timeline.deletion_after(gone.topic, gone.invoke_us)
        if deleted_us is not None:
            return Explanation("topic deleted", f"topic {gone.topic} was deleted afterwards")
        partition = self._timeline.partition(gone.topic, gone.partition, at_us=gone.at_us)
        if gone.offset < self._log_starts.get((gone.topic, gone.partition), 0):
            return self._of_log_start(partition, gone)
        leadership = self.acknowledging_leadership(partition, gone)
        explanation = self._under(partition, leadership, gone)
        if not explanation.reason and leadership is not None:
            for later in _also_possible(partition, leadership, gone):
                other = self._under(partition, later, gone)
                if other.reason:
                    return other
        return explanation

    def _under(self, partition: PartitionTimeline, leadership: Leadership | None, gone: LostRecord) -> Explanation:
        """The explanation if this leader acknowledged the record."""
        successor = self._successor(partition, leadership, gone)
        if successor is not None:
            return self._of_succession(partition, leadership, successor, gone)
        return self._of_cuts(partition, leadership, gone)

    def acknowledging_leadership(self, partition: PartitionTimeline, gone: LostRecord) -> Leadership | None:
        """The leadership that acknowledged the record: a leader at that time that has a successor; preferably the node
        that answered."""
        # With slack for clocks only when nobody led without it: the next leader may have passed the request on.
        candidates = believed_leaderships(partition, gone.invoke_us, gone.at_us, slack_us=0)
        candidates = candidates or believed_leaderships(partition, gone.invoke_us, gone.at_us)
        own = [leadership for leadership in candidates if leadership.leader == gone.node]
        outlived = [
            leadership for leadership in (*own, *candidates) if self._successor(partition, leadership, gone) is not None
        ]
        chosen = outlived[:1] or own[-1:] or candidates[-1:]
        if chosen:
            return chosen[0]
        earlier = [r for r in partition.in_order() if r.leader >= 0 and r.since_us <= gone.at_us]
        return earlier[-1] if earlier else None

    def _successor(
        self, partition: PartitionTimeline, leadership: Leadership | None, gone: LostRecord
    ) -> Leadership | None:
        """The first later epoch that began without the record."""
        for later in partition.in_order():
            is_later = later.epoch > leadership.epoch if leadership is not None else later.since_us > gone.at_us
            if is_later and later.leader >= 0 and later.start_offset is not None and later.start_offset <= gone.offset:
                return later
        return None

    # --- a leader without the record took over

    def _of_succession(
        self, partition: PartitionTimeline, leadership: Leadership | None, successor: Leadership, gone: LostRecord
    ) -> Explanation:
        acked = _acked(leadership, gone)
        loss = self._storage_loss(partition, successor, gone)
        if successor.is_unclean:
            took = f"an unclean election made node {successor.leader} leader in epoch {successor.epoch}"
            text = f"{acked}, {took} with log end offset {successor.start_offset}{_given_up(successor)}"
            return Explanation("unclean election", text + self._old_copy(partition, leadership, successor, gone))
        if loss is not None:
            took = "came back as leader" if leadership and leadership.leader == successor.leader else "took over"
            text = f"{acked}, node {successor.leader} {loss.text} and {took} in epoch {successor.epoch}"
            text += f" with log end offset {successor.start_offset}"
            return Explanation(loss.reason, text + self._old_copy(partition, leadership, successor, gone))
        unclean = _unclean_before(partition, leadership, successor)
        if unclean is not None:
            took = f"an unclean election made node {unclean.leader} leader in epoch {unclean.epoch}, which never began"
            text = f"{acked}, {took}, and node {successor.leader} took over in epoch {successor.epoch}"
            text += f" with log end offset {successor.start_offset}"
            return Explanation("unclean election", text + self._old_copy(partition, leadership, successor, gone))
        text = f"{acked}, node {successor.leader} took over in epoch {successor.epoch}"
        text += f" with log end offset {successor.start_offset}" + self._old_copy(
            partition, leadership, successor, gone
        )
        if leadership is not None and successor.elected_us is not None and gone.at_us > successor.elected_us:
            text += f"; node {leadership.leader} did not know yet that it was deposed"
        if gone.is_promised or gone.offset < partition.committed_below(successor.epoch):
            promise = "acks=all" if gone.acks == "all" else "what was below the high watermark"
            return Explanation("", f"{text}; a clean election must not lose {promise}")
        return Explanation("not replicated", text)

    def _storage_loss(
        self, partition: PartitionTimeline, successor: Leadership, gone: LostRecord
    ) -> Explanation | None:
        """The data that the disk of the new leader lost since then."""
        node, until_us = [successor.leader], successor.began_us
        if self._timeline.faults_on(node, WIPE, from_us=gone.invoke_us, until_us=until_us):
            return Explanation("wiped", "lost its whole disk")
        for repair in partition.repairs:
            is_between = gone.invoke_us <= repair.at_us and (until_us is None or repair.at_us <= until_us)
            damaged = self._timeline.faults_on(node, DAMAGE, from_us=0, until_us=until_us)
            if damaged and repair.node == successor.leader and is_between and repair.offset <= gone.offset:
                text = f"truncated its damaged log at {repair.offset} ({repair.reason})"
                return Explanation("damaged segment", text)
        lost_power = self._timeline.faults_on(node, POWER_LOSS, from_us=gone.invoke_us, until_us=until_us)
        if lost_power and not self._flushes_each_record(gone.topic):
            return Explanation("power loss", "lost the tail that it had not flushed in a power loss")
        return None

    def _flushes_each_record(self, topic: str) -> bool:
        topics = self._settings.get("topics", {})
        own = topics.get(topic, {}) if isinstance(topics, Mapping) else {}
        value = own.get(FLUSH_MESSAGES) if isinstance(own, Mapping) else None
        return str(self._settings.get(FLUSH_MESSAGES) if value is None else value) == "1"

    def _old_copy(
        self, partition: PartitionTimeline, leadership: Leadership | None, successor: Leadership, gone: LostRecord
    ) -> str:
        """The fate of the copy of the acknowledging leader."""
        if leadership is None or leadership.leader == successor.leader:
            return _cut_by_others(partition, successor, gone)
        old = leadership.leader
        cut = next((cut for cut in _covering(partition.cuts, gone) if cut.node == old), None)
        if cut is not None:
            died = self._timeline.faults_on([old], DEATHS, from_us=gone.invoke_us, until_us=cut.at_us)
            return f", node {old} truncated them when it {'came back' if died else 'learned of it'}"
        deaths = self._timeline.faults_on([old], DEATHS, from_us=gone.invoke_us)
        return f", node {old} {_PAST[deaths[-1].fault]} and did not bring them back" if deaths else ""

    # --- other ways

    def _of_log_start(self, partition: PartitionTimeline, gone: LostRecord) -> Explanation:
        for start in partition.log_starts:
            if start.offset > gone.offset:
                reason = "deleted" if start.how == "DeleteRecords" else "retention"
                return Explanation(reason, f"{start.how} moved the start of the log to {start.offset}")
        start_offset = self._log_starts[gone.topic, gone.partition]
        return Explanation(
            "", f"the log begins at {start_offset} now, and no event explains the removal of the records before"
        )

    def _of_cuts(self, partition: PartitionTimeline, leadership: Leadership | None, gone: LostRecord) -> Explanation:
        """No event contains the start of a later epoch, but an event contains a truncation."""
        for cut in _covering(partition.cuts, gone):
            text = (
                f"{_acked(leadership, gone)}, node {cut.node} truncated its log from {cut.to_offset} back to "
                f"{cut.from_offset} to follow the leader of epoch {cut.leader_epoch}"
            )
            return Explanation("" if gone.is_promised else "not replicated", text)
        return UNEXPLAINED


def believed_leaderships(
    partition: PartitionTimeline, from_us: int, until_us: int, *, slack_us: int = SLACK_US
) -> list[Leadership]:
    """The leaderships whose leader believed in that time that it led."""
    return [
        leadership
        for leadership in partition.in_order()
        if leadership.leader >= 0
        and leadership.began_us is not None
        and leadership.began_us <= until_us + slack_us
        and (leadership.ended_us is None or leadership.ended_us >= from_us - slack_us)
    ]


def _also_possible(partition: PartitionTimeline, leadership: Leadership, gone: LostRecord) -> list[Leadership]:
    """Later leaders that may have appended the record too: their epochs began while the request was on its way."""
    return [
        later
        for later in believed_leaderships(partition, gone.invoke_us, gone.at_us, slack_us=0)
        if later.epoch > leadership.epoch and later.start_offset is not None and later.start_offset <= gone.offset
    ]


def _unclean_before(
    partition: PartitionTimeline, leadership: Leadership | None, successor: Leadership
) -> Leadership | None:
    """An unclean leader between the two that was deposed before it began to lead: the ISR came from it."""
    after = -1 if leadership is None else leadership.epoch
    return next(
        (
            each
            for each in partition.in_order()
            if after < each.epoch < successor.epoch and each.is_unclean and each.start_offset is None
        ),
        None,
    )


def _acked(leadership: Leadership | None, gone: LostRecord) -> str:
    if gone.acks == "0" and leadership is not None:
        return f"sent to node {leadership.leader} in epoch {leadership.epoch} without waiting for an answer"
    verb = "acked" if gone.acks else "shown"
    if leadership is None:
        return f"{verb} by node {gone.node}" if gone.node >= 0 else f"{verb} in an unknown epoch"
    return f"{verb} by node {leadership.leader} in epoch {leadership.epoch}"


def _given_up(leadership: Leadership) -> str:
    given_up = None if leadership.unclean is None else leadership.unclean.get("given_up")
    if not given_up or given_up[0] >= given_up[1]:
        return ""
    return f" and gave up {given_up[0]}-{given_up[1] - 1}"


def _covering(cuts: Sequence[Cut], gone: LostRecord) -> list[Cut]:
    return [cut for cut in cuts if cut.from_offset <= gone.offset < cut.to_offset and cut.at_us >= gone.invoke_us]


def _cut_by_others(partition: PartitionTimeline, successor: Leadership, gone: LostRecord) -> str:
    nodes = sorted({cut.node for cut in _covering(partition.cuts, gone) if cut.leader_epoch >= successor.epoch})
    if not nodes:
        return ""
    return f", and {_nodes(nodes)} truncated them to follow it"


def _nodes(nodes: Sequence[int]) -> str:
    listed = [str(node) for node in nodes]
    return f"node {listed[0]}" if len(listed) == 1 else f"nodes {', '.join(listed[:-1])} and {listed[-1]}"


_PAST: Final = {
    "kill": "was killed",
    "crash": "crashed",
    "stop": "was stopped",
    "power_loss": "lost its power",
    "wipe": "lost its disk",
}
