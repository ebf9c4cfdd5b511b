"""ElectLeaders (43, KIP-460), AlterPartitionReassignments (45, KIP-455, KIP-860), ListPartitionReassignments (46).

The active controller decides. Reassignments in progress are listed from the image of this node, which already has the
changes that it asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from kraft.broker.gateway import Gateway
from kraft.protocol.errors import InvalidRequest, KafkaError
from kraft.protocol.messages.alter_partition_reassignments_request import AlterPartitionReassignmentsRequestData
from kraft.protocol.messages.alter_partition_reassignments_response import (
    AlterPartitionReassignmentsResponseData,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from kraft.protocol.messages.elect_leaders_request import ElectLeadersRequestData
from kraft.protocol.messages.elect_leaders_response import (
    ElectLeadersResponseData,
    PartitionResult,
    ReplicaElectionResult,
)
from kraft.protocol.messages.list_partition_reassignments_request import ListPartitionReassignmentsRequestData
from kraft.protocol.messages.list_partition_reassignments_response import (
    ListPartitionReassignmentsResponseData,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.error_details import detail_code, detail_message
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import PREFERRED, UNCLEAN
from metadata.controller.requests import AlterReassignments, ElectLeaders, PartitionReassignment
from metadata.image import PartitionImage, TopicImage


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    handlers = _Partitions(parts)
    return (
        ApiHandler(
            request=ElectLeadersRequestData,
            response=ElectLeadersResponseData,
            handle=handlers.elect,
            refuse=_refuse_elections,
        ),
        ApiHandler(
            request=AlterPartitionReassignmentsRequestData,
            response=AlterPartitionReassignmentsResponseData,
            handle=handlers.reassign,
            refuse=_refuse_reassignments,
        ),
        ApiHandler(
            request=ListPartitionReassignmentsRequestData,
            response=ListPartitionReassignmentsResponseData,
            handle=handlers.list_reassignments,
            refuse=lambda message, version, error: ListPartitionReassignmentsResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
    )


class _Partitions:
    def __init__(self, parts: NodeParts) -> None:
        self._gateway: Gateway = parts.gateway
        self._control = Control(parts)

    async def elect(self, call: Call[ElectLeadersRequestData]) -> ElectLeadersResponseData:
        """ElectLeaders. When the request names no partitions (null), those that need no election are left out, but no
        topic is, as in Kafka."""
        asked = call.message.topic_partitions
        request = _election(call.message)
        outcomes = await self._control.ask(call, request, timeout_ms=call.message.timeout_ms)
        topics = self._gateway.image.topics_by_name if asked is None else (topic.topic for topic in asked)
        partitions: dict[str, list[PartitionResult]] = {name: [] for name in topics}
        for (name, partition), detail in outcomes.items():
            result = PartitionResult.make(
                partition_id=partition, error_code=detail_code(detail), error_message=detail_message(detail)
            )
            partitions.setdefault(name, []).append(result)
        return ElectLeadersResponseData.make(
            replica_election_results=[
                ReplicaElectionResult.make(topic=name, partition_result=results) for name, results in partitions.items()
            ]
        )

    async def reassign(
        self, call: Call[AlterPartitionReassignmentsRequestData]
    ) -> AlterPartitionReassignmentsResponseData:
        message = call.message
        request = AlterReassignments(
            reassignments=tuple(
                PartitionReassignment(
                    topic=topic.name,
                    partition=item.partition_index,
                    replicas=None if item.replicas is None else tuple(item.replicas),
                )
                for topic in message.topics
                for item in topic.partitions
            ),
            allow_replication_factor_change=message.allow_replication_factor_change,
        )
        outcomes = await self._control.ask(call, request, timeout_ms=message.timeout_ms)
        return AlterPartitionReassignmentsResponseData.make(
            allow_replication_factor_change=message.allow_replication_factor_change,
            error_message=None,
            responses=[
                ReassignableTopicResponse.make(
                    name=topic.name,
                    partitions=[
                        ReassignablePartitionResponse.make(
                            partition_index=item.partition_index,
                            error_code=detail_code(outcomes[topic.name, item.partition_index]),
                            error_message=detail_message(outcomes[topic.name, item.partition_index]),
                        )
                        for item in topic.partitions
                    ],
                )
                for topic in message.topics
            ],
        )

    def list_reassignments(
        self, call: Call[ListPartitionReassignmentsRequestData]
    ) -> ListPartitionReassignmentsResponseData:
        """Null asks for all; topics and partitions that do not exist or do not move are left out."""
        image, asked = self._gateway.image, call.message.topics
        if asked is None:
            topics = [_ongoing(topic, topic.partitions) for topic in image.topics_by_name.values()]
        else:
            found = [(image.topic(item.name), item.partition_indexes) for item in asked]
            topics = [_ongoing(topic, partitions) for topic, partitions in found if topic is not None]
        return ListPartitionReassignmentsResponseData.make(
            error_message=None, topics=[topic for topic in topics if topic.partitions]
        )


def _election(message: ElectLeadersRequestData) -> ElectLeaders:
    """Raises InvalidRequest 42 for a type of election that Kafka does not have."""
    elections: Mapping[int, Literal["preferred", "unclean"]] = {PREFERRED: "preferred", UNCLEAN: "unclean"}
    if message.election_type not in elections:
        raise InvalidRequest(f"election type {message.election_type}; 0 (preferred) and 1 (unclean) exist")
    asked = message.topic_partitions
    partitions = None if asked is None else tuple((topic.topic, each) for topic in asked for each in topic.partitions)
    return ElectLeaders(election=elections[message.election_type], partitions=partitions)


def _ongoing(topic: TopicImage, partitions: Iterable[int]) -> OngoingTopicReassignment:
    images = (topic.partitions.get(index) for index in partitions)
    moving: list[PartitionImage] = [image for image in images if image is not None and image.is_reassigning]
    return OngoingTopicReassignment.make(
        name=topic.name,
        partitions=[
            OngoingPartitionReassignment.make(
                partition_index=image.partition,
                replicas=image.replicas,
                adding_replicas=image.adding_replicas,
                removing_replicas=image.removing_replicas,
            )
            for image in moving
        ],
    )


def _refuse_elections(message: ElectLeadersRequestData, version: int, error: KafkaError) -> ElectLeadersResponseData:
    return ElectLeadersResponseData.make(
        error_code=error.code,
        replica_election_results=[
            ReplicaElectionResult.make(
                topic=topic.topic,
                partition_result=[
                    PartitionResult.make(partition_id=partition, error_code=error.code, error_message=error.message)
                    for partition in topic.partitions
                ],
            )
            for topic in message.topic_partitions or ()
        ],
    )


def _refuse_reassignments(
    message: AlterPartitionReassignmentsRequestData, version: int, error: KafkaError
) -> AlterPartitionReassignmentsResponseData:
    return AlterPartitionReassignmentsResponseData.make(
        error_code=error.code,
        error_message=error.message,
        responses=[
            ReassignableTopicResponse.make(
                name=topic.name,
                partitions=[
                    ReassignablePartitionResponse.make(
                        partition_index=item.partition_index, error_code=error.code, error_message=error.message
                    )
                    for item in topic.partitions
                ],
            )
            for topic in message.topics
        ],
    )
