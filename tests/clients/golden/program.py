"""The questions: each API in each version that clients are served, at least one that succeeds and one that fails.

The same program runs against Apache Kafka (`record.py`) and against a node of ours (`test_golden.py`), each with one
broker, no automatic creation of topics and no wait before a group's first rebalance. Names carry the version, so that
each version finds what its success needs and what an earlier one did is not in its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages import add_partitions_to_txn_request as apt
from kraft.protocol.messages import alter_configs_request as ac
from kraft.protocol.messages import alter_partition_reassignments_request as apr
from kraft.protocol.messages import alter_replica_log_dirs_request as ard
from kraft.protocol.messages import create_partitions_request as cp
from kraft.protocol.messages import create_topics_request as ct
from kraft.protocol.messages import delete_records_request as dr
from kraft.protocol.messages import delete_topics_request as dt
from kraft.protocol.messages import describe_configs_request as dc
from kraft.protocol.messages import describe_log_dirs_request as dl
from kraft.protocol.messages import describe_producers_request as dp
from kraft.protocol.messages import describe_quorum_request as dq
from kraft.protocol.messages import describe_topic_partitions_request as dtp
from kraft.protocol.messages import elect_leaders_request as el
from kraft.protocol.messages import fetch_request as f
from kraft.protocol.messages import incremental_alter_configs_request as iac
from kraft.protocol.messages import join_group_request as jg
from kraft.protocol.messages import leave_group_request as lg
from kraft.protocol.messages import list_offsets_request as lo
from kraft.protocol.messages import list_partition_reassignments_request as lpr
from kraft.protocol.messages import metadata_request as md
from kraft.protocol.messages import offset_commit_request as oc
from kraft.protocol.messages import offset_delete_request as od
from kraft.protocol.messages import offset_fetch_request as of
from kraft.protocol.messages import offset_for_leader_epoch_request as ofe
from kraft.protocol.messages import produce_request as p
from kraft.protocol.messages import sync_group_request as sg
from kraft.protocol.messages import txn_offset_commit_request as toc
from kraft.protocol.messages import update_features_request as uf
from kraft.protocol.messages import write_txn_markers_request as wtm
from kraft.protocol.messages.add_offsets_to_txn_request import AddOffsetsToTxnRequestData
from kraft.protocol.messages.alter_client_quotas_request import (
    AlterClientQuotasRequestData,
    EntityData,
    EntryData,
    OpData,
)
from kraft.protocol.messages.alter_user_scram_credentials_request import (
    AlterUserScramCredentialsRequestData,
    ScramCredentialDeletion,
)
from kraft.protocol.messages.api_versions_request import ApiVersionsRequestData
from kraft.protocol.messages.consumer_group_describe_request import ConsumerGroupDescribeRequestData
from kraft.protocol.messages.consumer_group_heartbeat_request import ConsumerGroupHeartbeatRequestData
from kraft.protocol.messages.create_acls_request import AclCreation, CreateAclsRequestData
from kraft.protocol.messages.delete_acls_request import DeleteAclsFilter, DeleteAclsRequestData
from kraft.protocol.messages.delete_groups_request import DeleteGroupsRequestData
from kraft.protocol.messages.describe_acls_request import DescribeAclsRequestData
from kraft.protocol.messages.describe_client_quotas_request import ComponentData, DescribeClientQuotasRequestData
from kraft.protocol.messages.describe_cluster_request import DescribeClusterRequestData
from kraft.protocol.messages.describe_groups_request import DescribeGroupsRequestData
from kraft.protocol.messages.describe_transactions_request import DescribeTransactionsRequestData
from kraft.protocol.messages.describe_user_scram_credentials_request import (
    DescribeUserScramCredentialsRequestData,
    UserName,
)
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.get_telemetry_subscriptions_request import GetTelemetrySubscriptionsRequestData
from kraft.protocol.messages.heartbeat_request import HeartbeatRequestData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.list_config_resources_request import ListConfigResourcesRequestData
from kraft.protocol.messages.list_groups_request import ListGroupsRequestData
from kraft.protocol.messages.list_transactions_request import ListTransactionsRequestData
from kraft.protocol.messages.push_telemetry_request import PushTelemetryRequestData
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.unregister_broker_request import UnregisterBrokerRequestData
from tests.clients.golden import share_questions

Ask = Callable[[str, TopLevel, int], Any]

UNKNOWN = "no-such-topic"
UNKNOWN_ID = UUID("0a0b0c0d-0000-4000-8000-0102030405ff")
TOPIC_RESOURCE, BROKER_RESOURCE, METRICS_RESOURCE, GROUP_RESOURCE = 2, 4, 16, 32
SETTLE_S = 30
SHARED_BATCHES = 40
"""Each is handed out once, and some while their share partition is loaded."""


def versions(key: int) -> Iterator[int]:
    yield from apis.BY_KEY[key].clients


def run(ask: Ask) -> None:
    """All of it. The order matters: what is asked for stands in what was made before."""
    for part in (_api_versions, _topics, _metadata, _produce, _fetch, _offsets, _producer_ids, _groups, _group_offsets):
        part(ask)
    for part in (_group_admin, _consumer_groups, _configs, _partitions, _log_dirs, _cluster, _security, _deletions):
        part(ask)
    _transactions(ask)
    _dynamic_configs(ask)
    _client_metrics(ask)
    _shares(ask)
    _authentication(ask)


def _api_versions(ask: Ask) -> None:
    for version in range(5):
        request = ApiVersionsRequestData.make(client_software_name="golden", client_software_version="1.0")
        ask("the list", request, version)
        if version >= 3:
            bad = ApiVersionsRequestData.make(client_software_name="-bad name-", client_software_version="1.0")
            ask("a software name that is none", bad, version)


def _topics(ask: Ask) -> None:
    for version in versions(19):
        one = ct.CreatableTopic.make(name=f"made-{version}", num_partitions=2, replication_factor=1)
        ask("a topic", ct.CreateTopicsRequestData.make(topics=[one]), version)
        ask("a topic that exists", ct.CreateTopicsRequestData.make(topics=[one]), version)
        for name, topic in {
            "a name that is none": ct.CreatableTopic.make(name="a b", num_partitions=1, replication_factor=1),
            "no partitions": ct.CreatableTopic.make(name="none", num_partitions=0, replication_factor=1),
            "more replicas than brokers": ct.CreatableTopic.make(name="many", num_partitions=1, replication_factor=3),
            "a config that is none": ct.CreatableTopic.make(
                name="odd",
                num_partitions=1,
                replication_factor=1,
                configs=[ct.CreatableTopicConfig.make(name="no.such.config", value="1")],
            ),
            "a config with a bad value": ct.CreatableTopic.make(
                name="odd",
                num_partitions=1,
                replication_factor=1,
                configs=[ct.CreatableTopicConfig.make(name="retention.ms", value="long")],
            ),
            "replicas by hand": ct.CreatableTopic.make(
                name=f"by-hand-{version}",
                num_partitions=-1,
                replication_factor=-1,
                assignments=[ct.CreatableReplicaAssignment.make(partition_index=0, broker_ids=[1])],
            ),
            "replicas by hand on a broker that is none": ct.CreatableTopic.make(
                name="by-hand",
                num_partitions=-1,
                replication_factor=-1,
                assignments=[ct.CreatableReplicaAssignment.make(partition_index=0, broker_ids=[77])],
            ),
        }.items():
            ask(name, ct.CreateTopicsRequestData.make(topics=[topic]), version)
        only = ct.CreatableTopic.make(name="only-validated", num_partitions=1, replication_factor=1)
        ask("validated only", ct.CreateTopicsRequestData.make(topics=[only], validate_only=True), version)
        ask("a topic named twice", ct.CreateTopicsRequestData.make(topics=[only, only]), version)
    for version in versions(37):
        grow = cp.CreatePartitionsTopic.make(name="made-2", count=3 + version, assignments=None)
        ask("more partitions", cp.CreatePartitionsRequestData.make(topics=[grow], timeout_ms=10_000), version)
        fewer = cp.CreatePartitionsTopic.make(name="made-2", count=1, assignments=None)
        ask("fewer partitions", cp.CreatePartitionsRequestData.make(topics=[fewer], timeout_ms=10_000), version)
        unknown = cp.CreatePartitionsTopic.make(name=UNKNOWN, count=4, assignments=None)
        ask("of no topic", cp.CreatePartitionsRequestData.make(topics=[unknown], timeout_ms=10_000), version)


def _metadata(ask: Ask) -> None:
    for version in versions(3):
        named = md.MetadataRequestTopic.make(name="made-7")
        request = md.MetadataRequestData.make(topics=[named], allow_auto_topic_creation=False)
        ask("a topic by name", request, version)
        unknown = md.MetadataRequestTopic.make(name=UNKNOWN)
        ask("of no topic", md.MetadataRequestData.make(topics=[unknown], allow_auto_topic_creation=False), version)
        invalid = md.MetadataRequestTopic.make(name="a b")
        ask("a name that is none", md.MetadataRequestData.make(topics=[invalid]), version)
        ask("all topics", md.MetadataRequestData.make(topics=None if version else ()), version)
        if version:
            ask("no topics", md.MetadataRequestData.make(topics=()), version)
        if version >= 8:
            request = md.MetadataRequestData.make(topics=[named], include_topic_authorized_operations=True)
            ask("with what is allowed", request, version)
        if version >= 12:
            by_id = md.MetadataRequestTopic.make(name=None, topic_id=id_of(ask, "made-7"))
            ask("a topic by id", md.MetadataRequestData.make(topics=[by_id]), version)
            by_id = md.MetadataRequestTopic.make(name=None, topic_id=UNKNOWN_ID)
            ask("of no topic, by id", md.MetadataRequestData.make(topics=[by_id]), version)
    for name in ("made-7", UNKNOWN):
        request = dtp.DescribeTopicPartitionsRequestData.make(topics=[dtp.TopicRequest.make(name=name)])
        ask(f"of {name}", request, 0)
    limited = dtp.DescribeTopicPartitionsRequestData.make(
        topics=[dtp.TopicRequest.make(name="made-7")], response_partition_limit=1
    )
    ask("a page of one", limited, 0)


def id_of(ask: Ask, topic: str) -> UUID:
    named = md.MetadataRequestTopic.make(name=topic)
    answer = ask(f"the id of {topic}", md.MetadataRequestData.make(topics=[named], allow_auto_topic_creation=False), 12)
    found: UUID = answer.topics[0].topic_id if answer.topics else UUID(int=0)
    return found


def batch(count: int = 2, **fields: Any) -> bytes:
    records = [NewRecord(key=b"k", value=b"v", headers=[], timestamp_ms=1_700_000_000_000 + at) for at in range(count)]
    return bytes(build_batch(records, **fields))


def _produce_request(
    topic: str, topic_id: UUID, records: bytes | None, *, partition: int = 0, acks: int = -1, version: int
) -> p.ProduceRequestData:
    data = [p.PartitionProduceData.make(index=partition, records=records)]
    named = p.TopicProduceData.make(name=topic, topic_id=topic_id, partition_data=data)
    return p.ProduceRequestData.make(acks=acks, timeout_ms=10_000, topic_data=[named])


def _produce(ask: Ask) -> None:
    topic_id = id_of(ask, "made-7")
    for version in versions(0):

        def asked(
            name: str, topic: str, its_id: UUID, records: bytes | None, version: int = version, **how: Any
        ) -> None:
            ask(name, _produce_request(topic, its_id, records, version=version, **how), version)

        asked("records", "made-7", topic_id, batch())
        asked("acks=1", "made-7", topic_id, batch(), acks=1)
        asked("acks=2", "made-7", topic_id, batch(), acks=2)
        asked("to no topic", UNKNOWN, UNKNOWN_ID, batch())
        asked("to no partition", "made-7", topic_id, batch(), partition=99)
        damaged = bytearray(batch())
        damaged[-1] ^= 1
        asked("a batch whose CRC is wrong", "made-7", topic_id, bytes(damaged))
        asked("two batches", "made-7", topic_id, batch() + batch())
        asked("a batch too large", "made-7", topic_id, bytes(large_batch()))


def large_batch() -> bytes:
    return bytes(build_batch([NewRecord(key=None, value=bytes(1_100_000), headers=[], timestamp_ms=1_700_000_000_000)]))


def _fetch(ask: Ask) -> None:
    topic_id = id_of(ask, "made-7")
    for version in versions(1):

        def asked(
            name: str,
            topic: str,
            its_id: UUID,
            version: int = version,
            partition: int = 0,
            session: tuple[int, int] = (0, -1),
            isolation: int = 0,
            **at: Any,
        ) -> Any:
            wanted = f.FetchPartition.make(partition=partition, partition_max_bytes=1_000_000, **at)
            topics = [f.FetchTopic.make(topic=topic, topic_id=its_id, partitions=[wanted])]
            request = f.FetchRequestData.make(
                max_wait_ms=1,
                min_bytes=0,
                max_bytes=10_000_000,
                topics=topics,
                session_id=session[0],
                session_epoch=session[1],
                isolation_level=isolation,
            )
            return ask(name, request, version)

        asked("from the beginning", "made-7", topic_id)
        asked("committed records", "made-7", topic_id, isolation=1)
        asked("beyond the end", "made-7", topic_id, fetch_offset=1_000_000)
        asked("of no topic", UNKNOWN, UNKNOWN_ID)
        asked("of no partition", "made-7", topic_id, partition=99)
        asked("of an epoch to come", "made-7", topic_id, current_leader_epoch=1_000)
        asked("nothing new", "made-7", topic_id, partition=1)
        if version >= 7:
            asked("a session that is none", "made-7", topic_id, session=(4711, 5))
            asked("a new session", "made-7", topic_id, session=(0, 0))
        if version >= 12:
            asked("after a truncation", "made-7", topic_id, fetch_offset=2, last_fetched_epoch=1_000)


def _offsets(ask: Ask) -> None:
    for version in versions(2):

        def asked(name: str, topic: str, version: int = version, **how: Any) -> None:
            wanted = lo.ListOffsetsPartition.make(**how)
            topics = [lo.ListOffsetsTopic.make(name=topic, partitions=[wanted])]
            ask(name, lo.ListOffsetsRequestData.make(replica_id=-1, topics=topics, timeout_ms=10_000), version)

        asked("latest", "made-7", timestamp=-1)
        asked("earliest", "made-7", timestamp=-2)
        asked("by time", "made-7", timestamp=1_700_000_000_001)
        asked("by a time to come", "made-7", timestamp=4_000_000_000_000)
        asked("latest of no records", "made-7", partition_index=1, timestamp=-1)
        asked("of no topic", UNKNOWN, timestamp=-1)
        for timestamp, since, name in (
            (-3, 7, "of the largest timestamp"),
            (-4, 8, "earliest local"),
            (-5, 9, "latest tiered"),
            (-6, 11, "earliest that is not uploaded"),
        ):
            if version >= since:
                asked(name, "made-7", timestamp=timestamp)
        if version >= 4:
            asked("of an epoch to come", "made-7", timestamp=-1, current_leader_epoch=1_000)
    for version in versions(23):
        for name, topic, epochs in (
            ("of the first epoch", "made-7", {"leader_epoch": 0}),
            ("of an epoch to come", "made-7", {"leader_epoch": 1_000}),
            ("with a leader epoch to come", "made-7", {"leader_epoch": 0, "current_leader_epoch": 1_000}),
            ("of no topic", UNKNOWN, {"leader_epoch": 0}),
        ):
            wanted = [ofe.OffsetForLeaderPartition.make(**epochs)]  # type: ignore[arg-type]
            topics = [ofe.OffsetForLeaderTopic.make(topic=topic, partitions=wanted)]
            ask(name, ofe.OffsetForLeaderEpochRequestData.make(replica_id=-1, topics=topics), version)
    for version in versions(21):
        for name, topic, offset in (
            ("up to an offset", "made-7", 2 + version),
            ("beyond the end", "made-7", 1_000_000),
            ("of no topic", UNKNOWN, 1),
        ):
            parts = [dr.DeleteRecordsPartition.make(partition_index=0, offset=offset)]
            deletion = dr.DeleteRecordsTopic.make(name=topic, partitions=parts)
            ask(name, dr.DeleteRecordsRequestData.make(topics=[deletion], timeout_ms=10_000), version)


def _producer_ids(ask: Ask) -> None:
    until = time.monotonic() + SETTLE_S
    plain = InitProducerIdRequestData.make(transactional_id=None, transaction_timeout_ms=60_000)
    while ask("while the first ids are fetched", plain, 4).error_code == 14:
        assert time.monotonic() < until, "no producer ids"
        time.sleep(0.1)
    for version in versions(22):
        ask("an id", plain, version)
        empty = InitProducerIdRequestData.make(transactional_id="", transaction_timeout_ms=60_000)
        ask("an empty transactional id", empty, version)
        if version >= 3:
            other = InitProducerIdRequestData.make(
                transactional_id=None, transaction_timeout_ms=60_000, producer_id=5, producer_epoch=-1
            )
            ask("an id without an epoch", other, version)


def _coordinator(ask: Ask, group: str) -> None:
    """Until the group's coordinator is there."""
    until = time.monotonic() + SETTLE_S
    while ask("while it is made", FindCoordinatorRequestData.make(key=group), 3).error_code:
        assert time.monotonic() < until, "no coordinator"
        time.sleep(0.1)
    while ask("while it is loaded", HeartbeatRequestData.make(group_id=group), 4).error_code in (14, 15, 16):
        assert time.monotonic() < until, "the coordinator is not loaded"
        time.sleep(0.1)


