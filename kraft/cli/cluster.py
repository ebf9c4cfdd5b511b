"""`kraft up`, `down` and `status`: the cluster as a whole."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kraft.cli.options import (
    ConsoleHostOption,
    ConsoleNoContentsOption,
    ConsoleReadOnlyOption,
    DataOption,
    JsonOption,
    RestOption,
    TimeoutOption,
    console_options,
)
from kraft.cli.output import progress, say, write, write_json, write_rows
from kraft.cli.rest import DATA_DEFAULT, Rest
from kraft.launcher import actions, live
from kraft.launcher.runfile import ClusterRun
from kraft.launcher.start_display import start_view
from kraft.launcher.up import Interrupted, interruptible, start_cluster, stop_cluster, uninterruptible

if TYPE_CHECKING:
    from kraft.launcher.console import ConsoleOptions, ConsoleProcess

ADDRESSES = ("rest", "kafka", "quorum")
"""Columns that no terminal breaks, because people copy them."""


def up(
    config: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER.TOML]", help="Default: three nodes on this machine.")
    ] = None,
    data: DataOption = None,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Pick free ports instead of the file's.")] = False,
    secure: Annotated[bool, typer.Option("--secure", help="TLS, a user, ACLs; files of clients: DIR/client.")] = False,
    faults: Annotated[
        bool, typer.Option("--faults", help="A throwaway cluster whose links and disks can be broken.")
    ] = False,
    console: Annotated[
        bool, typer.Option("--console/--no-console", help="A page that shows all nodes, and breaks them by a click.")
    ] = True,
    console_host: ConsoleHostOption = "127.0.0.1",
    console_read_only: ConsoleReadOnlyOption = False,
    console_no_contents: ConsoleNoContentsOption = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready; `kraft down` stops it.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    help_config: Annotated[bool, typer.Option("--help-config", help="List every key of cluster.toml.")] = False,
) -> None:
    """Start every node of a cluster on this machine and show it until Ctrl-C, which stops all nodes cleanly.

    It waits as long as the nodes make progress, and shows what they wait for: voters met, logs loaded, partitions led.
    If a node ends, after five minutes without progress, or after --timeout, all nodes are stopped again.

    With --json the first line on standard output, printed when the cluster is ready, is one JSON object:
    cluster_id, bootstrap_servers (for Kafka clients) and nodes, each with id, roles, pid, rest, kafka, quorum, data;
    with --secure also client, the folder of the files that clients need; and console, the address of the page.
    """
    if help_config:
        from kraft.cli.configuration import show_keys

        show_keys(as_json=as_json)
        return
    page = console_options(console, console_host, reads=console_read_only, hides=console_no_contents)
    interruptible()
    if faults:
        from kraft.cli.fault_up import up_with_faults

        up_with_faults(config, data=data, secure=secure, detach=detach, console=page, as_json=as_json)
        return
    try:
        start = partial(start_cluster, config, data=data, free_ports=free_ports, secure=secure, detach=detach, say=say)
        view = start_view(say, on_terminal=_on_terminal(as_json=as_json))
        run = start(view=view, limit_ms=None if timeout is None else round(timeout * 1_000))
    except Interrupted:
        say("stopped before the cluster was ready")
        sys.exit(130)
    _show(run, console=page, detach=detach, as_json=as_json)


def _show(run: ClusterRun, *, console: ConsoleOptions | None, detach: bool, as_json: bool) -> None:
    if not detach:
        _show_until_stopped(run, console=console, as_json=as_json)
        return
    _announce(run, console=_console_of(run, console, detach=True) if console else None, as_json=as_json)
    if not as_json:
        say(f"detached; `kraft down --data {run.data}` stops it")


def _show_until_stopped(run: ClusterRun, *, console: ConsoleOptions | None, as_json: bool) -> None:
    page = None
    try:
        page = _console_of(run, console) if console else None
        _announce(run, console=page, as_json=as_json)
        live.watch(run, say=progress(as_json=as_json), on_terminal=_on_terminal(as_json=as_json))
    except (Interrupted, BrokenPipeError):
        say("stopping all nodes cleanly")
    finally:
        uninterruptible()
        if page is not None:
            page.end()
        stop_cluster(run, say=say)
    say("all nodes have stopped")


def _console_of(run: ClusterRun, options: ConsoleOptions, *, detach: bool = False) -> ConsoleProcess | None:
    """None where nobody may listen."""
    from kraft.launcher.console import start_console

    try:
        return start_console(run.data, detach=detach, options=options, is_secure=run.client is not None)
    except OSError as error:
        say(f"warning: there is no console: {error}")
        return None


def _announce(run: ClusterRun, *, console: ConsoleProcess | None, as_json: bool) -> None:
    if as_json:
        addresses = {"bootstrap_servers": live.bootstrap_servers(run)}
        write_json(run.summary() | addresses | ({} if console is None else {"console": console.url}))
        return
    title = f"cluster {run.cluster_id} is ready; its data is in {run.data}"
    columns = ("id", "roles", "rest", "kafka", "quorum", "pid") + (() if sys.stdout.isatty() else ("data",))
    write_rows(live.node_rows(run), columns, as_json=False, title=title, whole=ADDRESSES)
    if run.client is not None:
        write(f"\nTLS, logins and ACLs are on. The user admin may do everything; its files are in {run.client}")
    if console is not None:
        write(f"\nSee it, and break it: {console.url}")
    write("\nTry:\n")
    write(live.first_commands(run) + "\n")
    write("Kafka clients:\n")
    write(live.kafka_commands(run) + "\n")


def _on_terminal(*, as_json: bool) -> bool:
    return sys.stdout.isatty() and not as_json


def down(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Stop the cluster that runs from a data folder, cleanly. Its data stays."""
    folder = os.path.abspath(data or DATA_DEFAULT)
    run = actions.bring_down(folder, say=say)
    if as_json:
        write_json({"cluster_id": run.cluster_id, "stopped": [node.id for node in run.nodes]})
    else:
        write(f"cluster {run.cluster_id} has stopped")


def status(rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show the nodes, the leader of the quorum, and the state of the partitions."""
    document = Rest(rest, data).get("/kraft/status")
    if as_json:
        write_json(document)
        return
    partitions = document["partitions"]
    leader = document["controller_id"]
    write(f"cluster {document['cluster_id']}, as node {document['node_id']} sees it")
    write(
        f"quorum leader {leader if leader >= 0 else 'none'} (epoch {document['controller_epoch']}), "
        f"metadata offset {document['metadata_offset']}"
    )
    write(
        f"topics {document['topics']}, partitions {partitions['total']}: "
        f"under-replicated {partitions['under_replicated']}, under min ISR {partitions['under_min_isr']}, "
        f"offline {partitions['offline']}"
    )
    write(f"bootstrap.servers={','.join(node['kafka'] for node in document['nodes'] if 'broker' in node['roles'])}")
    found = document.get("kafka_clients", ())
    clients = [f"{each['software']} {each['version']} ({each['connections']})" for each in found]
    write(f"Kafka clients of this node, with connections: {', '.join(clients) or 'none'}")
    write_rows(
        document["nodes"], ("id", "roles", "state", "rest", "kafka", "quorum", "rack"), as_json=False, whole=ADDRESSES
    )
