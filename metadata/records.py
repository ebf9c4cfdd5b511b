"""The facts of the metadata log: what happened, never what was requested.

Records are frozen pydantic models. On disk and on the wire one record is compact JSON with a `type` field
(`encode_record`/`decode_record`); JSON keeps `kraft metadata dump` honest. Times are not part of facts
except where Kafka has them. Every PartitionChangeRecord carries its reason.
Source: the record schemas under metadata/src/main/resources/common/metadata in apache/kafka (KIP-631, KIP-516).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from metadata.acls import AclOperation, AclPattern, AclPermission, AclResource
from metadata.routes import RouteKind

NO_LEADER = -1


class Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reason(StrEnum):
    """Why a partition changed."""

    CREATED = "created"
    BROKER_FENCED = "broker fenced"
    BROKER_UNFENCED = "broker unfenced"
    BROKER_SHUTDOWN = "broker in controlled shutdown"
    BROKER_RESTARTED = "broker came with a new incarnation"
    REPLICA_FAILED = "log of a replica failed"
    REPLICA_RECOVERED = "log of a replica works again"
    ISR_SHRUNK = "ISR shrunk by its leader"
    ISR_EXPANDED = "ISR grown by its leader"
    PREFERRED_ELECTION = "preferred leader election"
    UNCLEAN_ELECTION = "unclean leader election"
    RECOVERED = "leader recovered"
    REASSIGNMENT_STARTED = "reassignment started"
    REASSIGNMENT_COMPLETED = "reassignment completed"
    REASSIGNMENT_CANCELLED = "reassignment cancelled"


class LeaderRecovery(StrEnum):
    """State of a leader after an unclean election (KIP-704)."""

    RECOVERED = "recovered"
    RECOVERING = "recovering"


class ControllerEpochRecord(Fact):
    """First record of each active controller (Q5): fences everything that older ones still try to append."""

    type: Literal["controller_epoch"] = "controller_epoch"
    epoch: int
    node_id: int


class RegisterBrokerRecord(Fact):
    """B1. The broker epoch is the offset of this record in the metadata log. A broker starts fenced (B2)."""

    type: Literal["register_broker"] = "register_broker"
    broker_id: int
    incarnation_id: UUID
    rest: str
    """`host:port` of the REST listener."""
    kafka: str
    """`host:port` of the Kafka listener, for nodes."""
    rack: str | None = None
    listeners: dict[str, str] | None = None
    """Listener name -> `host:port` under which clients reach it, where that is not `kafka`."""


class BrokerChangeRecord(Fact):
    """A registered broker was fenced or unfenced, or began its controlled shutdown."""

    type: Literal["broker_change"] = "broker_change"
    broker_id: int
    broker_epoch: int
    fenced: bool
    in_controlled_shutdown: bool
    reason: str


class UnregisterBrokerRecord(Fact):
    type: Literal["unregister_broker"] = "unregister_broker"
    broker_id: int
    broker_epoch: int


class TopicRecord(Fact):
    type: Literal["topic"] = "topic"
    name: str
    topic_id: UUID


class RemoveTopicRecord(Fact):
    """Removes the topic, its partitions, its configs, and the bindings of routes to it."""

    type: Literal["remove_topic"] = "remove_topic"
    topic_id: UUID


class PartitionRecord(Fact):
    """A new partition with all its fields."""

    type: Literal["partition"] = "partition"
    topic_id: UUID
    partition: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    adding_replicas: tuple[int, ...] = ()
    removing_replicas: tuple[int, ...] = ()
    leader_recovery: LeaderRecovery = LeaderRecovery.RECOVERED


class UncleanElectionReport(Fact):
    """The loss of an unclean election: records from the new leader's log end up to the known high watermark."""

    answers: dict[int, tuple[int, int]]
    """Live replica that was asked -> (last leader epoch, log end offset). Empty when none answered in time."""
    log_end_offset: int
    """Log end offset of the chosen leader; -1 when it did not answer."""
    high_watermark_known: int
    """The highest high watermark that any replica reported; -1 when unknown."""


class PartitionChangeRecord(Fact):
    """Only what changed is set. The leader epoch rises when `leader` is set or an assigned replica is removed (L2).

    Epochs are facts too: the deciding controller writes the new values; replay copies them.
    """

    type: Literal["partition_change"] = "partition_change"
    topic_id: UUID
    partition: int
    reason: Reason
    leader_epoch: int
    partition_epoch: int
    leader: int | None = None
    isr: tuple[int, ...] | None = None
    replicas: tuple[int, ...] | None = None
    adding_replicas: tuple[int, ...] | None = None
    removing_replicas: tuple[int, ...] | None = None
    leader_recovery: LeaderRecovery | None = None
    unclean: UncleanElectionReport | None = None


ScramMechanism: TypeAlias = Literal["SCRAM-SHA-256", "SCRAM-SHA-512"]
ResourceType: TypeAlias = Literal["topic", "broker", "group", "client-metrics"]


