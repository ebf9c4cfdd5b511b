"""A modern group while one event is decided: records are applied to a copy as they are written.

So each step sees what the steps before it have changed, and a refusal leaves nothing behind. Never outlives a decision.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from kraft.coordinators.groups.classic_requests import Answer, Reply
from kraft.coordinators.groups.modern_group import NEVER_MS, ModernGroup, Timer
from kraft.coordinators.groups.records import GroupRecord
from metadata.image import MetadataImage
from metadata.persistent_map import MapDraft

GroupT = TypeVar("GroupT", bound=ModernGroup[Any])


class ModernDraft(Generic[GroupT]):
    def __init__(self, group: GroupT, image: MetadataImage, *, now_ms: int, wall_ms: int) -> None:
        self.group = group
        self.image = image
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.records: list[GroupRecord] = []
        self.replies: list[Reply] = []
        self._owns_facts = False
        self._owns_deadlines = False

    def reply(self, ticket: int | None, answer: Answer) -> None:
        if ticket is not None:
            self.replies.append(Reply(ticket, answer))

    def write(self, key: Any, value: Any) -> None:
        if not self._owns_facts:
            self.group = self.group.copy()
            self._owns_facts = self._owns_deadlines = True
        self.group.apply(key, value)
        self.records.append(GroupRecord(key, value))

    def bury(self) -> None:
        for key in self.group.tombstones():
            self.write(key, None)

    # --- timers -----------------------------------------------------------------------------------------------------

    def set_timer(self, timer: Timer, member_id: str, after_ms: int) -> None:
        at_ms = self.now_ms + after_ms
        self._deadlines()[timer, member_id] = at_ms
        self.group.due_ms = min(self.group.due_ms, at_ms)

    def start_timer(self, timer: Timer, member_id: str, after_ms: int) -> None:
        """Unless it runs already."""
        if (timer, member_id) not in self.group.deadlines:
            self.set_timer(timer, member_id, after_ms)

    def clear_timer(self, timer: Timer, member_id: str) -> None:
        if (timer, member_id) in self.group.deadlines:
            del self._deadlines()[timer, member_id]

    def due_members(self) -> list[str]:
        """The members of which a deadline is over."""
        return sorted({member_id for (_, member_id), at_ms in self.group.deadlines.items() if at_ms <= self.now_ms})

    def look_at_all_deadlines(self) -> None:
        """After what was due: sessions have become longer since they were looked at."""
        self._deadlines()
        self.group.due_ms = min(self.group.deadlines.values(), default=NEVER_MS)

    def _deadlines(self) -> MapDraft[tuple[Timer, str], int]:
        if not self._owns_deadlines:
            self.group = replace(self.group, deadlines=self.group.deadlines.copy())
            self._owns_deadlines = True
        return self.group.deadlines

    # --- topics -----------------------------------------------------------------------------------------------------

    def mark_metadata_checked(self) -> None:
        if not self.group.is_metadata_checked:
            self.group = replace(self.group, is_metadata_checked=True)

    def metadata_hash(self) -> int:
        """A hash of the names, ids and numbers of partitions of the subscribed topics that exist; 0 if none does. Only
        the coordinator that wrote one compares it; Kafka's is made otherwise, and so makes a new epoch at its first
        heartbeat."""
        found = [topic for topic in map(self.image.topic, sorted(self.group.subscribed_topics)) if topic is not None]
        if not found:
            return 0
        digest = blake2b(digest_size=8)
        for topic in found:
            digest.update(f"{topic.name}\0{topic.topic_id.hex}\0{len(topic.partitions)}\0".encode())
        return int.from_bytes(digest.digest(), "big", signed=True)
