"""New producer ids for idempotent producers: out of blocks that the controller gives to this broker (KIP-730).

Invariant: an id is handed out once. A block that is nearly used up makes the next one be fetched, so that nobody waits
for the controller; only one request for a block is under way at a time. What is left of a block when the process ends
is lost, as in Kafka: there are 2^62 of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kraft.broker.control import Control
from kraft.protocol.errors import CoordinatorLoadInProgress, KafkaError
from metadata.controller.requests import AllocateProducerIds

Reply = TypeVar("Reply")

BLOCK_TIMEOUT_MS = 5_000
"""How long a block is waited for; then the producer gets an error, and tries again."""
PREFETCH_AT = 0.1
"""Share of a block that is left when the next one is fetched (Kafka's PREFETCH_THRESHOLD, seen from the end)."""


class ProducerIds:
    def __init__(self, *, broker_id: int, control: Control, broker_epoch: Callable[[], int]) -> None:
        self._broker_id = broker_id
        self._control = control
        self._broker_epoch = broker_epoch
        self._block = range(0)
        self._next_block = range(0)
        self._prefetch_below = 0
        self._fetching: asyncio.Task[None] | None = None

    async def next_id(self) -> int:
        """Raises CoordinatorLoadInProgress 14 (retriable) when the controller gives none in time."""
        while not self._block:
            if not self._next_block:
                await self._fetched()  # for all who wait: another may have taken the block over meanwhile
                continue
            self._block, self._next_block = self._next_block, range(0)
            self._prefetch_below = int(len(self._block) * PREFETCH_AT)
        producer_id, self._block = self._block[0], self._block[1:]
        if len(self._block) <= self._prefetch_below and not self._next_block:
            self._fetch()
        return producer_id

    async def stop(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    async def _fetched(self) -> None:
        try:
            await asyncio.shield(self._fetch())
        except KafkaError as error:
            raise CoordinatorLoadInProgress(f"the controller gave no producer ids: {error.message}") from error

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_block())
            self._fetching.add_done_callback(_retrieve)
        return self._fetching

    async def _fetch_block(self) -> None:
        request = AllocateProducerIds(broker_id=self._broker_id, broker_epoch=self._broker_epoch())
        block = await self._control.control(request, timeout_ms=BLOCK_TIMEOUT_MS)
        if block.count < 1:
            raise KafkaError(f"the controller gave a block of {block.count} producer ids")
        self._next_block = range(block.first, block.first + block.count)


def _retrieve(task: asyncio.Task[None]) -> None:
    """A waiting caller gets the failure; a prefetch is tried again at the next id."""
    if not task.cancelled():
        task.exception()
