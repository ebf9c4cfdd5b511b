"""Commands on a running cluster: stop all of it, or stop, kill and restart one node."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from kraft.launcher.console import end_console
from kraft.launcher.forks import end_fork_server, start_fork_or_program
from kraft.launcher.processes import (
    STOP_LIMIT_MS,
    StartProcess,
    is_alive,
    log_tail,
    send_signal,
    stop_nodes,
    wait_for_end,
)
from kraft.launcher.readiness import StartFailed, wait_until_ready
from kraft.launcher.runfile import ClusterRun, NodeRun, load_run, remove_run, save_run
from kraft.launcher.start_display import LongWait

Say = Callable[[str], None]


class NotRunning(Exception):
    """There is no cluster, or no such node, to act on."""


def running_cluster(data: str) -> ClusterRun:
    """The cluster that runs from a data folder. Raises NotRunning."""
    run = load_run(data)
    if run is None:
        raise NotRunning(f"no cluster was started from the data folder {data}; --data DIR names another")
    return run


def bring_down(data: str, *, say: Say) -> ClusterRun:
    run = running_cluster(data)
    end_console(run.data)
    stop_nodes(run.nodes, say=say)
    remove_run(run.data)
    end_fork_server(run.data)
    return run


def stop_node(data: str, node_id: int, *, say: Say) -> NodeRun:
    """Stop a node cleanly: it first hands its leaderships over."""
    node = _running_node(data, node_id)
    stop_nodes([node], say=say)
    return node


def kill_node(data: str, node_id: int) -> NodeRun:
    """Kill a node at once, as a power failure would."""
    node = _running_node(data, node_id)
    send_signal(node, signal.SIGKILL)
    wait_for_end([node], limit_ms=STOP_LIMIT_MS)
    return node


def restart_node(
    data: str, node_id: int, *, say: Say, limit_ms: int | None = None, start: StartProcess = start_fork_or_program
) -> NodeRun:
    """Stop the node cleanly if it runs, start it again, and wait until it is ready, if possible: without a majority of
    the voters it runs, and waits for them. Raises StartFailed; the node is then left as it is."""
    started = start_again(data, node_id, say=say, start=start)
    wait_for_started(data, [started], say=say, limit_ms=limit_ms)
    return started


def start_again(data: str, node_id: int, *, say: Say, start: StartProcess = start_fork_or_program) -> NodeRun:
    """Stop the node cleanly if it runs, and start it. Raises NotRunning and OSError."""
    run = running_cluster(data)
    node = _node(run, node_id)
    stop_nodes([node], say=say)
    pid = start(
        config=run.config,
        node_id=node_id,
        data=run.data,
        log=node.log,
        parent_pid=run.launcher_pid,
        variables=run.variables(node_id),
    )
    run = running_cluster(data).with_pid(node_id, pid)
    save_run(run)
    return run.node(node_id)


def wait_for_started(data: str, nodes: Sequence[NodeRun], *, say: Say, limit_ms: int | None = None) -> None:
    """Wait until they are ready, or can only wait for a majority of the voters. Raises StartFailed."""
    try:
        is_ready = wait_until_ready(
            nodes,
            show=LongWait(say).show,
            limit_ms=limit_ms,
            is_quorum_possible=lambda: _has_majority(running_cluster(data)),
        )
    except StartFailed as failure:
        if failure.node is None:
            raise
        tail = "\n".join(f"  | {line}" for line in log_tail(failure.node.log))
        raise StartFailed(f"{failure}. Last lines of {failure.node.log}:\n{tail}", node=failure.node) from failure
    if not is_ready:
        run = running_cluster(data)
        down = [str(node.id) for node in run.nodes if node.quorum is not None and not is_alive(node.pid)]
        named = " and ".join(f"node {node.id}" for node in nodes)
        verbs = "runs, and waits" if len(nodes) == 1 else "run, and wait"
        say(f"{named} {verbs} for a majority of the voters: start {' or '.join(down)} too")


def _has_majority(run: ClusterRun) -> bool:
    """Whether enough voters run to elect a leader; all of them are in the run file."""
    voters = [is_alive(node.pid) for node in run.nodes if node.quorum is not None]
    return 2 * sum(voters) > len(voters)


def _running_node(data: str, node_id: int) -> NodeRun:
    node = _node(running_cluster(data), node_id)
    if not is_alive(node.pid):
        raise NotRunning(f"node {node_id} does not run; start it with `kraft node restart {node_id} --data {data}`")
    return node


def _node(run: ClusterRun, node_id: int) -> NodeRun:
    try:
        return run.node(node_id)
    except LookupError as error:
        raise NotRunning(str(error)) from error
