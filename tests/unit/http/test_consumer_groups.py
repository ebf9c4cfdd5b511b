"""v3 consumer groups: Confluent's names of what a group's coordinator says."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.http.v3.consumer_groups import group_routes
from tests.unit.http.door import V3, Door, with_door


class OneGroup:
    """Groups of which there is one, `g`."""

    def __init__(self, **described: Any) -> None:
        known: dict[str, Any] = {"protocol_type": "consumer", "protocol": "range", "generation": 3, "coordinator": 1}
        self._described = a.GroupDescription(group="g", members=(), offsets=(), **{**known, **described})

    async def list_all(self) -> list[a.GroupListing]:
        return [a.GroupListing(group="g", state=self._described.state, protocol_type="consumer")]

    async def ask(self, request: r.Request) -> a.Answer:
        assert request == r.DescribeGroup(group="g")
        return self._described


def described(**group: Any) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def story(door: Door) -> None:
        one = await door.ask("GET", f"{V3}/consumer-groups/g")
        every = await door.ask("GET", f"{V3}/consumer-groups")
        assert (one.status, every.status) == (200, 200), (one.body, every.body)
        assert every.json["data"] == [one.json]
        found.append(one.json)

    with_door(story, extra_routes=group_routes(cast(Groups, OneGroup(**group))))
    return found[0]


@pytest.mark.parametrize(
    ("kind", "kafka", "confluent"),
    [
        ("classic", "Empty", "EMPTY"),
        ("classic", "PreparingRebalance", "PREPARING_REBALANCE"),
        ("classic", "CompletingRebalance", "COMPLETING_REBALANCE"),
        ("classic", "Stable", "STABLE"),
        ("classic", "Dead", "DEAD"),
        ("consumer", "Empty", "EMPTY"),
        ("consumer", "Assigning", "ASSIGNING"),
        ("consumer", "Reconciling", "RECONCILING"),
        ("consumer", "Stable", "STABLE"),
    ],
)
def test_a_group_of_either_protocol_has_confluents_name_of_its_state(kind: str, kafka: str, confluent: str) -> None:
    found = described(group_type=kind, state=kafka)
    assert (found["state"], found["type"], found["is_mixed_consumer_group"]) == (confluent, kind.upper(), False)


def test_a_group_with_members_of_both_protocols_is_mixed() -> None:
    assert described(group_type="consumer", state="Stable", is_mixed=True)["is_mixed_consumer_group"] is True
