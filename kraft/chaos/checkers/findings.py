"""Anomalies, one for each kind, partition and permitted cause, with a count; the text describes the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kraft.chaos.checkers.verdict import NOT_EXPLAINED, Anomaly, Kind

FINDINGS_MAX: Final = 1_000
"""More different anomalies than this are only counted, with the last that was kept."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a record is lost. Without a reason, `text` contains the known facts, and no rule permits the loss."""

    reason: str
    text: str

    @property
    def cause(self) -> str:
        return self.text or NOT_EXPLAINED


UNEXPLAINED: Final = Explanation("", "")


class Findings:
    def __init__(self) -> None:
        self._found: dict[tuple[Kind, str, int, str], Anomaly] = {}
        self._more: dict[tuple[Kind, str, int, str], int] = {}

    def add(
        self,
        kind: Kind,
        text: str,
        *,
        topic: str = "",
        partition: int = -1,
        offset: int | None = None,
        at_us: int | None = None,
        explanation: Explanation = UNEXPLAINED,
    ) -> None:
        key = (kind, topic, partition, explanation.cause if explanation.reason else "")
        if key in self._found or len(self._found) >= FINDINGS_MAX:
            if key not in self._found:
                key = next(reversed(self._found))
            self._more[key] = self._more.get(key, 0) + 1
            return
        self._found[key] = Anomaly(
            kind=kind,
            text=text,
            topic=topic,
            partition=partition,
            offset=offset,
            at_us=at_us,
            cause=explanation.cause,
            explained=bool(explanation.reason),
        )

    def anomalies(self) -> tuple[Anomaly, ...]:
        return tuple(
            Anomaly(
                kind=found.kind,
                text=found.text,
                topic=found.topic,
                partition=found.partition,
                offset=found.offset,
                at_us=found.at_us,
                occurrences=1 + self._more.get(key, 0),
                cause=found.cause,
                explained=found.explained,
            )
            for key, found in self._found.items()
        )
