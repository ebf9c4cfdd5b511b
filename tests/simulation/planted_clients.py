"""The planted bugs about what brokers remember of clients; like `planted_bugs`, each takes the original."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.shard import CoordinatorShard
from kraft.protocol.errors import KafkaError, NotCoordinator
from replication.manager.roles import Roles


def writes_without_waiting(_original: Any) -> Any:
    async def write(self: GroupShard, records: Sequence[Any]) -> None:
        self.append(records)

    return write


def forgets_producers(original: Any) -> Any:
    """A new leader begins without the producers in its log."""

    def _lead(self: Roles, replica: Any, image: Any) -> Any:
        if replica.state.leader_epoch != image.leader_epoch:
            replica.log.producers.states.clear()
        return original(self, replica, image)

    return _lead


def reports_what_is_not_replicated(_original: Any) -> Any:
    async def settle(self: GroupShard) -> None:
        self.check()

    return settle


def followers_syncs_unanswered(original: Any) -> Any:
    def _assign(draft: Any, assignments: Any) -> None:
        leader = draft.group.members[draft.group.leader].syncing
        original(draft, assignments)
        of_each, answer_of = draft._replies_of_each
        draft._replies_of_each = [each for each in of_each if each[0] == leader], answer_of

    return _assign


def proves_nothing(_original: Any) -> Any:
    async def prove_leadership(self: CoordinatorShard[Any]) -> None:
        self.check()

    return prove_leadership


def always_in_office(_original: Any) -> Any:
    async def is_in_office(_self: Any) -> bool:
        return True

    return is_in_office


def spins_on_a_proof(_original: Any) -> Any:
    """A loop around a task that may be done already, until a callback has noted it."""

    async def prove_leadership(self: CoordinatorShard[Any]) -> None:
        seen = vars(self).setdefault("seen", SimpleNamespace(begun=0, proven=0, proving=None))

        def note(task: asyncio.Task[None]) -> None:
            seen.proving = None
            if not task.cancelled() and task.exception() is None:
                seen.proven = seen.begun

        needed = seen.begun + 1
        while seen.proven < needed:
            if seen.proving is None:
                seen.begun += 1
                seen.proving = self.append_batch(self.encode([self.nothing]))
                seen.proving.add_done_callback(note)
            try:
                await asyncio.shield(seen.proving)
            except KafkaError as error:
                raise NotCoordinator(error.message) from error
            self.check()

    return prove_leadership
