"""Records of queues (share groups): each one is accepted, archived, too old or removed by retention; none is lost.

A queue may hand out a record again: its worker released it, its lock ended, or the partition has another leader, which
does not know the locks. It never hands out a record after the answer to its acceptance, and never answers acceptances
of two deliveries with success. A record is known by its partition, offset and value: an unclean election gives an
offset to another record. Each delivery is an object here, about 200 bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple, TypeAlias

from kraft.chaos.checkers.causes import Causes, LostRecord
from kraft.chaos.checkers.contents import FinalLogs
from kraft.chaos.checkers.expiry import NEVER_US, Expiry
from kraft.chaos.checkers.findings import UNEXPLAINED, Explanation, Findings
from kraft.chaos.checkers.ledger import FOUND, OK, OUTCOME_BITS, UNKNOWN, Ledger
from kraft.chaos.checkers.ranges import Ranges
from kraft.chaos.checkers.timeline import SLACK_US, Leadership, Timeline
from kraft.chaos.checkers.verdict import Counts, Kind
from kraft.chaos.evidence import Event, ReadBack
from kraft.chaos.history import Acknowledge, Receive
from kraft.protocol.errors import for_code

SHARE_STATE_TOPIC: Final = "__share_group_state"
"""Named here, too: a program with a module `metadata` of its own imports the checkers (docs/decisions)."""
LIMIT: Final = "group.share.delivery.count.limit"
LIMIT_DEFAULT: Final = 5
TAKES_DEAD_LETTERS: Final = "errors.deadletterqueue.group.enable"
NOT_WRITTEN: Final = "dead_letters_not_written"
LOCK_SHARE: Final = 0.95
"""A lock lasts at least this part of its time on the clock of the history: a node's clock may be faster."""


def dead_letter_topics(settings: Mapping[str, Any]) -> frozenset[str]:
    """The topics that take dead letters; their records are copies of records of other topics."""
    topics = settings.get("topics", {})
    return frozenset(
        name for name, configs in topics.items() if str(configs.get(TAKES_DEAD_LETTERS, "")).lower() == "true"
    )


class _Place(NamedTuple):
    """A record."""

    partition: int
    offset: int
    slot: int


@dataclass(slots=True)
class _Delivery:
    receive: Receive
    count: int
    """The delivery count in the answer."""
    ack: Acknowledge | None = None
    renewed_us: int = 0
    """When the last renewal that was answered with success began."""

    @property
    def worker(self) -> str:
        return self.receive.process

    @property
    def lock_ends_us(self) -> int:
        """The lock does not end before."""
        began_us = max(self.receive.invoke_us, self.renewed_us)
        return began_us + int(self.receive.lock_ms * 1000 * LOCK_SHARE)

    def is_answered(self, word: str) -> bool:
        return self.ack is not None and self.ack.word == word and self.ack.outcome == "ok"


@dataclass(slots=True)
class _Queue:
    """What the workers of one group received from one topic."""

    deliveries: dict[_Place, list[_Delivery]] = field(default_factory=lambda: defaultdict(list))
    by_receive: dict[tuple[str, int, int, int], _Delivery] = field(default_factory=dict)
    """(worker, index of its receive, partition, offset) -> delivery."""
    lost_answers_us: list[int] = field(default_factory=list)
    """The times of receives without an answer, each of which may have taken records."""
    ended_us: int = 0
    """The end of the last receive."""
    _passed: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)

    def passed_us(self, place: _Place) -> int:
        """The first answer with a record behind this one in its partition; NEVER_US: there is none."""
        if place.partition not in self._passed:
            first_us: dict[int, int] = {}
            for each, deliveries in self.deliveries.items():
                if each.partition == place.partition:
                    at_us = min(delivery.receive.complete_us for delivery in deliveries)
                    first_us[each.offset] = min(at_us, first_us.get(each.offset, NEVER_US))
            offsets = sorted(first_us)
            times = list(accumulate((first_us[offset] for offset in reversed(offsets)), min))
            self._passed[place.partition] = offsets, times[::-1]
        offsets, times = self._passed[place.partition]
        behind = bisect_right(offsets, place.offset)
        return times[behind] if behind < len(times) else NEVER_US


Name: TypeAlias = tuple[str, str]
"""Group, topic."""


