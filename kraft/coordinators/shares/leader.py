"""One share partition on the leader of its topic partition: the state machine with its clock, its writes and its waits.

The state is loaded from the share coordinator, which fences earlier leaders by it, at the first request. One member at
a time fetches; the others wait until it has done so, or something was released. Writes follow one another. A write that
is fenced ends the object: the next request loads the state again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from kraft.coordinators.shares.dead_letters import DeadLetterWriter
from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.routing import SharePersister
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    FencedLeaderEpoch,
    FencedStateEpoch,
    InvalidRequest,
    KafkaError,
    NotCoordinator,
    NotLeaderOrFollower,
)
from metadata.environment import Clock, TimerHandle
from metadata.settings import GroupSettings
from replication.shares.acknowledgements import Acknowledgement, Part
from replication.shares.partition import Acquired, Fetched, ShareLimits, SharePartition, StateWrite
from replication.shares.settled import Lease

RETRY_MS: Final = 1_000
"""Wait after a write that failed before something is written that nobody waits for."""


class ShareLeader:
    """One share partition that this broker leads."""

    def __init__(
        self,
        key: ShareKey,
        partition: SharePartition,
        *,
        clock: Clock,
        persister: SharePersister,
        is_read_committed: bool,
        is_start_saved: bool,
        dead_letters: DeadLetterWriter,
        run: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_ended: Callable[[ShareLeader], None],
        on_lost: Callable[[ShareLeader, int], None],
    ) -> None:
        self.key = key
        self.partition = partition
        self.is_read_committed = is_read_committed
        self.settings: GroupSettings | None = None
        """Its limits were made of these."""
        self.compared_ms = clock.monotonic_ms()
        """When its state epoch was last that of the share coordinator."""
        self.holder: object | None = None
        """The fetch that goes on now; no other one begins meanwhile."""
        self.waiting: dict[asyncio.Event, object] = {}
        """The fetches that wait for this partition, in the order in which they came, and whose they are."""
        self.ended: KafkaError | None = None
        self._is_unattended = False
        self._is_start_saved = is_start_saved
        self._clock = clock
        self._persister = persister
        self._run = run
        self._on_ended = on_ended
        self._on_lost = on_lost
        """Called with the number of records that the log has deleted before anybody accepted them."""
        self._lost = 0
        self._answers: dict[Acknowledgement, asyncio.Future[None]] = {}
        self._timer: TimerHandle | None = None
        self._timer_ms = 0
        self._has_failed = False
        self._dead_letters = dead_letters
        self._letters = partition.waiting_dead_letters()
        """Those that have to be written; they count as in flight, and so they are bounded."""
        self._sending: asyncio.Task[None] | None = None
        self._send_letters()
        self._set_timer()

    # --- requests -----------------------------------------------------------------------------------------------

    def acquire(
        self, member: str, fetched: Fetched, *, max_records: int, batch_size: int, is_strict: bool, lock_ms: int = 0
    ) -> Sequence[Acquired]:
        """Hands out what was read."""
        acquired = self.partition.acquire(
            member,
            fetched,
            max_records=max_records,
            batch_size=batch_size,
            is_strict=is_strict,
            now_ms=self._clock.monotonic_ms(),
            lock_ms=lock_ms,
        )
        self._went_on()
        return acquired

    def expire_records(self, member: str, ranges: Sequence[tuple[int, int]]) -> None:
        """These of the records that the member has just acquired are too old."""
        self.partition.expire_records(member, ranges)
        self._went_on()

    def acknowledge(self, member: str, parts: Sequence[Part]) -> asyncio.Future[None] | None:
        """Done when it is durable; None: nothing has to be written. Raises InvalidRecordState 121, InvalidRequest
        42."""
        self.check()
        return self._begun(self.partition.acknowledge(member, parts, self._clock.monotonic_ms()))

    def settle(self, lease: Lease) -> asyncio.Future[None] | None:
        """The same for an acknowledgement over REST, which may come again. Raises InvalidRecordState 121."""
        self.check()
        now_ms, wall_ms = self._clock.monotonic_ms(), self._clock.wall_ms()
        return self._begun(self.partition.settle(lease, now_ms=now_ms, wall_ms=wall_ms))

    def _begun(self, acknowledgement: Acknowledgement | None) -> asyncio.Future[None] | None:
        if acknowledgement is None:
            self._went_on()
            return None
        answer = self._answers.get(acknowledgement)
        if answer is None:
            answer = self._answers[acknowledgement] = asyncio.get_running_loop().create_future()
        self._went_on()
        return answer

    def release(self, member: str) -> None:
        """The member's session is closed."""
        if self.partition.release(member):
            self._became_available()
        self._went_on()

    def is_attended(self, is_so: bool) -> None:
        """Whether a member of the group has a session here. Without one the group may be empty, and may be reset, which
        no leader is notified: so the state is loaded again for the next member, once all of it is written."""
        self._is_unattended = not is_so
        if self._is_unattended and not self._is_start_saved:  # else `latest` would begin behind what comes meanwhile
            self.partition.save_start()
            self._begin_write()
        self._end_unattended()

    @property
    def is_idle(self) -> bool:
        """Whether nobody fetches or has a lock, and the share coordinator knows all."""
        is_used = self.holder is not None or self.waiting
        return not is_used and self.ended is None and self.partition.is_settled

    def _end_unattended(self) -> None:
        remembers = self.partition.remembers_until_ms > self._clock.monotonic_ms()
        if self._is_unattended and not remembers and self.is_idle:
            self.end(NotLeaderOrFollower("the group has no session here; the state is loaded again for the next one"))

    def log_started(self, offset: int) -> None:
        """The log begins there now."""
        self.partition.log_started(offset)
        self._went_on()

    def check(self) -> None:
        """Raises the error by which it has ended."""
        if self.ended is not None:
            raise self.ended

    def end(self, error: KafkaError) -> None:
        """This broker does not lead the partition any more, or another leader has begun."""
        if self.ended is not None:
            return
        self.ended = error
        if self._timer is not None:
            self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # its request may be gone
        self._answers.clear()
        for wake in self.waiting:
            wake.set()
        self._on_ended(self)

    # --- waits --------------------------------------------------------------------------------------------------

    def _became_available(self) -> None:
        """The fetch that holds the partition looks again, else the one that has waited longest."""
        for wake, owner in self.waiting.items():
            if self.holder is None or self.holder is owner:
                wake.set()
                return

    def let_go(self) -> None:
        """The fetch that held the partition is over."""
        self.holder = None
        if self.waiting and self.partition.can_acquire():
            self._became_available()

    # --- time ---------------------------------------------------------------------------------------------------

    def _went_on(self) -> None:
        """After each event: writes and the clock follow the state."""
        lost = self.partition.counts.lost_by_retention
        if lost > self._lost:
            self._on_lost(self, lost - self._lost)
            self._lost = lost
        if self.ended is not None:
            return
        self._begin_write()
        self._end_unattended()
        self._set_timer()

    def _set_timer(self) -> None:
        deadline_ms = self.partition.deadline_ms()
        if self.ended is None and deadline_ms is not None and (self._timer is None or deadline_ms < self._timer_ms):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_ms = deadline_ms
            self._timer = self._clock.call_later(max(0, deadline_ms - self._clock.monotonic_ms()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self.partition.expire(self._clock.monotonic_ms()):
            self._became_available()
        self._went_on()

    # --- writes -------------------------------------------------------------------------------------------------

    def _begin_write(self) -> None:
        if self._has_failed and not self.partition.has_waiting_acknowledgements:
            return
        self.partition.wall_ahead_ms = self._clock.wall_ms() - self._clock.monotonic_ms()
        write = self.partition.begin_write()
        if write is not None:
            self._run(self._persist(write))

    async def _persist(self, write: StateWrite) -> None:
        error: KafkaError | None = None
        request = Write(
            state_epoch=self.partition.state_epoch,
            leader_epoch=self.partition.leader_epoch,
            start_offset=write.start_offset,
            delivery_complete_count=write.delivery_complete_count,
            batches=write.batches,
        )
        try:
            await self._persister.write(self.key, request)
        except (FencedLeaderEpoch, FencedStateEpoch) as fenced:
            self.end(NotLeaderOrFollower(f"another leader has begun: {fenced.message}"))
            return
        except KafkaError as refused:
            error = as_answered(refused)
        if self.ended is not None:
            return
        self._is_start_saved |= error is None
        could_acquire = self.partition.can_acquire()
        self._letters += self.partition.end_write(error, self._clock.monotonic_ms())
        self._send_letters()
        for acknowledgement in write.acknowledgements:
            answer = self._answers.pop(acknowledgement)
            if answer.done():
                continue
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)
                answer.exception()
        has_released = self.partition.next_fetch_offset() <= self.partition.end_offset
        if has_released or (self.partition.can_acquire() and not could_acquire):
            self._became_available()
        self._has_failed = error is not None
        if error is not None:
            self._clock.call_later(RETRY_MS, self._try_again)
        self._went_on()

    def _try_again(self) -> None:
        self._has_failed = False
        self._went_on()

    # --- dead letters -------------------------------------------------------------------------------------------

    def _send_letters(self) -> None:
        """One after the other: what comes meanwhile is in the next batch."""
        if self._letters and self._sending is None:
            self._sending = self._run(self._send())

    async def _send(self) -> None:
        while self._letters:
            letters, self._letters = self._letters, []
            lost = await self._dead_letters.write(self.key, letters)
            for each in letters:
                self.partition.dead_lettered(each, lost)
            if self.partition.can_acquire():
                self._became_available()  # they were in flight
            self._went_on()
        self._sending = None


def as_answered(error: KafkaError) -> KafkaError:
    """An error of the share coordinator as a member gets it. A share partition that was not initialized is
    UNKNOWN_SERVER_ERROR -1: the member has sent nothing that is wrong. Source: SharePartition.fetchPersisterError."""
    if isinstance(error, NotCoordinator | CoordinatorLoadInProgress):
        return CoordinatorNotAvailable(error.message)
    if isinstance(error, FencedLeaderEpoch | FencedStateEpoch):
        return NotLeaderOrFollower(error.message)
    if isinstance(error, InvalidRequest):
        return KafkaError(error.message)
    return error


def limits_of(settings: Any) -> ShareLimits:
    """The limits that a group's settings have."""
    return ShareLimits(
        delivery_count=settings.share_delivery_count_limit,
        record_locks=settings.share_partition_max_record_locks,
        lock_duration_ms=settings.share_record_lock_duration_ms,
        has_dead_letters=bool(settings.errors_deadletterqueue_topic_name),
        retry_backoff_ms=settings.share_retry_backoff_ms,
        retry_backoff_max_ms=settings.share_retry_backoff_max_ms,
    )
