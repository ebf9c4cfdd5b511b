"""Quotas of clients over HTTP: a request beyond one is answered 429 with Retry-After, and nothing of it is done."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from kraft.broker.client_quotas import OWNER, ClientQuotas, Owner
from kraft.broker.processor_time import ProcessorTime, Timed
from kraft.http.access_table import ROUTE_ACCESS
from kraft.http.endpoint import Call, Route
from kraft.http.errors import HttpError
from metadata.acls import AclOperation
from metadata.controller.decide.client_quotas import CONSUMER_BYTE_RATE, PRODUCER_BYTE_RATE, REQUEST_PERCENTAGE

TOO_MANY_REQUESTS = 42901
_COUNTED: Final = {AclOperation.WRITE: PRODUCER_BYTE_RATE, AclOperation.READ: CONSUMER_BYTE_RATE}


def check_quota(call: Call, route: Route, quotas: ClientQuotas) -> None:
    """Raises HttpError 42901 while the client is over its quota. Quotas of client ids hold for the Kafka port alone:
    HTTP has none."""
    owner = Owner(call.principal.name, None)
    OWNER.set(owner)
    key = quota_of(route)
    now_ms = call.context.clock.monotonic_ms()
    wait_ms = max(quotas.worked(owner, 0, now_ms), quotas.used(key, owner, 0, now_ms) if key else 0)
    if wait_ms:
        raise too_many(wait_ms)


async def counted(
    call: Call, route: Route, answer: Awaitable[web.StreamResponse], quotas: ClientQuotas
) -> web.StreamResponse:
    """The answer of a handler; what it has produced or read is counted, and the time that it took of the loop."""
    owner, clock = Owner(call.principal.name, None), call.context.clock
    if not quotas.limits(REQUEST_PERCENTAGE, owner):
        response = await answer
    else:
        time = ProcessorTime(clock)
        try:
            response = await Timed(answer, time)
        finally:
            quotas.worked(owner, time.take_percent(), clock.monotonic_ms())
    _count(call, route, response, quotas)
    return response


def _count(call: Call, route: Route, response: web.StreamResponse, quotas: ClientQuotas) -> None:
    key = quota_of(route)
    if key is None:
        return
    body = response.body if isinstance(response, web.Response) else None
    answered = len(body) if isinstance(body, (bytes, bytearray)) else 0
    size = len(call.body) if key == PRODUCER_BYTE_RATE else answered
    quotas.used(key, Owner(call.principal.name, None), size, call.context.clock.monotonic_ms())


def quota_of(route: Route) -> str | None:
    """The quota that the bytes of a route count for: of producers where it writes to a topic, of consumers where it
    reads."""
    row = ROUTE_ACCESS.get(f"{route.method} {route.path}")
    if row is None or not ("/records" in route.path or route.path.startswith(("/topics/", "/transactions/"))):
        return None
    operations = [need.operation for need in row.needs if need.parameter != "transactional_id"]
    return next((_COUNTED[each] for each in operations if each in _COUNTED), None)


def too_many(wait_ms: int) -> HttpError:
    """The answer to a client that has to wait."""
    return HttpError(
        TOO_MANY_REQUESTS,
        f"the quota of this client is used up; send it again in {wait_ms} ms",
        headers={"Retry-After": str(-(-wait_ms // 1_000))},
    )