def _without_coordinators(ask: Ask) -> None:
    """Nobody has looked for one yet; the first who does brings their topic into being, and is to come again."""
    topic_id = id_of(ask, "made-7")
    for version in versions(12):
        ask("without a coordinator", HeartbeatRequestData.make(group_id="classic"), version)
    for version in versions(15):
        ask("without a coordinator", DescribeGroupsRequestData.make(groups=["classic"]), version)
    for version in versions(9):
        if version < 8:
            named = [of.OffsetFetchRequestTopic.make(name="made-7", partition_indexes=[0])]
            request = of.OffsetFetchRequestData.make(group_id="classic", topics=named)
        else:
            topics = [of.OffsetFetchRequestTopics.make(name="made-7", topic_id=topic_id, partition_indexes=[0])]
            groups = [of.OffsetFetchRequestGroup.make(group_id="classic", topics=topics)]
            request = of.OffsetFetchRequestData.make(groups=groups)
        ask("without a coordinator", request, version)
    ask("while it is made", FindCoordinatorRequestData.make(key="classic"), 0)


def _groups(ask: Ask) -> None:
    _without_coordinators(ask)
    _coordinator(ask, "classic")
    for version in versions(10):
        if version < 4:
            ask("of a group", FindCoordinatorRequestData.make(key="classic"), version)
            if version:
                ask("of a type that is none", FindCoordinatorRequestData.make(key="x", key_type=9), version)
        else:
            ask("of groups", FindCoordinatorRequestData.make(coordinator_keys=["classic", "other"]), version)
            ask("of a type that is none", FindCoordinatorRequestData.make(coordinator_keys=["x"], key_type=9), version)
    for version in versions(11):
        _classic(ask, version)


