"""What the rest of the node asks of other nodes, as the protocols that it declares; each is a few RPCs over `Peers`.

Purposes keep slow and fast apart (KIP-291 in small): `controller` for requests about the cluster, whose breaking tells
the controller that a broker died; `fetch` for a follower's long polls; `forward` for data requests of clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from kraft.coordinators.groups import requests as groups
from kraft.coordinators.groups.answers import Answer
from kraft.coordinators.transactions.decide import RAISES_EPOCH_FROM
from kraft.coordinators.transactions.list_filters import Listed, ListFilters
from kraft.coordinators.transactions.state import Transaction
from kraft.protocol.acks import ACKS_NONE
from kraft.protocol.errors import KafkaError, TransactionAbortable, for_code
from kraft.protocol.primitives import Buffer, TopicPartition
from kraft.protocol.transactions import Codes, MarkersToWrite, Producer
from kraft.wire.messages.active_producers import DESCRIBE_PRODUCERS
from kraft.wire.messages.common import ReplyT, RequestData, RequestT, ResponseData, Rpc
from kraft.wire.messages.controller import CONTROLLER_RPCS
from kraft.wire.messages.fetch import FETCH, log_ends_of, log_ends_request
from kraft.wire.messages.groups import GROUP_REQUEST
from kraft.wire.messages.metadata_log import (
    FETCH_SNAPSHOT,
    METADATA_FETCH,
    MetadataFetch,
    MetadataFetched,
    SnapshotFetch,
    SnapshotPiece,
)
from kraft.wire.messages.offsets import (
    DELETE_RECORDS,
    LIST_OFFSETS,
    OFFSET_FOR_LEADER_EPOCH,
    DeleteRecords,
    EpochQuestion,
    ListOffset,
)
from kraft.wire.messages.produce import PRODUCE, ProduceRequest
from kraft.wire.messages.producer_ids import INIT_PRODUCER_ID, InitProducerId
from kraft.wire.messages.transactions import (
    ADD_PARTITIONS_TO_TXN,
    DESCRIBE_TRANSACTION,
    END_TXN,
    LIST_TRANSACTIONS,
    NO_PRODUCER,
    WRITE_TXN_MARKERS,
    End,
    PartitionsOfTransaction,
)
from kraft.wire.peers import Lane, Peers
from metadata.controller.requests import ReplicaLogEnd, Request
from metadata.image import TopicIdPartition
from replication.partition.log import EpochEnd
from replication.requests import (
    ActiveProducer,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
)

Reply = TypeVar("Reply")

ANSWER_SLACK_MS = 2_000
"""Beyond the wait that a request itself allows its server."""
REPLICA_TIMEOUT_MS = 30_000
"""Default of replica.socket.timeout.ms."""
LOOKUP_MS = 5_000
"""For a leader to find an offset in its log: a lookup by timestamp may have to read a segment's headers."""
GROUP_SLACK_MS = 15_000
"""How long a group coordinator's answer may take, beyond what the request itself waits."""
REBALANCE_WAIT_MS = 300_000
"""A join is answered when all have joined."""
READ_BYTES_PER_MS_MIN = 1_000
"""A leader that hands out a client's records more slowly than this is taken for silent."""


class WireLeaderChannel:
    """A follower's fetches from one leader, on the `fetch` connection; it implements
    `replication.requests.LeaderChannel`. Each call raises what `Peers.call` raises.
    """

    def __init__(self, peers: Peers, leader_id: int) -> None:
        self._peers = peers
        self._leader_id = leader_id

    async def fetch(self, request: FetchRequest, *, timeout_ms: int) -> FetchResponse:
        """One Fetch; `timeout_ms` bounds all of it, the wait for bytes that the request asks for as well."""
        return await self._peers.call(self._leader_id, "fetch", FETCH, request, timeout_ms=timeout_ms)

    async def offset_for_leader_epoch(self, question: EpochQuestion) -> EpochEnd | None:
        """Where the leader's log ends in the epoch asked for; None when the leader knows nothing of it (KIP-320)."""
        return await self._peers.call(
            self._leader_id, "fetch", OFFSET_FOR_LEADER_EPOCH, question, timeout_ms=REPLICA_TIMEOUT_MS
        )

    async def close(self) -> None:
        """The connection belongs to `Peers`, which closes it with the node."""


class ControllerChannel:
    """One attempt of a request to the controller on one node."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def request(self, node_id: int, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Asks the node once for what its active controller does. Raises ConnectionRefusedError or NotConnected when
        the request was surely not carried out, ConnectionClosed or TimeoutError when that is unknown, or the KafkaError
        of the refusal.
        """
        rpc = CONTROLLER_RPCS[type(request)]
        reply = await self._peers.call(node_id, "controller", rpc, request, timeout_ms=timeout_ms, tells_timeout=True)
        return cast(Reply, reply)


