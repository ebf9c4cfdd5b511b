"""Settings under Kafka's names: type, default, range and a sentence for each, in two frozen models.

`BrokerSettings` holds the settings of a broker (static in cluster.toml, dynamic through the `broker` config resource),
`TopicSettings` those of a topic. A setting that a topic does not set has the value of the broker setting in
`BROKER_SYNONYMS`, as in Kafka. `GroupSettings` and `ClientMetricsSettings` are the settings of a group and of a
subscription to client metrics. The pydantic alias of each field is Kafka's name. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kraft.protocol.errors import InvalidConfig
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from kraft.suggestions import nearest_key_hint, what_is_right
from metadata import kafka_settings
from metadata.certificate_names import check_rules

CleanupPolicy: TypeAlias = Literal["delete", "compact", "compact,delete", "delete,compact"]
CompressionType: TypeAlias = Literal["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]
TimestampType: TypeAlias = Literal["CreateTime", "LogAppendTime"]

ServerAssignors: TypeAlias = Literal["uniform,range", "range,uniform", "uniform", "range"]
MigrationPolicy: TypeAlias = Literal["disabled", "upgrade", "downgrade", "bidirectional"]

IsolationLevel: TypeAlias = Literal["read_uncommitted", "read_committed"]
_TIME = r"T(\d+H(\d+M)?(\d+(\.\d{1,9})?S)?|\d+M(\d+(\.\d{1,9})?S)?|\d+(\.\d{1,9})?S)"
AUTO_OFFSET_RESET = rf"^(latest|earliest|by_duration:P(\d+D({_TIME})?|{_TIME}))$"
RACK_AWARE_SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
ReplicaSelector: TypeAlias = Literal[
    "",
    "org.apache.kafka.common.replica.LeaderSelector",
    "org.apache.kafka.common.replica.RackAwareReplicaSelector",
]
AuthorizerClass: TypeAlias = Literal["", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"]
RestDialect: TypeAlias = Literal["confluent", "strimzi", "redpanda"]


def _kafka_name(field_name: str) -> str:
    return field_name.replace("_", ".")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_kafka_name, populate_by_name=True)


def _int(default: int, low: int, high: int, text: str) -> Any:
    return Field(default=default, ge=low, le=high, description=text)


class TopicSettings(_Settings):
    """Effective settings of one topic."""

    cleanup_policy: CleanupPolicy = Field(default="delete", description="Delete old segments, compact by key, or both.")
    compression_type: CompressionType = Field(
        default="producer", description="How batches are stored; the leader compresses those that arrive otherwise."
    )
    delete_retention_ms: int = _int(86_400_000, 0, INT64_MAX, "Time that tombstones stay after a clean pass.")
    delivery_target_topic: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,249}$",
        description="Ours: the topic to which records with a time are forwarded when they are due; empty: none are.",
    )
    errors_deadletterqueue_group_enable: bool = Field(
        default=False, description="May share groups write their dead letters to the topic (KIP-1191)?"
    )
    file_delete_delay_ms: int = _int(60_000, 0, INT64_MAX, "Wait before a deleted segment's files are removed.")
    flush_messages: int = _int(INT64_MAX, 1, INT64_MAX, "fsync after this many records; 1: before each ack.")
    flush_ms: int = _int(INT64_MAX, 0, INT64_MAX, "fsync a record at the latest after this time.")
    index_interval_bytes: int = _int(4096, 0, INT32_MAX, "Bytes of log between two entries of the offset index.")
    max_message_bytes: int = _int(1_048_588, 0, INT32_MAX, "Largest record batch, in bytes.")
    max_compaction_lag_ms: int = _int(INT64_MAX, 1, INT64_MAX, "Longest time a record stays uncompacted.")
    message_timestamp_after_max_ms: int = _int(3_600_000, 0, INT64_MAX, "How far ahead a timestamp may be.")
    message_timestamp_before_max_ms: int = _int(INT64_MAX, 0, INT64_MAX, "How far back a timestamp may be.")
    message_timestamp_type: TimestampType = Field(
        default="CreateTime", description="Origin of a record's timestamp: its producer, or the leader on append."
    )
    min_cleanable_dirty_ratio: float = Field(
        default=0.5, ge=0, le=1, description="Share of uncompacted bytes that makes a log worth compacting."
    )
    min_compaction_lag_ms: int = _int(0, 0, INT64_MAX, "Shortest time a record stays uncompacted.")
    min_insync_replicas: int = _int(1, 1, INT32_MAX, "ISR size below which acks=all is refused.")
    preallocate: bool = Field(default=False, description="Accepted for compatibility; segments grow as written.")
    record_expiry_enable: bool = Field(
        default=False, description="Ours: do share groups look for the header kraft.expires.at in records?"
    )
    retention_bytes: int = _int(-1, -1, INT64_MAX, "Log size above which old segments go; -1: no limit.")
    retention_ms: int = _int(604_800_000, -1, INT64_MAX, "Age after which segments go; -1: never.")
    segment_bytes: int = _int(1_073_741_824, 14, INT32_MAX, "Size at which a segment is rolled.")
    internal_segment_bytes: int = _int(
        0, 14, INT32_MAX, "Kafka's own tests use it: the size at which a segment is rolled, instead of segment.bytes."
    )
    segment_index_bytes: int = _int(10_485_760, 4, INT32_MAX, "Size of an index file that ends its segment.")
    segment_jitter_ms: int = _int(0, 0, INT64_MAX, "Largest random time taken off segment.ms.")
    segment_ms: int = _int(604_800_000, 1, INT64_MAX, "Age at which a segment is rolled.")
    unclean_leader_election_enable: bool = Field(
        default=False, description="May a replica outside the ISR become leader when no member is left?"
    )

    @property
    def segment_size(self) -> int:
        """The size at which a segment is rolled, in bytes."""
        return self.internal_segment_bytes or self.segment_bytes


class GroupSettings(_Settings):
    """Effective settings of one group of the consumer protocol (KIP-848)."""

    consumer_session_timeout_ms: int = _int(45_000, 1, INT32_MAX, "A member that is silent for longer is out.")
    consumer_heartbeat_interval_ms: int = _int(5_000, 1, INT32_MAX, "Interval of a member's heartbeats.")
    consumer_assignment_interval_ms: int = _int(
        1_000,
        0,
        INT32_MAX,
        "Time between two assignments of a group of more than 100 members; a smaller group is assigned at once.",
    )
    consumer_assignor_offload_enable: bool = Field(
        default=True, description="Accepted for compatibility; the size of an assignment decides where it is computed."
    )
    share_session_timeout_ms: int = _int(
        45_000, 1, INT32_MAX, "A member of a share group that is silent for longer is out."
    )
    share_heartbeat_interval_ms: int = _int(5_000, 1, INT32_MAX, "Interval of the heartbeats of a share group.")
    share_assignment_interval_ms: int = _int(
        1_000, 0, INT32_MAX, "Time between two assignments of a share group of more than 100 members."
    )
    share_record_lock_duration_ms: int = _int(
        30_000, 1_000, 3_600_000, "How long a member of a share group keeps a record that it does not acknowledge."
    )
    share_delivery_count_limit: int = _int(5, 2, 25, "Deliveries of a record until it is archived.")
    share_partition_max_record_locks: int = _int(
        2_000, 100, 10_000, "Records of a partition that a share group has in flight."
    )
    share_auto_offset_reset: str = Field(
        default="latest",
        pattern=AUTO_OFFSET_RESET,
        description="Where a share group begins: latest, earliest, or by_duration: and an ISO-8601 duration.",
    )
    share_isolation_level: IsolationLevel = Field(
        default="read_uncommitted", description="Whether a share group gets records of transactions that are open."
    )
    share_renew_acknowledge_enable: bool = Field(
        default=True, description="Members may renew the lock of a record (KIP-1222)."
    )
    share_record_expiry_ms: int = _int(
        0,
        0,
        INT64_MAX,
        "Ours: records of this age, by their timestamps, are not handed out; 0: age does not matter.",
    )
    share_retry_backoff_ms: int = _int(
        0,
        0,
        43_200_000,
        "Ours: how long nobody gets a record that is released, or whose lock runs out, after its first delivery. It "
        "doubles with each further one. 0: it is available at once.",
    )
    share_retry_backoff_max_ms: int = _int(
        300_000, 0, 43_200_000, "Ours: the longest such time; not shorter than share.retry.backoff.ms."
    )
    errors_deadletterqueue_topic_name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,249}$",
        description="Topic of the records of a share group that are rejected or delivered too often; empty: none.",
    )
    errors_deadletterqueue_copy_record_enable: bool = Field(
        default=False, description="Do dead letters have the record's key and value, beside the headers?"
    )


class ClientMetricsSettings(_Settings):
    """A subscription to metrics of clients (KIP-714)."""

    interval_ms: int = _int(300_000, 100, 3_600_000, "Interval in which a matching client should push its metrics.")
    metrics: str = Field(default="", description="Prefixes of the metrics' names, with commas between; *: all.")
    match: str = Field(
        default="",
        description="Clients that should push, as client_id=pattern and the like with commas between; empty: all.",
    )


class BrokerSettings(_Settings):
    """Settings of a broker or controller. Those in `BROKER_SYNONYMS` are defaults of topic settings."""

    # Topics
    auto_create_topics_enable: bool = Field(
        default=False, description="Does a produce to an unknown topic create it? (Kafka's default is true.)"
    )
    default_replication_factor: int = _int(1, 1, 32767, "Replication factor of a topic that names none.")
    num_partitions: int = _int(1, 1, INT32_MAX, "Partitions of a topic that names none.")
    min_insync_replicas: int = _int(1, 1, INT32_MAX, "Default of the topic setting min.insync.replicas.")
    unclean_leader_election_enable: bool = Field(
        default=False, description="Default of the topic setting unclean.leader.election.enable."
    )
    message_max_bytes: int = _int(1_048_588, 0, INT32_MAX, "Default of the topic setting max.message.bytes.")
    compression_type: CompressionType = Field(
        default="producer", description="Default of the topic setting compression.type."
    )
    log_cleanup_policy: CleanupPolicy = Field(
        default="delete", description="Default of the topic setting cleanup.policy."
    )
    log_cleaner_delete_retention_ms: int = _int(86_400_000, 0, INT64_MAX, "Default of delete.retention.ms.")
    log_cleaner_min_cleanable_ratio: float = Field(
        default=0.5, ge=0, le=1, description="Default of the topic setting min.cleanable.dirty.ratio."
    )
    log_cleaner_min_compaction_lag_ms: int = _int(0, 0, INT64_MAX, "Default of min.compaction.lag.ms.")
    log_cleaner_max_compaction_lag_ms: int = _int(INT64_MAX, 1, INT64_MAX, "Default of max.compaction.lag.ms.")
    log_flush_interval_messages: int = _int(INT64_MAX, 1, INT64_MAX, "Default of flush.messages.")
    log_flush_interval_ms: int = _int(INT64_MAX, 0, INT64_MAX, "Default of flush.ms.")
    log_index_interval_bytes: int = _int(4096, 0, INT32_MAX, "Default of index.interval.bytes.")
    log_index_size_max_bytes: int = _int(10_485_760, 4, INT32_MAX, "Default of segment.index.bytes.")
    log_message_timestamp_after_max_ms: int = _int(3_600_000, 0, INT64_MAX, "Default of the topic setting.")
    log_message_timestamp_before_max_ms: int = _int(INT64_MAX, 0, INT64_MAX, "Default of the topic setting.")
    log_message_timestamp_type: TimestampType = Field(
        default="CreateTime", description="Default of the topic setting message.timestamp.type."
    )
    log_retention_bytes: int = _int(-1, -1, INT64_MAX, "Default of retention.bytes.")
    log_retention_ms: int = _int(604_800_000, -1, INT64_MAX, "Default of retention.ms.")
    log_roll_ms: int = _int(604_800_000, 1, INT64_MAX, "Default of segment.ms.")
    log_roll_jitter_ms: int = _int(0, 0, INT64_MAX, "Default of segment.jitter.ms.")
    log_segment_bytes: int = _int(1_073_741_824, 14, INT32_MAX, "Default of segment.bytes.")
    log_segment_delete_delay_ms: int = _int(60_000, 0, INT64_MAX, "Default of file.delete.delay.ms.")
    # Log manager
    log_cleaner_enable: bool = Field(default=True, description="Are compacted topics compacted on this broker?")
    log_cleaner_backoff_ms: int = _int(15_000, 0, INT64_MAX, "Interval between two searches for logs to compact.")
    log_cleaner_dedupe_buffer_size: int = _int(
        134_217_728, 1_048_576, INT64_MAX, "Memory for the keys of one compaction pass, in bytes."
    )
    log_retention_check_interval_ms: int = _int(300_000, 1, INT64_MAX, "Interval between two checks of retention.")
    log_flush_offset_checkpoint_interval_ms: int = _int(
        60_000, 1, INT32_MAX, "Interval between two saves of recovery points."
    )
    log_flush_scheduler_interval_ms: int = _int(1_000, 1, INT64_MAX, "Interval between two checks of flush.ms.")
    # Replication
    replica_lag_time_max_ms: int = _int(30_000, 1, INT64_MAX, "A follower behind for longer leaves the ISR.")
    replica_fetch_wait_max_ms: int = _int(500, 1, INT32_MAX, "Longest wait of a follower's fetch.")
    replica_fetch_min_bytes: int = _int(1, 0, INT32_MAX, "Bytes that a follower's fetch waits for.")
    replica_fetch_max_bytes: int = _int(1_048_576, 1, INT32_MAX, "Bytes per partition in a follower's fetch.")
    replica_fetch_response_max_bytes: int = _int(10_485_760, 1, INT32_MAX, "Bytes in a follower's fetch.")
    replica_fetch_backoff_ms: int = _int(1_000, 0, INT32_MAX, "Wait after a failed fetch of a partition.")
    replica_socket_timeout_ms: int = _int(30_000, 1, INT32_MAX, "Longest wait for an answer from another broker.")
    replica_high_watermark_checkpoint_interval_ms: int = _int(
        5_000, 1, INT64_MAX, "Interval between two saves of high watermarks."
    )
    max_incremental_fetch_session_cache_slots: int = _int(1_000, 0, INT32_MAX, "Fetch sessions kept (KIP-227).")
    replica_selector_class: ReplicaSelector = Field(
        default="",
        description="Replica that consumers read from: the leader, or with Kafka's RackAwareReplicaSelector one in "
        "their rack (client.rack, KIP-392).",
    )
    fetch_max_bytes: int = _int(57_671_680, 1024, INT32_MAX, "Most bytes in the answer to any fetch.")
    # Consumer groups
    group_min_session_timeout_ms: int = _int(6_000, 1, INT32_MAX, "Shortest session timeout of a member.")
    group_max_session_timeout_ms: int = _int(1_800_000, 1, INT32_MAX, "Longest session timeout of a member.")
    group_initial_rebalance_delay_ms: int = _int(3_000, 0, INT32_MAX, "Wait for more members of an empty group.")
    group_max_size: int = _int(INT32_MAX, 1, INT32_MAX, "Most members of one group; one more is refused with 81.")
    group_consumer_session_timeout_ms: int = _int(
        45_000, 1, INT32_MAX, "A member of the consumer protocol (KIP-848) silent for longer is out."
    )
    group_consumer_min_session_timeout_ms: int = _int(
        45_000, 1, INT32_MAX, "A shorter one set for a group becomes this."
    )
    group_consumer_max_session_timeout_ms: int = _int(
        60_000, 1, INT32_MAX, "A longer one set for a group becomes this."
    )
    group_consumer_heartbeat_interval_ms: int = _int(
        5_000, 1, INT32_MAX, "Interval of heartbeats of members of the consumer protocol."
    )
    group_consumer_min_heartbeat_interval_ms: int = _int(
        5_000, 1, INT32_MAX, "A shorter one set for a group becomes this."
    )
    group_consumer_max_heartbeat_interval_ms: int = _int(
        15_000, 1, INT32_MAX, "A longer one set for a group becomes this."
    )
    group_consumer_assignment_interval_ms: int = _int(
        1_000, 0, INT32_MAX, "Default of the group setting consumer.assignment.interval.ms."
    )
    group_consumer_min_assignment_interval_ms: int = _int(
        0, 0, INT32_MAX, "A shorter one set for a group becomes this."
    )
    group_consumer_max_assignment_interval_ms: int = _int(
        15_000, 0, INT32_MAX, "A longer one set for a group becomes this."
    )
    group_consumer_assignor_offload_enable: bool = Field(
        default=True, description="Default of the group setting consumer.assignor.offload.enable."
    )
    group_consumer_max_size: int = _int(
        INT32_MAX, 1, INT32_MAX, "Most members of a group of the consumer protocol; one more is refused with 81."
    )
    group_consumer_assignors: ServerAssignors = Field(
        default="uniform,range", description="Assignors of the coordinator; the first where no member names one."
    )
    group_consumer_migration_policy: MigrationPolicy = Field(
        default="bidirectional",
        description="Whether a group with members may change between the classic and the consumer protocol.",
    )
    group_share_session_timeout_ms: int = _int(
        45_000, 1, INT32_MAX, "Default of the group setting share.session.timeout.ms."
    )
    group_share_min_session_timeout_ms: int = _int(45_000, 1, INT32_MAX, "A shorter one set for a group becomes this.")
    group_share_max_session_timeout_ms: int = _int(60_000, 1, INT32_MAX, "A longer one set for a group becomes this.")
    group_share_heartbeat_interval_ms: int = _int(
        5_000, 1, INT32_MAX, "Default of the group setting share.heartbeat.interval.ms."
    )
    group_share_min_heartbeat_interval_ms: int = _int(
        5_000, 1, INT32_MAX, "A shorter one set for a group becomes this."
    )
    group_share_max_heartbeat_interval_ms: int = _int(
        15_000, 1, INT32_MAX, "A longer one set for a group becomes this."
    )
    group_share_assignment_interval_ms: int = _int(
        1_000, 0, INT32_MAX, "Default of the group setting share.assignment.interval.ms."
    )
    group_share_min_assignment_interval_ms: int = _int(0, 0, INT32_MAX, "A shorter one set for a group becomes this.")
    group_share_max_assignment_interval_ms: int = _int(
        15_000, 0, INT32_MAX, "A longer one set for a group becomes this."
    )
    group_share_max_size: int = _int(200, 1, 1_000, "Most members of a share group; one more is refused with 81.")
    group_share_assignors: Literal["simple"] = Field(
        default="simple", description="Assignor of the coordinator for share groups."
    )
    group_share_initialize_retry_interval_ms: int = _int(
        30_000, 1, INT32_MAX, "The state of a share partition that was asked for longer ago is asked for again."
    )
    offsets_topic_num_partitions: int = _int(50, 1, INT32_MAX, "Partitions of __consumer_offsets.")
    offsets_topic_replication_factor: int = _int(3, 1, 32767, "Its replication factor, if there are so many brokers.")
    offsets_topic_segment_bytes: int = _int(104_857_600, 1, INT32_MAX, "Its segment.bytes.")
    offsets_commit_timeout_ms: int = _int(5_000, 1, INT32_MAX, "Longest wait of a commit for its replicas.")
    offset_metadata_max_bytes: int = _int(4_096, 0, INT32_MAX, "Longest metadata of a committed offset.")
    offsets_retention_minutes: int = _int(10_080, 1, INT32_MAX, "Offsets of an empty group expire after this.")
    offsets_retention_check_interval_ms: int = _int(600_000, 1, INT64_MAX, "Interval between two checks of it.")
    consumer_instance_timeout_ms: int = _int(300_000, 1, INT32_MAX, "A REST consumer idle for longer is removed.")
    consumer_instances_max: int = _int(10_000, 1, INT32_MAX, "REST consumers whose groups one node coordinates.")
    # Transactions
    transaction_state_log_num_partitions: int = _int(50, 1, INT32_MAX, "Partitions of __transaction_state.")
    transaction_state_log_replication_factor: int = _int(
        3, 1, 32767, "Its replication factor, if there are so many brokers."
    )
    transaction_state_log_min_isr: int = _int(2, 1, INT32_MAX, "Its min.insync.replicas, if it has so many replicas.")
    transaction_state_log_segment_bytes: int = _int(104_857_600, 1, INT32_MAX, "Its segment.bytes.")
    transaction_max_timeout_ms: int = _int(900_000, 1, INT32_MAX, "Longest transaction.timeout.ms of a producer.")
    transactional_id_expiration_ms: int = _int(
        604_800_000, 1, INT32_MAX, "A transactional id without a transaction, and unused for longer, is forgotten."
    )
    transaction_abort_timed_out_transaction_cleanup_interval_ms: int = _int(
        10_000,
        1,
        INT32_MAX,
        "Interval between two searches for transactions that are open for too long.",
    )
    transaction_remove_expired_transaction_cleanup_interval_ms: int = _int(
        3_600_000, 1, INT32_MAX, "Interval between two searches for transactional ids that are unused for too long."
    )
    transaction_partition_verification_enable: bool = Field(
        default=True, description="A leader asks the coordinator whether a transaction has its partition (KIP-890)."
    )
    # Share groups
    share_coordinator_state_topic_num_partitions: int = _int(50, 1, INT32_MAX, "Partitions of __share_group_state.")
    share_coordinator_state_topic_replication_factor: int = _int(
        3, 1, 32767, "Its replication factor, if there are so many brokers."
    )
    share_coordinator_state_topic_min_isr: int = _int(
        2, 1, INT32_MAX, "Its min.insync.replicas, if it has so many replicas."
    )
    share_coordinator_state_topic_segment_bytes: int = _int(104_857_600, 1, INT32_MAX, "Its segment.bytes.")
    share_coordinator_snapshot_update_records_per_snapshot: int = _int(
        500, 0, 500, "Changes of one share partition after which all that is known of it is written."
    )
    share_coordinator_state_topic_prune_interval_ms: int = _int(
        300_000, 1, INT32_MAX, "Interval between two deletions of what nothing in it needs."
    )
    share_coordinator_cold_partition_snapshot_interval_ms: int = _int(
        300_000, 1, INT32_MAX, "What is known of a share partition that nobody writes to is written again after this."
    )
    share_coordinator_write_timeout_ms: int = _int(
        5_000, 1, INT32_MAX, "Longest wait of such a write for its replicas."
    )
    group_share_record_lock_duration_ms: int = _int(
        30_000, 1_000, 3_600_000, "Default of the group setting share.record.lock.duration.ms."
    )
    group_share_min_record_lock_duration_ms: int = _int(
        15_000, 1_000, 3_600_000, "A shorter one set for a group becomes this."
    )
    group_share_max_record_lock_duration_ms: int = _int(
        60_000, 1_000, 3_600_000, "A longer one set for a group becomes this."
    )
    group_share_min_delivery_count_limit: int = _int(2, 2, 5, "A lower one set for a group becomes this.")
    group_share_max_delivery_count_limit: int = _int(10, 5, 25, "A higher one set for a group becomes this.")
    group_share_min_partition_max_record_locks: int = _int(
        100, 100, 10_000, "A lower one set for a group becomes this."
    )
    group_share_max_partition_max_record_locks: int = _int(
        4_000, 100, 10_000, "A higher one set for a group becomes this."
    )
    group_share_delivery_count_limit: int = _int(5, 2, 10, "Default of the group setting share.delivery.count.limit.")
    group_share_partition_max_record_locks: int = _int(
        2_000, 100, 10_000, "Default of the group setting share.partition.max.record.locks."
    )
    errors_deadletterqueue_auto_create_topics_enable: bool = Field(
        default=False, description="Does a share group's first dead letter create the topic that its settings name?"
    )
    errors_deadletterqueue_topic_name_prefix: str = Field(
        default="dlq.", description="Beginning of the name of each topic for dead letters; empty: any name will do."
    )
    group_share_max_share_sessions: int = _int(2_000, 1, INT32_MAX, "Share sessions of one broker.")
    # Brokers and controller
    broker_heartbeat_interval_ms: int = _int(2_000, 1, INT32_MAX, "Interval of a broker's heartbeats.")
    broker_session_timeout_ms: int = _int(9_000, 1, INT32_MAX, "A broker silent for longer is fenced.")
    broker_probe_timeout_ms: int = _int(
        200,
        1,
        INT32_MAX,
        "After a broken connection the broker's port is tried for so long; if it refuses, the broker is fenced now.",
    )
    initial_broker_registration_timeout_ms: int = _int(
        60_000, 1, INT32_MAX, "A broker that the active controller refuses for longer stops."
    )
    controlled_shutdown_enable: bool = Field(default=True, description="Move leaders away before stopping.")
    controlled_shutdown_timeout_ms: int = _int(10_000, 1, INT32_MAX, "Longest wait for a controlled shutdown.")
    auto_leader_rebalance_enable: bool = Field(default=True, description="Elect preferred leaders regularly.")
    leader_imbalance_check_interval_seconds: int = _int(300, 1, INT32_MAX, "Interval between two of these elections.")
    unclean_leader_election_interval_ms: int = _int(300_000, 1, INT64_MAX, "Sweep of offline partitions.")
    unclean_recovery_timeout_ms: int = _int(1_000, 1, INT32_MAX, "Time in which replicas must report their log end.")
    node_hang_timeout_ms: int = _int(
        120_000, 1_000, INT32_MAX, "A node whose main loop computes for longer without a turn ends itself."
    )
    event_ring_bytes: int = _int(1_048_576, 0, INT32_MAX, "Memory for a node's newest events (GET /kraft/events).")
    # Authorization
    authorizer_class_name: AuthorizerClass = Field(
        default="",
        description="Kafka's StandardAuthorizer: ACLs decide what clients may do; empty: everything.",
    )
    super_users: str = Field(
        default="",
        pattern=r"^( *[^:; ]+:[^:;]+(; *[^:; ]+:[^:;]+)*;? *)?$",
        description="Principals that may do everything, with semicolons between: User:alice;User:bob.",
    )
    allow_everyone_if_no_acl_found: bool = Field(
        default=False, description="May everybody do everything with a resource that no ACL is about?"
    )
    # Quorum
    controller_quorum_election_timeout_ms: int = _int(
        300, 50, 60_000, "Shortest election timeout; the longest is twice as long."
    )
    metadata_log_max_record_bytes_between_snapshots: int = _int(
        20_971_520, 1024, INT64_MAX, "Bytes of log after which a snapshot is taken."
    )
    # Requests
    socket_request_max_bytes: int = _int(104_857_600, 1024, INT32_MAX, "Largest request on the Kafka listener.")
    socket_request_max_items: int = _int(
        50_000,
        1_000,
        INT32_MAX,
        "Items of all arrays in one request on the Kafka listener, values of a JSON body that is not records; "
        "a request with more is refused.",
    )
    socket_send_buffer_bytes: int = _int(
        102_400, -1, INT32_MAX, "Bytes of answers to one Kafka client that the system holds; -1: no limit."
    )
    max_request_partition_size_limit: int = _int(
        2_000, 1, INT32_MAX, "Partitions in one answer to DescribeTopicPartitions."
    )
    max_connections: int = _int(
        10_000, 1, INT32_MAX, "Clients' connections, over HTTP and over Kafka's protocol each; one more is closed."
    )
    max_connections_per_ip: int = _int(INT32_MAX, 0, INT32_MAX, "Connections of Kafka clients of one address.")
    max_connections_per_ip_overrides: str = Field(
        default="",
        pattern=r"^( *[^,; ]+:\d{1,9}(, *[^,; ]+:\d{1,9})* *)?$",
        description="Addresses with another limit: 10.0.0.1:100,10.0.0.2:5.",
    )
    max_connection_creation_rate: int = _int(
        INT32_MAX, 1, INT32_MAX, "New connections of Kafka clients in a second; further ones wait."
    )
    connections_max_idle_ms: int = _int(
        600_000, -1, INT64_MAX, "A Kafka client idle for longer is disconnected; -1: never."
    )
    queued_max_request_bytes: int = _int(
        268_435_456, 1024, INT64_MAX, "Bytes of request bodies held at once; beyond it requests get 503 or wait."
    )
    queued_max_response_bytes: int = _int(
        268_435_456, 1_048_576, INT64_MAX, "Bytes of answers held at once; beyond it reads of the log wait or shrink."
    )
    request_timeout_ms: int = _int(30_000, 1, INT32_MAX, "Default of a produce request's timeout.")
    producer_id_expiration_ms: int = _int(
        86_400_000, 1, INT32_MAX, "A producer id or Idempotency-Key unused for longer is forgotten."
    )
    producer_id_expiration_check_interval_ms: int = _int(600_000, 1, INT32_MAX, "Interval between two checks of it.")
    producer_id_max_per_partition: int = _int(
        100_000, 1, INT32_MAX, "Producer ids that a partition remembers; beyond it the longest silent one is forgotten."
    )
    transactional_id_max_per_node: int = _int(
        300_000, 1, INT32_MAX, "Transactional ids that a node coordinates; beyond it no new one gets a producer id."
    )
    transaction_aborted_max_per_partition: int = _int(
        10_000_000,
        1,
        INT32_MAX,
        "Aborted transactions that a log keeps; beyond it none begins there until some are deleted.",
    )
    rest_dialect: RestDialect = Field(
        default="confluent", description="The REST proxy that the v2 dialect follows where proxies differ."
    )
    rest_max_waiting_reads: int = _int(
        20_000, 0, INT32_MAX, "Reads waiting for records, and streams, at once over HTTP; one more gets 503."
    )
    rest_idempotency_max_keys_per_partition: int = _int(
        100_000, 1, INT32_MAX, "Idempotency-Keys that a partition remembers; beyond it the oldest is forgotten."
    )
    max_routes: int = _int(1_000, 0, 10_000, "Ours: routes of the cluster; one more is refused.")
    max_bindings_per_route: int = _int(250, 1, 10_000, "Ours: bindings of one route; one more is refused.")
    rest_allowed_hosts: str = Field(
        default="",
        description="Names beside the nodes' own hosts, localhost and addresses under which HTTP clients may reach a "
        "node, with commas between; *: any name.",
    )
    access_control_allow_origin: str = Field(
        default="",
        description="Origins (https://console.example) whose pages may read and change over HTTP, with commas between; "
        "*: any page.",
    )
    background_threads: int = _int(4, 1, 64, "Worker threads for fsync, recovery and deletion.")
    # TLS, with PEM files
    ssl_keystore_type: Literal["PEM"] = Field(default="PEM", description="Format of the keystore: PEM only.")
    ssl_keystore_location: str = Field(
        default="", description="File with the node's private key and its certificate chain, in PEM."
    )
    ssl_keystore_certificate_chain: str = Field(default="", description="The chain itself in PEM, instead of a file.")
    ssl_keystore_key: str = Field(default="", description="The private key itself in PEM, instead of a file.")
    ssl_key_password: str = Field(default="", description="Password of the private key.")
    ssl_truststore_type: Literal["PEM"] = Field(default="PEM", description="Format of the truststore: PEM only.")
    ssl_truststore_location: str = Field(
        default="", description="File with the certificates of the CAs that are trusted, in PEM."
    )
    ssl_truststore_certificates: str = Field(default="", description="These certificates themselves, in PEM.")
    ssl_client_auth: Literal["none", "requested", "required"] = Field(
        default="none", description="Certificates of clients at listeners with TLS."
    )
    ssl_principal_mapping_rules: Annotated[str, AfterValidator(check_rules)] = Field(
        default="DEFAULT",
        description="Rules that make the name of a user from the distinguished name of its certificate.",
    )
    ssl_enabled_protocols: str = Field(
        default="TLSv1.2,TLSv1.3",
        pattern=r"^TLSv1\.[23](,TLSv1\.[23])?$",
        description="Versions of TLS, with commas between.",
    )
    # Logins
    sasl_enabled_mechanisms: str = Field(
        default="SCRAM-SHA-256,SCRAM-SHA-512",
        pattern=r"^(SCRAM-SHA-256|SCRAM-SHA-512|PLAIN|OAUTHBEARER)(,(SCRAM-SHA-256|SCRAM-SHA-512|PLAIN|OAUTHBEARER))*$",
        description="Mechanisms of listeners that name none, with commas between.",
    )
    sasl_plain_without_tls_enable: bool = Field(
        default=False, description="May PLAIN and Basic send passwords over connections without TLS?"
    )
    connections_max_reauth_ms: int = _int(
        0, 0, INT64_MAX, "A Kafka client logs in again within this time, or is disconnected; 0: never."
    )
    connection_failed_authentication_delay_ms: int = _int(
        100, 0, 10_000, "Wait before the connection of a failed login is closed."
    )
    sasl_oauthbearer_jwks_endpoint_url: str = Field(
        default="",
        pattern=r"^(file://.*)?$",
        description="File with the keys (JWKS) that tokens are checked with, as file:///path.",
    )
    sasl_oauthbearer_expected_audience: str = Field(
        default="", description="Audiences of which a token has one, with commas between; empty: any."
    )
    sasl_oauthbearer_expected_issuer: str = Field(default="", description="Issuer of tokens; empty: any.")
    sasl_oauthbearer_sub_claim_name: str = Field(default="sub", description="Claim with the name of the user.")
    sasl_oauthbearer_clock_skew_seconds: int = _int(30, 0, 3_600, "How far the clock of the issuer may differ.")
    sasl_oauthbearer_unsecured_tokens_enable: bool = Field(
        default=False, description="Are tokens without a signature taken? For tests only: anybody can make one."
    )
    ssl_endpoint_identification_algorithm: Literal["https", ""] = Field(
        default="https",
        description="https: a node checks the host in the certificate of another; empty: it does not.",
    )


INTERNAL_TOPIC_SETTINGS = frozenset({"internal.segment.bytes", "record.expiry.enable", "delivery.target.topic"})
"""Settings of a topic that DescribeConfigs shows only where they are set: Kafka's own tests' and ours."""

BROKER_SYNONYMS: Mapping[str, str] = {
    "cleanup.policy": "log.cleanup.policy",
    "compression.type": "compression.type",
    "delete.retention.ms": "log.cleaner.delete.retention.ms",
    "file.delete.delay.ms": "log.segment.delete.delay.ms",
    "flush.messages": "log.flush.interval.messages",
    "flush.ms": "log.flush.interval.ms",
    "index.interval.bytes": "log.index.interval.bytes",
    "max.message.bytes": "message.max.bytes",
    "max.compaction.lag.ms": "log.cleaner.max.compaction.lag.ms",
    "message.timestamp.after.max.ms": "log.message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms": "log.message.timestamp.before.max.ms",
    "message.timestamp.type": "log.message.timestamp.type",
    "min.cleanable.dirty.ratio": "log.cleaner.min.cleanable.ratio",
    "min.compaction.lag.ms": "log.cleaner.min.compaction.lag.ms",
    "min.insync.replicas": "min.insync.replicas",
    "retention.bytes": "log.retention.bytes",
    "retention.ms": "log.retention.ms",
    "segment.bytes": "log.segment.bytes",
    "segment.index.bytes": "log.index.size.max.bytes",
    "segment.jitter.ms": "log.roll.jitter.ms",
    "segment.ms": "log.roll.ms",
    "unclean.leader.election.enable": "unclean.leader.election.enable",
}
"""Topic setting -> the broker setting that is its default."""

_SYNONYM_FIELDS = tuple((topic, name.replace(".", "_")) for topic, name in BROKER_SYNONYMS.items())


def broker_settings(*layers: Mapping[str, Any]) -> BrokerSettings:
    """Merge layers of Kafka-named values, the later ones win: static, cluster-wide dynamic, per broker dynamic.

    Raises pydantic.ValidationError with the name of each bad key.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    return BrokerSettings.model_validate(merged)