def _join(group: str, member_id: str, **fields: Any) -> jg.JoinGroupRequestData:
    protocols = [jg.JoinGroupRequestProtocol.make(name="range", metadata=b"subscription")]
    return jg.JoinGroupRequestData.make(
        group_id=group,
        member_id=member_id,
        **{
            "session_timeout_ms": 30_000,
            "rebalance_timeout_ms": 30_000,
            "protocol_type": "consumer",
            "protocols": protocols,
            **fields,
        },
    )


def _classic(ask: Ask, version: int) -> None:
    """A member's life in one version of JoinGroup, the other APIs as new as they go with it."""
    group = f"classic-{version}"
    ask("an empty group id", _join("", ""), version)
    ask("a session timeout too short", _join(group, "", session_timeout_ms=1), version)
    ask("a member that is none", _join(group, "stranger"), version)
    ask("no protocols", _join(group, "", protocols=()), version)
    joined = ask("a member", _join(group, ""), version)
    member_id = joined.member_id
    if joined.error_code == 79:
        joined = ask("with the id that it was given", _join(group, member_id), version)
    generation = joined.generation_id
    sync, beat, leave = (min(version, apis.BY_KEY[key].clients[-1]) for key in (14, 12, 13))
    for name, its_generation, its_id in (
        ("of another generation", 1_000, member_id),
        ("of a stranger", generation, "stranger"),
        ("of a member", generation, member_id),
    ):
        request = HeartbeatRequestData.make(group_id=group, generation_id=its_generation, member_id=its_id)
        ask(f"{name}, before SyncGroup, JoinGroup {version}", request, beat)
    ask(f"another protocol, JoinGroup {version}", _join(group, "", protocol_type="connect"), version)
    assignments = [sg.SyncGroupRequestAssignment.make(member_id=member_id, assignment=b"assignment")]
    for name, its_generation, its_id in (
        ("of another generation", 1_000, member_id),
        ("of a stranger", generation, "stranger"),
        ("of the leader", generation, member_id),
    ):
        request = sg.SyncGroupRequestData.make(
            group_id=group,
            generation_id=its_generation,
            member_id=its_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=assignments,
        )
        ask(f"{name}, JoinGroup {version}", request, sync)
    heartbeat = HeartbeatRequestData.make(group_id=group, generation_id=generation, member_id=member_id)
    ask(f"of a member, JoinGroup {version}", heartbeat, beat)
    ask(f"of a group, JoinGroup {version}", DescribeGroupsRequestData.make(groups=[group]), min(version, 6))
    for name, its_id in (("of a stranger", "stranger"), ("of a member", member_id)):
        identity = lg.MemberIdentity.make(member_id=its_id)
        request = lg.LeaveGroupRequestData.make(group_id=group, member_id=its_id, members=[identity])
        ask(f"{name}, JoinGroup {version}", request, leave)


