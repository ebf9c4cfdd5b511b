"""Choose the next action on a cluster: a random possible fault, or the healing of one. Pure.

One node is spared: it is paused, cut off and its disk filled, but its process lives as long as the soak, so that it
shows leaks. The more faults are active, the more likely is healing; a cluster that is completely broken shows little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter

from kraft.chaos.nemesis.actions import Action

StrikeKind: TypeAlias = str
Fields: TypeAlias = Mapping[str, Any]
"""The fields of an action."""
_ACTION: Final[TypeAdapter[Action]] = TypeAdapter(Action)

PURPOSES: Final = ("quorum", "controller", "fetch", "forward")
WEIGHTS: Final[Mapping[StrikeKind, int]] = {
    "kill": 5,
    "kill two": 1,
    "kill the controller": 2,
    "stop": 2,
    "pause": 4,
    "fill": 2,
    "cut": 3,
    "slow": 2,
    "isolate": 2,
    "partition": 2,
    "elect": 1,
    "reassign": 1,
}
DELAYS_MS: Final = (5, 50, 400)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """The state of a cluster that the choice of faults needs."""

    nodes: tuple[int, ...]
    spared: int
    controller: int = -1
    down: frozenset[int] = field(default_factory=frozenset)
    paused: frozenset[int] = field(default_factory=frozenset)
    full: frozenset[int] = field(default_factory=frozenset)
    cuts: int = 0
    """Active faults of links."""

    @property
    def running(self) -> list[int]:
        return [node for node in self.nodes if node not in self.down | self.paused]

    @property
    def mortal(self) -> list[int]:
        """The nodes that may be killed."""
        return [node for node in self.nodes if node != self.spared and node not in self.down]


def next_fault(
    cluster_state: ClusterState, rng: Random, *, partitions: Sequence[tuple[str, int]]
) -> tuple[str, Action]:
    """The next (kind, action). `partitions`: the partitions that may be moved and elected."""
    if rng.random() < _pressure_to_mend(cluster_state):
        fields = _mend(cluster_state, rng)
        return "mend", _action(fields)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        found = (
            _TELLERS[kind](cluster_state, rng) if kind in _TELLERS else _change(kind, rng, cluster_state, partitions)
        )
        if found is not None:
            return kind, _action(found)


def _action(fields: Fields) -> Action:
    return _ACTION.validate_python(dict(fields))


def _pressure_to_mend(cluster_state: ClusterState) -> float:
    broken = len(cluster_state.down) + len(cluster_state.paused)
    return min(0.9, 0.35 * broken + 0.25 * len(cluster_state.full) + 0.25 * cluster_state.cuts)


def _mend(cluster_state: ClusterState, rng: Random) -> Fields:
    choices: list[Fields] = [{"do": "restart", "nodes": (node,)} for node in sorted(cluster_state.down)]
    choices += [{"do": "resume", "nodes": (node,)} for node in sorted(cluster_state.paused)]
    choices += [{"do": "disk_free", "nodes": (node,)} for node in sorted(cluster_state.full)]
    choices += [{"do": "heal"}] * cluster_state.cuts
    return rng.choice(choices)


def _kill(cluster_state: ClusterState, rng: Random) -> Fields | None:
    return {"do": "kill", "nodes": (rng.choice(cluster_state.mortal),)} if cluster_state.mortal else None


def _kill_two(cluster_state: ClusterState, rng: Random) -> Fields | None:
    return (
        {"do": "kill", "nodes": tuple(sorted(rng.sample(cluster_state.mortal, 2)))}
        if len(cluster_state.mortal) > 1
        else None
    )


def _kill_controller(cluster_state: ClusterState, _rng: Random) -> Fields | None:
    """Kill the controller; the spared node is cut off from the others instead."""
    if cluster_state.controller in cluster_state.mortal:
        return {"do": "kill", "nodes": (cluster_state.controller,)}
    if cluster_state.controller == cluster_state.spared and not cluster_state.cuts:
        return {"do": "isolate", "node": cluster_state.controller, "purpose": PURPOSES}
    return None


def _stop(cluster_state: ClusterState, rng: Random) -> Fields | None:
    """Stop a node. Not a paused one, which does not receive the signal, and not one with a full disk, which may never
    end."""
    able = [node for node in cluster_state.mortal if node not in cluster_state.paused | cluster_state.full]
    return {"do": "stop", "nodes": (rng.choice(able),)} if able else None


def _pause(cluster_state: ClusterState, rng: Random) -> Fields | None:
    return {"do": "pause", "nodes": (rng.choice(cluster_state.running),)} if cluster_state.running else None


def _fill(cluster_state: ClusterState, rng: Random) -> Fields | None:
    able = [node for node in cluster_state.running if node not in cluster_state.full]
    return {"do": "disk_full", "nodes": (rng.choice(able),)} if able and not cluster_state.full else None


def _cut(cluster_state: ClusterState, rng: Random) -> Fields | None:
    dials, answers = rng.sample(cluster_state.nodes, 2)
    how = rng.choice(("cut", "blackhole", "close_mid_message", "drop_answers"))
    fault: dict[str, Any] = {"do": how, "purpose": _purposes(rng), "dials": (dials,), "answers": (answers,)}
    if how == "drop_answers":
        fault["purpose"] = (rng.choice(("controller", "fetch", "forward")),)  # the quorum has no answers
    if how == "blackhole":
        fault["direction"] = rng.choice(("both", "requests", "answers"))
    if how in ("close_mid_message", "drop_answers"):
        fault["count"] = rng.randint(1, 3)
    return fault


def _slow(cluster_state: ClusterState, rng: Random) -> Fields | None:
    dials, answers = rng.sample(cluster_state.nodes, 2)
    delay_ms = rng.choice(DELAYS_MS)
    fault = {"do": "delay", "purpose": _purposes(rng), "dials": (dials,), "answers": (answers,)}
    return {**fault, "delay_ms": delay_ms, "jitter_ms": delay_ms}


def _isolate(cluster_state: ClusterState, rng: Random) -> Fields | None:
    return {"do": "isolate", "node": rng.choice(cluster_state.nodes), "purpose": _purposes(rng)}


def _partition(cluster_state: ClusterState, rng: Random) -> Fields | None:
    one, two, *rest = rng.sample(cluster_state.nodes, len(cluster_state.nodes))
    groups = rng.choice(([[one], [two, *rest]], [[one, two], [two, *rest]], [[one], [two], rest]))
    return {"do": "partition", "groups": tuple(tuple(group) for group in groups if group)}


def _change(kind: str, rng: Random, cluster_state: ClusterState, partitions: Sequence[tuple[str, int]]) -> Fields:
    topic, partition = rng.choice(partitions)
    change: dict[str, Any] = {"do": kind, "topic": topic, "partition": partition, "may_be_refused": True}
    if kind == "reassign":
        change["replicas"] = tuple(rng.sample(cluster_state.nodes, min(3, len(cluster_state.nodes))))
    return change


def _purposes(rng: Random) -> tuple[str, ...]:
    one = (rng.choice(PURPOSES),)
    return rng.choice((PURPOSES, PURPOSES, one, ("quorum", "controller")))


_TELLERS: Final[Mapping[StrikeKind, Callable[[ClusterState, Random], Fields | None]]] = {
    "kill": _kill,
    "kill two": _kill_two,
    "kill the controller": _kill_controller,
    "stop": _stop,
    "pause": _pause,
    "fill": _fill,
    "cut": _cut,
    "slow": _slow,
    "isolate": _isolate,
    "partition": _partition,
}