GROUP_SYNONYMS: Mapping[str, str] = {
    "consumer.session.timeout.ms": "group.consumer.session.timeout.ms",
    "consumer.heartbeat.interval.ms": "group.consumer.heartbeat.interval.ms",
    "consumer.assignment.interval.ms": "group.consumer.assignment.interval.ms",
    "consumer.assignor.offload.enable": "group.consumer.assignor.offload.enable",
    "share.session.timeout.ms": "group.share.session.timeout.ms",
    "share.heartbeat.interval.ms": "group.share.heartbeat.interval.ms",
    "share.assignment.interval.ms": "group.share.assignment.interval.ms",
    "share.record.lock.duration.ms": "group.share.record.lock.duration.ms",
    "share.delivery.count.limit": "group.share.delivery.count.limit",
    "share.partition.max.record.locks": "group.share.partition.max.record.locks",
}
"""Group setting -> the broker setting that is its default."""

_BOUNDED_BY_BROKERS = (
    "consumer.session.timeout.ms",
    "consumer.heartbeat.interval.ms",
    "consumer.assignment.interval.ms",
    "share.session.timeout.ms",
    "share.heartbeat.interval.ms",
    "share.assignment.interval.ms",
    "share.record.lock.duration.ms",
    "share.delivery.count.limit",
    "share.partition.max.record.locks",
)