def _group_offsets(ask: Ask) -> None:
    topic_id = id_of(ask, "made-7")
    for version in versions(8):

        def commit(
            name: str, group: str, topic: str, its_id: UUID, version: int = version, metadata: str = "", **who: Any
        ) -> None:
            part = oc.OffsetCommitRequestPartition.make(committed_offset=3, committed_metadata=metadata)
            topics = [oc.OffsetCommitRequestTopic.make(name=topic, topic_id=its_id, partitions=[part])]
            ask(name, oc.OffsetCommitRequestData.make(group_id=group, topics=topics, **who), version)

        commit("without a member", "committed", "made-7", topic_id)
        commit("to no topic", "committed", UNKNOWN, UNKNOWN_ID)
        commit("of a stranger", "committed", "made-7", topic_id, member_id="stranger", generation_id_or_member_epoch=3)
        commit("metadata too long", "committed", "made-7", topic_id, metadata="m" * 5_000)
        commit("to no group", "", "made-7", topic_id)
    for version in versions(9):

        def fetch(name: str, group: str, topic: str | None, its_id: UUID, version: int = version) -> None:
            if version < 8:
                named = (
                    None if topic is None else [of.OffsetFetchRequestTopic.make(name=topic, partition_indexes=[0, 1])]
                )
                ask(name, of.OffsetFetchRequestData.make(group_id=group, topics=named), version)
                return
            topics = None
            if topic is not None:
                topics = [of.OffsetFetchRequestTopics.make(name=topic, topic_id=its_id, partition_indexes=[0, 1])]
            ask(
                name,
                of.OffsetFetchRequestData.make(groups=[of.OffsetFetchRequestGroup.make(group_id=group, topics=topics)]),
                version,
            )

        fetch("of a group", "committed", "made-7", topic_id)
        fetch("of no topic", "committed", UNKNOWN, UNKNOWN_ID)
        fetch("of no group", "no-such-group", "made-7", topic_id)
        if version >= 2:
            fetch("all of a group", "committed", None, topic_id)


def _group_admin(ask: Ask) -> None:
    for version in versions(15):
        ask("of a group", DescribeGroupsRequestData.make(groups=["classic-5"]), version)
        ask("of no group", DescribeGroupsRequestData.make(groups=["no-such-group"]), version)
        ask("of an empty id", DescribeGroupsRequestData.make(groups=[""]), version)
    for version in versions(16):
        ask("all", ListGroupsRequestData.make(), version)
        if version >= 4:
            ask("those that are empty", ListGroupsRequestData.make(states_filter=["Empty"]), version)
            ask("of no state", ListGroupsRequestData.make(states_filter=["NoSuchState"]), version)
        if version >= 5:
            ask("of type classic", ListGroupsRequestData.make(types_filter=["classic"]), version)
            ask("of no type", ListGroupsRequestData.make(types_filter=["NoSuchType"]), version)
    for name, group, topic in (
        ("a topic's", "committed", "made-7"),
        ("of no topic", "committed", UNKNOWN),
        ("of no group", "no-such-group", "made-7"),
    ):
        topics = [od.OffsetDeleteRequestTopic.make(name=topic, partitions=[od.OffsetDeleteRequestPartition.make()])]
        ask(name, od.OffsetDeleteRequestData.make(group_id=group, topics=topics), 0)
    for version in versions(42):
        ask("an empty group", DeleteGroupsRequestData.make(groups_names=[f"classic-{version}"]), version)
        ask("no group", DeleteGroupsRequestData.make(groups_names=["no-such-group"]), version)


def _consumer_groups(ask: Ask) -> None:
    for version in versions(68):
        group, member_id = f"consumer-{version}", "" if version == 0 else "AAAAAAAAAAAAAAAAAAAAAA"
        fields: dict[str, Any] = {
            "rebalance_timeout_ms": 30_000,
            "subscribed_topic_names": ["made-7"],
            "topic_partitions": (),
        }

        def beat(name: str, version: int = version, **changed: Any) -> Any:
            return ask(name, ConsumerGroupHeartbeatRequestData.make(**changed), version)

        beat("an empty group id", group_id="", member_id=member_id, **fields)
        beat("no rebalance timeout", group_id=group, member_id=member_id, **{**fields, "rebalance_timeout_ms": -1})
        beat("no subscription", group_id=group, member_id=member_id, **{**fields, "subscribed_topic_names": None})
        beat("an assignor that is none", group_id=group, member_id=member_id, server_assignor="best", **fields)
        joined = beat("a member joins", group_id=group, member_id=member_id, **fields)
        member_id = joined.member_id or member_id
        beat("nothing changed", group_id=group, member_id=member_id, member_epoch=joined.member_epoch)
        beat("of an epoch to come", group_id=group, member_id=member_id, member_epoch=joined.member_epoch + 100)
        beat("of a stranger", group_id=group, member_id="stranger", member_epoch=joined.member_epoch)
        describe = min(version, apis.BY_KEY[69].clients[-1])
        ask("of a group", ConsumerGroupDescribeRequestData.make(group_ids=[group]), describe)
        ask("of no group", ConsumerGroupDescribeRequestData.make(group_ids=["no-such-group"]), describe)
        ask("of a classic group", ConsumerGroupDescribeRequestData.make(group_ids=["classic-5"]), describe)
        if version:
            strange = of.OffsetFetchRequestGroup.make(group_id=group, member_id="stranger", member_epoch=3, topics=None)
            for newest in (9, 10):
                ask("of a stranger", of.OffsetFetchRequestData.make(groups=[strange]), newest)
        beat("a member leaves", group_id=group, member_id=member_id, member_epoch=-1)


