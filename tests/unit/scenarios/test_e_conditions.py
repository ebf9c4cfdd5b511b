"""The language of conditions: what holds, what is not known, what is refused, and what a missed deadline tells."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from kraft.scenarios.conditions import BadExpression, Call, describe_answers, parse_expression
from kraft.scenarios.expectation import parse_range


class FakeWorld:
    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers

    async def ask(self, function: str, arguments: tuple[Any, ...]) -> Any:
        return self.answers.get(f"{function}{arguments}", self.answers.get(function))


def value(text: str, names: Mapping[str, Any] | None = None, **answers: Any) -> Any:
    return asyncio.run(parse_expression(text).value(FakeWorld(answers), names or {}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("isr(t, 0) == [1, 2]", True),
        ("isr(t, 0) == [1]", False),
        ("hw(t, 0) >= 100 and leader(t, 0) != 3", True),
        ("hw(t, 0) > 100 or offline(t, 0)", False),
        ("not offline(t, 0)", True),
        ("1 <= leader(t, 0) <= 2", True),
        ("leader(t, 0) in isr(t, 0)", True),
        ("leader(t, 0) not in [2, 3]", True),
        ("len(isr(t, 0)) == 2", True),
        ("hw(t, 0) - 40 == 2 * 30", True),
        ("leader of t-0 == 1", True),
        ("follower of t-0 == 2", True),
        ("last follower of t-0 == 3", True),
        ("followers of t-0 == [2, 3]", True),
        ("isr(t, 0)[-1]", 2),
        ("-hw(t, 0)", -100),
    ],
)
def test_what_holds(text: str, expected: Any) -> None:
    assert value(text, isr=[1, 2], hw=100, leader=1, offline=False, followers=[2, 3]) == expected


def test_names_that_were_remembered_win_over_themselves() -> None:
    world = {"epoch('t', 0)": 7, "epoch('u', 0)": 3}
    assert value("epoch(t, 0)", **world) == 7
    assert value("epoch(t, 0)", {"t": "u"}, **world) == 3
    assert value("old + 1", {"old": 4}) == 5


@pytest.mark.parametrize(
    "text", ["hw(t, 0) >= 1", "hw(t, 0) < 1", "hw(t, 0) - 1 > 0", "isr(t, 0)[0] != 1", "1 not in isr(t, 0)"]
)
def test_nothing_holds_of_what_is_not_known(text: str) -> None:
    assert not value(text)


def test_a_place_that_a_list_does_not_have_is_not_known() -> None:
    assert value("isr(t, 0)[4]", isr=[1]) is None


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("isrr(t, 0) == [1]", "did you mean isr"),
        ("isr(t) == [1]", "write isr(topic, partition)"),
        ("isr(t, 0) = [1]", "write it like"),
        ("__import__('os')", "there is no function __import__"),
        ("hw(t, 0).real", "compare, add"),
        ("[x for x in isr(t, 0)]", "compare, add"),
        ("lambda: 1", "compare, add"),
        ("hw(t, p=0)", "compare, add"),
        ("(lambda: 1)()", "compare, add"),
        ("2 ** 99", "compare, add"),
        ("1.5 > 1", "compare, add"),
        ("f'{1}'", "compare, add"),
        ("isr(t, 0)[0:1]", "compare, add"),
        ("x is None", "compare, add"),
        ("hw(t, 0) >= " + "1 + " * 400 + "1", "1000 at most"),
        ("a\x00b", "write it like"),
    ],
)
def test_what_is_refused_says_what_would_be_right(text: str, right: str) -> None:
    with pytest.raises(BadExpression) as caught:
        parse_expression(text)
    assert right in str(caught.value)


def test_questions_and_names_are_told_apart() -> None:
    expression = parse_expression("log_end(old, t, 0) > base and acked(p1) == len([limit])")
    assert expression.calls == (Call("log_end", ("old", "t", 0)), Call("acked", ("p1",)))
    assert expression.free == {"base", "limit"}
    assert expression.mentioned == {"old", "t", "p1"}


def test_every_part_is_asked_so_that_a_missed_deadline_can_tell_all() -> None:
    expression = parse_expression("isr(t, 0) == [1] and hw(t, 0) >= 5")
    holds, answers = asyncio.run(expression.look(FakeWorld({"isr": [1, 2]}), {}))
    assert not holds
    assert describe_answers(answers) == "isr(t, 0) is [1, 2], hw(t, 0) is not known"


@pytest.mark.parametrize(
    ("text", "fits", "does_not"),
    [
        (19, 19, 18),
        ("0", 0, 1),
        ("> 0", 1, 0),
        (">= 2", 2, 1),
        ("10..20", 20, 21),
        ("== tail", 7, 8),
        ("tail", 7, 6),
        ("<= tail + 1", 8, 9),
        ("1..tail", 1, 8),
        ("!= 3", 4, 3),
    ],
)
def test_ranges(text: int | str, fits: int, does_not: int) -> None:
    expected = parse_range(text)
    assert asyncio.run(expected.holds(fits, {"tail": 7}))
    assert not asyncio.run(expected.holds(does_not, {"tail": 7}))


def test_a_range_explains_its_names() -> None:
    assert parse_range("== tail").explain({"tail": 7}) == "== tail (tail = 7)"
    assert parse_range("> 0").explain({}) == "> 0"


@pytest.mark.parametrize("text", ["", ">", "1..", "some", "hw(t, 0)", "= 4"])
def test_what_is_no_range(text: str) -> None:
    if text == "some":
        assert parse_range(text).names == {"some"}  # whether it is bound is a matter of the scenario
        return
    with pytest.raises(BadExpression):
        parse_range(text)
