"""The main thread as the watchdog sees it from another one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kraft.runtime.main_thread import FAILED, MainThread


def _computes(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="no clock of another thread")
def test_processor_time_of_main_thread() -> None:
    main = MainThread()
    with ThreadPoolExecutor(1) as beside:
        before_ms = beside.submit(main.busy_ms).result()
        _computes(0.3)
        after_ms = beside.submit(main.busy_ms).result()
        assert after_ms - before_ms >= 290
        beside.submit(_computes, 0.3).result()  # and this thread waits for it
        assert beside.submit(main.busy_ms).result() - after_ms < 150


def test_the_stack_names_the_function_that_the_main_thread_is_in() -> None:
    main, has_looked, stacks = MainThread(), threading.Event(), list[list[str]]()

    def look() -> None:
        stacks.append(main.stack())
        has_looked.set()

    def hangs_here() -> None:
        threading.Thread(target=look).start()
        assert has_looked.wait(60)

    hangs_here()
    calls = [call.rpartition(" in ")[2] for call in stacks[0]]
    # What it calls comes after it; which call that is depends on how far it has come when the other thread looks.
    assert calls.index("test_the_stack_names_the_function_that_the_main_thread_is_in") < calls.index("hangs_here")
    assert all(__file__ in call for call in stacks[0] if call.endswith("hangs_here"))


def test_the_end_comes_at_once_and_reports_why_and_where() -> None:
    program = """
import threading
from kraft.runtime.main_thread import MainThread
def waits_for_ever():
    main = MainThread()
    threading.Timer(0.1, main.end, ["no turn for 9 ms"]).start()
    threading.Event().wait()
try:
    waits_for_ever()
finally:
    print("finally")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == FAILED
    assert done.stdout == "", "nothing else runs"
    assert done.stderr.startswith("this node ends itself: no turn for 9 ms\n")
    assert "in waits_for_ever" in done.stderr
