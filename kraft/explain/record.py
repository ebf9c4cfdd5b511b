"""What became of the record at one offset, as far as logs, epochs and events show. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kraft.explain.explanation import Decider, Explanation, first_no, fixes, spoken, with_age
from kraft.explain.facts import Event, Found
from kraft.explain.nodes import explain_unknown

CUTS = ("truncated", "truncated_below_high_watermark", "impossible_epoch_cut")


def explain_record(found: Found, *, topic: str, partition: int, offset: int) -> Explanation:
    """Where no node has the partition, only that and why is explained."""
    subject = f"record {topic}-{partition} at offset {offset}"
    if not any(each.replica is not None for each in found.nodes.values()):
        return explain_unknown(found, subject)
    deciders = [with_age(each, found.ages_ms) for each in _deciders(found, topic, partition, offset)]
    cause = first_no(deciders)
    holds, known = _holders(found, offset), _high_watermark(found)
    if cause is not None and cause.cause != "not_committed":
        state, summary = {"not_written": "not there", "deleted": "deleted"}.get(cause.cause, "lost"), cause.explanation
    elif not holds:
        state, summary = "unknown", f"no node that answers has offset {offset}: {deciders[0].explanation}"
    elif offset >= known:
        state, summary = "written", f"nodes {spoken(holds)} have it, and it is not committed: it may still be lost"
    else:
        state, summary = "committed", f"nodes {spoken(holds)} have offset {offset}, below the high watermark {known}"
    events = [each for each in found.events() if each.get("topic") == topic]
    return Explanation(
        subject=subject, state=state, since_ms=None, summary=summary, cause="" if cause is None else cause.cause,
        next="" if cause is None else cause.next, fix=fixes(deciders), deciders=deciders, views=[],
        node_id=found.asked, at_ms=found.at_ms, unreached=dict(found.unreached), events=events[-30:],
        forgotten=any(each.forgotten for each in found.nodes.values()),
    )  # fmt: skip


def _deciders(found: Found, topic: str, partition: int, offset: int) -> Iterator[Decider]:
    replicas = {node: each.replica for node, each in found.nodes.items() if each.replica is not None}
    ends = {str(node): each.log_end_offset for node, each in sorted(replicas.items())}
    starts = {str(node): each.log_start_offset for node, each in sorted(replicas.items())}
    cuts = [each for each in found.events(*CUTS) if _is_in(each, topic, partition, offset)]
    was_there = offset < max(ends.values())
    forgotten = sorted(node for node, each in found.nodes.items() if each.forgotten)
    is_forgotten = not (was_there or cuts) and bool(forgotten)
    unclean = found.last("unclean_election", topic=topic, partition=partition)
    given_up = (0, 0) if unclean is None else unclean.get("given_up") or (0, 0)
    is_unclean = any(_by_unclean_election(each, unclean, offset) for each in cuts)
    yield Decider(
        question="Do the logs reach this offset?", decision="yes" if was_there else "unknown" if is_forgotten else "no",
        cause="" if was_there else _cause(is_unclean) if cuts else "forgotten" if is_forgotten else "not_written",
        rule="R2" if cuts else "F2",
        explanation="they do" if was_there else f"the logs end at {max(ends.values())}" + (
            f"; whether they were longer, node {spoken(forgotten)} has forgotten" if is_forgotten else ""),
        evidence={"log_end_offsets": ends}, next="" if was_there else "a producer writes it",
    )  # fmt: skip
    yield from (_cut(each, unclean, offset) for each in cuts)
    if given_up[0] <= offset < given_up[1]:
        yield Decider(
            question="Did the last unclean election keep it?", decision="no", cause="lost_unclean", rule="L8",
            explanation=f"it gave up offsets {given_up[0]} to {given_up[1] - 1}; what is at this offset now was "
            "written later",
            evidence=unclean or {}, next="nothing: what is given up does not come back",
        )  # fmt: skip
    is_kept = offset >= min(starts.values())
    yield Decider(
        question="Is it behind the start of the log?", decision="yes" if is_kept else "no",
        cause="" if is_kept else "deleted", rule="S1", evidence={"log_start_offsets": starts},
        explanation="it is" if is_kept else f"the log begins at {min(starts.values())}: retention or DeleteRecords "
        "removed it", next="" if is_kept else "nothing: what is deleted does not come back",
    )  # fmt: skip
    known = _high_watermark(found)
    is_committed = offset < known
    yield Decider(
        question="Is it committed?", decision="yes" if is_committed else "no" if was_there else "unknown",
        cause="" if is_committed else "not_committed", rule="P4",
        explanation=f"the high watermark is {known}", evidence={"high_watermark": known},
        next="" if is_committed else "all in-sync replicas have it", fix="" if is_committed or not was_there else
        f"kraft explain partition {topic} {partition}",
    )  # fmt: skip


def _cut(event: Event, unclean: Event | None, offset: int) -> Decider:
    by_unclean = _by_unclean_election(event, unclean, offset)
    was_known = event["event"] == "truncated_below_high_watermark"
    why = (
        ", below its high watermark: an unclean election lost it" if was_known
        else ": an unclean election chose a log that did not reach it" if by_unclean
        else ": it was not committed, and the leader of the new epoch had another log"
    )  # fmt: skip
    return Decider(
        question=f"Did node {event['node_id']} keep what it had here?", decision="no" if by_unclean else "unknown",
        cause=_cause(by_unclean), rule="R4" if was_known else "L8" if by_unclean else "R2",
        node=event["node_id"], evidence=event, next="nothing: what is cut does not come back",
        explanation=f"node {event['node_id']} cut its log from {event['to_offset']} to {event['from_offset']}{why}",
    )  # fmt: skip


def _cause(is_unclean: bool) -> str:
    return "lost_unclean" if is_unclean else "truncated"


def _by_unclean_election(cut: Event, unclean: Event | None, offset: int) -> bool:
    """Whether a follower cut what it had because the partition's leader was not of the ISR: the record may have been
    committed. A node that was killed comes back with an older high watermark, so its own event does not show that."""
    if cut["event"] == "truncated_below_high_watermark":
        return True
    if unclean is None or cut["at_ms"] < unclean["at_ms"]:
        return False
    chosen = unclean.get("log_end_offset")
    return chosen is not None and offset >= chosen


def _is_in(event: Event, topic: str, partition: int, offset: int) -> bool:
    start, end = event.get("from_offset"), event.get("to_offset")
    is_of_it = (event.get("topic"), event.get("partition")) == (topic, partition)
    return is_of_it and isinstance(start, int) and isinstance(end, int) and start <= offset < end


def _holders(found: Found, offset: int) -> list[int]:
    return [
        node
        for node, each in sorted(found.nodes.items())
        if each.replica is not None and each.replica.log_start_offset <= offset < each.replica.log_end_offset
    ]


def _high_watermark(found: Found) -> int:
    return max(each.replica.high_watermark for each in found.nodes.values() if each.replica is not None)
