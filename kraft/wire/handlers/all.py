"""Every handler of a node, by API key. A role that the node does not have is None and its requests are refused."""

from __future__ import annotations

from collections.abc import Mapping

from kraft.wire.handlers.control import Controller, controller_handlers
from kraft.wire.handlers.data import Replicas, TransactionalLeader, data_handlers
from kraft.wire.handlers.groups import Coordinator, group_handlers
from kraft.wire.handlers.metadata_log import MetadataFetches, snapshot_handlers
from kraft.wire.handlers.producer_ids import ProducerIdSource, producer_id_handlers
from kraft.wire.handlers.served import Served
from kraft.wire.handlers.transactions import Coordinator as TransactionCoordinator
from kraft.wire.handlers.transactions import Markers, transaction_handlers


def node_handlers(
    replicas: Replicas | None,
    controller: Controller | None,
    *,
    metadata: MetadataFetches | None,
    groups: Coordinator | None = None,
    producer_ids: ProducerIdSource | None = None,
    transactions: TransactionCoordinator | None = None,
    markers: Markers | None = None,
    leader: TransactionalLeader | None = None,
) -> Mapping[int, Served]:
    """The handlers for requests of other nodes, by API key. A part that this node does not have is None, and its
    requests are refused with the error that Kafka has for that.
    """
    served = [
        *data_handlers(replicas, metadata, leader),
        *snapshot_handlers(metadata),
        *controller_handlers(controller),
    ]
    served += [*group_handlers(groups), *producer_id_handlers(producer_ids, transactions)]
    served += transaction_handlers(transactions, markers)
    return {one.api.key: one for one in served}
