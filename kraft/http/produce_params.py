"""What a produce asks of the cluster beside its records: `acks`, `timeout`, `min_isr`, and who has taken them.

`min_isr` is a request's own min.insync.replicas: with fewer in the ISR nothing is sent (19); with fewer when the
records were replicated they are in the log and the answer says so (20). It can ask for more than the topic, never less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from kraft.http.endpoint import Call, Parameter
from kraft.http.query import ACKS, ALL, TIMEOUT, acks_of, integer
from kraft.protocol.errors import NotEnoughReplicas, NotEnoughReplicasAfterAppend
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from replication.requests import ProduceOutcome

REPLICAS_MAX = 32_767
_NAME = "min_isr"
MIN_ISR = Parameter(
    name=_NAME,
    description="With acks=all: the least ISR that must have the records, if more than min.insync.replicas.",
    schema={"type": "integer", "minimum": 1, "maximum": REPLICAS_MAX},
)
WISHES = (ACKS, TIMEOUT, MIN_ISR)

Outcomes = Mapping[TopicIdPartition, ProduceOutcome]


def check_wishes(call: Call) -> None:
    """Raises HttpError 40002, KafkaError 21."""
    acks_of(call)
    integer(call, TIMEOUT.name, default=0)
    _min_isr(call)


def _min_isr(call: Call) -> int:
    """0: not asked for, or without meaning, as min.insync.replicas without acks=all."""
    wanted = integer(call, _NAME, default=1, low=1, high=REPLICAS_MAX) if _NAME in call.request.query else 0
    return wanted if acks_of(call) == ALL else 0


async def produce(call: Call, batches: Mapping[TopicIdPartition, Buffer]) -> Outcomes:
    """As the request wishes."""
    gateway, wanted = call.context.gateway, _min_isr(call)
    too_few = {where: outcome for where in batches if (outcome := _too_few(call, where, wanted)) is not None}
    going = {where: data for where, data in batches.items() if where not in too_few} if too_few else batches
    timeout_ms = integer(call, TIMEOUT.name, default=gateway.settings.request_timeout_ms)
    call.context.metrics.produced_bytes.inc(sum(len(data) for data in going.values()))
    outcomes = await gateway.produce(going, acks=acks_of(call), timeout_ms=timeout_ms) if going else {}
    if not wanted:
        return outcomes
    return too_few | {where: _checked(outcome, wanted) for where, outcome in outcomes.items()}


def _too_few(call: Call, where: TopicIdPartition, wanted: int) -> ProduceOutcome | None:
    """As this node knows it; what has changed since is seen by `_checked`."""
    topic = call.context.gateway.image.topics.get(where.topic_id) if wanted else None
    partition = None if topic is None else topic.partitions.get(where.partition)
    if partition is None or len(partition.isr) >= wanted:
        return None
    return ProduceOutcome(
        error_code=NotEnoughReplicas.code,
        message=f"the ISR is {list(partition.isr)}; the request asks for {_NAME}={wanted}; nothing was written",
        leader_id=partition.leader,
        leader_epoch=partition.leader_epoch,
        isr=tuple(partition.isr),
        min_isr=wanted,
    )


def _checked(outcome: ProduceOutcome, wanted: int) -> ProduceOutcome:
    if outcome.error_code or len(outcome.isr) >= wanted:
        return outcome
    return replace(
        outcome,
        error_code=NotEnoughReplicasAfterAppend.code,
        message=f"written, and the ISR is {list(outcome.isr)}; the request asks for {_NAME}={wanted}",
        min_isr=wanted,
    )


def leaders(outcomes: Iterable[tuple[int, ProduceOutcome]]) -> list[dict[str, Any]]:
    """Who leads each partition that was written to, in which epoch, and the ISR; nothing where it is not known."""
    found = {
        number: {
            "partition": number,
            "leader": outcome.leader_id,
            "leader_epoch": outcome.leader_epoch,
            "isr": list(outcome.isr),
        }
        for number, outcome in outcomes
        if outcome.leader_id >= 0
    }
    return [found[number] for number in sorted(found)]
