"""What a door needs of the cluster: any node takes any request. `Gateway` is implemented by `kraft.broker.routing`.

Data requests go to the partition's leader, at most one hop; a produce whose outcome is unknown is sent again only if
it carries a producer id. Administrative requests go to the active controller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from kraft.broker.client_quotas import ClientQuotas
from kraft.broker.permissions import Permissions
from kraft.broker.principal import Principal
from kraft.protocol.primitives import Buffer
from metadata.authorizer import Authorizer
from metadata.controller.requests import ErrorDetail, NewTopic, Request
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.partition.log import AbortedTransaction
from replication.requests import ActiveProducer, OffsetAnswer, ProduceOptions, ProduceOutcome, ReadOptions

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Whole batches as they are in the log, up to `end_offset`. The first may begin before the asked offset."""

    data: Buffer
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    leader_id: int
    leader_epoch: int
    is_read_committed: bool = False
    aborted: Sequence[AbortedTransaction] = ()
    """Those with records in `data`, for readers of committed records: `readable_batches` leaves them out."""

    @property
    def end_offset(self) -> int:
        """Where the log ends to this reader."""
        return self.last_stable_offset if self.is_read_committed else self.high_watermark


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """One node of cluster.toml, for status pages; `is_voter` and addresses come from the configuration."""

    node_id: int
    roles: tuple[str, ...]
    rest: str
    kafka: str
    quorum: str | None
    rack: str | None


class Gateway(Protocol):
    @property
    def node_id(self) -> int: ...
    @property
    def cluster_id(self) -> str: ...
    @property
    def image(self) -> MetadataImage: ...
    @property
    def controller_id(self) -> int:
        """The active controller as known here; -1 when none is."""
        ...

    @property
    def nodes(self) -> Mapping[int, NodeInfo]: ...
    @property
    def settings(self) -> BrokerSettings:
        """This node's settings, dynamic ones included."""
        ...

    @property
    def authorizer(self) -> Authorizer | None:
        """The decisions on the ACLs of the image; None when nothing is checked."""
        ...

    def permissions(self, principal: Principal, *, what: str) -> Permissions | None:
        """What the principal may do; None: everything. `what` is the API or the route, for the audit of refusals."""
        ...

    @property
    def quotas(self) -> ClientQuotas | None:
        """The quotas of clients; None while there are none."""
        ...

    @property
    def described_settings(self) -> Mapping[str, str]:
        """What cluster.toml gives this node, as Kafka's DescribeConfigs shows it."""
        ...

    def topic_settings(self, topic: str) -> TopicSettings: ...

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        """One record batch (or several, back to back) per partition. Every partition has its own outcome (P10).

        acks=0 returns at once with error 0 and no offset, whatever becomes of it. Raises only for the request
        as a whole: InvalidRequiredAcks 21.
        """
        ...

    async def read(self, partition: TopicIdPartition, offset: int, options: ReadOptions) -> Records:
        """A consumer's fetch of one partition, waiting up to `wait_ms_max` for `bytes_min`; wakes on append.

        Raises UnknownTopicOrPartition 3, OffsetOutOfRange 1, NotLeaderOrFollower 6, LeaderNotAvailable 5,
        KafkaStorageError 56, RequestTimedOut 7.
        """
        ...

    async def tail(
        self, positions: Mapping[TopicIdPartition, int], options: ReadOptions
    ) -> Mapping[TopicIdPartition, Records | None]:
        """What comes first at these offsets, empty when nothing comes in time; None for a partition that has an error
        or another leader: a read returns it. All waiters at the same position share one fetch; any byte ends it.

        `bytes_max` is for each partition; a first batch comes whole. Raises ThrottlingQuotaExceeded 89.
        """
        ...

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        """`timestamp` in ms, or one of LATEST/EARLIEST/MAX_TIMESTAMP. The latest is the high watermark, or the last
        stable offset to readers of committed records."""
        ...

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        """What the leader knows of the partition's producers, and their open transactions."""
        ...

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        """S4: move the log start; -1 means the high watermark. Returns the low watermark."""
        ...

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Ask the active controller. Raises the KafkaError it answered, or NotController 41/RequestTimedOut 7."""
        ...

    def note_change(
        self, principal: Principal | None, what: str, names: Sequence[str], errors: Iterable[str] = ()
    ) -> None:
        """Write into the audit what a client has changed without `control`; None is no client. `what` is Kafka's name
        of the request, `errors` are names of errors."""
        ...

    async def ensure_topic(self, new: NewTopic) -> UUID | ErrorDetail:
        """The id of the topic of this name, or the controller's reason not to create it.

        Raises what `control` raises, and LeaderNotAvailable 5 when it exists and this node has not heard of it yet.
        """
        ...

    async def topic_id_or_create(self, name: str) -> UUID:
        """The id of a topic; creates it when auto.create.topics.enable. Raises UnknownTopicOrPartition 3."""
        ...
