"""BrokerRegistration (62), BrokerHeartbeat (63), UnregisterBroker (64) and AllocateProducerIds (67).

A broker's two listeners for nodes are the endpoints `REST` and `KAFKA` of its registration; beside them are the
addresses that Kafka clients are told, by the names of the listeners.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import InvalidRequest
from kraft.protocol.messages.allocate_producer_ids_request import AllocateProducerIdsRequestData
from kraft.protocol.messages.allocate_producer_ids_response import AllocateProducerIdsResponseData
from kraft.protocol.messages.broker_heartbeat_request import BrokerHeartbeatRequestData, FailedTopic
from kraft.protocol.messages.broker_heartbeat_response import BrokerHeartbeatResponseData
from kraft.protocol.messages.broker_heartbeat_response import OfflineReplicas as OfflineReplicasOfTopic
from kraft.protocol.messages.broker_registration_request import BrokerRegistrationRequestData, Listener
from kraft.protocol.messages.broker_registration_response import BrokerRegistrationResponseData
from kraft.protocol.messages.unregister_broker_request import UnregisterBrokerRequestData
from kraft.protocol.messages.unregister_broker_response import UnregisterBrokerResponseData
from kraft.wire.messages.common import ServedRpc
from metadata.controller.requests import (
    FAILED_REPLICAS_REPORTED_MAX,
    NO_FAILED_REPLICAS,
    AllocateProducerIds,
    BrokerHeartbeat,
    BrokerRegistered,
    FailedReplicas,
    HeartbeatAnswer,
    OfflineReplicas,
    ProducerIdBlock,
    RegisterBroker,
    UnregisterBroker,
)
from metadata.image import TopicIdPartition

REST = "REST"
KAFKA = "KAFKA"
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


def _registration(message: BrokerRegistrationRequestData) -> RegisterBroker:
    addresses = {listener.name: f"{listener.host}:{listener.port}" for listener in message.listeners}
    if REST not in addresses or KAFKA not in addresses or message.incarnation_id == ZERO_UUID:
        raise InvalidRequest(f"a broker registers the listeners {REST} and {KAFKA} and an incarnation id")
    return RegisterBroker(
        cluster_id=message.cluster_id,
        broker_id=message.broker_id,
        incarnation_id=message.incarnation_id,
        rest=addresses[REST],
        kafka=addresses[KAFKA],
        rack=message.rack,
        listeners={name: address for name, address in addresses.items() if name not in (REST, KAFKA)},
    )


def _registration_reply(request: RegisterBroker, reply: BrokerRegistered) -> BrokerRegistrationResponseData:
    response = BrokerRegistrationResponseData.make
    return response(error_code=0, broker_epoch=reply.broker_epoch)


def _registration_refused(message: BrokerRegistrationRequestData, code: int) -> BrokerRegistrationResponseData:
    response = BrokerRegistrationResponseData.make
    return response(error_code=code)


REGISTRATION: ServedRpc[
    RegisterBroker,
    BrokerRegistered,
    BrokerRegistrationRequestData,
    BrokerRegistrationResponseData,
] = ServedRpc(
    api=apis.BROKER_REGISTRATION,
    response=BrokerRegistrationResponseData,
    to_request=_registration_request,
    from_request=_registration,
    to_reply=_registration_reply,
    from_reply=lambda request, message: BrokerRegistered(broker_epoch=message.broker_epoch),
    refuse=_registration_refused,
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


def _heartbeat(message: BrokerHeartbeatRequestData) -> BrokerHeartbeat:
    return BrokerHeartbeat(
        broker_id=message.broker_id,
        broker_epoch=message.broker_epoch,
        metadata_offset=message.current_metadata_offset,
        wants_fence=message.want_fence,
        wants_shutdown=message.want_shut_down,
        failed=_failed_replicas(message.failed_topics),
        wants_proof=message.wants_proof,
    )


def _failed_replicas(topics: Sequence[FailedTopic]) -> FailedReplicas:
    if not topics:
        return NO_FAILED_REPLICAS
    failed = FailedReplicas(
        offline=frozenset(TopicIdPartition(topic.topic_id, index) for topic in topics for index in topic.offline),
        read_only=frozenset(TopicIdPartition(topic.topic_id, index) for topic in topics for index in topic.read_only),
    )
    if len(failed) > FAILED_REPLICAS_REPORTED_MAX:
        raise InvalidRequest(f"a heartbeat names at most {FAILED_REPLICAS_REPORTED_MAX} failed replicas")
    return failed


def _heartbeat_reply(request: BrokerHeartbeat, reply: HeartbeatAnswer) -> BrokerHeartbeatResponseData:
    return BrokerHeartbeatResponseData.make(
        error_code=0,
        is_caught_up=reply.is_caught_up,
        is_fenced=reply.is_fenced,
        should_shut_down=reply.should_shut_down,
        metadata_offset=reply.metadata_offset,
        offline_replicas=[
            OfflineReplicasOfTopic.make(broker_id=broker_id, topic_id=topic_id, partitions=sorted(partitions))
            for broker_id, offline in sorted(reply.offline.items())
            for topic_id, partitions in sorted(_by_topic(offline).items())
        ],
    )


def _heartbeat_answer(request: BrokerHeartbeat, message: BrokerHeartbeatResponseData) -> HeartbeatAnswer:
    return HeartbeatAnswer(
        is_caught_up=message.is_caught_up,
        is_fenced=message.is_fenced,
        should_shut_down=message.should_shut_down,
        metadata_offset=message.metadata_offset,
        offline=_offline_replicas(message.offline_replicas) if message.offline_replicas else {},
    )


def _offline_replicas(told: Sequence[OfflineReplicasOfTopic]) -> OfflineReplicas:
    found: dict[int, set[TopicIdPartition]] = {}
    for each in told:
        found.setdefault(each.broker_id, set()).update(TopicIdPartition(each.topic_id, at) for at in each.partitions)
    return {broker_id: frozenset(offline) for broker_id, offline in found.items()}


def _heartbeat_refused(message: BrokerHeartbeatRequestData, code: int) -> BrokerHeartbeatResponseData:
    return BrokerHeartbeatResponseData.make(error_code=code, should_shut_down=False)


HEARTBEAT: ServedRpc[
    BrokerHeartbeat,
    HeartbeatAnswer,
    BrokerHeartbeatRequestData,
    BrokerHeartbeatResponseData,
] = ServedRpc(
    api=apis.BROKER_HEARTBEAT,
    response=BrokerHeartbeatResponseData,
    to_request=_heartbeat_request,
    from_request=_heartbeat,
    to_reply=_heartbeat_reply,
    from_reply=_heartbeat_answer,
    refuse=_heartbeat_refused,
)


# --- AllocateProducerIds ------------------------------------------------------------------------------------------


def _allocate_request(request: AllocateProducerIds, timeout_ms: int) -> AllocateProducerIdsRequestData:
    return AllocateProducerIdsRequestData.make(broker_id=request.broker_id, broker_epoch=request.broker_epoch)


def _allocated(code: int, *, first: int, count: int) -> AllocateProducerIdsResponseData:
    return AllocateProducerIdsResponseData.make(
        error_code=code,
        producer_id_start=first,
        producer_id_len=count,
    )


PRODUCER_IDS: ServedRpc[
    AllocateProducerIds,
    ProducerIdBlock,
    AllocateProducerIdsRequestData,
    AllocateProducerIdsResponseData,
] = ServedRpc(
    api=apis.ALLOCATE_PRODUCER_IDS,
    response=AllocateProducerIdsResponseData,
    to_request=_allocate_request,
    from_request=lambda message: AllocateProducerIds(broker_id=message.broker_id, broker_epoch=message.broker_epoch),
    to_reply=lambda request, reply: _allocated(0, first=reply.first, count=reply.count),
    from_reply=lambda request, message: ProducerIdBlock(first=message.producer_id_start, count=message.producer_id_len),
    refuse=lambda message, code: _allocated(code, first=-1, count=0),
)


# --- UnregisterBroker ---------------------------------------------------------------------------------------------

UNREGISTRATION: ServedRpc[UnregisterBroker, None, UnregisterBrokerRequestData, UnregisterBrokerResponseData] = (
    ServedRpc(
        api=apis.UNREGISTER_BROKER,
        response=UnregisterBrokerResponseData,
        to_request=lambda request, timeout_ms: UnregisterBrokerRequestData.make(broker_id=request.broker_id),
        from_request=lambda message: UnregisterBroker(broker_id=message.broker_id),
        to_reply=lambda request, reply: UnregisterBrokerResponseData.make(error_message=None),
        from_reply=lambda request, message: None,
        refuse=lambda message, code: UnregisterBrokerResponseData.make(error_code=code),
    )
)