class MetadataSourceChannel:
    """What an observer asks any voter for: its copy of the metadata log. Each call raises what `Peers.call` raises."""

    def __init__(self, peers: Peers, *, cluster_id: str) -> None:
        self._peers = peers
        self._cluster_id = cluster_id

    async def fetch(self, voter_id: int, *, offset: int, wait_ms_max: int, bytes_max: int) -> MetadataFetched:
        """Committed records from `offset` on, at most `bytes_max` bytes of them; with none to give the voter waits for
        `wait_ms_max`.
        """
        request = MetadataFetch(
            cluster_id=self._cluster_id,
            replica_id=self._peers.node_id,
            offset=offset,
            wait_ms_max=wait_ms_max,
            bytes_max=bytes_max,
        )
        timeout_ms = wait_ms_max + ANSWER_SLACK_MS
        return await self._peers.call(voter_id, "fetch", METADATA_FETCH, request, timeout_ms=timeout_ms)

    async def fetch_snapshot(
        self, voter_id: int, *, end_offset: int, epoch: int, position: int, bytes_max: int
    ) -> SnapshotPiece:
        """At most `bytes_max` bytes of the snapshot (`end_offset`, `epoch`), from byte `position` on (KIP-630). Also
        raises SnapshotNotFound 98 and PositionOutOfRange 99.
        """
        request = SnapshotFetch(
            cluster_id=self._cluster_id,
            replica_id=self._peers.node_id,
            end_offset=end_offset,
            epoch=epoch,
            position=position,
            bytes_max=bytes_max,
        )
        return await self._peers.call(voter_id, "fetch", FETCH_SNAPSHOT, request, timeout_ms=REPLICA_TIMEOUT_MS)


class WireReplicaQuery:
    """`metadata.controller.requests.ReplicaQuery`: log ends of replicas that need not lead (see `messages.fetch`)."""

    def __init__(self, peers: Peers, *, timeout_ms: int) -> None:
        self._peers = peers
        self._timeout_ms = timeout_ms

    async def log_ends(self, broker_id: int, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd]:
        """Log end offset, last epoch and high watermark of those of the partitions that the broker has a replica of,
        leading or not.
        """
        request = log_ends_request(partitions)
        response = await self._peers.call(broker_id, "controller", FETCH, request, timeout_ms=self._timeout_ms)
        if response.error_code:
            raise for_code(response.error_code)
        return log_ends_of(response)


class WireBrokerProbe:
    """`metadata.controller.requests.BrokerProbe`: a bare connection attempt, nothing is sent."""

    def __init__(self, peers: Peers, *, timeout_ms: int) -> None:
        self._peers = peers
        self._timeout_ms = timeout_ms

    async def is_refused(self, broker_id: int) -> bool:
        """True when nobody listens at the broker's Kafka port, so its process has ended; False for anything else, a
        timeout included.
        """
        host, port = self._peers.address(broker_id, "controller")
        network = self._peers.environment.network
        try:
            connection = await network.connect(host, port, frame_bytes_max=0, timeout_ms=self._timeout_ms)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        connection.abort()
        return False


class GroupChannel:
    """Group requests of clients, carried to the coordinator of their group; at most one hop."""

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def ask(self, request: groups.Request) -> Answer:
        """The coordinator's answer. Raises what `Peers.call` raises, or the KafkaError of a refusal."""
        wait_ms = 0
        if isinstance(request, groups.JoinGroup | groups.SyncGroup):
            wait_ms = REBALANCE_WAIT_MS
        elif isinstance(request, groups.BeginPoll):
            wait_ms = request.wait_ms
        timeout_ms = wait_ms + GROUP_SLACK_MS
        return await self._peers.call(
            self._node_id, "forward", GROUP_REQUEST, request, timeout_ms=timeout_ms, lane="groups"
        )


