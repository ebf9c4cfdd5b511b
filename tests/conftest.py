"""For every test: no process outlives it, hypothesis draws the same examples each run, a hang prints its stacks.

A test that starts processes uses the fixture `processes`, which ends each process group when the test ends,
however it ends. A last sweep at the end of the run catches what processes have left behind, by a mark that each
process inherits through its environment; a guard does the same when the run itself is killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import bytecode

bytecode.keep()  # before all that pytest rewrites: its plugins, of which hypothesis is large, and the tests

import hypothesis  # noqa: E402
from xdist.scheduler import LoadFileScheduling  # noqa: E402

from tests import guard, memory_folder  # noqa: E402
from tests.scheduling import Scheduling, costly_first  # noqa: E402

STACKS_AFTER_S = 290
"""Shortly before pytest's own timeout, which may not be able to show where other threads are."""
STACKS_AGAIN_S = 5
"""A test may have begun so long after that time has."""
END_S = 10
"""How long a process has to end after SIGTERM, before SIGKILL."""
CLIENTS = Path(__file__).parent / "clients"
IN_MEMORY = ("not slow and not long and not browser", "long")
"""Marks of the runs whose files are kept in memory: the default run, and that of the long tests."""
MARK = "KRAFT_TEST_RUN"
"""Environment variable that all processes of one test run inherit."""

FOLDER = pytest.StashKey[Path]()
HAS_FAILED = pytest.StashKey[bool]()

gc.disable()  # until all is collected
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, print_blob=True, max_examples=100
)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So does a shell start what runs in the background, and programs that tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    is_first = not hasattr(config, "workerinput")
    if is_first and config.option.markexpr in IN_MEMORY and (folder := memory_folder.begin()) is not None:
        config.stash[FOLDER] = folder


def pytest_unconfigure(config: pytest.Config) -> None:
    """What a failed test has left can be looked at, until the next run."""
    _stacks.end()
    if (folder := config.stash.get(FOLDER, None)) is not None and not config.stash.get(HAS_FAILED, False):
        memory_folder.end(folder)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[HAS_FAILED] = exitstatus == pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)  # nobody calls it in a run with `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """The scheduler of `-n`, whatever `--dist` names."""
    config.option.loadscopereorder = False  # the order is that of `costly_first`
    return Scheduling(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`tests/clients` needs the extra `clients`, and runs when it is named: it is a step of its own in CI."""
    if CLIENTS not in (collection_path, *collection_path.parents):
        return None
    named = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(CLIENTS in (path, *path.parents) for path in named) else True


def pytest_collection_finish() -> None:
    """Tests and what they import live until the end: no garbage collection needs to walk all of that again."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: costly_first(item.nodeid))


class _Stacks:
    """Shows where all threads are when a test hangs. To begin anew ends one thread and starts another, which takes as
    long as most tests do: it is done for the first test after a while."""

    def __init__(self) -> None:
        self._begun_s = -float("inf")

    def begin(self) -> None:
        now_s = time.monotonic()
        if now_s - self._begun_s > STACKS_AGAIN_S:
            self._begun_s = now_s
            faulthandler.dump_traceback_later(STACKS_AFTER_S, exit=False, file=sys.__stderr__)

    def end(self) -> None:
        self._begun_s = -float("inf")
        faulthandler.cancel_dump_traceback_later()


_stacks = _Stacks()


def pytest_runtest_setup() -> None:
    _stacks.begin()


class Processes:
    """Processes of one test, each the leader of a group of its own."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Standard output and error are pipes; standard input is empty."""
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            _signal_group(process.pid, signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                pass
            finally:
                _signal_group(process.pid, signal.SIGKILL)
                process.communicate()


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


@pytest.fixture
def processes() -> Iterator[Processes]:
    running = Processes()
    try:
        yield running
    finally:
        running.end()


def _outliving(mark: str) -> list[int]:
    """Who is still there after a while: one that ends has a moment for it."""
    end, pause = time.monotonic() + END_S, threading.Event()
    while (left := guard.marked(MARK, mark)) and time.monotonic() < end:
        pause.wait(0.05)
    return left


@pytest.fixture(autouse=True, scope="session")
def _no_process_outlives_the_run() -> Iterator[None]:
    outer = os.environ.get(MARK)
    mark = f"{os.getpid()}-{uuid.uuid4()}"
    os.environ[MARK] = mark
    running = guard.start(MARK, mark)
    yield
    left = _outliving(mark)
    guard.kill(left)
    running.communicate()
    if outer is None:
        del os.environ[MARK]
    else:
        os.environ[MARK] = outer
    assert not left, f"processes {left} outlived their tests and were killed; use the fixture `processes`"
