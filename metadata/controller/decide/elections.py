"""Leaders of partitions: after a change of a broker's state, preferred ones, and unclean ones (L1 to L6, L8).

An unclean election takes two decisions: the first leaves the partition offline and asks its live replicas for the
ends of their logs, the second (`learn_log_ends`) chooses the longest log of the newest epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kraft.protocol.errors import (
    ElectionNotNeeded,
    EligibleLeadersNotAvailable,
    PreferredLeaderNotAvailable,
    UnknownTopicOrPartition,
)
from metadata.controller.decide.changes import change_partition
from metadata.controller.decide.decision import ControllerState, Decision, LogEndQueries
from metadata.controller.decide.events import LogEndsLearned
from metadata.controller.requests import ElectLeaders, ErrorDetail, ReplicaLogEnd
from metadata.image import PartitionImage, TopicIdPartition
from metadata.records import (
    NO_LEADER,
    LeaderRecovery,
    PartitionChangeRecord,
    Reason,
    Record,
    UncleanElectionReport,
)

PREFERRED_ELECTIONS_PER_TICK_MAX = 1000
"""Partitions moved by one automatic preferred election; the rest waits for the next tick, as in Kafka."""


def leave_isrs(controller: ControllerState, broker_id: int, reason: Reason) -> list[PartitionChangeRecord]:
    """B4: take a broker out of every ISR and leadership."""
    active = controller.active - {broker_id}
    records = []
    for partition in controller.image.all_partitions():
        if broker_id in partition.isr or partition.leader == broker_id:
            isr = tuple(member for member in partition.isr if member != broker_id)
            eligible = controller.eligible(partition, among=active)
            record = change_partition(partition, active=eligible, reason=reason, isr=isr)
            if record is not None:
                records.append(record)
    return records


def elect_for_offline(
    controller: ControllerState, reason: Reason, *, joining: int | None = None
) -> tuple[list[PartitionChangeRecord], list[PartitionImage]]:
    """B7, L4: leaders for offline partitions that have a live ISR member, and queries for those that only an unclean
    election can help.

    `joining` is a broker that this decision makes active; only partitions with a replica there are considered.
    """
    active = controller.active if joining is None else controller.active | {joining}
    records: list[PartitionChangeRecord] = []
    stuck: list[PartitionImage] = []
    for partition in controller.image.all_partitions():
        if partition.has_leader or (joining is not None and joining not in partition.replicas):
            continue
        record = change_partition(partition, active=controller.eligible(partition, among=active), reason=reason)
        if record is not None:
            records.append(record)
        else:
            stuck.append(partition)
    return records, stuck


def offline_after(controller: ControllerState, records: Iterable[PartitionChangeRecord]) -> list[PartitionImage]:
    """The partitions that these records leave without a leader, as they are now."""
    lost = []
    for record in records:
        if record.leader == NO_LEADER:
            partition = controller.image.partition(record.topic_id, record.partition)
            assert partition is not None, record
            lost.append(partition)
    return lost


def log_end_queries(
    controller: ControllerState, stuck: Iterable[PartitionImage], active: frozenset[int], *, forced: bool = False
) -> tuple[LogEndQueries, tuple[TopicIdPartition, ...]]:
    """Queries to brokers about offline partitions whose topic allows an unclean election and that have live
    replicas."""
    by_broker: dict[int, list[TopicIdPartition]] = {}
    candidates: list[TopicIdPartition] = []
    for partition in stuck:
        eligible = controller.eligible(partition, among=active)
        live = [replica for replica in partition.replicas if replica in eligible]
        if not live or not (forced or controller.allows_unclean(controller.image.topics[partition.topic_id].name)):
            continue
        key = TopicIdPartition(partition.topic_id, partition.partition)
        candidates.append(key)
        for replica in live:
            by_broker.setdefault(replica, []).append(key)
    return tuple((broker_id, tuple(by_broker[broker_id])) for broker_id in sorted(by_broker)), tuple(candidates)


def sweep_offline(controller: ControllerState) -> Decision:
    """L4: regularly, at activation, and when unclean elections were switched on."""
    records, stuck = elect_for_offline(controller, Reason.BROKER_UNFENCED)
    queries, candidates = log_end_queries(controller, stuck, controller.active)
    return Decision(liveness=controller.liveness, records=tuple(records), queries=queries, candidates=candidates)


def elect_preferred_now_and_then(controller: ControllerState) -> Decision:
    """L6. The KRaft controller does not read the 10 % setting, and so this one does not either."""
    records: list[Record] = []
    if controller.settings.auto_leader_rebalance_enable:
        for partition in controller.image.all_partitions():
            record = _preferred(controller, partition)
            if record is not None:
                records.append(record)
            if len(records) == PREFERRED_ELECTIONS_PER_TICK_MAX:
                break
    return Decision(liveness=controller.liveness, records=tuple(records))


def _preferred(controller: ControllerState, partition: PartitionImage) -> PartitionChangeRecord | None:
    preferred = partition.replicas[0]
    eligible = controller.eligible(partition)
    if partition.leader == preferred or preferred not in partition.isr or preferred not in eligible:
        return None
    return change_partition(partition, active=eligible, reason=Reason.PREFERRED_ELECTION, prefer=preferred)


# --- ElectLeaders ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    records: tuple[PartitionChangeRecord, ...]
    reply: Mapping[tuple[str, int], ErrorDetail | None]
    stuck: tuple[PartitionImage, ...]


def elect_leaders(controller: ControllerState, request: ElectLeaders) -> Decision:
    """L5, L6. An unclean election first asks the replicas (L8): its reply waits for their answers."""
    outcome = _elect(controller, request)
    if outcome.stuck:
        queries, candidates = log_end_queries(controller, outcome.stuck, controller.active, forced=True)
        return Decision(liveness=controller.liveness, queries=queries, candidates=candidates, is_deferred=True)
    return Decision(liveness=controller.liveness, records=outcome.records, reply=outcome.reply)


def _elect(controller: ControllerState, request: ElectLeaders) -> _Outcome:
    names = request.partitions
    if names is None:
        names = tuple(
            (topic.name, index) for topic in controller.image.topics_by_name.values() for index in topic.partitions
        )
    records: list[PartitionChangeRecord] = []
    reply: dict[tuple[str, int], ErrorDetail | None] = {}
    stuck: list[PartitionImage] = []
    for name, index in dict.fromkeys(names):
        topic = controller.image.topic(name)
        partition = None if topic is None else topic.partitions.get(index)
        if partition is None:
            reply[name, index] = ErrorDetail(UnknownTopicOrPartition, f"there is no partition {name}-{index}")
            continue
        result = _elect_one(controller, request, partition)
        if isinstance(result, PartitionChangeRecord):
            records.append(result)
            reply[name, index] = None
        elif isinstance(result, PartitionImage):
            stuck.append(result)
        elif request.partitions is not None or result.error is not ElectionNotNeeded:
            reply[name, index] = result
    return _Outcome(records=tuple(records), reply=reply, stuck=tuple(stuck))


def _elect_one(
    controller: ControllerState, request: ElectLeaders, partition: PartitionImage
) -> PartitionChangeRecord | PartitionImage | ErrorDetail:
    """The change, a refusal, or the partition itself when its replicas must be asked first."""
    if request.election == "preferred":
        if partition.leader == partition.replicas[0]:
            return ErrorDetail(ElectionNotNeeded, f"replica {partition.leader} is the preferred one and leads already")
        message = f"preferred replica {partition.replicas[0]} is not alive in the ISR {list(partition.isr)}"
        return _preferred(controller, partition) or ErrorDetail(PreferredLeaderNotAvailable, message)
    if partition.has_leader:
        return ErrorDetail(ElectionNotNeeded, f"replica {partition.leader} leads; no unclean election is needed")
    eligible = controller.eligible(partition)
    clean = change_partition(partition, active=eligible, reason=Reason.BROKER_UNFENCED)
    if clean is not None:
        return clean
    if eligible.isdisjoint(partition.replicas):
        return ErrorDetail(EligibleLeadersNotAvailable, f"none of the replicas {list(partition.replicas)} is alive")
    return partition


# --- the second half of an unclean election (L8) ---------------------------------------------------------------


def learn_log_ends(controller: ControllerState, event: LogEndsLearned) -> Decision:
    """The replicas have answered, or not in time: choose, unless the partition got a leader or may not elect any
    more."""
    outcome = None if event.request is None else _elect(controller, event.request)
    records: list[PartitionChangeRecord] = [] if outcome is None else list(outcome.records)
    reply = {} if outcome is None else dict(outcome.reply)
    done = {(record.topic_id, record.partition) for record in records}
    for key in event.partitions:
        topic = controller.image.topics.get(key.topic_id)
        if topic is None or (key.topic_id, key.partition) in done:
            continue
        if event.request is None and not controller.allows_unclean(topic.name):
            continue
        record = _elect_offline(controller, topic.partitions[key.partition], event)
        if record is not None:
            records.append(record)
            reply.setdefault((topic.name, key.partition), None)
    if outcome is not None:
        for partition in outcome.stuck:
            name = controller.image.topics[partition.topic_id].name
            refusal = ErrorDetail(EligibleLeadersNotAvailable, "no live replica was found while the others were asked")
            reply.setdefault((name, partition.partition), refusal)
    return Decision(liveness=controller.liveness, records=tuple(records), reply=reply)


def _elect_offline(
    controller: ControllerState, partition: PartitionImage, event: LogEndsLearned
) -> PartitionChangeRecord | None:
    if partition.has_leader:
        return None
    eligible = controller.eligible(partition)
    clean = change_partition(partition, active=eligible, reason=Reason.BROKER_UNFENCED)
    if clean is not None:
        return clean
    live = [replica for replica in partition.replicas if replica in eligible]
    if not live:
        return None
    answers = _answers_about(partition, event.answers, live)
    leader = choose_longest(answers, live)
    report = UncleanElectionReport(
        answers={broker_id: (end.last_epoch, end.log_end_offset) for broker_id, end in answers.items()},
        log_end_offset=answers[leader].log_end_offset if leader in answers else -1,
        high_watermark_known=max((end.high_watermark for end in answers.values()), default=-1),
    )
    return change_partition(
        partition,
        active=eligible,
        reason=Reason.UNCLEAN_ELECTION,
        isr=(leader,),
        recovery=LeaderRecovery.RECOVERING,
        unclean=report,
    )


def choose_longest(answers: Mapping[int, ReplicaLogEnd], live: list[int]) -> int:
    """L8: the longest log of the newest epoch; among equals, or if nobody answered, the first in assignment order."""
    known = [replica for replica in live if replica in answers]
    if not known:
        return live[0]
    return max(known, key=lambda replica: (answers[replica].last_epoch, answers[replica].log_end_offset))


def _answers_about(
    partition: PartitionImage, answers: Mapping[int, tuple[ReplicaLogEnd, ...]], live: list[int]
) -> dict[int, ReplicaLogEnd]:
    found = {}
    for broker_id in live:
        for end in answers.get(broker_id, ()):
            if (end.topic_id, end.partition) == (partition.topic_id, partition.partition) and end.error_code == 0:
                found[broker_id] = end
    return found
