"""What a producer or a reader needs of its way to the nodes, whatever protocol it speaks.

One request goes to one node, and nothing below this repeats it: the history has to know each attempt. `RestClient`
(`workload.rest_client`) speaks HTTP to real nodes; a simulated world has a client of its own. `KafkaClient`
(`workload.kafka_client`) is another's library, which finds leaders and repeats as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from kraft.chaos.history import Acks
from kraft.client.outcome import Outcome

KeyValue = tuple[str | None, str]
Door: TypeAlias = Literal["rest", "kafka"]
"""What clients of a story speak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one produce request, for one partition."""

    topic: str
    partition: int
    records: Sequence[KeyValue]
    acks: Acks
    timeout_ms: int
    """How long the server may take."""
    value_bytes: int = 0
    """Values are filled up to this length."""
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceResult:
    """What one attempt of a produce came to."""

    outcome: Outcome
    kafka_code: int | None = None
    offsets: tuple[int, ...] | None = None
    error: str | None = None
    may_try_again: bool = False
    cannot_now: bool = False
    """Another node may be able to: nobody listens there, or it says that it cannot, as one that begins does."""
    repeats: int = 0
    """How often the client sent it again by itself; nobody knows what the attempts before the last one came to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a read begins, and its limits."""

    topic: str
    partition: int
    offset: int | str
    """An offset, or `latest`."""
    wait_ms: int
    bytes_max: int
    timeout_ms: int
    is_read_committed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """What one attempt of a read came to."""

    outcome: Outcome
    kafka_code: int | None = None
    next_offset: int | None = None
    high_watermark: int | None = None
    log_start_offset: int | None = None
    records: tuple[tuple[int, str], ...] = ()
    error: str | None = None
    cannot_now: bool = False


class Client(Protocol):
    async def open(self, nodes: Sequence[int]) -> None:
        """Make its links to these nodes, so that they can be broken before it has sent anything."""
        ...

    async def produce(self, node: int, batch: Batch) -> ProduceResult: ...
    async def read(self, node: int, position: Position) -> FetchResult: ...
    async def close(self) -> None: ...
