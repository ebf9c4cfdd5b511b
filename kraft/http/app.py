"""`create_app`: the HTTP server as an aiohttp application over a `Gateway`. Every node serves every request.

Invariant: each request is answered once, with a JSON error body when it is refused, and gives back what it reserved.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from aiohttp import web

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.gateway import Gateway
from kraft.broker.measures import NO_KAFKA_PORT, KafkaPort
from kraft.http.access_table import check_access
from kraft.http.authentication import HttpAuthentication
from kraft.http.connection import Connection
from kraft.http.console.pages import console_routes
from kraft.http.context import Context
from kraft.http.docs.pages import docs_routes
from kraft.http.endpoint import Call, Route
from kraft.http.errors import BAD_REQUEST, HttpError, error_response
from kraft.http.host_origin_check import Origins
from kraft.http.limits import BodyBudget, Connections, Limits, Slots
from kraft.http.media import utf8_of_latin_1
from kraft.http.metrics import GaugeValues, Metrics
from kraft.http.openapi import openapi_routes
from kraft.http.parameters import check_names_in_path
from kraft.http.partitioner import Partitioner
from kraft.http.quotas import check_quota, counted
from kraft.http.readiness import Awaiting, Nothing, add_awaits_header, refuse_early
from kraft.http.request_body import BodyLease, check_length
from kraft.http.responses import InternalErrors, finished, refused
from kraft.http.revocations import Revocations
from kraft.http.route_cache import new_application
from kraft.http.routes import ALL_ROUTES
from kraft.http.slow_clients import SlowClients
from kraft.http.status import partition_gauges
from kraft.http.streaming.streams import Streams
from kraft.http.strict_profile import check_strictly
from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import INT32_MAX
from metadata.environment import Environment, Files
from metadata.events import Events
from metadata.settings import BrokerSettings
from replication.record_workers import RecordWorkers

CONTEXT = web.AppKey("context", Context)
ROUTES = web.AppKey("routes", tuple)

AioHandler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(
    gateway: Gateway,
    *,
    environment: Environment,
    events: Events | None = None,
    limits: Limits | None = None,
    awaiting: Awaiting | None = None,
    gauges: Callable[[], GaugeValues] | None = None,
    kafka: KafkaPort = NO_KAFKA_PORT,
    extra_routes: Sequence[Route] = (),
    is_strict: bool = False,
    own_hosts: Sequence[str] = (),
    connections_max: int = INT32_MAX,
    authentication: HttpAuthentication | None = None,
) -> web.Application:
    """The HTTP server as an aiohttp application. `is_strict` chooses the strict profile (`kraft.http.strict_profile`).
    `connections_max` is what the process has descriptors for, whatever `max.connections` allows. `awaiting` returns
    what the node waits for, by default nothing; `gauges` adds gauges to /metrics; `extra_routes` are further resources.
    `own_hosts` are the names under which clients reach the nodes (`kraft.http.host_origin_check`). A fault of ours in a
    handler is an event `http_request_failed` and an answer 500 with its id."""
    limits = limits or _limits(gateway.settings, connections_max=connections_max)
    long_polls = Slots(lambda: gateway.settings.rest_max_waiting_reads, what="waiting reads (rest.max.waiting.reads)")
    context = Context(
        gateway=gateway,
        clock=environment.clock,
        limits=limits,
        answers=kafka.answers or AnswerBudget(gateway.settings.queued_max_response_bytes),
        bodies=BodyBudget(lambda: gateway.settings.queued_max_request_bytes),
        connections=Connections(lambda: min(gateway.settings.max_connections, limits.served_connections_max)),
        long_polls=long_polls,
        produce_streams=Slots(lambda: limits.produce_streams_max, what="produce streams"),
        streams=Streams(slots=long_polls, unsent_bytes_max=limits.stream_unsent_bytes_max),
        partitioner=Partitioner(),
        record_workers=RecordWorkers(environment.workers),
        metrics=Metrics(lambda: {**partition_gauges(gateway), **(gauges() if gauges else {})}, kafka.measures),
        kafka_clients=kafka.clients,
        patience=SlowClients(environment.clock, limits),
        awaiting=awaiting or Nothing(),
        started_ms=environment.clock.monotonic_ms(),
        authentication=authentication,
        is_strict=is_strict,
        revocations=Revocations(environment.clock),
        origins=Origins(own_hosts, lambda: gateway.settings),
    )
    routes = _served((*ALL_ROUTES, *_pages(environment.files), *extra_routes), is_strict=is_strict)
    app = new_application(client_max_size=limits.body_bytes_max)
    app[CONTEXT], app[ROUTES] = context, routes
    _add_signals(app)
    _register_all(app, context, routes, InternalErrors(events, environment.rng))
    return app


def learn_paths(extra_routes: Sequence[Route]) -> None:
    """Compile the patterns of all paths. Python keeps them, so that apps made later, in forks too, need not."""
    routes = _served((*ALL_ROUTES, *extra_routes), is_strict=False)
    router = web.UrlDispatcher()
    for path in dict.fromkeys(route.path for route in routes):
        for each in (path,) if path == "/" else (path, path + "/"):
            router.add_route("*", each, _unmatched)
    _special_paths(tuple(route.path for route in routes))


def _served(known: Sequence[Route], *, is_strict: bool) -> tuple[Route, ...]:
    routes = tuple(route for route in known if not (is_strict and route.is_alias))
    return (*routes, *openapi_routes(routes, is_strict=is_strict))


def _pages(files: Files) -> tuple[Route, ...]:
    return (*docs_routes(files), *console_routes(files))


def _limits(settings: BrokerSettings, *, connections_max: int) -> Limits:
    return Limits(
        body_bytes_max=settings.socket_request_max_bytes,
        body_values_max=settings.socket_request_max_items,
        read_bytes_max=settings.fetch_max_bytes,
        connections_max=connections_max,
    )


def _register_all(app: web.Application, context: Context, routes: Sequence[Route], faults: InternalErrors) -> None:
    """Special paths first, with a 405 of their own: the general ones would take their other methods."""
    special_paths = _special_paths(tuple(route.path for route in routes))
    special = [route for route in routes if route.path in special_paths]
    _register(app, context, special, faults)
    for path in dict.fromkeys(route.path for route in special):
        app.router.add_route("*", path, _refuse_method({route.method for route in special if route.path == path}))
    _register(app, context, [route for route in routes if route not in special], faults)
    app.router.add_route("*", "/{anything:.*}", _unmatched)


def _add_signals(app: web.Application) -> None:
    app.on_shutdown.append(_end_streams)
    app.on_response_prepare.append(_allow_reading)


async def _allow_reading(request: web.Request, response: web.StreamResponse) -> None:
    if "Origin" in request.headers:
        response.headers.update(request.app[CONTEXT].origins.answer_headers(request))


async def _end_streams(app: web.Application) -> None:
    app[CONTEXT].streams.stop()


def _register(app: web.Application, context: Context, routes: Sequence[Route], faults: InternalErrors) -> None:
    """Each is tried in turn: those of records in v3 stand before all others, and paths with a slash at their end, which
    few clients ask for, behind them."""
    in_order = sorted(routes, key=lambda route: not _is_of_records(route.path))
    adapted = [(route, _adapt(context, route, faults), _continue(context, route)) for route in in_order]
    for ending in ("",) if context.is_strict else ("", "/"):
        for route, handler, expect in adapted:
            if ending and route.path == "/":
                continue
            path = route.path + ending
            app.router.add_route(route.method, path, handler, expect_handler=expect)
            if route.method == "GET":
                app.router.add_route("HEAD", path, handler)


def _is_of_records(path: str) -> bool:
    return path.startswith("/v3/") and path.rpartition("/")[2].startswith("records")


def _adapt(context: Context, route: Route, faults: InternalErrors) -> AioHandler:
    observe = context.metrics.observer(route.method, route.path)
    monotonic_us = context.clock.monotonic_us

    async def handle(request: web.Request) -> web.StreamResponse:
        started_us = monotonic_us()
        try:
            response = await _answer(context, route, request)
        except Exception as error:
            if request.writer.output_size:  # the answer has begun: all that is left is to end the connection
                faults.note(error, route)
                raise
            response = refused(Call(context, request), route, faults.note(error, route))
        protocol = request.protocol
        if isinstance(protocol, Connection) and protocol.answers is not None:
            protocol.keep(_length(response))
        observe(response.status, (monotonic_us() - started_us) / 1e6)
        return response

    return handle


async def _answer(context: Context, route: Route, request: web.Request) -> web.StreamResponse:
    call, lease = Call(context, request), None
    try:
        context.connections.admit(request.protocol)
        if context.authentication is not None:
            await context.authentication.authenticate(request)
        checked = _check(call, route)
        if route.body and not route.streams_body:
            lease = BodyLease(context)
            call.body = await lease.read(request)
            if call.is_latin_1:
                call.body = utf8_of_latin_1(call.body)
        answer = route.handler(call) if checked is None else route.handler(call, checked)
        quotas = context.gateway.quotas
        response = await (answer if quotas is None else counted(call, route, answer, quotas))
        if route.answers_early:
            add_awaits_header(response, context.awaiting)
        return finished(call, route, response) if context.is_strict else response
    except (HttpError, KafkaError) as error:
        return refused(call, route, error)
    finally:
        if lease is not None:
            lease.release()


def _length(response: web.StreamResponse) -> int:
    body = response.body if isinstance(response, web.Response) else None
    return len(body) if isinstance(body, (bytes, bytearray)) else 0


def _check(call: Call, route: Route) -> Any:
    """Refuses what can be refused before the body is read; returns what the route's own check does."""
    context = call.context
    context.origins.check(call.request)
    if not route.answers_early:
        refuse_early(context.awaiting, node_id=context.gateway.node_id)
    if context.gateway.authorizer is not None:
        check_access(call, route)
    if context.gateway.quotas is not None:
        check_quota(call, route, context.gateway.quotas)
    if context.is_strict:
        check_strictly(call, route)
    if route.tag == "v2" and "%" in call.request.raw_path and context.dialect.checks_parameters:
        check_names_in_path(call)
    return None if route.check is None else route.check(call)


