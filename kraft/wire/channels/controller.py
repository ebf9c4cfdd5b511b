"""What this node asks the active controller: each request that it takes, and the RPC that carries it."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from kraft.wire.channels import acls, brokers, configs, partitions, routes, topics, users
from kraft.wire.peers import Peers
from kraft.wire.rpc import Rpc
from metadata.controller.requests import (
    AllocateProducerIds,
    AlterClientQuotas,
    AlterConfigs,
    AlterPartition,
    AlterReassignments,
    AlterRoute,
    AlterUsers,
    BrokerHeartbeat,
    CreateAcls,
    CreatePartitions,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    DescribeQuorum,
    ElectLeaders,
    RegisterBroker,
    ReplaceConfigs,
    Request,
    UnregisterBroker,
)

Reply = TypeVar("Reply")

CONTROLLER_RPCS: dict[type, Rpc[Any, Any, Any, Any]] = {
    RegisterBroker: brokers.REGISTRATION,
    BrokerHeartbeat: brokers.HEARTBEAT,
    AllocateProducerIds: brokers.PRODUCER_IDS,
    UnregisterBroker: brokers.UNREGISTRATION,
    DescribeQuorum: brokers.DESCRIPTION,
    AlterPartition: partitions.ALTER_PARTITION,
    ElectLeaders: partitions.ELECT_LEADERS,
    AlterReassignments: partitions.REASSIGNMENTS,
    CreateTopics: topics.CREATE_TOPICS,
    DeleteTopics: topics.DELETE_TOPICS,
    CreatePartitions: topics.CREATE_PARTITIONS,
    AlterConfigs: configs.ALTER_CONFIGS,
    ReplaceConfigs: configs.REPLACE_CONFIGS,
    CreateAcls: acls.CREATE_ACLS,
    DeleteAcls: acls.DELETE_ACLS,
    AlterClientQuotas: acls.ALTER_CLIENT_QUOTAS,
    AlterUsers: users.ALTER_USERS,
    AlterRoute: routes.ALTER_ROUTE,
}


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
        reply = await self._peers.call(node_id, "controller", rpc, request, timeout_ms=timeout_ms, sends_timeout=True)
        return cast(Reply, reply)


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
