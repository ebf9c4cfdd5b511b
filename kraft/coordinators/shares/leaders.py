"""All share partitions whose topic partitions this broker leads: fetching, acknowledging, and the share sessions.

A member fetches from several partitions at once. What is there is handed out at once; else the fetch waits in the
purgatory of the partitions that it holds for new records, and at the same time for records that somebody releases.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from kraft.broker.consumer_fetch import readable_batches
from kraft.broker.gateway import Gateway
from kraft.broker.measures import Measure
from kraft.coordinators.shard import CoordinatorContext
from kraft.coordinators.shares.dead_letters import DeadLetterWriter
from kraft.coordinators.shares.decide import Write, within_log
from kraft.coordinators.shares.expiry import Expiry, expired, without
from kraft.coordinators.shares.kept_reads import KeptReads, Read
from kraft.coordinators.shares.leader import ShareLeader, as_answered, limits_of
from kraft.coordinators.shares.measures import ShareTotals
from kraft.coordinators.shares.peek import Peeked, peeked
from kraft.coordinators.shares.routing import SharePersister
from kraft.coordinators.shares.settings import KnownSettings
from kraft.coordinators.shares.state import NO_EPOCH, ShareKey, Snapshot
from kraft.coordinators.tasks import Tasks
from kraft.protocol.batches.header import BatchHeader
from kraft.protocol.errors import (
    InvalidRequest,
    KafkaError,
    NotLeaderOrFollower,
    OffsetOutOfRange,
    UnknownTopicId,
    UnknownTopicOrPartition,
    for_code,
)
from kraft.protocol.primitives import Buffer
from kraft.values import value
from metadata.events import Events
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.settings import GroupSettings
from replication.manager.fetch import DeferredFetch
from replication.requests import (
    CONSUMER,
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
)
from replication.shares.acknowledgements import AcknowledgementBatch, checked
from replication.shares.partition import Acquired, Fetched, SharePartition, loaded
from replication.shares.sessions import SessionKey, ShareSessions
from replication.shares.settled import Before, Lease
from replication.shares.states import NO_OFFSET, AcknowledgeType

PASSES_MAX: Final = 100
"""Reads of one fetch that may find nothing but records that are too old; the next fetch goes on behind them."""
READ_BYTES_MAX: Final = 1_048_576
"""What one fetch reads of one partition at most; a first batch comes whole."""
EMPTY_READ_MS: Final = 50
"""Wait after a read that was answered at once and changed nothing: what is there does not fit into the answers that
clients have not taken yet, or an offset was set to where no record is."""
RESET_LOOK_MS: Final = 1_000
"""How often a share partition without sessions asks whether its group was reset. A reset notifies it, but that message
may be lost; its next write is fenced in any case."""
_DURATION: Final = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")

Results = Mapping[TopicIdPartition, "KafkaError | None"]
Leases = Sequence[tuple[TopicIdPartition, Lease]]
Key = TypeVar("Key")


@value(kw_only=True)
class ShareFetch:
    """What a member asks for."""

    group: str
    member: str
    partitions: Sequence[TopicIdPartition]
    """Each in its turn: the first ones may fill the answer."""
    wait_ms: int
    bytes_max: int
    records_max: int
    """0: nothing is handed out; the answer names the partitions in which there is something."""
    batch_size: int
    is_strict: bool
    """Never more than `records_max` (record_limit)."""
    room: Callable[[], int]
    """Bytes that may be read now."""
    lock_ms: int = 0
    """For how long the records are locked, for a receiver over REST."""


@value(kw_only=True)
class Handed:
    """What a member gets of one partition."""

    error: KafkaError | None = None
    records: Buffer = b""
    """Whole batches, with records in between that others have."""
    acquired: Sequence[Acquired] = ()
    leader_epoch: int = -1
    lock_ms: int = 0
    """For how long they are locked."""


class ShareLeaders:
    """The share partitions of one broker."""

    def __init__(
        self,
        context: CoordinatorContext,
        events: Events,
        *,
        persister: Callable[[], SharePersister],
        gateway: Callable[[], Gateway],
    ) -> None:
        self._context = context
        self._clock = context.environment.clock
        self._events = events
        self._persister = persister
        self.settings_of = KnownSettings(context.settings, context.image).of
        self.dead_letters = DeadLetterWriter(gateway, self._clock, events, self.settings_of)
        self._leaders: dict[ShareKey, ShareLeader] = {}
        self._before: dict[ShareKey, Before] = {}
        """A share partition that is loaded again in its leader epoch answers as it would have at the first time."""
        self._loads: dict[ShareKey, asyncio.Task[ShareLeader]] = {}
        self._tasks = Tasks("a share partition")
        self._totals = ShareTotals()
        self._kept = KeptReads()
        self.sessions = ShareSessions()

    # --- share partitions ---------------------------------------------------------------------------------------

    async def leader(self, key: ShareKey) -> ShareLeader:
        """Raises UnknownTopicId 100, UnknownTopicOrPartition 3, NotLeaderOrFollower 6, CoordinatorNotAvailable 15, or
        what the share coordinator refuses."""
        found = self._known(key)
        if found is not None:
            return found
        if (found := self._leaders.get(key)) is not None:
            await self._end_if_another_epoch(found)
            if found.ended is None:
                return found
        epoch = self._led(key).leader_epoch
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.get_running_loop().create_task(self._load(key, epoch))
            task.add_done_callback(lambda done: self._load_ended(key, done))
        return await asyncio.shield(task)

    def _known(self, key: ShareKey) -> ShareLeader | None:
        """The leader, if it has loaded the state. None too when it is time to ask whether its group was reset, which a
        group without sessions may have been: a leader that has to stay asks from time to time."""
        leader = self._leaders.get(key)
        if leader is None:
            return None
        has_sessions = self.sessions.has_group(key.group)
        leader.is_attended(has_sessions)
        if leader.ended is not None:
            return None
        is_late = self._clock.monotonic_ms() - leader.compared_ms >= RESET_LOOK_MS
        return None if is_late and not has_sessions and leader.is_idle else leader

    def _load_ended(self, key: ShareKey, task: asyncio.Task[ShareLeader]) -> None:
        self._loads.pop(key, None)
        if not task.cancelled():
            task.exception()  # all requests that waited for it may be gone

    async def _end_if_another_epoch(self, leader: ShareLeader) -> None:
        with suppress(KafkaError):  # else its next write is fenced, if it was reset
            asked_ms = self._clock.monotonic_ms()
            known = await self._persister().summary(leader.key)
            leader.compared_ms = asked_ms
            if known.state_epoch != leader.partition.state_epoch:
                leader.end(NotLeaderOrFollower("the group was reset; the state is loaded again"))

    def _led(self, key: ShareKey) -> PartitionImage:
        image = self._context.image()
        if key.topic_id not in image.topics:
            raise UnknownTopicId(f"no topic has the id {key.topic_id}")
        partition = image.partition(key.topic_id, key.partition)
        if partition is None:
            raise UnknownTopicOrPartition(f"partition {key.partition} of topic {key.topic_id} does not exist")
        if partition.leader != self._context.node_id:
            raise NotLeaderOrFollower(f"this broker does not lead partition {key.partition} of topic {key.topic_id}")
        return partition

    async def _load(self, key: ShareKey, epoch: int) -> ShareLeader:
        settings = self.settings_of(key.group)
        partition, is_start_saved = await self._loaded(key, epoch, settings)
        before = self._before.get(key)
        if before is not None and before.leader_epoch == epoch:
            partition.before = before
        self._before[key] = partition.before
        leader = self._leaders[key] = ShareLeader(
            key,
            partition,
            clock=self._clock,
            persister=self._persister(),
            is_read_committed=settings.share_isolation_level == "read_committed",
            is_start_saved=is_start_saved,
            dead_letters=self.dead_letters,
            run=self._tasks.run,
            on_ended=self._ended,
            on_lost=self._lost,
        )
        leader.settings = settings
        return leader

    async def _loaded(self, key: ShareKey, epoch: int, settings: GroupSettings) -> tuple[SharePartition, bool]:
        """The share partition as the share coordinator knows it, and whether its start offset is there, too."""
        try:
            state = await self._state(key, epoch)
        except KafkaError as error:
            raise as_answered(error) from error
        start_offset = state.start_offset
        if start_offset == NO_OFFSET:
            start_offset = await self._first_offset(key, settings)
        if self._led(key).leader_epoch != epoch:
            raise NotLeaderOrFollower("the leader epoch has changed meanwhile; ask again")
        partition: SharePartition = loaded(
            start_offset,
            state.batches,
            state_epoch=state.state_epoch,
            leader_epoch=epoch,
            limits=limits_of(settings),
            now_ms=self._clock.monotonic_ms(),
            wall_ms=self._clock.wall_ms(),
        )
        return partition, state.start_offset != NO_OFFSET

    async def _state(self, key: ShareKey, epoch: int) -> Snapshot:
        """What the group knows of the partition, without offsets that the log has lost (U11)."""
        persister, where = self._persister(), TopicIdPartition(key.topic_id, key.partition)
        earlier = await persister.summary(key)
        state = await persister.read(key, leader_epoch=epoch)
        end = None
        if NO_EPOCH < earlier.leader_epoch < epoch:
            end = self._context.replicas.offsets.offset_for_leader_epoch(where, earlier.leader_epoch)
        known_to = max([state.start_offset, *(batch.last_offset + 1 for batch in state.batches)])
        if end is None or known_to <= end.end_offset:
            return state
        kept = within_log(state, end.end_offset)
        await persister.initialize(key, state_epoch=state.state_epoch, start_offset=kept.start_offset)
        if kept.batches:
            write = Write(
                state_epoch=kept.state_epoch,
                leader_epoch=epoch,
                start_offset=kept.start_offset,
                delivery_complete_count=kept.delivery_complete_count,
                batches=kept.batches,
            )
            await persister.write(key, write)
        self._events.emit(
            "share_state_beyond_log",
            group=key.group,
            topic=self._context.image().topics[key.topic_id].name,
            partition=key.partition,
            log_end_offset=end.end_offset,
            forgotten_to=known_to - 1,
            start_offset=kept.start_offset,
            start_offset_before=state.start_offset,
        )
        return kept

    async def _first_offset(self, key: ShareKey, settings: GroupSettings) -> int:
        """Where share.auto.offset.reset begins."""
        where = TopicIdPartition(key.topic_id, key.partition)
        offsets, reset = self._context.replicas.offsets, settings.share_auto_offset_reset
        if reset == "earliest":
            return (await offsets.list_offset(where, EARLIEST_TIMESTAMP)).offset
        if reset != "latest":
            since_ms = self._clock.wall_ms() - _duration_ms(reset.partition(":")[2])
            found = await offsets.list_offset(where, max(since_ms, 0))
            if found.offset >= 0:
                return found.offset
        return (await offsets.list_offset(where, LATEST_TIMESTAMP)).offset

    def _ended(self, leader: ShareLeader) -> None:
        if self._leaders.get(leader.key) is leader:
            self._kept.drop(leader.key)
            del self._leaders[leader.key]
            self._totals.add(self._names(leader.key), leader.partition.counts)

    def _names(self, key: ShareKey) -> tuple[str, str]:
        topic = self._context.image().topics.get(key.topic_id)
        return key.group, str(key.topic_id) if topic is None else topic.name

    def _lost(self, leader: ShareLeader, records: int) -> None:
        group, topic = self._names(leader.key)
        self._events.emit(
            "share_records_lost_by_retention",
            group=group,
            topic=topic,
            partition=leader.key.partition,
            records=records,
            start_offset=leader.partition.start_offset,
        )

    def measures(self) -> Sequence[Measure]:
        """What members of share groups did with the records of this broker's partitions."""
        led = [(self._names(key), leader.partition) for key, leader in self._leaders.items()]
        return (*self._totals.measures(led), *self.dead_letters.measures())

    def gauges(self) -> Mapping[str, float]:
        """For /metrics: how many share partitions and share sessions are here."""
        return {"share_partitions": float(len(self._leaders)), "share_sessions": float(len(self.sessions))}

    # --- metadata and sessions ----------------------------------------------------------------------------------

    def on_metadata(self, image: MetadataImage) -> None:
        """Share partitions that this broker leads no longer, or under another epoch, end; settings are taken over."""
        for key, before in list(self._before.items()):
            led = image.partition(key.topic_id, key.partition)
            if led is None or led.leader_epoch != before.leader_epoch:
                del self._before[key]
        for leader in list(self._leaders.values()):
            partition = image.partition(leader.key.topic_id, leader.key.partition)
            if partition is None:
                leader.end(UnknownTopicOrPartition("the topic is deleted"))
            elif (partition.leader, partition.leader_epoch) != (
                self._context.node_id,
                leader.partition.leader_epoch,
            ):
                leader.end(NotLeaderOrFollower("another leader, or leader epoch, has begun"))
            else:
                settings = self.settings_of(leader.key.group)
                if leader.settings is settings:
                    continue
                leader.settings = settings
                self._kept.drop(leader.key)  # another isolation level reads other batches
                leader.partition.limits = limits_of(settings)
                leader.is_read_committed = settings.share_isolation_level == "read_committed"

    def disconnected(self, connection: object) -> None:
        """A client's connection has ended, and with it the sessions that used it last."""
        for key in self.sessions.disconnected(connection):
            self.release(key)

    def release(self, session: SessionKey) -> None:
        """The member's session is over: others get what it had."""
        for key, leader in list(self._leaders.items()):
            if key.group == session.group:
                leader.release(session.member)
                leader.is_attended(self.sessions.has_group(key.group))

    def stop(self) -> None:
        """Ends all share partitions."""
        for leader in list(self._leaders.values()):
            leader.end(NotLeaderOrFollower("this broker stops"))
        self._tasks.cancel()
        for load in self._loads.values():
            load.cancel()

    # --- acknowledging ------------------------------------------------------------------------------------------

    async def acknowledge(
        self,
        group: str,
        member: str,
        batches: Mapping[TopicIdPartition, Sequence[AcknowledgementBatch]],
        *,
        may_renew: bool,
    ) -> Results:
        """What became of each partition's acknowledgements: all of them are durable, or none has an effect."""
        return await (await self.begin_acknowledging(group, member, batches, may_renew=may_renew))()

    async def begin_acknowledging(
        self,
        group: str,
        member: str,
        batches: Mapping[TopicIdPartition, Sequence[AcknowledgementBatch]],
        *,
        may_renew: bool,
    ) -> Callable[[], Awaitable[Results]]:
        """The acknowledgements have begun, before those of any later request; what is returned waits for their end."""
        results: dict[TopicIdPartition, KafkaError | None] = {}
        answers: dict[TopicIdPartition, asyncio.Future[None]] = {}
        for where, those in batches.items():
            results[where] = None
            try:
                parts = checked(those, may_renew=may_renew)
                leader = await self.leader(ShareKey(group, where.topic_id, where.partition))
                answer = leader.acknowledge(member, parts)
                if answer is not None:
                    answers[where] = answer
            except KafkaError as error:
                results[where] = error

        async def settled() -> Results:
            results.update(await _refusals(answers))
            return results

        return settled

    async def settle(self, group: str, leases: Leases) -> Sequence[KafkaError | None]:
        """What became of each acknowledgement over REST; each of them may come again, and none depends on another."""
        return await (await self._begin_settling(group, leases))()

    async def exchange(
        self, leases: Leases, ask: ShareFetch
    ) -> tuple[Sequence[KafkaError | None], Mapping[TopicIdPartition, Handed]]:
        """Both at once, as Kafka's clients do it: the acknowledgements begin first, and become durable while records
        are handed out."""
        settled = await self._begin_settling(ask.group, leases)
        handed = await self.fetch(ask)
        return await settled(), handed

    async def _begin_settling(self, group: str, leases: Leases) -> Callable[[], Awaitable[Sequence[KafkaError | None]]]:
        results: list[KafkaError | None] = [None] * len(leases)
        answers: dict[int, asyncio.Future[None]] = {}
        may_renew = self.settings_of(group).share_renew_acknowledge_enable
        for at, (where, lease) in enumerate(leases):
            try:
                if lease.part.type is AcknowledgeType.RENEW and not may_renew:
                    raise InvalidRequest(f"share.renew.acknowledge.enable of group {group!r} is false")
                leader = await self.leader(ShareKey(group, where.topic_id, where.partition))
                answer = leader.settle(lease)
                if answer is not None:
                    answers[at] = answer
            except KafkaError as error:
                results[at] = error

        async def settled() -> Sequence[KafkaError | None]:
            for at, refusal in (await _refusals(answers)).items():
                results[at] = refusal
            return results

        return settled

    # --- looking ------------------------------------------------------------------------------------------------

    async def peek(
        self, group: str, partitions: Sequence[TopicIdPartition], *, records_max: int
    ) -> Mapping[TopicIdPartition, Peeked]:
        """What the group is not done with in each partition; nothing is acquired. A leader whose group was reset begins
        again by this. `records_max` 0: nothing else is done."""

        async def one(where: TopicIdPartition) -> Peeked:
            key = ShareKey(group, where.topic_id, where.partition)
            lost = self.dead_letters.lost_of(key)
            found = await self._look(key, records_max)
            return replace(found, dead_letters_lost=lost.records, last_dead_letter_error=lost.last_error)

        return dict(zip(partitions, await asyncio.gather(*map(one, partitions)), strict=True))

    async def _look(self, key: ShareKey, records_max: int) -> Peeked:
        if not records_max and key not in self._leaders:
            return Peeked()
        try:
            partition = await self._peeked(key)
        except KafkaError as error:
            return Peeked(error=error)
        return peeked(partition, records_max=records_max, now_ms=self._clock.monotonic_ms())

    async def _peeked(self, key: ShareKey) -> SharePartition:
        """The share partition, which does not come into being here by this: its group may begin later, at `latest`."""
        epoch, leader = self._led(key).leader_epoch, self._leaders.get(key)
        if leader is not None:
            await self._end_if_another_epoch(leader)
            if leader.ended is None:
                return leader.partition
        return (await self._loaded(key, epoch, self.settings_of(key.group)))[0]

    # --- fetching -----------------------------------------------------------------------------------------------

    async def fetch(self, ask: ShareFetch) -> Mapping[TopicIdPartition, Handed]:
        """What the member gets now, or within its wait; only partitions with records or errors."""
        deadline_ms = self._clock.monotonic_ms() + ask.wait_ms
        found: dict[TopicIdPartition, Handed] = {}
        leaders = await self._leaders_of(ask, found)
        fetch = _Fetch(ask, leaders, self._context, self._kept)
        while True:
            has_ended = await fetch.look(deadline_ms)
            found.update(fetch.handed)
            if found or (has_ended and not fetch.goes_on):
                return found
            await self._clock.sleep(EMPTY_READ_MS if fetch.stands_still else 0)

    async def _leaders_of(
        self, ask: ShareFetch, found: dict[TopicIdPartition, Handed]
    ) -> Mapping[TopicIdPartition, ShareLeader]:
        leaders: dict[TopicIdPartition, ShareLeader] = {}

        async def one(where: TopicIdPartition) -> None:
            try:
                leaders[where] = await self.leader(ShareKey(ask.group, where.topic_id, where.partition))
            except KafkaError as error:
                found[where] = Handed(error=error)

        missing: list[TopicIdPartition] = []
        for where in ask.partitions:
            key = ShareKey(ask.group, where.topic_id, where.partition)
            known = self._known(key)
            if known is not None:
                leaders[where] = known
                continue
            try:
                self._led(key)  # else each of thousands that do not exist would have a task
                missing.append(where)
            except KafkaError as error:
                found[where] = Handed(error=error)
        if not missing:
            return leaders
        await asyncio.gather(*map(one, missing))
        return {where: leaders[where] for where in ask.partitions if where in leaders}


