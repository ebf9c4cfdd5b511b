"""Is a cluster ready: every node says so, the quorum has a leader, and every broker is unfenced."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from kraft.client.blocking import send
from kraft.client.outcome import Answer, Request
from kraft.launcher.processes import is_alive, reap
from kraft.launcher.runfile import NodeRun

READY_LIMIT_MS: Final = 60_000
"""How long a cluster may take to become ready."""
POLL_MS: Final = 40
"""Often while a start is expected to take a moment: asking costs the nodes processor time, and waiting costs ours."""
SLOW_POLL_MS: Final = 250
SLOW_AFTER_MS: Final = 5_000
PROBE_TIMEOUT_MS: Final = 1_000


class StartFailed(Exception):
    """`node` is the one that ended, whose log tells why; None when time ran out."""

    def __init__(self, message: str, *, node: NodeRun | None = None) -> None:
        super().__init__(message)
        self.node = node


def wait_until_ready(nodes: Sequence[NodeRun], *, say: Callable[[str], None], limit_ms: int = READY_LIMIT_MS) -> None:
    """Wait for these nodes, saying what is waited for whenever that changes. Raises StartFailed."""
    begun = time.monotonic()
    deadline = begun + limit_ms / 1000
    said = ""
    while waiting := _waiting_for(nodes):
        if waiting != said:
            said = waiting
            say(waiting)
        if time.monotonic() > deadline:
            raise StartFailed(f"not ready after {limit_ms / 1000:g} s: {waiting}")
        is_slow = time.monotonic() > begun + SLOW_AFTER_MS / 1000
        time.sleep((SLOW_POLL_MS if is_slow else POLL_MS) / 1000)


def _waiting_for(nodes: Sequence[NodeRun]) -> str:
    """Empty when the cluster is ready. Raises StartFailed when a node has ended."""
    reap([node.pid for node in nodes])
    for node in nodes:
        if not is_alive(node.pid):
            raise StartFailed(f"node {node.id} (pid {node.pid}) ended while starting", node=node)
    reasons = {node.id: _not_ready(node) for node in nodes}
    waiting = [f"node {node_id}: {reason}" for node_id, reason in reasons.items() if reason]
    if waiting:
        return "waiting for " + "; ".join(waiting)
    return _cluster_not_ready(nodes)


def _not_ready(node: NodeRun) -> str:
    outcome = send(node.rest, Request(method="GET", path="/readyz", timeout_ms=PROBE_TIMEOUT_MS))
    if not isinstance(outcome, Answer):
        return "starting"
    return "" if outcome.status == 200 else _reason(outcome)


def _reason(answer: Answer) -> str:
    try:
        document = answer.json()
    except ValueError:
        return f"status {answer.status}"
    reason = document.get("reason") or document.get("message") if isinstance(document, dict) else None
    return str(reason or f"status {answer.status}")


def _cluster_not_ready(nodes: Sequence[NodeRun]) -> str:
    status = cluster_status(nodes)
    if status is None:
        return "waiting for a status"
    if status.get("controller_id", -1) < 0:
        return "waiting for a leader of the quorum"
    states = {entry["id"]: entry["state"] for entry in status.get("nodes", ())}
    fenced = [node.id for node in nodes if node.is_broker and states.get(node.id) != "active"]
    return (
        "waiting for brokers: " + ", ".join(f"{node_id} {states.get(node_id, '?')}" for node_id in fenced)
        if fenced
        else ""
    )


def cluster_status(nodes: Sequence[NodeRun], *, timeout_ms: int = PROBE_TIMEOUT_MS) -> dict[str, Any] | None:
    """`/kraft/status` of the first node that answers; None when none does."""
    for node in nodes:
        outcome = send(node.rest, Request(method="GET", path="/kraft/status", timeout_ms=timeout_ms))
        if isinstance(outcome, Answer) and outcome.is_success:
            document = outcome.json()
            return document if isinstance(document, dict) else None
    return None
