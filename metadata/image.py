"""The metadata image: everything the cluster knows at one offset of the metadata log. Immutable.

`MetadataImage.apply` is the only place where a fact changes the image; it is the same for voters, observers,
restart and tests. Applying copies only the mappings that the batch touches. Pure.

The records of an open transaction (KIP-868) are kept aside until its End: the offset counts them, and nothing else
of the image shows them. So a reader of an image never has half of a transaction, whatever the source of its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple, TypeAlias
from uuid import UUID

from kraft.protocol.scram import Credential
from metadata.acls import Acl
from metadata.persistent_map import PersistentMap, spread_text
from metadata.records import (
    NO_LEADER,
    AbortTransactionRecord,
    AccessControlEntryRecord,
    BeginTransactionRecord,
    BrokerChangeRecord,
    ClientQuotaRecord,
    ConfigRecord,
    ControllerEpochRecord,
    EndTransactionRecord,
    LeaderRecovery,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Record,
    RegisterBrokerRecord,
    RemoveAccessControlEntryRecord,
    RemoveRouteBindingRecord,
    RemoveRouteRecord,
    RemoveTopicRecord,
    RemoveUserScramCredentialRecord,
    RouteBindingRecord,
    RouteRecord,
    TopicRecord,
    UncleanElectionReport,
    UnregisterBrokerRecord,
    UserScramCredentialRecord,
)
from metadata.routes import Binding, RouteImage

QuotaEntity: TypeAlias = tuple[tuple[str, str | None], ...]
"""The holder of a client quota: (entity type, name) by type; None: the default of the type (KIP-546)."""
DEFAULT_LISTENER = "PLAINTEXT"
"""Name of the listener that every broker has and shares with other nodes."""


class TopicIdPartition(NamedTuple("_Numbered", [("topic_number", int), ("partition", int)])):
    """Key of a partition. Nearly every step of a request looks something up by it: so it is hashed and compared as a
    tuple of numbers, without a call of Python code, which a UUID needs."""

    topic_id: UUID

    def __new__(cls, topic_id: UUID, partition: int) -> TopicIdPartition:
        self = tuple.__new__(cls, (topic_id.int, partition))
        self.topic_id = topic_id
        return self

    def __getnewargs__(self) -> tuple[UUID, int]:
        return self.topic_id, self.partition

    def __repr__(self) -> str:
        return f"TopicIdPartition(topic_id={self.topic_id!r}, partition={self.partition})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerImage:
    broker_id: int
    broker_epoch: int
    """Offset of the registration record (B1)."""
    incarnation_id: UUID
    rest: str
    kafka: str
    rack: str | None
    fenced: bool
    in_controlled_shutdown: bool
    listeners: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Listener name -> `host:port` under which clients reach it, where that is not `kafka`."""

    @property
    def is_active(self) -> bool:
        """This broker may lead and join ISRs (L1, I6)."""
        return not self.fenced and not self.in_controlled_shutdown

    def address(self, listener: str) -> str | None:
        """`host:port` under which clients reach a listener; None when this broker has no listener of that name."""
        return self.listeners.get(listener, self.kafka if listener == DEFAULT_LISTENER else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionImage:
    topic_id: UUID
    partition: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int
    partition_epoch: int
    adding_replicas: tuple[int, ...] = ()
    removing_replicas: tuple[int, ...] = ()
    leader_recovery: LeaderRecovery = LeaderRecovery.RECOVERED
    unclean: UncleanElectionReport | None = None
    """Report of the latest unclean election, until a clean change of leader."""

    @property
    def has_leader(self) -> bool:
        return self.leader != NO_LEADER

    @property
    def is_reassigning(self) -> bool:
        return bool(self.adding_replicas or self.removing_replicas)

    @property
    def is_under_replicated(self) -> bool:
        return len(self.isr) < len(self.replicas)

    def changed_by(self, record: PartitionChangeRecord) -> PartitionImage:
        assert record.partition_epoch == self.partition_epoch + 1, (record, self)
        assert record.leader_epoch in (self.leader_epoch, self.leader_epoch + 1), (record, self)
        has_new_leader = record.leader is not None and record.leader != self.leader
        return PartitionImage(
            topic_id=self.topic_id,
            partition=self.partition,
            replicas=_either(record.replicas, self.replicas),
            isr=_either(record.isr, self.isr),
            leader=self.leader if record.leader is None else record.leader,
            leader_epoch=record.leader_epoch,
            partition_epoch=record.partition_epoch,
            adding_replicas=_either(record.adding_replicas, self.adding_replicas),
            removing_replicas=_either(record.removing_replicas, self.removing_replicas),
            leader_recovery=record.leader_recovery or self.leader_recovery,
            unclean=record.unclean if has_new_leader else (record.unclean or self.unclean),
        )


@dataclass(frozen=True, kw_only=True)
class TopicImage:
    name: str
    topic_id: UUID
    partitions: Mapping[int, PartitionImage] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def replication_factor(self) -> int:
        return max((len(p.replicas) for p in self.partitions.values()), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """The committed records of a transaction whose End is not committed yet (KIP-868)."""

    name: str
    base_offset: int
    """Offset of its BeginTransactionRecord."""
    records: tuple[Record, ...] = ()
    """The records after the Begin, without the record by which a new controller claimed its epoch."""


def brokers_map(brokers: Mapping[int, BrokerImage]) -> PersistentMap[int, BrokerImage]:
    return PersistentMap(brokers, spread=int, buckets=1)


def topics_map(topics: Mapping[UUID, TopicImage]) -> PersistentMap[UUID, TopicImage]:
    return PersistentMap(topics, spread=_NUMBER_OF_UUID)


def topic_ids_map(topic_ids: Mapping[str, UUID]) -> PersistentMap[str, UUID]:
    """Topic ids by name; names that collide are neighbours."""
    return PersistentMap(topic_ids, spread=_spread_name)


def configs_map(
    configs: Mapping[tuple[str, str], Mapping[str, str]],
) -> PersistentMap[tuple[str, str], Mapping[str, str]]:
    return PersistentMap(configs, spread=_spread_resource)


def acls_map(acls: Mapping[UUID, Acl]) -> PersistentMap[UUID, Acl]:
    return PersistentMap(acls, spread=_NUMBER_OF_UUID)


def quotas_map(quotas: Mapping[QuotaEntity, Mapping[str, float]]) -> PersistentMap[QuotaEntity, Mapping[str, float]]:
    return PersistentMap(quotas, spread=_spread_entity)


_NUMBER_OF_UUID = attrgetter("int")


USERS_KEPT_MAX = 200_000
"""Users with those that were deleted. With so many, a user that is deleted next is forgotten, and may come back by a
file."""


def users_map(users: Mapping[str, Mapping[str, Credential]]) -> PersistentMap[str, Mapping[str, Credential]]:
    return PersistentMap(users, spread=_spread_name)


def routes_map(routes: Mapping[str, RouteImage]) -> PersistentMap[str, RouteImage]:
    return PersistentMap(routes, spread=_spread_name)


def collision_key(name: str) -> str:
    """Topics with the same key must not exist together: '.' and '_' are equal, as in the names of Kafka's metrics."""
    return name.replace(".", "_")


def _spread_name(name: str) -> int:
    return spread_text(collision_key(name))


def _spread_entity(entity: QuotaEntity) -> int:
    return spread_text(repr(entity))


def _spread_resource(key: tuple[str, str]) -> int:
    return spread_text(key[1])


@dataclass(frozen=True, kw_only=True)
class MetadataImage:
    offset: int = -1
    """Offset of the last record applied; -1 for the empty image."""
    controller_epoch: int = 0
    controller_id: int = -1
    brokers: PersistentMap[int, BrokerImage] = field(default_factory=lambda: brokers_map({}))
    topics: PersistentMap[UUID, TopicImage] = field(default_factory=lambda: topics_map({}))
    topic_ids: PersistentMap[str, UUID] = field(default_factory=lambda: topic_ids_map({}))
    configs: PersistentMap[tuple[str, str], Mapping[str, str]] = field(default_factory=lambda: configs_map({}))
    """(resource type, resource name) -> dynamic settings."""
    acls: PersistentMap[UUID, Acl] = field(default_factory=lambda: acls_map({}))
    """ACLs by their ids."""
    quotas: PersistentMap[QuotaEntity, Mapping[str, float]] = field(default_factory=lambda: quotas_map({}))
    """Quotas of clients: entity -> name of the quota -> its value."""
    users: PersistentMap[str, Mapping[str, Credential]] = field(default_factory=lambda: users_map({}))
    """Credentials by mechanism; none for a user that was deleted, whom cluster.toml does not bring back."""
    """Users with a password: name -> mechanism -> what its proofs are checked with."""
    routes: PersistentMap[str, RouteImage] = field(default_factory=lambda: routes_map({}))
    next_producer_id: int = 0
    transaction: OpenTransaction | None = None

    @property
    def next_offset(self) -> int:
        return self.offset + 1

    def topic(self, name: str) -> TopicImage | None:
        found = self._topics_found.get(name)
        if found is None and (topic_id := self.topic_ids.get(name)) is not None:
            found = self._topics_found[name] = self.topics[topic_id]
        return found

    @cached_property
    def _topics_found(self) -> dict[str, TopicImage]:
        """Topics by name that a request has asked for: each request asks, and an image serves thousands of them."""
        return {}

    def colliding_topic(self, name: str) -> str | None:
        """A topic whose name differs only in '.' and '_', if there is one."""
        key = collision_key(name)
        return next((other for other in self.topic_ids.neighbours(name) if collision_key(other) == key), None)

    def partition(self, topic_id: UUID, partition: int) -> PartitionImage | None:
        topic = self.topics.get(topic_id)
        return None if topic is None else topic.partitions.get(partition)

    def config(self, resource_type: str, resource_name: str) -> Mapping[str, str]:
        return self.configs.get((resource_type, resource_name), {})

    def all_partitions(self) -> Iterator[PartitionImage]:
        for topic in self.topics.values():
            yield from topic.partitions.values()

    @cached_property
    def topics_by_name(self) -> Mapping[str, TopicImage]:
        """Sorted by name."""
        return {name: self.topics[self.topic_ids[name]] for name in sorted(self.topic_ids)}

    def is_active_broker(self, broker_id: int) -> bool:
        broker = self.brokers.get(broker_id)
        return broker is not None and broker.is_active

    def apply(self, records: Sequence[Record]) -> MetadataImage:
        """The image after these records, the first of which has offset `next_offset`.

        A record that does not fit the image (an unknown topic, broker or partition) is a broken invariant:
        only a controller that decided on exactly this image may have written it.
        """
        draft = _Draft(self)
        for record in records:
            draft.apply(record)
        return draft.finish()


class _Draft:
    """A mutable copy-on-write working copy of an image, alive during one `apply`."""

    def __init__(self, image: MetadataImage) -> None:
        self.offset = image.offset
        self.controller_epoch = image.controller_epoch
        self.controller_id = image.controller_id
        self.next_producer_id = image.next_producer_id
        self.brokers = image.brokers.draft()
        self.topics = image.topics.draft()
        self.topic_ids = image.topic_ids.draft()
        self.configs = image.configs.draft()
        self.acls = image.acls.draft()
        self.quotas = image.quotas.draft()
        self.users = image.users.draft()
        self.routes = image.routes.draft()
        self.transaction = image.transaction
        self._pending: list[Record] = [] if image.transaction is None else list(image.transaction.records)
        self._owned: dict[UUID, dict[int, PartitionImage]] = {}

    def finish(self) -> MetadataImage:
        for topic_id, partitions in self._owned.items():
            topic = self.topics[topic_id]
            self.topics[topic_id] = replace(topic, partitions=MappingProxyType(dict(sorted(partitions.items()))))
        return MetadataImage(
            offset=self.offset,
            controller_epoch=self.controller_epoch,
            controller_id=self.controller_id,
            brokers=self.brokers.frozen(),
            topics=self.topics.frozen(),
            topic_ids=self.topic_ids.frozen(),
            configs=self.configs.frozen(),
            acls=self.acls.frozen(),
            quotas=self.quotas.frozen(),
            users=self.users.frozen(),
            routes=self.routes.frozen(),
            next_producer_id=self.next_producer_id,
            transaction=self.transaction and replace(self.transaction, records=tuple(self._pending)),
        )

    def apply(self, record: Record) -> None:
        self.offset += 1
        match record:
            case ControllerEpochRecord():
                # Also within a transaction: it decides which controller may write, and this one has to abort the
                # transaction.
                assert record.epoch > self.controller_epoch, (record, self.controller_epoch)
                self.controller_epoch, self.controller_id = record.epoch, record.node_id
            case BeginTransactionRecord():
                assert self.transaction is None, (record, self.transaction)
                self.transaction = OpenTransaction(name=record.name, base_offset=self.offset)
            case EndTransactionRecord():
                self._end_transaction()
            case AbortTransactionRecord():
                assert self.transaction is not None, record
                self.transaction, self._pending = None, []
            case _ if self.transaction is not None:
                self._pending.append(record)
            case _:
                self._happen(record, self.offset)

    def _end_transaction(self) -> None:
        assert self.transaction is not None, f"a transaction ends at {self.offset}, and none has begun"
        base_offset, records = self.transaction.base_offset, self._pending
        self.transaction, self._pending = None, []
        assert base_offset + 1 + len(records) == self.offset, (base_offset, len(records), self.offset)
        for offset, record in enumerate(records, start=base_offset + 1):
            self._happen(record, offset)

    def _happen(self, record: Record, offset: int) -> None:
        match record:
            case RegisterBrokerRecord():
                self._register(record, offset)
            case BrokerChangeRecord():
                self._change_broker(record)
            case UnregisterBrokerRecord():
                del self.brokers[record.broker_id]
            case TopicRecord():
                self._add_topic(record)
            case RemoveTopicRecord():
                self._remove_topic(record)
            case PartitionRecord():
                self._add_partition(record)
            case PartitionChangeRecord():
                self._change_partition(record)
            case ConfigRecord():
                self._set_config(record)
            case AccessControlEntryRecord():
                self._add_acl(record)
            case RemoveAccessControlEntryRecord():
                del self.acls[record.id]
            case ClientQuotaRecord():
                self._set_quota(record)
            case UserScramCredentialRecord() | RemoveUserScramCredentialRecord():
                self._set_credential(record)
            case RouteRecord() | RemoveRouteRecord() | RouteBindingRecord() | RemoveRouteBindingRecord():
                self._change_route(record)
            case ProducerIdsRecord():
                self.next_producer_id = record.next_producer_id

    def _register(self, record: RegisterBrokerRecord, offset: int) -> None:
        self.brokers[record.broker_id] = BrokerImage(
            broker_id=record.broker_id,
            broker_epoch=offset,
            incarnation_id=record.incarnation_id,
            rest=record.rest,
            kafka=record.kafka,
            rack=record.rack,
            fenced=True,
            in_controlled_shutdown=False,
            listeners=MappingProxyType(record.listeners or {}),
        )

    def _change_broker(self, record: BrokerChangeRecord) -> None:
        broker = self.brokers[record.broker_id]
        assert broker.broker_epoch == record.broker_epoch, (record, broker)
        self.brokers[record.broker_id] = replace(
            broker, fenced=record.fenced, in_controlled_shutdown=record.in_controlled_shutdown
        )

    def _add_topic(self, record: TopicRecord) -> None:
        assert record.name not in self.topic_ids, record
        assert record.topic_id not in self.topics, record
        self.topics[record.topic_id] = TopicImage(name=record.name, topic_id=record.topic_id)
        self.topic_ids[record.name] = record.topic_id

    def _remove_topic(self, record: RemoveTopicRecord) -> None:
        name = self.topics.pop(record.topic_id).name
        del self.topic_ids[name]
        self.configs.pop(("topic", name), None)
        for route in [each for each in self.routes.values() if name in each.topics]:
            left = frozenset(binding for binding in route.bindings if binding.topic != name)
            self.routes[route.name] = replace(route, bindings=left)
        self._owned.pop(record.topic_id, None)

    def _partitions(self, topic_id: UUID) -> dict[int, PartitionImage]:
        if topic_id not in self._owned:
            self._owned[topic_id] = dict(self.topics[topic_id].partitions)
        return self._owned[topic_id]

    def _add_partition(self, record: PartitionRecord) -> None:
        self._partitions(record.topic_id)[record.partition] = PartitionImage(
            topic_id=record.topic_id,
            partition=record.partition,
            replicas=record.replicas,
            isr=record.isr,
            leader=record.leader,
            leader_epoch=record.leader_epoch,
            partition_epoch=record.partition_epoch,
            adding_replicas=record.adding_replicas,
            removing_replicas=record.removing_replicas,
            leader_recovery=record.leader_recovery,
        )

    def _change_partition(self, record: PartitionChangeRecord) -> None:
        partitions = self._partitions(record.topic_id)
        partitions[record.partition] = partitions[record.partition].changed_by(record)

    def _set_config(self, record: ConfigRecord) -> None:
        key = (record.resource_type, record.resource_name)
        changed = {**self.configs.get(key, {}), record.name: record.value}
        settings = {name: text for name, text in changed.items() if text is not None}
        if settings:
            self.configs[key] = MappingProxyType(settings)
        else:
            self.configs.pop(key, None)

    def _add_acl(self, record: AccessControlEntryRecord) -> None:
        assert record.id not in self.acls, record
        self.acls[record.id] = Acl(
            resource=record.resource_type,
            name=record.resource_name,
            pattern=record.pattern_type,
            principal=record.principal,
            host=record.host,
            operation=record.operation,
            permission=record.permission_type,
        )

    def _set_credential(self, record: UserScramCredentialRecord | RemoveUserScramCredentialRecord) -> None:
        credentials = {**self.users.get(record.name, {})}
        credentials.pop(record.mechanism, None)
        if isinstance(record, UserScramCredentialRecord):
            credentials[record.mechanism] = Credential(
                salt=bytes.fromhex(record.salt),
                iterations=record.iterations,
                stored_key=bytes.fromhex(record.stored_key),
                server_key=bytes.fromhex(record.server_key),
                mechanism=record.mechanism,
            )
        if credentials or len(self.users) < USERS_KEPT_MAX:
            self.users[record.name] = MappingProxyType(dict(sorted(credentials.items())))
        else:
            self.users.pop(record.name, None)

    def _change_route(
        self, record: RouteRecord | RemoveRouteRecord | RouteBindingRecord | RemoveRouteBindingRecord
    ) -> None:
        match record:
            case RouteRecord():
                assert record.name not in self.routes, record
                self.routes[record.name] = RouteImage(name=record.name, kind=record.kind)
            case RemoveRouteRecord():
                del self.routes[record.name]
            case RouteBindingRecord() | RemoveRouteBindingRecord():
                route, binding = self.routes[record.route], Binding(record.key, record.topic)
                assert isinstance(record, RouteBindingRecord) is (binding not in route.bindings), (record, route)
                self.routes[record.route] = replace(route, bindings=route.bindings ^ {binding})

    def _set_quota(self, record: ClientQuotaRecord) -> None:
        quotas = {**self.quotas.get(record.entity, {})}
        quotas.pop(record.key, None)
        if record.value is not None:
            quotas[record.key] = record.value
        if quotas:
            self.quotas[record.entity] = MappingProxyType(dict(sorted(quotas.items())))
        else:
            self.quotas.pop(record.entity, None)


def _either(new: tuple[int, ...] | None, old: tuple[int, ...]) -> tuple[int, ...]:
    return old if new is None else new
