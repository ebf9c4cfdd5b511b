"""Readiness of a cluster: every node reports it, the quorum has a leader, and every broker is unfenced.

A start is waited for as long as it makes progress, however long that takes: nodes begin to answer, voters meet, logs
are loaded, partitions get leaders. A cluster that only needs longer is never given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from kraft.launcher.processes import is_alive, log_tail, reap
from kraft.launcher.runfile import NodeRun

STALLED_MS: Final = 300_000
"""A start without progress for so long is given up."""
SEEN_MAX: Final = 100_000
POLL_MS: Final = 40
"""Short while a start should take a moment: a query costs the nodes processor time, and a wait costs the user's."""
SLOW_POLL_MS: Final = 250
SLOW_AFTER_MS: Final = 5_000
PROBE_TIMEOUT_MS: Final = 1_000
NO_ANSWER: Final = "starting"


class StartFailed(Exception):
    """`node` is the one that ended, whose log has the reason; None when the time is over."""

    def __init__(self, message: str, *, node: NodeRun | None = None) -> None:
        super().__init__(message)
        self.node = node


def explained(failure: StartFailed) -> str:
    """The message with the end of the log of the node that ended. The caller stops all nodes."""
    if failure.node is None:
        return f"{failure}; all nodes were stopped"
    tail = "\n".join(f"  | {line}" for line in log_tail(failure.node.log)) or "  | (nothing)"
    return f"{failure}; the others were stopped. Last lines of {failure.node.log}:\n{tail}"


@dataclass(slots=True)
class Progress:
    """The states that a start has waited for. Only a new one is progress, so that two alternating states are none."""

    begun_ms: int
    limit_ms: int | None
    """Limit of the whole start; None: as long as it makes progress."""
    _seen: set[str] = field(default_factory=set)
    _news_ms: int = 0

    def __post_init__(self) -> None:
        self._news_ms = self.begun_ms

    def look(self, waiting: Sequence[str], now_ms: int) -> str:
        """The reason to give up; empty while waiting makes sense."""
        news = [each for each in waiting if each not in self._seen]
        if news:
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen.update(news)
            self._news_ms = now_ms
        if self.limit_ms is not None and now_ms - self.begun_ms >= self.limit_ms:
            return f"not ready after {self.limit_ms / 1000:g} s (--timeout)"
        if now_ms - self._news_ms >= STALLED_MS:
            return f"no progress for {STALLED_MS // 1000} s"
        return ""


Waiting = Mapping[str, str]
"""Thing that a start waits for (`node 1`, `brokers`, `partitions led` ...) -> its state."""


def in_words(waiting: Waiting) -> str:
    return "waiting for " + "; ".join(_each(waiting))


def _each(waiting: Waiting) -> list[str]:
    return [f"{what}: {state}" for what, state in waiting.items()]


def wait_until_ready(
    nodes: Sequence[NodeRun],
    *,
    show: Callable[[Waiting], None],
    limit_ms: int | None = None,
    is_quorum_possible: Callable[[], bool] = lambda: True,
) -> bool:
    """Wait for these nodes; `show` gets the things waited for at every look. True when they are ready.

    False when all of them run and `is_quorum_possible` reports that they wait for nodes which nobody has started.
    Raises StartFailed when a node has ended, when there is no progress any more, and after `limit_ms`.
    """
    begun_ms = _now_ms()
    progress = Progress(begun_ms=begun_ms, limit_ms=limit_ms)
    while waiting := _waiting_for(nodes):
        now_ms = _now_ms()
        show(waiting)
        if NO_ANSWER not in waiting.values() and not is_quorum_possible():
            return False
        if problem := progress.look(_each(waiting), now_ms):
            raise StartFailed(f"{problem}: {in_words(waiting)}")
        time.sleep((SLOW_POLL_MS if now_ms - begun_ms > SLOW_AFTER_MS else POLL_MS) / 1000)
    return True


def _now_ms() -> int:
    return int(time.monotonic() * 1000)


def _waiting_for(nodes: Sequence[NodeRun]) -> Waiting:
    """The things waited for; empty when the cluster is ready. Raises StartFailed when a node has ended."""
    reap([node.pid for node in nodes])
    for node in nodes:
        if not is_alive(node.pid):
            raise StartFailed(f"node {node.id} (pid {node.pid}) ended while starting", node=node)
    reasons = {node.name: _not_ready(node) for node in nodes}
    return {name: reason for name, reason in reasons.items() if reason} or _cluster_not_ready(nodes)


def _not_ready(node: NodeRun) -> str:
    outcome = send(node.rest, Request(method="GET", path="/readyz", timeout_ms=PROBE_TIMEOUT_MS))
    if not isinstance(outcome, Answer):
        return NO_ANSWER
    return "" if outcome.status == 200 else _reason(outcome)


def _reason(answer: Answer) -> str:
    try:
        document = answer.json()
    except ValueError:
        return f"status {answer.status}"
    reason = document.get("reason") or document.get("message") if isinstance(document, dict) else None
    return str(reason or f"status {answer.status}")


def _cluster_not_ready(nodes: Sequence[NodeRun]) -> Waiting:
    status = cluster_status(nodes)
    if status is None:
        return {"the cluster": "no node reports its status"}
    if status.get("controller_id", -1) < 0:
        return {"the quorum": "it has no leader yet"}
    states = {entry["id"]: entry["state"] for entry in status.get("nodes", ())}
    fenced = [node.id for node in nodes if node.is_broker and states.get(node.id) != "active"]
    if not fenced:
        return {}
    partitions = status.get("partitions", {})
    total = partitions.get("total", 0)
    return {
        "brokers": ", ".join(f"{node_id} {states.get(node_id)}" for node_id in fenced),
        "partitions led": f"{total - partitions.get('offline', 0)} of {total}",
    }


def cluster_status(nodes: Sequence[NodeRun], *, timeout_ms: int = PROBE_TIMEOUT_MS) -> dict[str, Any] | None:
    """`/kraft/status` of the first node that answers; None when none does."""
    for node in nodes:
        outcome = send(node.rest, Request(method="GET", path="/kraft/status", timeout_ms=timeout_ms))
        if isinstance(outcome, Answer) and outcome.is_success:
            document = outcome.json()
            return document if isinstance(document, dict) else None
    return None
