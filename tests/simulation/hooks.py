"""The hooks of the oracle: product functions are wrapped during one run. Wrappers change nothing."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.chaos.worlds.simulated.loop import PROCESS
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.shard import CoordinatorShard
from kraft.events import EventLog
from kraft.protocol import scram
from kraft.protocol.errors import OffsetOutOfRange
from metadata.controller.decide import isr
from metadata.quorum import engine, state_machine
from metadata.quorum.journal import Journal
from metadata.quorum.link import Link
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.quorum.state_machine import MetadataStateMachine
from replication.fetcher.follower import Follower, Taken
from replication.manager.isr_keeper import IsrKeeper
from replication.manager.registry import Registry
from replication.partition.states import LeaderState
from replication.requests import FetchedPartition, FetchPartition
from tests.simulation import delayed_oracle, queue_hooks
from tests.simulation.moments import ALTERATION_SENT, APPEND_SENT, JOIN_SENT
from tests.simulation.oracle import Oracle

_salted_password = functools.lru_cache(maxsize=10_000)(scram.salted_password)
"""The one costly calculation that is the same again and again: a pure function, so remembering it changes nothing."""


@contextlib.contextmanager
def listening(oracle: Oracle) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for owner, name, wrap in _WRAPPERS:
            original = getattr(owner, name)
            setattr(owner, name, wrap(oracle, original))
            stack.callback(setattr, owner, name, original)
        yield


def _set_leader_state(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def set_leader_state(self: Registry, replica: Any, state: LeaderState) -> None:
        old = replica.state
        original(self, replica, state)
        if isinstance(replica.state, LeaderState) and _is_alive(oracle, self.node_id, self):
            oracle.logs.leader_moved(self.node_id, replica, old, replica.state)

    return set_leader_state


def _is_alive(oracle: Oracle, node_id: int, registry: Registry) -> bool:
    """Is this the registry of the life that runs now (or starts)?"""
    node = oracle.cluster.nodes[node_id].node
    return node is None or (node.broker is not None and node.broker.replicas._registry is registry)


def _emit(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def _emit(self: EventLog, event: str, fields: dict[str, object]) -> None:
        oracle.event(self._node_id, event, fields)
        original(self, event, fields)

    return _emit


def _send(oracle: Oracle, original: Callable[..., bool]) -> Callable[..., bool]:
    def send(self: Link, peer: int, message: Any) -> bool:
        oracle.quorum.message_sent(self._identity.node_id, peer, message)
        return original(self, peer, message)

    return send


def _apply(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    def apply(self: MetadataStateMachine, data: memoryview, *, index: int) -> Any:
        before, is_new = self.image, index > self._applied_index
        result = original(self, data, index=index)
        if is_new:
            oracle.quorum.appended(before, state_machine.decode_command(data), result)
        return result

    return apply


def _alter_partition(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    def alter_partition(controller: Any, request: Any) -> Any:
        decision = original(controller, request)
        oracle.quorum.altered(controller.image, request, decision.reply)
        return decision

    return alter_partition


def _append(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    async def append(self: RaftMetadataLog, records: Any, **options: Any) -> Any:
        oracle.moments.happened(APPEND_SENT, self._engine._config.node_id)
        try:
            return await original(self, records, **options)
        except (AppendLost, AppendUnknown) as error:
            oracle.count(f"metadata {type(error).__name__}")
            raise

    return append


def _hear(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def hear(self: MetadataPublisher, news: Any) -> None:
        oracle.late_news.hear(self, functools.partial(original, self, news))

    return hear


def _take(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    def take(self: Follower, replica: Any, asked: FetchPartition, answer: FetchedPartition) -> Any:
        taken = original(self, replica, asked, answer)
        node_id: int = self._events._node_id  # type: ignore[attr-defined]
        oracle.logs.follower_took(node_id, replica)
        if answer.error_code == OffsetOutOfRange.code and taken is Taken.DONE:
            oracle.count("follower began again at its leader's log start")
        elif answer.error_code == OffsetOutOfRange.code and taken is Taken.BACK_OFF:
            oracle.count("follower ended beyond its leader's log")
        elif taken in (Taken.DONE, Taken.APPENDED) and answer.diverging_epoch is None:
            oracle.promise.eras.agreed(node_id, replica)
        return taken

    return take


def _take_pending(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    def take_pending(self: IsrKeeper) -> Any:
        sent = original(self)
        for _, proposal in sent.values():
            concerned = {*proposal.proposed} ^ {*proposal.members} or {*proposal.members}
            oracle.moments.happened(ALTERATION_SENT, self._registry.node_id, min(concerned))
            for joining in {*proposal.proposed} - {*proposal.members}:
                oracle.moments.happened(JOIN_SENT, self._registry.node_id, joining)
        return sent

    return take_pending


def _ask_shard(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    async def ask(self: GroupShard, entry: Any, event_of: Any) -> Any:
        wait = oracle.group_waits.began(self, entry.group.group_id)
        try:
            return await original(self, entry, event_of)
        finally:
            oracle.group_waits.ended(wait)

    return ask


def _write_batch(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    async def write_batch(self: CoordinatorShard[Any], batch: bytes) -> None:
        await original(self, batch)
        ask = oracle.at_append.pop(self.context.node_id, None)
        if ask is not None:
            ask(self)

    return write_batch


def _group_changed(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def changed(self: GroupShard, entry: Any) -> None:
        oracle.group_waits.group_changed(entry)
        original(self, entry)

    return changed


def _open_journal(oracle: Oracle, original: Callable[..., Journal]) -> Callable[..., Journal]:
    """A voter that starts again has all that it had synced: it may have acknowledged it."""
    opened: dict[str, Journal] = {}

    def open_journal(files: Any, directory: str, snapshots: Any) -> Journal:
        journal, process = original(files, directory, snapshots), PROCESS.get()
        assert process is not None
        before = opened.get(process.name)
        opened[process.name] = journal
        if before is not None and not journal.votes.is_newcomer:
            oracle.check(*_still_has(process.name, before, journal))
        return journal

    return open_journal


def _still_has(name: str, before: Journal, after: Journal) -> tuple[bool, str]:
    synced = before._entries[: len(before._entries) - len(before._unsynced)]
    entries = after._entries
    if not synced or not entries or synced[-1][1] <= entries[0][1]:
        return True, ""
    _, index, term = synced[-1]
    found = [entry[2] for entry in entries[index - entries[0][1] :][:1]]
    return found == [term], f"{name} had synced entry {index} of term {term}, and starts again with {found} there"


def _remember(_oracle: Oracle, _original: Callable[..., Any]) -> Callable[..., Any]:
    return _salted_password


_WRAPPERS: tuple[tuple[Any, str, Callable[[Oracle, Callable[..., Any]], Callable[..., Any]]], ...] = (
    (Registry, "set_leader_state", _set_leader_state),
    (EventLog, "_emit", _emit),
    (Link, "send", _send),
    (MetadataStateMachine, "apply", _apply),
    (RaftMetadataLog, "append", _append),
    (engine, "open_journal", _open_journal),
    (isr, "alter_partition", _alter_partition),
    (Follower, "take", _take),
    (IsrKeeper, "_take_pending", _take_pending),
    (CoordinatorShard, "write_batch", _write_batch),
    (GroupShard, "ask", _ask_shard),
    (GroupShard, "changed", _group_changed),
    (MetadataPublisher, "_on_change", _hear),
    (MetadataPublisher, "_on_leadership", _hear),
    (scram, "salted_password", _remember),
    *queue_hooks.WRAPPERS,
    *delayed_oracle.WRAPPERS,
)
