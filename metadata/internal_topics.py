"""Topics that the cluster keeps its own state in: coordinators write them, and nobody else. Pure.

Source: org.apache.kafka.common.internals.Topic; ReplicaManager refuses other writers with INVALID_TOPIC_EXCEPTION.
"""

from __future__ import annotations

METADATA_TOPIC = "__cluster_metadata"
"""The metadata log as Kafka names it: no topic that anybody creates."""
OFFSETS_TOPIC = "__consumer_offsets"
INTERNAL_TOPICS = frozenset({OFFSETS_TOPIC, "__transaction_state", "__share_group_state"})
"""Kafka's three, whichever of them exist here: what a later coordinator reads must not be a client's."""


def internal_refusal(topic: str, verb: str) -> str:
    return f"{topic!r} is an internal topic: its coordinators alone {verb}"
