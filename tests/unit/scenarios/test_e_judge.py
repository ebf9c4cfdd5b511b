"""A verdict beside what its scenario expects: each way to differ is a sentence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kraft.scenarios.checker.verdict import Anomaly, Counts, Kind, Operations, Range, Verdict
from kraft.scenarios.judge import judge
from kraft.scenarios.model import Expect


class World:
    async def ask(self, function: str, arguments: tuple[Any, ...]) -> Any:
        return {"leader": 2, "failed": 0}[function]


LOSS = Range(
    topic="t",
    partition=0,
    records=19,
    acks="1",
    first_value="p1:1",
    last_value="p1:19",
    at_us=5,
    cause="node 1 cut them off when it came back",
    reason="truncated",
)


def verdict(**changes: Any) -> Verdict:
    fields: dict[str, Any] = {"counts": Counts(kept=100, lost=19), "losses": (LOSS,)} | changes
    return Verdict(scenario="s", seed=1, operations=Operations(), **fields)


def judged(found: Verdict, **expect: Any) -> Verdict:
    names = {"unreplicated": 19, "old": 1}
    return asyncio.run(judge(found, Expect.model_validate(expect), names=names, world=World()))


def test_as_expected() -> None:
    result = judged(verdict(), lost="== unreplicated", kept=100, causes=["cut them off", "truncated"])
    assert result.as_expected is True
    assert result.problems == ()


@pytest.mark.parametrize(
    ("found", "expect", "problem"),
    [
        (verdict(), {}, "lost: 19 records, expected 0"),
        (
            verdict(),
            {"lost": "== unreplicated - 1"},
            "lost: 19 records, expected == unreplicated - 1 (unreplicated = 19)",
        ),
        (verdict(), {"lost": 19, "kept": 99}, "kept: 100 records, expected 99"),
        (verdict(counts=Counts(kept=1, phantom=2), losses=()), {}, "phantom: 2 records, expected 0"),
        (verdict(counts=Counts(), losses=()), {}, "kept: 0 records, expected > 0"),
        (
            verdict(),
            {"lost": 19, "holds": ["leader(t, 0) == old"]},
            "leader(t, 0) == old does not hold: old is 1, leader(t, 0) is 2",
        ),
        (verdict(), {"lost": 19, "causes": ["power"]}, "no cause speaks of 'power': truncated node 1 cut"),
        (
            verdict(
                losses=(Range(topic="t", partition=0, records=19, acks="1", first_value="a", last_value="b", at_us=1),)
            ),
            {"lost": 19},
            "19 records of t-0 (a to b): no cause found",
        ),
        (
            verdict(anomalies=(Anomaly(kind=Kind.TWO_LEADERS, text="nodes 1 and 2 led"),)),
            {"lost": 19},
            "anomaly two_leaders: nodes 1 and 2 led",
        ),
    ],
)
def test_not_as_expected(found: Verdict, expect: dict[str, Any], problem: str) -> None:
    result = judged(found, **expect)
    assert result.as_expected is False
    assert any(problem in told for told in result.problems), result.problems


def test_anomalies_that_belong_to_the_story() -> None:
    found = verdict(anomalies=(Anomaly(kind=Kind.READ_VANISHED, text="x", cause="unclean election", explained=True),))
    assert judged(found, lost=19, anomalies=["read_vanished"]).as_expected
