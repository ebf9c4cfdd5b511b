"""A verdict beside what the scenario expects of it: as expected or not, and every way in which it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

import msgspec

from kraft.scenarios.checker.verdict import NOT_EXPLAINED, Range, Verdict
from kraft.scenarios.conditions import Value, World, describe_answers, parse_expression
from kraft.scenarios.expectation import parse_range
from kraft.scenarios.model import Expect


async def judge(verdict: Verdict, expect: Expect, *, names: Mapping[str, Value], world: World) -> Verdict:
    """`world` answers for the cluster as it is after everything has healed."""
    problems = [problem async for problem in _wrong_counts(verdict, expect, names)]
    problems += _wrong_anomalies(verdict, expect)
    problems += _wrong_causes(verdict, expect)
    for text in expect.holds:
        holds, answers = await parse_expression(text).look(world, names)
        if not holds:
            problems.append(f"at the end {text} does not hold: {_told(text, answers, names)}")
    expected = expect.model_dump(mode="json") | {
        name: parse_range(text).explain(names) for name, text in expect.ranges().items()
    }
    return verdict.judged(expected=expected, as_expected=not problems, problems=tuple(problems))


async def _wrong_counts(verdict: Verdict, expect: Expect, names: Mapping[str, Value]) -> AsyncIterator[str]:
    counts = msgspec.to_builtins(verdict.counts)
    for name, text in expect.ranges().items():
        expected = parse_range(text)
        if not await expected.holds(counts[name], names):
            yield f"{name.replace('_', ' ')}: {counts[name]} records, expected {expected.explain(names)}"


def _wrong_anomalies(verdict: Verdict, expect: Expect) -> Iterator[str]:
    for anomaly in verdict.anomalies:
        if str(anomaly.kind) not in expect.anomalies:
            yield f"anomaly {anomaly.kind}: {anomaly.text}"


def _wrong_causes(verdict: Verdict, expect: Expect) -> Iterator[str]:
    ranges: list[Range] = [*verdict.losses, *verdict.duplicates, *verdict.reorders]
    for entry in ranges:
        if not entry.explained:
            what = f"{entry.records} records of {entry.topic}-{entry.partition}"
            yield f"{what} ({entry.first_value} to {entry.last_value}): {NOT_EXPLAINED}"
    told = [f"{entry.reason} {entry.cause}" for entry in ranges]
    for wanted in expect.causes:
        if not any(wanted in cause for cause in told):
            yield f"no cause speaks of {wanted!r}: {'; '.join(told) or 'nothing was lost, duplicated or reordered'}"


def _told(text: str, answers: Mapping[str, Value], names: Mapping[str, Value]) -> str:
    expression = parse_expression(text)
    bound = {name: names.get(name) for name in sorted(expression.free | (expression.mentioned & names.keys()))}
    return describe_answers({**bound, **answers})
