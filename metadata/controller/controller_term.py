"""One term of the active controller: from winning the quorum's leadership to losing it.

Invariant: `image` is the committed image with offset equal to the log's when an append is made; only this term has
appended under `epoch`. `_handle` shows the order: decide, append, wait for the commit, answer, emit events. When an
append fails, the term ends, because all later decisions are void; the next term aborts a transaction that is open then.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from kraft.protocol.errors import KafkaError, NotController, RequestTimedOut
from metadata.controller.context import ControllerContext
from metadata.controller.decide import (
    ActivationEvent,
    Decision,
    Liveness,
    PreferredElectionTick,
    SessionsTick,
    UncleanSweepTick,
)
from metadata.controller.effective import EffectiveSettings
from metadata.controller.event_batch import LATE_MS, EventBatch, Step
from metadata.controller.inbox import Item
from metadata.controller.operator_events import emit_decision
from metadata.controller.probes import BrokerProbes
from metadata.image import MetadataImage
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.records import AbortTransactionRecord, ControllerEpochRecord, Record
from metadata.retries import ELECTION_RETRY_MS
from metadata.settings import BrokerSettings

SESSION_TICK_MS_MAX = 500
"""Sessions are checked every quarter of the session timeout, but at least this often."""

INTERVAL_LOOK_MS = 1_000
"""An interval that is altered while it passes is read again after this time, and not after five minutes."""


class Resigned(Exception):
    """This term is over."""


class ControllerTerm:
    def __init__(self, context: ControllerContext, *, term: int) -> None:
        self.term = term
        self.epoch = -1
        """-1 until the record of this term's own epoch is committed (Q5)."""
        self.image: MetadataImage = context.log.image
        self.probes: BrokerProbes | None = None
        self._context = context
        self._effective = EffectiveSettings(context.static_settings)
        self._liveness = Liveness()
        self._rng: random.Random = context.environment.rng
        self._taken: list[Item] = []

    def heard_ms_ago(self) -> dict[int, int]:
        """Broker -> time since its last heartbeat."""
        now_ms = self._context.environment.clock.monotonic_ms()
        return {broker: max(0, now_ms - each.last_contact_ms) for broker, each in self._liveness.brokers.items()}

    @property
    def settings(self) -> BrokerSettings:
        return self._effective.of(self.image)

    async def run(self) -> None:
        """Return when the quorum's leadership is lost or an append failed; all waiting requests are then answered."""
        try:
            await self._claim()
            async with asyncio.TaskGroup() as group:
                self.probes = BrokerProbes(self._context, group, settings=lambda: self.settings)
                for every_ms, tick in self._ticks():
                    group.create_task(self._tick(every_ms, tick))
                try:
                    await self._govern(self.probes)
                finally:
                    self.probes = None  # before the group ends: it takes no more tasks then
        except* Resigned:
            pass
        finally:
            self.probes = None
            self._dismiss()

    async def _claim(self) -> None:
        """Q5: commit one record of the own epoch before deciding anything; it fences every older controller."""
        log = self._context.log
        while True:
            self._resign_unless_leader()
            epoch = max(self.term, log.image.controller_epoch + 1)
            record = ControllerEpochRecord(epoch=epoch, node_id=self._context.node_id)
            try:
                self.image = await log.append([record], controller_epoch=epoch, expected_offset=log.image.offset)
                await self._abort_what_is_open(epoch)
            except (AppendLost, AppendUnknown):
                await self._context.environment.clock.sleep(ELECTION_RETRY_MS)
                continue
            self.epoch = epoch
            self._context.events.emit(
                "controller_changed", controller=self._context.node_id, epoch=epoch, term=self.term
            )
            return

    async def _abort_what_is_open(self, epoch: int) -> None:
        """KIP-868: nobody else will end the transaction of a dead controller, and nothing can be written before it is
        closed."""
        transaction = self.image.transaction
        if transaction is None:
            return
        record = AbortTransactionRecord(reason=f"controller {self._context.node_id} began epoch {epoch}")
        self.image = await self._context.log.append([record], controller_epoch=epoch, expected_offset=self.image.offset)
        self._context.events.emit(
            "metadata_transaction_aborted",
            transaction=transaction.name,
            offset=transaction.base_offset,
            records=len(transaction.records),
        )

    async def _govern(self, probes: BrokerProbes) -> None:
        inbox, now_ms = self._context.inbox, self._context.environment.clock.monotonic_ms
        inbox.put_event(ActivationEvent(), now_ms=now_ms())
        for broker in self.image.brokers.values():
            if not broker.fenced:
                probes.probe(broker)
        while True:
            await inbox.wait()
            self._resign_unless_leader()
            await self._handle(probes)

    async def _handle(self, probes: BrokerProbes) -> None:
        batch = EventBatch(
            image=self.image,
            liveness=self._liveness,
            settings=self._effective,
            rng=self._rng,
            cluster_id=self._context.cluster_id,
        )
        items = self._context.inbox.take_all()
        self._taken = items
        rest = batch.add_all(items, now_ms=self._context.environment.clock.monotonic_ms())
        if rest:
            self._context.inbox.put_back(rest)
        self._taken = [step.item for step in batch.steps]
        waiting = deque(batch.steps)
        for number, records in enumerate(batch.appends):
            self._conclude_all(waiting, probes, committed=number)
            await self._commit(records, waiting, number=number)
        assert self.image.offset == batch.image.offset, (self.image.offset, batch.image.offset)
        self._liveness = batch.liveness
        self._conclude_all(waiting, probes, committed=len(batch.appends))

    async def _commit(self, records: Sequence[Record], waiting: Iterable[Step], *, number: int) -> None:
        try:
            self.image = await self._context.log.append(
                records, controller_epoch=self.epoch, expected_offset=self.image.offset
            )
        except (AppendLost, AppendUnknown) as error:
            for step in waiting:
                step.item.refuse(_refusal(step, error, number=number))
            raise Resigned from error

    def _conclude_all(self, waiting: deque[Step], probes: BrokerProbes, *, committed: int) -> None:
        while waiting and waiting[0].appends_needed <= committed:
            self._conclude(waiting.popleft(), probes)

    def _conclude(self, step: Step, probes: BrokerProbes) -> None:
        outcome = step.outcome
        if isinstance(outcome, KafkaError):
            step.item.refuse(outcome)
            return
        emit_decision(self._context.events, step.before, outcome.records)
        if not outcome.is_deferred:
            step.item.resolve(outcome.reply)
        self._pursue(step, outcome, probes)

    def _pursue(self, step: Step, decision: Decision, probes: BrokerProbes) -> None:
        if decision.follow_up is not None:
            now_ms = self._context.environment.clock.monotonic_ms()
            self._context.inbox.put_event(decision.follow_up, now_ms=now_ms)
        if decision.queries or decision.is_deferred:
            probes.query(decision, item=step.item)

    # --- time ---------------------------------------------------------------------------------------------------

    def _ticks(self) -> list[tuple[Callable[[], int], type[SessionsTick | PreferredElectionTick | UncleanSweepTick]]]:
        return [
            (lambda: min(SESSION_TICK_MS_MAX, max(1, self.settings.broker_session_timeout_ms // 4)), SessionsTick),
            (lambda: self.settings.leader_imbalance_check_interval_seconds * 1000, PreferredElectionTick),
            (lambda: self.settings.unclean_leader_election_interval_ms, UncleanSweepTick),
        ]

    async def _tick(
        self, every_ms: Callable[[], int], kind: type[SessionsTick | PreferredElectionTick | UncleanSweepTick]
    ) -> None:
        clock = self._context.environment.clock
        while True:
            begin_ms = planned_ms = now_ms = clock.monotonic_ms()
            while (left_ms := begin_ms + every_ms() - now_ms) > 0:
                planned_ms = now_ms + min(left_ms, INTERVAL_LOOK_MS)
                await clock.sleep(planned_ms - now_ms)
                now_ms = clock.monotonic_ms()
            late_ms = now_ms - planned_ms
            event = SessionsTick(late_ms=late_ms if late_ms > LATE_MS else 0) if kind is SessionsTick else kind()
            self._context.inbox.put_event(event, now_ms=now_ms)

    # --- the end ------------------------------------------------------------------------------------------------

    def _resign_unless_leader(self) -> None:
        leadership = self._context.log.leadership
        if not leadership.is_self or leadership.term != self.term:
            raise Resigned(f"node {leadership.leader_id} leads the quorum in term {leadership.term}")

    def _dismiss(self) -> None:
        leader_id = self._context.log.leadership.leader_id
        for item in self._taken:
            item.refuse(RequestTimedOut("the controller stopped in the middle of this; the outcome is not known"))
        for item in self._context.inbox.take_all():
            item.refuse(NotController(f"this node is no longer the active controller; node {leader_id} may be"))
        if self.epoch >= 0:
            self._context.events.emit("controller_resigned", controller=self._context.node_id, epoch=self.epoch)


def _refusal(step: Step, error: AppendLost | AppendUnknown, *, number: int) -> KafkaError:
    """The answer to requests that wait for a decision when append `number` failed. Refusals wait, too: the image that
    they were decided on may never exist. A decision that was certainly not written is refused with a retriable
    error."""
    if step.first_append < number and not step.is_whole:
        return RequestTimedOut(f"only a part of it may have been done: {error}")
    is_void = isinstance(error, AppendLost) or step.first_append > number
    if is_void or step.appends_needed > number + 1:
        return NotController(f"this node is no longer the active controller, nothing was changed: {error}")
    return RequestTimedOut(f"the outcome is not known: {error}")
