"""Checks of a queue (share group): what its records came to, with failures that name each record.

queue = kafka_cluster.queue("mailers")
queue.assert_accepted_once(accepted, besides=[b"poison"])
queue.assert_nothing_in_flight()
queue.assert_dead_letters(b"poison")
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from kraft.testing.assertions import JSON, RETRY_S, Record, asked, decoded

WAIT_S: Final = 5.0
"""Longest wait of an assertion: what a consumer has just done may not have arrived at the leader."""
RECORDS_MAX: Final = 500
"""Records that one answer of a look at a queue shows."""
SHOWN_MAX: Final = 20
"""Records that a failure names; the others are counted."""
HEADER: Final = "__dlq.errors."
Value: TypeAlias = bytes | str | None
"""The value of a record; text is UTF-8."""


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A record that the queue is not done with."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    state: str
    """AVAILABLE: it waits. ACQUIRED: a consumer has it. ARCHIVING: its dead letter is on its way."""
    delivery_count: int

    def __str__(self) -> str:
        return f"{_place(self)} {self.value!r}: {self.state}, delivered {self.delivery_count} times"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was rejected, or delivered too often, and is described in the dead letter topic."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    """The value of the record, whether the dead letter has a copy or not; None also when the log has lost it."""
    delivery_count: int
    reason: str

    def __str__(self) -> str:
        return f"{_place(self)} {self.value!r}: {self.reason} (delivered {self.delivery_count} times)"


class Queue:
    """One queue of a cluster; `kafka_cluster.queue` makes it."""

    def __init__(
        self, group: str, *, rest_urls: Callable[[], Sequence[str]], records: Callable[[str], Sequence[Record]]
    ) -> None:
        self.group = group
        self._rest_urls = rest_urls
        self._records = records

    # --- what it has ------------------------------------------------------------------------------------------------

    def topics(self) -> list[str]:
        """The topics whose records it has handed out. Raises ClusterFailed when there is no such queue."""
        return sorted({row["topic_name"] for row in self._get("lags")})

    def unfinished(self) -> list[QueuedRecord]:
        """All its records that wait or are in flight; looking locks nothing."""
        return [
            QueuedRecord(
                row["topic_name"],
                row["partition_id"],
                row["offset"],
                None if row["value"] is None else decoded(row["value"]["data"]),
                row["state"],
                row["delivery_count"],
            )
            for row in self._peek()
        ]

    def dead_letters(self) -> list[DeadLetter]:
        """Each dead letter once, by topic, partition and offset; none if the queue has no topic for them."""
        settings = {each["name"]: each["value"] for each in self._get("configs")}
        topic = settings["errors.deadletterqueue.topic.name"]
        found: dict[tuple[str, int, int], DeadLetter] = {}
        values: dict[tuple[str, int, int], bytes | None] = {}
        for letter in self._records(topic) if topic and self._exists(topic) else ():
            about = {name.removeprefix(HEADER): (value or b"").decode() for name, value in letter.headers}
            if about.get("group") != self.group:
                continue
            where = about["topic"], int(about["partition"]), int(about["offset"])
            if where[0] not in {known[0] for known in values} and self._exists(where[0]):
                values |= {(each.topic, each.partition, each.offset): each.value for each in self._records(where[0])}
            value = values.get(where, letter.value)
            found[where] = DeadLetter(*where, value, int(about["delivery.count"]), about["message"])
        return [found[where] for where in sorted(found)]

    # --- assertions -------------------------------------------------------------------------------------------------

    def assert_accepted_once(self, accepted: Iterable[Value], *, besides: Iterable[Value] = ()) -> None:
        """Each record of its topics is in `accepted` once, and the queue is done with it. `accepted`: the values whose
        acceptance the test's consumers had confirmed. `besides`: values that are not to be accepted, as dead letters.
        Raises AssertionError that names each record and what became of it."""
        records = [record for topic in self.topics() for record in self._records(topic)]
        wanted = Counter(record.value for record in records)
        wanted.subtract(Counter(map(_bytes, besides)))
        had = Counter(map(_bytes, accepted))
        too_often = [
            f"{value!r}: accepted {count} times" if wanted[value] > 0 else f"{value!r}: accepted, and it was not to be"
            for value, count in had.items()
            if value in wanted and count > max(0, wanted[value])
        ]
        strange = [f"{value!r}: accepted, and in none of {self.topics()}" for value in had if value not in wanted]
        missing = [record for record in records if had[record.value] < wanted[record.value]]
        _wait(lambda: not self._kept(had))
        kept = [f"{each}, although it was accepted" for each in self._kept(had)]
        fates = self._fates() if missing else {}
        never = [
            f"{_place(record)} {record.value!r}: never accepted; "
            + fates.get((record.topic, record.partition, record.offset), "it is archived, or someone else accepted it")
            for record in missing
        ]
        expected = f"{sum((+wanted).values())} records of queue {self.group} accepted once"
        _fail_if([*too_often, *strange, *kept, *never], expected)

    def assert_nothing_in_flight(self, within_s: float = WAIT_S) -> None:
        """No consumer has a record now, and no dead letter is on its way; waits so long for it. Records that only wait
        are allowed. Raises AssertionError."""
        _wait(lambda: not self._in_flight(), within_s)
        _fail_if([str(each) for each in self._in_flight()], f"nothing of queue {self.group} in flight")

    def assert_dead_letters(self, *values: Value, within_s: float = WAIT_S) -> None:
        """Exactly these records have dead letters; without values none. Raises AssertionError."""
        wanted = Counter(map(_bytes, values))

        def has_all() -> bool:
            return wanted <= Counter(each.value for each in self.dead_letters())

        _wait(has_all, within_s)
        letters = self.dead_letters()
        found = Counter(each.value for each in letters)
        fates = {each.value: str(each) for each in self.unfinished()}
        lines = [
            f"{value!r}: no dead letter; {fates.get(value, 'the queue is done with it')}" for value in wanted - found
        ]
        lines += [str(each) for each in letters if found[each.value] > wanted[each.value]]
        shown = ", ".join(map(repr, wanted.elements())) or "nothing"
        _fail_if(lines, f"dead letters of queue {self.group}: {shown}")

    def _in_flight(self) -> list[QueuedRecord]:
        return [each for each in self.unfinished() if each.state != "AVAILABLE"]

    def _kept(self, accepted: Counter[bytes | None]) -> list[QueuedRecord]:
        return [each for each in self.unfinished() if accepted[each.value]]

    def _fates(self) -> dict[tuple[str, int, int], str]:
        """What became of records that nobody has accepted."""
        waiting = {
            _key(each): f"it is {each.state}, delivered {each.delivery_count} times" for each in self.unfinished()
        }
        return waiting | {_key(each): f"it is a dead letter: {each.reason}" for each in self.dead_letters()}

    # --- requests ---------------------------------------------------------------------------------------------------

    def _get(self, what: str) -> list[dict[str, Any]]:
        return list(asked(self._rest_urls(), f"{self._path()}/{what}", accept=JSON).json()["data"])

    def _peek(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        path, begin = self._path() + "/records:peek", None
        while True:
            body = json.dumps({"max_records": RECORDS_MAX, "begin": begin}).encode()
            answer = asked(self._rest_urls(), path, accept=JSON, body=body).json()
            rows += answer["records"]
            begin = answer["next"]
            if begin is None:
                return rows

    def _exists(self, topic: str) -> bool:
        return topic in asked(self._rest_urls(), "/topics", accept=JSON).json()

    def _path(self) -> str:
        (cluster,) = asked(self._rest_urls(), "/v3/clusters", accept=JSON).json()["data"]
        return f"/v3/clusters/{quote(cluster['cluster_id'])}/share-groups/{quote(self.group, safe='')}"


def _wait(is_so: Callable[[], bool], limit_s: float = WAIT_S) -> None:
    """Until it is so, or the time is over."""
    deadline = time.monotonic() + limit_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(RETRY_S)


def _fail_if(problems: Sequence[str], expected: str) -> None:
    if problems:
        more = [f"and {len(problems) - SHOWN_MAX} more"] if len(problems) > SHOWN_MAX else []
        raise AssertionError("\n  ".join([f"expected {expected}; but", *problems[:SHOWN_MAX], *more]))


def _place(each: Record | QueuedRecord | DeadLetter) -> str:
    return f"{each.topic}-{each.partition}@{each.offset}"


def _key(each: QueuedRecord | DeadLetter) -> tuple[str, int, int]:
    return each.topic, each.partition, each.offset


def _bytes(value: Value) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
