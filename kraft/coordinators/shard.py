"""One partition of a coordinator's topic on its leader: load by replay, decide, append, answer when replicated.

Each coordinator derives its shard from `CoordinatorShard`, which knows nothing of groups and transactions. Invariant:
the state runs ahead of the log by exactly the appends that are on their way, and an answer waits for all appends before
it. While too few replicas are in sync nothing is decided that would have to be appended (P1): the request is refused,
and the state stays as it is, which Kafka's CoordinatorRuntime rolls back to. An append that fails later ends the shard:
what was decided is not certain then, so the table (`shards`) loads the partition again, as another broker would.

Leadership is taken for granted while the controller hears this broker. A deposed coordinator that does not know it has
nothing to wait for when it returns an offset or takes a heartbeat, and would return what is no longer so. Once the
broker's session with the controller may have lapsed, the shard proves before each request that it leads: a record that
changes nothing is replicated to all replicas in sync, which follow nobody in an epoch that is over. So coordinators go
on without a controller, and not at a broker that another has relieved.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from kraft.broker.permissions import Permissions
from kraft.broker.principal import Principal
from kraft.coordinators.partition_loader import InTransactions, replay
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    KafkaError,
    KafkaStorageError,
    NotCoordinator,
    NotEnoughReplicas,
    NotLeaderOrFollower,
)
from metadata.environment import Environment
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.manager.manager import ReplicaManager
from replication.producers.origin import COORDINATOR
from replication.requests import ProduceOptions, ProduceOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorContext:
    """What coordinators need of the node. Without a session, another broker may lead what this one led."""

    node_id: int
    environment: Environment
    replicas: ReplicaManager
    settings: Callable[[], BrokerSettings]
    topic_settings: Callable[[str], TopicSettings]
    image: Callable[[], MetadataImage]
    has_session: Callable[[], bool]
    permissions: Callable[[Principal], Permissions | None] = lambda _: None
    """What a principal may do; None: everything."""


@dataclass(frozen=True, slots=True)
class ShardNames:
    """The topic of a coordinator, and its words in messages and events."""

    topic: str
    contents: str
    """What the topic keeps: "groups"."""
    loaded_event: str
    """Emitted when a partition is loaded; the next: for each record that could not be read."""
    skipped_event: str


RecordT = TypeVar("RecordT")


class CoordinatorShard(ABC, Generic[RecordT]):
    names: ClassVar[ShardNames]
    nothing: ClassVar[Any]
    """A record that changes nothing, as a proof of leadership."""
    in_transactions: ClassVar[InTransactions[Any] | None] = None
    """How transactional batches of the topic are read; None where there are none."""

    def __init__(
        self,
        partition: TopicIdPartition,
        leader_epoch: int,
        context: CoordinatorContext,
        *,
        on_failed: Callable[[CoordinatorShard[Any]], None],
    ) -> None:
        """`on_failed` is called once the shard has ended because of an append that may be lost."""
        self.partition = partition
        self.leader_epoch = leader_epoch
        self.context = context
        self._on_failed = on_failed
        self._is_loaded = False
        self._ended: KafkaError | None = None
        self._last_append: asyncio.Task[None] | None = None
        self._appends: set[asyncio.Task[None]] = set()
        self._newest_proof: asyncio.Task[None] | None = None

    # --- what each coordinator defines ------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def decode_record(key: bytes, value: bytes | None) -> RecordT | None:
        """A record of the topic; None for one that this coordinator does not read. Raises ValueError."""

    @abstractmethod
    def apply(self, record: RecordT, *, is_replay: bool) -> None:
        """The one place where a record becomes state, when it is decided and when it is replayed."""

    @abstractmethod
    def after_load(self) -> None:
        """Begin what the loaded state asks for: timers, work that an earlier coordinator left undone."""

    @abstractmethod
    def encode(self, records: Sequence[RecordT]) -> bytes:
        """One batch of the records. Raises KafkaError for records that the log does not take in one batch."""

    @property
    @abstractmethod
    def append_timeout_ms(self) -> int:
        """How long an append may take until it counts as failed."""

    # --- life -------------------------------------------------------------------------------------------------

    async def load(self, on_unreadable: Callable[[int, str], None]) -> int:
        """Returns how many records were read. `on_unreadable` gets the offset and the reason of each other one.
        Raises KafkaError."""
        count = 0
        async for piece in replay(
            self.context.replicas,
            self.partition,
            self.decode_record,
            leader_epoch=self.leader_epoch,
            clock=self.context.environment.clock,
            transactions=self.in_transactions,
        ):
            for record in piece.records:
                self.apply(record, is_replay=True)
            for offset, reason in piece.unreadable:
                on_unreadable(offset, reason)
            count += len(piece.records)
        self._is_loaded = True
        self.after_load()
        return count

    def end(self, error: KafkaError) -> None:
        """This broker leads the partition no longer, or does not know what is in it."""
        if self._ended is None:
            self._ended = error

    def check(self) -> None:
        """Raises NotCoordinator 16 or CoordinatorNotAvailable 15 after the end, CoordinatorLoadInProgress 14 before
        the start."""
        if self._ended is not None:
            raise self._ended
        if not self._is_loaded:
            raise CoordinatorLoadInProgress(f"partition {self.partition.partition} is being loaded")

    @property
    def has_ended(self) -> bool:
        return self._ended is not None

    @property
    def is_loaded(self) -> bool:
        return self._is_loaded

    @property
    def now_ms(self) -> int:
        return self.context.environment.clock.monotonic_ms()

    @property
    def wall_ms(self) -> int:
        return self.context.environment.clock.wall_ms()

    # --- leadership -------------------------------------------------------------------------------------------

    async def ensure_leadership(self) -> None:
        """Called before each request. Raises NotCoordinator 16, CoordinatorLoadInProgress 14, or 15."""
        self.check()
        if not self.context.has_session():
            await self.prove_leadership()

    async def prove_leadership(self) -> None:
        """Wait for a proof that began after this call. Raises NotCoordinator 16: nothing of the request was done.

        One proof is on its way at most, for however many requests wait. A proof may be over before its callbacks have
        run, and awaiting what is over does not suspend: so there is no loop here, and no callback that has to come
        first.
        """
        before = self._newest_proof
        if before is not None and not before.done():
            await self._proven(before)
        if self._newest_proof is before:
            try:
                self.check_replicas()
            except CoordinatorNotAvailable as error:
                raise _unproven(error) from error
            self._newest_proof = self.append_batch(self.encode([self.nothing]))
        assert self._newest_proof is not None
        await self._proven(self._newest_proof)

    async def _proven(self, proof: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(proof)
        except KafkaError as error:
            raise _unproven(error) from error
        self.check()

    # --- appending --------------------------------------------------------------------------------------------

    @property
    def batch_bytes_max(self) -> int:
        """The log refuses a larger batch each time. So none may be appended: its failure would end the shard, which
        would be loaded again and meet it again."""
        topic = self.context.topic_settings(self.names.topic)
        return min(topic.max_message_bytes, topic.segment_size)

    def check_replicas(self) -> None:
        """Check before anything is decided that would be appended. Raises CoordinatorNotAvailable 15 while too few
        replicas are in sync."""
        try:
            self.context.replicas.produce.check_appendable(self.partition)
        except NotEnoughReplicas as error:
            raise CoordinatorNotAvailable(f"the change cannot be replicated: {error.message}") from error
        except KafkaError:
            return  # the append fails for the same reason, and ends the shard

    def append(self, records: Sequence[RecordT]) -> asyncio.Task[None]:
        """Apply the records and send them on their way. The task fails with a KafkaError when they may be lost. Raises,
        with nothing applied, CoordinatorNotAvailable 15 as `check_replicas` does, and KafkaError for records that the
        log does not take in one batch."""
        batch = self.encode(records)
        self.check_replicas()
        for record in records:
            self.apply(record, is_replay=False)
        return self.append_batch(batch)

    def append_batch(self, batch: bytes) -> asyncio.Task[None]:
        """Send a batch on its way. The task fails with a KafkaError when it may be lost."""
        return self.begin_append(self.write_batch(batch))

    def begin_append(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The append after all that have begun; it writes one batch when its turn comes."""
        task = asyncio.get_running_loop().create_task(work)
        self._appends.add(task)
        task.add_done_callback(self._appended)
        self._last_append = task
        return task

    @property
    def unreplicated_append(self) -> asyncio.Task[None] | None:
        """The last append until it is replicated. When it is, those before it are."""
        return None if self._last_append is None or self._last_append.done() else self._last_append

    async def settle(self) -> None:
        """Wait until all that was decided so far is replicated. Raises KafkaError."""
        if self.unreplicated_append is not None:
            await asyncio.shield(self.unreplicated_append)
        self.check()

    async def write_batch(self, batch: bytes) -> None:
        """Append and wait for the replicas: only within an append. Raises KafkaError.

        The shard ends in the step in which the append fails: callbacks of the task run later, and until then the append
        would be taken for a replicated one.
        """
        try:
            outcome = await self.outcome_of(batch)
            if outcome.error_code:
                raise refusal_of(outcome)
        except KafkaError as error:
            self.end(error)
            raise

    async def outcome_of(self, batch: bytes) -> ProduceOutcome:
        """Append and wait for the replicas. Raises KafkaError with nothing appended."""
        outcomes = await self.context.replicas.produce.outcomes(
            {self.partition: batch}, ProduceOptions(ACKS_ALL, self.append_timeout_ms), origin=COORDINATOR
        )
        return outcomes[self.partition]

    def _appended(self, task: asyncio.Task[None]) -> None:
        self._appends.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, KafkaError):
            self._on_failed(self)
        elif error is not None:
            task.get_loop().call_exception_handler({"message": "a coordinator's append failed", "exception": error})


def _unproven(error: KafkaError) -> KafkaError:
    return NotCoordinator(f"another broker may coordinate this by now: {error.message}")


def refusal_of(outcome: ProduceOutcome) -> KafkaError:
    """The error of a failed append as a coordinator's client gets it, translated as Kafka does (G5)."""
    if outcome.error_code in (NotLeaderOrFollower.code, KafkaStorageError.code):
        return NotCoordinator(f"this broker cannot write its coordinator's partition any more: {outcome.message}")
    return CoordinatorNotAvailable(f"the change is not replicated: {outcome.message or outcome.error_code}")
