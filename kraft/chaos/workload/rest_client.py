"""A client that speaks HTTP to real nodes, through a link of its own to each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from kraft.chaos.workload.client import Batch, FetchResult, Position, ProduceResult
from kraft.chaos.workload.requests import fetched, produce_request, produce_result, read_request
from kraft.client.transport import Transport


class RestClient:
    """Implements `Client`. Two requests in flight never share a connection."""

    def __init__(self, name: str, address: Callable[[str, int], Awaitable[str]], *, connections_max: int) -> None:
        """`address`: the base URL of this client's link to a node."""
        self._name = name
        self._address = address
        self._connections_max = connections_max
        self._addresses: dict[int, str] = {}
        self._transport: Transport | None = None

    async def open(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._addresses[node] = await self._address(self._name, node)

    async def produce(self, node: int, batch: Batch) -> ProduceResult:
        request = produce_request(
            batch.topic,
            batch.partition,
            batch.records,
            acks=batch.acks,
            timeout_ms=batch.timeout_ms,
            value_bytes=batch.value_bytes,
            idempotency_key=batch.idempotency_key,
        )
        return produce_result(await self._opened().send(self._addresses[node], request), acks=batch.acks)

    async def read(self, node: int, position: Position) -> FetchResult:
        request = read_request(
            position.topic,
            position.partition,
            position.offset,
            wait_ms=position.wait_ms,
            bytes_max=position.bytes_max,
            timeout_ms=position.timeout_ms,
            is_read_committed=position.is_read_committed,
        )
        return fetched(await self._opened().send(self._addresses[node], request))

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    def _opened(self) -> Transport:
        if self._transport is None:
            self._transport = Transport(connections_max=self._connections_max)
        return self._transport
