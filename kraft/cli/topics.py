"""`kraft topics`: list, create, describe, alter, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import write, write_json, write_rows
from kraft.cli.rest import Rest
from kraft.client.response import segment

app = typer.Typer(help="List, create, describe, alter and delete topics.", no_args_is_help=True)

ConfigsOption = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="NAME=VALUE", help="A topic setting under Kafka's name; may be repeated."),
]
DeleteConfigOption = Annotated[
    list[str] | None, typer.Option("--delete-config", metavar="NAME", help="Back to its default; may be repeated.")
]


@app.command("list")
def list_topics(rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List all topics with their partitions and replication factor."""
    client = Rest(rest, data)
    rows = [
        {
            "topic": topic["topic_name"],
            "partitions": topic["partitions_count"],
            "replication_factor": topic["replication_factor"],
        }
        for topic in client.get(client.cluster("/topics"))["data"]
    ]
    write_rows(rows, ("topic", "partitions", "replication_factor"), as_json=as_json, empty="there are no topics")


@app.command()
def create(
    topic: TopicArgument,
    partitions: Annotated[int | None, typer.Option(help="Default: num.partitions of the cluster.")] = None,
    replication_factor: Annotated[int | None, typer.Option(help="Default: default.replication.factor.")] = None,
    assignment: Annotated[
        str | None,
        typer.Option(metavar="1,2,3;2,3,1", help="Brokers of each partition, preferred leader first, instead."),
    ] = None,
    config: ConfigsOption = None,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Check, and create nothing.")] = False,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a topic."""
    wanted = {
        "topic_name": topic,
        "partitions_count": partitions,
        "replication_factor": replication_factor,
        "replicas_assignments": parse_assignment(assignment) if assignment else None,
        "configs": [{"name": name, "value": value} for name, value in parse_settings(config)],
        "validate_only": validate_only or None,
    }
    client = Rest(rest, data)
    chosen = {name: value for name, value in wanted.items() if value not in (None, [])}
    _done(
        client.send_json("POST", client.cluster("/topics"), chosen),
        as_json=as_json,
        text=_created(topic, validate_only),
    )


@app.command()
def describe(
    topic: TopicArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show each partition's leader, replicas, ISR and offsets, and the topic's settings."""
    client = Rest(rest, data)
    document = client.get(f"/topics/{segment(topic)}")
    rows = [_partition_row(client, topic, partition) for partition in document["partitions"]]
    configs = document.get("configs") or {}
    if as_json:
        write_json({"topic": topic, "partitions": rows, "configs": configs})
        return
    columns = ("partition", "leader", "replicas", "isr", "beginning_offset", "end_offset")
    write_rows(rows, columns, as_json=False, title=topic)
    write_rows([{"setting": k, "value": v} for k, v in sorted(configs.items())], ("setting", "value"), as_json=False)


@app.command()
def alter(
    topic: TopicArgument,
    partitions: Annotated[int | None, typer.Option(help="Grow to this many; a topic never shrinks.")] = None,
    config: ConfigsOption = None,
    delete_config: DeleteConfigOption = None,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grow a topic, set or delete its settings."""
    changes = config_changes(config, delete_config)
    if partitions is None and not changes:
        raise typer.BadParameter("name the change: --partitions, --config or --delete-config")
    client = Rest(rest, data)
    path = client.cluster(f"/topics/{segment(topic)}")
    if changes:
        client.send_json("POST", f"{path}/configs:alter", {"data": changes})
    if partitions is not None:
        client.send_json("PATCH", path, {"partitions_count": partitions})
    _done({"topic_name": topic, "altered": True}, as_json=as_json, text=f"topic {topic} altered")


@app.command()
def delete(topic: TopicArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Delete a topic and all its records."""
    client = Rest(rest, data)
    client.send_json("DELETE", client.cluster(f"/topics/{segment(topic)}"))
    _done({"topic_name": topic, "deleted": True}, as_json=as_json, text=f"topic {topic} deleted")


def config_changes(config: Sequence[str] | None, delete_config: Sequence[str] | None) -> list[dict[str, str]]:
    """The changes that --config and --delete-config name, for `configs:alter`. Raises typer.BadParameter."""
    changes = [{"name": name, "value": value, "operation": "SET"} for name, value in parse_settings(config)]
    return changes + [{"name": name, "operation": "DELETE"} for name in delete_config or ()]


def parse_settings(texts: Sequence[str] | None) -> list[tuple[str, str]]:
    """The settings of `name=value` texts. Raises typer.BadParameter."""
    pairs = []
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--config")
        pairs.append((name.strip(), value.strip()))
    return pairs


def parse_assignment(text: str) -> dict[str, list[int]]:
    """`1,2;2,3` -> {"0": [1, 2], "1": [2, 3]}. Raises typer.BadParameter."""
    try:
        return {
            str(partition): [int(broker) for broker in brokers.split(",")]
            for partition, brokers in enumerate(text.split(";"))
        }
    except ValueError as error:
        hint = "--assignment"
        raise typer.BadParameter(f"{text!r} is not like 1,2,3;2,3,1", param_hint=hint) from error


def _created(topic: str, validate_only: bool) -> str:
    return f"topic {topic} could be created" if validate_only else f"topic {topic} created"


def _done(document: Any, *, as_json: bool, text: str) -> None:
    if as_json:
        write_json(document)
    else:
        write(text)


def _partition_row(client: Rest, topic: str, partition: dict[str, Any]) -> dict[str, Any]:
    number = partition["partition"]
    offsets = {"beginning_offset": None, "end_offset": None}
    if partition["leader"] is not None and partition["leader"] >= 0:
        offsets = client.get(f"/topics/{segment(topic)}/partitions/{number}/offsets")
    return {
        "partition": number,
        "leader": partition["leader"],
        "replicas": [replica["broker"] for replica in partition["replicas"]],
        "isr": [replica["broker"] for replica in partition["replicas"] if replica["in_sync"]],
        "beginning_offset": offsets["beginning_offset"],
        "end_offset": offsets["end_offset"],
    }
