"""Why a client does not get what it asks for: logins, connections, quotas and ACLs, as the events of all nodes have it.
Pure. A client is known by its user, its client.id or its address.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from kraft.explain.explanation import Decider, Explanation, first_no, fixes, seconds, spoken, with_age
from kraft.explain.facts import Event, Found

RECENT_MS: Final = 60_000
"""What happened longer ago is named, and is no reason any more. A client that goes on has an event each ten seconds."""
EVENTS_SHOWN: Final = 30


class _Kind(NamedTuple):
    event: str
    question: str
    cause: str
    rule: str
    next: str


_KINDS: Final = (
    _Kind("login_failed", "Do its logins succeed?", "login_failed", "K1",
          "the client logs in with a password, a token or a mechanism that is right"),
    _Kind("client_refused", "Are its connections taken?", "client_refused", "K2",
          "fewer connections are open, or the setting that the reason names allows more"),
    _Kind("client_throttled", "Is it within its quotas?", "client_throttled", "K3",
          "the client sends or reads less, or its quota is raised"),
    _Kind("refused", "Do the ACLs allow what it asks for?", "not_authorized", "K4",
          "an ACL allows it"),
)  # fmt: skip
CLIENT_EVENTS: Final = frozenset(each.event for each in _KINDS)
_STATES: Final = {
    "login_failed": "refused", "client_refused": "refused", "client_throttled": "throttled", "not_authorized": "refused"
}  # fmt: skip


def explain_client(found: Found, name: str) -> Explanation:
    """`name` is a user, a client.id, or an address."""
    events = [each for node in found.nodes.values() for each in node.clients if name in names_of(each)]
    events.sort(key=lambda each: (each["at_ms"], each["node_id"]))
    deciders = [with_age(_decider(found, kind, events), found.ages_ms) for kind in _KINDS]
    cause = first_no(deciders)
    forgotten = any(each.forgotten for each in found.nodes.values())
    if cause is not None:
        state, summary = _STATES[cause.cause], cause.explanation
    elif events:
        state, summary = "served", f"nothing was refused to {name} in the last {seconds(RECENT_MS)}"
    else:
        state, summary = "served", f"no node that answers remembers that it has refused or throttled {name}"
    reason = _last(events, _kind_of(cause))
    return Explanation(
        subject=f"client {name}", state=state, since_ms=_since(events, _kind_of(cause)), summary=summary,
        cause="" if cause is None else cause.cause, next="" if cause is None else cause.next, fix=fixes(deciders),
        deciders=deciders, views=[], node_id=found.asked, at_ms=found.at_ms, unreached=dict(found.unreached),
        events=events[-EVENTS_SHOWN:], forgotten=forgotten and reason is None,
    )  # fmt: skip


def clients_decider(found: Found, node: int) -> Decider:
    """Does this node serve its clients? For the explanation of a node, which is ready all the same."""
    question, own = "Do its clients get what they ask for?", found.nodes.get(node)
    if own is None:
        return Decider(question=question, decision="unknown", rule="K2", explanation="it does not answer")
    recent = [each for each in own.clients if _is_recent(found, each)]
    if not recent:
        return Decider(question=question, decision="yes", rule="K2", node=node,
                       explanation=f"none was refused or throttled in the last {seconds(RECENT_MS)}")  # fmt: skip
    last = recent[-1]
    kind = next(each for each in _KINDS if each.event == last["event"])
    names = list(dict.fromkeys(_name(each) for each in reversed(recent)))
    more = f"; so it went for {spoken(names[1:6])}, too" if len(names) > 1 else ""
    return Decider(
        question=question, decision="no", cause=kind.cause, rule=kind.rule, node=node,
        explanation=_sentence(last) + more, evidence=_evidence(found, last), next=kind.next,
        fix=f"kraft explain client {names[0]}",
    )  # fmt: skip


def names_of(event: Event) -> set[str]:
    """All names under which the client of an event is known."""
    user = str(event.get("user", "")) or str(event.get("principal", "")).removeprefix("User:")
    return {user, str(event.get("client_id", "")), str(event.get("host", ""))} - {""}


def _decider(found: Found, kind: _Kind, events: Iterable[Event]) -> Decider:
    last = _last(events, kind)
    if last is None:
        silent = spoken(sorted(found.unreached))
        return Decider(
            question=kind.question, decision="unknown" if found.unreached else "yes", rule=kind.rule,
            explanation=f"no node that answers remembers another; node {silent} does not answer" if found.unreached
            else "no node remembers another",
        )  # fmt: skip
    if not _is_recent(found, last):
        return Decider(
            question=kind.question, decision="yes", rule=kind.rule, node=last["node_id"],
            explanation=f"not {seconds(found.at_ms - last['at_ms'])} ago: {_sentence(last)}",
            evidence=_evidence(found, last),
        )  # fmt: skip
    return Decider(
        question=kind.question, decision="no", cause=kind.cause, rule=kind.rule, node=last["node_id"],
        explanation=_sentence(last), evidence=_evidence(found, last), next=kind.next, fix=_fix(kind, last),
    )  # fmt: skip


def _sentence(event: Event) -> str:
    name = _name(event)
    match event["event"]:
        case "login_failed":
            return f"a login of {name} with {event['mechanism']} failed at node {event['node_id']}: {event['reason']}"
        case "client_refused":
            return f"node {event['node_id']} closed a connection of {name}: {event['reason']}"
        case "client_throttled":
            return (
                f"node {event['node_id']} lets {name} wait for {seconds(event['wait_ms'])}: it is over "
                f"{event['quota']} of {event['bound']:g}"
            )
    return (
        f"{name} has no {event['operation']} on {str(event['resource_type']).lower()} {event['resource']} "
        f"({event['request']} at node {event['node_id']})"
    )


def _fix(kind: _Kind, event: Event) -> str:
    match kind.event:
        case "client_throttled":
            user, client_id = event["user"], event["client_id"]
            whose = "--user '<default>'" if user in ("", "ANONYMOUS") else f"--user {user}"
            whose = f"--client-id {client_id}" if client_id and user in ("", "ANONYMOUS") else whose
            return f"kraft quotas set {whose} {event['quota']}={2 * event['bound']:g}"
        case "refused":
            where = {"TOPIC": "--topic", "GROUP": "--group", "TRANSACTIONAL_ID": "--transactional-id"}
            option = where.get(str(event["resource_type"]))
            resource = f"{option} {event['resource']}" if option else "--cluster"
            operation = str(event["operation"]).replace("_", " ").title().replace(" ", "")
            return f"kraft acls create --principal {event['principal']} --operation {operation} {resource}"
        case "login_failed" if event["user"]:
            return f"kraft users add {event['user']}"
    return ""


def _evidence(found: Found, event: Event) -> dict[str, Any]:
    hidden = ("event", "node_id", "sequence", "position", "monotonic_us", "at_ms")
    return {name: value for name, value in event.items() if name not in hidden and value not in ("", 0)} | {
        "ms_ago": max(0, found.at_ms - event["at_ms"])
    }


def _is_recent(found: Found, event: Event) -> bool:
    return bool(found.at_ms - event["at_ms"] - event.get("wait_ms", 0) < RECENT_MS)


def _kind_of(cause: Decider | None) -> _Kind | None:
    return next((each for each in _KINDS if cause is not None and each.cause == cause.cause), None)


def _last(events: Iterable[Event], kind: _Kind | None) -> Event | None:
    return next((each for each in reversed(list(events)) if kind is not None and each["event"] == kind.event), None)


def _since(events: Iterable[Event], kind: _Kind | None) -> int | None:
    """When this began: the first of the events that follow each other closely."""
    since: int | None = None
    for each in reversed(list(events)):
        if kind is None or each["event"] != kind.event:
            continue
        if since is not None and since - each["at_ms"] > RECENT_MS:
            break
        since = each["at_ms"]
    return since


def _name(event: Event) -> str:
    user = str(event.get("user", "")) or str(event.get("principal", "")).removeprefix("User:")
    if user in ("", "ANONYMOUS"):
        user = ""
    return user or str(event.get("client_id", "")) or str(event.get("host", "")) or "an anonymous client"
