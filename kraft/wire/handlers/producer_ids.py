"""InitProducerId: a new id for a producer without transactions."""

from __future__ import annotations

from typing import Protocol

from kraft.protocol.errors import CoordinatorNotAvailable, InvalidRequest
from kraft.wire.generated.init_producer_id_request import InitProducerIdRequestData
from kraft.wire.handlers.served import Call, Served
from kraft.wire.messages.producer_ids import INIT_PRODUCER_ID, ProducerIdAndEpoch
from kraft.wire.primitives import TopLevel

FIRST_EPOCH = 0


class ProducerIdSource(Protocol):
    async def next_id(self) -> int: ...


def producer_id_handlers(source: ProducerIdSource | None) -> list[Served]:
    async def handle(call: Call[InitProducerIdRequestData]) -> TopLevel:
        request = INIT_PRODUCER_ID.requested(call.message)
        if request.transactional_id is not None:
            raise InvalidRequest(
                f"transactional.id {request.transactional_id!r}: this cluster has no transactions; leave it out for "
                "an idempotent producer"
            )
        if source is None:
            raise CoordinatorNotAvailable("this node has no broker role and so no producer ids; ask a broker")
        reply = ProducerIdAndEpoch(producer_id=await source.next_id(), epoch=FIRST_EPOCH)
        return INIT_PRODUCER_ID.to_reply(request, reply)

    return [Served(api=INIT_PRODUCER_ID.api, handle=handle, refuse=INIT_PRODUCER_ID.refuse)]
