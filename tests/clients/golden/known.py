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
    (
        "ShareFetch",
        "an empty group id",
        "error_code",
        "INVALID_REQUEST 42: Kafka fails with -1, each partition",
    ),
    ("ShareFetch", "an empty group id", "responses[]", "the same"),
    *(
        ("DescribeShareGroupOffsets", question, end, "GROUP_ID_NOT_FOUND 69: Kafka has no error for it")
        for question in ("of no group", "of another kind of group")
        for end in ("error_code", "topics[]")
    ),
    (
        "DescribeShareGroupOffsets",
        "of no topic",
        "error_code",
        "3: Kafka has no error for it",
    ),
    *(
        (f"{verb}ShareGroupState", question, "error_code", reason)
        for question in ("of no topic", "of no topic, 0", "of no topic, 1")
        for verb, reason in (
            ("Read", "UNKNOWN_TOPIC_OR_PARTITION 3: Kafka says first that it is not initialized, 42"),
            ("Write", "the same"),
            ("Delete", "the state of a topic that is gone is deleted: 3 in Kafka, which takes it for a success"),
        )
    ),
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
