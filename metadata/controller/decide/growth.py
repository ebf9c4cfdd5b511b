"""More partitions for a topic, never fewer (CreatePartitions, S7)."""

from __future__ import annotations

from collections import Counter

from kraft.protocol.errors import (
    InvalidPartitions,
    InvalidReplicaAssignment,
    InvalidRequest,
    KafkaError,
    UnknownTopicOrPartition,
)
from metadata.controller.decide.assignments import check_assignment, new_partition
from metadata.controller.decide.decision import Decision, Situation
from metadata.controller.decide.placement import place_replicas
from metadata.controller.decide.topics import check_total
from metadata.controller.requests import CreatePartitions, ErrorDetail, NewPartitions
from metadata.image import TopicImage
from metadata.records import PartitionRecord, Record


def create_partitions(situation: Situation, request: CreatePartitions) -> Decision:
    names = Counter(wanted.topic for wanted in request.topics)
    records: list[Record] = []
    reply: dict[str, ErrorDetail | None] = {}
    _check_total(situation, request)
    for wanted in request.topics:
        try:
            if names[wanted.topic] > 1:
                raise InvalidRequest(f"topic {wanted.topic!r} is named twice in one request")
            made = _grow(situation, wanted)
        except KafkaError as error:
            reply[wanted.topic] = ErrorDetail(type(error), error.message)
            continue
        records.extend(made)
        reply[wanted.topic] = None
    return Decision(
        liveness=situation.liveness,
        records=() if request.validate_only else tuple(records),
        is_atomic=True,
        reply=reply,
    )


def _check_total(situation: Situation, request: CreatePartitions) -> None:
    """Before anything is made: at most this many, faulty topics included. Raises PolicyViolation 44."""
    added = 0
    for wanted in request.topics:
        topic = situation.image.topic(wanted.topic)
        added += max(0, wanted.count - len(topic.partitions)) if topic is not None else 0
    check_total(added)


def _grow(situation: Situation, wanted: NewPartitions) -> list[PartitionRecord]:
    topic = situation.image.topic(wanted.topic)
    if topic is None:
        raise UnknownTopicOrPartition(f"there is no topic {wanted.topic!r}")
    now = len(topic.partitions)
    added = wanted.count - now
    if added <= 0:
        raise InvalidPartitions(f"topic {topic.name} has {now} partition(s); {wanted.count} would not be an increase")
    return [
        new_partition(situation, topic_id=topic.topic_id, index=now + index, replicas=replicas)
        for index, replicas in enumerate(_replicas(situation, topic, wanted, added=added))
    ]


def _replicas(situation: Situation, topic: TopicImage, wanted: NewPartitions, *, added: int) -> list[tuple[int, ...]]:
    first = topic.partitions[0]
    factor = len(first.replicas) - len(first.adding_replicas)
    if wanted.assignments is None:
        return place_replicas(
            situation.image.brokers.values(), partitions=added, replication_factor=factor, rng=situation.rng
        )
    if len(wanted.assignments) != added:
        raise InvalidReplicaAssignment(
            f"{added} partition(s) are to be added, but {len(wanted.assignments)} assignment(s) were given"
        )
    for replicas in wanted.assignments:
        check_assignment(situation, replicas, replication_factor=factor)
    return list(wanted.assignments)
