"""What a part of a node measures, as plain data: `/metrics` shows the measures of all parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kraft.broker.answer_budget import AnswerBudget


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric with labels."""

    name: str
    """Without the `kraft_` prefix, and without `_total`."""
    text: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    samples: Sequence[tuple[tuple[str, ...], float]]
    """Values of the labels, and what was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaPort:
    """The part of the Kafka listener that the HTTP listener reports, and shares with it."""

    measures: Callable[[], Sequence[Measure]] = tuple
    clients: Callable[[], Mapping[tuple[str, str, str], int]] = dict
    """Connections by listener, library and its version."""
    answers: AnswerBudget | None = None
    """Memory of answers, which both share."""


NO_KAFKA_PORT = KafkaPort()
