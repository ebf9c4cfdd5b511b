"""The planted bugs about share groups; like `planted_bugs`, each takes the original."""

from __future__ import annotations

from typing import Any

from kraft.coordinators.shares.leader import ShareLeader
from kraft.coordinators.shares.shard import ShareStateShard
from replication.shares.partition import SharePartition
from replication.shares.runs import Run
from replication.shares.sessions import SessionKey, ShareSessions
from replication.shares.states import DeliveryState


def counts_begin_again(original: Any) -> Any:
    """A new leader takes over the state of records, and not how often they were delivered."""

    def loaded(start_offset: int, batches: Any, **options: Any) -> Any:
        return original(start_offset, [batch._replace(delivery_count=0) for batch in batches], **options)

    return loaded


def start_passes_released(original: Any) -> Any:
    """The start offset moves over a record that was released, to finished ones behind it."""

    def _advance_start(self: SharePartition) -> None:
        original(self)
        runs = list(self._runs.since(self.start_offset))[:2]
        if len(runs) == 2 and runs[0].is_available and runs[0].delivery_count and runs[1].is_terminal:
            self._change(runs[0], DeliveryState.ARCHIVED, is_saved=False)
            original(self)

    return _advance_start


def anybody_holds_it(_original: Any) -> Any:
    """A member may acknowledge what another one has by now."""

    def is_locked_by(self: Run, _member: str) -> bool:
        return self.state is DeliveryState.ACQUIRED and self.target is None

    return is_locked_by


def locks_end_early(original: Any) -> Any:
    """A lock ends after half of its time."""

    def _lock(self: SharePartition, run: Run, member: str, now_ms: int, lock_ms: int) -> None:
        original(self, run, member, now_ms - self.limits.lock_duration_ms // 2, lock_ms)

    return _lock


def locks_never_end(_original: Any) -> Any:
    """No lock has an end that anybody waits for."""

    def deadline_ms(_self: SharePartition) -> int | None:
        return None

    return deadline_ms


def answered_before_written(_original: Any) -> Any:
    """A member is answered when its acknowledgement has begun."""

    def acknowledge(self: ShareLeader, member: str, parts: Any) -> Any:
        answer = _original(self, member, parts)
        if answer is not None and not answer.done():
            answer.set_result(None)
        return answer

    return acknowledge


def old_connections_end_sessions(_original: Any) -> Any:
    """A connection that ends takes the session of its member along, whichever connection that has now (KAFKA-19950)."""

    def disconnected(self: ShareSessions, connection: Any) -> list[SessionKey]:
        used = self.__dict__.get("_used", {})
        ended = [key for key in self._sessions if connection in used.get(key, ())]
        for key in ended:
            del self._sessions[key]
        return ended

    return disconnected


def remembers_connections(original: Any) -> Any:
    """Which connections each member has had."""

    def begin(self: ShareSessions, key: SessionKey, epoch: int, connection: Any, **options: Any) -> Any:
        used = self.__dict__.setdefault("_used", {})
        used.setdefault(key, []).append(connection)
        return original(self, key, epoch, connection, **options)

    return begin


def letters_sent_again(original: Any) -> Any:
    """A leader does not remember which dead letters are written."""

    async def _send(self: ShareLeader) -> None:
        letters = list(self._letters)
        await original(self)
        self._letters = letters
        await original(self)

    return _send


def archived_at_once(_original: Any) -> Any:
    """What is given up is archived, whether there is a topic for dead letters or not."""
    return property(lambda _self: DeliveryState.ARCHIVED)


def reads_fence_nobody(_original: Any) -> Any:
    """A new leader gets the state, and earlier leaders may still write."""

    def read(state: Any, *, leader_epoch: int) -> None:
        return None

    return read


def prunes_up_to_the_end(_original: Any) -> Any:
    """What is deleted is all that stands before the end of the log."""

    async def prune(self: ShareStateShard) -> None:
        needed_from = min(self._needed_from.values(), default=self._log_end)
        if needed_from > self._pruned_to:
            await self.context.replicas.offsets.delete_records(
                self.partition, offset=self._log_end, timeout_ms=5_000, is_from_coordinator=True
            )
            self._pruned_to = needed_from

    return prune
