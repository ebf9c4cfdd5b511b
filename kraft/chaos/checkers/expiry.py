"""When a record of a queue is too old to be handed out: by the age that its group sets, or by a time that it names.

The age (`share.record.expiry.ms`) counts from the timestamp of the record, which lies between the begin and the end of
its sending; the events `config_changed` have it, with the time of each change. A record names a time in a header, which
counts in topics with `record.expiry.enable`; the history has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kraft.chaos.checkers.ledger import UNKNOWN, Ledger
from kraft.chaos.evidence import Event
from kraft.chaos.history import Header, Produce

AGE: Final = "share.record.expiry.ms"
READS_HEADERS: Final = "record.expiry.enable"
NEVER_US: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class End:
    """The end of the time in which a record may be handed out."""

    from_us: int
    """It does not end before."""
    by_us: int
    """It has ended then, for good. NEVER_US: a later change of the setting may have brought the record back."""
    text: str


class Expiry:
    def __init__(self, ledger: Ledger, header: Header, events: Sequence[Event]) -> None:
        self._ledger = ledger
        self._header = header
        self._topics = {
            name for name, configs in header.settings.get("topics", {}).items() if _is_true(configs.get(READS_HEADERS))
        }
        self._ages: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """Group -> (time of the change, age in ms)."""
        for event in events:
            match event.fields:
                case {"resource_type": "group", "resource": str(group), "name": name, "value": value} if name == AGE:
                    self._ages[group].append((event.at_us, int(value or 0)))
                case {"resource_type": "topic", "resource": str(topic), "name": name, "value": value}:
                    if name == READS_HEADERS and _is_true(value):
                        self._topics.add(topic)
        for changes in self._ages.values():
            changes.sort()
        self._named_us: dict[int, int] = {}
        """Operation -> the time that its records name."""

    def take(self, sent: Produce, operation: int) -> None:
        if sent.expires_at_ms is not None and sent.topic in self._topics:
            self._named_us[operation] = self._header.us_of_wall(sent.expires_at_ms)

    def of(self, group: str, slot: int) -> End | None:
        """None: no client sent the record, or nothing makes it too old."""
        if not self._named_us and group not in self._ages:
            return None
        operation = self._ledger.operation[slot]
        if operation == UNKNOWN:
            return None
        ends = list(self._ends(group, operation))
        first = min(ends, key=lambda end: end.from_us, default=None)
        return None if first is None else End(first.from_us, min(end.by_us for end in ends), first.text)

    def _ends(self, group: str, operation: int) -> Iterator[End]:
        named_us = self._named_us.get(operation)
        if named_us is not None:
            yield End(named_us, named_us, "the time of its header kraft.expires.at was over")
        sent_us, answered_us = self._ledger.invoke_us[operation], self._ledger.complete_us[operation]
        changes = self._ages.get(group, [])
        for number, (since_us, age_ms) in enumerate(changes):
            until_us = changes[number + 1][0] if number + 1 < len(changes) else NEVER_US
            from_us = max(since_us, sent_us + age_ms * 1000)
            if age_ms > 0 and from_us < until_us:
                by_us = max(since_us, answered_us + age_ms * 1000) if until_us == NEVER_US else NEVER_US
                yield End(from_us, by_us, f"it was older than {age_ms} ms, {AGE} of group {group}")


def _is_true(value: object) -> bool:
    return str(value).lower() == "true"
