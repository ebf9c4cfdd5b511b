"""The ISRs of the partitions that this broker leads: it proposes joins and shrinks, and sends them to the controller
with one AlterPartition in flight for all pending partitions (KIP-497, I1 to I9).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from kraft.protocol.errors import KafkaError
from metadata.controller.requests import AlterPartition, ErrorDetail, PartitionAlteration
from metadata.environment import ConnectionClosed
from metadata.image import PartitionImage, TopicIdPartition
from replication.manager.registry import Registry
from replication.partition.isr import (
    Answered,
    alteration_of,
    out_of_sync,
    propose_join,
    propose_recovered,
    propose_shrink,
    with_committed,
    with_refusal,
)
from replication.partition.replica import Replica
from replication.partition.states import CommittedIsr, Isr, LeaderState, PendingIsr

ALTERATIONS_MAX = 1_000
"""Partitions in one AlterPartition; the rest waits for the next."""

RETRY_MS_FIRST = 20
RETRY_MS_MAX = 1_000
"""Wait before an AlterPartition with an unknown outcome is sent again (I8: without an end), doubling."""

REFUSED_PAUSE_MS = 100
"""Wait before a partition whose change was refused proposes another."""

Reply = Mapping[TopicIdPartition, PartitionImage | ErrorDetail]


class AlterPartitions(Protocol):
    async def alter(self, request: AlterPartition) -> Reply:
        """Ask the active controller. Raises KafkaError, OSError or ConnectionClosed when there is no answer."""
        ...


class IsrKeeper:
    def __init__(self, registry: Registry, controller: AlterPartitions) -> None:
        self._registry = registry
        self._controller = controller
        self._pending: dict[Replica, None] = {}
        self._has_pending = asyncio.Event()
        self._paused_until_ms: dict[Replica, int] = {}

    # --- proposals

    def join(self, replica: Replica, follower: int) -> None:
        """Propose a join (I4); the caller has checked that it is allowed."""
        state = replica.state
        assert isinstance(state, LeaderState), state
        if self._registry.clock.monotonic_ms() >= self._paused_until_ms.get(replica, 0):
            self._propose(replica, propose_join(state, follower))

    def recovered(self, replica: Replica) -> None:
        state = replica.state
        assert isinstance(state, LeaderState), state
        self._propose(replica, propose_recovered(state))

    def shrink_lagging(self) -> None:
        """Propose shrinks for all partitions led here (I1)."""
        now_ms = self._registry.clock.monotonic_ms()
        lag_ms_max = self._registry.settings().replica_lag_time_max_ms
        for replica, state in list(self._registry.led()):
            if isinstance(state.isr, PendingIsr) or len(state.isr.members) < 2:
                continue
            leaving = out_of_sync(
                state, log_end_offset=replica.log.log_end_offset, lag_ms_max=lag_ms_max, now_ms=now_ms
            )
            if leaving and now_ms >= self._paused_until_ms.get(replica, 0):
                self._propose(replica, propose_shrink(state, leaving))

    def forget(self, replica: Replica) -> None:
        """Forget a partition that is not led here any more."""
        self._pending.pop(replica, None)
        self._paused_until_ms.pop(replica, None)

    def _propose(self, replica: Replica, state: LeaderState) -> None:
        self._registry.set_leader_state(replica, state)
        self._pending[replica] = None
        self._has_pending.set()

    # --- loops

    async def watch_lag(self) -> None:
        """Check every half lag time, so that a lagging member stays 1.5 times the lag at most (I1)."""
        while True:
            await self._registry.clock.sleep(max(1, self._registry.settings().replica_lag_time_max_ms // 2))
            self.shrink_lagging()

    async def carry(self) -> None:
        """Send one AlterPartition at a time, until each pending change is settled or superseded."""
        retry_ms = RETRY_MS_FIRST
        while True:
            await self._has_pending.wait()
            if await self._carry_once():
                retry_ms = RETRY_MS_FIRST
            else:
                await self._registry.clock.sleep(retry_ms)
                retry_ms = min(2 * retry_ms, RETRY_MS_MAX)

    async def _carry_once(self) -> bool:
        """Send one request. False when something has to be sent again."""
        sent = self._take_pending()
        if not sent:
            return True
        request = AlterPartition(
            broker_id=self._registry.node_id,
            broker_epoch=self._registry.broker_epoch,
            alterations=tuple(alteration for alteration, _isr in sent.values()),
        )
        try:
            reply = await self._controller.alter(request)
        except (KafkaError, OSError, ConnectionClosed) as error:
            self._registry.events.emit("alter_partition_failed", error=str(error), partitions=len(sent))
            self._again(sent)
            return False
        unanswered = {r: s for r, s in sent.items() if not self._settle(r, s[1], reply.get(r.key))}
        self._again(unanswered)
        return not unanswered

    def _take_pending(self) -> dict[Replica, tuple[PartitionAlteration, Isr]]:
        sent: dict[Replica, tuple[PartitionAlteration, Isr]] = {}
        registry = self._registry
        while self._pending and len(sent) < ALTERATIONS_MAX:
            replica = next(iter(self._pending))
            del self._pending[replica]
            state = replica.state
            if isinstance(state, LeaderState) and isinstance(state.isr, PendingIsr):
                alteration = alteration_of(
                    state, own_broker_epoch=registry.broker_epoch, brokers=registry.image.brokers
                )
                sent[replica] = (alteration, state.isr)
        if not self._pending:
            self._has_pending.clear()
        return sent

    def _again(self, sent: Mapping[Replica, object]) -> None:
        for replica in sent:
            self._pending[replica] = None
        if self._pending:
            self._has_pending.set()

    def _settle(self, replica: Replica, sent: Isr, answer: PartitionImage | ErrorDetail | None) -> bool:
        """Process an answer. False: ask again. An answer to a change that newer metadata has settled is ignored."""
        state = replica.state
        if not isinstance(state, LeaderState) or state.isr is not sent:
            return True
        if answer is None:
            return False
        if isinstance(answer, PartitionImage):
            settled, what = with_committed(state, answer)
        else:
            settled, what = with_refusal(state, answer.error.code)
            self._report_refusal(replica, answer)
        if what is Answered.SETTLED:
            self.emit_change(replica, old=state, new=settled)
            self._registry.set_leader_state(replica, settled)
        return what is not Answered.RETRY

    def _report_refusal(self, replica: Replica, refusal: ErrorDetail) -> None:
        self._paused_until_ms[replica] = self._registry.clock.monotonic_ms() + REFUSED_PAUSE_MS
        self._registry.events.emit(
            "isr_change_refused", partition=replica.name, error=refusal.error.name, message=refusal.message
        )

    def emit_change(self, replica: Replica, *, old: LeaderState, new: LeaderState) -> None:
        before, after = set(old.isr.members), set(new.isr.members)
        if before == after or not isinstance(new.isr, CommittedIsr):
            return
        self._registry.events.emit(
            "isr_expanded" if after > before else "isr_shrunk",
            topic=replica.topic,
            partition=replica.key.partition,
            old_isr=list(old.isr.members),
            new_isr=list(new.isr.members),
            partition_epoch=new.partition_epoch,
        )