def group_settings(broker: BrokerSettings, overrides: Mapping[str, Any]) -> GroupSettings:
    """A group's effective settings, within the bounds that the brokers set. Raises pydantic.ValidationError with the
    name of each bad key."""
    defaults = {name: getattr(broker, _field_name(synonym)) for name, synonym in GROUP_SYNONYMS.items()}
    chosen = GroupSettings.model_validate({**defaults, **overrides})
    bounded = {}
    for name in _BOUNDED_BY_BROKERS:
        low, high = (getattr(broker, _field_name(_bound(name, side))) for side in ("min", "max"))
        bounded[_field_name(name)] = min(max(getattr(chosen, _field_name(name)), low), high)
    return chosen.model_copy(update=bounded)


def _field_name(kafka_name: str) -> str:
    return kafka_name.replace(".", "_")


def _bound(name: str, side: str) -> str:
    """The broker setting that is the least or the greatest value of a group setting."""
    protocol, setting = name.split(".", 1)
    return f"group.{protocol}.{side}.{setting}"


def share_contradictions(broker: BrokerSettings) -> Iterator[tuple[str, str, str]]:
    """What Kafka refuses at the start of a broker: a setting of share groups, why it contradicts another one, and what
    would be right. Source: ShareGroupConfig.validate, GroupCoordinatorConfig, Kafka 4.4."""
    sessions, members = broker.group_share_max_share_sessions, broker.group_share_max_size
    if sessions < members:
        wrong = f"{sessions} is less than group.share.max.size={members}: each member of a group has a session"
        yield "group.share.max.share.sessions", wrong, f"it is at least {members}"
    for name in _BOUNDED_BY_BROKERS:
        default = GROUP_SYNONYMS[name]
        if not default.startswith("group.share."):
            continue
        low, high = _bound(name, "min"), _bound(name, "max")
        value, least, most = (getattr(broker, _field_name(each)) for each in (default, low, high))
        if least > most:
            yield low, f"{least} is more than {high}={most}", f"it is at most {most}"
        elif not least <= value <= most:
            yield default, f"{value} is outside its bounds", f"it is from {least} ({low}) to {most} ({high})"


