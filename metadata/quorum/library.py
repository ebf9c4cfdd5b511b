"""The one place that imports pysyncobj: a private, verified, deterministic copy of its Raft module per node.

Nothing of the library is changed. `syncobj.py` takes time, randomness, polling and its wake-up pipe from four
module globals; a module object of our own, executed from the same verified source, gets ours instead. Its `pickle`
is replaced by one that refuses, so that no byte from network or disk is ever unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import random
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

from pysyncobj.config import FAIL_REASON, SERIALIZER_STATE, SyncObjConf

from metadata.environment import Clock
from metadata.values import value

VERSION = "0.3.17"
SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
_SOURCE_MODULE = "pysyncobj.syncobj"

NO_OP_COMMAND = b"\x01"
OUR_COMMAND = b"\x00"
"""The library puts one byte before a command; this one is for commands of the application."""

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
"""Answers after which a command is in no log; any other failure leaves that open."""


@value()
class Voter:
    """What the library calls a node. Hashes alike in every process, so that its sets have one order."""

    id: int

    def __str__(self) -> str:
        return f"voter {self.id}"


class WrongLibrary(Exception):
    """Another pysyncobj than the one that the adapter was written and tested for."""


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
    """Raises WrongLibrary."""
    spec = _verified_spec(expected_sha256)
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    names: dict[str, object] = {
        "monotonicTime": lambda: clock.monotonic_us() / 1_000_000,
        "random": rng,
        "createPoller": _NoPoller,
        "PIPE_NOTIFIER_ENABLED": False,
        "pickle": _NoPickle,
        # What it logs is either harmless here (truncations are tentative, S4) or asserted by us (failed loads, S11).
        "logger": _quiet_logger(),
    }
    for name, replacement in names.items():
        assert hasattr(module, name), f"{_SOURCE_MODULE} has no global {name}"
        setattr(module, name, replacement)
    return module


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("pysyncobj.private_syncobj")
    logger.disabled = True
    return logger


def _verified_spec(expected_sha256: str) -> ModuleSpec:
    origin = importlib.util.find_spec(_SOURCE_MODULE)
    assert origin is not None, "pysyncobj is not installed"
    assert origin.origin is not None
    # A name inside the package makes its relative imports work; it is not entered into sys.modules.
    name = "pysyncobj.private_syncobj"
    loader = SourceFileLoader(name, origin.origin)
    found = hashlib.sha256(loader.get_data(origin.origin)).hexdigest()
    if found != expected_sha256:
        raise WrongLibrary(
            f"{origin.origin} has sha256 {found}, expected {expected_sha256}: install pysyncobj=={VERSION}. "
            "The quorum reaches into the library's internals and is tested against exactly that file."
        )
    spec = importlib.util.spec_from_loader(name, loader, origin=origin.origin)
    assert spec is not None
    return spec


def configuration(*, election_timeout_ms: int, heartbeat_ms: int, queue_max: int, batch_bytes: int) -> Any:
    """The library's settings: no own thread, files, sockets, forks, forwarding waits or membership changes."""
    longest_s = 2 * election_timeout_ms / 1000
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=False,
        appendEntriesPeriod=heartbeat_ms / 1000,
        appendEntriesBatchSizeBytes=batch_bytes,
        raftMinTimeout=election_timeout_ms / 1000,
        raftMaxTimeout=longest_s,
        leaderFallbackTimeout=longest_s,  # L5: 30 s by default
        connectionTimeout=max(2.0, longest_s),
        commandsWaitLeader=False,  # L10
        commandsQueueSize=queue_max,
        journalFile=None,
        fullDumpFile=None,  # S3 does not apply: the snapshot store is ours, and we load it ourselves
        useFork=False,  # S2
        dynamicMembershipChange=False,  # S10
        logCompactionMinEntries=2**62,
        logCompactionMinTime=2**31,
        password=None,
    )
