"""Whether an image shows what an administrative request did, so that a node answers only when it can be asked about it.

Requests whose effect is not the image's (heartbeats) count as seen. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from metadata.controller.requests import (
    AlterClientQuotas,
    AlterConfigs,
    AlterReassignments,
    AlterRoute,
    AlterUsers,
    ConfigAlteration,
    ConfigResource,
    CreateAcls,
    CreatePartitions,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    ElectLeaders,
    PartitionReassignment,
    ReplaceConfigs,
    Request,
    TopicCreated,
    UnregisterBroker,
)
from metadata.image import MetadataImage, PartitionImage
from metadata.settings import MODELS_BY_RESOURCE, SettingsModel, canonical_value


def is_visible(image: MetadataImage, request: Request[Any], reply: Any) -> bool:
    match request:
        case CreateTopics():
            return request.validate_only or _topics_created(image, reply)
        case DeleteTopics():
            return all(not _has_topic(image, topic) for topic, error in reply.items() if error is None)
        case CreatePartitions():
            return request.validate_only or _partitions_created(image, request, reply)
        case AlterConfigs():
            return request.validate_only or _configs_altered(image, request, reply)
        case ReplaceConfigs():
            return request.validate_only or _configs_replaced(image, request, reply)
        case ElectLeaders():
            return all(_is_elected(image, request, *key) for key, error in reply.items() if error is None)
        case AlterReassignments():
            return all(
                _is_reassigned(image, wanted)
                for wanted in request.reassignments
                if reply[wanted.topic, wanted.partition] is None
            )
        case CreateAcls():
            present = set(image.acls.values())
            return all(acl in present for acl, error in zip(request.acls, reply, strict=True) if error is None)
        case DeleteAcls():
            present = set(image.acls.values())
            return not any(acl in present for found in reply if isinstance(found, tuple) for acl in found)
        case AlterClientQuotas():
            return request.validate_only or _quotas_altered(image, request, reply)
        case AlterRoute():
            return _is_route_altered(image, request)
        case AlterUsers():
            return _users_altered(image, request, reply)
        case UnregisterBroker():
            return request.broker_id not in image.brokers
        case _:
            return True


def _is_route_altered(image: MetadataImage, request: AlterRoute) -> bool:
    """Topics of bindings may be deleted meanwhile, and their bindings with them."""
    route = image.routes.get(request.name)
    if route is None or request.operation == "delete":
        return route is None
    added = {binding for binding in request.added if binding.topic in image.topic_ids}
    return added <= route.bindings and route.bindings.isdisjoint(request.removed)


def _quotas_altered(image: MetadataImage, request: AlterClientQuotas, reply: Sequence[Any]) -> bool:
    return all(
        image.quotas.get(alteration.entity, {}).get(key) == value
        for alteration, error in zip(request.alterations, reply, strict=True)
        if error is None
        for key, value in alteration.quotas.items()
    )


def _users_altered(image: MetadataImage, request: AlterUsers, reply: Mapping[str, Any]) -> bool:
    """A credential is known by its salt, which its client draws again each time."""
    for deletion in request.deletions:
        if reply[deletion.name] is None and deletion.mechanism in image.users.get(deletion.name, {}):
            return False
    for wanted in request.upsertions:
        if reply[wanted.name] is None:
            found = image.users.get(wanted.name, {}).get(wanted.mechanism)
            if found is None or (found.salt, found.iterations) != (wanted.salt, wanted.iterations):
                return False
    return True


def _topics_created(image: MetadataImage, reply: Mapping[str, Any]) -> bool:
    created = [result.topic_id for result in reply.values() if isinstance(result, TopicCreated)]
    return all(topic_id in image.topics for topic_id in created)


def _has_topic(image: MetadataImage, topic: str | UUID) -> bool:
    return topic in image.topics if isinstance(topic, UUID) else topic in image.topic_ids


def _partitions_created(image: MetadataImage, request: CreatePartitions, reply: Mapping[str, Any]) -> bool:
    for grown in request.topics:
        topic = image.topic(grown.topic)
        if reply[grown.topic] is None and (topic is None or len(topic.partitions) < grown.count):
            return False
    return True


def _is_elected(image: MetadataImage, request: ElectLeaders, name: str, index: int) -> bool:
    partition = _partition(image, name, index)
    if partition is None:
        return True  # deleted meanwhile
    return partition.leader == partition.replicas[0] if request.election == "preferred" else partition.has_leader


def _is_reassigned(image: MetadataImage, wanted: PartitionReassignment) -> bool:
    """Begun: what remains of the old replicas may still have to go."""
    partition = _partition(image, wanted.topic, wanted.partition)
    if partition is None:
        return True
    if wanted.replicas is None:
        return not partition.is_reassigning
    return partition.replicas[: len(wanted.replicas)] == wanted.replicas


def _partition(image: MetadataImage, name: str, index: int) -> PartitionImage | None:
    topic = image.topic(name)
    return None if topic is None else topic.partitions.get(index)


def _configs_altered(image: MetadataImage, request: AlterConfigs, reply: Mapping[Any, Any]) -> bool:
    return all(
        _is_altered(image.config(resource.resource_type, resource.name), resource, alteration)
        for resource, alterations in request.resources.items()
        if reply[resource] is None
        for alteration in alterations
    )


def _configs_replaced(image: MetadataImage, request: ReplaceConfigs, reply: Mapping[Any, Any]) -> bool:
    return all(
        image.config(resource.resource_type, resource.name)
        == {name: canonical_value(_model(resource), name, value) for name, value in wanted.items()}
        for resource, wanted in request.resources.items()
        if reply[resource] is None
    )


def _model(resource: ConfigResource) -> SettingsModel:
    return MODELS_BY_RESOURCE[resource.resource_type]


def _is_altered(settings: Mapping[str, str], resource: ConfigResource, alteration: ConfigAlteration) -> bool:
    """Values are written in their canonical form. Additions to lists count as seen."""
    if alteration.operation == "delete":
        return alteration.name not in settings
    if alteration.operation == "set":
        return settings.get(alteration.name) == canonical_value(_model(resource), alteration.name, alteration.value)
    return True