def check_group_settings(broker: BrokerSettings, overrides: Mapping[str, Any]) -> None:
    """Raises InvalidConfig 40 for settings of a group that Kafka refuses. Source: GroupConfig.validate."""
    settings = group_settings(broker, overrides)
    effective = settings.model_dump(by_alias=True)
    for name in _BOUNDED_BY_BROKERS:
        value, kept = overrides.get(name), effective[name]
        if value is not None and kept != int(value):
            comparison, side = ("greater", "min") if kept > int(value) else ("less", "max")
            limit = _bound(name, side)
            raise InvalidConfig(f"{name}={value} must be {comparison} than or equal to {limit}, which is {kept}")
    for protocol in ("consumer", "share"):
        session, interval = f"{protocol}.session.timeout.ms", f"{protocol}.heartbeat.interval.ms"
        if effective[session] <= effective[interval]:
            raise InvalidConfig(
                f"{session} ({effective[session]}) must be greater than {interval} ({effective[interval]})"
            )
    backoff_ms, most_ms = settings.share_retry_backoff_ms, settings.share_retry_backoff_max_ms
    if backoff_ms > most_ms:
        raise InvalidConfig(
            f"share.retry.backoff.ms={backoff_ms} must be at most share.retry.backoff.max.ms ({most_ms})"
        )
    problem = dead_letter_name_problem(broker, settings.errors_deadletterqueue_topic_name)
    if problem:
        raise InvalidConfig(f"errors.deadletterqueue.topic.name: {problem}")


