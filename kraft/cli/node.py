"""`kraft node`: one node in the foreground, or an action on one node of a running cluster."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from kraft.cli.options import DataOption, JsonOption, TimeoutOption
from kraft.cli.output import progress, write, write_json
from kraft.cli.rest import DATA_DEFAULT
from kraft.launcher import actions
from kraft.launcher.foreground import run_in_foreground
from kraft.launcher.runfile import NodeRun

app = typer.Typer(
    help="Run one node here, or stop, kill or restart one of a running cluster.", invoke_without_command=True
)
NodeArgument = Annotated[int, typer.Argument(metavar="ID", help="Id of the node, as in cluster.toml.")]


@app.callback()
def node(
    context: typer.Context,
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="The cluster.toml.")] = None,
    node_id: Annotated[int | None, typer.Option("--id", help="Id of the node to run.")] = None,
    data: DataOption = None,
    parent: Annotated[int | None, typer.Option("--parent", help="Stop when this process ends.", hidden=True)] = None,
) -> None:
    """Run one node in the foreground, as on real hosts: `kraft node --config cluster.toml --id 2`.

    SIGTERM or Ctrl-C stops it cleanly: it hands its leaderships over, flushes and leaves.
    """
    if context.invoked_subcommand is not None:
        context.obj = data
        return
    if config is None or node_id is None:
        raise typer.BadParameter("--config FILE and --id N name the node to run; or use stop, kill, restart")
    sys.exit(run_in_foreground(config, node_id=node_id, data=data, parent_pid=parent))


@app.command()
def stop(context: typer.Context, node_id: NodeArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Stop one node cleanly (SIGTERM): its leaderships move first."""
    _tell(actions.stop_node(_folder(context, data), node_id, say=progress(as_json=as_json)), "stopped", as_json=as_json)


@app.command()
def kill(context: typer.Context, node_id: NodeArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Kill one node at once (SIGKILL), as a crash would."""
    _tell(actions.kill_node(_folder(context, data), node_id), "killed", as_json=as_json)


@app.command()
def restart(
    context: typer.Context,
    node_id: NodeArgument,
    data: DataOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start one node again (after a clean stop, if it runs) and wait until it is ready.

    Without a majority of the voters it cannot be ready: it then waits for the others, and the command reports it.
    """
    limit_ms = None if timeout is None else round(timeout * 1_000)
    say = progress(as_json=as_json)
    started = actions.restart_node(_folder(context, data), node_id, say=say, limit_ms=limit_ms)
    _tell(started, "running", as_json=as_json)


def _folder(context: typer.Context, data: str | None) -> str:
    return os.path.abspath(data or context.obj or DATA_DEFAULT)


def _tell(node: NodeRun, state: str, *, as_json: bool) -> None:
    if as_json:
        write_json({"id": node.id, "pid": node.pid, "state": state})
    else:
        write(f"node {node.id} (pid {node.pid}) {state}")
