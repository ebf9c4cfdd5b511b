"""Until a node's metadata has caught up with the quorum nobody is told anything from it; health and docs answer."""

from __future__ import annotations

import random
from typing import cast

import pytest

from kraft.broker.txn_markers import WriteMarkers
from kraft.chaos.workload.requests import cannot_now, fetched
from kraft.chaos.workload.requests import produce_result as reported_by_scenario
from kraft.cli.rest import is_busy
from kraft.client.response import ALWAYS, Answer, Untouched, judge
from kraft.client.response import read_produce_response as reported_by_client
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.routing import Transactions
from kraft.events import EventRing
from kraft.http.app import ROUTES
from kraft.http.endpoint import Route
from kraft.http.events import event_routes
from kraft.http.parameters import parameters_in
from kraft.http.readiness import AWAITS_HEADER
from kraft.http.replicas import replica_routes
from kraft.http.users import user_routes
from kraft.http.v2.consumers_routes import consumer_routes
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.consumer_groups import group_routes
from kraft.http.v3.transactions import transaction_admin_routes
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import JSON, Door, with_door
from tests.unit.http.waits import Waits

EARLY = {
    "/", "/healthz", "/readyz", "/healthy", "/ready", "/status/ready", "/_health", "/metrics", "/kraft/status",
    "/kraft/events", "/docs", "/docs/{asset}", "/console", "/console/{file}", "/openapi.json", "/openapi",
    "/openapi/v3",
}  # fmt: skip
NO_GROUPS = cast(Groups, None)
"""Nothing that is closed may ask them."""
EXTRA = (
    *consumer_routes(NO_GROUPS, random.Random(0)),
    *transaction_routes(cast(Transactions, None), NO_GROUPS),
    *transaction_admin_routes(cast(Transactions, None), cast(WriteMarkers, None)),
    *group_routes(NO_GROUPS),
    *user_routes(lambda name: False, random.Random(1)),
    *replica_routes(dict),
    *event_routes(EventRing(lambda: 0), incarnation="i"),
)
PARAMETERS = {
    "topic": "t",
    "asset": "kraft.css",
    "file": "console.js",
    "cluster_id": "test-cluster",
    "name": "retention.ms",
}
WAITS = "the quorum\r\nhas no lêader yet"


def gateway() -> FakeGateway:
    fake = FakeGateway()
    fake.add_topic("t", 1)
    return fake


def path_of(route: Route) -> str:
    values = {name: PARAMETERS.get(name, "0") for name in parameters_in(route.path)}
    return route.path.format(**values)


@pytest.mark.parametrize("is_strict", [False, True])
def test_every_declared_route_is_closed_but_those_that_are_named_here(is_strict: bool) -> None:
    async def story(door: Door) -> None:
        routes: tuple[Route, ...] = door.app[ROUTES]
        assert {route.path for route in routes if route.answers_early} == EARLY & {route.path for route in routes}
        assert len(routes) > 50
        for route in routes:
            answer = await door.ask(route.method, path_of(route), b"{}" if route.body else None, **ALWAYS)
            if route.path in EARLY:
                expected = (503,) if route.path.endswith(("/ready", "/readyz")) else (200,)
                assert answer.status in expected, route
                assert answer.headers[AWAITS_HEADER] == "the quorum has no l\\xeaader yet"
            else:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), route
                assert answer.json["error_code"] == 50302, route
                assert (answer.json["kafka_code"], answer.json["retriable"]) == (5, True)
                assert "has no lêader yet" in answer.json["message"]
        assert not door.gateway.requests
        assert not door.gateway.produced

    options = {"awaiting": Waits(service=WAITS, metadata=WAITS), "extra_routes": EXTRA, "is_strict": is_strict}
    with_door(story, gateway(), **options)


def test_a_body_that_waits_for_100_continue_is_refused_before_it_is_sent() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", "/topics/t", b'{"records": []}', Expect="100-continue")
        assert answer.status == 503

    with_door(story, gateway(), awaiting=Waits(service="a quorum", metadata="a quorum"))


def test_caught_up_node_answers_without_quorum() -> None:
    async def story(door: Door) -> None:
        topics = await door.ask("GET", "/topics")
        assert (topics.status, topics.json) == (200, ["t"])
        status = await door.ask("GET", "/kraft/status")
        assert status.json["awaits"] == "a leader"
        assert AWAITS_HEADER not in status.headers
        assert (await door.ask("GET", "/readyz")).status == 503
        assert (await door.ask("GET", "/healthz")).json == {"status": "ok", "reason": "a leader"}

    with_door(story, gateway(), awaiting=Waits(service="a leader"))


def test_it_opens_when_the_metadata_has_caught_up() -> None:
    waits = Waits(service="a leader", metadata="a leader")

    async def story(door: Door) -> None:
        assert (await door.ask("GET", "/topics/t")).status == 503
        waits.what_metadata = waits.what_service = ""
        assert (await door.ask("GET", "/topics/t")).status == 200
        status = await door.ask("GET", "/kraft/status")
        assert status.json["awaits"] is None

    with_door(story, gateway(), awaiting=waits)


def test_own_clients_retry_after_refusal() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", "/topics/t", {"records": [{"value": 1}]}, Content_Type=JSON)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        refusal = Answer(status=answer.status, headers=headers, body=answer.body)
        assert judge(refusal) == Untouched(reason=answer.json["message"], retry_after_ms=1_000)
        assert is_busy(refusal)
        reported = reported_by_client(refusal, acks="all")
        assert (reported.outcome, reported.may_retry, reported.retry_after_ms) == ("fail", True, 1_000)
        seen = reported_by_scenario(refusal, acks="all")
        assert (seen.outcome, seen.may_try_again, cannot_now(refusal)) == ("fail", True, True)
        assert fetched(refusal).outcome == "fail"

    with_door(story, gateway(), awaiting=Waits(service="a quorum", metadata="a quorum"))
