"""No body of a request is a fault of ours: whatever is posted to whatever route, the answer is no 500."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import msgspec
import pytest
from pydantic import BaseModel

from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.routing import Transactions
from kraft.http.endpoint import Route
from kraft.http.routes import ALL_ROUTES
from kraft.http.v2.consumers_routes import consumer_routes
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.consumer_groups import group_routes
from kraft.http.v3.transactions import transaction_admin_routes
from kraft.protocol.errors import CoordinatorNotAvailable
from tests.support.fake_gateway import FakeGateway
from tests.unit.decoders.hostile import NASTY
from tests.unit.http.door import Door, with_door

BODIES = 40
"""Of each route."""
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 2**70, -(2**63) - 1, 1.5, 1e308, "", "x", "\u0000", "é\ud800", "9" * 400, "YQ==",
    [], [None], [[]], [{}], {}, {"type": "JSON", "data": {}}, {"x": [1]}, "t", ["t"], {"a": {"b": {"c": []}}},
)  # fmt: skip
PLACES = {
    "cluster": "test-cluster",
    "cluster_id": "test-cluster",
    "topic": "t",
    "partition": "0",
    "broker": "1",
    "group": "g",
}


class _Away:
    """A coordinator that nobody reaches: what was decoded well is answered 503."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def ask(*_arguments: object, **_options: object) -> object:
            raise CoordinatorNotAvailable("away")

        return ask


AWAY = cast(Groups, _Away())
EXTRA = (
    *consumer_routes(AWAY, random.Random(0)),
    *group_routes(AWAY),
    *transaction_routes(cast(Transactions, AWAY), AWAY),
    *transaction_admin_routes(cast(Transactions, AWAY), AWAY.write),  # type: ignore[attr-defined]
)
ROUTES = [route for route in (*ALL_ROUTES, *EXTRA) if route.body is not None and not route.streams_body]


def path_of(route: Route) -> str:
    parts = []
    for part in route.path.split("/"):
        name = part.strip("{}").partition(":")[0]
        parts.append(PLACES.get(name, "x") if part.startswith("{") else part)
    return "/".join(parts)


def names_of(model: Any) -> Iterator[str]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            yield field.alias or name


def bodies(route: Route, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    assert route.body is not None
    for number in range(BODIES):
        media, model = rng.choice(list(route.body.content.items()))
        names = list(names_of(model)) or ["records", "key", "value"]
        document = {name: rng.choice(VALUES) for name in names if rng.random() < 0.7}
        if number % 4 == 0:
            document = {name: rng.choice(([document], {"x": document}, document)) for name in names}
        whole = _encoded(document)
        if number % 3 == 0:
            at = rng.randrange(len(whole) + 1)
            whole = whole[:at] + rng.choice(NASTY) + whole[at + rng.randrange(4) :]
        yield media, whole


def _encoded(document: Any) -> bytes:
    """With numbers and strings that no JSON library writes."""
    return (
        msgspec.json.encode(_plain(document)).replace(b'"2^70"', str(2**70).encode()).replace(b'"lone"', b'"\\ud800"')
    )


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case bool() | float() | None:
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else "2^70"
        case str():
            return "lone" if "\ud800" in value else value
    raise AssertionError(value)


@pytest.mark.parametrize("is_strict", [False, True])
def test_no_body_is_a_fault_of_ours(is_strict: bool) -> None:
    fake = FakeGateway()
    fake.add_topic("t")

    async def story(door: Door) -> None:
        statuses: dict[int, int] = {}
        for route in ROUTES:
            if is_strict and route.is_alias:
                continue
            rng = random.Random(route.method + route.path)
            for media, body in bodies(route, rng):
                answer = await door.ask(route.method, path_of(route), body, Content_Type=media)
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                assert answer.status < 500 or answer.status in (501, 503), (route.method, route.path, body, answer.body)
        assert statuses.get(422, 0) > 100, statuses
        assert statuses.get(400, 0) > 50, statuses

    with_door(story, fake, is_strict=is_strict, extra_routes=EXTRA)