async def _refusals(answers: Mapping[Key, asyncio.Future[None]]) -> Mapping[Key, KafkaError]:
    """Waits for all of them. The errors of those that failed."""
    refusals: dict[Key, KafkaError] = {}
    for key, answer in answers.items():
        try:
            await asyncio.shield(answer)
        except KafkaError as error:
            refusals[key] = error
    return refusals


class _Fetch:
    """One member's fetch while it looks and waits."""

    def __init__(
        self,
        ask: ShareFetch,
        leaders: Mapping[TopicIdPartition, ShareLeader],
        context: CoordinatorContext,
        kept: KeptReads,
    ) -> None:
        self.handed: dict[TopicIdPartition, Handed] = {}
        self._ask = ask
        self._leaders = leaders
        self._context = context
        self._replicas = context.replicas
        self._kept = kept
        self._clock = context.environment.clock
        self._records_left = ask.records_max
        self._bytes_each = 1
        self._has_passed = False
        """Whether this look has found nothing but records that are too old."""
        self._passes_left = PASSES_MAX
        self._offsets: Mapping[TopicIdPartition, int] = {}
        """Where the last read began."""
        self._wake = asyncio.Event()

    async def look(self, deadline_ms: int) -> bool:
        """Hands out what there is, else waits for something. Returns whether the wait is over."""
        wake = self._wake = asyncio.Event()
        self._has_passed, self._offsets = False, {}
        held = {
            where: leader
            for where, leader in self._leaders.items()
            if leader.holder is None and leader.ended is None and leader.partition.can_acquire()
        }
        self._bytes_each = max(1, min(self._ask.bytes_max // max(len(held), 1), READ_BYTES_MAX))
        for leader in held.values():
            leader.holder = self
        for leader in self._leaders.values():
            leader.waiting[wake] = self
        try:
            await self._read_what_is_there(held, wake)
            remaining_ms = deadline_ms - self._clock.monotonic_ms()
            if not self.handed and remaining_ms > 0 and not wake.is_set() and not self.goes_on:
                await self._wait(held, wake, remaining_ms)
        finally:
            for leader in self._leaders.values():
                leader.waiting.pop(wake, None)
            for leader in held.values():
                leader.let_go()
        for where, leader in self._leaders.items():
            if leader.ended is not None:
                self.handed.setdefault(where, Handed(error=leader.ended))
        return self._clock.monotonic_ms() >= deadline_ms

    @property
    def goes_on(self) -> bool:
        """Whether the next look begins at once, behind records that are too old."""
        return self._has_passed and self._passes_left > 0

    @property
    def stands_still(self) -> bool:
        """Whether the last look has read, and neither it nor anybody else has changed what the next one begins with."""
        return (
            bool(self._offsets)
            and not self._wake.is_set()
            and all(self._leaders[where].partition.next_fetch_offset() == at for where, at in self._offsets.items())
        )

    async def _wait(self, held: Mapping[TopicIdPartition, ShareLeader], wake: asyncio.Event, wait_ms: int) -> None:
        if held:
            await self._read(held, wait_ms=wait_ms, wake=wake)
            return
        try:
            async with self._clock.timeout(wait_ms):
                await wake.wait()
        except TimeoutError:
            return

    async def _read_what_is_there(self, held: Mapping[TopicIdPartition, ShareLeader], wake: asyncio.Event) -> None:
        """A strict member may have enough of the first partition: it has each read by itself until it has."""
        if not self._ask.is_strict or not self._ask.records_max:
            if held:
                await self._read(held, wait_ms=0, wake=wake)
            return
        for where, leader in held.items():
            if self._records_left > 0 and leader.ended is None and not self._take_kept(where, leader):
                await self._read({where: leader}, wait_ms=0, wake=wake)

    def _take_kept(self, where: TopicIdPartition, leader: ShareLeader) -> bool:
        """Whether records of an earlier read were handed out."""
        offset = leader.partition.next_fetch_offset()
        read = self._kept.of(leader.key, offset)
        if read is None:
            return False
        try:
            log_start_offset = self._replicas.offsets.log_start_offset(where)
        except KafkaError:  # the log has failed, or another broker leads: a read answers so
            return False
        if log_start_offset > offset:
            return False
        self._hand_out(where, leader, read, offset)
        return where in self.handed

    async def _read(self, held: Mapping[TopicIdPartition, ShareLeader], *, wait_ms: int, wake: asyncio.Event) -> None:
        begun = self._replicas.fetch.begin(self._request(held, wait_ms))
        if isinstance(begun, DeferredFetch):
            if not await _first_of(begun.future, wake):
                return
            begun = begun.answer()
        if begun.error_code:
            raise for_code(begun.error_code)
        for item in begun.partitions:
            where = TopicIdPartition(item.topic_id, item.partition)
            leader = held.get(where)
            if leader is not None and leader.ended is None:
                self._take(where, leader, item)

    def _request(self, held: Mapping[TopicIdPartition, ShareLeader], wait_ms: int) -> FetchRequest:
        self._offsets = {where: leader.partition.next_fetch_offset() for where, leader in held.items()}
        return FetchRequest(
            replica_id=CONSUMER,
            replica_epoch=-1,
            wait_ms_max=wait_ms,
            bytes_min=1,
            bytes_max=self._ask.bytes_max,
            partitions=tuple(
                FetchPartition(
                    topic_id=where.topic_id,
                    partition=where.partition,
                    current_leader_epoch=held[where].partition.leader_epoch,
                    fetch_offset=offset,
                    last_fetched_epoch=-1,
                    log_start_offset=-1,
                    bytes_max=self._bytes_each,
                )
                for where, offset in self._offsets.items()
            ),
            room=self._ask.room,
            is_read_committed=next(iter(held.values())).is_read_committed,
        )

    def _take(self, where: TopicIdPartition, leader: ShareLeader, item: FetchedPartition) -> None:
        if item.error_code == OffsetOutOfRange.code:
            leader.log_started(item.log_start_offset)
            return
        if item.error_code:
            self.handed[where] = Handed(error=for_code(item.error_code))
            return
        if item.log_start_offset > leader.partition.start_offset:
            leader.log_started(item.log_start_offset)
        if self._records_left <= 0 < self._ask.records_max:
            return
        batches = list(readable_batches(item.records, item.aborted))
        if not batches:
            return
        if not self._ask.records_max:
            self.handed[where] = Handed()
            return
        self._hand_out(where, leader, Read(item.records, batches), self._offsets[where])

    def _hand_out(self, where: TopicIdPartition, leader: ShareLeader, read: Read, offset: int) -> None:
        batches = read.since(offset)
        fetched = Fetched(
            offset,
            batches[-1][1].next_offset,
            [(header.base_offset, header.last_offset) for _, header, is_readable in batches if is_readable],
        )
        acquired = self._acquire(leader, fetched)
        expiry = self._expiry(leader)
        if expiry.is_possible:
            headers = [(position, header) for position, header, is_readable in batches if is_readable]
            fresh = self._fresh(leader, fetched, acquired, expiry, read.records, headers)
            if acquired and not fresh:
                self._has_passed = True
                self._passes_left -= 1
            acquired = fresh
        if not acquired:
            return
        self._records_left -= sum(last - first + 1 for first, last, _ in acquired)
        first, last = acquired[0].first_offset, acquired[-1].last_offset
        is_over_rest = bool(self._ask.lock_ms)
        self.handed[where] = Handed(
            records=read.cut(first, last) if is_over_rest else read.whole(first, last),
            acquired=acquired,
            leader_epoch=leader.partition.leader_epoch,
            lock_ms=self._ask.lock_ms,
        )
        if is_over_rest and last < batches[-1][1].last_offset:
            self._kept.keep(leader.key, read)
        else:
            self._kept.drop(leader.key)

    def _acquire(self, leader: ShareLeader, fetched: Fetched) -> Sequence[Acquired]:
        return leader.acquire(
            self._ask.member,
            fetched,
            max_records=self._records_left,
            batch_size=self._ask.batch_size,
            is_strict=self._ask.is_strict,
            lock_ms=self._ask.lock_ms,
        )

    def _expiry(self, leader: ShareLeader) -> Expiry:
        assert leader.settings is not None
        topic = self._context.image().topics.get(leader.key.topic_id)
        reads_headers = topic is not None and self._context.topic_settings(topic.name).record_expiry_enable
        return Expiry(after_ms=leader.settings.share_record_expiry_ms, reads_headers=reads_headers)

    def _fresh(
        self,
        leader: ShareLeader,
        fetched: Fetched,
        acquired: Sequence[Acquired],
        expiry: Expiry,
        records: Buffer,
        headers: Sequence[tuple[int, BatchHeader]],
    ) -> Sequence[Acquired]:
        """What was acquired without records that are too old; further ones in their place while all of them are."""
        now_ms = self._clock.wall_ms()
        while acquired:
            over = expired(records, headers, acquired, expiry, now_ms)
            if not over:
                break
            leader.expire_records(self._ask.member, over)
            left = without(acquired, over)
            if left:
                return left
            acquired = self._acquire(leader, fetched)
        return acquired


async def _first_of(future: asyncio.Future[Any], wake: asyncio.Event) -> bool:
    """Whether the future was first; else it is cancelled."""
    woken = asyncio.get_running_loop().create_task(wake.wait())
    try:
        await asyncio.wait((future, woken), return_when=asyncio.FIRST_COMPLETED)
    finally:
        woken.cancel()
        is_done = future.done()
        if not is_done:
            future.cancel()
    return is_done


def _duration_ms(text: str) -> int:
    """Milliseconds of an ISO-8601 duration of days and smaller units."""
    found = _DURATION.fullmatch(text)
    assert found is not None, text
    days, hours, minutes, seconds = (float(each or 0) for each in found.groups())
    return int((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000)
