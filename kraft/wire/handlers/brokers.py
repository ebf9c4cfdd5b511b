"""What a broker asks the active controller: BrokerRegistration (62), BrokerHeartbeat (63), AllocateProducerIds (67).

A broker's two listeners for nodes are the endpoints `REST` and `KAFKA` of its registration; beside them are the
addresses that Kafka clients get, by the names of the listeners.
"""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import InvalidRequest
from kraft.protocol.messages.allocate_producer_ids_request import AllocateProducerIdsRequestData
from kraft.protocol.messages.allocate_producer_ids_response import AllocateProducerIdsResponseData
from kraft.protocol.messages.broker_heartbeat_request import BrokerHeartbeatRequestData, FailedTopic
from kraft.protocol.messages.broker_heartbeat_response import BrokerHeartbeatResponseData, OfflineReplicas
from kraft.protocol.messages.broker_registration_request import BrokerRegistrationRequestData
from kraft.protocol.messages.broker_registration_response import BrokerRegistrationResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.grouping import by_topic
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import KAFKA, REST
from metadata.controller.requests import (
    FAILED_REPLICAS_REPORTED_MAX,
    NO_FAILED_REPLICAS,
    AllocateProducerIds,
    BrokerHeartbeat,
    FailedReplicas,
    RegisterBroker,
)
from metadata.image import TopicIdPartition


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    handlers = _Brokers(parts)
    return (
        ApiHandler(
            request=BrokerRegistrationRequestData,
            response=BrokerRegistrationResponseData,
            handle=handlers.register,
            refuse=lambda message, version, error: BrokerRegistrationResponseData.make(error_code=error.code),
        ),
        ApiHandler(
            request=BrokerHeartbeatRequestData,
            response=BrokerHeartbeatResponseData,
            handle=handlers.heartbeat,
            refuse=lambda message, version, error: BrokerHeartbeatResponseData.make(
                error_code=error.code, should_shut_down=False
            ),
        ),
        ApiHandler(
            request=AllocateProducerIdsRequestData,
            response=AllocateProducerIdsResponseData,
            handle=handlers.allocate,
            refuse=lambda message, version, error: AllocateProducerIdsResponseData.make(
                error_code=error.code, producer_id_start=-1, producer_id_len=0
            ),
        ),
    )


class _Brokers:
    def __init__(self, parts: NodeParts) -> None:
        self._control = Control(parts)

    async def register(self, call: Call[BrokerRegistrationRequestData]) -> BrokerRegistrationResponseData:
        registered = await self._control.ask(call, _registration(call.message))
        return BrokerRegistrationResponseData.make(error_code=0, broker_epoch=registered.broker_epoch)

    async def heartbeat(self, call: Call[BrokerHeartbeatRequestData]) -> BrokerHeartbeatResponseData:
        message = call.message
        request = BrokerHeartbeat(
            broker_id=message.broker_id,
            broker_epoch=message.broker_epoch,
            metadata_offset=message.current_metadata_offset,
            wants_fence=message.want_fence,
            wants_shutdown=message.want_shut_down,
            failed=_failed_replicas(message.failed_topics),
            wants_proof=message.wants_proof,
        )
        answer = await self._control.ask(call, request)
        return BrokerHeartbeatResponseData.make(
            error_code=0,
            is_caught_up=answer.is_caught_up,
            is_fenced=answer.is_fenced,
            should_shut_down=answer.should_shut_down,
            metadata_offset=answer.metadata_offset,
            offline_replicas=[
                OfflineReplicas.make(
                    broker_id=broker_id, topic_id=topic_id, partitions=[each.partition for each in partitions]
                )
                for broker_id, offline in sorted(answer.offline.items())
                for topic_id, partitions in by_topic(sorted(offline))
            ],
        )

    async def allocate(self, call: Call[AllocateProducerIdsRequestData]) -> AllocateProducerIdsResponseData:
        request = AllocateProducerIds(broker_id=call.message.broker_id, broker_epoch=call.message.broker_epoch)
        block = await self._control.ask(call, request)
        return AllocateProducerIdsResponseData.make(
            error_code=0, producer_id_start=block.first, producer_id_len=block.count
        )


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
