"""Topics in which the cluster keeps its own state: coordinators write them, and nobody else. Pure.

Source: org.apache.kafka.common.internals.Topic; ReplicaManager refuses other writers with INVALID_TOPIC_EXCEPTION.
"""

from __future__ import annotations

from collections.abc import Mapping

from metadata.settings import BrokerSettings

METADATA_TOPIC = "__cluster_metadata"
"""Kafka's name of the metadata log: no client may create a topic of this name."""
OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"
SHARE_STATE_TOPIC = "__share_group_state"
INTERNAL_TOPICS = frozenset({OFFSETS_TOPIC, TRANSACTIONS_TOPIC, SHARE_STATE_TOPIC})
"""A client must not write what a coordinator reads."""

OFFSETS_BATCH_BYTES_MAX = 8 * 1024 * 1024
"""The max.message.bytes of `__consumer_offsets`: the size limit of one change of a group. A larger one is refused."""


def offsets_topic_configs(settings: BrokerSettings) -> Mapping[str, str]:
    """Default settings of a new `__consumer_offsets` (GroupCoordinator's topicConfigs)."""
    return {
        "cleanup.policy": "compact",
        "segment.bytes": str(settings.offsets_topic_segment_bytes),
        "compression.type": "producer",
        "max.message.bytes": str(OFFSETS_BATCH_BYTES_MAX),
    }


def transactions_topic_configs(settings: BrokerSettings, *, replicas: int) -> Mapping[str, str]:
    """Default settings of a new `__transaction_state` (TransactionStateManager.transactionTopicConfigs). With fewer
    replicas than `transaction.state.log.min.isr`, all of them have to be in sync."""
    return {
        "cleanup.policy": "compact",
        "segment.bytes": str(settings.transaction_state_log_segment_bytes),
        "compression.type": "uncompressed",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(min(settings.transaction_state_log_min_isr, replicas)),
    }


def share_state_topic_configs(settings: BrokerSettings, *, replicas: int) -> Mapping[str, str]:
    """Default settings of a new `__share_group_state` (ShareCoordinatorService.shareGroupStateTopicConfigs). The share
    coordinator deletes the records that nothing needs any more by itself."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "segment.bytes": str(settings.share_coordinator_state_topic_segment_bytes),
        "compression.type": "producer",
        "min.insync.replicas": str(min(settings.share_coordinator_state_topic_min_isr, replicas)),
    }


def coordinators_configs(topic: str, settings: BrokerSettings, *, replicas: int) -> Mapping[str, str]:
    """Default settings of a coordinators' topic; empty for other topics."""
    if topic == OFFSETS_TOPIC:
        return offsets_topic_configs(settings)
    if topic == SHARE_STATE_TOPIC:
        return share_state_topic_configs(settings, replicas=replicas)
    return transactions_topic_configs(settings, replicas=replicas) if topic == TRANSACTIONS_TOPIC else {}


def coordinators_topic_size(topic: str, settings: BrokerSettings) -> tuple[int, int]:
    """Partitions of a new topic of coordinators, and its replication factor where there are so many brokers."""
    return {
        OFFSETS_TOPIC: (settings.offsets_topic_num_partitions, settings.offsets_topic_replication_factor),
        TRANSACTIONS_TOPIC: (
            settings.transaction_state_log_num_partitions,
            settings.transaction_state_log_replication_factor,
        ),
        SHARE_STATE_TOPIC: (
            settings.share_coordinator_state_topic_num_partitions,
            settings.share_coordinator_state_topic_replication_factor,
        ),
    }[topic]


def internal_refusal(topic: str, verb: str) -> str:
    return f"{topic!r} is an internal topic: its coordinators alone {verb}"
