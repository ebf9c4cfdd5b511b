"""Which APIs and versions clients are served, and the module of `kraft.wire.clients` that answers each.

The versions are those of Apache Kafka 4.3. ApiVersions advertises Produce from version 0 on, although 0 to 2 are
refused: librdkafka before 2.11 takes a missing version 0 for a broker that knows no compression (KAFKA-18659).
A module has a function `apis(broker: ClientBroker) -> Sequence[ClientApi]`; it is imported when the first request
for one of its APIs comes, so that a node without clients pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from kraft.wire.apis import NEVER
from kraft.wire.clients.served import ClientApi, ClientBroker


class Row(NamedTuple):
    """One API as clients are served it: its name, its module, and the versions from `oldest` to `newest`."""

    name: str
    oldest: int
    newest: int
    flexible_from: int
    module: str


ROWS: Mapping[int, Row] = {
    0: Row("Produce", 3, 13, 9, "kraft.wire.clients.produce"),
    1: Row("Fetch", 4, 18, 12, "kraft.wire.clients.fetch"),
    2: Row("ListOffsets", 1, 11, 6, "kraft.wire.clients.offsets"),
    3: Row("Metadata", 0, 13, 9, "kraft.wire.clients.metadata"),
    8: Row("OffsetCommit", 2, 10, 8, "kraft.wire.clients.group_offsets"),
    9: Row("OffsetFetch", 1, 10, 6, "kraft.wire.clients.group_offsets"),
    10: Row("FindCoordinator", 0, 6, 3, "kraft.wire.clients.groups"),
    11: Row("JoinGroup", 0, 9, 6, "kraft.wire.clients.groups"),
    12: Row("Heartbeat", 0, 4, 4, "kraft.wire.clients.groups"),
    13: Row("LeaveGroup", 0, 5, 4, "kraft.wire.clients.groups"),
    14: Row("SyncGroup", 0, 5, 4, "kraft.wire.clients.groups"),
    15: Row("DescribeGroups", 0, 6, 5, "kraft.wire.clients.group_admin"),
    16: Row("ListGroups", 0, 5, 3, "kraft.wire.clients.group_admin"),
    17: Row("SaslHandshake", 0, 1, NEVER, "kraft.wire.clients.security"),
    19: Row("CreateTopics", 2, 7, 5, "kraft.wire.clients.topics"),
    20: Row("DeleteTopics", 1, 6, 4, "kraft.wire.clients.topics"),
    21: Row("DeleteRecords", 0, 2, 2, "kraft.wire.clients.offsets"),
    22: Row("InitProducerId", 0, 5, 2, "kraft.wire.clients.transactions"),
    23: Row("OffsetForLeaderEpoch", 2, 4, 4, "kraft.wire.clients.offsets"),
    24: Row("AddPartitionsToTxn", 0, 5, 3, "kraft.wire.clients.transactions"),
    25: Row("AddOffsetsToTxn", 0, 4, 3, "kraft.wire.clients.transactions"),
    26: Row("EndTxn", 0, 5, 3, "kraft.wire.clients.transactions"),
    27: Row("WriteTxnMarkers", 1, 2, 1, "kraft.wire.clients.markers"),
    28: Row("TxnOffsetCommit", 0, 5, 3, "kraft.wire.clients.group_offsets"),
    29: Row("DescribeAcls", 1, 3, 2, "kraft.wire.clients.security"),
    30: Row("CreateAcls", 1, 3, 2, "kraft.wire.clients.security"),
    31: Row("DeleteAcls", 1, 3, 2, "kraft.wire.clients.security"),
    32: Row("DescribeConfigs", 1, 4, 4, "kraft.wire.clients.configs"),
    33: Row("AlterConfigs", 0, 2, 2, "kraft.wire.clients.configs"),
    34: Row("AlterReplicaLogDirs", 1, 2, 2, "kraft.wire.clients.log_dirs"),
    35: Row("DescribeLogDirs", 1, 5, 2, "kraft.wire.clients.log_dirs"),
    36: Row("SaslAuthenticate", 0, 2, 2, "kraft.wire.clients.security"),
    37: Row("CreatePartitions", 0, 3, 2, "kraft.wire.clients.topics"),
    42: Row("DeleteGroups", 0, 2, 2, "kraft.wire.clients.group_admin"),
    43: Row("ElectLeaders", 0, 2, 2, "kraft.wire.clients.partitions"),
    44: Row("IncrementalAlterConfigs", 0, 1, 1, "kraft.wire.clients.configs"),
    45: Row("AlterPartitionReassignments", 0, 1, 0, "kraft.wire.clients.partitions"),
    46: Row("ListPartitionReassignments", 0, 0, 0, "kraft.wire.clients.partitions"),
    47: Row("OffsetDelete", 0, 0, NEVER, "kraft.wire.clients.group_admin"),
    48: Row("DescribeClientQuotas", 0, 1, 1, "kraft.wire.clients.security"),
    49: Row("AlterClientQuotas", 0, 1, 1, "kraft.wire.clients.security"),
    50: Row("DescribeUserScramCredentials", 0, 0, 0, "kraft.wire.clients.security"),
    51: Row("AlterUserScramCredentials", 0, 0, 0, "kraft.wire.clients.security"),
    55: Row("DescribeQuorum", 0, 2, 0, "kraft.wire.clients.cluster_admin"),
    57: Row("UpdateFeatures", 0, 2, 0, "kraft.wire.clients.cluster_admin"),
    60: Row("DescribeCluster", 0, 2, 0, "kraft.wire.clients.metadata"),
    61: Row("DescribeProducers", 0, 0, 0, "kraft.wire.clients.active_producers"),
    64: Row("UnregisterBroker", 0, 0, 0, "kraft.wire.clients.cluster_admin"),
    65: Row("DescribeTransactions", 0, 0, 0, "kraft.wire.clients.transactions"),
    66: Row("ListTransactions", 0, 2, 0, "kraft.wire.clients.transactions"),
    68: Row("ConsumerGroupHeartbeat", 0, 1, 0, "kraft.wire.clients.consumer_groups"),
    69: Row("ConsumerGroupDescribe", 0, 1, 0, "kraft.wire.clients.consumer_groups"),
    74: Row("ListConfigResources", 0, 1, 0, "kraft.wire.clients.configs"),
    75: Row("DescribeTopicPartitions", 0, 0, 0, "kraft.wire.clients.metadata"),
}
"""By API key, in its order. ApiVersions belongs to the connection itself."""


class ClientApis:
    """The handlers of one node, loaded module by module."""

    def __init__(self, broker: ClientBroker, *, awaited: Callable[[], str] = str) -> None:
        """`awaited` says why no client is served yet; empty from some moment on."""
        self._broker = broker
        self._loaded: dict[int, ClientApi] = {}
        self.awaited = awaited

    @property
    def metadata_offset(self) -> int:
        """The metadata offset of the image that clients are answered from."""
        return self._broker.gateway.image.offset

    def get(self, key: int) -> ClientApi | None:
        """The handler of the API; None when no such API is served to clients. The first call for an API imports its
        module.
        """
        api = self._loaded.get(key)
        if api is None and key in ROWS:
            self._load(ROWS[key].module)
            api = self._loaded.get(key)
        return api

    def _load(self, module: str) -> None:
        served: Sequence[ClientApi] = import_module(module).apis(self._broker)
        self._loaded.update({api.request.API_KEY: api for api in served})
