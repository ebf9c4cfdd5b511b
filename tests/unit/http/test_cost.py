"""What a small request costs: calls of our own functions, which no busy machine changes."""

from __future__ import annotations

import cProfile
import os
import pstats

import kraft
from kraft.protocol.batches.records import NewRecord, build_batch
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import JSON, Door, with_door

OURS = os.path.dirname(kraft.__file__)
REQUESTS = 20
PRODUCE_CALLS_MAX = 93
"""Of one record. Each costs a third of a microsecond; 106 were needed before anybody counted."""
READ_CALLS_MAX = 92


def calls_of(profile: cProfile.Profile) -> float:
    """For each request, within the package."""
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    return sum(calls for (path, _, _), (_, calls, *_) in stats.items() if path.startswith(OURS)) / REQUESTS


def cost_of(method: str, path: str, body: object = None, **headers: str) -> float:
    fake = FakeGateway()
    fake.add_topic("t")
    fake.log("t").append(build_batch([NewRecord(None, b"1", [], 1)]))
    found: list[float] = []

    async def story(door: Door) -> None:
        assert (await door.ask(method, path, body, **headers)).status == 200
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(REQUESTS):
            await door.ask(method, path, body, **headers)
        profile.disable()
        found.append(calls_of(profile))

    with_door(story, fake)
    return found[0]


def test_a_produce_of_one_record_takes_few_calls() -> None:
    cost = cost_of("POST", "/topics/t/partitions/0", {"records": [{"value": 1}]}, Content_Type=JSON)
    assert cost <= PRODUCE_CALLS_MAX, cost


def test_a_read_of_one_record_takes_few_calls() -> None:
    cost = cost_of("GET", "/topics/t/partitions/0/records?offset=0", Accept=JSON)
    assert cost <= READ_CALLS_MAX, cost