def _configs(ask: Ask) -> None:
    for version in versions(32):
        for name, kind, resource, keys in (
            ("of a topic", TOPIC_RESOURCE, "made-7", None),
            ("one of a topic", TOPIC_RESOURCE, "made-7", ["retention.ms"]),
            ("of no topic", TOPIC_RESOURCE, UNKNOWN, None),
            ("of a broker", BROKER_RESOURCE, "1", ["min.insync.replicas"]),
            ("of no broker", BROKER_RESOURCE, "77", None),
            ("of a resource that is none", 99, "x", None),
        ):
            wanted = dc.DescribeConfigsResource.make(
                resource_type=kind, resource_name=resource, configuration_keys=keys
            )
            ask(name, dc.DescribeConfigsRequestData.make(resources=[wanted]), version)
    for version in versions(44):
        for name, kind, resource, config, operation, value in (
            ("a topic's", TOPIC_RESOURCE, "made-7", "retention.ms", 0, "86400000"),
            ("a bad value", TOPIC_RESOURCE, "made-7", "retention.ms", 0, "long"),
            ("no such config", TOPIC_RESOURCE, "made-7", "no.such.config", 0, "1"),
            ("an operation that is none", TOPIC_RESOURCE, "made-7", "retention.ms", 9, "1"),
            ("of no topic", TOPIC_RESOURCE, UNKNOWN, "retention.ms", 0, "1"),
            ("an addition to what is no list", TOPIC_RESOURCE, "made-7", "retention.ms", 2, "1"),
            ("the default again", TOPIC_RESOURCE, "made-7", "retention.ms", 1, None),
        ):
            change = iac.AlterableConfig.make(name=config, config_operation=operation, value=value)
            altered = iac.AlterConfigsResource.make(resource_type=kind, resource_name=resource, configs=[change])
            ask(name, iac.IncrementalAlterConfigsRequestData.make(resources=[altered]), version)
    for version in versions(33):
        for name, resource, config, value in (
            ("a topic's", "made-7", "retention.ms", "86400000"),
            ("a bad value", "made-7", "retention.ms", "long"),
            ("of no topic", UNKNOWN, "retention.ms", "1"),
        ):
            setting = ac.AlterableConfig.make(name=config, value=value)
            replaced = ac.AlterConfigsResource.make(
                resource_type=TOPIC_RESOURCE, resource_name=resource, configs=[setting]
            )
            ask(name, ac.AlterConfigsRequestData.make(resources=[replaced]), version)
    for version in versions(74):
        ask("all", ListConfigResourcesRequestData.make(), version)
        if version:
            ask("topics", ListConfigResourcesRequestData.make(resource_types=[TOPIC_RESOURCE]), version)
            ask("a type that is none", ListConfigResourcesRequestData.make(resource_types=[99]), version)


def _dynamic_configs(ask: Ask) -> None:
    """What a broker changes while it runs, and what it does not; settings of groups; a topic of Kafka's own tests."""
    newest = apis.BY_KEY[44].clients[-1]
    for name, kind, resource, config, value in (
        ("a broker's that it reads once", BROKER_RESOURCE, "1", "num.partitions", "3"),
        ("all brokers' that they read once", BROKER_RESOURCE, "", "auto.create.topics.enable", "true"),
        ("a broker's identity", BROKER_RESOURCE, "1", "broker.id", "3"),
        ("a broker's protocol", BROKER_RESOURCE, "1", "security.inter.broker.protocol", "PLAINTEXT"),
        ("a broker's that it changes", BROKER_RESOURCE, "1", "log.retention.ms", "500000"),
        ("a group's interval", GROUP_RESOURCE, "set", "consumer.assignment.interval.ms", "500"),
        ("a group's interval, too long", GROUP_RESOURCE, "set", "consumer.assignment.interval.ms", "99999999"),
        ("a group's offload", GROUP_RESOURCE, "set", "consumer.assignor.offload.enable", "false"),
    ):
        change = iac.AlterableConfig.make(name=config, config_operation=0, value=value)
        altered = iac.AlterConfigsResource.make(resource_type=kind, resource_name=resource, configs=[change])
        ask(name, iac.IncrementalAlterConfigsRequestData.make(resources=[altered]), newest)
    for name, kind, resource, keys in (
        ("of a broker, changed", BROKER_RESOURCE, "1", ["log.retention.ms", "broker.rack", "node.id"]),
        ("of a group", GROUP_RESOURCE, "set", ["consumer.assignment.interval.ms", "consumer.assignor.offload.enable"]),
    ):
        wanted = dc.DescribeConfigsResource.make(resource_type=kind, resource_name=resource, configuration_keys=keys)
        ask(name, dc.DescribeConfigsRequestData.make(resources=[wanted]), apis.BY_KEY[32].clients[-1])
    setting = ct.CreatableTopicConfig.make(name="internal.segment.bytes", value="2000000")
    topic = ct.CreatableTopic.make(name="small-segments", num_partitions=1, replication_factor=1, configs=[setting])
    ask("a topic with small segments", ct.CreateTopicsRequestData.make(topics=[topic]), apis.BY_KEY[19].clients[-1])


def _client_metrics(ask: Ask) -> None:
    """Subscriptions (KIP-714), and what a client is answered by a broker without a receiver."""
    instance = UUID(int=77)
    for name, resource, config, value in (
        ("a subscription", "all", "metrics", "org.apache.kafka.producer."),
        ("an interval", "all", "interval.ms", "60000"),
        ("an interval that is too short", "all", "interval.ms", "5"),
        ("an interval that is none", "all", "interval.ms", "long"),
        ("no such config of a subscription", "all", "interval", "60000"),
        ("a subscription without a name", "", "interval.ms", "60000"),
        ("clients that cannot be matched", "all", "match", "shoe_size=9"),
        ("a pattern that is none", "all", "match", "client_id=["),
    ):
        change = iac.AlterableConfig.make(name=config, config_operation=0, value=value)
        altered = iac.AlterConfigsResource.make(
            resource_type=METRICS_RESOURCE, resource_name=resource, configs=[change]
        )
        ask(name, iac.IncrementalAlterConfigsRequestData.make(resources=[altered]), apis.BY_KEY[44].clients[-1])
    for name, resource in (("of a subscription", "all"), ("of no subscription", UNKNOWN), ("of a nameless one", "")):
        wanted = dc.DescribeConfigsResource.make(resource_type=METRICS_RESOURCE, resource_name=resource)
        ask(
            name,
            dc.DescribeConfigsRequestData.make(resources=[wanted], include_synonyms=True),
            apis.BY_KEY[32].clients[-1],
        )
    ask("subscriptions", ListConfigResourcesRequestData.make(), 0)
    asked = GetTelemetrySubscriptionsRequestData.make(client_instance_id=instance)
    reported = ask("a client's subscriptions", asked, 0)
    for name, number, named in (
        ("metrics", reported.subscription_id, instance),
        ("metrics of another subscription", 5, UUID(int=78)),
        ("metrics of nobody", 5, UUID(int=0)),
    ):
        pushed = PushTelemetryRequestData.make(client_instance_id=named, subscription_id=number, metrics=b"metrics")
        ask(name, pushed, 0)


