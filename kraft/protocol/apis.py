"""Kafka's APIs that this node speaks: key, name, and the versions that clients and nodes are served, as
`kraft/protocol/schema/messages` has them.

Between nodes one version of each API is pinned: the newest whose meaning fits. ApiVersions is answered for every
version, as KIP-35 asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.api_table import ROWS

NEVER = 1 << 15
"""`flexible_from` of an API without tagged fields (KIP-482)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Api:
    """One API, and who may ask for which of its versions. There is one object for each, compared by identity, because
    APIs are keys of what is looked up for each request.
    """

    key: int
    name: str
    """CamelCase, as in the names of Kafka's message classes."""
    flexible_from: int
    clients: range
    """The versions that clients are served; empty where only nodes may ask."""
    nodes: range
    """The versions that nodes are served; empty where only clients ask."""
    version: int
    """The one that nodes send to each other."""

    def is_flexible(self, version: int) -> bool:
        """Whether headers and bodies of this version have compact lengths and tagged fields (KIP-482)."""
        return version >= self.flexible_from


def _api(key: int, name: str, flexible_from: int, clients: range, nodes: range) -> Api:
    version = nodes[-1] if nodes else -1
    return Api(key=key, name=name, flexible_from=flexible_from, clients=clients, nodes=nodes, version=version)


BY_KEY: Mapping[int, Api] = {row[0]: _api(*row) for row in ROWS}
BY_NAME: Mapping[str, Api] = {api.name: api for api in BY_KEY.values()}

PRODUCE = BY_NAME["Produce"]
FETCH = BY_NAME["Fetch"]
LIST_OFFSETS = BY_NAME["ListOffsets"]
SASL_HANDSHAKE = BY_NAME["SaslHandshake"]
API_VERSIONS = BY_NAME["ApiVersions"]
CREATE_TOPICS = BY_NAME["CreateTopics"]
DELETE_TOPICS = BY_NAME["DeleteTopics"]
DELETE_RECORDS = BY_NAME["DeleteRecords"]
INIT_PRODUCER_ID = BY_NAME["InitProducerId"]
OFFSET_FOR_LEADER_EPOCH = BY_NAME["OffsetForLeaderEpoch"]
ADD_PARTITIONS_TO_TXN = BY_NAME["AddPartitionsToTxn"]
END_TXN = BY_NAME["EndTxn"]
WRITE_TXN_MARKERS = BY_NAME["WriteTxnMarkers"]
CREATE_ACLS = BY_NAME["CreateAcls"]
DELETE_ACLS = BY_NAME["DeleteAcls"]
ALTER_CONFIGS = BY_NAME["AlterConfigs"]
SASL_AUTHENTICATE = BY_NAME["SaslAuthenticate"]
CREATE_PARTITIONS = BY_NAME["CreatePartitions"]
ELECT_LEADERS = BY_NAME["ElectLeaders"]
INCREMENTAL_ALTER_CONFIGS = BY_NAME["IncrementalAlterConfigs"]
ALTER_PARTITION_REASSIGNMENTS = BY_NAME["AlterPartitionReassignments"]
ALTER_CLIENT_QUOTAS = BY_NAME["AlterClientQuotas"]
ALTER_USER_SCRAM_CREDENTIALS = BY_NAME["AlterUserScramCredentials"]
DESCRIBE_QUORUM = BY_NAME["DescribeQuorum"]
ALTER_PARTITION = BY_NAME["AlterPartition"]
FETCH_SNAPSHOT = BY_NAME["FetchSnapshot"]
BROKER_REGISTRATION = BY_NAME["BrokerRegistration"]
BROKER_HEARTBEAT = BY_NAME["BrokerHeartbeat"]
DESCRIBE_PRODUCERS = BY_NAME["DescribeProducers"]
UNREGISTER_BROKER = BY_NAME["UnregisterBroker"]
DESCRIBE_TRANSACTIONS = BY_NAME["DescribeTransactions"]
LIST_TRANSACTIONS = BY_NAME["ListTransactions"]
ALLOCATE_PRODUCER_IDS = BY_NAME["AllocateProducerIds"]
SHARE_FETCH = BY_NAME["ShareFetch"]
SHARE_ACKNOWLEDGE = BY_NAME["ShareAcknowledge"]
INITIALIZE_SHARE_GROUP_STATE = BY_NAME["InitializeShareGroupState"]
READ_SHARE_GROUP_STATE = BY_NAME["ReadShareGroupState"]
WRITE_SHARE_GROUP_STATE = BY_NAME["WriteShareGroupState"]
DELETE_SHARE_GROUP_STATE = BY_NAME["DeleteShareGroupState"]
READ_SHARE_GROUP_STATE_SUMMARY = BY_NAME["ReadShareGroupStateSummary"]
GROUP_REQUEST = BY_NAME["GroupRequest"]
"""Between our nodes only: a request to a group coordinator in the one form that all doors use."""
ALTER_ROUTE = BY_NAME["AlterRoute"]
"""Between our nodes only: a change of a route, for the active controller."""
NODE_FACTS = BY_NAME["NodeFacts"]
"""Between our nodes only: what a node knows of the cluster and of its own replicas."""


@cache
def request_type(api: Api) -> type[TopLevel]:
    """The class of the API's requests in all versions. Its module is imported when it is first asked for."""
    return _message_type(api, "Request")


@cache
def response_type(api: Api) -> type[TopLevel]:
    """The class of the API's responses in all versions. Its module is imported when it is first asked for."""
    return _message_type(api, "Response")


def _message_type(api: Api, side: str) -> type[TopLevel]:
    schema = "".join("_" + c.lower() if c.isupper() else c for c in api.name).lstrip("_")
    module = import_module(f"kraft.protocol.messages.{schema}_{side.lower()}")
    kind: type[TopLevel] = getattr(module, f"{api.name}{side}Data")
    return kind
