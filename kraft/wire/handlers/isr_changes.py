"""AlterPartition (56, KIP-497): a leader changes its ISR, and learns what the controller committed."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol.messages.alter_partition_request import AlterPartitionRequestData
from kraft.protocol.messages.alter_partition_response import AlterPartitionResponseData, PartitionData, TopicData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.grouping import by_topic
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import RECOVERED, RECOVERING
from metadata.controller.requests import AlterPartition, ErrorDetail, IsrMember, PartitionAlteration
from metadata.image import PartitionImage
from metadata.records import LeaderRecovery


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    return (
        ApiHandler(
            request=AlterPartitionRequestData,
            response=AlterPartitionResponseData,
            handle=_IsrChanges(parts).alter,
            refuse=lambda message, version, error: AlterPartitionResponseData.make(error_code=error.code),
        ),
    )


class _IsrChanges:
    def __init__(self, parts: NodeParts) -> None:
        self._control = Control(parts)

    async def alter(self, call: Call[AlterPartitionRequestData]) -> AlterPartitionResponseData:
        outcomes = await self._control.ask(call, _alteration(call.message))
        return AlterPartitionResponseData.make(
            error_code=0,
            topics=[
                TopicData.make(topic_id=topic_id, partitions=[_altered(key.partition, outcomes[key]) for key in keys])
                for topic_id, keys in by_topic(tuple(outcomes))
            ],
        )


def _alteration(message: AlterPartitionRequestData) -> AlterPartition:
    return AlterPartition(
        broker_id=message.broker_id,
        broker_epoch=message.broker_epoch,
        alterations=tuple(
            PartitionAlteration(
                topic_id=topic.topic_id,
                partition=item.partition_index,
                leader_epoch=item.leader_epoch,
                partition_epoch=item.partition_epoch,
                new_isr=tuple(
                    IsrMember(broker_id=member.broker_id, broker_epoch=member.broker_epoch)
                    for member in item.new_isr_with_epochs
                ),
                recovered=item.leader_recovery_state == RECOVERED,
            )
            for topic in message.topics
            for item in topic.partitions
        ),
    )


def _altered(partition: int, outcome: PartitionImage | ErrorDetail) -> PartitionData:
    if isinstance(outcome, ErrorDetail):
        return PartitionData.make(
            partition_index=partition,
            error_code=outcome.error.code,
            leader_id=-1,
            leader_epoch=-1,
            partition_epoch=-1,
            error_message=outcome.message,
        )
    return PartitionData.make(
        partition_index=partition,
        error_code=0,
        leader_id=outcome.leader,
        leader_epoch=outcome.leader_epoch,
        isr=outcome.isr,
        leader_recovery_state=RECOVERED if outcome.leader_recovery is LeaderRecovery.RECOVERED else RECOVERING,
        partition_epoch=outcome.partition_epoch,
        replicas=outcome.replicas,
        adding_replicas=outcome.adding_replicas,
        removing_replicas=outcome.removing_replicas,
        unclean="" if outcome.unclean is None else outcome.unclean.model_dump_json(),
    )
