"""All routes, in the order in which they are tried (in v3, those of records before all others)."""

from __future__ import annotations

from kraft.http import status
from kraft.http.endpoint import Route
from kraft.http.streaming import read as streams
from kraft.http.v2 import admin, metadata, produce, read
from kraft.http.v3 import (
    acls,
    broker_configs,
    brokers,
    client_quotas,
    clusters,
    elections,
    partitions,
    produce_batch,
    produce_stream,
    reassignments,
    routes,
    topic_configs,
    topics,
)

ALL_ROUTES: tuple[Route, ...] = (
    *produce.ROUTES,
    *read.ROUTES,
    *streams.ROUTES,
    *metadata.ROUTES,
    *status.ROUTES,
    *admin.ROUTES,
    *clusters.ROUTES,
    *acls.ROUTES,
    *client_quotas.ROUTES,
    *brokers.ROUTES,
    *broker_configs.ROUTES,
    *topic_configs.ROUTES,
    *topics.ROUTES,
    *reassignments.ROUTES,
    *partitions.ROUTES,
    *elections.ROUTES,
    *routes.ROUTES,
    *produce_batch.ROUTES,
    *produce_stream.ROUTES,
)
