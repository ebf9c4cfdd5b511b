"""`kraft node --config FILE --id N`: this process becomes the node, and may end with the process that started it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import Final

from kraft.config.checks import is_loopback, needs_written_identity, warnings
from kraft.config.parse import parse_config
from kraft.config.problems import ConfigError, Problem
from kraft.launcher.configuration import load_config, read_text
from kraft.launcher.partial_imports import loading_a_node

USAGE = 2
FAILED = 1


def run_in_foreground(path: str, *, node_id: int, data: str | None, parent_pid: int | None) -> int:
    """Run a node; return its exit code."""
    if parent_pid is not None:
        end_with(parent_pid)
    try:
        config = load_config(path, data=data)
        config.node(node_id)
        if any(not is_loopback(node.host) for node in config.nodes):
            _refuse_separate_identities(path)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    except LookupError as error:
        sys.stderr.write(f"error: {path}: {error.args[0]}\n")
        return FAILED
    for warning in warnings(config):
        sys.stderr.write(f"warning: {warning}\n")
    sys.stderr.flush()
    with loading_a_node():
        from kraft.node import run_node

    return run_node(config, node_id, data=config.data)


def _refuse_separate_identities(path: str) -> None:
    """Refuse a configuration with which nodes on several machines would each generate a cluster of their own."""
    missing = needs_written_identity(parse_config(read_text(path), file=path))
    if missing:
        wrong = "missing, and the nodes are on several hosts"
        right = "all nodes of a cluster must have the same"
        raise ConfigError(path, [Problem(key=key, wrong=wrong, right=right) for key in missing])


# --- the end of the parent --------------------------------------------------------------------------------------------

LOOK_EVERY_MS: Final = 500


def end_with(parent_pid: int) -> None:
    """End with the parent: a node of an attached `kraft up` ends with it, even when that is killed with -9. A daemon
    thread waits for the end of the parent's process, and then sends this one SIGTERM, the same as a clean stop. It
    waits on a pidfd where the system has one, otherwise it checks twice a second."""
    threading.Thread(target=_watch, args=(parent_pid,), name="lifeline", daemon=True).start()


def _watch(parent_pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        _wait_for_end(parent_pid)
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_end(pid: int) -> None:
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(pid)
        select.select([descriptor], [], [])
        os.close(descriptor)
        return
    while True:
        os.kill(pid, 0)
        time.sleep(LOOK_EVERY_MS / 1000)
