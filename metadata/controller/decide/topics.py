"""Creation, growth and deletion of topics (S6, S7, KIP-516): names, sizes, placement, first configs."""

from __future__ import annotations

import re
from collections import Counter
from uuid import UUID

from kraft.protocol.errors import (
    InvalidPartitions,
    InvalidReplicaAssignment,
    InvalidReplicationFactor,
    InvalidRequest,
    InvalidTopicException,
    KafkaError,
    PolicyViolation,
    TopicAlreadyExists,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from metadata.controller.decide.assignments import check_assignment, new_partition
from metadata.controller.decide.configs import check_delivery_target, checked_topic_configs
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.decide.placement import place_replicas
from metadata.controller.requests import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewPartitions,
    NewTopic,
    TopicCreated,
)
from metadata.image import TopicImage, collision_key
from metadata.internal_topics import METADATA_TOPIC, coordinators_configs
from metadata.records import ConfigRecord, PartitionRecord, Record, RemoveTopicRecord, TopicRecord

NAME_LENGTH_MAX = 249
PARTITIONS_PER_REQUEST_MAX = 10_000
"""Partitions that one request may create, as Kafka's MAX_PARTITIONS_PER_BATCH: they are decided on at once."""

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+")


def create_topics(controller: ControllerState, request: CreateTopics) -> Decision:
    names = Counter(topic.name for topic in request.topics)
    taken: dict[str, str] = {}
    records: list[Record] = []
    reply: dict[str, TopicCreated | ErrorDetail] = {}
    check_total(sum(_count(controller, topic) for topic in request.topics))
    for topic in request.topics:
        if names[topic.name] > 1:
            reply[topic.name] = ErrorDetail(InvalidRequest, f"topic {topic.name!r} is named twice in one request")
            continue
        try:
            if topic.name == METADATA_TOPIC:
                raise InvalidRequest(f"creation of the internal topic {METADATA_TOPIC} is prohibited")
            check_topic_name(topic.name)
            _check_free(controller, topic.name, taken)
            made, created = _create(controller, topic)
        except KafkaError as error:
            reply[topic.name] = ErrorDetail(type(error), error.message)
            continue
        taken[collision_key(topic.name)] = topic.name
        records.extend(made)
        reply[topic.name] = created
    return Decision(
        liveness=controller.liveness,
        records=() if request.validate_only else tuple(records),
        is_atomic=True,
        reply=reply,
    )


def _count(controller: ControllerState, topic: NewTopic) -> int:
    """An upper bound, as Kafka's: whether the topic can be created at all is checked later."""
    if topic.assignment is not None:
        return len(topic.assignment)
    return controller.settings.num_partitions if topic.partitions == -1 else max(0, topic.partitions)


def check_total(partitions: int) -> None:
    """Check the size of a request. Raises PolicyViolation 44, which refuses the whole request."""
    if partitions > PARTITIONS_PER_REQUEST_MAX:
        raise PolicyViolation(
            f"the request asks for {partitions} new partitions, one request may ask for {PARTITIONS_PER_REQUEST_MAX}: "
            "nothing was created, split it"
        )


def check_topic_name(name: str) -> None:
    """Check a name (S6). Raises InvalidTopicException 17."""
    if not name:
        raise InvalidTopicException("a topic name may not be empty")
    if name in (".", ".."):
        raise InvalidTopicException(f"a topic may not be called {name!r}")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidTopicException(f"a topic name has at most {NAME_LENGTH_MAX} characters, this one {len(name)}")
    if not _LEGAL_NAME.fullmatch(name):
        raise InvalidTopicException(
            f"topic name {name!r} has other characters than ASCII letters, digits, '.', '_', '-'"
        )


def _check_free(controller: ControllerState, name: str, taken: dict[str, str]) -> None:
    if name in controller.image.topic_ids:
        raise TopicAlreadyExists(f"topic {name!r} already exists")
    if name in controller.image.routes:
        raise TopicAlreadyExists(f"{name!r} is a route: a topic has a name that no route has")
    other = controller.image.colliding_topic(name) or taken.get(collision_key(name))
    if other is not None:
        raise InvalidTopicException(f"topic {name!r} collides with {other!r}: '.' and '_' count as the same")


def _create(controller: ControllerState, topic: NewTopic) -> tuple[list[Record], TopicCreated]:
    configs = checked_topic_configs(topic.configs)
    check_delivery_target(controller, topic.name, configs)
    topic_id = UUID(bytes=controller.rng.randbytes(16), version=4)
    if topic.assignment is None:
        partitions = _placed(controller, topic, topic_id)
    else:
        partitions = _assigned(controller, topic, topic_id)
    replicas = len(partitions[0].replicas)
    configs = checked_topic_configs(
        {**coordinators_configs(topic.name, controller.settings, replicas=replicas), **configs}
    )
    records: list[Record] = [TopicRecord(name=topic.name, topic_id=topic_id), *partitions]
    for name, value in configs.items():
        records.append(ConfigRecord(resource_type="topic", resource_name=topic.name, name=name, value=value))
    created = TopicCreated(
        topic_id=topic_id,
        partitions=len(partitions),
        replication_factor=replicas,
        configs=configs,
    )
    return records, created


