"""`kraft groups`: list, describe, reset, delete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, write, write_json, write_pairs, write_rows
from kraft.cli.rest import Rest
from kraft.client.response import segment

app = typer.Typer(help="List, describe, reset and delete consumer groups.", no_args_is_help=True)

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")]
LAG_COLUMNS = ("topic_name", "partition_id", "current_offset", "log_end_offset", "lag", "consumer_id", "client_id")
RESET_COLUMNS = ("topic_name", "partition_id", "old_offset", "new_offset")


@app.command("list")
def list_groups(rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List all groups with their state and coordinator."""
    client = Rest(rest, data)
    found = client.get(client.cluster("/consumer-groups"))["data"]
    write_rows([_row(each) for each in found], tuple(_row({})), as_json=as_json, empty="there are no groups")


@app.command()
def describe(
    group: GroupArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show a group, its members, and its lag in each partition."""
    client = Rest(rest, data)
    path = client.cluster(f"/consumer-groups/{segment(group)}")
    about = _row(client.get(path))
    members = [
        {name: each[name] for name in ("consumer_id", "instance_id", "client_id")}
        for each in client.get(path + "/consumers")["data"]
    ]
    lags = [{name: each[name] for name in LAG_COLUMNS} for each in client.get(path + "/lags")["data"]]
    if as_json:
        write_json({**about, "members": members, "lags": lags, "total_lag": sum(each["lag"] for each in lags)})
        return
    write_pairs({**about, "total_lag": sum(each["lag"] for each in lags)}, as_json=False, title=group)
    write_rows(members, ("consumer_id", "instance_id", "client_id"), as_json=False, empty="no members")
    write_rows(lags, LAG_COLUMNS, as_json=False, empty="no committed offsets")


@app.command()
def reset(
    group: GroupArgument,
    to: Annotated[str | None, typer.Option(metavar="earliest|latest|TIME", help="TIME is ISO-8601.")] = None,
    shift: Annotated[int | None, typer.Option(help="Number of records to move forward; negative: back.")] = None,
    file: Annotated[
        Path | None, typer.Option(help='JSON: [{"topic_name": "t", "partition_id": 0, "offset": 7}].')
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="Only this topic; may be repeated. Default: all with offsets.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the new offsets, change nothing.")] = False,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set the offsets of a group that has no members."""
    if sum(each is not None for each in (to, shift, file)) != 1:
        raise typer.BadParameter("name the target: one of --to, --shift and --file")
    wanted: dict[str, Any] = {"validate_only": dry_run}
    if to is not None:
        wanted |= {"to": to} if to in ("earliest", "latest") else {"timestamp": to}
    if shift is not None:
        wanted["shift"] = shift
    if file is not None:
        wanted["offsets"] = _offsets_in(file)
    if topic:
        wanted["topics"] = topic
    client = Rest(rest, data)
    document = client.send_json("POST", client.cluster(f"/consumer-groups/{segment(group)}/offsets:reset"), wanted)
    write_rows(document["data"], RESET_COLUMNS, as_json=as_json)


@app.command()
def delete(group: GroupArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Delete a group that has no members, with its offsets."""
    client = Rest(rest, data)
    client.send_json("DELETE", client.cluster(f"/consumer-groups/{segment(group)}"))
    if as_json:
        write_json({"group": group, "deleted": True})
    else:
        write(f"group {group} deleted")


def _row(group: dict[str, Any]) -> dict[str, Any]:
    coordinator = group.get("coordinator", {}).get("related", "")
    return {
        "group": group.get("consumer_group_id"),
        "state": group.get("state"),
        "assignor": group.get("partition_assignor"),
        "generation": group.get("generation"),
        "coordinator": coordinator.rpartition("/")[2],
    }


def _offsets_in(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{path} cannot be read as JSON: {error}") from error
