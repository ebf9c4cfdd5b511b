"""Why a node is not ready, and whether the quorum has a leader. Pure."""

from __future__ import annotations

from kraft.explain.clients import clients_decider
from kraft.explain.explanation import Decider, Explanation, first_no, fixes, seconds, spoken, views_of, with_age
from kraft.explain.facts import NO_LEADER, Event, Found, NodeEvidence, newer


def explain_node(found: Found, node: int) -> Explanation:
    """A node of cluster.toml: whether it answers, takes part, and what its disks do."""
    asked = (
        _answers(found, node),
        quorum_decider(found),
        _disks(found, node),
        _registered(found, node),
        _takes_part(found, node),
        clients_decider(found, node),
    )
    deciders = [with_age(each, found.ages_ms) for each in asked]
    cause = first_no(deciders)
    own = found.nodes.get(node)
    state_of = {
        "not_answering": "down", "quorum_without_leader": "not ready", "broker_fenced": "fenced",
        "broker_shutting_down": "shutting down", "node_waits": "not ready", "disk_failed": "disk failed",
        "login_failed": "ready", "client_refused": "ready", "client_throttled": "ready", "not_authorized": "ready",
    }  # fmt: skip
    state = "ready" if cause is None else state_of.get(cause.cause, "not ready")
    states = {
        each.node_id: (each.metadata_offset, f"quorum leader {_named(each.controller_id)} in term {each.term}, "
                       f"node {node} is {each.brokers.get(node, 'no registered broker')}")
        for each in found.nodes.values()
    }  # fmt: skip
    return Explanation(
        subject=f"node {node}",
        state=state,
        since_ms=_since_ms(found, node, state, cause),
        summary=_summary(node, state, cause),
        cause="" if cause is None else cause.cause,
        next="" if cause is None else cause.next,
        fix=fixes(deciders),
        deciders=deciders,
        views=views_of(states),
        node_id=found.asked,
        at_ms=found.at_ms,
        unreached=dict(found.unreached),
        events=[] if own is None else own.events[-30:],
        forgotten=own is not None and bool(own.forgotten),
    )


def _since_ms(found: Found, node: int, state: str, cause: Decider | None) -> int | None:
    """The time of the event that began the state; None where no event did, or none is left."""
    match state:
        case "fenced":
            event = found.last("broker_fenced", broker=node)
        case "down":  # it cannot say itself; the metadata has it, once its session is over
            is_fenced = found.newest.brokers.get(node) == "fenced"
            event = found.last("broker_fenced", broker=node) if is_fenced else None
        case "shutting down":
            event = found.last("broker_shutting_down", broker=node)
        case "disk failed":
            event = _disk_event(found, node)
        case "ready":
            own = found.last("node_serves", "log_directory_online", "quorum_resumed", node_id=node)
            event = newer(own, found.last("broker_unfenced", broker=node))
        case _:
            event = _first_wait(found, node) if cause is not None and cause.cause == "node_waits" else None
    return None if event is None else int(event["at_ms"])


def _first_wait(found: Found, node: int) -> Event | None:
    """The first one of this wait: a node that waits repeats the event from time to time."""
    first: Event | None = None
    for event in reversed(found.events("node_awaits", "node_serves", "node_starting")):
        if event["node_id"] != node:
            continue
        if event["event"] != "node_awaits":
            return first
        first = event
    return None if found.nodes[node].forgotten else first


def _disk_event(found: Found, node: int) -> Event | None:
    """The failure that `_disks` names."""
    own = found.nodes[node]
    if own.failed_directories:
        return found.last("log_directory_offline", node_id=node, path=next(iter(own.failed_directories)))
    return found.last("quorum_suspended", node_id=node)


def _summary(node: int, state: str, cause: Decider | None) -> str:
    if cause is None:
        return f"node {node} takes part"
    return f"node {node} {'takes part' if state == 'ready' else f'is {state}'}: {cause.explanation}"


def explain_unknown(found: Found, subject: str) -> Explanation:
    """Something that no node knows which answers: they have not caught up with the metadata."""
    deciders = [quorum_decider(found), *(_takes_part(found, node) for node in sorted(found.nodes))]
    deciders = [with_age(each, found.ages_ms) for each in deciders]
    cause = first_no(deciders)
    why = "no node that answers knows it" if cause is None else cause.explanation
    return Explanation(
        subject=subject,
        state="unknown",
        since_ms=None,
        summary=f"nothing is known of {subject}: {why}",
        cause="unknown" if cause is None else cause.cause,
        next="" if cause is None else cause.next,
        fix=fixes(deciders),
        deciders=deciders,
        views=[],
        node_id=found.asked,
        at_ms=found.at_ms,
        unreached=dict(found.unreached),
    )


