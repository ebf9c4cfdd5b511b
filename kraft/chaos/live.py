"""The view of a running scenario: one line per node, the faults, the current step of the story. Pure text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from kraft.chaos.checkers.verdict import Range, Verdict
from kraft.chaos.model import COUNTS, QUEUE_COUNTS, Scenario
from kraft.chaos.nemesis.actions import Action
from kraft.chaos.worlds.snapshot import NodeView, Snapshot

TIMELINE_LINES_MAX = 12
RANGES_SHOWN_MAX = 10
PARTITIONS_SHOWN_MAX = 3
"""The most partitions that the line of a node lists for each role."""


class Watcher(Protocol):
    """Receives the progress of a run. Never raises."""

    def begun(self, scenario: Scenario) -> None: ...

    def phase(self, text: str) -> None:
        """`starting three nodes`, `reading all records`."""
        ...

    def step(self, number: int, text: str) -> None:
        """Step `number`, counted from 1, begins to wait or ends."""
        ...

    def happened(self, text: str, *, after_ms: int) -> None:
        """A fault began; the time is relative to the start of the story."""
        ...

    def looked(self, snapshot: Snapshot) -> None: ...

    def ended(self, verdict: Verdict) -> None: ...


class NobodyWatches:
    """Implements `Watcher`."""

    def begun(self, scenario: Scenario) -> None:
        """Does nothing."""

    def phase(self, text: str) -> None:
        """Does nothing."""

    def step(self, number: int, text: str) -> None:
        """Does nothing."""

    def happened(self, text: str, *, after_ms: int) -> None:
        """Does nothing."""

    def looked(self, snapshot: Snapshot) -> None:
        """Does nothing."""

    def ended(self, verdict: Verdict) -> None:
        """Does nothing."""


def describe_action(action: Action) -> str:
    """`kill nodes 1`, `cut purpose fetch answers 1`."""
    fields = action.model_dump(mode="json", exclude_defaults=True, exclude={"do"})
    return " ".join([action.do.replace("_", " "), *(f"{key} {_shown(value)}" for key, value in fields.items())])


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    node: int
    standing: str
    """`active`, `fenced`, `shutting down`; `down` or `paused` when the process is; `voter` when it is no broker."""
    roles: str
    """The partitions that the node leads, with epoch and ISR, then those that it follows."""


def node_lines(snapshot: Snapshot) -> list[NodeLine]:
    """The line of each node."""
    return [
        NodeLine(
            node=node,
            standing=_standing(node, state, snapshot),
            roles=_roles(snapshot.views.get(node), node, snapshot),
        )
        for node, state in sorted(snapshot.states.items())
    ]


def _standing(node: int, state: str, snapshot: Snapshot) -> str:
    newest = snapshot.newest
    if state != "running" or newest is None:
        return state
    return newest.brokers.get(node, "voter")


def _roles(view: NodeView | None, node: int, snapshot: Snapshot) -> str:
    if view is None:
        return ""
    parts = ["active controller"] if snapshot.controller == node else []
    named: dict[str, list[str]] = {}
    for (topic, partition), replica in sorted(view.replicas.items()):
        name = f"{topic}-{partition}"
        if replica.role == "leader":
            name += f" (epoch {replica.leader_epoch}, ISR {','.join(map(str, replica.isr))})"
        named.setdefault(replica.role, []).append(name)
    for role, verb in (("leader", "leads"), ("follower", "follows"), ("offline", "offline:")):
        if role in named:
            parts.append(f"{verb} {_few(named[role])}")
    return "; ".join(parts)


def _few(names: Sequence[str]) -> str:
    more = len(names) - PARTITIONS_SHOWN_MAX
    return ", ".join(names[:PARTITIONS_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def verdict_rows(verdict: Verdict) -> list[dict[str, str]]:
    """Each count and its expected value; an expected value may be `any`."""
    rows = []
    for name in COUNTS:
        if name in QUEUE_COUNTS and not verdict.operations.receives:
            continue
        expected = str(verdict.expected.get(name, ""))
        found = str(getattr(verdict.counts, name))
        rows.append({"records": name.replace("_", " "), "found": found, "expected": expected})
    if verdict.counts.unread:
        rows.append({"records": "unread", "found": str(verdict.counts.unread), "expected": ""})
    return rows


MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "kept": "acknowledged, and there",
        "lost": "acknowledged, and gone",
        "duplicated": "in the log more than once",
        "reordered": "after a record that was sent later",
        "phantom": "refused, and in the log",
        "unknown_kept": "outcome unknown, in the log",
        "unknown_gone": "outcome unknown, not in the log",
        "unread": "acknowledged, and no read reached its offset",
        "failed": "refused, not in the log",
        "redelivered": "received by a group again",
        "skipped": "committed by a group that never read it",
        "handed_out": "received by a worker of a queue",
        "accepted": "its acceptance was answered with success",
        "archived": "rejected, or handed out too often",
        "dead_lettered": "archived or too old, and in a topic of dead letters",
        "expired": "removed by retention before it was accepted",
        "too_old": "expired before it was accepted, by its age or header",
        "perhaps_accepted": "accepted without an answer, not handed out again",
    }
)


def count_rows(verdict: Verdict) -> list[dict[str, str]]:
    """The fates of the records of a history without expectations."""
    return [
        {"records": name.replace("_", " "), "found": str(getattr(verdict.counts, name)), "meaning": meaning}
        for name, meaning in MEANINGS.items()
        if verdict.operations.receives or name not in QUEUE_COUNTS
    ]


def finding_lines(verdict: Verdict) -> list[str]:
    """The lost, duplicated and reordered records, with their causes."""
    return [
        *_range_lines("lost", verdict.losses),
        *_range_lines("duplicated", verdict.duplicates),
        *_range_lines("reordered", verdict.reorders),
        *_range_lines("refused, and in the log", verdict.phantoms),
        *_range_lines("received by a group again", verdict.redeliveries),
        *_range_lines("skipped by a group", verdict.skips),
        *_range_lines("archived by a queue", verdict.archives),
        *_range_lines("removed from a queue", verdict.expiries),
        *_range_lines("too old for a queue", verdict.too_old),
        *(f"anomaly {anomaly.kind}: {anomaly.text}; {anomaly.cause}" for anomaly in verdict.anomalies),
    ]


def verdict_lines(verdict: Verdict) -> list[str]:
    """The findings, then the differences between the verdict and the expected one."""
    lines = finding_lines(verdict)
    if verdict.as_expected:
        return [*lines, f"{verdict.scenario}: as expected"]
    problems = [f"not expected: {problem}" for problem in verdict.problems]
    return [*lines, *problems, f"{verdict.scenario}: NOT as expected"]


def _range_lines(what: str, ranges: Sequence[Range]) -> list[str]:
    lines = [f"{what}: {entry.cause}" for entry in ranges[:RANGES_SHOWN_MAX]]
    left = len(ranges) - RANGES_SHOWN_MAX
    return [*lines, f"{what}: {left} more ranges, see verdict.json"] if left > 0 else lines