def _continue(context: Context, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
    """RFC 9110 10.1.1: refuse before a client that asked with `Expect: 100-continue` has sent its body."""

    async def expect(request: web.Request) -> web.StreamResponse | None:
        call = Call(context, request)
        try:
            if not route.streams_body:
                check_length(request, context.limits.body_bytes_max)
            if context.authentication is not None:
                await context.authentication.authenticate(request)
            _check(call, route)
        except (HttpError, KafkaError) as error:
            return refused(call, route, error)
        transport = request.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    return expect


@functools.cache
def _special_paths(paths: tuple[str, ...]) -> frozenset[str]:
    """Into which another path's parameters could be read (`/topics/-/configs` as `/topics/{topic}/configs`)."""
    split = {path: path.split("/") for path in paths}
    return frozenset(
        path
        for path, parts in split.items()
        if any(other != path and _could_be(parts, general) for other, general in split.items())
    )


def _could_be(parts: Sequence[str], general: Sequence[str]) -> bool:
    return len(parts) == len(general) and all(
        part == wanted or _is_parameter(wanted) for part, wanted in zip(parts, general, strict=True)
    )


def _is_parameter(part: str) -> bool:
    return part.startswith("{") and part.endswith("}")


def _refuse_method(methods: set[str]) -> AioHandler:
    allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))

    async def refuse(request: web.Request) -> web.StreamResponse:
        preflight = request.app[CONTEXT].origins.preflight(request)
        if preflight is not None:
            return web.Response(status=204, headers=preflight)
        message = f"{request.path} does not know {request.method}; it knows {allowed}"
        return error_response(HttpError(405, message, headers={"Allow": allowed}))

    return refuse


async def _unmatched(request: web.Request) -> web.StreamResponse:
    """404 for a path that nobody serves, 405 with `Allow` for a method that its path does not know."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource.canonical != "/{anything}":
            _, methods = await resource.resolve(request)
            allowed |= methods
    if allowed:
        return await _refuse_method(allowed)(request)
    if request.app[CONTEXT].dialect.checks_parameters and "//" in request.path and request.path.startswith("/topics/"):
        return error_response(HttpError(BAD_REQUEST, "Missing mandatory parameter 'topic_name'"))
    return error_response(HttpError(404, f"nothing is served at {request.path}; see /openapi.json"))
