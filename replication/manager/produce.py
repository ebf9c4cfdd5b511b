"""The way of a produced batch through its leader (P1 to P10): check, append, wake, flush, advance, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from kraft.protocol.batches.budget import Budget, OverBudget
from kraft.protocol.errors import (
    InvalidProducerEpoch,
    InvalidRequiredAcks,
    InvalidTopicException,
    KafkaError,
    KafkaStorageError,
    MessageTooLarge,
    NotEnoughReplicas,
    NotLeaderOrFollower,
    OutOfOrderSequenceNumber,
    ThrottlingQuotaExceeded,
)
from kraft.protocol.primitives import Buffer
from kraft.values import maker
from metadata.image import TopicIdPartition
from metadata.internal_topics import INTERNAL_TOPICS, internal_refusal
from replication.large_work import LargeWork
from replication.log_validator import PreparedRecords
from replication.manager.delayed_produce import DelayedProduce, Outcomes, failed, too_few
from replication.manager.leader_flushes import LeaderFlushes
from replication.manager.registry import WAITING_PRODUCE_MAX, Registry
from replication.manager.turns import Turns
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from replication.requests import ProduceOutcome

ACKS_ALL = -1
ACKS_LEADER = 1
ACKS_NONE = 0

HAND_OVER_WAIT_MS = 500
"""A broker that stops waits so long for what was already appended, so that few clients are left in doubt (P7)."""

_produce_outcome = maker(ProduceOutcome)

Batches = Mapping[TopicIdPartition, Buffer]


class Produce:
    def __init__(self, registry: Registry, flushes: LeaderFlushes) -> None:
        self._registry = registry
        self._flushes = flushes
        self._turns = Turns()
        self._large_work = LargeWork(registry.environment.workers)
        self._under_way = 0
        self._is_handing_over = False
        self._idle = asyncio.Event()

    async def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        *,
        acks: int,
        timeout_ms: int,
        internal_topics_allowed: bool = False,
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        """Raises InvalidRequiredAcks 21, ThrottlingQuotaExceeded 89; all else is an outcome of its partition."""
        if not internal_topics_allowed:
            allowed, refused = self._without_internal_topics(batches)
            if refused:
                return {**refused, **(await self.produce(allowed, acks=acks, timeout_ms=timeout_ms))}
        self._check(acks)
        self._under_way += 1
        try:
            return await self._produce(batches, acks=acks, timeout_ms=timeout_ms)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _without_internal_topics(self, batches: Mapping[TopicIdPartition, Buffer]) -> tuple[Batches, Outcomes]:
        """What a client may write, and the refusals of what coordinators alone may."""
        topics = self._registry.image.topics
        refused: Outcomes = {}
        for key in batches:
            topic = topics.get(key.topic_id)
            if topic is not None and topic.name in INTERNAL_TOPICS:
                message = internal_refusal(topic.name, "write to it")
                refused[key] = ProduceOutcome(error_code=InvalidTopicException.code, message=message)
        return {key: data for key, data in batches.items() if key not in refused} if refused else batches, refused

    async def hand_over(self) -> None:
        """Append nothing any more; return when what was appended is answered, or when waiting longer helps nobody."""
        self._is_handing_over = True
        self._idle.clear()
        if not self._under_way:
            return
        try:
            async with self._registry.clock.timeout(HAND_OVER_WAIT_MS):
                await self._idle.wait()
        except TimeoutError:
            return

    async def _produce(self, batches: Mapping[TopicIdPartition, Buffer], *, acks: int, timeout_ms: int) -> Outcomes:
        """The order that makes an acknowledgement true. Every partition has its own outcome (P10)."""
        outcomes: Outcomes = {}
        appended: list[Replica] = []
        inline, later = Budget.inline(), []
        for key, data in batches.items():
            if self._turns.is_taken(key) or not self._append(key, data, inline, acks, outcomes, appended):
                later.append(key)
        self._wake_followers(appended)
        if later:
            await self._append_later({key: batches[key] for key in later}, acks, outcomes, appended)
        await self._flush_if_policy_asks(appended, outcomes)
        self._advance_high_watermarks(appended)
        if acks == ACKS_ALL and appended:
            await self._wait_for_replicas(appended, outcomes, timeout_ms=timeout_ms)
        return outcomes

    def _check(self, acks: int) -> None:
        if acks not in (ACKS_ALL, ACKS_LEADER, ACKS_NONE):
            raise InvalidRequiredAcks(f"acks={acks}; must be -1 (all), 0 or 1")  # P9
        if acks == ACKS_ALL and self._registry.produces.is_full:
            raise ThrottlingQuotaExceeded(f"{WAITING_PRODUCE_MAX} produce requests wait for replicas already")

    async def _append_later(self, batches: Batches, acks: int, outcomes: Outcomes, appended: list[Replica]) -> None:
        """One partition after another, each in its turn; its records looked at by a worker."""
        turns = self._turns.take(batches)
        budget = Budget.of_request()
        try:
            for key, data in batches.items():
                await turns[key].comes()
                count = len(appended)
                try:
                    prepared = await self._prepared(key, data, budget)
                except KafkaError as error:
                    outcomes[key] = ProduceOutcome(error_code=error.code, message=error.message)
                else:
                    self._append(key, prepared, budget, acks, outcomes, appended)
                turns[key].end()
                self._wake_followers(appended[count:])
        finally:
            for turn in turns.values():
                turn.end()

    async def _prepared(self, key: TopicIdPartition, data: Buffer, budget: Budget) -> PreparedRecords:
        """Raises KafkaError, also for a request whose records are more than the budget."""
        replica, _state = self._registry.leader_or_raise(key)
        share = budget.share()
        left = replace(share)
        try:
            return await self._large_work.run(
                replica.log.preparation(), data, now_ms=self._registry.clock.wall_ms(), budget=left
            )
        except OverBudget as error:
            raise MessageTooLarge(f"the request holds {error}, decompressed; send it in several") from None
        finally:
            budget.spent(share, left)

    def _append(
        self,
        key: TopicIdPartition,
        data: Buffer | PreparedRecords,
        budget: Budget,
        acks: int,
        outcomes: Outcomes,
        appended: list[Replica],
    ) -> bool:
        """False, with nothing done: to look at its records costs more than the budget has."""
        try:
            replica, state = self._registry.leader_or_raise(key)
            if self._is_handing_over:
                raise NotLeaderOrFollower(f"broker {state.image.leader} stops and hands {replica.name} over")
            if acks == ACKS_ALL and state.is_under_min_isr:
                outcomes[key] = too_few(state, NotEnoughReplicas, name=replica.name)  # P1
                return True
            now_ms = self._registry.clock.wall_ms()
            if not isinstance(data, PreparedRecords):
                data = replica.log.preparation()(data, now_ms=now_ms, budget=budget)
            batch = replica.log.append_as_leader(data, leader_epoch=state.leader_epoch, now_ms=now_ms)
        except OverBudget:
            return False
        except (OutOfOrderSequenceNumber, InvalidProducerEpoch) as error:
            outcomes[key] = self._out_of_order(key, state, error)
            return True
        except KafkaError as error:
            outcomes[key] = ProduceOutcome(error_code=error.code, message=error.message)
            return True
        except OSError as error:
            outcomes[key] = ProduceOutcome(error_code=KafkaStorageError.code, message=f"cannot append: {error}")
            return True
        appended.append(replica)
        outcomes[key] = _produce_outcome(
            base_offset=batch.base_offset,
            last_offset=batch.last_offset,
            log_append_time_ms=batch.log_append_time_ms,
            log_start_offset=replica.log.log_start_offset,
            leader_id=self._registry.node_id,
            leader_epoch=state.leader_epoch,
            is_appended=True,
            isr=state.isr.members,
        )
        return True

    def _out_of_order(self, key: TopicIdPartition, state: LeaderState, error: KafkaError) -> ProduceOutcome:
        """Who was deposed and does not know it lacks what was written since: so a client is told the epoch, and may
        have heard of a newer one (KIP-320). A log without room surely lacks it: another leader is being looked for."""
        reason = self._registry.read_only.get(key)
        if reason is not None:
            error = KafkaStorageError(f"cannot append: {reason}")
        return ProduceOutcome(
            error_code=error.code,
            message=error.message,
            leader_id=state.image.leader,
            leader_epoch=state.leader_epoch,
            isr=state.isr.members,
        )

    def _wake_followers(self, appended: list[Replica]) -> None:
        """They carry the bytes away while the leader fsyncs; its own end does not count before that."""
        for replica in appended:
            self._registry.log_changed(replica)

    async def _flush_if_policy_asks(self, appended: list[Replica], outcomes: Outcomes) -> None:
        due = [replica for replica in appended if replica.log.needs_flush()]
        if not due:
            return
        try:
            results = await asyncio.gather(*(replica.log.flush() for replica in due), return_exceptions=True)
        except asyncio.CancelledError:
            for replica in due:
                self._flushes.ask(replica)
            raise
        for replica, result in zip(due, results, strict=True):
            if isinstance(result, (OSError, KafkaError)):
                outcomes[replica.key] = failed(
                    outcomes[replica.key], KafkaStorageError, f"cannot fsync {replica.name}: {result}"
                )
                appended.remove(replica)
            elif isinstance(result, BaseException):
                raise result

    def _advance_high_watermarks(self, appended: list[Replica]) -> None:
        for replica in appended:
            self._registry.advance(replica)

    async def _wait_for_replicas(self, appended: list[Replica], outcomes: Outcomes, *, timeout_ms: int) -> None:
        operation = DelayedProduce(appended, outcomes)
        if operation.is_done:
            return
        purgatory = self._registry.produces
        if timeout_ms <= 0 or not purgatory.watch(operation, appended, wait_ms=timeout_ms):
            operation.expire()
            return
        try:
            await operation.done
        finally:
            purgatory.forget(operation)
