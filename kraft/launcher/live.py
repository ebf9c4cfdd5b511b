"""The display of `kraft up` while the cluster runs: a calm view on a terminal, one line per change in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final

from kraft.launcher import client_files
from kraft.launcher.processes import is_alive, reap
from kraft.launcher.readiness import cluster_status
from kraft.launcher.runfile import ClusterRun, NodeRun, load_run

REFRESH_MS: Final = 1_000


def first_commands(run: ClusterRun) -> str:
    """The first curl commands to try."""
    node = next((node for node in run.nodes if node.is_broker), run.nodes[0])
    last = [node for node in run.nodes if node.is_broker][-1:] or [node]
    cluster = f"{node.rest}/v3/clusters/{run.cluster_id}"
    curl = "curl -s" if run.client is None else client_files.curl(run.client)
    return "\n".join(
        (
            f"{curl} {cluster}/topics \\",
            "     -H 'Content-Type: application/json' -d '{\"topic_name\": \"hello\"}'",
            f"{curl} {node.rest}/topics/hello -H 'Content-Type: application/vnd.kafka.json.v2+json' \\",
            '     -d \'{"records": [{"key": "a", "value": {"n": 1}}, {"value": "anything"}]}\'',
            f"{curl} '{last[0].rest}/topics/hello/partitions/0/records?offset=earliest' \\",
            "     -H 'Accept: application/vnd.kafka.json.v2+json'",
        )
    )


def bootstrap_servers(run: ClusterRun) -> str:
    """The bootstrap.servers of a Kafka client."""
    return ",".join(node.kafka for node in run.nodes if node.is_broker)


def kafka_commands(run: ClusterRun) -> str:
    """The bootstrap.servers of a Kafka client, and a line each for kafka-python, kcat and Java's tools; with `--secure`
    lines that log in."""
    if run.client is not None:
        return "\n".join(client_files.kafka_lines(run.client, servers=bootstrap_servers(run)))
    first = next((node for node in run.nodes if node.is_broker), run.nodes[0]).kafka
    python = f"from kafka import KafkaProducer as P; P(bootstrap_servers='{first}').send('hello', b'hi').get(10)"
    return "\n".join(
        (
            f"bootstrap.servers={bootstrap_servers(run)}",
            f'python -c "{python}"',
            f"kcat -b {first} -t hello -C -e",
            f"kafka-console-consumer.sh --bootstrap-server {first} --topic hello --from-beginning",
        )
    )


def node_rows(run: ClusterRun) -> list[dict[str, str | tuple[str, ...]]]:
    return [
        {
            "id": str(node.id),
            "roles": node.roles,
            "rest": node.rest,
            "kafka": node.kafka,
            "quorum": node.quorum or "-",
            "pid": str(node.pid),
            "data": node.data,
        }
        for node in run.nodes
    ]


def watch(run: ClusterRun, *, say: Callable[[str], None], on_terminal: bool) -> None:
    """Show the cluster until an exception: Ctrl-C, as a rule. Return when no node runs any more."""
    if on_terminal:
        _watch_on_terminal(run)
    else:
        _watch_in_pipe(run, say)


def _watch_in_pipe(run: ClusterRun, say: Callable[[str], None]) -> None:
    shown = ""
    while True:
        run = _refreshed(run)
        line = " | ".join(status_lines(run, cluster_status(_running(run))))
        if line != shown:
            shown = line
            say(line)
        if not _running(run):
            return
        time.sleep(REFRESH_MS / 1000)


def _watch_on_terminal(run: ClusterRun) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(file=sys.stdout), auto_refresh=False, transient=True) as live:
        while True:
            run = _refreshed(run)
            status = cluster_status(_running(run))
            lines = (*status_lines(run, status), *node_lines(run, status), "Ctrl-C stops all nodes cleanly.")
            live.update(Text("\n".join(lines)), refresh=True)
            if not _running(run):
                return
            time.sleep(REFRESH_MS / 1000)


def _refreshed(run: ClusterRun) -> ClusterRun:
    reap([node.pid for node in run.nodes])
    return load_run(run.data) or run


def _running(run: ClusterRun) -> list[NodeRun]:
    return [node for node in run.nodes if is_alive(node.pid)]


def status_lines(run: ClusterRun, status: dict[str, Any] | None) -> tuple[str, ...]:
    """Lines about nodes, then partitions; they change only with the cluster."""
    alive = {node.id for node in _running(run)}
    if not alive:
        return ("no node runs any more",)
    down = [node.id for node in run.nodes if node.id not in alive]
    if status is None:
        return (f"{_named('down', down)} no node reports a status".lstrip(),)
    brokers = [entry for entry in status.get("nodes", ()) if "broker" in entry["roles"]]
    active = [entry["id"] for entry in brokers if entry["state"] == "active"]
    partitions = status.get("partitions", {})
    controller = status.get("controller_id", -1)
    leader = f"node {controller} (epoch {status.get('controller_epoch')})" if controller >= 0 else "none"
    return (
        f"quorum leader {leader} | brokers {len(active)}/{len(brokers)} active{_named(' | down', down)}",
        f"partitions {partitions.get('total', 0)}, "
        f"under-replicated {partitions.get('under_replicated', 0)}, "
        f"under min ISR {partitions.get('under_min_isr', 0)}, offline {partitions.get('offline', 0)}",
    )


def node_lines(run: ClusterRun, status: dict[str, Any] | None) -> list[str]:
    """One line per node, with its current process: a restart has changed it."""
    states = {entry["id"]: entry["state"] for entry in (status or {}).get("nodes", ())}
    running = {node.id for node in _running(run)}
    return [
        f"  node {node.id}  pid {node.pid}  {states.get(node.id, 'starting')}"
        if node.id in running
        else f"  node {node.id}  down; kraft node restart {node.id} --data {run.data}"
        for node in run.nodes
    ]


def _named(what: str, ids: list[int]) -> str:
    return f"{what} {', '.join(map(str, ids))}" if ids else ""
