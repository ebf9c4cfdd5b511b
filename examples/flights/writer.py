"""A writer of one partition: one request under way, sent to one node, and to the next when that fails.

The outcome of a request without an answer is unknown; it is sent again, as most clients do.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from nodes import TOPIC, connect
from source import PARTITIONS, Flight

FLIGHTS_PER_REQUEST = 250
LOOK_S = 0.005
"""How often is looked whether the next fault has happened. Until it has, for WAIT_LIMIT_S of the run at most, writers
wait; they are daemon threads and end with the run."""
RETRY_S = 0.05
"""Before a request is sent to the next node: an election takes several of these."""
JSON = "application/vnd.kafka.json.v2+json"


@dataclass
class Progress:
    """How many flights are acknowledged, and how many may be before the next fault was seen to happen."""

    total: int
    limit: int
    counts: list[int] = field(default_factory=lambda: [0] * PARTITIONS)

    @property
    def acknowledged(self) -> int:
        return sum(self.counts)


class Writer(threading.Thread):
    def __init__(self, partition: int, part: list[Flight], urls: list[str], progress: Progress) -> None:
        super().__init__(daemon=True)
        self.partition, self.part, self.urls, self.progress = partition, part, urls, progress
        self.failures: Counter[str] = Counter()
        self.longest_wait_s = 0.0
        self._turn = partition
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        for start in range(0, len(self.part), FLIGHTS_PER_REQUEST):
            while self.progress.acknowledged > self.progress.limit:
                time.sleep(LOOK_S)
            chunk = self.part[start : start + FLIGHTS_PER_REQUEST]
            records = [{"key": flight.key, "value": flight.value} for flight in chunk]
            body = json.dumps({"records": records}).encode()
            begin = time.monotonic()
            while (failure := self._send(body)) is not None:
                self.failures[failure] += 1
                self._turn += 1
                time.sleep(RETRY_S)
            self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - begin)
            self.progress.counts[self.partition] += len(chunk)

    def _send(self, body: bytes) -> str | None:
        """None when all of the request is acknowledged; otherwise it is sent again."""
        if self._connection is None:
            self._connection = connect(self.urls[self._turn % len(self.urls)])
        try:
            path = f"/topics/{TOPIC}/partitions/{self.partition}?acks=all"
            self._connection.request("POST", path, body=body, headers={"Content-Type": JSON})
            answer = self._connection.getresponse()
            document = json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._connection = None
            is_unsent = isinstance(error, ConnectionRefusedError)
            return "connection refused" if is_unsent else "no answer: unknown whether written"
        if answer.status != 200:
            return f"status {answer.status}"
        failed = [entry for entry in document["offsets"] if entry["error_code"]]
        return f"Kafka error {failed[0]['kafka_code']}" if failed else None