class ConfigRecord(Fact):
    """One dynamic setting. `resource_name` is a topic name, a group id, the name of a subscription to client metrics, a
    broker id, or "" for the cluster-wide broker default."""

    type: Literal["config"] = "config"
    resource_type: ResourceType
    resource_name: str
    name: str
    value: str | None = None
    """None removes the setting."""


class ProducerIdsRecord(Fact):
    """A block of producer ids was allocated to a broker (AllocateProducerIds)."""

    type: Literal["producer_ids"] = "producer_ids"
    broker_id: int
    broker_epoch: int
    next_producer_id: int


class AccessControlEntryRecord(Fact):
    """An ACL was created (KIP-801). The fields are Kafka's, with its codes."""

    type: Literal["access_control_entry"] = "access_control_entry"
    id: UUID
    resource_type: AclResource
    resource_name: str
    pattern_type: AclPattern
    principal: str
    host: str
    operation: AclOperation
    permission_type: AclPermission


class RemoveAccessControlEntryRecord(Fact):
    type: Literal["remove_access_control_entry"] = "remove_access_control_entry"
    id: UUID


class ClientQuotaRecord(Fact):
    """One quota of an entity: of a user, a client id, an address, or a default of these (KIP-546)."""

    type: Literal["client_quota"] = "client_quota"
    entity: tuple[tuple[str, str | None], ...]
    """(entity type, name) by type; None: the default of the type."""
    key: str
    value: float | None = None
    """None removes the quota."""


class UserScramCredentialRecord(Fact):
    """What a user's password is checked with (RFC 5802); never the password. Bytes are hexadecimal."""

    type: Literal["user_scram_credential"] = "user_scram_credential"
    name: str
    mechanism: ScramMechanism
    salt: str
    iterations: int
    stored_key: str
    server_key: str


class RemoveUserScramCredentialRecord(Fact):
    type: Literal["remove_user_scram_credential"] = "remove_user_scram_credential"
    name: str
    mechanism: ScramMechanism


class RouteRecord(Fact):
    """A route was created, without bindings. Ours."""

    type: Literal["route"] = "route"
    name: str
    kind: RouteKind


class RemoveRouteRecord(Fact):
    """Removes the route and its bindings. Ours."""

    type: Literal["remove_route"] = "remove_route"
    name: str


class RouteBindingRecord(Fact):
    """A topic was bound to a route. Ours."""

    type: Literal["route_binding"] = "route_binding"
    route: str
    key: str
    topic: str


class RemoveRouteBindingRecord(Fact):
    """A binding of a route was removed. Ours."""

    type: Literal["remove_route_binding"] = "remove_route_binding"
    route: str
    key: str
    topic: str


class BeginTransactionRecord(Fact):
    """KIP-868: the records that follow take effect when the End of this transaction is committed, and not before.

    A decision that must happen as a whole and is too large for one append is written in several appends between the
    two.
    """

    type: Literal["begin_transaction"] = "begin_transaction"
    name: str
    """Name of the change, for a person that reads the log."""


class EndTransactionRecord(Fact):
    """KIP-868: all records since the Begin take effect now."""

    type: Literal["end_transaction"] = "end_transaction"


class AbortTransactionRecord(Fact):
    """KIP-868: no record since the Begin takes effect. The next controller writes it."""

    type: Literal["abort_transaction"] = "abort_transaction"
    reason: str


Record: TypeAlias = Annotated[
    ControllerEpochRecord
    | RegisterBrokerRecord
    | BrokerChangeRecord
    | UnregisterBrokerRecord
    | TopicRecord
    | RemoveTopicRecord
    | PartitionRecord
    | PartitionChangeRecord
    | ConfigRecord
    | ProducerIdsRecord
    | AccessControlEntryRecord
    | RemoveAccessControlEntryRecord
    | ClientQuotaRecord
    | UserScramCredentialRecord
    | RemoveUserScramCredentialRecord
    | RouteRecord
    | RemoveRouteRecord
    | RouteBindingRecord
    | RemoveRouteBindingRecord
    | BeginTransactionRecord
    | EndTransactionRecord
    | AbortTransactionRecord,
    Field(discriminator="type"),
]

_ADAPTER: TypeAdapter[Record] = TypeAdapter(Record)
_LIST: TypeAdapter[list[Record]] = TypeAdapter(list[Record])


def encode_record(record: Record) -> bytes:
    return _ADAPTER.dump_json(record, exclude_none=True, exclude_defaults=False)


def decode_record(data: bytes | bytearray | memoryview) -> Record:
    """The record of encoded bytes. Raises pydantic.ValidationError for bytes that are no record of ours."""
    return _ADAPTER.validate_json(bytes(data))


def encode_records(records: Iterable[Record]) -> bytes:
    return _LIST.dump_json(list(records), exclude_none=True)


def decode_records(data: bytes | bytearray | memoryview) -> tuple[Record, ...]:
    return tuple(_LIST.validate_json(bytes(data)))
