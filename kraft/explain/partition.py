"""Why a partition is as it is: leader, ISR, high watermark, and what an unclean election would lose. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kraft.explain.explanation import Decider, Explanation, View, first_no, fixes, seconds, spoken, views_of, with_age
from kraft.explain.facts import (
    NO_LEADER,
    FollowerFacts,
    Found,
    KnownPartition,
    NodeEvidence,
    ReplicaFacts,
    newer,
)
from kraft.explain.nodes import broker_decider, explain_unknown, quorum_decider

SILENT_MS: Final = 1_500
"""A follower that has not fetched for so long is silent: an idle one asks every half a second (replica.fetch.wait)."""
EVENTS_MAX: Final = 30


def explain_partition(found: Found, *, topic: str, partition: int) -> Explanation:
    """Where no node knows the partition, only that and why is explained."""
    if not any(each.partition is not None for each in found.nodes.values()):
        return explain_unknown(found, f"partition {topic}-{partition}")
    return _Partition(found, topic=topic, partition=partition).explanation()


class _Partition:
    def __init__(self, found: Found, *, topic: str, partition: int) -> None:
        self.found, self.topic, self.number = found, topic, partition
        knowing = {node: facts for node, facts in found.nodes.items() if facts.partition is not None}
        assert knowing, "no node knows the partition"
        self.newest = max(knowing.values(), key=lambda each: (each.metadata_offset, each.node_id == found.asked))
        assert self.newest.partition is not None
        self.facts: KnownPartition = self.newest.partition
        leader = found.nodes.get(self.facts.leader)
        self.leader: NodeEvidence | None = leader
        replica = None if leader is None else leader.replica
        is_leading = replica is not None and (replica.role, replica.leader_epoch) == ("leader", self.facts.leader_epoch)
        self.log: ReplicaFacts | None = replica if is_leading else None
        """The log of the leader, where it leads and answers."""

    def explanation(self) -> Explanation:
        deciders = [with_age(each, self.found.ages_ms) for each in self._deciders()]
        state, summary = self._state()
        cause = first_no(deciders)
        events = [each for each in self.found.events() if each.get("topic") == self.topic]
        is_bad = state != "healthy"
        if cause is not None and is_bad:
            summary = f"{summary}: {cause.explanation}"
        return Explanation(
            subject=f"partition {self.topic}-{self.number}",
            state=state,
            since_ms=self._since_ms(state),
            summary=summary,
            cause="" if cause is None else cause.cause,
            next="" if cause is None else cause.next,
            fix=fixes(deciders),
            deciders=deciders,
            views=self._views(),
            node_id=self.found.asked,
            at_ms=self.found.at_ms,
            unreached=dict(self.found.unreached),
            events=events[-EVENTS_MAX:],
            forgotten=any(each.forgotten for each in self.found.nodes.values()),
        )

    # --- state ----------------------------------------------------------------------------------------------

    def _state(self) -> tuple[str, str]:
        facts, name = self.facts, f"{self.topic}-{self.number}"
        isr = f"its ISR is {spoken(facts.isr)} of replicas {spoken(facts.replicas)}"
        if facts.leader == NO_LEADER:
            return "offline", f"{name} has no leader, so nobody reads or writes it; {isr}"
        if self.log is None:
            return "leader unreachable", f"node {facts.leader} leads {name}, and does not say how its log is"
        log = self.log
        held = f"{log.log_end_offset - log.high_watermark} records wait below the log end {log.log_end_offset}"
        if len(facts.isr) < facts.min_isr:
            return "not enough replicas", (
                f"{name} has {len(facts.isr)} in-sync replicas where min.insync.replicas is {facts.min_isr}: acks=all "
                f"is refused with NOT_ENOUGH_REPLICAS, and the high watermark stands at {log.high_watermark}"
            )
        if self._holder() is not None:
            return "high watermark stuck", f"the high watermark of {name} stands at {log.high_watermark}, {held}"
        if facts.is_recovering:
            return "recovering", f"node {facts.leader} leads {name} after an unclean election and recovers"
        if len(facts.isr) < len(facts.replicas):
            return "under-replicated", f"node {facts.leader} leads {name}; {isr}"
        if facts.adding or facts.removing:
            return "reassigning", f"{name} moves: replicas {spoken(facts.adding)} join, {spoken(facts.removing)} leave"
        if log.open_transactions and log.last_stable_offset < log.high_watermark:
            return "healthy", (
                f"node {facts.leader} leads {name}, all replicas are in sync; a transaction that is open for "
                f"{seconds(log.oldest_transaction_ms)} holds readers of committed records at {log.last_stable_offset}"
            )
        return "healthy", f"node {facts.leader} leads {name}, and all replicas {spoken(facts.replicas)} are in sync"

    def _since_ms(self, state: str) -> int | None:
        if state == "offline":
            event = self.found.last("leader_elected", leader=NO_LEADER, partition=self.number, topic=self.topic)
        elif state in ("under-replicated", "not enough replicas"):
            event = self.found.last("isr_changed", isr=self.facts.isr, partition=self.number, topic=self.topic)
        elif state == "high watermark stuck":
            holder = self._holder()
            silent_ms = None if holder is None else holder[1].fetched_ms_ago
            return None if silent_ms is None else self.found.at_ms - silent_ms
        else:
            where = {"topic": self.topic, "partition": self.number}
            led = self.found.last("became_leader", node_id=self.facts.leader, **where)
            names = ("isr_changed", "replicas_changed") if state in ("healthy", "reassigning") else ()
            event = newer(led, self.found.last(*names, **where) if names else None)
        return None if event is None else int(event["at_ms"])

    # --- deciders -------------------------------------------------------------------------------------------

    def _deciders(self) -> Iterator[Decider]:
        quorum = quorum_decider(self.found)
        if quorum.decision != "yes":
            yield quorum
        yield from self._leader()
        for replica in self.facts.replicas:
            yield self._replica(replica)
        yield self._minimum()
        yield self._high_watermark()
        if self.facts.leader == NO_LEADER:
            yield self._unclean()
        if self.facts.leader_epoch and (lost := self._lost()) is not None:
            yield lost
        yield self._agreement()

    def _leader(self) -> Iterator[Decider]:
        facts, newest = self.facts, self.newest
        question = "Does the partition have a leader that answers?"
        if facts.leader == NO_LEADER:
            states = {each: newest.brokers.get(each, "not registered") for each in facts.isr}
            yield Decider(
                question=question, decision="no", cause="no_live_isr_member", rule="L1", node=newest.node_id,
                explanation=f"only a member of the ISR may lead, and none of {spoken(facts.isr)} is active",
                evidence={"isr": facts.isr, "brokers": states, "partition_epoch": facts.partition_epoch},
                next=f"one of the nodes {spoken(facts.isr)} comes back with its log", fix=_restart(facts.isr),
            )  # fmt: skip
        elif self.log is not None:
            yield Decider(
                question=question, decision="yes", rule="L1", node=facts.leader,
                explanation=f"node {facts.leader} leads in epoch {facts.leader_epoch}",
                evidence={"leader": facts.leader, "leader_epoch": facts.leader_epoch},
            )  # fmt: skip
        elif self.leader is None:
            why = self.found.unreached.get(facts.leader, "it was not asked")
            age = newest.heartbeats_ms_ago.get(facts.leader)
            yield Decider(
                question=question, decision="no", cause="leader_unreachable", rule="B3", node=newest.node_id,
                explanation=f"node {facts.leader} leads and does not answer",
                evidence={"reason": why, "heartbeat_ms_ago": age, "session_ms": newest.session_ms},
                next=f"it answers again, or its session of {seconds(newest.session_ms)} ends and another one leads",
                fix=_restart([facts.leader]),
            )  # fmt: skip
        else:
            yield self._not_leading_yet(question, self.leader)

    def _not_leading_yet(self, question: str, leader: NodeEvidence) -> Decider:
        replica = leader.replica
        return Decider(
            question=question, decision="no", cause="leader_not_ready", rule="B2", node=leader.node_id,
            explanation=f"node {leader.node_id} is to lead in epoch {self.facts.leader_epoch} and does not yet"
            + (f": it waits: {leader.awaits}" if leader.awaits else ""),
            evidence={"replica": None if replica is None else f"{replica.role} in epoch {replica.leader_epoch}",
                      "metadata_offset": leader.metadata_offset, "failure": leader.failure},
            next="it applies the metadata and takes its role",
        )  # fmt: skip

    def _replica(self, replica: int) -> Decider:
        question = f"Is replica {replica} in sync?"
        facts = self.facts
        if replica in facts.isr:
            holder = self._holder()
            if holder is not None and holder[0] == replica:
                return self._silent(question, replica, holder[1])
            return Decider(
                question=question, decision="yes", rule="I1", node=self.newest.node_id,
                explanation="it is the leader" if replica == facts.leader else "it is in the ISR",
                evidence=self._progress(replica),
            )  # fmt: skip
        own = self.found.nodes.get(replica)
        if own is not None and own.failure:
            return Decider(
                question=question, decision="no", cause="log_failed", rule="R11", node=replica,
                explanation=f"the log of node {replica} failed: {own.failure}",
                evidence={"failure": own.failure, "failed_directories": own.failed_directories},
                next="its disk works again: the node tries every few seconds, and fetches what it lacks",
                fix=f"kraft reassign {self.topic} {self.number} --replicas NODES",
            )  # fmt: skip
        broker = broker_decider(self.found, replica, question=question)
        return broker if broker.decision == "no" else self._follower(question, replica)

    def _silent(self, question: str, replica: int, progress: FollowerFacts) -> Decider:
        assert self.log is not None
        silent = "never" if progress.fetched_ms_ago is None else f"{seconds(progress.fetched_ms_ago)} ago"
        left = max(0, self.newest.lag_ms_max - (progress.caught_up_ms_ago or 0))
        return Decider(
            question=question, decision="no", cause="follower_silent", rule="P4", node=self.facts.leader,
            explanation=f"replica {replica} is in the ISR at offset {progress.end_offset}, fetched last {silent}, and "
            "the high watermark waits for it",
            evidence=self._progress(replica) | self._fetch_errors(replica),
            next=f"it fetches again, or leaves the ISR in {seconds(left)} (replica.lag.time.max.ms)",
            fix=self._heal(replica),
        )  # fmt: skip

    def _follower(self, question: str, replica: int) -> Decider:
        """A live replica outside of the ISR."""
        progress = None if self.log is None else self.log.followers.get(replica)
        if progress is None or self.log is None:
            return Decider(
                question=question, decision="unknown" if self.log is None else "no", cause="not_fetching", rule="I1",
                explanation=f"replica {replica} is not in the ISR, and no leader reports how far it is",
                node=self.newest.node_id, next="a leader answers", evidence=self._fetch_errors(replica),
            )  # fmt: skip
        evidence = self._progress(replica) | self._fetch_errors(replica)
        missing = self.log.log_end_offset - max(progress.end_offset, 0)
        fetched = progress.fetched_ms_ago
        if fetched is None or fetched > SILENT_MS:
            since = (
                "has not fetched in this leader epoch" if fetched is None else f"fetched last {seconds(fetched)} ago"
            )
            return Decider(
                question=question, decision="no", cause="not_fetching", rule="I1", node=self.facts.leader,
                explanation=f"replica {replica} {since} and lacks {missing} records: its broker lives, so the way to "
                f"node {self.facts.leader} is cut or its fetcher failed",
                evidence=evidence, next=f"replica {replica} reaches node {self.facts.leader} again",
                fix=self._heal(replica),
            )  # fmt: skip
        refused = self.found.last("isr_change_refused", partition=f"{self.topic}-{self.number}")
        if missing:
            return Decider(
                question=question, decision="no", cause="catching_up", rule="I4", node=self.facts.leader,
                explanation=f"replica {replica} fetches, and lacks {missing} records", evidence=evidence,
                next="it reaches the high watermark and the start of the leader's epoch, and joins the ISR",
            )  # fmt: skip
        return Decider(
            question=question, decision="no", cause="joining", rule="I5", node=self.facts.leader,
            explanation=f"replica {replica} has caught up, and the controller has not taken it into the ISR yet",
            evidence=evidence | ({} if refused is None else {"refused": refused.get("message", "")}),
            next="the active controller answers the leader's AlterPartition",
        )  # fmt: skip

    def _minimum(self) -> Decider:
        facts = self.facts
        is_enough = len(facts.isr) >= facts.min_isr
        lowered = f"kraft topics alter {self.topic} --config min.insync.replicas={len(facts.isr)}"
        return Decider(
            question="Are there enough in-sync replicas for acks=all?", decision="yes" if is_enough else "no",
            cause="" if is_enough else "under_min_isr", rule="P1", node=self.newest.node_id,
            explanation=f"{len(facts.isr)} in-sync replicas, {facts.min_isr} are needed",
            evidence={"isr": facts.isr, "min_isr": facts.min_isr},
            next="" if is_enough else "replicas come back into the ISR",
            fix="" if is_enough or facts.leader == NO_LEADER else lowered,
        )  # fmt: skip

    def _high_watermark(self) -> Decider:
        question = "Does the high watermark follow the log end?"
        log = self.log
        if log is None:
            return Decider(question=question, decision="unknown", cause="no_leader_answers", rule="P4",
                           explanation="no leader answers")  # fmt: skip
        evidence = {"high_watermark": log.high_watermark, "log_end_offset": log.log_end_offset}
        waiting = log.log_end_offset - log.high_watermark
        if waiting and len(self.facts.isr) < self.facts.min_isr:
            return Decider(
                question=question, decision="no", cause="under_min_isr", rule="P3", node=self.facts.leader,
                explanation=f"it stands {waiting} records below the log end while the ISR is too small",
                evidence=evidence, next="replicas come back into the ISR",
            )  # fmt: skip
        holder = self._holder()
        if holder is not None:
            return Decider(
                question=question, decision="no", cause="follower_silent", rule="P4", node=self.facts.leader,
                explanation=f"it is the lowest end of the ISR: replica {holder[0]} is at {holder[1].end_offset}",
                evidence=evidence, next="that replica fetches, or leaves the ISR",
            )  # fmt: skip
        return Decider(
            question=question, decision="yes", rule="P4", node=self.facts.leader, evidence=evidence,
            explanation=f"{waiting} records wait for the next fetches" if waiting else "they are the same",
        )  # fmt: skip

    def _unclean(self) -> Decider:
        """What an unclean election would lose."""
        facts = self.facts
        ends = {
            node: each.replica
            for node, each in self.found.nodes.items()
            if each.replica is not None and node in facts.replicas and not each.failure
            and self.newest.brokers.get(node) == "active"
        }  # fmt: skip
        known = [each.replica.high_watermark for each in self.found.nodes.values() if each.replica is not None]
        best = max(ends, key=lambda node: (ends[node].latest_epoch, ends[node].log_end_offset), default=None)
        if best is None:
            loss = "no replica that answers has a log to lead with"
        else:
            end = ends[best].log_end_offset
            certain = max(0, max(known) - end)
            loss = (
                f"node {best} would lead with a log that ends at {end}: {certain} records below a known high watermark "
                f"would be lost, and all that only {spoken(facts.isr)} took from {end} on"
            )
        allowed = "is on, and happens by itself" if facts.is_unclean_allowed else "is off"
        return Decider(
            question="Could another replica lead (unclean election)?",
            decision="unknown" if best is None else "yes" if facts.is_unclean_allowed else "no",
            cause="unclean_election_not_allowed", rule="L3", node=self.newest.node_id,
            explanation=f"unclean.leader.election.enable {allowed}; {loss}",
            evidence={"replicas": {str(node): {"log_end_offset": each.log_end_offset, "latest_epoch": each.latest_epoch}
                                   for node, each in ends.items()}, "high_watermark_known": max(known, default=-1)},
            next="somebody decides that losing these records is better than to wait",
            fix="" if best is None else f"kraft elect {self.topic} {self.number} --type unclean",
        )  # fmt: skip

    def _lost(self) -> Decider | None:
        """The last unclean election, if the events still have it."""
        event = self.found.last("unclean_election", topic=self.topic, partition=self.number)
        if event is None:
            return None
        lost = event.get("given_up")
        text = "how many records it lost is not known" if lost is None else (
            f"records from {lost[0]} to {lost[1] - 1} were lost" if lost[1] > lost[0] else "no acknowledged record is "
            "known to be lost"
        )  # fmt: skip
        return Decider(
            question="Was the last election clean?", decision="no", cause="unclean_election", rule="L8",
            node=event["node_id"], explanation=f"node {event['leader']} was elected unclean in epoch "
            f"{event['leader_epoch']}; {text}", evidence=event, next="nothing: it is done",
        )  # fmt: skip

    def _agreement(self) -> Decider:
        views = self._views()
        return Decider(
            question="Do all nodes that answer take the same for true?", decision="no" if views else "yes",
            cause="views_differ" if views else "", rule="B8",
            explanation="; ".join(f"node {spoken(each.nodes)} states: {each.states}" for each in views) or "they do",
            evidence={"unreached": dict(self.found.unreached)} if self.found.unreached else {},
            next="the nodes with older metadata reach the quorum again" if views else "",
        )  # fmt: skip

    # --- evidence -------------------------------------------------------------------------------------------

    def _holder(self) -> tuple[int, FollowerFacts] | None:
        """The silent member of the ISR for which the high watermark waits."""
        log = self.log
        if log is None or log.high_watermark >= log.log_end_offset:
            return None
        members = [each for each in log.maximal_isr if each in log.followers]
        if not members:
            return None
        slowest = min(members, key=lambda each: log.followers[each].end_offset)
        progress = log.followers[slowest]
        is_silent = progress.fetched_ms_ago is None or progress.fetched_ms_ago > SILENT_MS
        return (slowest, progress) if is_silent and progress.end_offset < log.log_end_offset else None

    def _progress(self, replica: int) -> dict[str, object]:
        """How far a replica is: its leader's word, and its own."""
        evidence: dict[str, object] = {}
        progress = None if self.log is None else self.log.followers.get(replica)
        if progress is not None and self.log is not None:
            evidence = {
                "end_offset": progress.end_offset,
                "leader_end_offset": self.log.log_end_offset,
                "fetched_ms_ago": progress.fetched_ms_ago,
                "caught_up_ms_ago": progress.caught_up_ms_ago,
            }
        own = self.found.nodes.get(replica)
        if own is not None and own.replica is not None:
            evidence["own_end_offset"] = own.replica.log_end_offset
        event = self.found.last("isr_changed", topic=self.topic, partition=self.number)
        if event is not None and replica in event.get("old_isr", ()) and replica not in event.get("isr", ()):
            evidence["left_isr"] = event.get("reason", "")
        return evidence

    def _fetch_errors(self, replica: int) -> dict[str, object]:
        event = self.found.last("leader_unreachable", node_id=replica, leader=self.facts.leader)
        return {} if event is None else {"fetch_error": event.get("error", ""), "fetch_error_at_ms": event["at_ms"]}

    def _heal(self, replica: int) -> str:
        return "kraft fault heal" if replica in self.found.nodes else _restart([replica])

    def _views(self) -> list[View]:
        states = {}
        for node, each in self.found.nodes.items():
            if (seen := each.partition) is not None:
                own = each.replica
                leads = " and leads itself" if own is not None and own.role == "leader" else ""
                leader = "no leader" if seen.leader == NO_LEADER else f"leader {seen.leader}"
                states[node] = (
                    each.metadata_offset,
                    f"{leader} in epoch {seen.leader_epoch}, ISR {spoken(seen.isr)}"
                    + (leads if seen.leader != self.facts.leader else ""),
                )
        return views_of(states)


def _restart(nodes: list[int]) -> str:
    return f"kraft node restart {nodes[0]}" if nodes else ""