def _partitions(ask: Ask) -> None:
    for version in versions(43):
        for name, topic, partition in (
            ("of a partition", "made-7", 0),
            ("of no partition", "made-7", 99),
            ("of no topic", UNKNOWN, 0),
        ):
            wanted = [el.TopicPartitions.make(topic=topic, partitions=[partition])]
            ask(name, el.ElectLeadersRequestData.make(topic_partitions=wanted), version)
        ask("of all", el.ElectLeadersRequestData.make(topic_partitions=None), version)
    for version in versions(45):
        for name, topic, replicas in (
            ("to the same", "made-7", [1]),
            ("to a broker that is none", "made-7", [77]),
            ("to nobody", "made-7", []),
            ("cancelled, with none under way", "made-7", None),
            ("of no topic", UNKNOWN, [1]),
        ):
            part = apr.ReassignablePartition.make(partition_index=0, replicas=replicas)
            topics = [apr.ReassignableTopic.make(name=topic, partitions=[part])]
            ask(name, apr.AlterPartitionReassignmentsRequestData.make(topics=topics), version)
    ask("all", lpr.ListPartitionReassignmentsRequestData.make(topics=None), 0)
    named = lpr.ListPartitionReassignmentsTopics.make(name=UNKNOWN, partition_indexes=[0])
    ask("of no topic", lpr.ListPartitionReassignmentsRequestData.make(topics=[named]), 0)


def _log_dirs(ask: Ask) -> None:
    for version in versions(35):
        for name, topic in (("of a topic", "made-7"), ("of no topic", UNKNOWN)):
            wanted = [dl.DescribableLogDirTopic.make(topic=topic, partitions=[0])]
            ask(name, dl.DescribeLogDirsRequestData.make(topics=wanted), version)
        ask("all", dl.DescribeLogDirsRequestData.make(topics=None), version)
    folders = ask("the folder of a topic", dl.DescribeLogDirsRequestData.make(topics=None), 4)
    own = folders.results[0].log_dir if folders.results else ""
    for version in versions(34):
        for name, path, topic in (
            ("to the folder where it is", own, "made-7"),
            ("to a folder that is none", "/no/such/folder", "made-7"),
            ("of no topic", own, UNKNOWN),
        ):
            moved = ard.AlterReplicaLogDirTopic.make(name=topic, partitions=[0])
            folder = ard.AlterReplicaLogDir.make(path=path, topics=[moved])
            ask(name, ard.AlterReplicaLogDirsRequestData.make(dirs=[folder]), version)


def _cluster(ask: Ask) -> None:
    for version in versions(60):
        ask("brokers", DescribeClusterRequestData.make(), version)
        ask(
            "with what is allowed", DescribeClusterRequestData.make(include_cluster_authorized_operations=True), version
        )
        if version:
            ask("endpoints of another kind", DescribeClusterRequestData.make(endpoint_type=9), version)
    for version in versions(55):
        for name, topic in (("of the metadata", "__cluster_metadata"), ("of another topic", "made-7")):
            data = dq.TopicData.make(topic_name=topic, partitions=[dq.PartitionData.make()])
            ask(name, dq.DescribeQuorumRequestData.make(topics=[data]), version)
    for version in versions(57):
        for name, feature, level in (
            ("no such feature", "no.such.feature", 1),
            ("a level too high", "metadata.version", 9_999),
        ):
            update = uf.FeatureUpdateKey.make(feature=feature, max_version_level=level)
            ask(name, uf.UpdateFeaturesRequestData.make(feature_updates=[update], validate_only=True), version)
        ask("nothing", uf.UpdateFeaturesRequestData.make(feature_updates=()), version)
    ask("no such broker", UnregisterBrokerRequestData.make(broker_id=77), 0)


def _security(ask: Ask) -> None:
    for version in versions(29):
        request = DescribeAclsRequestData.make(
            resource_type_filter=1,
            resource_name_filter=None,
            principal_filter=None,
            host_filter=None,
            operation=1,
            permission_type=1,
        )
        ask("all", request, version)
    for version in versions(30):
        creation = AclCreation.make(
            resource_type=2, resource_name="x", principal="User:a", host="*", operation=3, permission_type=3
        )
        ask("one", CreateAclsRequestData.make(creations=[creation]), version)
    for version in versions(31):
        chosen = DeleteAclsFilter.make(
            resource_type_filter=2,
            resource_name_filter="x",
            principal_filter=None,
            host_filter=None,
            operation=1,
            permission_type=1,
        )
        ask("one", DeleteAclsRequestData.make(filters=[chosen]), version)
    for version in versions(48):
        component = ComponentData.make(entity_type="user", match_type=2, match=None)
        ask("of users", DescribeClientQuotasRequestData.make(components=[component]), version)
        component = ComponentData.make(entity_type="no-such-type", match_type=2, match=None)
        ask("of no type", DescribeClientQuotasRequestData.make(components=[component]), version)
    for version in versions(49):
        entry = EntryData.make(
            entity=[EntityData.make(entity_type="user", entity_name="a")],
            ops=[OpData.make(key="no_such_quota", value=1.0)],
        )
        ask("no such quota", AlterClientQuotasRequestData.make(entries=[entry]), version)
        ask("nothing", AlterClientQuotasRequestData.make(entries=()), version)
    ask("all", DescribeUserScramCredentialsRequestData.make(users=None), 0)
    ask("of no user", DescribeUserScramCredentialsRequestData.make(users=[UserName.make(name="nobody")]), 0)
    deletion = ScramCredentialDeletion.make(name="nobody", mechanism=1)
    ask("of no user", AlterUserScramCredentialsRequestData.make(deletions=[deletion]), 0)


def _deletions(ask: Ask) -> None:
    for version in versions(20):
        gone, unknown = f"by-hand-{version + 1}", UNKNOWN
        for name, topic in (("a topic", gone), ("no topic", unknown)):
            request = dt.DeleteTopicsRequestData.make(
                topics=[dt.DeleteTopicState.make(name=topic)], topic_names=[topic], timeout_ms=10_000
            )
            ask(name, request, version)
        if version >= 6:
            by_id = dt.DeleteTopicState.make(topic_id=UNKNOWN_ID)
            ask("no topic, by id", dt.DeleteTopicsRequestData.make(topics=[by_id], timeout_ms=10_000), version)


def _shares(ask: Ask) -> None:
    topic = ct.CreatableTopic.make(name=share_questions.TOPIC, num_partitions=2, replication_factor=1)
    ask("a topic for share groups", ct.CreateTopicsRequestData.make(topics=[topic]), 7)
    named = md.MetadataRequestTopic.make(name=share_questions.TOPIC)
    request = md.MetadataRequestData.make(topics=[named], allow_auto_topic_creation=False)
    _until(lambda: ask("while it is made", request, 12).topics[0].error_code == 0, "no topic")
    change = iac.AlterableConfig.make(name="share.auto.offset.reset", config_operation=0, value="earliest")
    group = iac.AlterConfigsResource.make(
        resource_type=GROUP_RESOURCE, resource_name=share_questions.GROUP, configs=[change]
    )
    ask("where a share group begins", iac.IncrementalAlterConfigsRequestData.make(resources=[group]), 1)
    topic_id = id_of(ask, share_questions.TOPIC)
    for _ in range(SHARED_BATCHES):
        request = _produce_request(share_questions.TOPIC, topic_id, batch(), version=apis.BY_KEY[0].clients[-1])
        ask("records for share groups", request, apis.BY_KEY[0].clients[-1])
    share_questions.ask_all(ask, _until, topic_id)


