"""What became of a produce: one entry per record, in request order, with status 200 (the v2 dialect's way)."""

from __future__ import annotations

from typing import Any

from kraft.http.errors import KAFKA_FATAL, KAFKA_RETRIABLE
from kraft.protocol.errors import NotEnoughReplicas, NotEnoughReplicasAfterAppend, for_code
from replication.requests import ProduceOutcome

_ISR_TOO_SMALL = (NotEnoughReplicas.code, NotEnoughReplicasAfterAppend.code)


def written(partition: int, offset: int) -> dict[str, Any]:
    """`offset`: -1 when nobody knows it (acks=0)."""
    return {"partition": partition, "offset": offset if offset >= 0 else None, "error_code": None, "error": None}


def failed(partition: int, outcome: ProduceOutcome) -> dict[str, Any]:
    error = for_code(outcome.error_code, outcome.message)
    entry: dict[str, Any] = {
        "partition": partition,
        "offset": None,
        "error_code": KAFKA_RETRIABLE if error.retriable else KAFKA_FATAL,
        "error": error.message,
        "kafka_code": outcome.error_code,
        "retriable": error.retriable,
        "is_appended": outcome.is_appended,
    }
    if outcome.error_code in _ISR_TOO_SMALL:
        entry |= {"isr": list(outcome.isr), "min_isr": outcome.min_isr}
        entry |= {"leader": outcome.leader_id, "leader_epoch": outcome.leader_epoch}
    return entry


def document(offsets: list[dict[str, Any]], partitions: list[dict[str, Any]]) -> dict[str, Any]:
    """`partitions`: who leads those that were written to."""
    return {"offsets": offsets, "key_schema_id": None, "value_schema_id": None, "partitions": partitions}
