"""v3 ACLs: there are none, and a client that follows the cluster's `acls` link gets an error that explains it.

The error is that of a Kafka cluster without an authorizer: SECURITY_DISABLED (54), which Confluent's proxy answers with
400 / 40002.
"""

from __future__ import annotations

from aiohttp import web

from kraft.http.endpoint import Call, Method, Route
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.media import require_accepts
from kraft.http.v3.envelope import CLUSTER, check_cluster
from kraft.protocol.media_types import PLAIN_JSON

SECURITY_DISABLED = 54
"""Kafka's code; nothing else in the cluster needs it."""


async def refuse_acls(call: Call) -> web.Response:
    """Raises HttpError 40002, with Kafka's SECURITY_DISABLED 54."""
    message = "this cluster has no authorizer and no ACLs: every client that is let in may do everything"
    raise HttpError(BAD_REQUEST, message, extra={"kafka_code": SECURITY_DISABLED, "retriable": False})


def _check(call: Call) -> None:
    require_accepts(call.accept, PLAIN_JSON)
    check_cluster(call)


def _route(method: Method, tail: str, name: str) -> Route:
    return Route(
        method=method, path=CLUSTER + tail, handler=refuse_acls, summary="There are no ACLs: an error.", tag="v3",
        answers={}, errors=(404, 406, BAD_REQUEST), check=_check, name=name,
    )  # fmt: skip


ROUTES = (
    _route("GET", "/acls", "v3_list_acls"),
    _route("POST", "/acls", "v3_create_acl"),
    _route("DELETE", "/acls", "v3_delete_acls"),
    _route("POST", "/acls:batch", "v3_create_acls"),
)