def _placed(controller: ControllerState, topic: NewTopic, topic_id: UUID) -> list[PartitionRecord]:
    count = controller.settings.num_partitions if topic.partitions == -1 else topic.partitions
    factor = topic.replication_factor
    factor = controller.settings.default_replication_factor if factor == -1 else factor
    if factor <= 0:
        raise InvalidReplicationFactor(
            f"a replication factor is at least 1 (-1: default.replication.factor), not {factor}"
        )
    if count <= 0:
        raise InvalidPartitions(f"a topic has at least 1 partition (-1: num.partitions), not {count}")
    placed = place_replicas(
        controller.image.brokers.values(), partitions=count, replication_factor=factor, rng=controller.rng
    )
    return [
        new_partition(controller, topic_id=topic_id, index=index, replicas=replicas)
        for index, replicas in enumerate(placed)
    ]


def _assigned(controller: ControllerState, topic: NewTopic, topic_id: UUID) -> list[PartitionRecord]:
    assignment = topic.assignment or {}
    if topic.partitions != -1 or topic.replication_factor != -1:
        raise InvalidRequest("with an assignment, the number of partitions and the replication factor must be -1")
    if sorted(assignment) != list(range(len(assignment))) or not assignment:
        raise InvalidReplicaAssignment(f"assigned partitions must be 0, 1, 2, ..., not {sorted(assignment)}")
    for index in sorted(assignment):
        check_assignment(controller, assignment[index], replication_factor=len(assignment[0]) if index else None)
    return [
        new_partition(controller, topic_id=topic_id, index=index, replicas=assignment[index])
        for index in sorted(assignment)
    ]


def delete_topics(controller: ControllerState, request: DeleteTopics) -> Decision:
    """A topic that is named twice, even once by name and once by id, is not deleted at all."""
    found = {topic: _find(controller, topic) for topic in request.topics}
    times = Counter(found[topic] for topic in request.topics)
    reply: dict[str | UUID, ErrorDetail | None] = {}
    for topic, topic_id in found.items():
        if topic_id is None:
            reply[topic] = _missing(topic)
        elif times[topic_id] > 1:
            reply[topic] = ErrorDetail(InvalidRequest, f"topic {topic} is named twice in one request")
        else:
            reply[topic] = None
    records = tuple(
        RemoveTopicRecord(topic_id=topic_id)
        for topic, topic_id in found.items()
        if topic_id is not None and reply[topic] is None
    )
    return Decision(liveness=controller.liveness, records=records, is_atomic=True, reply=reply)


def _find(controller: ControllerState, topic: str | UUID) -> UUID | None:
    if isinstance(topic, UUID):
        return topic if topic in controller.image.topics else None
    return controller.image.topic_ids.get(topic)


def _missing(topic: str | UUID) -> ErrorDetail:
    if isinstance(topic, UUID):
        return ErrorDetail(UnknownTopicId, f"no topic has the id {topic}")
    return ErrorDetail(UnknownTopicOrPartition, f"there is no topic {topic!r}")


# --- more partitions, never fewer: CreatePartitions (S7) --------------------------------------------------------------


def create_partitions(controller: ControllerState, request: CreatePartitions) -> Decision:
    names = Counter(wanted.topic for wanted in request.topics)
    records: list[Record] = []
    reply: dict[str, ErrorDetail | None] = {}
    _check_total(controller, request)
    for wanted in request.topics:
        try:
            if names[wanted.topic] > 1:
                raise InvalidRequest(f"topic {wanted.topic!r} is named twice in one request")
            made = _grow(controller, wanted)
        except KafkaError as error:
            reply[wanted.topic] = ErrorDetail(type(error), error.message)
            continue
        records.extend(made)
        reply[wanted.topic] = None
    return Decision(
        liveness=controller.liveness,
        records=() if request.validate_only else tuple(records),
        is_atomic=True,
        reply=reply,
    )


def _check_total(controller: ControllerState, request: CreatePartitions) -> None:
    """Check the size before anything is made, faulty topics included. Raises PolicyViolation 44."""
    added = 0
    for wanted in request.topics:
        topic = controller.image.topic(wanted.topic)
        added += max(0, wanted.count - len(topic.partitions)) if topic is not None else 0
    check_total(added)


def _grow(controller: ControllerState, wanted: NewPartitions) -> list[PartitionRecord]:
    topic = controller.image.topic(wanted.topic)
    if topic is None:
        raise UnknownTopicOrPartition(f"there is no topic {wanted.topic!r}")
    now = len(topic.partitions)
    added = wanted.count - now
    if added <= 0:
        raise InvalidPartitions(f"topic {topic.name} has {now} partition(s); {wanted.count} would not be an increase")
    return [
        new_partition(controller, topic_id=topic.topic_id, index=now + index, replicas=replicas)
        for index, replicas in enumerate(_replicas(controller, topic, wanted, added=added))
    ]


def _replicas(
    controller: ControllerState, topic: TopicImage, wanted: NewPartitions, *, added: int
) -> list[tuple[int, ...]]:
    first = topic.partitions[0]
    factor = len(first.replicas) - len(first.adding_replicas)
    if wanted.assignments is None:
        return place_replicas(
            controller.image.brokers.values(), partitions=added, replication_factor=factor, rng=controller.rng
        )
    if len(wanted.assignments) != added:
        raise InvalidReplicaAssignment(
            f"{added} partition(s) are to be added, but there are {len(wanted.assignments)} assignment(s)"
        )
    for replicas in wanted.assignments:
        check_assignment(controller, replicas, replication_factor=factor)
    return list(wanted.assignments)
