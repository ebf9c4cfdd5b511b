"""`kraft queues`: share groups as queues: list, describe, create, alter, reset, delete."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import write, write_json, write_pairs, write_rows
from kraft.cli.rest import Rest
from kraft.cli.topics import DeleteConfigOption, config_changes, parse_settings
from kraft.client.response import segment

app = typer.Typer(help="List, describe, create, alter, reset and delete queues (share groups).", no_args_is_help=True)

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the share group.")]
TopicsArgument = Annotated[list[str], typer.Argument(metavar="TOPIC...", help="Topics whose records it hands out.")]
COLUMNS = ("share_group_id", "state", "consumer_count", "partition_count")
CONSUMER_COLUMNS = ("consumer_id", "client_id")
LAG_COLUMNS = ("topic_name", "partition_id", "start_offset", "lag")
CONFIG_COLUMNS = ("setting", "value", "source")
ConfigsOption = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="NAME=VALUE", help="A group setting under Kafka's name; may be repeated."),
]
RESET_COLUMNS = ("topic_name", "partition_id", "start_offset", "message")


@app.command("list")
def list_queues(rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List all queues."""
    client = Rest(rest, data)
    found = client.get(client.cluster("/share-groups"))["data"]
    write_rows(_columns(found, COLUMNS), COLUMNS, as_json=as_json, empty="there are no queues")


@app.command()
def describe(
    queue: QueueArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show a queue, its consumers, its lag in each partition, and its settings."""
    client = Rest(rest, data)
    path = _path(client, queue)
    (about,) = _columns([client.get(path)], COLUMNS)
    consumers = _columns(client.get(path + "/consumers")["data"], CONSUMER_COLUMNS)
    lags = _columns(client.get(path + "/lags")["data"], LAG_COLUMNS)
    configs = [
        {"setting": each["name"], "value": each["value"], "source": each["source"]}
        for each in client.get(path + "/configs")["data"]
    ]
    if as_json:
        by_name = {each["setting"]: each["value"] for each in configs}
        write_json({**about, "consumers": consumers, "lags": lags, "configs": by_name})
        return
    write_pairs(about, as_json=False, title=queue)
    write_rows(consumers, CONSUMER_COLUMNS, as_json=False, empty="no consumers")
    write_rows(lags, LAG_COLUMNS, as_json=False, empty="no partitions")
    write_rows(configs, CONFIG_COLUMNS, as_json=False)


@app.command()
def create(
    queue: QueueArgument,
    topics: TopicsArgument,
    config: ConfigsOption = None,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a queue that begins with the first record of its topics."""
    client = Rest(rest, data)
    configs = [{"name": name, "value": value} for name, value in parse_settings(config)]
    wanted = {"share_group_id": queue, "topics": topics, "configs": configs}
    client.send_json("POST", client.cluster("/share-groups"), wanted)
    _report(queue, "created", as_json=as_json)


@app.command()
def alter(
    queue: QueueArgument,
    config: ConfigsOption = None,
    delete_config: DeleteConfigOption = None,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set or delete settings of a queue, all or none; its members follow at once."""
    changes = config_changes(config, delete_config)
    if not changes:
        raise typer.BadParameter("name the change: --config or --delete-config")
    client = Rest(rest, data)
    client.send_json("POST", _path(client, queue) + "/configs:alter", {"data": changes})
    _report(queue, "altered", as_json=as_json)


@app.command()
def reset(
    queue: QueueArgument,
    topics: TopicsArgument,
    to: Annotated[str, typer.Option(metavar="earliest|latest", help="Where it begins.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a queue without consumers begin elsewhere."""
    client = Rest(rest, data)
    document = client.send_json("POST", _path(client, queue) + "/offsets:reset", {"to": to, "topics": topics})
    write_rows(_columns(document["data"], RESET_COLUMNS), RESET_COLUMNS, as_json=as_json)


@app.command()
def delete(queue: QueueArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Delete a queue without consumers. Its topics stay."""
    client = Rest(rest, data)
    client.send_json("DELETE", _path(client, queue))
    _report(queue, "deleted", as_json=as_json)


def _path(client: Rest, queue: str) -> str:
    return client.cluster(f"/share-groups/{segment(queue)}")


def _columns(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in columns} for row in rows]


def _report(queue: str, done: str, *, as_json: bool) -> None:
    if as_json:
        write_json({"queue": queue, done: True})
    else:
        write(f"queue {queue} {done}")
