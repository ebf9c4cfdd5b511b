"""One partition of `__consumer_offsets` that this broker leads: load by replay, decide, append, answer when replicated.

Owns the groups of the partition. Invariant: state runs ahead of the log by exactly the appends that are under way, and
whoever is answered waits for those before it. An append that fails ends the shard: what it decided on is not certain,
so the coordinator loads the partition again, as it would anywhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kraft.coordinators.groups.classic_requests import Answer, GroupEvent, Heartbeat, Tick
from kraft.coordinators.groups.consumer_draft import ConsumerRules
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat
from kraft.coordinators.groups.draft import Rules
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.group_protocols import decide_group, loaded
from kraft.coordinators.groups.loading import Reads, replay
from kraft.coordinators.groups.records import GroupRecord, encode_batch
from kraft.coordinators.groups.state import NEVER_MS, Group
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    InvalidCommitOffsetSize,
    KafkaError,
    KafkaStorageError,
    NotCoordinator,
    NotLeaderOrFollower,
)
from kraft.protocol.primitives import Buffer
from metadata.environment import Environment, TimerHandle
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings
from replication.requests import ProduceOutcome

ACKS_ALL = -1
WAITING_MAX = 10_000
"""Requests of a shard that wait for an answer (joins, syncs); one more is refused with 14."""


class Replicas(Reads, Protocol):
    async def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        *,
        acks: int,
        timeout_ms: int,
        is_from_coordinator: bool,
    ) -> Mapping[TopicIdPartition, ProduceOutcome]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What shards need of the node. Without a session others may lead by now what it led."""

    node_id: int
    environment: Environment
    replicas: Replicas
    settings: Callable[[], BrokerSettings]
    image: Callable[[], MetadataImage]
    has_session: Callable[[], bool]


