"""The effect of a committed command: compare-and-set on the image, the same on every voter.

Invariant: the image is a function of the Raft log alone. A command that was decided on another image, or by a former
controller, changes nothing; so a stale controller is fenced without a lock (Q5). A command that cannot be read or does
not fit is a broken invariant: the exception stops the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from metadata.image import MetadataImage
from metadata.image_codec import decode_image, encode_image
from metadata.quorum.command import Command, decode_command, records_of
from metadata.quorum.log import Committed
from metadata.records import ControllerEpochRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    committed: Committed
    command: memoryview
    """The bytes of the append, as they are in the log."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The compare-and-set failed; the command changed nothing."""

    reason: str


Result: TypeAlias = MetadataImage | Dropped


class MetadataStateMachine:
    def __init__(self, *, on_applied: Callable[[Applied], None], on_installed: Callable[[MetadataImage], None]) -> None:
        self.image = MetadataImage()
        self._applied_index = 0
        self._on_applied = on_applied
        self._on_installed = on_installed

    def apply(self, data: memoryview, *, index: int) -> Result | None:
        """Apply Raft entry `index`; None when it was applied before (SO-S9: the library may repeat one)."""
        if index <= self._applied_index:
            return None
        self._applied_index = index
        command = decode_command(data)
        reason = refusal(self.image, command)
        if reason is not None:
            return Dropped(reason)
        base_offset = self.image.next_offset
        self.image = self.image.apply(command.records)
        committed = Committed(base_offset=base_offset, image=self.image, decode=partial(records_of, data))
        self._on_applied(Applied(committed=committed, command=data))
        return self.image

    def snapshot(self) -> tuple[int, int, bytes]:
        return self.image.next_offset, self.image.controller_epoch, encode_image(self.image)

    def install(self, body: bytes, *, index: int) -> None:
        if index <= self._applied_index:
            return
        image = decode_image(body)
        assert image.next_offset >= self.image.next_offset, (image.next_offset, self.image.next_offset)
        self.image, self._applied_index = image, index
        self._on_installed(image)


def refusal(image: MetadataImage, command: Command) -> str | None:
    if is_claim(command):
        record = command.records[0]
        assert isinstance(record, ControllerEpochRecord)
        if record.epoch > image.controller_epoch:
            return None
        return f"epoch {record.epoch} was claimed when {image.controller_epoch} was reached"
    if command.controller_epoch != image.controller_epoch:
        return f"controller epoch {command.controller_epoch}, but {image.controller_epoch} has begun"
    if command.expected_offset != image.offset:
        return f"decided at offset {command.expected_offset}, but the image is at {image.offset}"
    return None


def is_claim(command: Command) -> bool:
    return len(command.records) == 1 and isinstance(command.records[0], ControllerEpochRecord)
