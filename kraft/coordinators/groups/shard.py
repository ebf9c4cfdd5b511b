"""The shard of one partition of `__consumer_offsets`: it owns the groups of the partition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from kraft.coordinators.groups.classic_draft import ClassicRules, Decision
from kraft.coordinators.groups.classic_group import NEVER_MS, ClassicGroup
from kraft.coordinators.groups.classic_requests import Answer, GroupEvent, Heartbeat, Reply, Tick, Untold
from kraft.coordinators.groups.consumer_draft import ConsumerRules
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, TargetsComputed
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.group_protocols import decide_group, decide_share_group, loaded
from kraft.coordinators.groups.instance import decode_group_record
from kraft.coordinators.groups.records import (
    Entry,
    GroupRecord,
    InstanceKey,
    TransactionalRecord,
    TransactionEnded,
    TransactionOf,
    encode_batch,
)
from kraft.coordinators.groups.share_protocol import ShareRules, loaded_share
from kraft.coordinators.groups.share_requests import InitializeStates, ShareEvent, ShareHeartbeat
from kraft.coordinators.groups.target_assignment import changed_targets, in_parts, is_assignment_due
from kraft.coordinators.groups.transactional_producers import Asking, TransactionalProducers
from kraft.coordinators.partition_loader import InTransactions
from kraft.coordinators.shard import CoordinatorContext, CoordinatorShard, ShardNames
from kraft.protocol.batches.markers import Marker, build_marker
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    InvalidCommitOffsetSize,
    KafkaError,
)
from metadata.environment import TimerHandle
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_BATCH_BYTES_MAX, OFFSETS_TOPIC
from metadata.settings import BrokerSettings, group_settings

LOG = logging.getLogger(__name__)

NOBODY = ""
"""No group has this name, and no REST consumer."""
NOTHING = GroupRecord(InstanceKey(NOBODY, NOBODY), None)
"""Deletes what never was. Compaction removes it, Kafka's tools skip it."""
WAITING_MAX = 10_000
"""Requests of a shard that wait for an answer (joins, syncs); one more is refused with 14."""

IN_TRANSACTIONS: InTransactions[Entry] = InTransactions(
    record=lambda header, record: (
        TransactionalRecord(header.producer_id, record) if isinstance(record, GroupRecord) else record
    ),
    marker=lambda header, marker: TransactionEnded(header.producer_id, marker.is_commit),
)
ANSWERS_AT_ONCE = 100
"""Requests that are answered in one turn of the loop: each is encoded and sent in the next."""
TICK_RETRY_MS = 500
"""What was due and cannot be written, because it is too large or too few replicas are in sync, is tried again after
this, as Kafka's timers of coordinators are."""
UNWRITABLE = (CoordinatorNotAvailable, InvalidCommitOffsetSize)
"""`append` was refused: nothing has changed."""


