"""One partition of a coordinator's topic that this broker leads: what is written to it, and how its leadership ends.

Invariant: state runs ahead of the log by exactly the appends that are under way, and whoever is answered waits for
those before it. An append that fails ends it: what was decided on is not certain, so the coordinator loads the
partition again, as it would anywhere else.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from kraft.coordinators.partition_loader import Reads
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    KafkaError,
    KafkaStorageError,
    NotCoordinator,
    NotLeaderOrFollower,
)
from kraft.protocol.primitives import Buffer
from metadata.environment import Environment
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.producers.state import Producer
from replication.requests import ProduceOutcome


class Replicas(Reads, Protocol):
    async def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        *,
        acks: int,
        timeout_ms: int,
        is_from_coordinator: bool,
    ) -> Mapping[TopicIdPartition, ProduceOutcome]: ...
    def producer(self, partition: TopicIdPartition, producer_id: int) -> Producer | None: ...
    def check_appendable(self, partition: TopicIdPartition) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What coordinators need of the node. Without a session others may lead by now what it led."""

    node_id: int
    environment: Environment
    replicas: Replicas
    settings: Callable[[], BrokerSettings]
    topic_settings: Callable[[str], TopicSettings]
    image: Callable[[], MetadataImage]
    has_session: Callable[[], bool]


class LedPartition(ABC):
    def __init__(self, partition: TopicIdPartition, leader_epoch: int, around: Surroundings) -> None:
        self.partition = partition
        self.leader_epoch = leader_epoch
        self.around = around
        self._is_loaded = False
        self._ended: KafkaError | None = None
        self._last_append: asyncio.Task[None] | None = None
        self._appends: set[asyncio.Task[None]] = set()

    # --- for subclasses ----------------------------------------------------------------------------------------

    @abstractmethod
    async def load(self, on_unreadable: Callable[[int, str], None]) -> int:
        """Returns how many records were read. `on_unreadable` is told the offset and the reason of each other one.
        Raises KafkaError."""

    @abstractmethod
    def append_nothing(self) -> asyncio.Task[None]:
        """A record that changes nothing, as a proof of leadership."""

    @abstractmethod
    def _append_failed(self) -> None:
        """It has ended because of an append that may be lost."""

    def _append_timeout_ms(self) -> int:
        return self.around.settings().offsets_commit_timeout_ms

    # --- life -------------------------------------------------------------------------------------------------

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
        return self.around.environment.clock.monotonic_ms()

    @property
    def wall_ms(self) -> int:
        return self.around.environment.clock.wall_ms()

    # --- appending --------------------------------------------------------------------------------------------

    def append_batch(self, batch: bytes) -> asyncio.Task[None]:
        """Send it on its way. The task fails with a KafkaError when it may be lost."""
        task = asyncio.get_running_loop().create_task(self._append(batch))
        self._appends.add(task)
        task.add_done_callback(self._appended)
        self._last_append = task
        return task

    @property
    def under_way(self) -> asyncio.Task[None] | None:
        """The last append, while it is not replicated: those before it are, when it is."""
        return None if self._last_append is None or self._last_append.done() else self._last_append

    async def settle(self) -> None:
        """Wait until all that was decided so far is replicated. Raises KafkaError."""
        if self.under_way is not None:
            await asyncio.shield(self.under_way)
        self.check()

    async def _append(self, batch: bytes) -> None:
        outcomes = await self.around.replicas.produce(
            {self.partition: batch}, acks=ACKS_ALL, timeout_ms=self._append_timeout_ms(), is_from_coordinator=True
        )
        outcome = outcomes[self.partition]
        if outcome.error_code:
            raise _refusal(outcome)

    def _appended(self, task: asyncio.Task[None]) -> None:
        self._appends.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, KafkaError):
            self.end(error)
            self._append_failed()
        elif error is not None:
            task.get_loop().call_exception_handler({"message": "a coordinator's append failed", "exception": error})


def _refusal(outcome: ProduceOutcome) -> KafkaError:
    """G5: as Kafka translates errors of the append."""
    if outcome.error_code in (NotLeaderOrFollower.code, KafkaStorageError.code):
        return NotCoordinator(f"this broker cannot write its coordinator's partition any more: {outcome.message}")
    return CoordinatorNotAvailable(f"the change is not replicated: {outcome.message or outcome.error_code}")
