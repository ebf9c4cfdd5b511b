"""Topics that the cluster keeps its own state in: coordinators write them, and nobody else. Pure.

Source: org.apache.kafka.common.internals.Topic; ReplicaManager refuses other writers with INVALID_TOPIC_EXCEPTION.
"""

from __future__ import annotations

from collections.abc import Mapping

from metadata.settings import BrokerSettings

METADATA_TOPIC = "__cluster_metadata"
"""The metadata log as Kafka names it: no topic that anybody creates."""
OFFSETS_TOPIC = "__consumer_offsets"
INTERNAL_TOPICS = frozenset({OFFSETS_TOPIC, "__transaction_state", "__share_group_state"})
"""Kafka's three, whichever of them exist here: what a later coordinator reads must not be a client's."""

OFFSETS_BATCH_BYTES_MAX = 8 * 1024 * 1024
"""The max.message.bytes of `__consumer_offsets`: what one change of a group may be. A larger one changes nothing."""


def offsets_topic_configs(settings: BrokerSettings) -> Mapping[str, str]:
    """What `__consumer_offsets` is created with unless its creator says otherwise (GroupCoordinator's topicConfigs)."""
    return {
        "cleanup.policy": "compact",
        "segment.bytes": str(settings.offsets_topic_segment_bytes),
        "compression.type": "producer",
        "max.message.bytes": str(OFFSETS_BATCH_BYTES_MAX),
    }


def internal_refusal(topic: str, verb: str) -> str:
    return f"{topic!r} is an internal topic: its coordinators alone {verb}"
