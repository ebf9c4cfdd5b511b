"""Differences from Apache Kafka that are meant, each with its reason."""

from __future__ import annotations

from tests.clients.golden.peer import Exchange

KNOWN: tuple[tuple[str, str, str, str], ...] = (
    ("*", "*", "error_message", "Kafka leaves it null where we say what was wrong, and words it otherwise"),
    ("CreateTopics", "*", "configs[].value", "Kafka has settings of replication quotas, which are empty; we have none"),
    ("DescribeConfigs", "*", "configs[].value", "the same"),
    (
        "Produce",
        "*",
        "log_start_offset",
        "a refused batch gets it, too: Java tells retention from loss by it (KIP-360)",
    ),
    ("OffsetDelete", "of no topic", "error_code", "a group without members goes with its last offset, later in Kafka"),
    ("OffsetDelete", "of no topic", "topics[]", "the same"),
    ("GetTelemetrySubscriptions", "*", "subscription_id", "each broker computes it in its own way"),
    ("IncrementalAlterConfigs", "an operation that is none", "error_code", "INVALID_REQUEST 42: Kafka fails with -1"),
)
"""API, question (or * for all), the end of the path of what differs, and why."""

FOR_BROKERS = frozenset({("AddPartitionsToTxn", 4), ("AddPartitionsToTxn", 5)})
"""API and version that a client is refused with CLUSTER_AUTHORIZATION_FAILED 31, as by a Kafka that has ACLs: without
them Kafka takes anybody for a broker."""


def is_known(exchange: Exchange, path: str) -> bool:
    return any(
        api in ("*", exchange.api) and question in ("*", exchange.name) and path.endswith(end)
        for api, question, end, _ in KNOWN
    )
