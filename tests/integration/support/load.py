"""Clients that write while a test breaks things, and the verdict on every record afterwards.

One client per partition, one request under way per client, so that the order of acknowledgements is the order of
sending. A record that was surely not written is sent again, to the next node; one whose fate is unknown never is. So
each value is in the log at most once, and in the order of its number.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Refused, Request
from tests.integration.support.cluster import Cluster
from tests.integration.support.reading import TEXT, Record, read_all
from tests.integration.support.waiting import wait_until

RECORDS_PER_REQUEST = 5
PAUSE_AFTER_FAILURE_S = 0.05
REQUEST_TIMEOUT_MS = 20_000


@dataclass
class Client:
    """One partition's writer. Its lists grow by its own thread only."""

    topic: str
    partition: int
    acks: str
    urls: list[str]
    pause_s: float = 0.0
    """After each request."""
    acknowledged: dict[int, str] = field(default_factory=dict)
    """Offset -> value, in order of acknowledgement."""
    unknown: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    """Answers that were no success, and broken connections; a refused connection is none."""
    longest_gap_s: float = 0.0
    last_ack_at: float = field(default_factory=time.monotonic)
    next_number: int = 0

    def run(self, stop: threading.Event) -> None:
        turn = self.partition
        batch: list[str] = []
        while batch or not stop.is_set():
            if not batch:
                batch = [f"{self.partition}:{self.next_number + n}" for n in range(RECORDS_PER_REQUEST)]
                self.next_number += len(batch)
            if self._send(batch, self.urls[turn % len(self.urls)]):
                batch = []
                stop.wait(self.pause_s)
            else:
                turn += 1
                stop.wait(PAUSE_AFTER_FAILURE_S)
                if stop.is_set() and time.monotonic() - self.last_ack_at > REQUEST_TIMEOUT_MS / 1000:
                    self.errors.append("gave up: nobody takes a record")
                    return

    def _send(self, batch: list[str], url: str) -> bool:
        """Whether the batch is done with: acknowledged, or of unknown fate."""
        body = json.dumps({"records": [{"value": value} for value in batch]}).encode()
        path = f"/topics/{self.topic}/partitions/{self.partition}?acks={self.acks}&timeout=5000"
        headers = {"Content-Type": TEXT}
        outcome = send(
            url, Request(method="POST", path=path, body=body, headers=headers, timeout_ms=REQUEST_TIMEOUT_MS)
        )
        if isinstance(outcome, Refused):
            return False
        if not isinstance(outcome, Answer):
            self.errors.append(outcome.reason)
            self.unknown |= set(batch)
            return True
        return self._judge(batch, outcome)

    def _judge(self, batch: list[str], answer: Answer) -> bool:
        if not answer.is_success:
            self.errors.append(f"{answer.status} {answer.body.decode()}")
            is_unknown = answer.status >= 500 and answer.status != 503
            self.unknown |= set(batch) if is_unknown else set()
            return is_unknown
        entries: list[dict[str, Any]] = answer.json()["offsets"]
        failed = [entry for entry in entries if entry["error_code"]]
        if not failed:
            self._acknowledge({entry["offset"]: value for entry, value in zip(entries, batch, strict=True)})
            return True
        self.errors.append(json.dumps(failed[0]))
        if any(entry.get("is_appended") is not False for entry in failed):
            self.unknown |= set(batch)
            return True
        return False

    def _acknowledge(self, offsets: dict[int, str]) -> None:
        now = time.monotonic()
        self.longest_gap_s = max(self.longest_gap_s, now - self.last_ack_at)
        self.last_ack_at = now
        self.acknowledged.update(offsets)


class Load:
    """A context manager: clients write from enter to exit."""

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        *,
        partitions: int = 1,
        acks: str = "all",
        through: Iterable[int] | None = None,
        pause_s: float = 0.0,
    ) -> None:
        """Requests go `through` these nodes, all if None, with a pause after each."""
        self._cluster = cluster
        self.topic = topic
        urls = [node.rest for node in cluster.nodes if through is None or node.id in through]
        self.clients = [Client(topic, partition, acks, urls, pause_s) for partition in range(partitions)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=client.run, args=(self._stop,)) for client in self.clients]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_acknowledgements(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    @property
    def acknowledged(self) -> int:
        return sum(len(client.acknowledged) for client in self.clients)

    @property
    def errors(self) -> list[str]:
        return [error for client in self.clients for error in client.errors]

    @property
    def longest_gap_s(self) -> float:
        return max(client.longest_gap_s for client in self.clients)

    def wait_for_acknowledgements(self, count: int, *, deadline_s: float = 40) -> None:
        """Until every client has had so many more."""
        before = [len(client.acknowledged) for client in self.clients]

        def is_done() -> bool:
            pairs = zip(self.clients, before, strict=True)
            return all(len(client.acknowledged) >= had + count for client, had in pairs)

        wait_until(is_done, deadline_s=deadline_s, what=f"{count} acknowledgements; errors so far: {self.errors[-3:]}")

    def verify(self, *, node_id: int) -> None:
        """Every acknowledged record is where it was acknowledged; nothing else is there but records of unknown
        fate; each once; all in the order of their numbers."""
        for client in self.clients:
            verify_client(client, read_all(self._cluster, node_id, self.topic, client.partition))


def verify_client(client: Client, found: list[Record]) -> None:
    by_offset = {record.offset: record.value for record in found}
    lost = {offset: value for offset, value in client.acknowledged.items() if by_offset.get(offset) != value}
    where = f"{client.topic}-{client.partition}, of {len(client.acknowledged)} acknowledged"
    assert not lost, f"{where}, {len(lost)} are lost or changed: {dict(list(lost.items())[:5])}"
    numbers = [int(str(record.value).partition(":")[2]) for record in found]
    _assert_each(itertools.pairwise(numbers), lambda a, b: a < b, f"{where}: out of order or twice")
    strangers = {str(record.value) for record in found} - set(client.acknowledged.values()) - client.unknown
    assert not strangers, f"{where}: nobody sent, or they were refused: {sorted(strangers)[:5]}"


def _assert_each(pairs: Any, holds: Callable[[int, int], bool], what: str) -> None:
    wrong = [pair for pair in pairs if not holds(*pair)]
    assert not wrong, f"{what}: {wrong[:5]}"
