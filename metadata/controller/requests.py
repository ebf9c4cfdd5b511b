"""The controller's requests and their answers. Plain frozen data, no behaviour.

Each request becomes one event for `decide`; a refused request raises a `KafkaError` and changes nothing. Requests
about several things (topics, partitions) have one outcome for each thing: an `ErrorDetail` where it was refused. The
wire protocol, the HTTP listener and the broker lifecycle build these requests; nothing here depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar
from uuid import UUID

from kraft.protocol.errors import KafkaError
from kraft.values import value
from metadata.acls import Acl, AclFilter
from metadata.image import PartitionImage, QuotaEntity, TopicIdPartition
from metadata.records import ResourceType
from metadata.routes import Binding, RouteKind

Reply = TypeVar("Reply")


class Request(Generic[Reply]):
    """A request whose answer is a `Reply`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    error: type[KafkaError]
    message: str

    def exception(self) -> KafkaError:
        return self.error(self.message)


# --- brokers (B1 to B7) -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRegistered:
    broker_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterBroker(Request[BrokerRegistered]):
    cluster_id: str
    broker_id: int
    incarnation_id: UUID
    rest: str
    kafka: str
    rack: str | None = None
    listeners: Mapping[str, str] = field(default_factory=dict)
    """The same as in `RegisterBrokerRecord`."""


OfflineReplicas: TypeAlias = Mapping[int, frozenset[TopicIdPartition]]
"""Broker id -> its offline partitions; a broker without any is left out."""

OFFLINE_REPLICAS_ANSWERED_MAX = 10_000
"""Replicas that the answer to a heartbeat names. If there are more, those of the brokers with the highest ids are left
out."""


@value(kw_only=True)
class HeartbeatAnswer:
    is_caught_up: bool
    """The broker has applied its own registration record (B2)."""
    is_fenced: bool
    should_shut_down: bool
    """B6: the broker leads nothing and all active brokers know it; it may stop."""
    metadata_offset: int
    """Metadata offset of the controller's answer: a broker that has applied less may have lost leaderships by then."""
    offline: OfflineReplicas = field(default_factory=dict)
    """Partitions that live brokers can neither read nor write, from their last heartbeats; clients get them
    (KIP-112)."""


FAILED_REPLICAS_REPORTED_MAX = 10_000
"""Failed replicas that one heartbeat may name. A broker with more of them asks to be fenced instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedReplicas:
    """The replicas of one broker whose logs have failed: KIP-858, per log instead of per log directory."""

    offline: frozenset[TopicIdPartition] = frozenset()
    """Replicas that can be neither read nor written."""
    read_only: frozenset[TopicIdPartition] = frozenset()
    """Replicas that can be read but not written, because the disk is full."""

    def __len__(self) -> int:
        return len(self.offline) + len(self.read_only)


NO_FAILED_REPLICAS = FailedReplicas()


@value(kw_only=True)
class BrokerHeartbeat(Request[HeartbeatAnswer]):
    broker_id: int
    broker_epoch: int
    metadata_offset: int
    """Last metadata offset that the broker has applied."""
    wants_fence: bool = False
    wants_shutdown: bool = False
    failed: FailedReplicas = NO_FAILED_REPLICAS
    """All failed replicas, in every heartbeat: the controller keeps them as soft state."""
    wants_proof: bool = False
    """Answer only after the quorum has confirmed that this controller is still the active one: an answer without a
    record could otherwise be from a deposed controller, and the broker cannot see the difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnregisterBroker(Request[None]):
    """Forget a broker that is gone for good: it leaves all ISRs. A live broker registers itself again."""

    broker_id: int


# --- the metadata quorum ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """The state of a node's copy of the metadata log, from the last report of its broker to the active controller."""

    node_id: int
    log_end_offset: int = -1
    """-1: not reported."""
    heard_ms_ago: int = -1
    """-1: not reported."""
    caught_up_ms_ago: int = -1
    """Time since it had all records that the controller had at that moment. -1: not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumProgress:
    leader_id: int
    leader_epoch: int
    high_watermark: int
    nodes: tuple[NodeProgress, ...]
    """The leader and the registered brokers, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeQuorum(Request[QuorumProgress]):
    """Describe the quorum's nodes (KIP-595, KIP-836)."""


