"""Administration with the Python clients: each is asked on one node, and the cluster (over REST) says what was done."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewPartitions as AioPartitions
from aiokafka.admin import NewTopic as AioTopic
from aiokafka.admin.config_resource import ConfigResource as AioResource
from aiokafka.admin.config_resource import ConfigResourceType as AioResourceType
from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka import KafkaAdminClient, errors
from kafka import TopicPartition as PythonPartition
from kafka.admin import ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern
from kafka.admin import ConfigResource as PythonResource
from kafka.admin import ResourceType as PythonAclResource

from tests.clients.conftest import Kafka
from tests.integration.support.waiting import wait_until

DEADLINE_S = 60
DEADLINE_MS = 1000 * DEADLINE_S


def new_name() -> str:
    return f"admin-{uuid.uuid4().hex[:12]}"


def confluent(kafka: Kafka, node: int = 0) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.servers[node]})


def done(futures: dict[Any, Any]) -> list[Any]:
    return [future.result(DEADLINE_S) for future in futures.values()]


def refused(futures: dict[Any, Any]) -> str:
    (future,) = futures.values()
    with pytest.raises(KafkaException) as caught:
        future.result(DEADLINE_S)
    error = caught.value.args[0]
    assert error.str()
    return str(error.name())


def replicas(kafka: Kafka, topic: str, *, node_id: int = 2) -> dict[int, list[int]] | None:
    """Of each partition, as the REST listener of a node tells it; None when the topic is not there."""
    answer = kafka.cluster.call("GET", f"/topics/{topic}/partitions", node_id=node_id)
    if answer.status == 404:
        return None
    return {each["partition_id"]: each["assignment"] for each in answer.json()["data"]}


def wait_for(kafka: Kafka, topic: str, wanted: dict[int, list[int]] | int | None) -> None:
    """Until each node has the topic so: with these replicas, or with so many partitions; or does not have it. A client
    asks whichever it likes."""

    def is_so(node_id: int) -> bool:
        found = replicas(kafka, topic, node_id=node_id)
        return found is not None and len(found) == wanted if isinstance(wanted, int) else found == wanted

    for node_id in kafka.cluster.ids:
        wait_until(lambda at=node_id: is_so(at), deadline_s=DEADLINE_S, what=f"{topic} with {wanted} at node {node_id}")


def wait_for_all_nodes(kafka: Kafka) -> None:
    """A client asks another broker than the one that has answered its change."""
    kafka.cluster.wait_for_metadata(deadline_s=DEADLINE_S)


# --- confluent-kafka --------------------------------------------------------------------------------------------------


def test_confluent_kafka_creates_grows_and_deletes_topics(kafka: Kafka):
    name, by_hand = new_name(), new_name()
    admin = confluent(kafka)
    topics = [
        NewTopic(name, num_partitions=2, replication_factor=3, config={"retention.ms": "60000"}),
        NewTopic(by_hand, num_partitions=2, replica_assignment=[[2, 1], [3]]),
    ]
    assert refused(admin.create_topics(topics[1:])) == "INVALID_REPLICA_ASSIGNMENT", "two replicas, then one"
    topics[1] = NewTopic(by_hand, num_partitions=2, replica_assignment=[[2, 1], [3, 2]])
    done(admin.create_topics(topics, validate_only=True))
    wait_for(kafka, name, None)
    done(admin.create_topics(topics))
    wait_for(kafka, name, 2)
    wait_for(kafka, by_hand, {0: [2, 1], 1: [3, 2]})
    assert refused(admin.create_topics(topics[:1])) == "TOPIC_ALREADY_EXISTS"
    assert refused(admin.create_topics([NewTopic("a b", 1, 1)])) == "TOPIC_EXCEPTION"
    assert refused(admin.create_topics([NewTopic(new_name(), 1, 9)])) == "INVALID_REPLICATION_FACTOR"
    assert refused(admin.create_topics([NewTopic(new_name(), 1, 1, config={"retention": "1"})])) == "INVALID_CONFIG"
    done(admin.create_partitions([NewPartitions(by_hand, 3, replica_assignment=[[1, 3]])]))
    wait_for(kafka, by_hand, {0: [2, 1], 1: [3, 2], 2: [1, 3]})
    assert refused(admin.create_partitions([NewPartitions(by_hand, 2)])) == "INVALID_PARTITIONS"
    done(admin.delete_topics([name, by_hand]))
    wait_for(kafka, name, None)
    assert refused(admin.delete_topics([name])) == "UNKNOWN_TOPIC_OR_PART"


@pytest.mark.filterwarnings("ignore:alter_configs has been deprecated:DeprecationWarning")
def test_confluent_kafka_describes_and_changes_configs(kafka: Kafka):
    topic = kafka.topic()
    admin = confluent(kafka, 1)

    def described(kind: Any, name: str) -> dict[str, ConfigEntry]:
        (found,) = done(admin.describe_configs([ConfigResource(kind, name)]))
        return found

    before = described(ResourceType.TOPIC, topic)
    assert (before["retention.ms"].value, before["retention.ms"].is_default) == ("604800000", True)
    assert list(before["retention.ms"].synonyms) == ["log.retention.ms"]
    changes = [
        ConfigEntry("retention.ms", "77", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changes)
    done(admin.incremental_alter_configs([resource], validate_only=True))
    assert described(ResourceType.TOPIC, topic)["retention.ms"].value == "604800000"
    done(admin.incremental_alter_configs([resource]))
    wait_for_all_nodes(kafka)
    after = described(ResourceType.TOPIC, topic)
    assert (after["retention.ms"].value, after["cleanup.policy"].value) == ("77", "delete,compact")
    assert not after["retention.ms"].is_default
    done(admin.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config={"flush.ms": "5"})]))
    wait_for_all_nodes(kafka)
    replaced = described(ResourceType.TOPIC, topic)
    assert (replaced["flush.ms"].value, replaced["retention.ms"].value) == ("5", "604800000")
    bad = ConfigResource(ResourceType.TOPIC, topic, set_config={"flush.ms": "soon"})
    assert refused(admin.alter_configs([bad])) == "INVALID_CONFIG"
    broker = described(ResourceType.BROKER, "2")
    assert broker["min.insync.replicas"].value == "2"
    assert broker["socket.request.max.bytes"].is_read_only
    assert refused(admin.describe_configs([ConfigResource(ResourceType.TOPIC, "none")])) == "UNKNOWN_TOPIC_OR_PART"


def test_confluent_kafka_elects_leaders(kafka: Kafka):
    topic = kafka.topic()
    admin = confluent(kafka)
    partition = TopicPartition(topic, 0)
    result = admin.elect_leaders(ElectionType.PREFERRED, [partition]).result(DEADLINE_S)
    assert result[partition].name() == "ELECTION_NOT_NEEDED"
    missing = TopicPartition("none", 0)
    assert admin.elect_leaders(ElectionType.UNCLEAN, [missing]).result(DEADLINE_S)[missing].name() == (
        "UNKNOWN_TOPIC_OR_PART"
    )
    assert admin.elect_leaders(ElectionType.PREFERRED).result(DEADLINE_S) is not None


def test_confluent_kafka_keeps_users_and_is_refused_acls_without_an_authorizer(kafka: Kafka):
    admin = confluent(kafka)
    rule = AclBinding(
        ResourceType.TOPIC, "t", ResourcePatternType.LITERAL, "User:a", "*", AclOperation.READ, AclPermissionType.ALLOW
    )
    assert refused(admin.create_acls([rule])) == "SECURITY_DISABLED"
    mechanism = ScramMechanism.SCRAM_SHA_256
    wanted = UserScramCredentialUpsertion("confluent", ScramCredentialInfo(mechanism, 8192), b"password")
    done(admin.alter_user_scram_credentials([wanted]))
    [described] = done(admin.describe_user_scram_credentials(["confluent"]))
    [credential] = described.scram_credential_infos
    assert (credential.mechanism, credential.iterations) == (mechanism, 8192)
    done(admin.alter_user_scram_credentials([UserScramCredentialDeletion("confluent", mechanism)]))
    assert "confluent" not in admin.describe_user_scram_credentials().result(DEADLINE_S)


# --- kafka-python -----------------------------------------------------------------------------------------------------


@pytest.fixture
def python(kafka: Kafka) -> Any:
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers[2], request_timeout_ms=DEADLINE_MS)
    yield admin
    admin.close()


def test_kafka_python_creates_grows_and_deletes_topics(kafka: Kafka, python: Any):
    name = new_name()
    options = {"num_partitions": 2, "replication_factor": 3, "configs": {"retention.ms": "60000"}}
    python.create_topics({name: options}, validate_only=True)
    wait_for(kafka, name, None)
    python.create_topics({name: options})
    wait_for(kafka, name, 2)
    with pytest.raises(kafka_error("TopicAlreadyExistsError")):
        python.create_topics({name: options})
    python.create_partitions({name: {"count": 3, "assignments": [[3, 1, 2]]}})
    wait_for(kafka, name, 3)
    assert (replicas(kafka, name) or {})[2] == [3, 1, 2]
    topic_id = uuid.UUID(python.describe_topics([name])[0]["topic_id"])
    python.delete_topics([topic_id])
    wait_for(kafka, name, None)
    with pytest.raises(kafka_error("UnknownTopicOrPartitionError")):
        python.delete_topics([name])


def kafka_error(name: str) -> type[Exception]:
    found: type[Exception] = getattr(errors, name)
    return found


def test_kafka_python_describes_and_changes_configs(kafka: Kafka, python: Any):
    topic = kafka.topic()

    def described(kind: str, name: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = python.describe_configs([PythonResource(kind, name)], **options)
        return found[kind.lower()][name]

    assert described("TOPIC", topic) == {}, "nothing is modified"
    python.alter_configs([PythonResource("TOPIC", topic, configs={"retention.ms": "77", "flush.ms": "5"})])
    wait_for_all_nodes(kafka)
    assert sorted(described("TOPIC", topic)) == ["flush.ms", "retention.ms"]
    every = described("TOPIC", topic, config_filter="all", include_synonyms=True)
    assert every["retention.ms"]["value"] in (77, "77")
    python.reset_configs([PythonResource("TOPIC", topic, configs=["retention.ms"])])
    wait_for_all_nodes(kafka)
    assert sorted(described("TOPIC", topic)) == ["flush.ms"]
    broker = described("BROKER", "2", config_filter="all")
    assert broker["min.insync.replicas"]["value"] == "2"
    listed = python.list_config_resources(["TOPIC", "BROKER"])
    assert (topic in listed["topic"], listed["broker"]) == (True, ["1", "2", "3"])


def test_kafka_python_moves_partitions_and_elects_leaders(kafka: Kafka, python: Any):
    name = new_name()
    confluent_admin = confluent(kafka)
    done(confluent_admin.create_topics([NewTopic(name, num_partitions=1, replica_assignment=[[1, 2]])]))
    partition = PythonPartition(name, 0)
    assert set(python.alter_partition_reassignments({partition: [3, 2]}).values()) <= {None, errors.NoError}
    wait_for(kafka, name, {0: [3, 2]})
    wait_until(lambda: not python.list_partition_reassignments(), deadline_s=DEADLINE_S, what="the end of the move")
    (cancelled,) = python.alter_partition_reassignments({partition: None}).values()
    assert cancelled is kafka_error("NoReassignmentInProgressError")
    python.elect_leaders(0, {name: [0]}, raise_errors=False)
    wait_until(lambda: kafka.cluster.leader_of(name) == 3, deadline_s=DEADLINE_S, what="the preferred leader")
    answer = python.elect_leaders(0, {name: [0]})
    assert answer.replica_election_results[0].partition_result[0].error_code == 84


def test_kafka_python_describes_disks_quorum_and_features(kafka: Kafka, python: Any):
    topic = kafka.topic()
    dirs = python.describe_log_dirs({topic: [0]})
    assert len(dirs) == 3
    assert str(dirs).count(topic) == 3
    quorum = python.describe_metadata_quorum()
    partition = quorum["topics"][0]["partitions"][0]
    assert partition["leader_id"] in (1, 2, 3)
    assert sorted(voter["replica_id"] for voter in partition["current_voters"]) == [1, 2, 3]
    features = python.describe_features()
    assert features["metadata.version"]["finalized"] == features["metadata.version"]["supported"]
    assert features["metadata.version"]["finalized_epoch"] >= 0
    with pytest.raises(kafka_error("InvalidUpdateVersionError")):
        python.update_features({"group.version": ("SAFE_DOWNGRADE", 0)}, validate_only=True)


def test_kafka_python_is_refused_acls_without_an_authorizer_and_lists_users(python: Any):
    everything = ACLFilter(
        None, None, ACLOperation.ANY, ACLPermissionType.ANY, ResourcePattern(PythonAclResource.TOPIC, "t")
    )
    with pytest.raises(kafka_error("SecurityDisabledError")):
        python.describe_acls(everything)
    assert isinstance(python.describe_user_scram_credentials(), dict)


# --- aiokafka ---------------------------------------------------------------------------------------------------------


def with_aiokafka(kafka: Kafka, test: Callable[[AIOKafkaAdminClient], Awaitable[None]]) -> None:
    async def main() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers[1])
        await admin.start()
        try:
            await test(admin)
        finally:
            await admin.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


def test_aiokafka_creates_grows_and_deletes_topics(kafka: Kafka):
    name = new_name()

    async def test(admin: AIOKafkaAdminClient) -> None:
        topic = AioTopic(name, num_partitions=2, replication_factor=3, topic_configs={"retention.ms": "60000"})
        created = await admin.create_topics([topic])
        assert [(each[0], each[1]) for each in created.topic_errors] == [(name, 0)]
        again = await admin.create_topics([topic])
        assert [each[1] for each in again.topic_errors] == [36]
        assert again.topic_errors[0][2], "a message says why"
        grown = await admin.create_partitions({name: AioPartitions(total_count=3, new_assignments=[[3, 1, 2]])})
        assert [each[1] for each in grown.topic_errors] == [0]
        await asyncio.to_thread(wait_for, kafka, name, 3)
        assert (replicas(kafka, name) or {})[2] == [3, 1, 2]
        deleted = await admin.delete_topics([name])
        assert [each[1] for each in deleted.topic_error_codes] == [0]
        missing = await admin.delete_topics([name])
        assert [each[1] for each in missing.topic_error_codes] == [3]

    with_aiokafka(kafka, test)
    wait_for(kafka, name, None)


def test_aiokafka_describes_and_replaces_configs(kafka: Kafka):
    topic = kafka.topic()

    async def test(admin: AIOKafkaAdminClient) -> None:
        async def described() -> dict[str, str]:
            [answer] = await admin.describe_configs([AioResource(AioResourceType.TOPIC, topic)])
            [(code, _, _, _, configs)] = answer.resources
            assert code == 0
            return {config[0]: config[1] for config in configs}

        assert (await described())["retention.ms"] == "604800000"
        wanted = AioResource(AioResourceType.TOPIC, topic, configs={"retention.ms": "77"})
        for answer in await admin.alter_configs([wanted]):
            assert [resource[0] for resource in answer.resources] == [0]
        await asyncio.to_thread(wait_for_all_nodes, kafka)
        assert (await described())["retention.ms"] == "77"
        wanted = AioResource(AioResourceType.TOPIC, topic, configs={"flush.ms": "5"})
        await admin.alter_configs([wanted])
        await asyncio.to_thread(wait_for_all_nodes, kafka)
        now = await described()
        assert (now["retention.ms"], now["flush.ms"]) == ("604800000", "5")

    with_aiokafka(kafka, test)
