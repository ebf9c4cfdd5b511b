"""Which steps of a random story can be done, in the order in which they come. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kraft.chaos.nemesis.actions import DamageFiles, NodeFault
from kraft.chaos.nemesis.fuzz.story import Step


def possible(steps: Iterable[Step]) -> list[Step]:
    """Without those that ask for what cannot be done once others are left out, such as to kill a dead node."""
    standing = _Standing()
    return [step for step in steps if standing.takes(step)]


class _Standing:
    def __init__(self) -> None:
        self._down: set[int] = set()
        self._paused: set[int] = set()

    def takes(self, step: Step) -> bool:
        match step.action:
            case NodeFault(do=kind, nodes=nodes):
                return self._takes(kind, set(nodes))
            case DamageFiles(node=node):
                return node in self._down
        return True

    def _takes(self, kind: str, nodes: set[int]) -> bool:
        match kind:
            case "restart" if nodes <= self._down:
                self._down -= nodes
            case "resume" if nodes <= self._paused:
                self._paused -= nodes
            case "pause" if not nodes & (self._down | self._paused):
                self._paused |= nodes
            case "stop" if not nodes & (self._down | self._paused):
                self._down |= nodes
            case "kill" | "power_loss" if not nodes & self._down:
                self._down |= nodes
                self._paused -= nodes
            case "disk_full" | "disk_free":
                return True
            case _:
                return False
        return True
