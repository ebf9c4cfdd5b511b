"""InitProducerId (22): a producer without transactions asks for its id.

All versions have the same response. An id and epoch in the request (KIP-360) are those of a producer that lost its
place; without transactions it gets a new id, as in Kafka.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kraft.wire import apis, schemas
from kraft.wire.messages.common import Rpc

NO_PRODUCER_ID = -1
NO_EPOCH = -1
_FIRST_VERSION_WITH_ID = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class InitProducerId:
    transactional_id: str | None = None
    version: int = apis.INIT_PRODUCER_ID.version
    """Of the message: it is answered in the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerIdAndEpoch:
    producer_id: int
    epoch: int


def _request(request: InitProducerId, timeout_ms: int) -> Any:
    given = {"producer_id": NO_PRODUCER_ID, "producer_epoch": NO_EPOCH}
    return schemas.request_class(apis.INIT_PRODUCER_ID, request.version)(
        transactional_id=request.transactional_id,
        transaction_timeout=timeout_ms,
        **(given if request.version >= _FIRST_VERSION_WITH_ID else {}),
    )


def _response(version: int, *, code: int, producer_id: int = NO_PRODUCER_ID, epoch: int = NO_EPOCH) -> Any:
    return schemas.response_class(apis.INIT_PRODUCER_ID, version)(
        throttle_time=schemas.NO_THROTTLE,
        error_code=code,
        producer_id=producer_id,
        producer_epoch=epoch,
    )


INIT_PRODUCER_ID: Rpc[InitProducerId, ProducerIdAndEpoch] = Rpc(
    api=apis.INIT_PRODUCER_ID,
    to_request=_request,
    from_request=lambda message: InitProducerId(transactional_id=message.transactional_id, version=message.VERSION),
    to_reply=lambda request, reply: _response(
        request.version, code=0, producer_id=reply.producer_id, epoch=reply.epoch
    ),
    from_reply=lambda request, message: ProducerIdAndEpoch(
        producer_id=message.producer_id, epoch=message.producer_epoch
    ),
    refuse=lambda message, code: _response(message.VERSION, code=code),
)
