"""v3 clusters: there is one, this one."""

from __future__ import annotations

from aiohttp import web

from kraft.http.endpoint import Call
from kraft.http.v3 import models
from kraft.http.v3.envelope import Document, answer, crn, listing, related, resource, route


def cluster(call: Call) -> Document:
    """KafkaCluster: the active controller (null: none) and links to all that is below it."""
    controller = call.context.gateway.controller_id
    return resource(
        call,
        "KafkaCluster",
        (),
        crn(call),
        {
            "controller": related(call, "brokers", controller) if controller >= 0 else None,
            "acls": related(call, "acls"),
            "brokers": related(call, "brokers"),
            "broker_configs": related(call, "broker-configs"),
            "consumer_groups": related(call, "consumer-groups"),
            "topics": related(call, "topics"),
            "partition_reassignments": related(call, "topics", "-", "partitions", "-", "reassignment"),
        },
    )


async def list_clusters(call: Call) -> web.Response:
    """200 with a list of one: this cluster."""
    document = listing(call, "KafkaClusterList", (), [cluster(call)])
    document["metadata"]["self"] = f"{call.request.scheme}://{call.request.host}/v3/clusters"
    return answer(document)


async def get_cluster(call: Call) -> web.Response:
    """200 with this cluster. Raises HttpError 404 for another id."""
    return answer(cluster(call))


_LIST = models.Listing[models.Cluster]
ROUTES = (
    route("GET", "/v3/clusters", list_clusters, "List clusters: this one.", _LIST, below=""),
    route("GET", "", get_cluster, "The cluster.", models.Cluster),
)
