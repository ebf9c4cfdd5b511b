"""A metadata log in memory, shared by several nodes: compare-and-set, leadership by order, failures on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from metadata.image import MetadataImage
from metadata.image_codec import encode_image
from metadata.quorum.log import (
    AppendLost,
    AppendUnknown,
    Committed,
    Leadership,
    MetadataSlice,
    SnapshotInstalled,
    SnapshotNeeded,
)
from metadata.records import ControllerEpochRecord, Record, encode_record

OnChange = Callable[[Committed | SnapshotInstalled], None]
OnLeadership = Callable[[Leadership], None]


@dataclass
class SharedLog:
    """What the quorum agrees on. `appends_held` delays commits until it is cleared."""

    image: MetadataImage = field(default_factory=MetadataImage)
    records: list[Record] = field(default_factory=list)
    appends: list[tuple[Record, ...]] = field(default_factory=list)
    nodes: list[MemoryLog] = field(default_factory=list)
    leader_id: int = -1
    term: int = 0
    may_commit: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_commit.set()

    def node(self, node_id: int) -> MemoryLog:
        node = MemoryLog(node_id, self)
        self.nodes.append(node)
        return node

    def elect(self, leader_id: int) -> None:
        """-1: nobody leads."""
        self.leader_id = leader_id
        self.term += 1
        for node in self.nodes:
            node.tell_leadership()

    def commit(self, records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> MetadataImage:
        first = records[0]
        claims = len(records) == 1 and isinstance(first, ControllerEpochRecord)
        current = self.image.controller_epoch
        if expected_offset != self.image.offset:
            raise AppendLost(f"the image is at offset {self.image.offset}, not {expected_offset}")
        if controller_epoch <= current if claims else controller_epoch != current:
            raise AppendLost(f"the controller epoch is {current}, the append has {controller_epoch}")
        base_offset = self.image.next_offset
        self.image = self.image.apply(records)
        self.records.extend(records)
        self.appends.append(tuple(records))
        for node in self.nodes:
            node.tell_change(Committed(base_offset=base_offset, image=self.image, decode=lambda: tuple(records)))
        return self.image


class MemoryLog:
    """One node's view; `fail_next` makes the next append raise that, before or (with `after`) after committing."""

    def __init__(self, node_id: int, shared: SharedLog) -> None:
        self.node_id = node_id
        self.shared = shared
        self.fail_next: AppendLost | AppendUnknown | None = None
        self.fail_after_commit = False
        self._on_change: list[OnChange] = []
        self._on_leadership: list[OnLeadership] = []

    @property
    def image(self) -> MetadataImage:
        return self.shared.image

    @property
    def met(self) -> frozenset[int]:
        return frozenset(node.node_id for node in self.shared.nodes)

    @property
    def leadership(self) -> Leadership:
        leader_id = self.shared.leader_id
        return Leadership(leader_id=leader_id, term=self.shared.term, is_self=leader_id == self.node_id)

    async def append(self, records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> MetadataImage:
        term = self.shared.term
        if not self.leadership.is_self:
            raise AppendLost(f"node {self.node_id} does not lead")
        failure, self.fail_next = self.fail_next, None
        if failure is not None and not self.fail_after_commit:
            raise failure
        await self.shared.may_commit.wait()
        if self.shared.term != term:
            raise AppendUnknown("leadership was lost while the append was on its way")
        image = self.shared.commit(records, controller_epoch=controller_epoch, expected_offset=expected_offset)
        if failure is not None:
            raise failure
        return image

    async def confirm(self) -> None:
        term = self.shared.term
        if not self.leadership.is_self:
            raise AppendLost(f"node {self.node_id} does not lead")
        await self.shared.may_commit.wait()
        if self.shared.term != term:
            raise AppendUnknown("leadership was lost meanwhile")

    def subscribe(self, on_change: OnChange, on_leadership: OnLeadership) -> None:
        self._on_change.append(on_change)
        self._on_leadership.append(on_leadership)

    def tell_change(self, change: Committed | SnapshotInstalled) -> None:
        for callback in self._on_change:
            callback(change)

    def tell_leadership(self) -> None:
        for callback in self._on_leadership:
            callback(self.leadership)

    def read(self, from_offset: int, *, bytes_max: int) -> MetadataSlice | SnapshotNeeded:
        chosen: list[bytes] = []
        for record in self.shared.records[from_offset:]:
            encoded = encode_record(record)
            if chosen and sum(map(len, chosen)) + len(encoded) > bytes_max:
                break
            chosen.append(encoded)
        return MetadataSlice(
            base_offset=from_offset,
            records=tuple(chosen),
            controller_epoch=self.image.controller_epoch,
            end_offset=self.image.next_offset,
        )

    def read_snapshot(self, end_offset: int, *, position: int, bytes_max: int) -> tuple[bytes, int]:
        data = encode_image(self.image)
        return data[position : position + bytes_max], len(data)

    async def start(self) -> None:
        self.tell_leadership()

    async def stop(self) -> None:
        self._on_change.clear()
        self._on_leadership.clear()
