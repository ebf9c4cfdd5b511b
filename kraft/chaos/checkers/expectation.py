"""The verdict compared with the expectation of the scenario, and a sentence for each difference."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kraft.chaos.checkers.verdict import NOT_EXPLAINED, Range, Verdict
from kraft.chaos.model import Between, Expect, Measured
from kraft.chaos.questions import Now, described, holds, written


def judge(verdict: Verdict, expect: Expect, *, now: Now) -> Verdict:
    """`now` has the state of the cluster after healing."""
    problems = [*_wrong_counts(verdict, expect), *_wrong_anomalies(verdict, expect), *_wrong_causes(verdict, expect)]
    for condition in expect.holds:
        now.answers.clear()
        if not holds(condition, now):
            problems.append(f"at the end {written(condition)} does not hold: {described(condition, now.answers)}")
    expected: dict[str, object] = {name: str(count) for name, count in expect.counts().items()}
    expected |= {
        "anomalies": [str(kind) for kind in expect.anomalies],
        "causes": list(expect.causes),
        "holds": [written(condition) for condition in expect.holds],
    }
    return verdict.judged(expected=expected, as_expected=not problems, problems=tuple(problems))


def _wrong_counts(verdict: Verdict, expect: Expect) -> Iterator[str]:
    counts = msgspec.to_builtins(verdict.counts)
    for name, expected in expect.counts().items():
        found = counts[name]
        if isinstance(expected, Measured):
            yield f"{name.replace('_', ' ')}: {found} records; the story did not set {expected}"
        elif not (expected.holds(found) if isinstance(expected, Between) else found == expected):
            yield f"{name.replace('_', ' ')}: {found} records, expected {expected}"


def _wrong_anomalies(verdict: Verdict, expect: Expect) -> Iterator[str]:
    for anomaly in verdict.anomalies:
        if str(anomaly.kind) not in expect.anomalies:
            yield f"anomaly {anomaly.kind}: {anomaly.text}"


def _wrong_causes(verdict: Verdict, expect: Expect) -> Iterator[str]:
    ranges: list[Range] = [*verdict.losses, *verdict.duplicates, *verdict.reorders, *verdict.redeliveries]
    ranges += [*verdict.archives, *verdict.expiries, *verdict.too_old]
    for entry in ranges:
        if not entry.explained:
            what = f"{entry.records} records of {entry.topic}-{entry.partition}"
            yield f"{what} ({entry.first_value} to {entry.last_value}): {NOT_EXPLAINED}"
    causes = [f"{entry.reason} {entry.cause}" for entry in ranges]
    for wanted in expect.causes:
        if not any(wanted in cause for cause in causes):
            yield f"no cause speaks of {wanted!r}: {'; '.join(causes) or 'nothing was lost, duplicated or reordered'}"