class GroupShard(CoordinatorShard[GroupRecord]):
    names = ShardNames(OFFSETS_TOPIC, "groups", "groups_loaded", "group_record_skipped")
    nothing = NOTHING
    in_transactions = IN_TRANSACTIONS
    decode_record = staticmethod(decode_group_record)

    def __init__(
        self,
        partition: TopicIdPartition,
        leader_epoch: int,
        context: CoordinatorContext,
        *,
        on_failed: Callable[[CoordinatorShard[Any]], None],
    ) -> None:
        super().__init__(partition, leader_epoch, context, on_failed=on_failed)
        self.entries: dict[str, GroupMetadata] = {}
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._next_ticket = 1
        self._timer: TimerHandle | None = None
        self._rules: tuple[BrokerSettings, ConsumerRules] | None = None
        """The rules of groups without settings of their own, and what they were computed from."""
        self._timer_due_ms = NEVER_MS
        self._changed = asyncio.Event()
        self.producers = TransactionalProducers(partial(context.replicas.producers.get, partition))
        self._assigning: dict[str, asyncio.Task[None]] = {}
        """Large groups whose target assignments are being computed."""
        self._in_transactions: dict[int, set[str]] = {}
        """The groups that have pending offsets of each producer."""
        self.after_change: Callable[[GroupMetadata], None] = lambda entry: None
        """Called when a group has changed: REST members take their next step."""
        self.on_expiry: Callable[[], None] = lambda: None
        self.on_initialize: Callable[[InitializeStates], object] = lambda request: None
        """Called when the share coordinator is to be asked for states of share partitions."""
        self._has_steps_left = False
        """A step of REST members could not be written."""

    # --- life -----------------------------------------------------------------------------------------------

    def after_load(self) -> None:
        self.forget_idle()
        for entry in self.entries.values():
            if entry.consumer is not None:
                loaded(entry.consumer, rules=self.rules(entry.group.group_id), now_ms=self.now_ms)
            if entry.share is not None:
                loaded_share(entry.share, rules=self.share_rules(entry.group.group_id), now_ms=self.now_ms)
        for entry in list(self.entries.values()):
            self.changed(entry)

    def end(self, error: KafkaError) -> None:
        """The base class's, and all requests that wait are refused."""
        if self._ended is not None:
            return
        super().end(error)
        if self._timer is not None:
            self._timer.cancel()
        for assigning in self._assigning.values():
            assigning.cancel()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(error)
        self._wake()

    # --- deciding -------------------------------------------------------------------------------------------

    def entry(self, group_id: str) -> GroupMetadata:
        found = self.entries.get(group_id)
        if found is None:
            found = self.entries[group_id] = GroupMetadata(group=ClassicGroup(group_id=group_id))
        return found

    def forget_idle(self) -> None:
        for group_id in [key for key, entry in self.entries.items() if entry.is_idle]:
            del self.entries[group_id]

    def forget_if_idle(self, group_id: str) -> None:
        """A group that was only asked about leaves nothing behind."""
        entry = self.entries.get(group_id)
        if entry is not None and entry.is_idle:
            del self.entries[group_id]

    def rules(self, group_id: str) -> ConsumerRules:
        """The rules of a group, computed again when settings change; each time for a group with settings of its own."""
        settings, own = self.context.settings(), self.context.image().config("group", group_id)
        if own:
            return _rules(settings, own)
        if self._rules is None or self._rules[0] is not settings:
            self._rules = settings, _rules(settings, {})
        return self._rules[1]

    def share_rules(self, group_id: str) -> ShareRules:
        return _share_rules(self.context.settings(), self.context.image().config("group", group_id))

    def _decide(self, entry: GroupMetadata, event: GroupEvent) -> Decision:
        image, now_ms, wall_ms = self.context.image(), self.now_ms, self.wall_ms
        group, consumer, group_id = entry.group, entry.consumer, entry.group.group_id
        if entry.share is not None or isinstance(event, ShareEvent):
            return decide_share_group(
                group,
                consumer,
                entry.share,
                event,
                exists=entry.exists,
                rules=self.share_rules(group_id),
                image=image,
                now_ms=now_ms,
                wall_ms=wall_ms,
            )
        rules = self.rules(group_id)
        return decide_group(group, consumer, event, rules=rules, image=image, now_ms=now_ms, wall_ms=wall_ms)

    def submit(self, entry: GroupMetadata, event: GroupEvent) -> None:
        """Decide, apply, append; answers go out when that is replicated, and all before it, on which they may rest.
        Of a classic heartbeat nothing is read but that the member is there, so it waits for nobody, as in Kafka."""
        decision = self._decide(entry, event)
        answers = decision.replies
        try:
            appended = self.append(decision.records) if decision.records else None
        except UNWRITABLE as error:
            if isinstance(event, Tick):
                self._arm(self.now_ms + TICK_RETRY_MS)
            elif isinstance(event, Untold):
                raise
            elif event.ticket:
                self._answer([Reply(event.ticket, error)], None)
            else:
                self._step_later(error)
            return
        entry.group, entry.consumer, entry.share = decision.group, decision.consumer, decision.share
        if appended is None and not isinstance(event, Heartbeat):
            appended = self.unreplicated_append
        if appended is None:
            self._answer(answers, None)
        else:
            appended.add_done_callback(lambda task: self._answer(answers, task))
        if decision.to_initialize is not None:
            self._initialize_states(decision.to_initialize, appended)
        if decision.records or not isinstance(event, Heartbeat | ConsumerHeartbeat | ShareHeartbeat):
            self.changed(entry)
        elif entry.modern is not None:  # a heartbeat makes a session longer, and another may be the next to end
            self._arm(entry.next_deadline_ms())
        self._assign_if_due(entry)

    def _step_later(self, error: KafkaError) -> None:
        """A step that is too large stays so until the group changes; replicas come back by themselves."""
        if isinstance(error, CoordinatorNotAvailable):
            self._has_steps_left = True
            self._arm(self.now_ms + TICK_RETRY_MS)

    def _initialize_states(self, request: InitializeStates, appended: asyncio.Task[None] | None) -> None:
        """Once the records are replicated that name the partitions: what is not known is not cleaned up."""
        if appended is None:
            self.on_initialize(request)
        else:
            appended.add_done_callback(
                lambda task: None if task.cancelled() or task.exception() else self.on_initialize(request)
            )

    def _assign_if_due(self, entry: GroupMetadata) -> None:
        group_id, group = entry.group.group_id, entry.consumer
        if group is None or group_id in self._assigning or self._ended is not None:
            return
        rules = self.rules(group_id)
        if is_assignment_due(group, interval_ms=rules.assignment_interval_ms, now_ms=self.now_ms):
            assigning = self._assign(entry, group.copy(), rules)
            self._assigning[group_id] = asyncio.get_running_loop().create_task(assigning)

    async def _assign(self, entry: GroupMetadata, group: ConsumerGroup, rules: ConsumerRules) -> None:
        """A large group: its assignment is computed on a worker thread, and taken a part in each turn."""
        clock, workers = self.context.environment.clock, self.context.environment.workers
        try:
            self.submit(entry, TargetsComputed(epoch=group.epoch, changes=()))  # the interval begins
            changes = await workers.run(changed_targets, group, self.context.image(), rules.assignors)
            for part in in_parts(changes, group.epoch):
                await clock.sleep(0)
                if entry.consumer is None:
                    return
                self.submit(entry, part)
        except CoordinatorNotAvailable:
            return  # it is due again with the next event of the group
        except InvalidCommitOffsetSize as error:
            LOG.warning("group %r has no new assignment: %s", group.group_id, error)
        finally:
            del self._assigning[group.group_id]

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

    def _answer(self, answers: Sequence[Reply], appended: asyncio.Task[None] | None) -> None:
        failure = None
        if appended is not None:
            failure = self._ended if appended.cancelled() else appended.exception()
        self._hand_out(answers, 0, failure if isinstance(failure, KafkaError) else None)

    def _hand_out(self, answers: Sequence[Reply], begin: int, failure: KafkaError | None) -> None:
        end = begin + ANSWERS_AT_ONCE
        for ticket, answer in answers[begin:end]:
            waiting = self._waiting.get(ticket)
            if waiting is not None and not waiting.done():
                waiting.set_result(failure or answer)
        if end < len(answers):
            asyncio.get_running_loop().call_soon(self._hand_out, answers, end, failure)

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
            async with self.context.environment.clock.timeout(remaining_ms):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- appending ------------------------------------------------------------------------------------------

    def apply(self, record: Entry, *, is_replay: bool) -> None:
        match record:
            case GroupRecord():
                self.entry(record.key.group).apply(record, now_ms=self.now_ms, is_replay=is_replay)
            case TransactionalRecord(producer_id, pending):
                entry = self.entry(pending.key.group)
                entry.apply_in_transaction(producer_id, pending, now_ms=self.now_ms, is_replay=is_replay)
                self._in_transactions.setdefault(producer_id, set()).add(pending.key.group)
            case TransactionEnded(producer_id, is_commit):
                for group_id in self._in_transactions.pop(producer_id, ()):
                    entry = self.entry(group_id)
                    entry.end_transaction(producer_id, is_commit=is_commit)

    def append_in_transaction(
        self, records: Sequence[GroupRecord], transaction: TransactionOf, asking: Asking | None
    ) -> asyncio.Task[None]:
        """`append` for what a transaction commits: pending until its marker. `asking`: by whom the coordinator's yes
        was waited for, None for a transaction that is open here.

        Raises InvalidCommitOffsetSize 28, CoordinatorNotAvailable 15, InvalidProducerEpoch 47, InvalidTxnState 48."""
        producer_id, epoch = transaction
        limit = self.context.settings().producer_id_max_per_partition
        self.producers.check_commit(producer_id, epoch, asking, open_max=limit, opened=len(self._in_transactions))
        self.check_replicas()
        batch = encode_batch(
            records, timestamp_ms=self.wall_ms, bytes_max=self.batch_bytes_max, transaction=transaction
        )
        for record in records:
            self.apply(TransactionalRecord(producer_id, record), is_replay=False)
        return self.producers.commit(producer_id, epoch, lambda: self.append_batch(batch))

    async def end_transaction(
        self, producer_id: int, producer_epoch: int, marker: Marker, *, transaction_version: int
    ) -> None:
        """A producer's pending offsets count now, or never; once that is replicated this returns.

        Raises InvalidProducerEpoch 47 and TransactionCoordinatorFenced 52 with nothing appended; NotEnoughReplicas 19
        and the errors of a shard that is not loaded or whose append may be lost."""
        self.check()
        self.producers.check_marker(producer_id, producer_epoch, marker, transaction_version=transaction_version)
        self.context.replicas.produce.check_appendable(self.partition)
        batch = build_marker(marker, producer_id=producer_id, producer_epoch=producer_epoch, timestamp_ms=self.wall_ms)
        groups = list(self._in_transactions.get(producer_id, ()))
        self.apply(TransactionEnded(producer_id, marker.is_commit), is_replay=False)
        appended = self.producers.end(producer_id, producer_epoch, marker, lambda: self.append_batch(batch))
        for group_id in groups:
            self.forget_if_idle(group_id)
        self._wake()
        await asyncio.shield(appended)

    def append_apart(self, records: Sequence[GroupRecord]) -> None:
        """Append records that need not be in one batch, in as many as it takes. One that fits in none is left out
        and changes nothing: its caller makes it again at the next change or the next round. So are all while too few
        replicas are in sync; REST members then take their steps again."""
        try:
            if records:
                self.append(records)
        except CoordinatorNotAvailable as error:
            self._step_later(error)
        except InvalidCommitOffsetSize:
            if len(records) > 1:
                middle = len(records) // 2
                self.append_apart(records[:middle])
                self.append_apart(records[middle:])

    def encode(self, records: Sequence[GroupRecord]) -> bytes:
        """Raises InvalidCommitOffsetSize 28."""
        return encode_batch(records, timestamp_ms=self.wall_ms, bytes_max=self.batch_bytes_max)

    @property
    def batch_bytes_max(self) -> int:
        return min(OFFSETS_BATCH_BYTES_MAX, super().batch_bytes_max)

    @property
    def append_timeout_ms(self) -> int:
        return self.context.settings().offsets_commit_timeout_ms

    async def write(self, records: Sequence[GroupRecord]) -> None:
        """Append and wait. Raises KafkaError."""
        await asyncio.shield(self.append(records))

    # --- time -----------------------------------------------------------------------------------------------

    def _arm(self, due_ms: int) -> None:
        if due_ms >= self._timer_due_ms or self._ended is not None or not self._is_loaded:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_ms = due_ms
        self._timer = self.context.environment.clock.call_later(max(due_ms - self.now_ms, 0), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_due_ms = None, NEVER_MS
        if self._ended is not None:
            return
        self.on_expiry()
        if self._has_steps_left:
            self._has_steps_left = False
            for entry in list(self.entries.values()):
                if entry.instances:
                    self.after_change(entry)
            self._wake()
        for entry in list(self.entries.values()):
            if entry.next_deadline_ms() <= self.now_ms:
                self.submit(entry, Tick())
            else:
                self._arm(entry.next_deadline_ms())
        self.forget_idle()


def _share_rules(settings: BrokerSettings, overrides: Mapping[str, str]) -> ShareRules:
    own = group_settings(settings, overrides)
    return ShareRules(
        session_timeout_ms=own.share_session_timeout_ms,
        heartbeat_interval_ms=own.share_heartbeat_interval_ms,
        assignment_interval_ms=own.share_assignment_interval_ms,
        members_max=settings.group_share_max_size,
        initialize_retry_ms=settings.group_share_initialize_retry_interval_ms,
    )


def _rules(settings: BrokerSettings, overrides: Mapping[str, str]) -> ConsumerRules:
    own = group_settings(settings, overrides)
    return ConsumerRules(
        session_timeout_ms=own.consumer_session_timeout_ms,
        heartbeat_interval_ms=own.consumer_heartbeat_interval_ms,
        assignment_interval_ms=own.consumer_assignment_interval_ms,
        members_max=settings.group_consumer_max_size,
        assignors=tuple(settings.group_consumer_assignors.split(",")),
        can_upgrade=settings.group_consumer_migration_policy in ("upgrade", "bidirectional"),
        can_downgrade=settings.group_consumer_migration_policy in ("downgrade", "bidirectional"),
        classic=ClassicRules(
            session_ms_min=settings.group_min_session_timeout_ms,
            session_ms_max=settings.group_max_session_timeout_ms,
            initial_delay_ms=settings.group_initial_rebalance_delay_ms,
            members_max=settings.group_max_size,
        ),
    )
