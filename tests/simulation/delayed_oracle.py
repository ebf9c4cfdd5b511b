"""The promises to producers of delayed records: a copy is in the target once, not before its time, and in the end. A
record that has expired is not handed out. The value of a record has its name and its times, so that a log has all
that has to be known of its records. The hooks at the end watch forwarders, and leaders of share partitions.

A partition is excused when its log, the target or what coordinators keep may lose what acks=all acknowledged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kraft.coordinators.copies import Copies
from kraft.coordinators.groups.offsets import DELAYED_PREFIX
from kraft.coordinators.shares.leaders import _Fetch
from kraft.protocol.batches.records import NewRecord, read_batches
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from tests.simulation.delayed_plan import JUMP_MS_MAX
from tests.simulation.queue_plan import TOPIC as TARGET

if TYPE_CHECKING:
    from tests.simulation.delayed_plan import DelayedPlan
    from tests.simulation.oracle import Oracle


class Times(NamedTuple):
    """What the value of a record states."""

    name: bytes
    due_ms: int
    """0: at once."""
    expires_ms: int
    """0: never."""


def value_of(name: str, due_ms: int, expires_ms: int) -> bytes:
    return f"later|{name}|{due_ms}|{expires_ms}".encode()


def times_of(value: bytes) -> Times | None:
    """None: no delayed record."""
    if not value.startswith(b"later|"):
        return None
    _, name, due_ms, expires_ms = value.split(b"|")
    return Times(name, int(due_ms), int(expires_ms))


class DelayedOracle:
    """Nothing happens to it in a run without delayed records."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.plan: DelayedPlan | None = None
        self.acked: dict[bytes, TopicIdPartition] = {}
        """Values of records that have to arrive, and where they waited."""

    def is_certain(self, where: TopicIdPartition) -> bool:
        promise, image = self.oracle.promise, self.oracle.image
        homes = [where]
        for name in (TARGET, OFFSETS_TOPIC, TRANSACTIONS_TOPIC):
            topic = image.topic(name)
            homes += [] if topic is None else [TopicIdPartition(topic.topic_id, each) for each in topic.partitions]
        return not promise.rotten and not any(promise.may_lose(each) for each in homes)

    def copied(self, copies: Mapping[TopicIdPartition, Sequence[NewRecord]]) -> None:
        """A forwarder is about to write these. It takes a record by its clock, which may step before it stamps it."""
        assert self.plan is not None
        slack_ms = JUMP_MS_MAX if self.plan.has_jumps else 0
        for records in copies.values():
            for record in records:
                times = times_of(record.value or b"")
                self.oracle.count("delayed: record forwarded")
                if times is not None and record.timestamp_ms < times.due_ms - slack_ms:
                    self.oracle.fail(
                        f"delayed record {times.name!r} is forwarded at {record.timestamp_ms}, "
                        f"{times.due_ms - record.timestamp_ms} ms before its time"
                    )

    def handed(self, records: Any, acquired: Any, now_ms: int) -> None:
        """A leader hands these out, at this time of its clock."""
        for record in read_batches(records):
            times = times_of(record.value or b"")
            if times is None or not times.expires_ms or times.expires_ms > now_ms:
                continue
            if any(first <= record.offset <= last for first, last, _ in acquired):
                self.oracle.fail(f"record {times.name!r} is handed out {now_ms - times.expires_ms} ms after its end")

    @staticmethod
    def may_expire(value: bytes) -> bool:
        times = times_of(value)
        return times is not None and times.expires_ms > 0

    def last_due_ms(self) -> int:
        """When the last of the records that have to arrive is due; 0 without one."""
        return max((times.due_ms for times in map(times_of, self.acked) if times is not None), default=0)

    def missing(self, found: Counter[bytes]) -> bytes | None:
        return next((each for each, where in self.acked.items() if not found[each] and self.is_certain(where)), None)

    def judge(self, found: Counter[bytes], wheres: Sequence[TopicIdPartition]) -> None:
        if not all(self.is_certain(where) for where in wheres):
            self.oracle.count("delayed partition excused")
            return
        lost = self.missing(found)
        self.oracle.check(lost is None, f"delayed record {lost!r} was acknowledged, is due, and has not arrived")
        for value, count in found.items():
            self.oracle.check(count == 1, f"delayed record {value!r} has arrived {count} times")


# --- hooks: wrappers change nothing -----------------------------------------------------------------------------------


def _write(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    async def write(self: Copies, done: Any, copies: Any) -> None:
        if self.name.startswith(DELAYED_PREFIX):
            oracle.delayed.copied(copies)
        await original(self, done, copies)

    return write


def _hand_out(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def hand_out(self: _Fetch, where: TopicIdPartition, leader: Any, read: Any, offset: int) -> None:
        now_ms = self._clock.wall_ms()
        original(self, where, leader, read, offset)
        handed = self.handed.get(where)
        if oracle.delayed.plan is not None and handed is not None and handed.acquired:
            oracle.delayed.handed(handed.records, handed.acquired, now_ms)

    return hand_out


WRAPPERS: tuple[tuple[Any, str, Callable[[Oracle, Callable[..., Any]], Callable[..., Any]]], ...] = (
    (Copies, "write", _write),
    (_Fetch, "_hand_out", _hand_out),
)
