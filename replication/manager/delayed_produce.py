"""A produce with acks=all that waits for its replicas, and its possible ends (P5 to P7)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kraft.protocol.errors import KafkaError, NotEnoughReplicasAfterAppend, NotLeaderOrFollower, RequestTimedOut
from metadata.image import TopicIdPartition
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from replication.requests import ProduceOutcome

Outcomes = dict[TopicIdPartition, ProduceOutcome]


class DelayedProduce:
    """Waits until the high watermark has passed the records appended to each partition (P5)."""

    def __init__(self, appended: list[Replica], outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._waiting = dict.fromkeys(appended)
        self.done: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        for replica in appended:
            self._try(replica)

    @property
    def is_done(self) -> bool:
        return not self._waiting

    def try_complete(self, replica: Replica, /) -> bool:
        if replica in self._waiting:
            self._try(replica)
        if self._waiting:
            return False
        if not self.done.done():
            self.done.set_result(self._outcomes)
        return True

    def _try(self, replica: Replica) -> None:
        outcome, state = self._outcomes[replica.key], replica.state
        if not isinstance(state, LeaderState) or (
            state.leader_epoch != outcome.leader_epoch and not _is_still_ours(replica, outcome)
        ):
            error: type[KafkaError] = NotLeaderOrFollower  # P7
            self._outcomes[replica.key] = failed(
                outcome, error, f"leadership of {replica.name} was lost while waiting; the records may survive"
            )
        elif state.high_watermark > outcome.last_offset:
            if len(state.isr.maximal) < state.min_isr:
                self._outcomes[replica.key] = too_few(
                    state,
                    NotEnoughReplicasAfterAppend,
                    name=replica.name,
                    log_start_offset=outcome.log_start_offset,
                    outcome=outcome,
                )
            elif outcome.isr != state.isr.members:
                self._outcomes[replica.key] = replace(outcome, isr=state.isr.members)
        else:
            return
        del self._waiting[replica]

    def expire(self) -> None:
        """P6: the deadline has passed; the records stay in the log."""
        for replica in self._waiting:
            outcome = self._outcomes[replica.key]
            self._outcomes[replica.key] = failed(
                outcome,
                RequestTimedOut,
                f"offset {outcome.last_offset} of {replica.name} was not replicated in time; it stays in the log",
            )
        self._waiting.clear()
        if not self.done.done():
            self.done.set_result(self._outcomes)


def _is_still_ours(replica: Replica, outcome: ProduceOutcome) -> bool:
    """Leadership may have been lost and won again meanwhile, and these offsets may hold another leader's records. Each
    epoch has one leader: while its end lies beyond the records, this leader has appended them (KIP-101)."""
    end = replica.log.end_offset_for_epoch(outcome.leader_epoch)
    return end is not None and end.epoch == outcome.leader_epoch and end.end_offset > outcome.last_offset


def refused(error: KafkaError, *, log_start_offset: int) -> ProduceOutcome:
    """The outcome of a batch of which nothing was appended."""
    return ProduceOutcome(
        error_code=error.code,
        message=error.message,
        log_start_offset=log_start_offset,
        record_errors=tuple(error.record_errors),
    )


def failed(outcome: ProduceOutcome, error: type[KafkaError], message: str) -> ProduceOutcome:
    return ProduceOutcome(
        error_code=error.code,
        message=message,
        base_offset=outcome.base_offset,
        last_offset=outcome.last_offset,
        log_append_time_ms=outcome.log_append_time_ms,
        log_start_offset=outcome.log_start_offset,
        leader_id=outcome.leader_id,
        leader_epoch=outcome.leader_epoch,
        is_appended=outcome.is_appended,
    )


def too_few(
    state: LeaderState,
    error: type[KafkaError],
    *,
    name: str,
    log_start_offset: int,
    outcome: ProduceOutcome | None = None,
) -> ProduceOutcome:
    isr = state.isr.members if outcome is None else state.isr.maximal
    answered = outcome or ProduceOutcome()
    return ProduceOutcome(
        error_code=error.code,
        message=f"ISR of {name} is {list(isr)}; min.insync.replicas asks for {state.min_isr}",
        base_offset=answered.base_offset,
        last_offset=answered.last_offset,
        log_start_offset=log_start_offset,
        leader_id=state.image.leader,
        leader_epoch=state.leader_epoch,
        is_appended=outcome is not None,
        isr=isr,
        min_isr=state.min_isr,
    )
