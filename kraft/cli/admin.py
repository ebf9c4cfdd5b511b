"""`kraft reassign` and `kraft elect`: the brokers that have replicas, and the one that leads."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import CommandFailed, write, write_json, write_rows
from kraft.cli.rest import Rest
from kraft.client.response import segment

ELECTION_NOT_NEEDED: Final = 84
"""Kafka's code for a partition that already has the requested leader: no failure."""


def reassign(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="Without a topic: list the current reassignments.")
    ] = None,
    partition: Annotated[int | None, typer.Argument(metavar="[PARTITION]", min=0)] = None,
    replicas: Annotated[
        str | None, typer.Option(metavar="2,3,1", help="Brokers of the replicas, the preferred leader first.")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the current reassignment.")] = False,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a partition's replicas to other brokers, cancel a move, or list the current ones.

    Example: `kraft reassign orders 0 --replicas 2,3,1`
    """
    client = Rest(rest, data)
    if replicas is None and not cancel:
        _list_reassignments(client, topic or "-", as_json=as_json)
        return
    if topic is None or partition is None or (replicas is not None and cancel):
        raise typer.BadParameter("name TOPIC and PARTITION, and either --replicas or --cancel")
    path = client.cluster(f"/topics/{segment(topic)}/partitions/{partition}/reassignment")
    if cancel:
        document = client.send_json("DELETE", path)
    else:
        document = client.send_json("POST", path, {"replicas": parse_brokers(str(replicas))})
    if as_json:
        write_json(document or {"topic_name": topic, "partition_id": partition})
    else:
        write(f"reassignment of {topic}-{partition} {'cancelled' if cancel else 'started'}")


def elect(
    topic: TopicArgument,
    partition: Annotated[int | None, typer.Argument(metavar="[PARTITION]", min=0, help="Default: all.")] = None,
    kind: Annotated[
        Literal["preferred", "unclean"],
        typer.Option("--type", help="preferred: the first replica; unclean: any live one, and records may be lost."),
    ] = "preferred",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Elect a leader: the preferred one, or, when all in-sync replicas are gone, one that may miss records."""
    client = Rest(rest, data)
    numbers = [partition] if partition is not None else _partitions(client, topic)
    wanted = [{"topic_name": topic, "partition_id": number} for number in numbers]
    document = client.send_json("POST", client.cluster("/elections"), {"election_type": kind, "partitions": wanted})
    rows = document["data"]
    if as_json:
        write_json(rows)
    else:
        results = [{**row, "result": "elected" if row["error_code"] is None else row["message"]} for row in rows]
        write_rows(results, ("topic_name", "partition_id", "result"), as_json=False)
    refused = [row for row in rows if row["error_code"] is not None and row.get("kafka_code") != ELECTION_NOT_NEEDED]
    if refused:
        raise CommandFailed(f"{len(refused)} of {len(rows)} partitions have no new leader")


def parse_brokers(text: str) -> list[int]:
    """The broker ids of a text. Raises typer.BadParameter."""
    try:
        return [int(broker) for broker in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not like 2,3,1", param_hint="--replicas") from error


def _list_reassignments(client: Rest, topic: str, *, as_json: bool) -> None:
    path = client.cluster(f"/topics/{segment(topic) if topic != '-' else '-'}/partitions/-/reassignment")
    columns = ("topic_name", "partition_id", "adding_replicas", "removing_replicas")
    rows = [{column: entry[column] for column in columns} for entry in client.get(path)["data"]]
    write_rows(rows, columns, as_json=as_json, empty="no replica is being moved")


def _partitions(client: Rest, topic: str) -> list[int]:
    return [int(entry["partition"]) for entry in client.get(f"/topics/{segment(topic)}/partitions")]
