"""Spoiling the files of a partition on a simulated disk, as `worlds.processes.disks` does on a real one."""

from __future__ import annotations

from random import Random

from kraft.chaos.nemesis.actions import Damage
from kraft.chaos.worlds.processes.disks import BATCH_HEADER_BYTES, FLIP, byte_of_records
from kraft.chaos.worlds.spec import ScenarioError
from metadata.environment import Files


def damage(files: Files, folder: str, *, what: Damage, rng: Random) -> tuple[str, str]:
    """The kind of fault, and a sentence about it without the place."""
    if not files.exists(folder):
        raise ScenarioError(f"there is no folder {folder}")
    names = files.list_directory(folder)
    match what:
        case "delete log":
            files.remove_tree(folder)
            files.sync_directory(folder.rpartition("/")[0])
            return "wipe", "deleted the log"
        case "delete index":
            for name in names:
                if name.endswith((".index", ".timeindex")):
                    files.remove(f"{folder}/{name}")
            files.sync_directory(folder)
            return "flip", "deleted the indexes"
    segments = [name for name in names if name.endswith(".log")]
    if not segments or (what == "flip closed" and len(segments) < 2):
        raise ScenarioError(f"{folder} has no segment that could be spoiled; give it a small segment.bytes")
    name = segments[0] if what == "flip closed" else segments[-1]
    file = files.open(f"{folder}/{name}")
    try:
        if what == "torn tail":
            lost = rng.randrange(1, min(file.size, BATCH_HEADER_BYTES))
            file.truncate(file.size - lost)
            told = f"tore {lost} bytes off the end of {name}"
        else:
            position = byte_of_records(bytes(file.pread(0, file.size)), rng, name)
            file.pwrite(position, bytes([file.pread(position, 1)[0] ^ FLIP]))
            told = f"flipped bits at byte {position} of {name}"
        file.sync()
    finally:
        file.close()
    return "flip", told
