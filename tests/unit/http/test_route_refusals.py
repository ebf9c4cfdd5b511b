"""Routes that cannot be, over REST: a status, a sentence that says what would be right, and nothing changed."""

from __future__ import annotations

from typing import Any

import pytest

from metadata.records import RouteBindingRecord, RouteRecord
from metadata.routes import RouteKind
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import PLAIN, V3, Door, with_door

NEW, CHANGE = f"{V3}/routes", f"{V3}/routes/orders/bindings:alter"


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"route_name": name, "kind": "pattern", **more}


def bound(key: str, topic: str) -> dict[str, Any]:
    return {"add": [{"binding_key": key, "topic_name": topic}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (
            NEW,
            named("s", bindings=[{"binding_key": "k", "topic_name": "s"}]),
            400,
            "cannot be bound to itself: bind it to topics",
        ),
        (CHANGE, bound("k", "orders"), 400, "cannot be bound to itself"),
        (CHANGE, bound("k", "others"), 400, "so that no record goes in circles"),
        (CHANGE, bound("a*", "mails"), 400, "so they stand alone between dots, and 'a*' would match nothing"),
        (CHANGE, bound("k", "__consumer_offsets"), 422, "an internal topic: nobody but the cluster writes to it"),
        (CHANGE, bound("k", "nowhere"), 404, "create it before it is bound"),
        (CHANGE, bound("x" * 256, "mails"), 400, "has at most 255 characters"),
        (NEW, named("mails"), 400, "a route has a name that no topic has"),
        (NEW, named("a b"), 400, "a route has a name that a topic may have"),
        (NEW, {"route_name": "s", "kind": "topic"}, 400, "kind should be 'direct', 'pattern' or 'fanout'"),
        (NEW, {"route_name": "s"}, 400, "kind must be there"),
        (f"{V3}/routes/nobody/bindings:alter", bound("k", "mails"), 404, "there is no route 'nobody'"),
    ],
)
def test_refused_in_words(path: str, body: dict[str, Any], status: int, said: str) -> None:
    fake = FakeGateway()
    fake.add_topic("mails")
    fake.add_topic("__consumer_offsets")
    for name in ("orders", "others"):
        fake.apply(RouteRecord(name=name, kind=RouteKind.PATTERN))
        fake.apply(RouteBindingRecord(route=name, key="k", topic="mails"))
    before = fake.image.routes

    async def story(door: Door) -> None:
        answer = await door.ask("POST", path, body, Content_Type=PLAIN)
        assert (answer.status, said in answer.json["message"]) == (status, True), answer.json
        assert fake.image.routes == before

    with_door(story, fake)
