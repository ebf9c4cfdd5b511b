"""Prometheus metrics of one node, in a registry of its own, so that several nodes can live in one process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kraft.broker.measures import Measure

GaugeValues = Mapping[str, float]
"""Gauge name without the `kraft_` prefix -> value, asked for at each scrape."""

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_BOUNDS = (*(str(bound) for bound in LATENCY_BUCKETS_S), "+Inf")


class _Provided(Collector):
    def __init__(self, values: Callable[[], GaugeValues]) -> None:
        self._values = values

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, value in self._values().items():
            yield GaugeMetricFamily(f"kraft_{name}", name.replace("_", " ").capitalize() + ".", value=value)


class _Measured(Collector):
    """What other parts of the node have counted, with labels."""

    def __init__(self, measures: Callable[[], Iterable[Measure]]) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        for each in self._measures():
            kind = CounterMetricFamily if each.kind == "counter" else GaugeMetricFamily
            family = kind(f"kraft_{each.name}", each.text, labels=each.labels)
            for labels, value in each.samples:
                family.add_metric(labels, value)
            yield family


class Count:
    """A counter without labels. The event loop alone counts, so that it needs no lock."""

    __slots__ = ("name", "text", "value")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.value = 0

    def inc(self, amount: int) -> None:
        self.value += amount


class _Answers:
    """Answers of one route: how many of each status, and how long they took."""

    __slots__ = ("buckets", "by_status", "seconds")

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}
        self.buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        """Those up to each of LATENCY_BUCKETS_S and above the one before, then the slower ones."""
        self.seconds = 0.0

    def observe(self, status: int, seconds: float) -> None:
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self.seconds += seconds


class _Counted(Collector):
    def __init__(self, counts: Sequence[Count], answers: Mapping[tuple[str, str], _Answers]) -> None:
        self._counts = counts
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "kraft_http_requests", "Requests answered.", labels=("method", "route", "status")
        )
        latency = HistogramMetricFamily(
            "kraft_http_request_seconds", "From the first header to the answer.", labels=("method", "route")
        )
        for labels, answers in self._answers.items():
            for status, count in answers.by_status.items():
                requests.add_metric((*labels, str(status)), count)
            if answers.by_status:
                cumulative = zip(_BOUNDS, accumulate(answers.buckets), strict=True)
                latency.add_metric(labels, list(cumulative), answers.seconds)
        yield requests
        yield latency
        for each in self._counts:
            yield CounterMetricFamily(each.name, each.text, value=each.value)


class Metrics:
    """The metrics of one node: `values` are asked for gauges and `measures` for all others, each time they are read."""

    def __init__(self, values: Callable[[], GaugeValues], measures: Callable[[], Iterable[Measure]] = tuple) -> None:
        self.registry = CollectorRegistry()
        self._answers: dict[tuple[str, str], _Answers] = {}
        self.produced_bytes = Count("kraft_http_produced_bytes", "Bytes of batches given on.")
        self.produced_records = Count("kraft_http_produced_records", "Records in JSON produce requests.")
        self.fetched_bytes = Count("kraft_http_fetched_bytes", "Bytes of batches read.")
        counts = (self.produced_bytes, self.produced_records, self.fetched_bytes)
        self.registry.register(_Counted(counts, self._answers))
        self.bodies_bytes = Gauge("kraft_http_bodies_bytes", "Request bodies held now.", registry=self.registry)
        self.registry.register(_Provided(values))
        self.registry.register(_Measured(measures))

    def observer(self, method: str, route: str) -> Callable[[int, float], None]:
        """A function that counts one answer: (status, seconds). A route that was never asked has no series."""
        return self._answers.setdefault((method, route), _Answers()).observe

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