def quorum_decider(found: Found) -> Decider:
    """Does the metadata quorum have a leader?"""
    question = "Does the metadata quorum have a leader?"
    leading = {each.controller_id for each in found.nodes.values() if each.controller_id != NO_LEADER}
    newest = found.newest
    if leading:
        leader = next((each.controller_id for each in _by_term(found) if each.controller_id != NO_LEADER), NO_LEADER)
        return Decider(
            question=question, decision="yes", rule="Q6", node=newest.node_id,
            explanation=f"node {leader} leads it",
            evidence={str(each.node_id): {"leader": each.controller_id, "term": each.term} for each in _by_term(found)},
        )  # fmt: skip
    voters = newest.voters
    answering = [voter for voter in voters if voter in found.nodes]
    silent = [voter for voter in voters if voter not in found.nodes]
    needed = len(voters) // 2 + 1
    why = (
        f"of its voters {spoken(voters)} only {spoken(answering)} answer, {needed} are needed"
        if len(answering) < needed
        else f"its voters {spoken(answering)} answer, and have not elected one: they cannot reach each other"
    )
    return Decider(
        question=question, decision="no", cause="quorum_without_leader", rule="Q6", node=newest.node_id,
        explanation=f"the metadata quorum has no leader: {why}; nothing of the metadata can change",
        evidence={"voters": voters, "answering": answering, "unreached": dict(found.unreached)},
        next=f"{needed} voters reach each other",
        fix=f"kraft node restart {silent[0]}" if silent and len(answering) < needed else "kraft fault heal",
    )  # fmt: skip


def broker_decider(found: Found, broker: int, *, question: str) -> Decider:
    """Is the broker active? No evidence of a node that does not answer is needed: the metadata has it."""
    newest = found.newest
    state = newest.brokers.get(broker)
    own = found.nodes.get(broker)
    if state == "active":
        return Decider(question=question, decision="yes", rule="B3", node=newest.node_id,
                       explanation=f"broker {broker} is active")  # fmt: skip
    if state == "shutting down":
        return Decider(
            question=question, decision="no", cause="broker_shutting_down", rule="B6", node=newest.node_id,
            explanation=f"broker {broker} shuts down in a controlled way, and has left its ISRs",
            next="it starts again", fix=f"kraft node restart {broker}",
        )  # fmt: skip
    event = found.last("broker_fenced", broker=broker)
    reason = "" if event is None else str(event.get("reason", ""))
    answer = found.unreached.get(broker, "")
    if own is not None:
        now = f"it answers, and waits: {own.awaits}" if own.awaits else "it answers"
    else:
        now = "it does not answer"
    return Decider(
        question=question, decision="no", cause="broker_fenced" if state else "broker_not_registered", rule="B3",
        node=newest.node_id,
        explanation=f"broker {broker} is {'fenced' if state else 'not registered'}"
        + (f" ({reason})" if reason else "") + f"; {now}",
        evidence={"fenced_at_ms": None if event is None else event["at_ms"], "reason": reason, "answer": answer,
                  "heartbeat_ms_ago": newest.heartbeats_ms_ago.get(broker)},
        next=f"node {broker} sends heartbeats to the active controller again",
        fix=f"kraft node restart {broker}" if own is None else "kraft fault heal",
    )  # fmt: skip


def _answers(found: Found, node: int) -> Decider:
    question = "Does the node answer?"
    if node in found.nodes:
        return Decider(
            question=question, decision="yes", rule="B3", node=node, explanation=f"it answered node {found.asked}"
        )
    newest = found.newest
    age = newest.heartbeats_ms_ago.get(node)
    heard = "" if age is None else f"; the controller heard of it {seconds(age)} ago"
    return Decider(
        question=question, decision="no", cause="not_answering", rule="B3", node=found.asked,
        explanation=f"node {found.asked} gets no answer from it{heard}",
        evidence={"reason": found.unreached.get(node, "it was not asked"), "heartbeat_ms_ago": age},
        next=f"node {node} runs and can be reached", fix=f"kraft node restart {node}",
    )  # fmt: skip


def _registered(found: Found, node: int) -> Decider:
    question = "Is it an active broker, or only a controller?"
    if node in found.newest.voters and node not in found.newest.brokers:
        return Decider(question=question, decision="yes", rule="B2", node=found.newest.node_id,
                       explanation="it is a voter of the quorum, and no registered broker")  # fmt: skip
    return broker_decider(found, node, question=question)


def _takes_part(found: Found, node: int) -> Decider:
    question = f"Does node {node} take requests?"
    own = found.nodes.get(node)
    if own is None:
        return Decider(question=question, decision="unknown", rule="B2", explanation="it does not answer")
    if own.awaits:
        return Decider(
            question=question, decision="no", cause="node_waits", rule="B2", node=node,
            explanation=f"it waits: {own.awaits}", next="that what it waits for comes",
        )  # fmt: skip
    return Decider(question=question, decision="yes", rule="B2", node=node, explanation="it waits for nothing")


def _disks(found: Found, node: int) -> Decider:
    """Can it write? A node whose metadata log cannot be written leaves the quorum, and is fenced for it."""
    question = "Do its log directories work?"
    own = found.nodes.get(node)
    if own is None:
        return Decider(question=question, decision="unknown", rule="R11", explanation="it does not answer")
    failed = dict(own.failed_directories)
    quorum = found.last("quorum_suspended", "quorum_resumed", node_id=node)
    if quorum is not None and quorum["event"] == "quorum_suspended":
        failed["the metadata log"] = str(quorum["error"])
    if not failed:
        return Decider(question=question, decision="yes", rule="R11", node=node, explanation="all of them do")
    path, reason = next(iter(failed.items()))
    return Decider(
        question=question, decision="no", cause="disk_failed", rule="R11", node=node,
        explanation=f"{path} does not work: {reason}", evidence=failed,
        next="the disk works again: the node tries by itself",
    )  # fmt: skip


def _by_term(found: Found) -> list[NodeEvidence]:
    return sorted(found.nodes.values(), key=lambda each: -each.term)


def _named(node: int) -> str:
    return "none" if node == NO_LEADER else str(node)