def dead_letter_name_problem(broker: BrokerSettings, name: str) -> str:
    """Why no topic of this name may have dead letters; empty: one may, or the group has none."""
    prefix = broker.errors_deadletterqueue_topic_name_prefix
    if not name:
        return ""
    if name.startswith("__"):
        return f"{name!r} begins with '__', as internal topics do"
    if not name.startswith(prefix):
        return f"{name!r} must begin with {prefix!r}, which is errors.deadletterqueue.topic.name.prefix"
    return ""


def topic_settings(broker: BrokerSettings, overrides: Mapping[str, Any]) -> TopicSettings:
    """A topic's effective settings. Raises pydantic.ValidationError with the name of each bad key."""
    values: dict[str, Any] = {topic: getattr(broker, field_name) for topic, field_name in _SYNONYM_FIELDS}
    values.update(overrides)
    return TopicSettings.model_validate(values)


_READ_ONCE = frozenset(
    {
        "allow.everyone.if.no.acl.found",
        "broker.probe.timeout.ms",
        "socket.request.max.items",
        "super.users",
        "unclean.recovery.timeout.ms",
    }
)
"""Settings that a node reads only when it starts, beside those that Kafka's broker has in its list."""


def is_dynamic(name: str) -> bool:
    """Whether a broker setting can be changed while the node runs: Kafka's settings as in Kafka (KIP-226), ours where
    the node reads them again."""
    return name in kafka_settings.DYNAMIC or (name not in kafka_settings.READ_ONLY and name not in _READ_ONCE)