class Shard:
    def __init__(
        self,
        partition: TopicIdPartition,
        leader_epoch: int,
        around: Surroundings,
        *,
        on_failed: Callable[[Shard], None],
    ) -> None:
        self.partition = partition
        self.leader_epoch = leader_epoch
        self.around = around
        self.entries: dict[str, GroupMetadata] = {}
        self._on_failed = on_failed
        self._is_loaded = False
        self._ended: KafkaError | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._next_ticket = 1
        self._last_append: asyncio.Task[None] | None = None
        self._appends: set[asyncio.Task[None]] = set()
        self._timer: TimerHandle | None = None
        self._timer_due_ms = NEVER_MS
        self._changed = asyncio.Event()
        self.after_change: Callable[[GroupMetadata], None] = lambda entry: None
        """Called when a group has changed: REST members take their next step."""
        self.on_expiry: Callable[[], None] = lambda: None

    # --- life -----------------------------------------------------------------------------------------------

    async def load(self, on_unreadable: Callable[[int, str], None]) -> int:
        """Returns how many records were read. `on_unreadable` is told the offset and the reason of each other one."""
        count = 0
        clock, epoch = self.around.environment.clock, self.leader_epoch
        async for piece in replay(self.around.replicas, self.partition, leader_epoch=epoch, clock=clock):
            for record in piece.records:
                self.entry(record.key.group).apply(record, now_ms=self.now_ms, is_replay=True)
            for offset, reason in piece.unreadable:
                on_unreadable(offset, reason)
            count += len(piece.records)
        self.forget_idle()
        for entry in self.entries.values():
            if entry.consumer is not None:
                loaded(entry.consumer, rules=self.rules(), now_ms=self.now_ms)
        self._is_loaded = True
        for entry in list(self.entries.values()):
            self.changed(entry)
        return count

    def end(self, error: KafkaError) -> None:
        """This broker leads the partition no longer, or does not know what is in it: all who wait are told."""
        if self._ended is not None:
            return
        self._ended = error
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(error)
        self._wake()

    def check(self) -> None:
        """Raises NotCoordinator 16 or CoordinatorNotAvailable 15 after the end, CoordinatorLoadInProgress 14 before
        the start."""
        if self._ended is not None:
            raise self._ended
        if not self._is_loaded:
            raise CoordinatorLoadInProgress(f"partition {self.partition.partition} of the groups is being loaded")

    @property
    def has_ended(self) -> bool:
        return self._ended is not None

    @property
    def is_loaded(self) -> bool:
        return self._is_loaded

    # --- deciding -------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return self.around.environment.clock.monotonic_ms()

    @property
    def wall_ms(self) -> int:
        return self.around.environment.clock.wall_ms()

    def entry(self, group_id: str) -> GroupMetadata:
        found = self.entries.get(group_id)
        if found is None:
            found = self.entries[group_id] = GroupMetadata(group=Group(group_id=group_id))
        return found

    def forget_idle(self) -> None:
        for group_id in [key for key, entry in self.entries.items() if entry.is_idle]:
            del self.entries[group_id]

    def forget_if_idle(self, group_id: str) -> None:
        """A group that was only asked about leaves nothing behind."""
        entry = self.entries.get(group_id)
        if entry is not None and entry.is_idle:
            del self.entries[group_id]

    def rules(self) -> ConsumerRules:
        settings = self.around.settings()
        return ConsumerRules(
            session_timeout_ms=min(
                max(settings.group_consumer_session_timeout_ms, settings.group_consumer_min_session_timeout_ms),
                settings.group_consumer_max_session_timeout_ms,
            ),
            heartbeat_interval_ms=min(
                max(settings.group_consumer_heartbeat_interval_ms, settings.group_consumer_min_heartbeat_interval_ms),
                settings.group_consumer_max_heartbeat_interval_ms,
            ),
            members_max=settings.group_consumer_max_size,
            assignors=tuple(settings.group_consumer_assignors.split(",")),
            can_upgrade=settings.group_consumer_migration_policy in ("upgrade", "bidirectional"),
            can_downgrade=settings.group_consumer_migration_policy in ("downgrade", "bidirectional"),
            classic=Rules(
                session_ms_min=settings.group_min_session_timeout_ms,
                session_ms_max=settings.group_max_session_timeout_ms,
                initial_delay_ms=settings.group_initial_rebalance_delay_ms,
                members_max=settings.group_max_size,
            ),
        )

    def submit(self, entry: GroupMetadata, event: GroupEvent) -> None:
        """Decide, apply, append; answers go out when what was decided is replicated."""
        decision = decide_group(
            entry.group,
            entry.consumer,
            event,
            rules=self.rules(),
            image=self.around.image(),
            now_ms=self.now_ms,
            wall_ms=self.wall_ms,
        )
        answers = [(reply.ticket, reply.answer) for reply in decision.replies]
        try:
            appended = self.append(decision.records) if decision.records else None
        except InvalidCommitOffsetSize as error:
            if not isinstance(event, Tick):
                self._answer([(event.ticket, error)], None)
            return
        entry.group, entry.consumer = decision.group, decision.consumer
        if appended is None:
            self._answer(answers, None)
        else:
            appended.add_done_callback(lambda task: self._answer(answers, task))
        if decision.records or not isinstance(event, Heartbeat | ConsumerHeartbeat):
            self.changed(entry)
        elif entry.consumer is not None:  # who only beats makes a session longer, and may begin to be waited for
            self._arm(entry.next_deadline_ms())

    async def ask(self, entry: GroupMetadata, event_of: Callable[[int], GroupEvent]) -> Answer:
        """Submit an event and wait for its answer. Raises the KafkaError of a refusal."""
        ticket = self._next_ticket
        self._next_ticket += 1
        if len(self._waiting) >= WAITING_MAX:
            raise CoordinatorLoadInProgress(f"{WAITING_MAX} requests wait for groups of this partition already")
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = waiting
        try:
            self.submit(entry, event_of(ticket))
            answer = await waiting
        finally:
            del self._waiting[ticket]
        if isinstance(answer, KafkaError):
            raise answer
        return answer

    def _answer(self, answers: Iterable[tuple[int, Answer]], appended: asyncio.Task[None] | None) -> None:
        failure = None
        if appended is not None:
            failure = self._ended if appended.cancelled() else appended.exception()
        for ticket, answer in answers:
            waiting = self._waiting.get(ticket)
            if waiting is not None and not waiting.done():
                waiting.set_result(failure if isinstance(failure, KafkaError) else answer)

    def changed(self, entry: GroupMetadata) -> None:
        self.after_change(entry)
        self._arm(entry.next_deadline_ms())
        self._wake()

    async def wait_changed(self, *, deadline_ms: int) -> bool:
        """Until some group here changes; False when the deadline came first."""
        changed = self._changed
        remaining_ms = deadline_ms - self.now_ms
        if remaining_ms <= 0:
            return False
        try:
            async with self.around.environment.clock.timeout(remaining_ms):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- appending ------------------------------------------------------------------------------------------

    def append(self, records: Sequence[GroupRecord]) -> asyncio.Task[None]:
        """Apply the records and send them on their way. The task fails with a KafkaError when they may be lost.

        Raises InvalidCommitOffsetSize 28, with nothing applied, for more than fits in a batch of the topic.
        """
        batch = encode_batch(records, timestamp_ms=self.wall_ms)
        for record in records:
            self.entry(record.key.group).apply(record, now_ms=self.now_ms, is_replay=False)
        task = asyncio.get_running_loop().create_task(self._append(batch))
        self._appends.add(task)
        task.add_done_callback(self._appended)
        self._last_append = task
        return task

    async def settle(self) -> None:
        """Wait until all that was decided so far is replicated. Raises KafkaError."""
        if self._last_append is not None and not self._last_append.done():
            await asyncio.shield(self._last_append)
        self.check()

    async def write(self, records: Sequence[GroupRecord]) -> None:
        """Append and wait. Raises KafkaError."""
        await asyncio.shield(self.append(records))

    async def _append(self, batch: bytes) -> None:
        timeout_ms = self.around.settings().offsets_commit_timeout_ms
        outcomes = await self.around.replicas.produce(
            {self.partition: batch}, acks=ACKS_ALL, timeout_ms=timeout_ms, is_from_coordinator=True
        )
        outcome = outcomes[self.partition]
        if outcome.error_code:
            raise _refusal(outcome)

    def _appended(self, task: asyncio.Task[None]) -> None:
        self._appends.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, KafkaError):
            self.end(error)
            self._on_failed(self)
        elif error is not None:
            task.get_loop().call_exception_handler({"message": "a group append failed", "exception": error})

    # --- time -----------------------------------------------------------------------------------------------

    def _arm(self, due_ms: int) -> None:
        if due_ms >= self._timer_due_ms or self._ended is not None or not self._is_loaded:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_ms = due_ms
        self._timer = self.around.environment.clock.call_later(max(due_ms - self.now_ms, 0), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_due_ms = None, NEVER_MS
        if self._ended is not None:
            return
        self.on_expiry()
        for entry in list(self.entries.values()):
            if entry.next_deadline_ms() <= self.now_ms:
                self.submit(entry, Tick())
            else:
                self._arm(entry.next_deadline_ms())
        self.forget_idle()


def _refusal(outcome: ProduceOutcome) -> KafkaError:
    """G5: as Kafka translates errors of the append."""
    if outcome.error_code in (NotLeaderOrFollower.code, KafkaStorageError.code):
        return NotCoordinator(f"this broker cannot write the partition of the group any more: {outcome.message}")
    return CoordinatorNotAvailable(f"the group's change is not replicated: {outcome.message or outcome.error_code}")
