"""The path of a produced batch through its leader (P1 to P10): check, append, wake, flush, advance, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from kraft.protocol.acks import ACKS, ACKS_ALL
from kraft.protocol.batches.budget import Budget, OverBudget
from kraft.protocol.errors import (
    InvalidConfig,
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
from kraft.values import new
from metadata.image import TopicIdPartition
from metadata.internal_topics import INTERNAL_TOPICS, internal_refusal
from replication.log_validator import PreparedRecords
from replication.manager.append_queues import AppendQueues, Place
from replication.manager.delayed_produce import DelayedProduce, Outcomes, failed, refused, too_few
from replication.manager.leader_flushes import LeaderFlushes
from replication.manager.registry import WAITING_PRODUCE_MAX, Registry
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from replication.producers.origin import CLIENT, Origin
from replication.record_times import target_problem
from replication.record_workers import RecordWorkers
from replication.requests import ProduceOptions, ProduceOutcome

HAND_OVER_WAIT_MS = 500
"""Longest wait of a stopping broker for appended records, so that few clients have an unknown outcome (P7)."""


Batches = Mapping[TopicIdPartition, Buffer]
Origins = Mapping[TopicIdPartition, Origin]
NO_ORIGINS: Origins = MappingProxyType({})


@dataclass(slots=True)
class _Run:
    """The state of one produce request."""

    options: ProduceOptions
    origin: Origin
    origins: Origins
    outcomes: Outcomes = field(default_factory=dict)
    appended: list[Replica] = field(default_factory=list)

    def origin_of(self, key: TopicIdPartition) -> Origin:
        return self.origins.get(key, self.origin) if self.origins else self.origin


class Produce:
    def __init__(self, registry: Registry, flushes: LeaderFlushes) -> None:
        self._registry = registry
        self._flushes = flushes
        self._queues: AppendQueues[TopicIdPartition] = AppendQueues()
        self._record_workers = RecordWorkers(registry.environment.workers)
        self._under_way = 0
        self._is_handing_over = False
        self._idle = asyncio.Event()

    def begin(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        options: ProduceOptions,
        *,
        origin: Origin = CLIENT,
        origins: Origins = NO_ORIGINS,
    ) -> Outcomes | asyncio.Future[Outcomes]:
        """The order of steps makes an acknowledgement true. Every partition has its own outcome (P10). When this
        returns, the batches are appended or in line: an earlier call is first in each partition. Returns a future when
        something has to be waited for; cancelling it only ends the wait. `origins`: origins of partitions that have
        another than the default.

        Raises InvalidRequiredAcks 21, ThrottlingQuotaExceeded 89; all other errors are outcomes of a partition.
        """
        self._check(options.acks)
        run = new(_Run)
        _Run.__init__(run, options=options, origin=origin, origins=origins)
        inline, later = Budget.inline(), []
        for key, data in batches.items():
            if self._queues.has_waiting(key) or not self._append(key, data, inline, run):
                later.append(key)
        self._wake_followers(run.appended)
        if later:
            places = self._queues.join(later)
            return self._waited_for(self._append_later({key: batches[key] for key in later}, places, run), run, places)
        due = [replica for replica in run.appended if replica.log.needs_flush()]
        if due:
            return self._waited_for(self._flush(due, run), run)
        self._advance_high_watermarks(run.appended)
        waiting = self._replicated(run)
        return run.outcomes if waiting is None else waiting

    async def outcomes(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions, *, origin: Origin = CLIENT
    ) -> Outcomes:
        """Appends as `begin` does; returns once all outcomes are known."""
        begun = self.begin(batches, options, origin=origin)
        return await begun if isinstance(begun, asyncio.Future) else begun

    def check_appendable(self, partition: TopicIdPartition) -> None:
        """Check before a coordinator decides that it could append with acks=all. Raises NotEnoughReplicas 19 (P1), and
        the refusals of a partition without a leader here."""
        replica, state = self._registry.leader_or_raise(partition)
        if state.is_under_min_isr:
            raise NotEnoughReplicas(
                f"ISR of {replica.name} is {list(state.isr.maximal)}; min.insync.replicas asks for {state.min_isr}"
            )

    def _waited_for(
        self, steps: Coroutine[Any, Any, Outcomes], run: _Run, places: Mapping[TopicIdPartition, Place] | None = None
    ) -> asyncio.Future[Outcomes]:
        """A task for work that cannot be done at once. A cancelled one, even before its first step, leaves nothing
        behind that others wait for: neither places in line nor records that are not counted."""
        task = asyncio.get_running_loop().create_task(steps)

        def ended(task: asyncio.Future[Outcomes]) -> None:
            for place in places.values() if places else ():
                place.end()
            if task.cancelled():
                for replica in run.appended:
                    self._flushes.ask(replica)
                self._advance_high_watermarks(run.appended)

            self._count_down()

        self._under_way += 1
        task.add_done_callback(ended)
        return task

    def _count_down(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    async def hand_over(self) -> None:
        """Before a controlled shutdown (B6): append nothing any more, and return when all appended records are
        answered, or when waiting longer helps nobody. Later requests are answered with 6 and nothing appended, and
        their clients find the next leader."""
        self._is_handing_over = True
        self._idle.clear()
        if not self._under_way:
            return
        try:
            async with self._registry.clock.timeout(HAND_OVER_WAIT_MS):
                await self._idle.wait()
        except TimeoutError:
            return

    def _check(self, acks: int) -> None:
        if acks not in ACKS:
            raise InvalidRequiredAcks(f"acks={acks}; must be -1 (all), 0 or 1")  # P9
        if acks == ACKS_ALL and self._registry.produces.is_full:
            raise ThrottlingQuotaExceeded(f"{WAITING_PRODUCE_MAX} produce requests wait for replicas already")

    async def _append_later(self, batches: Batches, places: Mapping[TopicIdPartition, Place], run: _Run) -> Outcomes:
        """Append to one partition after another, each in its turn; a worker checks its records."""
        budget = Budget.of_request()
        for key, data in batches.items():
            await places[key].wait()
            count = len(run.appended)
            try:
                prepared = await self._prepared(key, data, budget, run)
            except KafkaError as error:
                run.outcomes[key] = refused(error, log_start_offset=self._log_start(key))
            else:
                self._append(key, prepared, budget, run)
            places[key].end()
            self._wake_followers(run.appended[count:])
        return await self._flush([replica for replica in run.appended if replica.log.needs_flush()], run)

    async def _prepared(self, key: TopicIdPartition, data: Buffer, budget: Budget, run: _Run) -> PreparedRecords:
        """Check the records. Raises KafkaError, also for a request whose records exceed the budget."""
        replica, _state = self._registry.leader_or_raise(key)
        share = budget.share()
        left = replace(share)
        try:
            return await self._record_workers.run(
                replica.log.preparation(),
                data,
                now_ms=self._registry.clock.wall_ms(),
                budget=left,
                origin=run.origin_of(key),
            )
        except OverBudget as error:
            raise MessageTooLarge(f"the request holds {error}, decompressed; send it in several") from None
        finally:
            budget.spent(share, left)

    def _append(self, key: TopicIdPartition, data: Buffer | PreparedRecords, budget: Budget, run: _Run) -> bool:
        """Append. False, with nothing done: checking the records costs more than the budget has."""
        outcomes = run.outcomes
        try:
            replica, state = self._registry.leader_or_raise(key)
            if replica.topic in INTERNAL_TOPICS and not run.origin.is_coordinator:
                raise InvalidTopicException(internal_refusal(replica.topic, "write to it"))
            if self._is_handing_over:
                raise NotLeaderOrFollower(f"broker {state.image.leader} stops and hands {replica.name} over")
            if run.options.acks == ACKS_ALL and state.is_under_min_isr:
                outcomes[key] = too_few(
                    state, NotEnoughReplicas, name=replica.name, log_start_offset=replica.log.log_start_offset
                )  # P1
                return True
            target = replica.log.settings.delivery_target_topic
            if target and (problem := target_problem(self._registry.image, target)):
                raise InvalidConfig(f"topic {replica.topic}: {problem}")
            now_ms = self._registry.clock.wall_ms()
            if not isinstance(data, PreparedRecords):
                data = replica.log.preparation()(data, now_ms=now_ms, budget=budget, origin=run.origin_of(key))
            batch = replica.log.append_as_leader(data, leader_epoch=state.leader_epoch, now_ms=now_ms)
        except OverBudget:
            return False
        except (OutOfOrderSequenceNumber, InvalidProducerEpoch) as error:
            outcomes[key] = self._out_of_order(replica, state, error)
            return True
        except KafkaError as error:
            outcomes[key] = refused(error, log_start_offset=self._log_start(key))
            return True
        except OSError as error:
            outcomes[key] = ProduceOutcome(error_code=KafkaStorageError.code, message=f"cannot append: {error}")
            return True
        run.appended.append(replica)
        outcome = new(ProduceOutcome)
        ProduceOutcome.__init__(
            outcome,
            base_offset=batch.base_offset,
            last_offset=batch.last_offset,
            log_append_time_ms=batch.log_append_time_ms,
            log_start_offset=replica.log.log_start_offset,
            leader_id=self._registry.node_id,
            leader_epoch=state.leader_epoch,
            is_appended=True,
            isr=state.isr.members,
        )
        outcomes[key] = outcome
        return True

    def _log_start(self, key: TopicIdPartition) -> int:
        """The log start: with it a producer distinguishes lost records from deleted ones (KIP-360)."""
        replica = self._registry.replicas.get(key)
        return -1 if replica is None else replica.log.log_start_offset

    def _out_of_order(self, replica: Replica, state: LeaderState, error: KafkaError) -> ProduceOutcome:
        """A former leader that does not know of its successor lacks the records written since: so the answer has the
        epoch, of which the client may know a newer one (KIP-320). A log without room certainly lacks them: another
        leader will be elected."""
        reason = self._registry.read_only.get(replica.key)
        if reason is not None:
            error = KafkaStorageError(f"cannot append: {reason}")
        return ProduceOutcome(
            error_code=error.code,
            message=error.message,
            log_start_offset=replica.log.log_start_offset,
            leader_id=state.image.leader,
            leader_epoch=state.leader_epoch,
            isr=state.isr.members,
        )

    def _wake_followers(self, appended: list[Replica]) -> None:
        """Followers fetch the bytes while the leader fsyncs; its own end does not count before that."""
        for replica in appended:
            self._registry.log_changed(replica)

    async def _flush(self, due: list[Replica], run: _Run) -> Outcomes:
        """Sync the records that must be on disk before they count, by the policy; then wait for the replicas."""
        results = await asyncio.gather(*(replica.log.flush() for replica in due), return_exceptions=True)
        for replica, result in zip(due, results, strict=True):
            if isinstance(result, (OSError, KafkaError)):
                run.outcomes[replica.key] = failed(
                    run.outcomes[replica.key], KafkaStorageError, f"cannot fsync {replica.name}: {result}"
                )
                run.appended.remove(replica)
            elif isinstance(result, BaseException):
                raise result
        self._advance_high_watermarks(run.appended)
        waiting = self._replicated(run)
        return run.outcomes if waiting is None else await waiting

    def _advance_high_watermarks(self, appended: list[Replica]) -> None:
        for replica in appended:
            self._registry.advance(replica)

    def _replicated(self, run: _Run) -> asyncio.Future[Outcomes] | None:
        """The wait for replicas. None: nothing is to be waited for."""
        if run.options.acks != ACKS_ALL or not run.appended:
            return None
        operation = DelayedProduce(run.appended, run.outcomes)
        if operation.is_done:
            return None
        purgatory = self._registry.produces
        if run.options.timeout_ms <= 0 or not purgatory.watch(operation, run.appended, wait_ms=run.options.timeout_ms):
            operation.expire()
            return None

        def ended(_: asyncio.Future[Outcomes]) -> None:
            purgatory.forget(operation)
            self._count_down()

        self._under_way += 1
        operation.done.add_done_callback(ended)
        return operation.done