class TransactionChannel:
    """Requests about transactional ids to their coordinator, and its markers to the leaders of partitions: one node.

    Each raises ConnectionRefusedError, NotConnected, ConnectionClosed or TimeoutError, or what the peer refused.
    """

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def init(
        self, transactional_id: str, *, timeout_ms: int, expected: Producer | None = None, key: bytes = b""
    ) -> Producer:
        named = expected or NO_PRODUCER
        request = InitProducerId(
            transactional_id=transactional_id,
            transaction_timeout_ms=timeout_ms,
            producer_id=named.producer_id,
            epoch=named.epoch,
            key=key,
        )
        given = await self._call(INIT_PRODUCER_ID, request)
        return Producer(given.producer_id, given.epoch)

    async def add_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition], *, client_version: int
    ) -> None:
        """Nodes ask as clients of transaction version 2 do."""
        assert client_version == RAISES_EPOCH_FROM, client_version
        await self._partitions(PartitionsOfTransaction(transactional_id, producer, False, partitions))

    async def verify_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition]
    ) -> Mapping[TopicPartition, KafkaError | None]:
        return await self._partitions(PartitionsOfTransaction(transactional_id, producer, True, partitions))

    async def _partitions(self, request: PartitionsOfTransaction) -> Mapping[TopicPartition, KafkaError | None]:
        (codes,) = await self._call(ADD_PARTITIONS_TO_TXN, (request,))
        for code in codes.values():
            if code not in (0, TransactionAbortable.code):
                raise for_code(code)
        return {each: for_code(code) if code else None for each, code in codes.items()}

    async def end(self, transactional_id: str, producer: Producer, *, is_commit: bool, client_version: int) -> Producer:
        assert client_version == RAISES_EPOCH_FROM, client_version
        return await self._call(END_TXN, End(transactional_id, producer, is_commit))

    async def describe(self, transactional_id: str) -> Transaction:
        return await self._call(DESCRIBE_TRANSACTION, transactional_id)

    async def list(self, filters: ListFilters) -> Sequence[Listed]:
        return await self._call(LIST_TRANSACTIONS, filters)

    async def write_markers(self, markers: Sequence[MarkersToWrite]) -> Sequence[Codes]:
        return await self._peers.call(
            self._node_id, "forward", WRITE_TXN_MARKERS, markers, timeout_ms=REPLICA_TIMEOUT_MS, lane="markers"
        )

    async def _call(self, rpc: Rpc[RequestT, ReplyT, RequestData, ResponseData], request: RequestT) -> ReplyT:
        return await self._peers.call(
            self._node_id, "forward", rpc, request, timeout_ms=REPLICA_TIMEOUT_MS, lane="transactions"
        )


class RemotePartitionClient:
    """`kraft.broker.leaders.PartitionClient` of another broker; at most one hop.

    Produces, reads and waits for records have a connection each: none of them stands in another's queue.
    """

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        """Appends one RecordBatch, or several, to each partition. With acks=0 nothing is answered, and each outcome is
        an empty one.
        """
        request = ProduceRequest(batches=batches, options=options)
        answer_ms = options.timeout_ms + ANSWER_SLACK_MS
        if options.acks != ACKS_NONE:
            return await self._peers.call(self._node_id, "forward", PRODUCE, request, timeout_ms=answer_ms)
        connection = await self._peers.connection(self._node_id, "forward", timeout_ms=answer_ms)
        await connection.send(PRODUCE.api, PRODUCE.to_request(request, options.timeout_ms))
        return {partition: ProduceOutcome() for partition in batches}

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        """One read of a consumer. A leader that says nothing holds it for the time that its bytes may take, no longer:
        it may be paused or cut off, and the cluster finds another one meanwhile.
        """
        transfer_ms = ANSWER_SLACK_MS + request.bytes_max // READ_BYTES_PER_MS_MIN
        timeout_ms = request.wait_ms_max + min(transfer_ms, REPLICA_TIMEOUT_MS)
        lane: Lane = "waits" if request.wait_ms_max > 0 else "reads"
        return await self._peers.call(self._node_id, "forward", FETCH, request, timeout_ms=timeout_ms, lane=lane)

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        """The offset for a timestamp in ms, or for one of Kafka's special timestamps (-1 latest, -2 earliest ...);
        `is_read_committed` makes the last stable offset the latest one."""
        request = ListOffset(
            partition=partition, timestamp=timestamp, timeout_ms=LOOKUP_MS, is_read_committed=is_read_committed
        )
        return await self._peers.call(
            self._node_id, "forward", LIST_OFFSETS, request, timeout_ms=LOOKUP_MS, lane="reads"
        )

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        """What the leader knows of the partition's producers. Raises as `list_offset`."""
        return await self._peers.call(
            self._node_id, "forward", DESCRIBE_PRODUCERS, partition, timeout_ms=LOOKUP_MS, lane="reads"
        )

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        """Moves the log start to `offset` and returns it once all live replicas have done so (KIP-107)."""
        request = DeleteRecords(offsets={partition: offset}, timeout_ms=timeout_ms)
        answer_ms = timeout_ms + ANSWER_SLACK_MS
        results = await self._peers.call(self._node_id, "forward", DELETE_RECORDS, request, timeout_ms=answer_ms)
        low_watermark, code = results[partition]
        if code:
            raise for_code(code)
        return low_watermark
