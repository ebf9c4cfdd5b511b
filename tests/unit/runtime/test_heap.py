"""Memory that is freed and needed again, in a process of its own: the allocator is one for all of it."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from kraft.runtime.heap import uncleared

MIB = 1024 * 1024
ROUNDS = 64
PAGES = MIB // 4096
FAULTS = """
import resource

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for _ in range(%d):
        held = [b"x" * 1_048_576 for _ in range(2)]
        del held

work()
before = faults()
work()
print(faults() - before)
"""
RESIDENT = """
import time
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

held = [bytes(b"x" * 100_000) for _ in range(400)]
full = resident()
del held[:-1]
kept = resident()
heap.tend()
time.sleep(0.5)
heap.tend()
print(full - kept, full - resident())
"""

needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library")


def printed(program: str, *, tuning: str = "on") -> list[int]:
    before = f"from kraft.runtime.heap import Heap\nheap = Heap({{'KRAFT_ALLOCATOR_TUNING': {tuning!r}}})\n"
    ended = subprocess.run([sys.executable, "-c", before + program], capture_output=True, text=True, timeout=60)
    assert not ended.returncode, ended.stderr
    return [int(word) for word in ended.stdout.split()]


@needs_glibc
def test_memory_that_was_freed_is_used_again_without_the_system() -> None:
    (faults,) = printed(FAULTS % ROUNDS)
    assert faults < PAGES, faults


@needs_glibc
def test_without_tuning_memory_that_was_freed_is_taken_from_the_system_again() -> None:
    (faults,) = printed(FAULTS % ROUNDS, tuning="off")
    assert faults > ROUNDS * PAGES, faults


@needs_glibc
def test_memory_goes_back_to_the_system_when_there_is_little_to_do() -> None:
    at_once, later = printed(RESIDENT)
    assert at_once < 4 * MIB
    assert later > 30 * MIB


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
def test_memory_that_is_not_cleared_is_a_bytearray_of_the_size(size: int) -> None:
    data = uncleared(size)
    assert (type(data), len(data)) == (bytearray, size)
    memoryview(data)[:] = b"\1" * size
    assert data == b"\1" * size