class QueueCheck:
    """Nothing happens to it in a history without workers."""

    def __init__(
        self,
        ledger: Ledger,
        findings: Findings,
        final: FinalLogs,
        timeline: Timeline,
        causes: Causes,
        *,
        settings: Mapping[str, Any],
        events: Sequence[Event],
        expiry: Expiry,
    ) -> None:
        self._ledger = ledger
        self._findings = findings
        self._final = final
        self._timeline = timeline
        self._causes = causes
        self._limit = int(settings.get(LIMIT, LIMIT_DEFAULT))
        self._letter_topics = dead_letter_topics(settings)
        self._events = events
        self._expiry = expiry
        self._letters: set[str] = set()
        self._queues: dict[Name, _Queue] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self.redeliveries = Ranges(ledger, nouns=("delivery", "deliveries"))
        self.archives = Ranges(ledger)
        self.expiries = Ranges(ledger)
        self.too_old = Ranges(ledger)

    # --- the history, in order of completion ------------------------------------------------------------------------

    def take_receive(self, receive: Receive) -> None:
        queue = self._queues.setdefault((receive.group, receive.topic), _Queue())
        queue.ended_us = max(queue.ended_us, receive.complete_us)
        if receive.outcome == "info":
            queue.lost_answers_us.append(receive.complete_us)
        for partition, offset, count, value in receive.records:
            slot = self._ledger.slot(value)
            delivery = _Delivery(receive, count)
            queue.deliveries[_Place(partition, offset, slot)].append(delivery)
            queue.by_receive[receive.process, receive.index, partition, offset] = delivery

    def take_acknowledge(self, ack: Acknowledge) -> None:
        queue = self._queues.setdefault((ack.group, ack.topic), _Queue())
        for partition, offset in ack.records:
            delivery = queue.by_receive.get((ack.process, ack.receive, partition, offset))
            if delivery is not None and ack.word != "renew":
                delivery.ack = ack
            elif delivery is not None and ack.outcome == "ok":
                delivery.renewed_us = ack.invoke_us

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self, readback: Sequence[ReadBack], *, aborted: Collection[int] = ()) -> None:
        """`aborted`: slots of records that a queue with `read_committed` does not hand out."""
        for each in readback:
            if each.topic in self._letter_topics:
                self._letters.update(record.value for record in each.records())
        for name, queue in self._queues.items():
            for place, deliveries in queue.deliveries.items():
                self._counts["handed_out"] += 1
                self._check_deliveries(name, place, deliveries)
            for place in self._in_log(name[1]):
                if place in queue.deliveries or place.slot not in aborted:
                    self._find_fate(name, queue, place)
            for place in self._below_log(name[1]):
                if not any(each.is_answered("accept") for each in queue.deliveries.get(place, ())):
                    self._expired(name, place)
            for place in self._without_log(name[1], queue):
                self._count_answered(queue, queue.deliveries[place])

    def count(self, counts: Counts) -> None:
        counts.redelivered += self._counts.pop("redelivered", 0)
        for fate, records in self._counts.items():
            setattr(counts, fate, records)

    def _in_log(self, topic: str) -> Iterator[_Place]:
        for partition, offsets in self._final.maps.items():
            name, number = self._ledger.partitions[partition]
            if name == topic:
                for offset, slot in offsets.items(self._final.log_starts.get(partition, 0)):
                    yield _Place(number, offset, slot)

    def _without_log(self, topic: str, queue: _Queue) -> Iterator[_Place]:
        """What workers received and no log shows, in a history alone (`kraft scenario check`)."""
        read_back = {self._ledger.partitions[partition] for partition in self._final.log_starts}
        received = [place for place in queue.deliveries if (topic, place.partition) not in read_back]
        shown = set(self._in_log(topic)) if received else ()
        return (place for place in received if place not in shown)

    def _below_log(self, topic: str) -> Iterator[_Place]:
        """Acknowledged records that are no longer in the log because it begins after them."""
        for slot in self._ledger.slots_with(OUTCOME_BITS | FOUND, OK):
            partition, offset = self._ledger.partition_of(slot), self._ledger.acked[slot]
            name, number = self._ledger.partitions[partition]
            if name == topic and UNKNOWN < offset < self._final.log_starts.get(partition, 0):
                yield _Place(number, offset, slot)

    # --- deliveries -------------------------------------------------------------------------------------------------

    def _check_deliveries(self, name: Name, place: _Place, deliveries: Sequence[_Delivery]) -> None:
        group, topic = name
        if self._ledger.operation[place.slot] == UNKNOWN:
            text = f"{deliveries[0].worker} received {self._shown(topic, place)}, which no client sent"
            self._add(Kind.NEVER_SENT, topic, place, text, at_us=deliveries[0].receive.complete_us)
        accepted = [each for each in deliveries if each.is_answered("accept")]
        if len(accepted) > 1:
            first, second = accepted[:2]
            assert first.ack is not None
            text = (
                f"group {group}: {self._shown(topic, place)} was accepted by {first.worker} (delivery {first.count}) "
                f"and by {second.worker} (delivery {second.count}), and both got success"
            )
            self._add(Kind.ACCEPTED_TWICE, topic, place, text, at_us=first.ack.invoke_us, since_us=first.ack.invoke_us)
        self._check_ages(name, place, deliveries)
        for before, again in pairwise(deliveries):
            self._counts["redelivered"] += 1
            ended = next((each for each in accepted if _is_after(again, each)), None)
            if ended is not None:
                self._handed_out_after(name, place, ended, again)
            if self._ledger.operation[place.slot] != UNKNOWN:
                why = self._why_again(topic, place, before, again, ended)
                self.redeliveries.add(place.slot, offset=place.offset, explanation=why)

    def _check_ages(self, name: Name, place: _Place, deliveries: Sequence[_Delivery]) -> None:
        end = self._expiry.of(name[0], place.slot)
        late = next((each for each in deliveries if end and each.receive.invoke_us > end.by_us + SLACK_US), None)
        if end is not None and late is not None:
            text = f"group {name[0]}: {self._shown(name[1], place)} was handed out to {late.worker} when {end.text}"
            self._add(Kind.HANDED_OUT_TOO_OLD, name[1], place, text, at_us=late.receive.invoke_us)

    def _handed_out_after(self, name: Name, place: _Place, ended: _Delivery, again: _Delivery) -> None:
        group, topic = name
        assert ended.ack is not None
        text = (
            f"group {group}: {self._shown(topic, place)} was accepted by {ended.worker}, which got the answer, and "
            f"then handed out to {again.worker} (delivery {again.count})"
        )
        since_us = ended.ack.invoke_us
        self._add(
            Kind.HANDED_OUT_AFTER_ACCEPTANCE, topic, place, text, at_us=again.receive.invoke_us, since_us=since_us
        )

    def _why_again(
        self, topic: str, place: _Place, before: _Delivery, again: _Delivery, ended: _Delivery | None
    ) -> Explanation:
        if before.receive is again.receive:
            return Explanation("", f"received twice by {again.worker} in one answer")
        if ended is not None:
            assert ended.ack is not None
            forgotten = self._forgotten(topic, place.partition, ended.ack.invoke_us)
            return (
                forgotten if forgotten.reason else Explanation("", "received again after its acceptance was answered")
            )
        to = f"handed out to {again.worker} after {before.worker}"
        ack, again_us = before.ack, again.receive.complete_us
        if ack is not None and ack.word == "release" and ack.outcome != "fail" and ack.invoke_us <= again_us:
            return Explanation("released", f"{to}, which had released it")
        new = self._new_leader(topic, place.partition, before.receive.invoke_us, min(before.lock_ends_us, again_us))
        if new is not None:
            text = (
                f"{to}: node {new.leader} became leader of {topic}-{place.partition} in epoch {new.epoch}, and the "
                "locks were in the memory of the old leader"
            )
            return Explanation("leader changed", text)
        if again_us >= before.lock_ends_us:
            return Explanation(
                "lock ended", f"{to}, whose lock of {before.receive.lock_ms} ms had ended, and {_fate(before)}"
            )
        return Explanation("", f"{to}, whose lock had not ended")

    # --- fates ------------------------------------------------------------------------------------------------------

    def _find_fate(self, name: Name, queue: _Queue, place: _Place) -> None:
        deliveries = queue.deliveries.get(place, [])
        if any(each.is_answered("accept") for each in deliveries):
            self._counts["accepted"] += 1
            return
        why = self._why_archived(queue, deliveries)
        if why.reason:
            self._archived(name, place, why)
        elif any(self._may_be_accepted(name[1], place, each) for each in deliveries):
            self._counts["perhaps_accepted"] += 1
        elif why_old := self._why_too_old(name, queue, place):
            self._add_too_old(name, queue, place, why_old)
        else:
            self._lost(name, place, deliveries)

    def _count_answered(self, queue: _Queue, deliveries: Sequence[_Delivery]) -> None:
        """The fate of a record as far as the answers to its workers show it."""
        if any(each.is_answered("accept") for each in deliveries):
            self._counts["accepted"] += 1
        elif self._why_archived(queue, deliveries).reason:
            self._counts["archived"] += 1

    def _why_archived(self, queue: _Queue, deliveries: Sequence[_Delivery]) -> Explanation:
        rejected = next((each for each in deliveries if each.is_answered("reject")), None)
        if rejected is not None:
            return Explanation("rejected", f"rejected by {rejected.worker}")
        last = deliveries[-1] if deliveries else None
        seen, since_us = (last.count, last.receive.complete_us) if last else (0, 0)
        hidden = sum(at_us > since_us for at_us in queue.lost_answers_us)
        if seen + hidden < self._limit:
            return UNEXPLAINED
        if last is None or seen < self._limit:
            return Explanation("delivery limit", f"handed out as often as the limit of {self._limit} allows")
        end = "which released it" if last.is_answered("release") else f"whose lock ended, and {_fate(last)}"
        return Explanation(
            "delivery limit",
            f"handed out {seen} times, as often as the limit allows, the last time to {last.worker}, {end}",
        )

    def _archived(self, name: Name, place: _Place, why: Explanation) -> None:
        self._counts["archived"] += 1
        is_letter = self._ledger.values.text(place.slot) in self._letters
        if self._ledger.operation[place.slot] != UNKNOWN:
            text = f"{why.text}; it is in the topic of dead letters" if is_letter else why.text
            self.archives.add(place.slot, offset=place.offset, explanation=Explanation(why.reason, text))
        if is_letter:
            self._counts["dead_lettered"] += 1
        elif self._letter_topics:
            self._no_letter(name, place, f"was {why.text}")

    def _no_letter(self, name: Name, place: _Place, what: str) -> None:
        given_up = any(event.event == NOT_WRITTEN for event in self._events)
        cause = Explanation("not written", "a node gave up writing dead letters") if given_up else UNEXPLAINED
        self._findings.add(
            Kind.NOT_DEAD_LETTERED,
            f"group {name[0]}: {self._shown(name[1], place)} {what}, and is no dead letter",
            topic=name[1],
            partition=place.partition,
            offset=place.offset,
            explanation=cause,
        )

    def _why_too_old(self, name: Name, queue: _Queue, place: _Place) -> str:
        """Empty: it was not, as long as workers received; or the queue had passed it by while it was young."""
        end = self._expiry.of(name[0], place.slot)
        if end is None or end.from_us > queue.ended_us + SLACK_US:
            return ""
        is_passed = place not in queue.deliveries and not queue.lost_answers_us
        return "" if is_passed and queue.passed_us(place) < end.from_us - SLACK_US else end.text

    def _add_too_old(self, name: Name, queue: _Queue, place: _Place, why: str) -> None:
        self._counts["too_old"] += 1
        is_letter = self._ledger.values.text(place.slot) in self._letters
        text = f"{why}, before a worker of group {name[0]} accepted it"
        if is_letter:
            self._counts["dead_lettered"] += 1
            text += "; it is in the topic of dead letters"
        self.too_old.add(place.slot, offset=place.offset, explanation=Explanation("too old", text))
        # The queue goes in the order of offsets: what it has not passed may have had no occasion to become a letter.
        if (
            self._letter_topics
            and not is_letter
            and place not in queue.deliveries
            and queue.passed_us(place) < NEVER_US
        ):
            self._no_letter(name, place, f"was not handed out ({why})")

    def _expired(self, name: Name, place: _Place) -> None:
        self._counts["expired"] += 1
        ledger, operation = self._ledger, self._ledger.operation[place.slot]
        gone = LostRecord(
            topic=name[1],
            partition=place.partition,
            offset=place.offset,
            invoke_us=ledger.invoke_us[operation],
            at_us=ledger.complete_us[operation],
            node=ledger.node[operation],
            acks=ledger.acks(place.slot),
        )
        why = self._causes.of(gone)
        text = f"{why.text}, before a worker of group {name[0]} accepted it" if why.text else ""
        self.expiries.add(place.slot, offset=place.offset, explanation=Explanation(why.reason, text))

    def _may_be_accepted(self, topic: str, place: _Place, delivery: _Delivery) -> bool:
        """An acceptance without an answer may be in the state of the group. So may a refused one: nodes repeat it while
        leaders change, and the first attempt may have been written."""
        ack = delivery.ack
        if ack is None or ack.word == "release" or ack.outcome == "ok":
            return False
        return ack.outcome == "info" or any(
            self._new_leader(each, number, ack.invoke_us, ack.complete_us) is not None
            for each, number in self._homes(topic, place.partition)
        )

    def _lost(self, name: Name, place: _Place, deliveries: Sequence[_Delivery]) -> None:
        group, topic = name
        if deliveries:
            times = "once" if len(deliveries) == 1 else f"{len(deliveries)} times"
            last = deliveries[-1]
            text = f"was handed out {times}, the last time to {last.worker}, {_fate(last)}, and never again"
        else:
            text = "was never handed out"
        self._add(Kind.LOST_BY_QUEUE, topic, place, f"group {group}: {self._shown(topic, place)} {text}", since_us=0)

    # --- causes -----------------------------------------------------------------------------------------------------

    def _homes(self, topic: str, number: int) -> Iterator[tuple[str, int]]:
        """The partition of the records, and those that may have the state of the group."""
        yield topic, number
        for each in self._timeline.all():
            if each.topic == SHARE_STATE_TOPIC:
                yield each.topic, each.partition

    def _new_leader(self, topic: str, number: int, from_us: int, until_us: int) -> Leadership | None:
        """The first leadership that began in that time."""
        partition = self._timeline.partition(topic, number, at_us=until_us)
        return next(
            (
                each
                for each in partition.in_order()
                if each.leader >= 0 and from_us - SLACK_US <= each.since_us <= until_us + SLACK_US and each.epoch > 0
            ),
            None,
        )

    def _forgotten(self, topic: str, number: int, since_us: int) -> Explanation:
        """An unclean election permits that the state of a group is lost, or its records."""
        for name, partition in self._homes(topic, number):
            for each in self._timeline.partition(name, partition, at_us=since_us).in_order():
                if each.is_unclean and each.since_us >= since_us - SLACK_US:
                    took = f"an unclean election made node {each.leader} leader of {name}-{partition}"
                    return Explanation("unclean election", f"{took} in epoch {each.epoch}")
        return UNEXPLAINED

    def _shown(self, topic: str, place: _Place) -> str:
        return f"{self._ledger.values.text(place.slot)!r} (offset {place.offset} of {topic}-{place.partition})"

    def _add(
        self, kind: Kind, topic: str, place: _Place, text: str, *, at_us: int | None = None, since_us: int | None = None
    ) -> None:
        """`since_us`: an unclean election after this time explains it."""
        cause = UNEXPLAINED if since_us is None else self._forgotten(topic, place.partition, since_us)
        where = {"topic": topic, "partition": place.partition, "offset": place.offset, "at_us": at_us}
        self._findings.add(kind, text, explanation=cause, **where)  # type: ignore[arg-type]


def _is_after(again: _Delivery, ended: _Delivery) -> bool:
    """True if the receive began after the answer to the acceptance."""
    return ended.ack is not None and again is not ended and again.receive.invoke_us > ended.ack.complete_us


def _fate(delivery: _Delivery) -> str:
    """The fate of the acknowledgement, as the end of a sentence about the worker."""
    ack = delivery.ack
    if ack is None:
        return "which had acknowledged nothing"
    noun = {"accept": "acceptance", "reject": "rejection", "release": "release"}[ack.word]
    match ack.outcome:
        case "ok":
            return f"whose {noun} was answered later"
        case "info":
            return f"whose {noun} got no answer"
    return f"whose {noun} was refused{f' with {for_code(ack.kafka_code).name}' if ack.kafka_code else ''}"
