"""The RPC of each request that the controller takes."""

from __future__ import annotations

from typing import Any

from kraft.wire.messages import brokers, configs, elections, partitions, quorum, topics
from kraft.wire.messages.common import ServedRpc
from metadata.controller.requests import (
    AllocateProducerIds,
    AlterConfigs,
    AlterPartition,
    AlterReassignments,
    BrokerHeartbeat,
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    DescribeQuorum,
    ElectLeaders,
    RegisterBroker,
    ReplaceConfigs,
    UnregisterBroker,
)

CONTROLLER_RPCS: dict[type, ServedRpc[Any, Any, Any, Any]] = {
    RegisterBroker: brokers.REGISTRATION,
    BrokerHeartbeat: brokers.HEARTBEAT,
    AllocateProducerIds: brokers.PRODUCER_IDS,
    UnregisterBroker: brokers.UNREGISTRATION,
    DescribeQuorum: quorum.DESCRIPTION,
    AlterPartition: partitions.ALTER_PARTITION,
    ElectLeaders: elections.ELECT_LEADERS,
    AlterReassignments: elections.REASSIGNMENTS,
    CreateTopics: topics.CREATE_TOPICS,
    DeleteTopics: topics.DELETE_TOPICS,
    CreatePartitions: topics.CREATE_PARTITIONS,
    AlterConfigs: configs.ALTER_CONFIGS,
    ReplaceConfigs: configs.REPLACE_CONFIGS,
}
