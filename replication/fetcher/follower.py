"""A follower's reaction to its leader's answer: append, truncate, move its high watermark (R2, R4-R6, R8, R11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from kraft.protocol.errors import CorruptMessage, KafkaError, OffsetOutOfRange
from kraft.values import new
from metadata.environment import Clock
from metadata.events import Events
from replication.partition.high_watermark import follower_high_watermark
from replication.partition.log import EpochEnd
from replication.partition.replica import Replica
from replication.partition.states import FollowerState
from replication.requests import FetchedPartition, FetchPartition

METADATA_BEHIND_CODES = frozenset({3, 5, 6, 74, 75, 78, 100, 103})
"""The leader's metadata is older or newer than ours: the partition is asked for again soon."""


class Taken(Enum):
    """The effect of an answer."""

    DONE = auto()
    APPENDED = auto()
    IGNORED = auto()
    """It answers a request that is obsolete."""
    METADATA_BEHIND = auto()
    BACK_OFF = auto()
    FAILED = auto()


class Follower:
    def __init__(self, *, clock: Clock, events: Events, on_high_watermark: Callable[[Replica], None]) -> None:
        """`on_high_watermark` is called when consumers of a replica may read more of it (KIP-392)."""
        self._clock = clock
        self._events = events
        self._on_high_watermark = on_high_watermark

    def take(self, replica: Replica, asked: FetchPartition, answer: FetchedPartition) -> Taken:
        state, log = replica.state, replica.log
        if (
            not isinstance(state, FollowerState)
            or state.leader_epoch != asked.current_leader_epoch
            or log.log_end_offset != asked.fetch_offset
        ):
            return Taken.IGNORED
        try:
            return self._take(replica, state, answer)
        except CorruptMessage as error:
            self._emit("replica_fetch_corrupt", replica, error=error.message)  # R11
            return Taken.BACK_OFF
        except (KafkaError, OSError) as error:
            self._emit("replica_fetch_failed", replica, error=str(error))
            return Taken.FAILED

    def _take(self, replica: Replica, state: FollowerState, answer: FetchedPartition) -> Taken:
        if answer.error_code == OffsetOutOfRange.code:
            return self._out_of_range(replica, state, answer)
        if answer.error_code in METADATA_BEHIND_CODES:
            return Taken.METADATA_BEHIND
        if answer.error_code:
            self._emit("replica_fetch_refused", replica, error_code=answer.error_code)
            return Taken.BACK_OFF
        if answer.diverging_epoch is not None:
            return self._diverged(replica, state, answer.diverging_epoch)
        appended = None
        if len(answer.records):
            appended = replica.log.append_as_follower(answer.records, now_ms=self._clock.wall_ms())
        if answer.log_start_offset > replica.log.log_start_offset:
            self._follow_log_start(replica, answer.log_start_offset)
        self._move_high_watermark(replica, state, answer.high_watermark)
        return Taken.DONE if appended is None else Taken.APPENDED

    def _move_high_watermark(self, replica: Replica, state: FollowerState, leader_high_watermark: int) -> None:
        """R5: to that of the leader, within the bounds of this log."""
        high_watermark = follower_high_watermark(
            leader_high_watermark=leader_high_watermark,
            log_start_offset=replica.log.log_start_offset,
            log_end_offset=replica.log.log_end_offset,
        )
        if high_watermark != state.high_watermark:
            entered = new(FollowerState)
            FollowerState.__init__(entered, image=state.image, high_watermark=high_watermark)
            replica.enter(entered)
            self._on_high_watermark(replica)

    def _follow_log_start(self, replica: Replica, log_start_offset: int) -> None:
        """R8. The log start never passes the own end: the records up to there must arrive first."""
        replica.log.maybe_increment_log_start(min(log_start_offset, replica.log.log_end_offset))

    def _diverged(self, replica: Replica, state: FollowerState, leader: EpochEnd) -> Taken:
        """R2: truncate to the offset where the logs may still agree; the next fetch shows whether they do."""
        log = replica.log
        before = (log.log_end_offset, log.latest_epoch)
        if log.latest_epoch == -1:
            target = min(state.high_watermark, log.log_end_offset)  # R4: the only truncation by high watermark
        else:
            own = log.end_offset_for_epoch(leader.epoch)
            own_end = log.log_end_offset if own is None else own.end_offset
            target = min(leader.end_offset, own_end, log.log_end_offset)
        self._truncate(replica, state, max(target, log.log_start_offset))
        return Taken.DONE if (log.log_end_offset, log.latest_epoch) != before else Taken.BACK_OFF

    def _truncate(self, replica: Replica, state: FollowerState, target: int) -> None:
        """Truncate, even if there is nothing to cut: an epoch that this replica began as leader without a record must
        be removed from the cache (KIP-101)."""
        end, epoch = replica.log.log_end_offset, replica.log.latest_epoch
        replica.log.truncate_to(target)
        start = replica.log.log_end_offset  # a batch that spans the target is removed whole
        if start < end:
            self._report_cut(replica, state, start=start, end=end, epoch=epoch)
        if state.high_watermark > start:
            replica.enter(replace(state, high_watermark=start))

    def _report_cut(self, replica: Replica, state: FollowerState, *, start: int, end: int, epoch: int) -> None:
        cut = {"from_offset": start, "to_offset": end, "epoch": epoch, "leader_epoch": state.leader_epoch}
        self._emit("truncated", replica, **cut, high_watermark=state.high_watermark)
        if start < state.high_watermark:
            # R4: these records were committed, and an unclean election has lost them
            self._emit(
                "truncated_below_high_watermark",
                replica,
                **{**cut, "to_offset": min(end, state.high_watermark)},
                high_watermark=state.high_watermark,
            )

    def _out_of_range(self, replica: Replica, state: FollowerState, answer: FetchedPartition) -> Taken:
        """R6. The leader reports its log start offset, and its log end as a diverging epoch."""
        log, leader_start = replica.log, answer.log_start_offset
        leader_end = answer.diverging_epoch.end_offset if answer.diverging_epoch is not None else None
        if leader_end is not None and log.log_end_offset > leader_end:
            if leader_end < log.log_start_offset:
                self._restart_at(replica, state, leader_start)
            else:
                self._truncate(replica, state, leader_end)
            return Taken.BACK_OFF
        if log.log_end_offset < leader_start:
            self._restart_at(replica, state, leader_start)
            return Taken.DONE
        self._emit("replica_fetch_out_of_range", replica, log_end_offset=log.log_end_offset, leader_end=leader_end)
        return Taken.BACK_OFF

    def _restart_at(self, replica: Replica, state: FollowerState, offset: int) -> None:
        log = replica.log
        if log.log_end_offset > log.log_start_offset:
            self._report_cut(replica, state, start=log.log_start_offset, end=log.log_end_offset, epoch=log.latest_epoch)
        log.truncate_fully_and_start_at(offset)
        replica.enter(replace(state, high_watermark=offset))

    def _emit(self, event: str, replica: Replica, **fields: object) -> None:
        self._events.emit(event, topic=replica.topic, partition=replica.key.partition, **fields)
