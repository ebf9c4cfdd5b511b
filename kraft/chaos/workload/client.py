"""The client of a producer or reader: its requests to the nodes, in any protocol.

One request goes to one node, and no layer below repeats it: the history contains each attempt. `RestClient`
(`workload.rest_client`) speaks HTTP to real nodes; a simulated world has a client of its own. `KafkaClient`
(`workload.kafka_client`) is a library that finds leaders and retries by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from kraft.chaos.history import Acks
from kraft.client.outcome import Outcome

KeyValue = tuple[str | None, str]
ClientProtocol: TypeAlias = Literal["rest", "kafka"]
"""The protocols of clients of a story."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one produce request, for one partition."""

    topic: str
    partition: int
    records: Sequence[KeyValue]
    acks: Acks
    timeout_ms: int
    """The time limit of the server."""
    value_bytes: int = 0
    """The length of values, padded with spaces."""
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceResult:
    """The result of one attempt of a produce request."""

    outcome: Outcome
    kafka_code: int | None = None
    offsets: tuple[int, ...] | None = None
    error: str | None = None
    may_try_again: bool = False
    cannot_now: bool = False
    """Another node may accept the request: this one refuses connections, or answers that it is not ready."""
    repeats: int = 0
    """The number of retries inside the client; the outcomes of attempts before the last one are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a read, and its limits."""

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
    """The result of one attempt of a read."""

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
        """Open links to these nodes, so that faults can break them before the first request."""
        ...

    async def produce(self, node: int, batch: Batch) -> ProduceResult: ...
    async def read(self, node: int, position: Position) -> FetchResult: ...
    async def close(self) -> None: ...
