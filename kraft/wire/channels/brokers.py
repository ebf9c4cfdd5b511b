"""BrokerRegistration (62), BrokerHeartbeat (63), UnregisterBroker (64), AllocateProducerIds (67), DescribeQuorum (55),
as nodes ask them of the active controller."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.messages import describe_quorum_request
from kraft.protocol.messages.allocate_producer_ids_request import AllocateProducerIdsRequestData
from kraft.protocol.messages.allocate_producer_ids_response import AllocateProducerIdsResponseData
from kraft.protocol.messages.broker_heartbeat_request import BrokerHeartbeatRequestData, FailedTopic
from kraft.protocol.messages.broker_heartbeat_response import BrokerHeartbeatResponseData
from kraft.protocol.messages.broker_heartbeat_response import OfflineReplicas as OfflineReplicasOfTopic
from kraft.protocol.messages.broker_registration_request import BrokerRegistrationRequestData, Listener
from kraft.protocol.messages.broker_registration_response import BrokerRegistrationResponseData
from kraft.protocol.messages.describe_quorum_request import DescribeQuorumRequestData
from kraft.protocol.messages.describe_quorum_response import DescribeQuorumResponseData
from kraft.protocol.messages.unregister_broker_request import UnregisterBrokerRequestData
from kraft.protocol.messages.unregister_broker_response import UnregisterBrokerResponseData
from kraft.wire.rpc import Rpc
from kraft.wire.terms import KAFKA, REST
from metadata.controller.requests import (
    AllocateProducerIds,
    BrokerHeartbeat,
    BrokerRegistered,
    DescribeQuorum,
    FailedReplicas,
    HeartbeatAnswer,
    NodeProgress,
    OfflineReplicas,
    ProducerIdBlock,
    QuorumProgress,
    RegisterBroker,
    UnregisterBroker,
)
from metadata.image import TopicIdPartition
from metadata.internal_topics import METADATA_TOPIC

SASL_PLAINTEXT = 2
PLAINTEXT = 0


# --- BrokerRegistration -------------------------------------------------------------------------------------------


def _registration_request(request: RegisterBroker, timeout_ms: int) -> BrokerRegistrationRequestData:
    return BrokerRegistrationRequestData.make(
        broker_id=request.broker_id,
        cluster_id=request.cluster_id,
        incarnation_id=request.incarnation_id,
        listeners=(
            _listener(REST, request.rest, PLAINTEXT),
            _listener(KAFKA, request.kafka, SASL_PLAINTEXT),
            *(_listener(name, address, PLAINTEXT) for name, address in request.listeners.items()),
        ),
        features=(),
        rack=request.rack,
    )


def _listener(name: str, address: str, security_protocol: int) -> Listener:
    host, _, port = address.rpartition(":")
    return Listener.make(name=name, host=host, port=int(port), security_protocol=security_protocol)


REGISTRATION: Rpc[
    RegisterBroker,
    BrokerRegistered,
    BrokerRegistrationRequestData,
    BrokerRegistrationResponseData,
] = Rpc(
    api=apis.BROKER_REGISTRATION,
    response=BrokerRegistrationResponseData,
    to_request=_registration_request,
    from_reply=lambda request, message: BrokerRegistered(broker_epoch=message.broker_epoch),
)


# --- BrokerHeartbeat ----------------------------------------------------------------------------------------------


def _heartbeat_request(request: BrokerHeartbeat, timeout_ms: int) -> BrokerHeartbeatRequestData:
    return BrokerHeartbeatRequestData.make(
        broker_id=request.broker_id,
        broker_epoch=request.broker_epoch,
        current_metadata_offset=request.metadata_offset,
        want_fence=request.wants_fence,
        want_shut_down=request.wants_shutdown,
        failed_topics=_failed_topics(request.failed),
        wants_proof=request.wants_proof,
    )


def _failed_topics(failed: FailedReplicas) -> Sequence[FailedTopic]:
    if not len(failed):
        return ()
    offline, read_only = _by_topic(failed.offline), _by_topic(failed.read_only)
    return tuple(
        FailedTopic.make(
            topic_id=topic_id,
            offline=tuple(sorted(offline.get(topic_id, ()))),
            read_only=tuple(sorted(read_only.get(topic_id, ()))),
        )
        for topic_id in sorted(offline.keys() | read_only.keys())
    )


def _by_topic(keys: frozenset[TopicIdPartition]) -> dict[UUID, list[int]]:
    found: dict[UUID, list[int]] = {}
    for key in keys:
        found.setdefault(key.topic_id, []).append(key.partition)
    return found


def _heartbeat_answer(request: BrokerHeartbeat, message: BrokerHeartbeatResponseData) -> HeartbeatAnswer:
    return HeartbeatAnswer(
        is_caught_up=message.is_caught_up,
        is_fenced=message.is_fenced,
        should_shut_down=message.should_shut_down,
        metadata_offset=message.metadata_offset,
        offline=_offline_replicas(message.offline_replicas) if message.offline_replicas else {},
    )


def _offline_replicas(topics: Sequence[OfflineReplicasOfTopic]) -> OfflineReplicas:
    found: dict[int, set[TopicIdPartition]] = {}
    for each in topics:
        found.setdefault(each.broker_id, set()).update(TopicIdPartition(each.topic_id, at) for at in each.partitions)
    return {broker_id: frozenset(offline) for broker_id, offline in found.items()}


HEARTBEAT: Rpc[
    BrokerHeartbeat,
    HeartbeatAnswer,
    BrokerHeartbeatRequestData,
    BrokerHeartbeatResponseData,
] = Rpc(
    api=apis.BROKER_HEARTBEAT,
    response=BrokerHeartbeatResponseData,
    to_request=_heartbeat_request,
    from_reply=_heartbeat_answer,
)


# --- AllocateProducerIds ------------------------------------------------------------------------------------------


def _allocate_request(request: AllocateProducerIds, timeout_ms: int) -> AllocateProducerIdsRequestData:
    return AllocateProducerIdsRequestData.make(broker_id=request.broker_id, broker_epoch=request.broker_epoch)


PRODUCER_IDS: Rpc[
    AllocateProducerIds,
    ProducerIdBlock,
    AllocateProducerIdsRequestData,
    AllocateProducerIdsResponseData,
] = Rpc(
    api=apis.ALLOCATE_PRODUCER_IDS,
    response=AllocateProducerIdsResponseData,
    to_request=_allocate_request,
    from_reply=lambda request, message: ProducerIdBlock(first=message.producer_id_start, count=message.producer_id_len),
)


# --- UnregisterBroker ---------------------------------------------------------------------------------------------

UNREGISTRATION: Rpc[UnregisterBroker, None, UnregisterBrokerRequestData, UnregisterBrokerResponseData] = Rpc(
    api=apis.UNREGISTER_BROKER,
    response=UnregisterBrokerResponseData,
    to_request=lambda request, timeout_ms: UnregisterBrokerRequestData.make(broker_id=request.broker_id),
    from_reply=lambda request, message: None,
)


def _quorum_request(request: DescribeQuorum, timeout_ms: int) -> DescribeQuorumRequestData:
    partition = describe_quorum_request.PartitionData.make(partition_index=0)
    topic = describe_quorum_request.TopicData.make(topic_name=METADATA_TOPIC, partitions=[partition])
    return DescribeQuorumRequestData.make(topics=[topic])


# --- DescribeQuorum -----------------------------------------------------------------------------------------------


def _progress(request: DescribeQuorum, message: DescribeQuorumResponseData) -> QuorumProgress:
    """Clocks of nodes differ, so times become ages: the leader has caught up at the moment of its answer."""
    partition = message.topics[0].partitions[0]
    replicas = sorted((*partition.current_voters, *partition.observers), key=lambda each: each.replica_id)
    now_ms = next(each.last_caught_up_timestamp for each in replicas if each.replica_id == partition.leader_id)
    return QuorumProgress(
        leader_id=partition.leader_id,
        leader_epoch=partition.leader_epoch,
        high_watermark=partition.high_watermark,
        nodes=tuple(
            NodeProgress(
                node_id=each.replica_id,
                log_end_offset=each.log_end_offset,
                heard_ms_ago=_age_ms(now_ms, each.last_fetch_timestamp),
                caught_up_ms_ago=_age_ms(now_ms, each.last_caught_up_timestamp),
            )
            for each in replicas
        ),
    )


def _age_ms(now_ms: int, moment_ms: int) -> int:
    return -1 if moment_ms < 0 else now_ms - moment_ms


DESCRIPTION: Rpc[DescribeQuorum, QuorumProgress, DescribeQuorumRequestData, DescribeQuorumResponseData] = Rpc(
    api=apis.DESCRIBE_QUORUM,
    response=DescribeQuorumResponseData,
    to_request=_quorum_request,
    from_reply=_progress,
)
