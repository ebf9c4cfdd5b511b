"""Power loss: the content of a disk afterwards, computed from the witness of its node, and applied to the files.

A file has the length of its last fsync; a file without fsync is gone; a rename without fsync of its folder is undone.
Events and output of the process stay: they are evidence, not data.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kraft.runtime.witness import UNDO_FOLDER, WITNESS_FILE

EVIDENCE: Final = ("events.jsonl", "node.log")
LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Rename:
    old: str
    new: str
    undo: str | None
    replaced_size: int | None
    """The durable length of the replaced file."""


@dataclass(slots=True)
class Durable:
    """The durable state: path -> length."""

    sizes: dict[str, int] = field(default_factory=dict)
    pending: list[Rename] = field(default_factory=list)
    """Renames in folders without a later fsync, in order."""

    def learn(self, fact: dict[str, Any]) -> None:
        match fact:
            case {"sync": path, "size": size}:
                self.sizes[path] = size
            case {"cut": path, "size": size}:
                if path in self.sizes:
                    self.sizes[path] = min(size, self.sizes[path])
            case {"rename": old, "new": new, "undo": undo}:
                self._rename(old, new, undo)
            case {"directory": directory}:
                self.pending = [each for each in self.pending if os.path.dirname(each.new) != directory]
            case {"removed": path}:
                for gone in [known for known in self.sizes if _is_in(known, path)]:
                    del self.sizes[gone]
                self.pending = [each for each in self.pending if not _is_in(each.new, path)]

    def _rename(self, old: str, new: str, undo: str | None) -> None:
        replaced = self.sizes.pop(new, None)
        for known in [known for known in self.sizes if _is_in(known, old)]:
            self.sizes[new + known[len(old) :]] = self.sizes.pop(known)
        self.pending.append(Rename(old, new, undo, replaced))


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def read_witness(folder: Path) -> Durable:
    durable = Durable()
    path = folder / WITNESS_FILE
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            durable.learn(json.loads(line))
    return durable


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The losses of a power loss."""

    cut: dict[str, int]
    """File -> the number of lost bytes."""
    removed: tuple[str, ...]
    undone: tuple[str, ...]
    """Undone renames, by their new name."""

    @property
    def bytes_lost(self) -> int:
        return sum(self.cut.values())


def lose_power(data: Path, witness: Path) -> Loss:
    """Apply a power loss to the files of a dead node; the witness then has the new state."""
    durable = read_witness(witness)
    undone = list(_undo_renames(durable))
    cut: dict[str, int] = {}
    removed: list[str] = []
    for path in _files(data):
        size, kept = os.path.getsize(path), durable.sizes.get(path)
        if kept is None:
            os.remove(path)
            removed.append(path)
        elif size > kept:
            os.truncate(path, kept)
            cut[path] = size - kept
    reset_witness(data, witness)
    return Loss(cut=cut, removed=tuple(removed), undone=tuple(undone))


def _undo_renames(durable: Durable) -> Iterator[str]:
    for each in reversed(durable.pending):
        if os.path.isdir(each.new) or not os.path.exists(each.new):
            continue  # folders are renamed to be deleted, and a replaced file needs no undoing
        if each.undo is not None and os.path.exists(each.undo):
            os.replace(each.undo, each.new)
            _set(durable.sizes, each.new, each.replaced_size)
        else:
            os.remove(each.new)
        yield each.new


def _set(sizes: dict[str, int], path: str, size: int | None) -> None:
    if size is None:
        sizes.pop(path, None)
    else:
        sizes[path] = size


def _files(data: Path) -> Iterator[str]:
    for folder, _, names in os.walk(data):
        for name in names:
            if not name.startswith(EVIDENCE) and name != LOCK:
                yield os.path.join(folder, name)


def reset_witness(data: Path, witness: Path) -> None:
    """Record all current files as durable."""
    shutil.rmtree(witness / UNDO_FOLDER, ignore_errors=True)
    facts = [{"sync": path, "size": os.path.getsize(path)} for path in _files(data)]
    (witness / WITNESS_FILE).write_text("".join(json.dumps(fact) + "\n" for fact in facts), encoding="utf-8")


if __name__ == "__main__":  # DATA WITNESS: for callers that must not import this in their own process
    lose_power(Path(sys.argv[1]), Path(sys.argv[2]))
