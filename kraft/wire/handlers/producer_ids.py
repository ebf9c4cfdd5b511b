"""InitProducerId: a new id for a producer without transactions, the next epoch for one with them."""

from __future__ import annotations

from typing import Protocol

from kraft.coordinators.transactions.decide import Producer
from kraft.protocol.errors import CoordinatorNotAvailable, NotCoordinator
from kraft.wire.generated.init_producer_id_request import InitProducerIdRequestData
from kraft.wire.handlers.served import Call, Served
from kraft.wire.messages.producer_ids import INIT_PRODUCER_ID, NO_PRODUCER_ID, InitProducerId, ProducerIdAndEpoch
from kraft.wire.primitives import TopLevel

FIRST_EPOCH = 0


class ProducerIdSource(Protocol):
    async def next_id(self) -> int: ...


class Coordinator(Protocol):
    async def init(
        self, transactional_id: str, *, timeout_ms: int, expected: Producer | None = None, key: bytes = b""
    ) -> Producer: ...


def producer_id_handlers(source: ProducerIdSource | None, coordinator: Coordinator | None = None) -> list[Served]:
    """The handler for InitProducerId: `source` gives ids to producers without transactions, `coordinator` to those with
    them.
    """

    async def handle(call: Call[InitProducerIdRequestData]) -> TopLevel:
        request = INIT_PRODUCER_ID.requested(call.message)
        if request.transactional_id is not None:
            return INIT_PRODUCER_ID.to_reply(request, await _next_epoch(coordinator, request.transactional_id, request))
        if source is None:
            raise CoordinatorNotAvailable("this node has no broker role and so no producer ids; ask a broker")
        reply = ProducerIdAndEpoch(producer_id=await source.next_id(), epoch=FIRST_EPOCH)
        return INIT_PRODUCER_ID.to_reply(request, reply)

    return [Served(api=INIT_PRODUCER_ID.api, handle=handle, refuse=INIT_PRODUCER_ID.refuse)]


async def _next_epoch(
    coordinator: Coordinator | None, transactional_id: str, request: InitProducerId
) -> ProducerIdAndEpoch:
    if coordinator is None:
        raise NotCoordinator("this node has no broker role and so coordinates no transactions")
    expected = None if request.producer_id == NO_PRODUCER_ID else Producer(request.producer_id, request.epoch)
    given = await coordinator.init(
        transactional_id, timeout_ms=request.transaction_timeout_ms, expected=expected, key=request.key
    )
    return ProducerIdAndEpoch(producer_id=given.producer_id, epoch=given.epoch)