# --- partitions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IsrMember:
    broker_id: int
    broker_epoch: int = -1
    """-1: not checked (KIP-903; new callers always set it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionAlteration:
    topic_id: UUID
    partition: int
    leader_epoch: int
    partition_epoch: int
    new_isr: tuple[IsrMember, ...]
    recovered: bool
    """The leader has finished recovering from an unclean election (L3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterPartition(Request[Mapping[TopicIdPartition, "PartitionImage | ErrorDetail"]]):
    """KIP-497. The reply has the committed state of each partition, or the refusal of its change (I5, I6, I9)."""

    broker_id: int
    broker_epoch: int
    alterations: tuple[PartitionAlteration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectLeaders(Request[Mapping[tuple[str, int], "ErrorDetail | None"]]):
    """Elect leaders (L5, L6). `partitions` None means all. An unclean election asks the replicas first, as always
    (L8)."""

    election: Literal["preferred", "unclean"]
    partitions: tuple[tuple[str, int], ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReassignment:
    topic: str
    partition: int
    replicas: tuple[int, ...] | None
    """None cancels the current reassignment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterReassignments(Request[Mapping[tuple[str, int], "ErrorDetail | None"]]):
    """Start or cancel reassignments (S8, I9)."""

    reassignments: tuple[PartitionReassignment, ...]
    allow_replication_factor_change: bool = True
    """False: a target with more or fewer replicas is refused (KIP-860)."""


# --- topics -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicCreated:
    topic_id: UUID
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    name: str
    partitions: int = -1
    """-1: num.partitions."""
    replication_factor: int = -1
    """-1: default.replication.factor."""
    assignment: Mapping[int, tuple[int, ...]] | None = None
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopics(Request[Mapping[str, "TopicCreated | ErrorDetail"]]):
    topics: tuple[NewTopic, ...]
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteTopics(Request[Mapping["str | UUID", "ErrorDetail | None"]]):
    topics: tuple[str | UUID, ...]
    """Topic names or ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPartitions:
    topic: str
    count: int
    """The total number of partitions afterwards (S7)."""
    assignments: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePartitions(Request[Mapping[str, "ErrorDetail | None"]]):
    topics: tuple[NewPartitions, ...]
    validate_only: bool = False


# --- configs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigAlteration:
    name: str
    operation: Literal["set", "delete", "append", "subtract"]
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigResource:
    resource_type: ResourceType
    name: str
    """Topic name; group id; broker id as decimal text; "" for the cluster-wide broker default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterConfigs(Request[Mapping[ConfigResource, "ErrorDetail | None"]]):
    """KIP-339 incremental alteration; all alterations of one resource are applied or none."""

    resources: Mapping[ConfigResource, tuple[ConfigAlteration, ...]]
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceConfigs(Request[Mapping[ConfigResource, "ErrorDetail | None"]]):
    """AlterConfigs, older than KIP-339: the dynamic settings of each resource become these, others are unset."""

    resources: Mapping[ConfigResource, Mapping[str, str]]
    validate_only: bool = False


# --- ACLs and quotas ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAcls(Request[Sequence["ErrorDetail | None"]]):
    """Create ACLs; one that exists already stays as it is (KIP-140)."""

    acls: tuple[Acl, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteAcls(Request[Sequence["tuple[Acl, ...] | ErrorDetail"]]):
    """Delete the ACLs that a filter matches. The reply has those that each filter matched."""

    filters: tuple[AclFilter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaAlteration:
    entity: QuotaEntity
    quotas: Mapping[str, float | None]
    """Name of the quota -> its value; None removes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterClientQuotas(Request[Sequence["ErrorDetail | None"]]):
    """Set and remove quotas; all those of one entity or none (KIP-546)."""

    alterations: tuple[QuotaAlteration, ...]
    validate_only: bool = False


# --- users ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ScramDeletion:
    name: str
    mechanism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScramUpsertion:
    name: str
    mechanism: str
    iterations: int
    salt: bytes
    salted_password: bytes

    def __repr__(self) -> str:
        return f"ScramUpsertion({self.name!r}, {self.mechanism!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterUsers(Request[Mapping[str, "ErrorDetail | None"]]):
    """Add, change and remove credentials of users; the reply has an outcome for each user (KIP-554)."""

    deletions: tuple[ScramDeletion, ...] = ()
    upsertions: tuple[ScramUpsertion, ...] = ()


# --- routes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterRoute(Request[None]):
    """Create a route with bindings, add and remove bindings of one, or delete it; all or nothing of it. Ours."""

    name: str
    operation: Literal["create", "alter", "delete"]
    kind: RouteKind | None = None
    """The kind of a new route."""
    added: tuple[Binding, ...] = ()
    removed: tuple[Binding, ...] = ()


# --- producer ids -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerIdBlock:
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocateProducerIds(Request[ProducerIdBlock]):
    broker_id: int
    broker_epoch: int


ControllerRequest: TypeAlias = (
    RegisterBroker
    | BrokerHeartbeat
    | AlterPartition
    | ElectLeaders
    | AlterReassignments
    | CreateTopics
    | DeleteTopics
    | CreatePartitions
    | AlterConfigs
    | ReplaceConfigs
    | CreateAcls
    | DeleteAcls
    | AlterClientQuotas
    | AlterUsers
    | AlterRoute
    | AllocateProducerIds
    | UnregisterBroker
    | DescribeQuorum
)


# --- requests of the controller to the brokers ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLogEnd:
    """A replica's answer when the controller asks before an unclean election (L8)."""

    topic_id: UUID
    partition: int
    last_epoch: int
    log_end_offset: int
    high_watermark: int
    error_code: int = 0


class ReplicaQuery(Protocol):
    """Interface by which the active controller asks a broker about its replicas before an unclean election (L8)."""

    async def log_ends(self, broker_id: int, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd]:
        """The log ends of these partitions. Raises OSError, TimeoutError or KafkaError when the broker does not
        answer."""
        ...


class BrokerProbe(Protocol):
    """Interface by which the active controller finds out whether a broker whose connection broke is dead."""

    async def is_refused(self, broker_id: int) -> bool:
        """True only if the broker's port refuses connections now; False when it accepts or stays silent."""
        ...
