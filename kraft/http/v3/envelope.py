"""Confluent's resource envelope: kind, metadata with self and crn, and relations as links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from aiohttp import web

from kraft.http.endpoint import Body, Call, Handler, Method, Parameter, Route
from kraft.http.errors import HttpError
from kraft.http.media import require_accepts, require_json_body
from kraft.http.responses import plain_json
from kraft.protocol.media_types import PLAIN_JSON
from metadata.controller.requests import ErrorDetail

CLUSTER = "/v3/clusters/{cluster_id}"
Document: TypeAlias = dict[str, Any]


def check(call: Call) -> None:
    """Accept, content type and cluster id, before anything else."""
    headers = call.request.headers
    require_accepts(call.accept, PLAIN_JSON)
    if call.request.body_exists:
        require_json_body(headers.get("Content-Type"))
    check_cluster(call)


def check_cluster(call: Call) -> None:
    """Raises HttpError 404."""
    asked, ours = call.path.get("cluster_id"), call.context.gateway.cluster_id
    if asked is not None and asked != ours:
        raise HttpError(404, f"Cluster {asked} cannot be found; this is cluster {ours}.")


def url(call: Call, *path: object) -> str:
    """An absolute URL below this cluster, under the host name that the client used."""
    tail = "".join(f"/{quote(str(part), safe='')}" for part in path)
    return f"{call.request.scheme}://{call.request.host}/v3/clusters/{call.context.gateway.cluster_id}{tail}"


def related(call: Call, *path: object) -> Document:
    """A link to another resource below this cluster."""
    return {"related": url(call, *path)}


def crn(call: Call, **parts: object) -> str:
    """The Confluent resource name of a part of this cluster: `crn:///kafka=ID/topic=NAME`."""
    tail = "".join(f"/{name.replace('_', '-')}={quote(str(value), safe='')}" for name, value in parts.items())
    return f"crn:///kafka={call.context.gateway.cluster_id}{tail}"


def resource(call: Call, kind: str, path: Sequence[object], name: str, fields: Mapping[str, Any]) -> Document:
    """A document of one resource: kind, metadata and its fields. `path` is below the cluster."""
    return {
        "kind": kind,
        "metadata": {"self": url(call, *path), "resource_name": name},
        "cluster_id": call.context.gateway.cluster_id,
        **fields,
    }


def listing(call: Call, kind: str, path: Sequence[object], data: Iterable[Document]) -> Document:
    """A document of a list of resources."""
    return {"kind": kind, "metadata": {"self": url(call, *path), "next": None}, "data": list(data)}


def answer(document: Any, *, status: int = 200, location: str | None = None) -> web.Response:
    """A JSON response; `location` is the URL of what was created."""
    response = plain_json(document, status=status)
    if location:
        response.headers["Location"] = location
    return response


def no_content() -> web.Response:
    """An empty 204."""
    return web.Response(status=204)


def raise_refusal(outcome: object) -> None:
    """Raises the KafkaError of an outcome of the controller, if it is one."""
    if isinstance(outcome, ErrorDetail):
        raise outcome.exception()


def route(
    method: Method,
    path: str,
    handler: Handler,
    summary: str,
    model: Any = None,
    *,
    body: Any = None,
    status: int = 200,
    errors: tuple[int, ...] = (),
    query: tuple[Parameter, ...] = (),
    headers: tuple[Parameter, ...] = (),
    below: str = CLUSTER,
    also: Mapping[int, Any] | None = None,
    before: Callable[[Call], Any] = check,
    streams_body: bool = False,
    name: str = "",
) -> Route:
    """A v3 route; without a model the answer is an empty 204. `also` names further statuses and their models, `name` an
    operation whose handler serves others too."""
    models = {status if model is not None else 204: model, **(also or {})}
    answers = {code: Body(content={PLAIN_JSON: m}) if m is not None else None for code, m in models.items()}
    body_errors = (400, 413, 415, 422) if body else ()
    return Route(
        method=method, path=below + path, handler=handler, summary=summary, tag="v3", answers=answers, query=query,
        headers=headers, streams_body=streams_body,
        body=Body(content={PLAIN_JSON: body}) if body else None, errors=(404, 406, *body_errors, *errors), check=before,
        name=name,
    )  # fmt: skip
