"""Kafka's APIs that this node speaks: key, schema name and the versions that it takes.

Between brokers one version of each API is pinned: the newest whose meaning fits. ApiVersions is answered for every
version, as KIP-35 asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from kraft.wire.primitives import TopLevel

NEVER = 1 << 15
"""`flexible_from` of an API without tagged fields (KIP-482)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Api:
    """One API between nodes, and the versions of it that this node takes. There is one object for each, compared by
    identity, because APIs are keys of what is looked up for each request.
    """

    key: int
    name: str
    """CamelCase, as in the names of Kafka's message classes."""
    schema: str
    version: int
    """What we send."""
    version_min: int
    """The oldest that we answer."""
    flexible_from: int

    def is_flexible(self, version: int) -> bool:
        """Whether headers and bodies of this version have compact lengths and tagged fields (KIP-482)."""
        return version >= self.flexible_from

    def takes(self, version: int) -> bool:
        """Whether a request of this version is served."""
        return self.version_min <= version <= self.version


def _api(key: int, name: str, version: int, *, oldest: int | None = None, flexible_from: int = 0) -> Api:
    schema = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
    return Api(
        key=key,
        name=name,
        schema=schema,
        version=version,
        version_min=version if oldest is None else oldest,
        flexible_from=flexible_from,
    )


PRODUCE = _api(0, "Produce", 13, flexible_from=9)
FETCH = _api(1, "Fetch", 17, flexible_from=12)
LIST_OFFSETS = _api(2, "ListOffsets", 10, flexible_from=6)
SASL_HANDSHAKE = _api(17, "SaslHandshake", 1, flexible_from=NEVER)
API_VERSIONS = _api(18, "ApiVersions", 4, oldest=0, flexible_from=3)
CREATE_TOPICS = _api(19, "CreateTopics", 7, flexible_from=5)
DELETE_TOPICS = _api(20, "DeleteTopics", 6, flexible_from=4)
DELETE_RECORDS = _api(21, "DeleteRecords", 2, flexible_from=2)
INIT_PRODUCER_ID = _api(22, "InitProducerId", 5, oldest=0, flexible_from=2)
OFFSET_FOR_LEADER_EPOCH = _api(23, "OffsetForLeaderEpoch", 4, flexible_from=4)
ADD_PARTITIONS_TO_TXN = _api(24, "AddPartitionsToTxn", 5, flexible_from=3)
END_TXN = _api(26, "EndTxn", 5, flexible_from=3)
WRITE_TXN_MARKERS = _api(27, "WriteTxnMarkers", 2, flexible_from=1)
ALTER_CONFIGS = _api(33, "AlterConfigs", 2, flexible_from=2)
SASL_AUTHENTICATE = _api(36, "SaslAuthenticate", 2, flexible_from=2)
CREATE_PARTITIONS = _api(37, "CreatePartitions", 3, flexible_from=2)
ELECT_LEADERS = _api(43, "ElectLeaders", 2, flexible_from=2)
INCREMENTAL_ALTER_CONFIGS = _api(44, "IncrementalAlterConfigs", 1, flexible_from=1)
ALTER_PARTITION_REASSIGNMENTS = _api(45, "AlterPartitionReassignments", 1)
DESCRIBE_QUORUM = _api(55, "DescribeQuorum", 2)
ALTER_PARTITION = _api(56, "AlterPartition", 3)
FETCH_SNAPSHOT = _api(59, "FetchSnapshot", 1)
BROKER_REGISTRATION = _api(62, "BrokerRegistration", 4)
BROKER_HEARTBEAT = _api(63, "BrokerHeartbeat", 1)
DESCRIBE_PRODUCERS = _api(61, "DescribeProducers", 0)
UNREGISTER_BROKER = _api(64, "UnregisterBroker", 0)
DESCRIBE_TRANSACTIONS = _api(65, "DescribeTransactions", 0)
LIST_TRANSACTIONS = _api(66, "ListTransactions", 2)
ALLOCATE_PRODUCER_IDS = _api(67, "AllocateProducerIds", 0)
GROUP_REQUEST = _api(10_000, "GroupRequest", 0)
"""Between our nodes only: a request to a group coordinator in the one form that all doors use."""

BY_KEY: dict[int, Api] = {
    api.key: api
    for api in (
        PRODUCE,
        FETCH,
        LIST_OFFSETS,
        SASL_HANDSHAKE,
        API_VERSIONS,
        CREATE_TOPICS,
        DELETE_TOPICS,
        DELETE_RECORDS,
        INIT_PRODUCER_ID,
        OFFSET_FOR_LEADER_EPOCH,
        ADD_PARTITIONS_TO_TXN,
        END_TXN,
        WRITE_TXN_MARKERS,
        ALTER_CONFIGS,
        SASL_AUTHENTICATE,
        CREATE_PARTITIONS,
        ELECT_LEADERS,
        INCREMENTAL_ALTER_CONFIGS,
        ALTER_PARTITION_REASSIGNMENTS,
        DESCRIBE_QUORUM,
        ALTER_PARTITION,
        FETCH_SNAPSHOT,
        BROKER_REGISTRATION,
        BROKER_HEARTBEAT,
        DESCRIBE_PRODUCERS,
        UNREGISTER_BROKER,
        DESCRIBE_TRANSACTIONS,
        LIST_TRANSACTIONS,
        ALLOCATE_PRODUCER_IDS,
        GROUP_REQUEST,
    )
}


@cache
def request_type(api: Api) -> type[TopLevel]:
    """The class of the API's requests in all versions. Its module is imported when it is first asked for."""
    return _message_type(api, "Request")


@cache
def response_type(api: Api) -> type[TopLevel]:
    """The class of the API's responses in all versions. Its module is imported when it is first asked for."""
    return _message_type(api, "Response")


def _message_type(api: Api, side: str) -> type[TopLevel]:
    module = import_module(f"kraft.wire.generated.{api.schema}_{side.lower()}")
    kind: type[TopLevel] = getattr(module, f"{api.name}{side}Data")
    return kind