# --- transactions -----------------------------------------------------------------------------------------------------

IN_TRANSACTIONS = "in-transactions"
"""The topic that they write to."""
TRANSACTION_COORDINATOR = 1
"""The key type of FindCoordinator."""
BATCHED_FROM = 4
"""AddPartitionsToTxn of several transactions (KIP-890)."""
EPOCH_TOLD_FROM = 5
"""EndTxn raises the epoch; TxnOffsetCommit adds its group itself (KIP-890)."""
ADDED_BY_PRODUCE_FROM = 12
"""Produce adds its partition to the transaction itself (KIP-890)."""


class Transactional(NamedTuple):
    """A producer as its transactional id knows it. It has fenced one that was an epoch older."""

    name: str
    producer_id: int
    epoch: int

    @property
    def fields(self) -> dict[str, Any]:
        return {"transactional_id": self.name, "producer_id": self.producer_id, "producer_epoch": self.epoch}

    def wrong(self) -> Iterator[tuple[str, Transactional]]:
        yield "of an epoch that is fenced", self._replace(epoch=self.epoch - 1)
        yield "of another producer id", self._replace(producer_id=self.producer_id + 1_000_000)
        yield "of no transactional id", self._replace(name="no-such-transaction")
        yield "of an empty transactional id", self._replace(name="")


def _transactions(ask: Ask) -> None:
    one = ct.CreatableTopic.make(name=IN_TRANSACTIONS, num_partitions=2, replication_factor=1)
    ask("a topic for transactions", ct.CreateTopicsRequestData.make(topics=[one]), 7)
    named = md.MetadataRequestTopic.make(name=IN_TRANSACTIONS)
    request = md.MetadataRequestData.make(topics=[named], allow_auto_topic_creation=False)
    _until(lambda: ask("while it is made", request, 12).topics[0].error_code == 0, "no topic")
    finding = FindCoordinatorRequestData.make(key="ready", key_type=TRANSACTION_COORDINATOR)
    _until(lambda: ask("while it is made", finding, 3).error_code == 0, "no transaction coordinator")
    init = InitProducerIdRequestData.make(transactional_id="ready", transaction_timeout_ms=60_000)
    _until(lambda: ask("while it is loaded", init, 4).error_code == 0, "the transaction coordinator is not loaded")
    for version in versions(10):
        if version >= 4:
            found = FindCoordinatorRequestData.make(coordinator_keys=["ready"], key_type=TRANSACTION_COORDINATOR)
            ask("of a transactional id", found, version)
        elif version:
            found = FindCoordinatorRequestData.make(key="ready", key_type=TRANSACTION_COORDINATOR)
            ask("of a transactional id", found, version)
    for version in versions(22):
        _transactional_producers(ask, version)
    for version in versions(24):
        _partitions_of_transactions(ask, version)
    for version in versions(25):
        _groups_of_transactions(ask, version)
    for version in versions(28):
        _offsets_of_transactions(ask, version)
    for version in versions(26):
        _ends_of_transactions(ask, version)
    for version in versions(0):
        _produce_in_transaction(ask, version)
    _fetch_of_transactions(ask)
    _described_transactions(ask)
    _transaction_markers(ask)


