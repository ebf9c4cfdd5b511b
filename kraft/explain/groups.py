"""Why a group, a queue or a transaction does not go on. Pure.

Their state is their coordinator's; where that does not answer, the partition of its log is the thing to explain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from kraft.explain.explanation import Decider, Decision, Explanation, first_no, fixes, seconds, spoken, with_age

NO_ERROR: Final = ""
NAMED_MAX: Final = 5
"""Members that a sentence names; the evidence has all."""
REBALANCING: Final = frozenset({"PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling"})


class Coordinated(msgspec.Struct, frozen=True, kw_only=True):
    """Where the state of a group or a transactional id is."""

    asked: int
    at_ms: int
    topic: str
    """The internal topic that has its log."""
    partition: int = -1
    coordinator: int = -1
    error: str = NO_ERROR
    """Why the coordinator did not answer."""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    partition: int
    committed: int
    end: int
    member: str
    """The client that reads it; empty: none does."""
    leader: int
    committed_later: int = -1
    end_later: int = -1
    """Both again, about a second later; -1: not looked again."""


class GroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    where: Coordinated
    group: str
    state: str = ""
    kind: str = "classic"
    generation: int = -1
    members: list[str] = []
    """Client ids."""
    awaited: list[tuple[str, str, str]] = []
    """While it rebalances: client id, member id, and what the member has to do."""
    idle: list[str] = []
    """Members that have no partition."""
    lags: list[Lag] = []


class SharePartitionFacts(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    partition: int
    error: str = NO_ERROR
    start_offset: int = -1
    acquired: int = 0
    waiting: int = 0
    """Available, and not handed out before a delay is over."""
    lock_ms: int = 0
    """Until the first lock ends."""
    lag: int = -1
    dead_letters_lost: int = 0
    """Records that were given up without a dead letter."""
    last_dead_letter_error: str = ""


class QueueFacts(msgspec.Struct, frozen=True, kw_only=True):
    where: Coordinated
    group: str
    state: str = ""
    members: int = 0
    locks_max: int = 0
    """The limit of each partition: group.share.partition.max.record.locks."""
    partitions: list[SharePartitionFacts] = []


class TransactionFacts(msgspec.Struct, frozen=True, kw_only=True):
    where: Coordinated
    transactional_id: str
    state: str = ""
    producer_id: int = -1
    producer_epoch: int = -1
    timeout_ms: int = 0
    started_ms: int = -1
    partitions: list[tuple[str, int]] = []
    coordinator_epoch: int = 0
    """The leader epoch of the partition that has its state; a marker of an older one is refused."""
    leaderless: list[tuple[str, int]] = []
    """Those whose markers cannot be written."""


def explain_group(facts: GroupFacts) -> Explanation:
    deciders = list(_group(facts))
    lag = sum(max(0, each.end - each.committed) for each in facts.lags)
    healthy = f"{len(facts.members)} members, generation {facts.generation}, {lag} records behind"
    return _explanation(f"group {facts.group}", facts.where, facts.state or "unknown", deciders, healthy)


def explain_queue(facts: QueueFacts) -> Explanation:
    deciders = [_coordinator(facts.where, "U6"), *(_share(facts, each) for each in facts.partitions)]
    healthy = f"{facts.members} members; {sum(each.acquired for each in facts.partitions)} records are locked"
    return _explanation(f"queue {facts.group}", facts.where, facts.state or "unknown", deciders, healthy)


def explain_transaction(facts: TransactionFacts) -> Explanation:
    deciders = [_coordinator(facts.where, "T1")]
    if facts.state:
        deciders += _transaction(facts)
    healthy = f"producer {facts.producer_id} with epoch {facts.producer_epoch}, {len(facts.partitions)} partitions"
    name, since = f"transaction {facts.transactional_id}", facts.started_ms if facts.started_ms >= 0 else None
    return _explanation(name, facts.where, facts.state or "unknown", deciders, healthy, since_ms=since)


def _explanation(
    subject: str, where: Coordinated, state: str, deciders: Sequence[Decider], healthy: str,
    since_ms: int | None = None,
) -> Explanation:  # fmt: skip
    deciders = [
        with_age(each, {where.coordinator: 0} if where.coordinator >= 0 else {}) for each in deciders
    ]  # it was asked just now
    cause = first_no(deciders)
    return Explanation(
        subject=subject, state=state, since_ms=since_ms, summary=healthy if cause is None else cause.explanation,
        cause="" if cause is None else cause.cause, next="" if cause is None else cause.next, fix=fixes(deciders),
        deciders=list(deciders), views=[], node_id=where.asked, at_ms=where.at_ms, unreached={},
    )  # fmt: skip


def _coordinator(where: Coordinated, rule: str) -> Decider:
    log = where.topic if where.partition < 0 else f"{where.topic}-{where.partition}"
    evidence = {"log": log, "coordinator": where.coordinator}
    if not where.error:
        return Decider(question="Does its coordinator answer?", decision="yes", rule=rule, node=where.coordinator,
                       explanation=f"node {where.coordinator} is its coordinator", evidence=evidence)  # fmt: skip
    return Decider(
        question="Does its coordinator answer?", decision="no", cause="coordinator_unavailable", rule=rule,
        explanation=f"its coordinator, the leader of {log}, does not answer: {where.error}", evidence=evidence,
        next=f"{log} has a leader that has loaded it",
        fix="" if where.partition < 0 else f"kraft explain partition {where.topic} {where.partition}",
    )  # fmt: skip


def _group(facts: GroupFacts) -> Iterator[Decider]:
    yield _coordinator(facts.where, "G5")
    if not facts.state:
        return
    yield _joined(facts)
    has_members = bool(facts.members)
    behind = [each for each in facts.lags if each.end > each.committed]
    yield Decider(
        question="Does anybody read?", decision="yes" if has_members or not behind else "no",
        cause="" if has_members or not behind else "no_members", rule="G7", node=facts.where.coordinator,
        explanation=f"{len(facts.members)} members" if has_members else "the group has no members",
        evidence={"without_partitions": facts.idle} if facts.idle else {},
        next="" if has_members or not behind else "a consumer joins the group",
    )  # fmt: skip
    for each in behind:
        yield _lag(facts, each)


def _joined(facts: GroupFacts) -> Decider:
    is_stable = facts.state not in REBALANCING
    explanation = f"the group is {facts.state}"
    if facts.awaited:
        waits = [f"{client or 'a new client'} ({member}): {what}" for client, member, what in facts.awaited[:NAMED_MAX]]
        more = len(facts.awaited) - NAMED_MAX
        explanation += f", and waits for {'; '.join(waits)}" + (f"; and for {more} more" if more > 0 else "")
    elif not is_stable:
        explanation += ", and waits for more members (group.initial.rebalance.delay.ms), or for its assignment"
    evidence: dict[str, object] = {"state": facts.state, "members": facts.members}
    if facts.awaited:
        evidence["awaited"] = [member for _, member, _ in facts.awaited]
    return Decider(
        question="Have all members joined?", decision="yes" if is_stable else "no",
        cause="" if is_stable else "rebalancing", rule="G2" if facts.kind == "classic" else "G9",
        node=facts.where.coordinator, evidence=evidence, explanation=explanation,
        next="" if is_stable else "the member polls again, or its rebalance timeout (max.poll.interval.ms) removes it",
    )  # fmt: skip


def _lag(facts: GroupFacts, each: Lag) -> Decider:
    name, behind = f"{each.topic}-{each.partition}", each.end - each.committed
    question = f"Does the group keep up in {name}?"
    evidence = {"committed": each.committed, "end": each.end, "lag": behind, "member": each.member}
    if each.leader < 0:
        return Decider(
            question=question, decision="no", cause="partition_offline", rule="L1", evidence=evidence,
            explanation=f"{name} has no leader, so nobody reads it", next=f"{name} gets a leader",
            fix=f"kraft explain partition {each.topic} {each.partition}",
        )  # fmt: skip
    if not each.member and facts.members:
        return Decider(
            question=question, decision="no", cause="partition_without_member", rule="G9", evidence=evidence,
            explanation=f"no member reads {name}, and {behind} records wait there",
            next=f"a member subscribes to {each.topic}",
        )  # fmt: skip
    if each.end_later < 0:
        return Decider(question=question, decision="unknown", cause="lag", rule="F1", evidence=evidence,
                       explanation=f"it is {behind} records behind")  # fmt: skip
    later = each.end_later - each.committed_later
    evidence |= {"lag_later": later, "committed_later": each.committed_later}
    is_growing, stands = later > behind, each.committed_later <= each.committed
    decision: Decision = "no" if is_growing else "unknown" if stands else "yes"
    return Decider(
        question=question, decision=decision, rule="F1",
        cause="lag_grows" if is_growing else "lag_stands" if stands else "",
        evidence=evidence, explanation=f"it is {later} records behind in {name}, after {behind} a second ago"
        + ("; nothing was committed meanwhile" if stands else ""),
        next="" if not is_growing else f"client {each.member} commits offsets" if stands else "more members, or faster "
        "ones, read it",
    )  # fmt: skip


def _share(facts: QueueFacts, each: SharePartitionFacts) -> Decider:
    name = f"{each.topic}-{each.partition}"
    question = f"Can a receiver get records of {name}?"
    evidence = {"start_offset": each.start_offset, "locked": each.acquired, "delayed": each.waiting, "lag": each.lag,
                "locks_max": facts.locks_max, "dead_letters_lost": each.dead_letters_lost,
                "last_dead_letter_error": each.last_dead_letter_error}  # fmt: skip
    if each.error:
        return Decider(
            question=question, decision="no", cause="leader_unavailable", rule="U6", evidence=evidence,
            explanation=f"the leader of {name} does not answer: {each.error}", next=f"{name} has a leader",
            fix=f"kraft explain partition {each.topic} {each.partition}",
        )  # fmt: skip
    locked = each.acquired + each.waiting
    if facts.locks_max and locked >= facts.locks_max:
        return Decider(
            question=question, decision="no", cause="locks_exhausted", rule="U7", evidence=evidence,
            explanation=f"{locked} records of {name} are in flight, as many as may be; the first lock ends in "
            f"{seconds(each.lock_ms)}", next="members acknowledge records, or their locks end",
            fix=f"kraft queues alter {facts.group} --config share.partition.max.record.locks={2 * facts.locks_max}",
        )  # fmt: skip
    if locked and each.lag >= 0 and locked >= each.lag:
        return Decider(
            question=question, decision="no", cause="all_locked", rule="U1", evidence=evidence,
            explanation=f"all {locked} records that wait in {name} are locked or delayed; the first lock ends in "
            f"{seconds(each.lock_ms)}", next="members acknowledge records, or their locks end",
            fix=f"kraft queues peek {facts.group}",
        )  # fmt: skip
    return Decider(question=question, decision="yes", rule="U1", evidence=evidence,
                   explanation=f"{locked} records are in flight" + (f", {each.lag} wait" if each.lag >= 0 else "")
                   + _lost(each),
                   )  # fmt: skip


def _lost(each: SharePartitionFacts) -> str:
    if not each.dead_letters_lost:
        return ""
    return f"; {each.dead_letters_lost} were given up without a dead letter: {each.last_dead_letter_error}"


def _transaction(facts: TransactionFacts) -> Iterator[Decider]:
    where, state = facts.where, facts.state
    open_ms = max(0, where.at_ms - facts.started_ms) if facts.started_ms >= 0 else 0
    names = spoken(f"{topic}-{number}" for topic, number in facts.partitions) if facts.partitions else "its partitions"
    evidence = {"state": state, "producer_id": facts.producer_id, "producer_epoch": facts.producer_epoch,
                "open_ms": open_ms, "timeout_ms": facts.timeout_ms, "partitions": facts.partitions}  # fmt: skip
    question = "Does an open transaction hold up readers?"
    if state == "Ongoing":
        is_over = open_ms > facts.timeout_ms
        yield Decider(
            question=question, decision="no", cause="transaction_expired" if is_over else "transaction_open",
            rule="T3" if is_over else "T7", node=where.coordinator, evidence=evidence,
            explanation=f"it is open for {seconds(open_ms)} in {names}; readers of committed records wait at its first "
            "record", next="its coordinator aborts it at its next look; if it does not, each partition needs a marker"
            if is_over else "its producer ends it, or the "
            f"coordinator does in {seconds(max(0, facts.timeout_ms - open_ms))} (transaction.timeout.ms)",
            fix=_abort(facts) if is_over else "",
        )  # fmt: skip
    else:
        yield Decider(question=question, decision="yes", rule="T7", node=where.coordinator, evidence=evidence,
                      explanation=f"none is open: it is {state}")  # fmt: skip
    if state.startswith("Prepare"):
        missing = [f"{topic}-{number}" for topic, number in facts.leaderless]
        yield Decider(
            question="Are its markers written?", decision="no", cause="markers_not_written", rule="T5",
            node=where.coordinator, evidence={"partitions": facts.partitions, "without_leader": missing},
            explanation=f"its end is decided, and its markers are on their way to {names}"
            + (f"; {', '.join(missing)} has no leader" if missing else ""),
            next="each of these partitions has a leader that takes its marker",
            fix=f"kraft explain partition {facts.leaderless[0][0]} {facts.leaderless[0][1]}" if missing else "",
        )  # fmt: skip


def _abort(facts: TransactionFacts) -> str:
    """In its first partition. A transaction that its producer may still commit is left to it: a marker would cut it."""
    if not facts.partitions or facts.producer_id < 0:
        return ""
    topic, number = facts.partitions[0]
    return (
        f"kraft transactions abort {topic} {number} --producer-id {facts.producer_id} "
        f"--producer-epoch {facts.producer_epoch} --coordinator-epoch {facts.coordinator_epoch}"
    )