def applied(layer: Mapping[str, str]) -> Mapping[str, str]:
    """The broker settings of the metadata log that take effect. An earlier version also took some that a node reads
    once, and another version may know others: they stay in the log and are described."""
    known = settings_by_name(BrokerSettings)
    return {name: value for name, value in layer.items() if name in known and is_dynamic(name)}


_LISTS = frozenset(
    {
        "cleanup.policy",
        "log.cleanup.policy",
        "rest.allowed.hosts",
        "access.control.allow.origin",
        "group.consumer.assignors",
        "match",
        "metrics",
        "sasl.enabled.mechanisms",
        "ssl.enabled.protocols",
    }
)

SENSITIVE = frozenset(
    {
        "ssl.key.password",
        "ssl.keystore.certificate.chain",
        "ssl.keystore.key",
        "ssl.truststore.certificates",
    }
)
"""Settings whose values nobody is shown (the type PASSWORD of Kafka)."""
HIDDEN = "[hidden]"
"""Shown in place of the value of a sensitive setting, as by Kafka."""


def without_secrets(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as reports have them, by names that are flat (`ssl.keystore.key`) or tables of TOML."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found[name] = without_secrets(value, f"{prefix}{name}.")
        else:
            found[name] = HIDDEN if f"{prefix}{name}" in SENSITIVE else value
    return found


SettingsModel: TypeAlias = (
    "type[TopicSettings] | type[BrokerSettings] | type[GroupSettings] | type[ClientMetricsSettings]"
)


MODELS_BY_RESOURCE: Mapping[str, SettingsModel] = {
    "topic": TopicSettings,
    "broker": BrokerSettings,
    "group": GroupSettings,
    "client-metrics": ClientMetricsSettings,
}


@cache
def settings_by_name(model: SettingsModel) -> Mapping[str, Any]:
    """Kafka name -> pydantic field."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def setting_text(value: object) -> str:
    """The text of a value as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def canonical_value(model: SettingsModel, name: str, value: str | None) -> str:
    """The text of one setting as Kafka writes it (None: its default). Raises InvalidConfig 40."""
    field = _field(model, name)
    text = "" if value is None else value.strip()
    if value is None:
        parsed = field.default
    elif field.annotation is bool and text.lower() not in ("true", "false"):
        raise InvalidConfig(f"{name} is true or false, not {value!r}")
    elif field.annotation is int and not text.removeprefix("-").isdecimal():
        raise InvalidConfig(f"{name} is a whole number, not {value!r}")
    else:
        parsed = _parsed(model, name, text.lower() if field.annotation is bool else text)
    return setting_text(parsed)


def is_list(model: SettingsModel, name: str) -> bool:
    """Whether the setting is a list, to which values can be appended. Raises InvalidConfig 40 for an unknown name."""
    _field(model, name)
    return name in _LISTS


def _field(model: SettingsModel, name: str) -> Any:
    known = settings_by_name(model)
    if name not in known:
        kind = next(kind for kind, each in MODELS_BY_RESOURCE.items() if each is model)
        raise InvalidConfig(f"there is no {kind} setting {name!r}: {nearest_key_hint(name, known)}")
    return known[name]


def _parsed(model: SettingsModel, name: str, text: str) -> object:
    try:
        settings = model.model_validate({name: text})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        right = what_is_right(problem["type"], problem.get("ctx", {}))
        raise InvalidConfig(f"{name}={text!r} is not valid: it {right}") from error
    return settings.model_dump(by_alias=True)[name]
