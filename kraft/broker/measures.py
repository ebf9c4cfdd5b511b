"""What a part of a node measures, as plain data: `/metrics` shows it, whoever counted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


class Measure(NamedTuple):
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
    """What the HTTP listener tells about the Kafka one."""

    measures: Callable[[], Sequence[Measure]] = tuple
    clients: Callable[[], Mapping[tuple[str, str, str], int]] = dict
    """Connections by listener, library and its version."""


NO_KAFKA_PORT = KafkaPort()
