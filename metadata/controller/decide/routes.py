"""Routes are created, bound to topics and deleted. Ours.

A route has the name of a topic that there is not: ACLs know it as that topic. A binding names a topic and never a
route, so that no record goes in circles.
"""

from __future__ import annotations

from collections import Counter

from kraft.protocol.errors import (
    DuplicateResource,
    InvalidRequest,
    InvalidTopicException,
    PolicyViolation,
    ResourceNotFound,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.decide.topics import check_topic_name
from metadata.controller.requests import AlterRoute
from metadata.records import (
    Record,
    RemoveRouteBindingRecord,
    RemoveRouteRecord,
    RouteBindingRecord,
    RouteRecord,
)
from metadata.routes import Binding, RouteImage, RouteKind, check_binding


def alter_route(controller: ControllerState, request: AlterRoute) -> Decision:
    """All of the request or nothing of it."""
    match request.operation:
        case "create":
            records = _create(controller, request)
        case "alter":
            records = _alter(controller, _existing(controller, request.name), request)
        case "delete":
            _existing(controller, request.name)
            records = [RemoveRouteRecord(name=request.name)]
    return Decision(liveness=controller.liveness, records=tuple(records), is_atomic=True)


def _existing(controller: ControllerState, name: str) -> RouteImage:
    route = controller.image.routes.get(name)
    if route is None:
        raise ResourceNotFound(f"there is no route {name!r}")
    return route


def _create(controller: ControllerState, request: AlterRoute) -> list[Record]:
    name, limit = request.name, controller.settings.max_routes
    if request.kind is None:
        raise InvalidRequest(f"a new route has a kind: {', '.join(RouteKind)}")
    if name in controller.image.routes:
        raise DuplicateResource(f"route {name!r} already exists")
    try:
        check_topic_name(name)
    except InvalidTopicException as error:
        raise InvalidRequest(f"a route has a name that a topic may have: {error.message}") from error
    if name.startswith("__"):
        raise InvalidRequest(f"route name {name!r}: names with __ before them are those of internal topics")
    if name in controller.image.topic_ids:
        raise TopicAlreadyExists(f"{name!r} is a topic: a route has a name that no topic has")
    if len(controller.image.routes) >= limit:
        raise PolicyViolation(f"the cluster has {len(controller.image.routes)} routes, and max.routes is {limit}")
    route = RouteImage(name=name, kind=request.kind)
    return [RouteRecord(name=name, kind=request.kind), *_alter(controller, route, request)]


def _alter(controller: ControllerState, route: RouteImage, request: AlterRoute) -> list[Record]:
    times = Counter((*request.added, *request.removed))
    for binding in request.removed:
        _check_once(times, binding)
        if binding not in route.bindings:
            raise ResourceNotFound(f"route {route.name!r} has no {_worded(binding)}")
    for binding in request.added:
        _check_once(times, binding)
        check_binding(route.kind, binding)
        _check_topic(controller, route.name, binding.topic)
        if binding in route.bindings:
            raise DuplicateResource(f"route {route.name!r} already has {_worded(binding)}")
    count, limit = len(route.bindings) + len(request.added) - len(request.removed), _limit(controller)
    if request.added and count > limit:
        raise PolicyViolation(
            f"route {route.name!r} would have {count} bindings, and max.bindings.per.route is {limit}"
        )
    return [
        *(RemoveRouteBindingRecord(route=route.name, key=each.key, topic=each.topic) for each in request.removed),
        *(RouteBindingRecord(route=route.name, key=each.key, topic=each.topic) for each in request.added),
    ]


def _limit(controller: ControllerState) -> int:
    return controller.settings.max_bindings_per_route


def _check_once(times: Counter[Binding], binding: Binding) -> None:
    if times[binding] > 1:
        raise InvalidRequest(f"the request names {_worded(binding)} twice")


def _check_topic(controller: ControllerState, route: str, topic: str) -> None:
    if topic == route:
        raise InvalidRequest(f"route {route!r} cannot be bound to itself: bind it to topics")
    if topic in controller.image.routes:
        raise InvalidRequest(f"{topic!r} is a route: routes are bound to topics, so that no record goes in circles")
    if topic.startswith("__"):
        raise InvalidTopicException(f"{topic!r} is an internal topic: nobody but the cluster writes to it")
    if topic not in controller.image.topic_ids:
        raise UnknownTopicOrPartition(f"there is no topic {topic!r}: create it before it is bound")


def _worded(binding: Binding) -> str:
    return f"binding of {binding.key!r} to {binding.topic!r}"
