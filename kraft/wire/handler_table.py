"""Which APIs this node serves, and the module of `kraft.wire.handlers` that has the one handler of each.

Who may ask for which versions is in `kraft/protocol/schema/messages`. ApiVersions advertises Produce from version 0 on,
although 0 to 2 are refused: librdkafka before 2.11 takes a missing version 0 for a broker that knows no compression
(KAFKA-18659). A module has a function `apis(parts: NodeParts) -> Sequence[ApiHandler]`; it is imported when the first
request for one of its APIs comes, so that a node without clients pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module

from kraft.broker.client_quotas import ClientQuotas
from kraft.protocol import apis
from kraft.protocol.apis import Api
from kraft.wire.access import Guard
from kraft.wire.access_table import access_of
from kraft.wire.api_handler import ApiHandler
from kraft.wire.node_parts import NodeParts
from metadata.image import QuotaEntity
from metadata.settings import BrokerSettings


class Order(Enum):
    """When a request may begin while earlier requests of its connection are not answered yet, so that no client can see
    a state without the effect of a request that it sent before (docs/decisions/order-within-a-connection.md)."""

    READ = "read"
    """It changes nothing: it waits for the produces and writes before it, and nothing waits for it."""
    PRODUCE = "produce"
    """It waits for writes before it. Produces begin in their order, and their appends keep that order."""
    WRITE = "write"
    """It waits for the produces and writes before it, and every request behind it waits for it."""


READ, PRODUCE, WRITE = Order.READ, Order.PRODUCE, Order.WRITE


@dataclass(frozen=True, slots=True)
class Row:
    """How clients are served one API: its module, and its place among other requests of a connection."""

    module: str
    order: Order


_ROWS: Mapping[str, Row] = {
    "Produce": Row("kraft.wire.handlers.produce", PRODUCE),
    "Fetch": Row("kraft.wire.handlers.fetch", READ),
    "ListOffsets": Row("kraft.wire.handlers.offsets", READ),
    "Metadata": Row("kraft.wire.handlers.metadata", READ),
    "OffsetCommit": Row("kraft.wire.handlers.group_offsets", WRITE),
    "OffsetFetch": Row("kraft.wire.handlers.group_offsets", READ),
    "FindCoordinator": Row("kraft.wire.handlers.groups", READ),
    "JoinGroup": Row("kraft.wire.handlers.groups", WRITE),
    "Heartbeat": Row("kraft.wire.handlers.groups", WRITE),
    "LeaveGroup": Row("kraft.wire.handlers.groups", WRITE),
    "SyncGroup": Row("kraft.wire.handlers.groups", WRITE),
    "DescribeGroups": Row("kraft.wire.handlers.group_admin", READ),
    "ListGroups": Row("kraft.wire.handlers.group_admin", READ),
    "SaslHandshake": Row("kraft.wire.handlers.security", WRITE),
    "CreateTopics": Row("kraft.wire.handlers.topics", WRITE),
    "DeleteTopics": Row("kraft.wire.handlers.topics", WRITE),
    "DeleteRecords": Row("kraft.wire.handlers.offsets", WRITE),
    "InitProducerId": Row("kraft.wire.handlers.transactions", WRITE),
    "OffsetForLeaderEpoch": Row("kraft.wire.handlers.offsets", READ),
    "AddPartitionsToTxn": Row("kraft.wire.handlers.transactions", WRITE),
    "AddOffsetsToTxn": Row("kraft.wire.handlers.transactions", WRITE),
    "EndTxn": Row("kraft.wire.handlers.transactions", WRITE),
    "WriteTxnMarkers": Row("kraft.wire.handlers.markers", WRITE),
    "TxnOffsetCommit": Row("kraft.wire.handlers.group_offsets", WRITE),
    "DescribeAcls": Row("kraft.wire.handlers.acls", READ),
    "CreateAcls": Row("kraft.wire.handlers.acls", WRITE),
    "DeleteAcls": Row("kraft.wire.handlers.acls", WRITE),
    "DescribeConfigs": Row("kraft.wire.handlers.configs", READ),
    "AlterConfigs": Row("kraft.wire.handlers.configs", WRITE),
    "AlterReplicaLogDirs": Row("kraft.wire.handlers.log_dirs", WRITE),
    "DescribeLogDirs": Row("kraft.wire.handlers.log_dirs", READ),
    "SaslAuthenticate": Row("kraft.wire.handlers.security", WRITE),
    "CreatePartitions": Row("kraft.wire.handlers.topics", WRITE),
    "DeleteGroups": Row("kraft.wire.handlers.group_admin", WRITE),
    "ElectLeaders": Row("kraft.wire.handlers.partitions", WRITE),
    "IncrementalAlterConfigs": Row("kraft.wire.handlers.configs", WRITE),
    "AlterPartitionReassignments": Row("kraft.wire.handlers.partitions", WRITE),
    "ListPartitionReassignments": Row("kraft.wire.handlers.partitions", READ),
    "OffsetDelete": Row("kraft.wire.handlers.group_admin", WRITE),
    "DescribeClientQuotas": Row("kraft.wire.handlers.client_quotas", READ),
    "AlterClientQuotas": Row("kraft.wire.handlers.client_quotas", WRITE),
    "DescribeUserScramCredentials": Row("kraft.wire.handlers.security", READ),
    "AlterUserScramCredentials": Row("kraft.wire.handlers.security", WRITE),
    "DescribeQuorum": Row("kraft.wire.handlers.cluster_admin", READ),
    "UpdateFeatures": Row("kraft.wire.handlers.cluster_admin", WRITE),
    "DescribeCluster": Row("kraft.wire.handlers.metadata", READ),
    "DescribeProducers": Row("kraft.wire.handlers.active_producers", READ),
    "UnregisterBroker": Row("kraft.wire.handlers.cluster_admin", WRITE),
    "DescribeTransactions": Row("kraft.wire.handlers.transactions", READ),
    "ListTransactions": Row("kraft.wire.handlers.transactions", READ),
    "ConsumerGroupHeartbeat": Row("kraft.wire.handlers.consumer_groups", WRITE),
    "ConsumerGroupDescribe": Row("kraft.wire.handlers.consumer_groups", READ),
    "GetTelemetrySubscriptions": Row("kraft.wire.handlers.client_metrics", READ),
    "PushTelemetry": Row("kraft.wire.handlers.client_metrics", READ),
    "ListConfigResources": Row("kraft.wire.handlers.configs", READ),
    "ShareFetch": Row("kraft.wire.handlers.share_fetch", READ),
    "ShareAcknowledge": Row("kraft.wire.handlers.share_fetch", WRITE),
    "InitializeShareGroupState": Row("kraft.wire.handlers.share_state", WRITE),
    "ReadShareGroupState": Row("kraft.wire.handlers.share_state", WRITE),
    "WriteShareGroupState": Row("kraft.wire.handlers.share_state", WRITE),
    "DeleteShareGroupState": Row("kraft.wire.handlers.share_state", WRITE),
    "ReadShareGroupStateSummary": Row("kraft.wire.handlers.share_state", READ),
    "DescribeTopicPartitions": Row("kraft.wire.handlers.metadata", READ),
    "ShareGroupHeartbeat": Row("kraft.wire.handlers.share_groups", WRITE),
    "ShareGroupDescribe": Row("kraft.wire.handlers.share_groups", READ),
    "DescribeShareGroupOffsets": Row("kraft.wire.handlers.share_offsets", READ),
    "AlterShareGroupOffsets": Row("kraft.wire.handlers.share_offsets", WRITE),
    "DeleteShareGroupOffsets": Row("kraft.wire.handlers.share_offsets", WRITE),
}
"""Those that clients may ask, by the API's name. ApiVersions belongs to the connection itself."""
_FOR_NODES: Mapping[str, str] = {
    "AlterPartition": "kraft.wire.handlers.isr_changes",
    "BrokerRegistration": "kraft.wire.handlers.brokers",
    "BrokerHeartbeat": "kraft.wire.handlers.brokers",
    "AllocateProducerIds": "kraft.wire.handlers.brokers",
    "FetchSnapshot": "kraft.wire.handlers.metadata_log",
    "AlterRoute": "kraft.wire.handlers.routes",
    "GroupRequest": "kraft.wire.handlers.group_requests",
    "NodeFacts": "kraft.wire.handlers.node_facts",
}
"""The modules of those that only nodes may ask, by the API's name."""
SERVED: Sequence[Api] = [apis.BY_NAME[name] for name in _ROWS]
"""The APIs that clients may ask."""
ROWS: Mapping[int, Row] = {apis.BY_NAME[name].key: row for name, row in _ROWS.items()}
"""API key -> row, for the APIs that clients may ask."""
MODULES: Mapping[int, str] = {
    apis.BY_NAME[name].key: module
    for name, module in (*((name, row.module) for name, row in _ROWS.items()), *_FOR_NODES.items())
}
"""API key -> module, for all APIs."""
UNADVERTISED = frozenset({71, 72})
"""Served, and left out of ApiVersions: no broker here has a receiver of client metrics, and clients ask for none then
(KIP-714)."""


