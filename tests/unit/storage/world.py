"""A partition log on a real folder, opened and closed at will, and batches to put into it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.runtime.environment import close_environment, system_environment
from kraft.runtime.files import DiskFiles
from kraft.runtime.open_files import CachedFiles
from metadata.environment import Environment
from metadata.settings import TopicSettings
from replication.producers.state import ProducerLimits
from replication.storage.append_cache import RecentAppends
from replication.storage.partition_log import PartitionLog
from replication.storage.recovery import LoadedLog, LoadPlan, load_log

NOW_MS = 1_700_000_000_000
TOPIC_ID = UUID("0f0e0d0c-0b0a-4908-8706-050403020100")

T = TypeVar("T")


@dataclass
class RecordedEvents:
    seen: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def emit(self, event: str, /, **fields: object) -> None:
        self.seen.append((event, fields))

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


def few_files() -> CachedFiles:
    """As a node's files, and so few open at once that most uses open one again."""
    return CachedFiles(DiskFiles(), open_max=2)


def run(test: Callable[[Environment], Awaitable[T]], **changes: Any) -> T:
    """Run `test` with a real environment, of which `changes` replace parts."""

    async def main() -> T:
        environment = system_environment(files=few_files())
        try:
            return await test(replace(environment, **changes))
        finally:
            close_environment(environment)

    return asyncio.run(main())


@contextmanager
def idle_environment() -> Iterator[Environment]:
    """For tests that never wait."""
    loop = asyncio.new_event_loop()
    environment = system_environment(loop, files=few_files())
    try:
        yield environment
    finally:
        close_environment(environment)
        loop.close()


LIMITS = ProducerLimits(expiration_ms=86_400_000, allocated_max=100, reserved_max=100, aborted_max=100)


def load(
    environment: Environment,
    folder: str,
    *,
    settings: TopicSettings | None = None,
    is_clean: bool = False,
    recovery_point: int = 0,
    log_start_offset: int = 0,
    limits: ProducerLimits = LIMITS,
    now_ms: int = NOW_MS,
) -> tuple[PartitionLog, LoadedLog]:
    settings = settings or TopicSettings()
    loaded = load_log(
        LoadPlan(
            files=environment.files,
            folder=folder,
            settings=settings,
            recovery_point=recovery_point,
            log_start_offset=log_start_offset,
            is_clean=is_clean,
            now_ms=now_ms,
            producer_limits=limits,
        )
    )
    log = PartitionLog(
        environment,
        loaded,
        topic="t",
        partition=0,
        topic_id=TOPIC_ID,
        folder=folder,
        settings=settings,
        flushed_offset=recovery_point,
        on_failure=lambda log, error: None,
        on_damage=lambda log, reason: None,
        on_roll=lambda log: None,
        on_index_rebuilt=lambda log, segment, reason: None,
        recent=RecentAppends(),
        producer_limits=lambda: limits,
    )
    return log, loaded


def batch(
    count: int = 1, *, timestamp_ms: int = NOW_MS, value: bytes = b"value", compression: str = "none", **options: Any
) -> bytes:
    records = [NewRecord(b"key-%d" % i, value, [], timestamp_ms + i) for i in range(count)]
    return build_batch(records, compression=compression, **options)
