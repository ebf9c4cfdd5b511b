"""`kraft up`: check ports, start every node, wait until the cluster is ready, watch, stop cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from kraft.launcher.fork_messages import Launch, Prepare
from kraft.launcher.fork_start import CAN_WATCH_FORKS
from kraft.launcher.forks import ForkServerGone, end_fork_server, fork_server
from kraft.launcher.processes import LaunchError, StartProcess, start_program, stop_nodes
from kraft.launcher.readiness import StartFailed, explained, wait_until_ready
from kraft.launcher.runfile import ClusterRun, load_run, remove_run, run_of
from kraft.launcher.start_display import StartInPipe, StartView

Say = Callable[[str], None]
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM to `kraft up`."""


def start_cluster(
    config_file: str | None,
    *,
    data: str | None,
    free_ports: bool,
    secure: bool = False,
    detach: bool,
    say: Say,
    view: StartView | None = None,
    limit_ms: int | None = None,
    start: StartProcess | None = None,
) -> ClusterRun:
    """Start all nodes and return when the cluster is ready. Raises ConfigError or LaunchError; then nothing runs.

    `secure`: with TLS, a user and ACLs (`kraft/launcher/secured.py`). `view` shows the start; without one, `say` gets
    it as text. `limit_ms`: limit of the start; None: as long as the nodes make progress. `start`: the function that
    starts each node; None: forks of one process where that is safe, else programs."""
    parent = None if detach else os.getpid()
    asked = Prepare(config=config_file, data=data, free_ports=free_ports, secure=secure)
    run = None
    if start is None and CAN_WATCH_FORKS:
        run = _start_forks(asked, parent, say=say)
    if run is None:
        run = _start_each(asked, parent, say=say, start=start or start_program)
    return _ready_or_stopped(run, limit_ms=limit_ms, say=say, view=view or StartInPipe(say))


def _start_forks(asked: Prepare, parent: int | None, *, say: Say) -> ClusterRun | None:
    """None when the fork server has ended: it started nothing."""
    server = fork_server()
    prepared: str | None = None
    try:
        plan = server.prepare(asked)
        for warning in plan["warnings"]:
            say(f"warning: {warning}")
        prepared = plan["data"]
        return run_of(server.launch(Launch(data=plan["data"], parent_pid=parent)))
    except ForkServerGone:
        return None
    except BaseException:
        if prepared is not None:
            with contextlib.suppress(ForkServerGone):
                server.end(prepared)
        raise
    finally:
        server.leave()


def _start_each(asked: Prepare, parent: int | None, *, say: Say, start: StartProcess) -> ClusterRun:
    from kraft.config.checks import warnings
    from kraft.launcher.cluster_preparation import launch, prepare

    config = prepare(asked.config, data=asked.data, free_ports=asked.free_ports, secure=asked.secure)
    for warning in warnings(config):
        say(f"warning: {warning}")
    return launch(config, parent_pid=parent, start=start, secure=asked.secure)


def stop_cluster(run: ClusterRun, *, say: Say) -> None:
    """Stop cleanly; restarted nodes are found through the run file."""
    run = load_run(run.data) or run
    stop_nodes(run.nodes, say=say)
    remove_run(run.data)
    end_fork_server(run.data)


def interruptible() -> None:
    """From now on Ctrl-C, SIGTERM and a closed terminal raise Interrupted, so that the nodes are always stopped."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _interrupt)


def uninterruptible() -> None:
    """While stopping: a second Ctrl-C must not leave nodes behind."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)


def _ready_or_stopped(run: ClusterRun, *, limit_ms: int | None, say: Say, view: StartView) -> ClusterRun:
    try:
        view.begin(run)
        try:
            wait_until_ready(run.nodes, show=view.show, limit_ms=limit_ms)
        finally:
            view.end()
    except StartFailed as failure:
        stop_cluster(run, say=say)
        raise LaunchError(explained(failure)) from failure
    except BaseException:
        uninterruptible()
        stop_cluster(run, say=say)
        raise
    return run
