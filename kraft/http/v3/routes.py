"""v3 routes, an addition of ours: created, listed, bound to topics, asked where a key goes, deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from kraft.http.body_models import Items, RequestBody
from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, ROUTE_NOT_FOUND, V3_TOPIC_NOT_FOUND, HttpError
from kraft.http.v3.envelope import Document, answer, crn, listing, no_content, resource, route, url
from kraft.http.v3.models import Listing, Resource, TopicName
from metadata.acls import AclResource
from metadata.controller.requests import AlterRoute
from metadata.routes import KEY_LENGTH_MAX, Binding, RouteImage, RouteKind, check_routing_key

ROUTES_PATH = "routes"


class RouteBinding(BaseModel):
    """Records whose routing key matches go to the topic."""

    binding_key: str = Field(description="A key (direct), words with * and # (pattern), or empty (fanout).")
    topic_name: str


class NewBinding(RequestBody):
    """Records whose routing key matches go to the topic."""

    binding_key: str = Field(default="", description="A key (direct), words with * and # (pattern), none (fanout).")
    topic_name: TopicName


class NewRoute(RequestBody):
    """Name, kind and first bindings of a route."""

    route_name: TopicName
    kind: Literal["direct", "pattern", "fanout"]
    bindings: Items[NewBinding] = Field(default=[])


class BindingChange(RequestBody):
    """Bindings to add and to remove; all of them or none."""

    add: Items[NewBinding] = Field(default=[])
    remove: Items[NewBinding] = Field(default=[])


class RouteDocument(Resource):
    """One route, with the bindings to topics that the client may see."""

    route_name: str
    route_kind: str
    bindings: list[RouteBinding]


class RoutedTo(BaseModel):
    """The topics to which a record with this routing key goes; none: it would be refused."""

    routing_key: str
    topics: list[str]


async def list_routes(call: Call) -> web.Response:
    """200 with the routes that the client may describe."""
    routes = call.context.gateway.image.routes
    names = call.described(AclResource.TOPIC, sorted(routes))
    return answer(listing(call, "KraftRouteList", (ROUTES_PATH,), (_document(call, routes[name]) for name in names)))


async def create_route(call: Call) -> web.Response:
    """201. Raises InvalidRequest 42, InvalidTopicException 17, UnknownTopicOrPartition 3, PolicyViolation 44."""
    asked = call.model(NewRoute)
    request = AlterRoute(
        name=asked.route_name, operation="create", kind=RouteKind(asked.kind), added=_bindings(asked.bindings)
    )
    await call.context.control(request)
    made = RouteImage(name=request.name, kind=RouteKind(asked.kind), bindings=frozenset(request.added))
    return answer(_document(call, made), status=201, location=url(call, ROUTES_PATH, request.name))


async def get_route(call: Call) -> web.Response:
    """200 with its kind and its bindings."""
    return answer(_document(call, route_of(call)))


async def alter_bindings(call: Call) -> web.Response:
    """204: bindings are added and removed, all or none. Raises what `create_route` raises."""
    asked, name = call.model(BindingChange), route_of(call).name
    added, removed = _bindings(asked.add), _bindings(asked.remove)
    await call.context.control(AlterRoute(name=name, operation="alter", added=added, removed=removed))
    return no_content()


async def delete_route(call: Call) -> web.Response:
    """204: the route is gone, and its topics stay."""
    await call.context.control(AlterRoute(name=route_of(call).name, operation="delete"))
    return no_content()


async def try_route(call: Call) -> web.Response:
    """200 with the topics to which a record with this routing key would go. Raises InvalidRequest 42."""
    key = call.request.query.get("routing_key", "")
    check_routing_key(key)
    known = call.context.gateway.image.topic_ids
    topics = [name for name in route_of(call).topics_of(key) if name in known]
    return answer({"routing_key": key, "topics": topics})


def route_of(call: Call) -> RouteImage:
    """The route of the path. Raises HttpError 40407."""
    name = call.path["route"]
    found = call.context.gateway.image.routes.get(name)
    if found is None:
        raise HttpError(ROUTE_NOT_FOUND, f"there is no route {name!r}")
    return found


def _bindings(asked: Iterable[NewBinding]) -> tuple[Binding, ...]:
    return tuple(Binding(each.binding_key, each.topic_name) for each in asked)


def _document(call: Call, found: RouteImage) -> Document:
    known = call.context.gateway.image.topic_ids
    fields: dict[str, Any] = {
        "route_name": found.name,
        "route_kind": str(found.kind),
        "bindings": [
            {"binding_key": each.key, "topic_name": each.topic}
            for each in sorted(found.bindings)
            if each.topic in known
        ],
    }
    return resource(call, "KraftRoute", (ROUTES_PATH, found.name), crn(call, route=found.name), fields)


_KEY = Parameter(
    name="routing_key",
    description="The routing key of a record; without it the empty one.",
    schema={"type": "string", "maxLength": KEY_LENGTH_MAX, "default": ""},
)
_CHANGE = (BAD_REQUEST, V3_TOPIC_NOT_FOUND, 42206, 50302)
_ONE = "/routes/{route}"
ROUTES = (
    route("GET", "/routes", list_routes, "List routes.", Listing[RouteDocument]),
    route("POST", "/routes", create_route, "Create a route.", RouteDocument, body=NewRoute, status=201,
          errors=_CHANGE),
    route("GET", _ONE, get_route, "One route and its bindings.", RouteDocument, errors=(ROUTE_NOT_FOUND,)),
    route("DELETE", _ONE, delete_route, "Delete a route; its topics stay.", errors=(ROUTE_NOT_FOUND, 50302)),
    route("POST", _ONE + "/bindings:alter", alter_bindings, "Add and remove bindings, all or none.",
          body=BindingChange, errors=(ROUTE_NOT_FOUND, *_CHANGE)),
    route("GET", _ONE + "/topics", try_route, "Where a record with a routing key would go.", RoutedTo, query=(_KEY,),
          errors=(ROUTE_NOT_FOUND, BAD_REQUEST)),
)  # fmt: skip
