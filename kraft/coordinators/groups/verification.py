"""Offsets within a transaction: whether their partition of `__consumer_offsets` is in it (KIP-890)."""

from __future__ import annotations

from kraft.broker.transaction_verification import WAIT_MS, Support, TransactionVerifier
from kraft.coordinators.groups.requests import CommitInTransaction
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer


async def verify_offsets(
    verifier: TransactionVerifier, request: CommitInTransaction, partition: TopicPartition
) -> None:
    """Verify a partition of `__consumer_offsets`. Raises the KafkaError of a refusal."""
    support = Support.KNOWS_ABORTABLE if request.knows_abortable else Support.OLD
    refusals = await verifier.refusals(
        request.transactional_id,
        Producer(request.producer_id, request.producer_epoch),
        [partition],
        Support.ADDS_PARTITIONS if request.adds_partition else support,
        timeout_ms=WAIT_MS,
    )
    if partition in refusals:
        raise refusals[partition]
