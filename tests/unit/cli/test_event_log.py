"""events.jsonl: one line per event, bounded, and never an error."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import cast

import pytest

from kraft.events import EVENT_BYTES_MAX, EventLog, EventRing
from kraft.runtime.files import DiskFiles
from metadata.environment import Clock, Environment, File, Network, Workers


class _Clock:
    now_ms = 1_000

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_us(self) -> int:
        return self.now_ms * 1000 + 7


class _FullDisk(DiskFiles):
    is_full = True

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:  # type: ignore[override]
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().open(path, create=create, read_only=read_only)


def environment(files: DiskFiles) -> Environment:
    return Environment(
        clock=cast(Clock, _Clock()),
        files=files,
        network=cast(Network, None),
        workers=cast(Workers, None),
        rng=random.Random(1),
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_who_runs_beside_the_owner_never_waits_for_it(tmp_path, files):
    lock = threading.Lock()
    log = EventLog(environment(files), data=str(tmp_path), node_id=3, ring=EventRing(lambda: 0, lock=lock))
    log.emit("one")
    with lock:  # as while the owner writes
        assert not log.emit_beside("two", {"stack": ["a"]})
    assert log.emit_beside("two", {"stack": ["a"]})
    log.emit("three")
    log.close()
    found = lines(tmp_path / "events.jsonl")
    assert [(each["event"], each["sequence"]) for each in found] == [("one", 0), ("two", 1), ("three", 2)]
    assert found[1]["stack"] == ["a"]


@pytest.fixture
def files() -> DiskFiles:
    return DiskFiles()


def test_an_event_is_a_line_with_time_node_and_sequence(tmp_path, files):
    log = EventLog(environment(files), data=str(tmp_path), node_id=3)
    log.emit("isr_shrunk", topic="t", partition=0, isr=[1, 2])
    log.emit("fenced", event="pretender", sequence=99)
    log.close()
    first, second = lines(tmp_path / "events.jsonl")
    assert first == {
        "topic": "t", "partition": 0, "isr": [1, 2], "at_ms": 1_000, "monotonic_us": 1_000_007, "node_id": 3,
        "sequence": 0, "event": "isr_shrunk",
    }  # fmt: skip
    assert (second["event"], second["sequence"]) == ("fenced", 1)


def test_a_second_start_goes_on_in_the_same_file(tmp_path, files):
    for _ in range(2):
        log = EventLog(environment(files), data=str(tmp_path), node_id=3)
        log.emit("started")
        log.close()
    assert len(lines(tmp_path / "events.jsonl")) == 2


def test_two_files_are_the_most_and_neither_passes_the_limit(tmp_path, files):
    log = EventLog(environment(files), data=str(tmp_path), node_id=3, bytes_max=1_000)
    for number in range(100):
        log.emit("tick", number=number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "events.jsonl.1"]
    assert all(path.stat().st_size <= 1_000 for path in tmp_path.iterdir())
    kept = [line["number"] for name in ("events.jsonl.1", "events.jsonl") for line in lines(tmp_path / name)]
    assert kept == list(range(kept[0], 100))


def test_a_full_disk_loses_events_and_nothing_else(tmp_path):
    disk = _FullDisk()
    log = EventLog(environment(disk), data=str(tmp_path), node_id=3)
    log.emit("lost")
    disk.is_full = False
    log.emit("kept")
    log.close()
    assert log.lost == 1
    assert [(line["event"], line["sequence"]) for line in lines(tmp_path / "events.jsonl")] == [("kept", 1)]


def test_what_is_no_json_is_still_an_event(tmp_path, files):
    loop: list[object] = []
    loop.append(loop)
    log = EventLog(environment(files), data=str(tmp_path), node_id=3)
    log.emit("odd", value=object(), path=Path("x"))
    log.emit("circular", value=loop)
    log.emit("keys", value={(1, 2): 3})
    log.emit("huge", value="x" * EVENT_BYTES_MAX)
    log.close()
    read = lines(tmp_path / "events.jsonl")
    assert [line["event"] for line in read] == ["odd", "circular", "keys", "huge"]
    assert read[3]["bytes"] > EVENT_BYTES_MAX
