"""InitProducerId (22): a producer asks for its id, and with a transactional id for the next epoch of it.

All versions have the same response. An id and epoch in the request (KIP-360) are those of a producer that lost its
place; without transactions it gets a new id, as in Kafka.
"""

from __future__ import annotations

from dataclasses import dataclass

from kraft.protocol import apis
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.init_producer_id_response import InitProducerIdResponseData
from kraft.wire.messages.common import Rpc

NO_PRODUCER_ID = -1
NO_EPOCH = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class InitProducerId:
    """A producer that asks for an id; with a transactional id it asks for the next epoch of that."""

    transactional_id: str | None = None
    transaction_timeout_ms: int = 0
    """Of its transactions, if it has a transactional id."""
    producer_id: int = NO_PRODUCER_ID
    epoch: int = NO_EPOCH
    key: bytes = b""
    """By which a repetition of this request is known; only our nodes send one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerIdAndEpoch:
    """What it is given."""

    producer_id: int
    epoch: int


def _request(request: InitProducerId, timeout_ms: int) -> InitProducerIdRequestData:
    return InitProducerIdRequestData.make(
        transactional_id=request.transactional_id,
        transaction_timeout_ms=timeout_ms if request.transactional_id is None else request.transaction_timeout_ms,
        producer_id=request.producer_id,
        producer_epoch=request.epoch,
        begin_key=request.key,
    )


INIT_PRODUCER_ID: Rpc[
    InitProducerId,
    ProducerIdAndEpoch,
    InitProducerIdRequestData,
    InitProducerIdResponseData,
] = Rpc(
    api=apis.INIT_PRODUCER_ID,
    response=InitProducerIdResponseData,
    to_request=_request,
    from_reply=lambda request, message: ProducerIdAndEpoch(
        producer_id=message.producer_id, epoch=message.producer_epoch
    ),
)
