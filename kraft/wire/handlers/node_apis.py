"""Every handler that nodes are served: those of their own requests, and those that clients are served, too."""

from __future__ import annotations

from typing import cast

from kraft.coordinators.groups.routing import Coordinator
from kraft.protocol import apis
from kraft.wire.api_handler import ApiHandler
from kraft.wire.handlers.broker import ClientBroker
from kraft.wire.handlers.control import Controller, controller_handlers
from kraft.wire.handlers.data import TransactionalLeader, data_handlers
from kraft.wire.handlers.group_requests import group_handlers
from kraft.wire.handlers.metadata_log import MetadataFetches, snapshot_handlers
from kraft.wire.handlers.refusals import NoBroker
from kraft.wire.handlers.table import ClientApis
from replication.manager.manager import ReplicaManager

AS_CLIENTS = frozenset(
    api.key
    for api in (
        apis.INIT_PRODUCER_ID,
        apis.ADD_PARTITIONS_TO_TXN,
        apis.END_TXN,
        apis.WRITE_TXN_MARKERS,
        apis.DESCRIBE_TRANSACTIONS,
        apis.LIST_TRANSACTIONS,
    )
)
"""Nodes ask them as clients do, and are served by the same handlers."""


class NodeApis:
    """The handlers of one node for other nodes. Requests for a role that the node has not are refused."""

    def __init__(
        self,
        replicas: ReplicaManager | None,
        controller: Controller | None,
        *,
        metadata: MetadataFetches | None,
        groups: Coordinator | None = None,
        leader: TransactionalLeader | None = None,
        clients: ClientApis | None = None,
    ) -> None:
        """A part that this node does not have is None; `clients` on one without the broker role."""
        own = [
            *data_handlers(replicas, metadata, leader),
            *snapshot_handlers(metadata),
            *controller_handlers(controller),
            *group_handlers(groups),
        ]
        self._own = {each.request.API_KEY: each for each in own}
        self._clients = clients or ClientApis(cast(ClientBroker, NoBroker()))

    def get(self, key: int) -> ApiHandler | None:
        """The handler of the API; None when nodes are not served it."""
        found = self._own.get(key)
        if found is None and key in AS_CLIENTS:
            found = self._own[key] = cast(ApiHandler, self._clients.get(key))
        return found
