"""How long a coordinator may let a member wait (G1): each join and sync ends, as every other request does.

A join waits for the other members: until the deadline of the rebalance, which is at most the longest rebalance timeout
of the members after it began, and it began before the join or with it. A sync waits for the leader's: its deadline is
as long, from the end of the joins. An answer waits besides for the group's append, offsets.commit.timeout.ms and as
much again as any produce is granted. All of it by the coordinator's own clock, while its node is awake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.shard import GroupShard

if TYPE_CHECKING:
    from kraft.chaos.worlds.simulated.cluster import SimulatedNode
    from tests.simulation.oracle import Oracle

GRACE_MS = 6_000
"""The time beyond its own timeout that `clients` grant each request."""


@dataclass(slots=True, eq=False)
class _Wait:
    shard: GroupShard
    group: str
    node: SimulatedNode
    process: Any
    pauses: int
    since_ms: int
    """The start on the coordinator's clock: the request, or the last wake-up of its node."""

    @property
    def is_dead(self) -> bool:
        return self.node.machine.process is not self.process or self.node.node is None


@dataclass(slots=True)
class GroupWaits:
    oracle: Oracle
    _waits: list[_Wait] = field(default_factory=list)
    _longest_ms: dict[str, int] = field(default_factory=dict)
    """Group -> the longest rebalance timeout that any of its members ever had."""

    def group_changed(self, entry: GroupMetadata) -> None:
        group = entry.group
        longest_ms = max((member.rebalance_timeout_ms for member in group.members.values()), default=0)
        self._longest_ms[group.group_id] = max(longest_ms, self._longest_ms.get(group.group_id, 0))

    def began(self, shard: GroupShard, group: str) -> _Wait:
        node = self.oracle.cluster.nodes[shard.context.node_id]
        machine = node.machine
        wait = _Wait(shard, group, node, machine.process, machine.pauses, shard.now_ms)
        self._waits.append(wait)
        return wait

    def ended(self, wait: _Wait) -> None:
        if wait in self._waits:
            self._waits.remove(wait)

    def check(self) -> None:
        self._waits = [wait for wait in self._waits if not wait.is_dead]
        for wait in self._waits:
            machine = wait.node.machine
            if machine.process.is_paused or machine.pauses != wait.pauses:
                wait.pauses, wait.since_ms = machine.pauses, wait.shard.now_ms
            self._check(wait)

    def _check(self, wait: _Wait) -> None:
        waited_ms = wait.shard.now_ms - wait.since_ms
        longest_ms = self._longest_ms.get(wait.group, 0)
        append_ms = wait.shard.context.settings().offsets_commit_timeout_ms + GRACE_MS
        self.oracle.check(
            waited_ms <= longest_ms + append_ms,
            f"a join or sync of group {wait.group} waits for {waited_ms} ms on node {wait.node.node_id}, alive and "
            f"awake; a rebalance takes {longest_ms} ms at most, and its append {append_ms} ms",
        )
