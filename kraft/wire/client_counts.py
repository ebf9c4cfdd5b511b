"""What Kafka clients asked of this node, counted by API and by client id, for /metrics.

A client chooses its id, so only the first `CLIENT_IDS_MAX` have a count each; the rest are counted together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kraft.broker.measures import Measure
from kraft.protocol import apis
from kraft.protocol.text import visible
from kraft.wire.api_handler import ClientConnection

CLIENT_IDS_MAX = 100
CLIENT_ID_LENGTH_MAX = 64
SOFTWARE_MAX = 50
"""Libraries and versions that have a count each among the connections."""
OTHERS = "(others)"
_NAMES: Mapping[int, str] = {api.key: api.name for api in apis.BY_KEY.values() if api.clients}


class _Sum:
    __slots__ = ("answered_bytes", "answers", "requests", "requests_bytes", "us")

    def __init__(self) -> None:
        self.requests = self.requests_bytes = self.answers = self.answered_bytes = self.us = 0


Labelled = Mapping[tuple[str, ...], _Sum]


class ClientCounts:
    """Counters of requests, bytes and the time until the answer, by API and by client id."""

    def __init__(self) -> None:
        self._apis: dict[int, _Sum] = {}
        self._clients: dict[str, _Sum] = {}
        self.refused = 0
        """Connections beyond a limit, or without what their listener demands."""

    def begun(self, api_key: int, client_id: str | None, size: int) -> str:
        """Counts a request of `size` bytes; returns the name under which its client is counted."""
        name = visible(client_id[:CLIENT_ID_LENGTH_MAX], keep="") if client_id else ""
        client = self._clients.get(name)
        if client is None:
            if len(self._clients) >= CLIENT_IDS_MAX:
                name = OTHERS
            client = self._clients.setdefault(name, _Sum())
        api = self._apis.get(api_key)
        if api is None:
            api = self._apis.setdefault(api_key if api_key in _NAMES else -1, _Sum())
        api.requests += 1
        api.requests_bytes += size
        client.requests += 1
        client.requests_bytes += size
        return name

    def answered(self, api_key: int, client: str, size: int, us: int) -> None:
        """Counts an answer of `size` bytes that went out `us` microseconds after its request had begun."""
        for found in (self._apis[api_key], self._clients[client]):
            found.answers += 1
            found.answered_bytes += size
            found.us += us

    def measures(self, connections: Iterable[ClientConnection]) -> Sequence[Measure]:
        """All counters as metrics; `connections` are those that are open now, counted by their software (KIP-511)."""
        apis: Labelled = {(_NAMES.get(key, "unknown"),): each for key, each in sorted(self._apis.items())}
        clients: Labelled = {(name,): each for name, each in self._clients.items()}
        return (
            *_sums("kafka_requests", "of Kafka clients, by API", ("api",), apis),
            *_sums("kafka_client_requests", "of Kafka clients, by client.id", ("client_id",), clients),
            Measure(
                "kafka_connections",
                "Open connections of Kafka clients.",
                "gauge",
                ("listener", "software", "version"),
                [(labels, float(count)) for labels, count in software(connections).items()],
            ),
            Measure(
                "kafka_connections_refused",
                "Beyond a limit, or without TLS.",
                "counter",
                (),
                [((), float(self.refused))],
            ),
        )


def software(connections: Iterable[ClientConnection]) -> Mapping[tuple[str, str, str], int]:
    """Connections by listener, name and version of the client's library; the rarest are counted together."""
    found = Counter(
        (each.listener, visible(each.software_name, keep=""), visible(each.software_version, keep=""))
        for each in connections
    )
    most = dict(found.most_common(SOFTWARE_MAX))
    rest = sum(found.values()) - sum(most.values())
    return most | ({(OTHERS, OTHERS, OTHERS): rest} if rest else {})


def _sums(name: str, what: str, labels: tuple[str, ...], found: Labelled) -> Sequence[Measure]:
    def measure(suffix: str, text: str, value: Mapping[tuple[str, ...], float]) -> Measure:
        return Measure(name + suffix, f"{text} {what}.", "counter", labels, list(value.items()))

    return (
        measure("", "Requests", {label: each.requests for label, each in found.items()}),
        measure("_bytes", "Bytes of requests", {label: each.requests_bytes for label, each in found.items()}),
        measure("_answers", "Answers to requests", {label: each.answers for label, each in found.items()}),
        measure("_answer_bytes", "Bytes of answers", {label: each.answered_bytes for label, each in found.items()}),
        measure("_seconds", "Time from request to answer", {label: each.us / 1e6 for label, each in found.items()}),
    )
