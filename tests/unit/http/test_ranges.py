"""Every number and every time that comes from outside has its range at the edge, and an error in words beyond it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, cast

import pytest

from kraft.broker.txn_markers import WriteMarkers
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.routing import Transactions
from kraft.events import EventRing
from kraft.http.endpoint import Route
from kraft.http.errors import HttpError
from kraft.http.events import event_routes
from kraft.http.explain import explain_routes
from kraft.http.offset_spec import parse_iso_time
from kraft.http.openapi import schema_of
from kraft.http.replicas import replica_routes
from kraft.http.routes import ALL_ROUTES
from kraft.http.users import user_routes
from kraft.http.v2.consumers_routes import consumer_routes
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.consumer_groups import group_routes
from kraft.http.v3.transactions import transaction_admin_routes
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import V3, Door, with_door

NO_GROUPS = cast(Groups, None)
ROUTES: tuple[Route, ...] = (
    *ALL_ROUTES,
    *consumer_routes(NO_GROUPS, random.Random(0)),
    *transaction_routes(cast(Transactions, None), NO_GROUPS),
    *transaction_admin_routes(cast(Transactions, None), cast(WriteMarkers, None)),
    *group_routes(NO_GROUPS),
    *user_routes(lambda name: False, random.Random(1)),
    *replica_routes(dict),
    *event_routes(EventRing(lambda: 0), incarnation="i"),
    *explain_routes(cast(Any, None), cast(Any, None)),
)
LOW, HIGH = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}


def integers(schema: Any, path: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "integer":
            yield path, schema
        for name, child in schema.items():
            yield from integers(child, (*path, name))
    elif isinstance(schema, list):
        for number, child in enumerate(schema):
            yield from integers(child, (*path, number))


def asked_integers(route: Route) -> Iterator[tuple[tuple[object, ...], dict[str, Any]]]:
    for parameter in (*route.query, *route.headers):
        yield from integers(parameter.schema, (parameter.name,))
    for model in route.body.content.values() if route.body else ():
        if model is not None:
            yield from integers(schema_of(model), (str(model),))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_number_that_a_request_may_hold_has_a_range(route: Route) -> None:
    assert [path for path, schema in asked_integers(route) if not (LOW & schema.keys() and HIGH & schema.keys())] == []


def test_routes_hold_numbers_at_all() -> None:
    assert sum(1 for route in ROUTES for _ in asked_integers(route)) > 50


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9999-12-31T23:59:59-23:59", "after the year 9999"),
        ("9999-12-31T23:59:59.999999Z", "after the year 9999"),
        ("0001-01-01T00:00:00+23:59", "before 1970"),
        ("0001-01-01", "before 1970"),
        ("10000-01-01T00:00:00Z", "no ISO-8601 time"),
        ("2020-13-01", "no ISO-8601 time"),
        ("2020-01-01T00:00:00+99:99", "no ISO-8601 time"),
        ("", "no ISO-8601 time"),
    ],
)
def test_times_beyond_the_calendar_are_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(HttpError, match=said):
        parse_iso_time(text, "timestamp ")


def test_the_last_time_of_the_calendar_is_one() -> None:
    assert parse_iso_time("9999-12-31T23:59:59.999Z", "") == 253_402_300_799_999
    assert parse_iso_time("9999-12-31T23:59:59.999+23:59", "") == 253_402_300_799_999 - (23 * 60 + 59) * 60_000


@pytest.mark.parametrize(
    ("timestamp", "status"),
    [("9999-12-31T23:59:59-23:59", 400), ("9999-12-31T23:59:59.999999Z", 400), ("9999-12-31T23:59:59.999Z", 200)],
)
def test_a_record_of_the_last_day_is_written_or_refused(timestamp: str, status: int) -> None:
    """A topic may take times that far ahead (message.timestamp.after.max.ms): its receipt has to say them."""

    async def story(door: Door) -> None:
        batch = await door.ask(
            "POST", f"{V3}/topics/t/records:batch", {"entries": [{"id": "a", "timestamp": timestamp}]}
        )
        assert batch.status == 207, batch.body
        written = [each["timestamp"][:19] for each in batch.json["successes"]]
        assert written == (["9999-12-31T23:59:59"] if status == 200 else []), batch.json
        stream = await door.ask("POST", f"{V3}/topics/t/records", {"timestamp": timestamp})
        assert str(stream.json["error_code"]).startswith(str(status)), stream.json

    gateway = FakeGateway()
    gateway.add_topic("t", configs={"message.timestamp.after.max.ms": str(2**63 - 1)})
    with_door(story, gateway)


@pytest.mark.parametrize("number", ["99999999999", "9" * 5_000])
def test_numbers_of_any_length_in_a_path_are_not_found(number: str) -> None:
    async def story(door: Door) -> None:
        for path in (f"{V3}/brokers/{number}", f"{V3}/topics/t/partitions/{number}", f"/topics/t/partitions/{number}"):
            answer = await door.ask("GET", path)
            assert answer.status == 404, (path, answer.body)
        answer = await door.ask("GET", f"/topics/t/partitions/0/records?offset={number}")
        assert answer.status == 400, answer.body

    gateway = FakeGateway()
    gateway.add_topic("t")
    with_door(story, gateway)
