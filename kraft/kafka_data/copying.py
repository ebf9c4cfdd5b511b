"""Files of logs taken over into another folder: hard links where nobody writes again, copies of the rest.

A folder that is being filled has the file `UNFINISHED`; it goes when everything is there. So a target that was left
half filled is known, and is emptied and filled again.
"""

from __future__ import annotations

import errno
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
_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
"""What a link on one volume may fail with: two mounts of it (EXDEV), a file of another user, a file with many names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The file system that a path is on."""

    device: int
    free_bytes: int


VolumeOf = Callable[[str], Volume]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    source: str
    target: str
    is_linked: bool
    size: int
    is_rewritten: bool = False
    """The log of a segment that is neither linked nor copied: others write it, and its indexes."""


def refuse_filled(target: str) -> None:
    """Raises UnfitData for a target that has anything, unless it was left unfinished."""
    if os.path.lexists(target) and not os.path.isdir(target):
        raise UnfitData(f"{target} is no folder")
    if os.path.isdir(target) and os.listdir(target) and not os.path.exists(os.path.join(target, UNFINISHED)):
        raise UnfitData(f"{target} is not empty; name a folder that is, or that does not exist")


def begin(target: str) -> None:
    """Make the folder, or empty one that was left unfinished. Raises UnfitData when it has anything else."""
    refuse_filled(target)
    os.makedirs(target, mode=0o700, exist_ok=True)
    marker = os.path.join(target, UNFINISHED)
    for name in os.listdir(target):
        path = os.path.join(target, name)
        if name != UNFINISHED:
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    with open(marker, "w", encoding="utf-8") as out:
        out.write("This folder is being filled; it is of no use as long as this file is here.\n")


def finish(target: str) -> None:
    """Wait until everything is on the disk, then remove the mark."""
    os.sync()
    os.remove(os.path.join(target, UNFINISHED))


def volume_of(path: str) -> Volume:
    """The file system of a path; of one that does not exist yet: where it would be made."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return Volume(device=os.stat(path).st_dev, free_bytes=found.f_bavail * found.f_frsize)


def refuse_inside(sources: Iterable[str], target: str) -> None:
    """Raises UnfitData for a target in one of the sources, in which Kafka loads no other folder than partitions."""
    inner = os.path.realpath(target)
    for source in sources:
        outer = os.path.realpath(source)
        if os.path.commonpath([inner, outer]) == outer:
            raise UnfitData(f"{target} is in {source}, which stays as it is: name a folder elsewhere")


def can_be_shared(sources: Iterable[str], target: str, volume_of: VolumeOf) -> bool:
    """Whether a file can have a name in each of the sources and in the target."""
    device = volume_of(target).device
    return all(volume_of(source).device == device for source in sources)


def sizes(files: Iterable[Taken]) -> tuple[int, int]:
    """Bytes that are linked, and bytes that are copied."""
    linked = copied = 0
    for each in files:
        linked, copied = (linked + each.size, copied) if each.is_linked else (linked, copied + each.size)
    return linked, copied


def check_target(target: str, copied_bytes: int, volume_of: VolumeOf, *, is_agreed: bool) -> None:
    """Raises UnfitData when the target has other files, when its volume has no room for the copies, or when all files
    would have to be copied and nobody has agreed to that."""
    refuse_filled(target)
    free = volume_of(target).free_bytes
    if not is_agreed:
        raise UnfitData(
            f"{target} is on another file system than the data, so that files cannot be shared: {copied_bytes:,} bytes "
            f"would be copied, and {free:,} are free there; repeat it with --copy"
        )
    if free < copied_bytes + ROOM_LEFT_BYTES:
        raise UnfitData(
            f"{target} needs {copied_bytes:,} bytes for copies, and {free:,} are free there, of which "
            f"{ROOM_LEFT_BYTES:,} stay free"
        )


def take(files: Iterable[Taken], *, on_bytes: Callable[[int], object]) -> None:
    """Link or copy each file; `on_bytes` gets the size of each piece that was copied. Raises UnfitData when files
    cannot be linked, OSError."""
    for each in files:
        if each.is_rewritten:
            continue
        os.makedirs(os.path.dirname(each.target), mode=0o700, exist_ok=True)
        if each.is_linked:
            _link(each)
        else:
            _copy(each, on_bytes)


def _link(each: Taken) -> None:
    try:
        os.link(each.source, each.target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise UnfitData(
                f"{each.source} cannot be shared with {each.target} ({error.strerror}): repeat it with --copy"
            ) from error
        raise


def _copy(each: Taken, on_bytes: Callable[[int], object]) -> None:
    with open(each.source, "rb", buffering=0) as source, open(each.target, "xb", buffering=0) as target:
        while piece := source.read(COPY_BYTES):
            target.write(piece)
            on_bytes(len(piece))
        os.fchmod(target.fileno(), 0o600)
    found = os.stat(each.source)
    os.utime(each.target, ns=(found.st_atime_ns, found.st_mtime_ns))
