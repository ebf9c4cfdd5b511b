"""WriteTxnMarkers (27) of a client: an operator ends a transaction that hangs, at the leaders of its partitions.

Kafka lets through who may alter the cluster. A marker that ends nothing is harmless; one of an older coordinator epoch
than the partition has seen is refused. Source: KIP-664; KafkaApis.handleWriteTxnMarkersRequest.
"""

from __future__ import annotations

from collections.abc import Sequence

from kraft.wire.clients.served import ClientApi, ClientBroker, ClientCall
from kraft.wire.generated.write_txn_markers_request import WriteTxnMarkersRequestData
from kraft.wire.generated.write_txn_markers_response import WriteTxnMarkersResponseData
from kraft.wire.messages.transactions import WRITE_TXN_MARKERS


def apis(broker: ClientBroker) -> Sequence[ClientApi]:
    async def write(call: ClientCall[WriteTxnMarkersRequestData]) -> WriteTxnMarkersResponseData:
        request = WRITE_TXN_MARKERS.from_request(call.message)
        return WRITE_TXN_MARKERS.to_reply(request, await broker.markers.write(request))

    return [
        ClientApi(
            request=WriteTxnMarkersRequestData,
            response=WriteTxnMarkersResponseData,
            handle=write,
            refuse=lambda message, version, error: WRITE_TXN_MARKERS.refuse(message, error.code),
        )
    ]
