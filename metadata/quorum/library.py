"""The only module that imports pysyncobj: a private, verified, deterministic copy of its Raft module for each node.

Nothing of the library is changed. `syncobj.py` gets time, randomness, polling and its wake-up pipe from four module
globals; a module object of our own, executed from the same verified source, has ours instead. Its `pickle` is replaced
by one that refuses, so that no byte from network or disk is ever unpickled.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import queue
import random
from collections import deque
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from pysyncobj.config import FAIL_REASON, SERIALIZER_STATE, SyncObjConf

from metadata.environment import Clock

VERSION = "0.3.17"
SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
_SOURCE_MODULE = "pysyncobj.syncobj"

FOLLOWER = 0
LEADER = 2
"""The library's state of a leader; a smaller number: a follower or a candidate."""
NO_OP_COMMAND = b"\x01"
OUR_COMMAND = b"\x00"
"""The library puts one byte before a command; this one marks commands of the application."""

SNAPSHOT_IDLE: int = SERIALIZER_STATE.NOT_SERIALIZING
SNAPSHOT_TAKEN: int = SERIALIZER_STATE.SUCCESS
SNAPSHOT_FAILED: int = SERIALIZER_STATE.FAILED
SUCCESS: int = FAIL_REASON.SUCCESS
NOT_LEADER: int = FAIL_REASON.NOT_LEADER
SURELY_LOST: frozenset[int] = frozenset(
    (
        FAIL_REASON.QUEUE_FULL,
        FAIL_REASON.MISSING_LEADER,
        FAIL_REASON.REQUEST_DENIED,
        FAIL_REASON.NOT_LEADER,
        FAIL_REASON.DISCARDED,
    )
)
"""Answers after which a command is in no log; after any other failure it may be."""


@dataclass(frozen=True, slots=True)
class Voter:
    """A node in the library's terms, looked up at every turn. It has the same hash in every process, so that the
    library's sets have one order."""

    id: int

    def __str__(self) -> str:
        return f"voter {self.id}"


@functools.cache
def voter(node_id: int) -> Voter:
    """The voter of an id: there are as many as the configuration has."""
    return Voter(node_id)


class Commands(deque[Any]):
    """Replaces the library's queue of proposals: the same order, limit and answers, and no lock."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def put_nowait(self, command: object) -> None:
        if len(self) >= self._limit:
            raise queue.Full
        self.append(command)

    def get_nowait(self) -> Any:
        if not self:
            raise queue.Empty
        return self.popleft()


class WrongLibrary(Exception):
    """The installed pysyncobj is not the one that the adapter was written and tested for."""


class _NoPickle:
    @staticmethod
    def loads(_data: object) -> Any:
        raise AssertionError("the quorum never unpickles")

    @staticmethod
    def dumps(_value: object) -> bytes:
        raise AssertionError("the quorum never pickles: is a command larger than a batch?")


class _NoPoller:
    def __init__(self, _kind: str) -> None: ...
    def subscribe(self, *_arguments: object) -> None: ...
    def unsubscribe(self, *_arguments: object) -> None: ...
    def poll(self, _timeout: float) -> None: ...


def load_private_copy(*, clock: Clock, rng: random.Random, expected_sha256: str = SHA256) -> ModuleType:
    """A private copy of the module. Raises WrongLibrary."""
    spec, code = verified(expected_sha256)
    module = importlib.util.module_from_spec(spec)
    exec(code, vars(module))
    replace_globals(
        module,
        monotonicTime=lambda: clock.monotonic_us() / 1_000_000,
        random=rng,
        createPoller=_NoPoller,
        PIPE_NOTIFIER_ENABLED=False,
        pickle=_NoPickle,
        # Its log lines are either harmless here (truncations are tentative, SO-S4) or asserted by us (failed loads,
        # SO-S11).
        logger=_quiet_logger(),
    )
    return module


def replace_globals(module: ModuleType, **replacements: object) -> None:
    for name, replacement in replacements.items():
        assert hasattr(module, name), f"{_SOURCE_MODULE} has no global {name}"
        setattr(module, name, replacement)


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("pysyncobj.private_syncobj")
    logger.disabled = True
    return logger


@functools.cache
def verified(expected_sha256: str = SHA256) -> tuple[ModuleSpec, CodeType]:
    """Read, verify and compile once in a process and its forks; each node executes its own copy. Raises
    WrongLibrary."""
    origin = importlib.util.find_spec(_SOURCE_MODULE)
    assert origin is not None, "pysyncobj is not installed"
    assert origin.origin is not None
    # A name inside the package makes its relative imports work; it is not entered into sys.modules.
    name = "pysyncobj.private_syncobj"
    loader = SourceFileLoader(name, origin.origin)
    source = loader.get_data(origin.origin)
    found = hashlib.sha256(source).hexdigest()
    if found != expected_sha256:
        raise WrongLibrary(
            f"{origin.origin} has sha256 {found}, expected {expected_sha256}: install pysyncobj=={VERSION}. "
            "The quorum reaches into the library's internals and is tested against exactly that file."
        )
    spec = importlib.util.spec_from_loader(name, loader, origin=origin.origin)
    assert spec is not None
    # Compiled from the bytes that were verified: the loader would use a `.pyc` beside them, whatever is in it.
    code: CodeType = compile(source, origin.origin, "exec", dont_inherit=True)
    return spec, code


def configuration(*, election_timeout_ms: int, heartbeat_ms: int, queue_max: int, batch_bytes: int) -> Any:
    """The library's settings: no own thread, files, sockets, forks, waits for forwarded commands or membership
    changes."""
    longest_s = 2 * election_timeout_ms / 1000
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=False,
        appendEntriesPeriod=heartbeat_ms / 1000,
        appendEntriesBatchSizeBytes=batch_bytes,
        raftMinTimeout=election_timeout_ms / 1000,
        raftMaxTimeout=longest_s,
        leaderFallbackTimeout=longest_s,  # SO-L5: 30 s by default
        connectionTimeout=max(2.0, longest_s),
        commandsWaitLeader=False,  # SO-L10
        commandsQueueSize=queue_max,
        journalFile=None,
        fullDumpFile=None,  # SO-S3 does not apply: the snapshot store is ours, and we load it ourselves
        useFork=False,  # SO-S2
        dynamicMembershipChange=False,  # SO-S10
        logCompactionMinEntries=2**62,
        logCompactionMinTime=2**31,
        password=None,
    )
