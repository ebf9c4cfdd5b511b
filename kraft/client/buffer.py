"""Records of one partition that wait until they make a batch. Pure.

Invariant: what was appended first is taken first, and `bytes` is the sum of what waits. A batch leaves when it has
batch.size bytes, or its first record has waited linger.ms, or a flush asks for it. While the batch before is on its
way, the next grows up to max.request.size: a slow partition gets larger batches, not more of them.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from kraft.client.records import Sent
from kraft.client.settings import ProducerSettings

BATCH_HEADER_BYTES = 61


class PartitionBuffer:
    def __init__(self, settings: ProducerSettings) -> None:
        self._settings = settings
        self._waiting: deque[Sent] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, record: Sent) -> bool:
        """Whether somebody has to look: it is the first that waits, or the batch is full now."""
        before = self.bytes
        self._waiting.append(record)
        self.bytes += record.size
        return before == 0 or (before < self._settings.batch_size <= self.bytes)

    def wait_ms(self, now_ms: float) -> float | None:
        """How long until a batch is due: 0 for now, None when nothing waits."""
        if not self._waiting:
            return None
        if self.bytes >= self._settings.batch_size:
            return 0
        return max(0.0, self._waiting[0].created_ms + self._settings.linger_ms - now_ms)

    def take_expired(self, now_ms: float) -> list[Sent]:
        """Those that waited for delivery.timeout.ms and never left."""
        expired: list[Sent] = []
        while self._waiting and self._waiting[0].created_ms + self._settings.delivery_timeout_ms <= now_ms:
            expired.append(self._waiting.popleft())
        self.bytes -= sum(record.size for record in expired)
        return expired

    def take(self) -> list[Sent]:
        """The next batch, of at least one record."""
        assert self._waiting, "nothing waits"
        limit = self._settings.max_request_size - BATCH_HEADER_BYTES if self._settings.batch_size else 0
        count = size = 0
        for record in self._waiting:
            if count and size + record.size > limit:
                break
            count += 1
            size += record.size
        batch = list(islice(self._waiting, count))
        if count == len(self._waiting):
            self._waiting.clear()
        else:
            for _ in batch:
                self._waiting.popleft()
        self.bytes -= size
        return batch

    def take_all(self) -> list[Sent]:
        everything = list(self._waiting)
        self._waiting.clear()
        self.bytes = 0
        return everything
