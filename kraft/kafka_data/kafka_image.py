"""Kafka's metadata records replayed into an image of ours, and what of them has no place here. Pure.

A broker registers again when it starts, and so it is no part of the image: no partition has a leader, until a member of
its ISR comes. Records between Begin and End take effect at the End (KIP-868). Eligible leader replicas (KIP-966) are
not known here. They have all that was committed; where a stop of all brokers has left no ISR, they are the ISR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from kraft.kafka_data.image_records import MECHANISMS, METADATA_VERSION, RESOURCE_TYPES
from kraft.kafka_data.metadata_log import Entry
from kraft.kafka_data.releases import GROUP_SETTINGS_SINCE, NEWEST, OLDEST_METADATA_VERSION
from kraft.kafka_data.replica import UnfitData
from kraft.protocol.errors import KafkaError
from kraft.protocol.scram import Credential
from metadata.acls import Acl, from_message
from metadata.image import (
    MetadataImage,
    PartitionImage,
    QuotaEntity,
    TopicImage,
    acls_map,
    configs_map,
    quotas_map,
    topic_ids_map,
    topics_map,
    users_map,
)
from metadata.records import NO_LEADER, LeaderRecovery
from metadata.settings import BrokerSettings, TopicSettings, canonical_value, settings_by_name

_RESOURCES: Final = {code: name for name, code in RESOURCE_TYPES.items()}
_MECHANISMS: Final = {code: name for name, code in MECHANISMS.items()}
_ZK_STATES_WITHOUT: Final = (0, 3)
"""ZkMigrationState NONE and POST: the cluster has no ZooKeeper, or left it for good."""
_TIERED: Final = "remote.storage.enable"
_SECURITY: Final = {1: "SSL", 2: "SASL_PLAINTEXT", 3: "SASL_SSL"}
"""Codes of SecurityProtocol, without that of no security."""
_NO_LEADER_CHANGE: Final = -2
"""PartitionChangeRecord: the leader stays, and its epoch. A record with a leader, even the same, has the next epoch."""


class KafkaImage:
    """The state that Kafka's records make; `apply` takes them in the order of the log."""

    def __init__(self) -> None:
        self.features: dict[str, int] = {}
        self.end_offset = 0
        self.epoch = 0
        self.topics: dict[UUID, str] = {}
        self.partitions: dict[UUID, dict[int, PartitionImage]] = {}
        self.configs: dict[tuple[str, str], dict[str, str]] = {}
        self.acls: dict[UUID, Acl] = {}
        self.quotas: dict[QuotaEntity, dict[str, float]] = {}
        self.users: dict[str, dict[str, Credential]] = {}
        self.tokens: set[str] = set()
        self.eligible: dict[tuple[UUID, int], tuple[int, ...]] = {}
        """(topic id, partition) -> its eligible leader replicas, where there are some."""
        self.next_producer_id = 0
        self.voters: dict[int, tuple[str, int]] = {}
        """Those of the last voters record, id -> host and port; none where the configuration has them."""
        self.controllers: dict[int, tuple[str, int]] = {}
        """Controllers that are registered, voters or not yet: id -> host and port."""
        self.brokers: dict[int, tuple[str, int]] = {}
        """The first endpoint of each registered broker."""
        self.directories: dict[int, frozenset[UUID]] = {}
        """The log directories that each registered broker has (KIP-858)."""
        self.protocols: set[int] = set()
        """Codes of the security of brokers' endpoints."""
        self._transaction: list[Entry] | None = None

    @property
    def is_half_written(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._transaction is not None

    def apply(self, entries: Iterable[Entry], *, in_snapshot: bool) -> None:
        """Raises UnfitData for a record that has no meaning here."""
        for entry in entries:
            if not in_snapshot:
                self.end_offset, self.epoch = entry.offset + 1, max(self.epoch, entry.epoch)
            match entry.name:
                case "BeginTransactionRecord":
                    self._transaction = []
                case "EndTransactionRecord":
                    pending, self._transaction = self._transaction or [], None
                    for each in pending:
                        self._happen(each)
                case "AbortTransactionRecord":
                    self._transaction = None
                case _ if self._transaction is not None:
                    self._transaction.append(entry)
                case _:
                    self._happen(entry)

    def _happen(self, entry: Entry) -> None:
        effect = _EFFECTS.get(entry.name)
        if effect is not None:
            try:
                effect(self, entry.message)
            except (KeyError, ValueError) as error:
                raise UnfitData(
                    f"the {entry.name} at offset {entry.offset} does not fit what is before it: {error!r}"
                ) from error

    # --- effects ------------------------------------------------------------------------------------------------

    def _feature(self, record: Any) -> None:
        self.features[record.name] = record.feature_level

    def _topic(self, record: Any) -> None:
        self.topics[record.topic_id] = record.name
        self.partitions[record.topic_id] = {}

    def _remove_topic(self, record: Any) -> None:
        name = self.topics.pop(record.topic_id)
        del self.partitions[record.topic_id]
        self.configs.pop(("topic", name), None)

    def _elect(self, record: Any) -> None:
        if record.eligible_leader_replicas is not None:
            self.eligible[record.topic_id, record.partition_id] = tuple(record.eligible_leader_replicas)

    def _clear_eligible(self, record: Any) -> None:
        """Without a name: of all topics."""
        for topic_id, partition in list(self.eligible):
            if record.topic_name in ("", self.topics.get(topic_id)):
                del self.eligible[topic_id, partition]

    def _partition(self, record: Any) -> None:
        self._elect(record)
        self.partitions[record.topic_id][record.partition_id] = PartitionImage(
            topic_id=record.topic_id,
            partition=record.partition_id,
            replicas=tuple(record.replicas),
            isr=tuple(record.isr),
            leader=NO_LEADER,
            leader_epoch=record.leader_epoch,
            partition_epoch=record.partition_epoch,
            adding_replicas=tuple(record.adding_replicas),
            removing_replicas=tuple(record.removing_replicas),
            leader_recovery=_recovery(record.leader_recovery_state),
        )

    def _change_partition(self, record: Any) -> None:
        self._elect(record)
        partitions = self.partitions[record.topic_id]
        before = partitions[record.partition_id]
        replicas = before.replicas if record.replicas is None else tuple(record.replicas)
        has_new_epoch = record.leader != _NO_LEADER_CHANGE
        partitions[record.partition_id] = replace(
            before,
            replicas=replicas,
            isr=before.isr if record.isr is None else tuple(record.isr),
            leader_epoch=before.leader_epoch + has_new_epoch,
            partition_epoch=before.partition_epoch + 1,
            adding_replicas=_either(record.adding_replicas, before.adding_replicas),
            removing_replicas=_either(record.removing_replicas, before.removing_replicas),
            leader_recovery=before.leader_recovery
            if record.leader_recovery_state < 0
            else _recovery(record.leader_recovery_state),
        )

    def _config(self, record: Any) -> None:
        key = (_RESOURCES[record.resource_type], record.resource_name)
        settings = self.configs.setdefault(key, {})
        settings.pop(record.name, None)
        if record.value is not None:
            settings[record.name] = record.value
        if not settings:
            del self.configs[key]

    def _acl(self, record: Any) -> None:
        acl = from_message(record, pattern=record.pattern_type)
        if 0 in (acl.resource, acl.pattern, acl.operation, acl.permission):
            raise ValueError(f"an ACL with a code that is unknown here: {acl}")
        self.acls[record.id] = acl

    def _remove_acl(self, record: Any) -> None:
        del self.acls[record.id]

    def _quota(self, record: Any) -> None:
        entity = tuple(sorted((part.entity_type, part.entity_name) for part in record.entity))
        quotas = self.quotas.setdefault(entity, {})
        quotas.pop(record.key, None)
        if not record.remove:
            quotas[record.key] = record.value
        if not quotas:
            del self.quotas[entity]

    def _user(self, record: Any) -> None:
        mechanism = _MECHANISMS[record.mechanism]
        self.users.setdefault(record.name, {})[mechanism] = Credential(
            salt=bytes(record.salt),
            iterations=record.iterations,
            stored_key=bytes(record.stored_key),
            server_key=bytes(record.server_key),
            mechanism=mechanism,
        )

    def _remove_user(self, record: Any) -> None:
        credentials = self.users[record.name]
        credentials.pop(_MECHANISMS[record.mechanism], None)
        if not credentials:
            del self.users[record.name]

    def _producer_ids(self, record: Any) -> None:
        self.next_producer_id = max(self.next_producer_id, record.next_producer_id)

    def _token(self, record: Any) -> None:
        self.tokens.add(record.token_id)

    def _remove_token(self, record: Any) -> None:
        self.tokens.discard(record.token_id)

    def _broker(self, record: Any) -> None:
        self.brokers[record.broker_id] = _first_address(record.end_points)
        self.directories[record.broker_id] = frozenset(record.log_dirs)
        self.protocols |= {each.security_protocol for each in record.end_points}

    def _change_broker(self, record: Any) -> None:
        if record.log_dirs:
            self.directories[record.broker_id] = frozenset(record.log_dirs)

    def _unregister(self, record: Any) -> None:
        self.brokers.pop(record.broker_id, None)
        self.directories.pop(record.broker_id, None)

    def _controller(self, record: Any) -> None:
        self.controllers[record.controller_id] = _first_address(record.end_points)

    def _unregister_controller(self, record: Any) -> None:
        self.controllers.pop(record.controller_id, None)

    def _voters(self, record: Any) -> None:
        self.voters = {each.voter_id: _first_address(each.endpoints) for each in record.voters}

    def _zookeeper(self, record: Any) -> None:
        if record.zk_migration_state not in _ZK_STATES_WITHOUT:
            raise UnfitData("the cluster is being moved from ZooKeeper: finish the migration with Kafka 3.9 first")

    def image(self) -> MetadataImage:
        """The image of ours; without the brokers."""
        topics = [self._topic_image(topic_id, name) for topic_id, name in self.topics.items()]
        return MetadataImage(
            offset=self.end_offset - 1,
            controller_epoch=self.epoch,
            topics=topics_map({topic.topic_id: topic for topic in topics}),
            topic_ids=topic_ids_map({topic.name: topic.topic_id for topic in topics}),
            configs=configs_map({key: MappingProxyType(values) for key, values in self.configs.items()}),
            acls=acls_map(self.acls),
            quotas=quotas_map(
                {entity: MappingProxyType(dict(sorted(values.items()))) for entity, values in self.quotas.items()}
            ),
            users=users_map(
                {name: MappingProxyType(dict(sorted(values.items()))) for name, values in self.users.items()}
            ),
            next_producer_id=self.next_producer_id,
        )

    def _topic_image(self, topic_id: UUID, name: str) -> TopicImage:
        partitions = sorted(self.partitions[topic_id].items())
        return TopicImage(
            name=name,
            topic_id=topic_id,
            partitions=MappingProxyType({number: self._with_isr(each, name) for number, each in partitions}),
        )

    def _with_isr(self, partition: PartitionImage, topic: str) -> PartitionImage:
        if partition.isr:
            return partition
        eligible = self.eligible.get((partition.topic_id, partition.partition), ())
        if not eligible:
            raise UnfitData(
                f"{topic}-{partition.partition} has no replica that has all its records by the metadata: elect a "
                "leader in Kafka (kafka-leader-election.sh --election-type unclean), and stop it cleanly"
            )
        return replace(partition, isr=tuple(broker for broker in partition.replicas if broker in eligible))


_EFFECTS: Final[Mapping[str, Callable[[KafkaImage, Any], None]]] = {
    "FeatureLevelRecord": KafkaImage._feature,
    "TopicRecord": KafkaImage._topic,
    "RemoveTopicRecord": KafkaImage._remove_topic,
    "PartitionRecord": KafkaImage._partition,
    "PartitionChangeRecord": KafkaImage._change_partition,
    "ConfigRecord": KafkaImage._config,
    "AccessControlEntryRecord": KafkaImage._acl,
    "RemoveAccessControlEntryRecord": KafkaImage._remove_acl,
    "ClientQuotaRecord": KafkaImage._quota,
    "UserScramCredentialRecord": KafkaImage._user,
    "RemoveUserScramCredentialRecord": KafkaImage._remove_user,
    "ProducerIdsRecord": KafkaImage._producer_ids,
    "DelegationTokenRecord": KafkaImage._token,
    "RemoveDelegationTokenRecord": KafkaImage._remove_token,
    "RegisterBrokerRecord": KafkaImage._broker,
    "BrokerRegistrationChangeRecord": KafkaImage._change_broker,
    "UnregisterBrokerRecord": KafkaImage._unregister,
    "RegisterControllerRecord": KafkaImage._controller,
    "UnregisterControllerRecord": KafkaImage._unregister_controller,
    "VotersRecord": KafkaImage._voters,
    "ZkMigrationStateRecord": KafkaImage._zookeeper,
    "ClearElrRecord": KafkaImage._clear_eligible,
}
"""All other records have no effect on what is taken over."""


def _recovery(state: int) -> LeaderRecovery:
    return LeaderRecovery.RECOVERING if state else LeaderRecovery.RECOVERED


def _either(new: Any, old: tuple[int, ...]) -> tuple[int, ...]:
    return old if new is None else tuple(new)


def _first_address(endpoints: Any) -> tuple[str, int]:
    return (endpoints[0].host, endpoints[0].port) if endpoints else ("127.0.0.1", 0)


# --- what has no place here -----------------------------------------------------------------------------------------


def refuse_levels(image: KafkaImage) -> None:
    """Raises UnfitData for a level of metadata that is not known here."""
    level = image.features.get(METADATA_VERSION)
    if level is None:
        raise UnfitData("the metadata has no metadata.version: Kafka was never started on these folders")
    if not OLDEST_METADATA_VERSION <= level <= NEWEST.metadata_version:
        raise UnfitData(
            f"metadata.version is {level}, and known are {OLDEST_METADATA_VERSION} to {NEWEST.metadata_version} "
            f"(Kafka 3.3 to {NEWEST.name})"
        )


def without_place(image: KafkaImage) -> dict[str, str]:
    """Name, for `--drop`, of each thing that this cluster has not -> what it is."""
    found: dict[str, str] = {}
    if image.tokens:
        found["delegation-tokens"] = f"{len(image.tokens)} delegation tokens"
    for (kind, resource), settings in sorted(image.configs.items()):
        for name in settings:
            if name not in _SETTINGS.get(kind, settings):
                found[name] = f"setting {name} of {kind} {resource or '(all)'}"
            elif kind == "topic" and not _is_taken(name, settings[name]):
                found[name] = f"setting {name} = {settings[name]} of topic {resource}"
    return found


def refuse_tiered(image: KafkaImage) -> None:
    """Raises UnfitData for topics of which a part lies in another storage."""
    tiered = [key[1] for key, settings in image.configs.items() if settings.get(_TIERED) == "true"]
    if tiered:
        raise UnfitData(
            f"topic {tiered[0]} is tiered ({_TIERED}): its older records are not in these folders. Copy them back first"
        )


def to_add(image: KafkaImage) -> Iterator[str]:
    """The security that Kafka's nodes had by their configuration, as far as the metadata shows it."""
    names = [name for code, name in _SECURITY.items() if code in image.protocols]
    if names:
        yield f"listeners with {', '.join(names)}: kafka_protocol, certificates and mechanisms"
    if image.acls:
        yield f"authorizer.class.name and super.users: without them the ACLs ({len(image.acls)}) have no effect"


def drop(image: KafkaImage, names: Iterable[str]) -> None:
    """Leave out what `without_place` has found under these names."""
    for name in names:
        if name == "delegation-tokens":
            image.tokens.clear()
        for key in list(image.configs):
            image.configs[key].pop(name, None)
            if not image.configs[key]:
                del image.configs[key]


def _is_taken(name: str, value: str) -> bool:
    try:
        canonical_value(TopicSettings, name, value)
    except KafkaError:
        return False
    return True


_SETTINGS: Final[Mapping[str, frozenset[str]]] = {
    "group": frozenset(GROUP_SETTINGS_SINCE),
    "topic": frozenset(settings_by_name(TopicSettings)),
    "broker": frozenset(settings_by_name(BrokerSettings)),
}
