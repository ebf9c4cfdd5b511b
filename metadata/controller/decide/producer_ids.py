"""Blocks of producer ids (AllocateProducerIds, KIP-730): no id is allocated twice."""

from __future__ import annotations

from kraft.protocol.errors import KafkaError
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.requests import AllocateProducerIds, ProducerIdBlock
from metadata.producer_ids import RESERVED_PRODUCER_IDS_FROM
from metadata.records import ProducerIdsRecord

PRODUCER_IDS_PER_BLOCK = 1000
"""Kafka's ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE."""


def allocate_producer_ids(controller: ControllerState, request: AllocateProducerIds) -> Decision:
    """Allocate the next block. Raises StaleBrokerEpoch 77."""
    controller.broker_at_epoch(request.broker_id, request.broker_epoch)
    first = controller.image.next_producer_id
    if first > RESERVED_PRODUCER_IDS_FROM - PRODUCER_IDS_PER_BLOCK:
        raise KafkaError(f"all producer ids up to {first} have been allocated")
    record = ProducerIdsRecord(
        broker_id=request.broker_id,
        broker_epoch=request.broker_epoch,
        next_producer_id=first + PRODUCER_IDS_PER_BLOCK,
    )
    reply = ProducerIdBlock(first=first, count=PRODUCER_IDS_PER_BLOCK)
    return Decision(liveness=controller.liveness, records=(record,), reply=reply)
