"""`kraft up`: check ports, start every node, wait until the cluster is ready, watch, stop in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from kraft.config.checks import warnings
from kraft.config.models import ClusterConfig
from kraft.config.render import render
from kraft.launcher.configuration import SECRET_FILE, load_config, write_whole
from kraft.launcher.ports import taken_ports, with_free_ports
from kraft.launcher.processes import StartProcess, is_alive, log_tail, start_program, stop_nodes
from kraft.launcher.readiness import StartFailed, wait_until_ready
from kraft.launcher.runfile import RESOLVED_FILE, ClusterRun, NodeRun, load_run, remove_run, save_run
from kraft.launcher.starting import StartInPipe, StartView

Say = Callable[[str], None]
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LaunchError(Exception):
    """The cluster was not started, or did not become ready and was stopped again."""


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM to `kraft up`."""


def start_cluster(
    config_file: str | None,
    *,
    data: str | None,
    free_ports: bool,
    detach: bool,
    say: Say,
    view: StartView | None = None,
    limit_ms: int | None = None,
    start: StartProcess = start_program,
) -> ClusterRun:
    """Start all nodes and return when the cluster is ready. Raises ConfigError or LaunchError; then nothing runs.

    `view` shows how it starts; without one, `say` is told. `limit_ms`: how long that may take; None: as long as the
    nodes make progress."""
    config = load_config(config_file, data=data)
    _refuse_second_start(config.data)
    if free_ports:
        config = with_free_ports(config)
    elif taken := taken_ports(config):
        raise LaunchError("\n".join(str(port) for port in taken))
    for warning in warnings(config):
        say(f"warning: {warning}")
    resolved = _write_resolved(config)
    run = _start_nodes(config, resolved, detach=detach, say=say, start=start)
    return _ready_or_stopped(run, limit_ms=limit_ms, say=say, view=view or StartInPipe(say))


def stop_cluster(run: ClusterRun, *, say: Say) -> None:
    """Stop in order; restarted nodes are found through the run file."""
    run = load_run(run.data) or run
    stop_nodes(run.nodes, say=say)
    remove_run(run.data)


def interruptible() -> None:
    """From now on Ctrl-C, SIGTERM and a closed terminal raise Interrupted, so that the nodes are always stopped."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _interrupt)


def uninterruptible() -> None:
    """While stopping: a second Ctrl-C does not leave nodes behind."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)


def _refuse_second_start(data: str) -> None:
    run = load_run(data)
    alive = [node for node in run.nodes if is_alive(node.pid)] if run else []
    if alive:
        ids = ", ".join(f"{node.id} (pid {node.pid})" for node in alive)
        raise LaunchError(f"a cluster already runs from {data}: nodes {ids}; stop it with `kraft down --data {data}`")


def _write_resolved(config: ClusterConfig) -> str:
    """All nodes start from one file with every default filled in; the secret stays in a file of its own."""
    secret_file = os.path.join(config.data, SECRET_FILE)
    write_whole(secret_file, config.secret.get_secret_value() + "\n", mode=0o600)
    resolved = os.path.join(config.data, RESOLVED_FILE)
    write_whole(resolved, render(config, secret_file=secret_file))
    return resolved


def _start_nodes(config: ClusterConfig, resolved: str, *, detach: bool, say: Say, start: StartProcess) -> ClusterRun:
    parent = None if detach else os.getpid()
    nodes: list[NodeRun] = []
    try:
        for node in config.nodes:
            log = os.path.join(node.data, "node.log")
            pid = start(config=resolved, node_id=node.id, data=config.data, log=log, parent_pid=parent)
            nodes.append(
                NodeRun(
                    id=node.id,
                    roles=node.roles,
                    pid=pid,
                    rest=node.rest_url,
                    kafka=str(node.kafka),
                    quorum=str(node.quorum) if node.quorum else None,
                    data=node.data,
                )
            )
    except OSError as error:
        stop_nodes(nodes, say=say)
        raise LaunchError(f"node {config.nodes[len(nodes)].id} cannot be started: {error}") from error
    run = ClusterRun(
        cluster_id=config.cluster_id, config=resolved, data=config.data, launcher_pid=parent, nodes=tuple(nodes)
    )
    save_run(run)
    return run


def _ready_or_stopped(run: ClusterRun, *, limit_ms: int | None, say: Say, view: StartView) -> ClusterRun:
    try:
        view.begin(run)
        try:
            wait_until_ready(run.nodes, show=view.show, limit_ms=limit_ms)
        finally:
            view.end()
    except StartFailed as failure:
        stop_cluster(run, say=say)
        raise LaunchError(_explain(failure)) from failure
    except BaseException:
        uninterruptible()
        stop_cluster(run, say=say)
        raise
    return run


def _explain(failure: StartFailed) -> str:
    if failure.node is None:
        return f"{failure}; all nodes were stopped"
    tail = "\n".join(f"  | {line}" for line in log_tail(failure.node.log)) or "  | (nothing)"
    return f"{failure}; the others were stopped. Last lines of {failure.node.log}:\n{tail}"
