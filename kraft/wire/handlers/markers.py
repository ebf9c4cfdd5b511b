"""WriteTxnMarkers (27): a coordinator ends its transactions at the leaders of their partitions, an operator one that
hangs.

Kafka lets through who may alter the cluster. A marker that ends nothing is harmless; one of an older coordinator epoch
than the partition has seen is refused. Source: KIP-664; KafkaApis.handleWriteTxnMarkersRequest.
"""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import KafkaError, NotCoordinator, for_code
from kraft.protocol.messages.write_txn_markers_request import WriteTxnMarkersRequestData
from kraft.protocol.messages.write_txn_markers_response import (
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponseData,
)
from kraft.protocol.transactions import Codes, MarkersToWrite
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.grouping import by_name
from kraft.wire.node_parts import NodeParts


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    async def write(call: Call[WriteTxnMarkersRequestData]) -> WriteTxnMarkersResponseData:
        markers = _markers(call.message)
        reply = await broker.broker_or(NotCoordinator).markers.write(markers)
        if not call.is_from_node:
            names = [f"{topic}-{number}" for each in markers for topic, number in sorted(each.partitions)]
            errors = [for_code(code).name for codes in reply for code in codes.values() if code]
            broker.gateway.note_change(call.principal, "WriteTxnMarkers", names, errors)
        return _response(markers, reply)

    return [
        ApiHandler(
            request=WriteTxnMarkersRequestData, response=WriteTxnMarkersResponseData, handle=write, refuse=_refused
        )
    ]


def _markers(message: WriteTxnMarkersRequestData) -> Sequence[MarkersToWrite]:
    return [
        MarkersToWrite(
            each.producer_id,
            each.producer_epoch,
            Marker(each.transaction_result, each.coordinator_epoch),
            frozenset([(topic.name, number) for topic in each.topics for number in topic.partition_indexes]),
            each.transaction_version,
        )
        for each in message.markers
    ]


def _response(request: Sequence[MarkersToWrite], reply: Sequence[Codes]) -> WriteTxnMarkersResponseData:
    return WriteTxnMarkersResponseData.make(
        markers=[
            WritableTxnMarkerResult.make(
                producer_id=asked.producer_id,
                topics=[
                    WritableTxnMarkerTopicResult.make(
                        name=topic,
                        partitions=[
                            WritableTxnMarkerPartitionResult.make(
                                partition_index=number, error_code=codes[topic, number]
                            )
                            for number in numbers
                        ],
                    )
                    for topic, numbers in by_name(codes).items()
                ],
            )
            for asked, codes in zip(request, reply, strict=True)
        ]
    )


def _refused(message: WriteTxnMarkersRequestData, version: int, error: KafkaError) -> WriteTxnMarkersResponseData:
    markers = _markers(message)
    return _response(markers, [dict.fromkeys(each.partitions, error.code) for each in markers])
