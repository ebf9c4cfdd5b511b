"""A verdict beside what its scenario expects: each way to differ is a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kraft.chaos.checkers.expectation import judge
from kraft.chaos.checkers.verdict import Anomaly, Counts, Kind, Operations, Range, Verdict
from kraft.chaos.model import Between, Expect, Measured
from kraft.chaos.questions import Now

NOW = Now(lambda question, arguments: {"leader": 2, "failed": 0}[question])
OLD = 1
LOSS = Range(
    topic="t",
    partition=0,
    records=19,
    acks="1",
    first_value="p1:1",
    last_value="p1:19",
    at_us=5,
    cause="node 1 truncated them when it came back",
    reason="truncated",
)


def verdict(**changes: Any) -> Verdict:
    fields: dict[str, Any] = {"counts": Counts(kept=100, lost=19), "losses": (LOSS,)} | changes
    return Verdict(scenario="s", seed=1, operations=Operations(), **fields)


def judged(found: Verdict, expect: Expect) -> Verdict:
    return judge(found, replace(expect, reordered=0), now=NOW)


def test_as_expected() -> None:
    result = judged(verdict(), Expect(lost=19, kept=100, causes=("truncated them", "truncated")))
    assert result.as_expected is True
    assert result.problems == ()


@pytest.mark.parametrize(
    ("found", "expect", "problem"),
    [
        (verdict(), Expect(), "lost: 19 records, expected 0"),
        (verdict(), Expect(lost=18), "lost: 19 records, expected 18"),
        (verdict(), Expect(lost=Between(low=20)), "lost: 19 records, expected at least 20"),
        (verdict(), Expect(lost=Between(low=1, high=18)), "lost: 19 records, expected 1 to 18"),
        (verdict(), Expect(lost=Measured("unreplicated")), "19 records; the story did not set unreplicated"),
        (verdict(), Expect(lost=19, kept=99), "kept: 100 records, expected 99"),
        (verdict(counts=Counts(kept=1, phantom=2), losses=()), Expect(), "phantom: 2 records, expected 0"),
        (verdict(counts=Counts(), losses=()), Expect(), "kept: 0 records, expected at least 1"),
        (
            verdict(),
            Expect(lost=19, holds=(lambda now: now.leader("t", 0) == OLD,)),
            "now.leader('t', 0) == OLD does not hold: leader(t, 0) is 2",
        ),
        (verdict(), Expect(lost=19, causes=("power",)), "no cause speaks of 'power': truncated node 1 truncated"),
        (
            verdict(
                losses=(Range(topic="t", partition=0, records=19, acks="1", first_value="a", last_value="b", at_us=1),)
            ),
            Expect(lost=19),
            "19 records of t-0 (a to b): no cause found",
        ),
        (
            verdict(anomalies=(Anomaly(kind=Kind.TWO_LEADERS, text="nodes 1 and 2 led"),)),
            Expect(lost=19),
            "anomaly two_leaders: nodes 1 and 2 led",
        ),
    ],
)
def test_not_as_expected(found: Verdict, expect: Expect, problem: str) -> None:
    result = judged(found, expect)
    assert result.as_expected is False
    assert any(problem in reported for reported in result.problems), result.problems


def test_anomalies_that_belong_to_the_story() -> None:
    found = verdict(anomalies=(Anomaly(kind=Kind.READ_VANISHED, text="x", cause="unclean election", explained=True),))
    assert judged(found, Expect(lost=19, anomalies=(Kind.READ_VANISHED,))).as_expected
