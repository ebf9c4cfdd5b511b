"""The planted bugs about what brokers remember of clients; like `planted_bugs`, each takes the original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kraft.coordinators.groups.shard import Shard
from replication.manager.roles import Roles


def writes_without_waiting(_original: Any) -> Any:
    async def write(self: Shard, records: Sequence[Any]) -> None:
        self.append(records)

    return write


def forgets_producers(original: Any) -> Any:
    """A new leader begins without what its log tells of producers."""

    def _lead(self: Roles, replica: Any, image: Any) -> Any:
        if replica.state.leader_epoch != image.leader_epoch:
            replica.log.producers.states.clear()
        return original(self, replica, image)

    return _lead


def tells_what_is_not_replicated(_original: Any) -> Any:
    async def settle(self: Shard) -> None:
        self.check()

    return settle


def followers_syncs_unanswered(original: Any) -> Any:
    def _assign(draft: Any, assignments: Any) -> None:
        leader, before = draft.group.members[draft.group.leader].syncing, len(draft._replies)
        original(draft, assignments)
        draft._replies[before:] = [reply for reply in draft._replies[before:] if reply.ticket == leader]

    return _assign