class ApiHandlers:
    """The handlers of one node, loaded module by module."""

    def __init__(self, parts: NodeParts, *, awaited: Callable[[], str] = str) -> None:
        """`awaited` returns why no client is served yet; an empty text once clients are served."""
        self._parts = parts
        self._loaded: dict[int, ApiHandler] = {}
        self.awaited = awaited

    @property
    def metadata_offset(self) -> int:
        """The metadata offset of the image that clients are answered from."""
        return self._parts.gateway.image.offset

    @property
    def quotas(self) -> ClientQuotas | None:
        """The quotas of clients; None while there are none."""
        return self._parts.gateway.quotas

    @property
    def settings(self) -> BrokerSettings:
        """The settings of the node, dynamic ones included."""
        return self._parts.gateway.settings

    @property
    def quota_entities(self) -> Mapping[QuotaEntity, Mapping[str, float]]:
        """The quotas of the current image, by their entities."""
        return self._parts.gateway.image.quotas

    def get(self, key: int) -> ApiHandler | None:
        """The handler of the API; None when there is none. The first call for an API imports its module."""
        handler = self._loaded.get(key)
        if handler is None and key in MODULES:
            self._load(MODULES[key])
            handler = self._loaded.get(key)
        return handler

    def _load(self, module: str) -> None:
        """Without an authorizer nothing is between a request and its handler."""
        handlers: Sequence[ApiHandler] = import_module(module).apis(self._parts)
        gateway = self._parts.gateway
        if gateway is not None and gateway.authorizer is not None:
            guard = Guard(gateway, access_of)
            handlers = [guard.guarded(each) for each in handlers]
        self._loaded.update({each.request.API_KEY: each for each in handlers})
