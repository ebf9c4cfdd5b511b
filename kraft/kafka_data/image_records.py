"""A metadata image as the records of Kafka's metadata log that make the same image there. Pure.

The order is that in which Kafka writes an image: features, topics, settings, quotas, producer ids, ACLs, users. Brokers
are left out, for they register when they start; so no partition has a leader, and the first member of its ISR that
comes is elected, with the next leader epoch.
Source: MetadataImage.write; PartitionRecord from 3.7-IV2 on has the directories of its replicas (KIP-858).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from kraft.kafka_data.releases import GROUP_SETTINGS_SINCE, OWN_TOPIC_SETTINGS, Release, is_setting_of, value_for
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.access_control_entry_record import AccessControlEntryRecordData
from kraft.protocol.messages.client_quota_record import ClientQuotaRecordData, EntityData
from kraft.protocol.messages.config_record import ConfigRecordData
from kraft.protocol.messages.feature_level_record import FeatureLevelRecordData
from kraft.protocol.messages.partition_record import PartitionRecordData
from kraft.protocol.messages.producer_ids_record import ProducerIdsRecordData
from kraft.protocol.messages.topic_record import TopicRecordData
from kraft.protocol.messages.user_scram_credential_record import UserScramCredentialRecordData
from metadata.acls import message_fields
from metadata.image import MetadataImage, PartitionImage, TopicImage
from metadata.internal_topics import SHARE_STATE_TOPIC
from metadata.kafka_settings import DYNAMIC
from metadata.records import NO_LEADER, LeaderRecovery
from metadata.settings import TopicSettings, settings_by_name

METADATA_VERSION: Final = "metadata.version"
RESOURCE_TYPES: Final[Mapping[str, int]] = {"topic": 2, "broker": 4, "client-metrics": 16, "group": 32}
"""Codes of ConfigResource.Type."""
MECHANISMS: Final[Mapping[str, int]] = {"SCRAM-SHA-256": 1, "SCRAM-SHA-512": 2}
"""Codes of ScramMechanism."""
UNASSIGNED: Final = UUID(int=1)
"""The directory of a replica whose broker has not reported one (KIP-858)."""
PARTITION_VERSION: Final = 1
"""With directories; version 2 is for clusters with eligible leader replicas (KIP-966), which this one has not."""
NO_BROKER: Final = -1

DirectoryOf = Callable[[str, int, int], UUID]
"""(topic, partition, broker) -> the id of the log directory in which the broker has that replica."""


class Versioned(NamedTuple):
    message: TopLevel
    version: int


class SettingLeftOut(NamedTuple):
    """A setting that Kafka has not, or an older one had not."""

    resource_type: str
    resource_name: str
    name: str


def image_records(image: MetadataImage, release: Release, *, directory_of: DirectoryOf) -> Iterator[Versioned]:
    """All records of a snapshot for a release, without the settings of `settings_left_out`."""
    yield from _features(release)
    for topic in topics_of(image, release):
        yield from _topic(topic, directory_of)
    yield from _configs(image, release)
    for entity, quotas in sorted(image.quotas.items(), key=repr):
        for key, value in quotas.items():
            parts = [EntityData.make(entity_type=kind, entity_name=name) for kind, name in entity]
            yield Versioned(ClientQuotaRecordData.make(entity=parts, key=key, value=value), 0)
    yield Versioned(
        ProducerIdsRecordData.make(broker_id=NO_BROKER, broker_epoch=-1, next_producer_id=image.next_producer_id), 0
    )
    yield from _acls(image)
    yield from _users(image)


def topics_of(image: MetadataImage, release: Release) -> Iterator[TopicImage]:
    """The topics that the release gets: share groups have a topic of their own, which older ones would not fill."""
    for topic in image.topics_by_name.values():
        if topic.name != SHARE_STATE_TOPIC or "share.version" in release.features:
            yield topic


def settings_left_out(image: MetadataImage, release: Release) -> list[SettingLeftOut]:
    """Dynamic settings that the release has not, by resource."""
    return [
        SettingLeftOut(kind, resource, name)
        for kind, resource in sorted(image.configs)
        for name in image.configs[kind, resource]
        if not _has_setting(kind, name, release)
    ]


def _has_setting(kind: str, name: str, release: Release) -> bool:
    match kind:
        case "topic":
            return name in _TOPIC_SETTINGS and is_setting_of(release, name)
        case "group":
            return name in GROUP_SETTINGS_SINCE and is_setting_of(release, name)
        case "broker":
            return name in DYNAMIC
        case _:
            return True


_TOPIC_SETTINGS = frozenset(settings_by_name(TopicSettings)) - OWN_TOPIC_SETTINGS


def _features(release: Release) -> Iterator[Versioned]:
    levels = {METADATA_VERSION: release.metadata_version, **release.features}
    for name, level in levels.items():
        yield Versioned(FeatureLevelRecordData.make(name=name, feature_level=level), 0)


def _topic(topic: TopicImage, directory_of: DirectoryOf) -> Iterator[Versioned]:
    yield Versioned(TopicRecordData.make(name=topic.name, topic_id=topic.topic_id), 0)
    for number in sorted(topic.partitions):
        yield _partition(topic.name, topic.partitions[number], directory_of)


def _partition(topic: str, partition: PartitionImage, directory_of: DirectoryOf) -> Versioned:
    return Versioned(
        PartitionRecordData.make(
            partition_id=partition.partition,
            topic_id=partition.topic_id,
            replicas=partition.replicas,
            isr=partition.isr,
            removing_replicas=partition.removing_replicas,
            adding_replicas=partition.adding_replicas,
            leader=NO_LEADER,
            leader_recovery_state=int(partition.leader_recovery is LeaderRecovery.RECOVERING),
            leader_epoch=partition.leader_epoch,
            partition_epoch=partition.partition_epoch,
            directories=[directory_of(topic, partition.partition, broker) for broker in partition.replicas],
        ),
        PARTITION_VERSION,
    )


def _configs(image: MetadataImage, release: Release) -> Iterator[Versioned]:
    topics = {topic.name for topic in topics_of(image, release)}
    for kind, resource in sorted(image.configs):
        if kind == "topic" and resource not in topics:
            continue
        for name, value in image.configs[kind, resource].items():
            if _has_setting(kind, name, release):
                code = RESOURCE_TYPES[kind]
                config: Any = ConfigRecordData.make(
                    resource_type=code, resource_name=resource, name=name, value=value_for(release, name, value)
                )
                yield Versioned(config, 0)


def _acls(image: MetadataImage) -> Iterator[Versioned]:
    for acl_id in sorted(image.acls):
        acl = image.acls[acl_id]
        entry = AccessControlEntryRecordData.make(id=acl_id, pattern_type=acl.pattern, **message_fields(acl))
        yield Versioned(entry, 0)


def _users(image: MetadataImage) -> Iterator[Versioned]:
    for name in sorted(image.users):
        for credential in image.users[name].values():
            record = UserScramCredentialRecordData.make(
                name=name,
                mechanism=MECHANISMS[credential.mechanism],
                salt=credential.salt,
                stored_key=credential.stored_key,
                server_key=credential.server_key,
                iterations=credential.iterations,
            )
            yield Versioned(record, 0)
