"""One figure after the other, as a table for people or JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

COLUMNS = ("records/s", "requests/s", "MB/s", "p50 ms", "p95 ms", "p99 ms", "nodes CPU %", "client CPU %", "memory MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    records_per_s: float | None = None
    requests_per_s: float | None = None
    mb_per_s: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    nodes_cpu_percent: float | None = None
    client_cpu_percent: float | None = None
    memory_mb: float | None = None
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        values = tuple(asdict(self).values())[1:-1]
        return tuple(_cell(value) for value in values)

    def as_json(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if value not in (None, "")})


def percentile(sorted_values: Sequence[float], share: float) -> float:
    assert sorted_values, "no values"
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def percentiles_ms(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 of a figure in milliseconds."""
    ordered = sorted(seconds)
    return {f"{name} {label} ms": percentile(ordered, share) * 1000 for label, share in (("p50", 0.5), ("p99", 0.99))}


def header(width: int) -> str:
    return f"{'':{width}}" + "".join(f"{column:>13}" for column in COLUMNS)


def line(row: Row, width: int) -> str:
    text = f"{row.name:{width}}" + "".join(f"{cell:>13}" for cell in row.cells())
    return f"{text.rstrip()}  {row.note}".rstrip()


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
