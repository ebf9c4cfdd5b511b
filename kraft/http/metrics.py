"""Prometheus metrics of one node, in a registry of its own, so that several nodes can live in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kraft.broker.measures import Measure

GaugeValues = Mapping[str, float]
"""Gauge name without the `kraft_` prefix -> value, asked for at each scrape."""

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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


class Metrics:
    """The metrics of one node: `values` are asked for gauges and `measures` for all others, each time they are read."""

    def __init__(self, values: Callable[[], GaugeValues], measures: Callable[[], Iterable[Measure]] = tuple) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "kraft_http_requests", "Requests answered.", (*labels, "status"), registry=self.registry
        )
        self._latency = Histogram(
            "kraft_http_request_seconds",
            "From the first header to the answer.",
            labels,
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.produced_bytes = Counter("kraft_http_produced_bytes", "Bytes of batches given on.", registry=self.registry)
        self.produced_records = Counter(
            "kraft_http_produced_records", "Records in JSON produce requests.", registry=self.registry
        )
        self.fetched_bytes = Counter("kraft_http_fetched_bytes", "Bytes of batches read.", registry=self.registry)
        self.bodies_bytes = Gauge("kraft_http_bodies_bytes", "Request bodies held now.", registry=self.registry)
        self.registry.register(_Provided(values))
        self.registry.register(_Measured(measures))

    def observer(self, method: str, route: str) -> Callable[[int, float], None]:
        """A function that counts one answer: (status, seconds). A route that was never asked has no series."""
        by_status: dict[int, Counter] = {}
        latency: Histogram | None = None

        def observe(status: int, seconds: float) -> None:
            nonlocal latency
            if latency is None:
                latency = self._latency.labels(method, route)
            counter = by_status.get(status)
            if counter is None:
                counter = by_status[status] = self._requests.labels(method, route, str(status))
            counter.inc()
            latency.observe(seconds)

        return observe

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
