"""Files of logs taken over into another folder: hard links where nobody writes again, copies of the rest.

A folder that is being filled has the file `UNFINISHED`; it goes when everything is there. So a target that was left
half filled is known, and is emptied and filled again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from kraft.kafka_data.replica import UnfitData

UNFINISHED: Final = "UNFINISHED"
COPY_BYTES: Final = 1 << 20
ROOM_LEFT_BYTES: Final = 64 << 20
"""What stays free on the target's volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    source: str
    target: str
    is_linked: bool
    size: int
    is_rewritten: bool = False
    """The log of a segment that is neither linked nor copied: others write it, and its indexes."""


def begin(target: str) -> None:
    """Make the folder, or empty one that was left unfinished. Raises UnfitData when it has anything else."""
    if os.path.lexists(target) and not os.path.isdir(target):
        raise UnfitData(f"{target} is no folder")
    marker = os.path.join(target, UNFINISHED)
    if os.path.isdir(target) and os.listdir(target):
        if not os.path.exists(marker):
            raise UnfitData(f"{target} is not empty; name a folder that is, or that does not exist")
        for name in os.listdir(target):
            path = os.path.join(target, name)
            if name != UNFINISHED:
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    os.makedirs(target, mode=0o700, exist_ok=True)
    with open(marker, "w", encoding="utf-8") as out:
        out.write("This folder is being filled; it is of no use as long as this file is here.\n")


def finish(target: str) -> None:
    """Wait until everything is on the disk, then remove the mark."""
    os.sync()
    os.remove(os.path.join(target, UNFINISHED))


def is_same_volume(source: str, target: str) -> bool:
    """Whether a file can have a name in both."""
    return os.stat(source).st_dev == os.stat(_existing(target)).st_dev


def check_room(target: str, needed_bytes: int) -> None:
    """Raises UnfitData when the volume of the target has less room."""
    volume = os.statvfs(_existing(target))
    free = volume.f_bavail * volume.f_frsize
    if free < needed_bytes + ROOM_LEFT_BYTES:
        raise UnfitData(
            f"{target} needs {needed_bytes:,} bytes for copies, and {free:,} are free there, of which "
            f"{ROOM_LEFT_BYTES:,} stay free"
        )


def _existing(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def take(files: Iterable[Taken], *, on_bytes: Callable[[int], object]) -> None:
    """Link or copy each file; `on_bytes` gets the size of each piece that was copied. Raises OSError."""
    for each in files:
        if each.is_rewritten:
            continue
        os.makedirs(os.path.dirname(each.target), mode=0o700, exist_ok=True)
        if each.is_linked:
            os.link(each.source, each.target)
        else:
            _copy(each, on_bytes)


def _copy(each: Taken, on_bytes: Callable[[int], object]) -> None:
    with open(each.source, "rb", buffering=0) as source, open(each.target, "xb", buffering=0) as target:
        while piece := source.read(COPY_BYTES):
            target.write(piece)
            on_bytes(len(piece))
        os.fchmod(target.fileno(), 0o600)
    found = os.stat(each.source)
    os.utime(each.target, ns=(found.st_atime_ns, found.st_mtime_ns))