def _until(is_so: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + SETTLE_S
    while not is_so():
        assert time.monotonic() < until, otherwise
        time.sleep(0.1)


def _transactional_producers(ask: Ask, version: int) -> None:
    def asked(name: str, timeout_ms: int = 60_000, **fields: Any) -> Any:
        request = InitProducerIdRequestData.make(
            transactional_id=f"init-{version}", transaction_timeout_ms=timeout_ms, **fields
        )
        return ask(name, request, version)

    asked("a transactional id")
    given = asked("a transactional id again")
    asked("a timeout too long", timeout_ms=1_000_000_000)
    asked("a timeout that is none", timeout_ms=0)
    if version >= 3:
        its = {"producer_id": given.producer_id, "producer_epoch": given.producer_epoch}
        asked("a transactional id with its epoch", **its)
        asked("another producer id", **{**its, "producer_id": given.producer_id + 1_000_000})
        asked("a transactional id, to fence")
        asked("an epoch that is fenced", **{**its, "producer_epoch": 0})


def _producer(ask: Ask, name: str) -> Transactional:
    request = InitProducerIdRequestData.make(transactional_id=name, transaction_timeout_ms=60_000)
    ask(f"{name}, which is fenced", request, 4)
    given = ask(name, request, 4)
    return Transactional(name, given.producer_id, given.producer_epoch)


def _ended(ask: Ask, producer: Transactional) -> None:
    """Until the markers of its transaction are written."""
    request = DescribeTransactionsRequestData.make(transactional_ids=[producer.name])

    def is_ended() -> bool:
        state: str = ask("while it ends", request, 0).transaction_states[0].transaction_state
        return state.startswith("Complete")

    _until(is_ended, f"{producer.name} does not end")


def _end(ask: Ask, producer: Transactional, *, commits: bool = True) -> None:
    ask(f"the end of {producer.name}", EndTxnRequestData.make(**producer.fields, committed=commits), 4)
    _ended(ask, producer)


def _adding(producer: Transactional, version: int, **topics: Any) -> apt.AddPartitionsToTxnRequestData:
    named = [apt.AddPartitionsToTxnTopic.make(name=name, partitions=numbers) for name, numbers in topics.items()]
    if version < BATCHED_FROM:
        fields = {f"v3_and_below_{name}": value for name, value in producer.fields.items()}
        return apt.AddPartitionsToTxnRequestData.make(**fields, v3_and_below_topics=named)
    transaction = apt.AddPartitionsToTxnTransaction.make(**producer.fields, topics=named)
    return apt.AddPartitionsToTxnRequestData.make(transactions=[transaction])


def _partitions_of_transactions(ask: Ask, version: int) -> None:
    producer = _producer(ask, f"add-{version}")
    ask("partitions", _adding(producer, version, **{IN_TRANSACTIONS: [0]}), version)
    ask("partitions again", _adding(producer, version, **{IN_TRANSACTIONS: [0]}), version)
    ask("of no topic", _adding(producer, version, **{UNKNOWN: [0]}), version)
    ask("of no partition", _adding(producer, version, **{IN_TRANSACTIONS: [1, 99]}), version)
    for name, other in producer.wrong():
        ask(name, _adding(other, version, **{IN_TRANSACTIONS: [0]}), version)
    if version >= BATCHED_FROM:
        for name, number in (("looked at, in it", 0), ("looked at, not in it", 1)):
            topics = [apt.AddPartitionsToTxnTopic.make(name=IN_TRANSACTIONS, partitions=[number])]
            looked = apt.AddPartitionsToTxnTransaction.make(**producer.fields, topics=topics, verify_only=True)
            ask(name, apt.AddPartitionsToTxnRequestData.make(transactions=[looked]), version)
        ask(producer.name, _adding(producer, 3, **{IN_TRANSACTIONS: [0]}), 3)
    _end(ask, producer)


def _groups_of_transactions(ask: Ask, version: int) -> None:
    producer = _producer(ask, f"add-offsets-{version}")
    ask("a group", AddOffsetsToTxnRequestData.make(**producer.fields, group_id="committed"), version)
    for name, other in producer.wrong():
        ask(name, AddOffsetsToTxnRequestData.make(**other.fields, group_id="committed"), version)
    _end(ask, producer)


def _offsets_of_transactions(ask: Ask, version: int) -> None:
    producer = _producer(ask, f"commit-offsets-{version}")

    def asked(name: str, of: Transactional, topic: str = IN_TRANSACTIONS, **fields: Any) -> None:
        part = toc.TxnOffsetCommitRequestPartition.make(committed_offset=1)
        topics = [toc.TxnOffsetCommitRequestTopic.make(name=topic, partitions=[part])]
        request = toc.TxnOffsetCommitRequestData.make(
            **of.fields, **{"group_id": "in-transactions", "topics": topics, **fields}
        )
        ask(name, request, version)

    if version < EPOCH_TOLD_FROM:
        asked("before the group was added", producer)
        adding = AddOffsetsToTxnRequestData.make(**producer.fields, group_id="in-transactions")
        ask(f"before TxnOffsetCommit {version}", adding, 4)
    asked("offsets", producer)
    asked("to no topic", producer, topic=UNKNOWN)
    asked("to no group", producer, group_id="")
    if version >= 3:
        asked("of a stranger", producer, member_id="stranger", generation_id_or_member_epoch=3)
    for name, other in producer.wrong():
        asked(name, other)
    _end(ask, producer, commits=version % 2 == 0)


def _ends_of_transactions(ask: Ask, version: int) -> None:
    def asked(name: str, of: Transactional, *, commits: bool) -> Any:
        return ask(name, EndTxnRequestData.make(**of.fields, committed=commits), version)

    for ending, commits in (("commit", True), ("abort", False)):
        producer = _producer(ask, f"{ending}-{version}")
        ask(producer.name, _adding(producer, 3, **{IN_TRANSACTIONS: [0]}), 3)
        for name, other in producer.wrong():
            asked(f"{ending} {name}", other, commits=commits)
        asked(ending, producer, commits=commits)
        _ended(ask, producer)
        asked(f"{ending} again", producer, commits=commits)
        asked(f"{ending}, and then the opposite", producer, commits=not commits)
    asked("commit of nothing", _producer(ask, f"commit-nothing-{version}"), commits=True)


def _produce_in_transaction(ask: Ask, version: int) -> None:
    producer = _producer(ask, f"produce-{version}")
    topic_id = id_of(ask, IN_TRANSACTIONS)

    def asked(name: str, of: Transactional, sequence: int) -> None:
        records = batch(
            producer_id=of.producer_id, producer_epoch=of.epoch, base_sequence=sequence, is_transactional=True
        )
        request = _produce_request(IN_TRANSACTIONS, topic_id, records, version=version)
        request.transactional_id = of.name
        ask(name, request, version)

    if version < ADDED_BY_PRODUCE_FROM:
        asked("in a transaction that the partition is not in", producer, 0)
        ask(producer.name, _adding(producer, 3, **{IN_TRANSACTIONS: [0]}), 3)
    asked("in a transaction", producer, 0)
    asked("in a transaction, once more", producer, 0)
    asked("in a transaction, out of order", producer, 10)
    asked("in a transaction, of an epoch that is fenced", producer._replace(epoch=producer.epoch - 1), 0)
    _end(ask, producer, commits=version % 2 == 0)


def _fetch_of_transactions(ask: Ask) -> None:
    """Committed ones and aborted ones."""
    topic_id = id_of(ask, IN_TRANSACTIONS)
    for version in versions(1):
        for name, isolation in (("transactions", 0), ("transactions that are committed", 1)):
            wanted = f.FetchPartition.make(partition=0, partition_max_bytes=1_000_000)
            topics = [f.FetchTopic.make(topic=IN_TRANSACTIONS, topic_id=topic_id, partitions=[wanted])]
            request = f.FetchRequestData.make(
                max_wait_ms=1, max_bytes=10_000_000, topics=topics, session_epoch=-1, isolation_level=isolation
            )
            ask(name, request, version)


def _described_transactions(ask: Ask) -> None:
    producer = _producer(ask, "described")
    for name in ("of no records", "that is open", "that has ended"):
        if name == "that is open":
            ask(producer.name, _adding(producer, 3, **{IN_TRANSACTIONS: [0, 1]}), 3)
        if name == "that has ended":
            _end(ask, producer)
        ask(f"one {name}", DescribeTransactionsRequestData.make(transactional_ids=[producer.name]), 0)
    for name, asked in (("of no transactional id", "no-such-transaction"), ("of an empty transactional id", "")):
        ask(name, DescribeTransactionsRequestData.make(transactional_ids=[asked]), 0)
    for version in versions(66):
        ask("all", ListTransactionsRequestData.make(), version)
        ask("those that are committed", ListTransactionsRequestData.make(state_filters=["CompleteCommit"]), version)
        ask("of no state", ListTransactionsRequestData.make(state_filters=["NoSuchState"]), version)
        ask("of no producer", ListTransactionsRequestData.make(producer_id_filters=[1_000_000_000]), version)
        if version >= 1:
            ask("those that last", ListTransactionsRequestData.make(duration_filter=1_000_000), version)
        if version >= 2:
            for name, pattern in (("by a pattern", "produce-.*"), ("by a pattern that is none", "(")):
                ask(name, ListTransactionsRequestData.make(transactional_id_pattern=pattern), version)
    for name, topic, number in (
        ("of a partition", IN_TRANSACTIONS, 0),
        ("of no partition", IN_TRANSACTIONS, 99),
        ("of no topic", UNKNOWN, 0),
    ):
        topics = [dp.TopicRequest.make(name=topic, partition_indexes=[number])]
        ask(name, dp.DescribeProducersRequestData.make(topics=topics), 0)


def _transaction_markers(ask: Ask) -> None:
    for version in versions(27):
        producer = _producer(ask, f"marked-{version}")
        for name, topic, number in (
            ("to a partition", IN_TRANSACTIONS, 1),
            ("to no partition", IN_TRANSACTIONS, 99),
            ("to no topic", UNKNOWN, 0),
        ):
            marker = wtm.WritableTxnMarker.make(
                producer_id=producer.producer_id,
                producer_epoch=producer.epoch,
                topics=[wtm.WritableTxnMarkerTopic.make(name=topic, partition_indexes=[number])],
            )
            ask(name, wtm.WriteTxnMarkersRequestData.make(markers=[marker]), version)


def _authentication(ask: Ask) -> None:
    """Where nobody authenticates: a PLAINTEXT listener."""
    for version in versions(17):
        ask("a mechanism", SaslHandshakeRequestData.make(mechanism="SCRAM-SHA-256"), version)
    for version in versions(36):
        ask("a first message", SaslAuthenticateRequestData.make(auth_bytes=b"n,,n=golden,r=nonce"), version)
