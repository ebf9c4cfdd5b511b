"""`kraft transactions`: list, describe, abort, find-hanging, as in Kafka's `kafka-transactions` (KIP-664)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import write, write_json, write_pairs, write_rows
from kraft.cli.partition_reads import partitions_of
from kraft.cli.rest import Rest
from kraft.client.response import segment

app = typer.Typer(help="List and describe transactions, find those that hang and abort them.", no_args_is_help=True)

LIST_COLUMNS: Final = ("transactional_id", "coordinator", "producer_id", "state")
PARTITION_COLUMNS: Final = ("topic_name", "partition_id")
PRODUCER_COLUMNS: Final = (
    "producer_id", "producer_epoch", "last_sequence", "last_timestamp_ms", "coordinator_epoch",
    "transaction_start_offset",
)  # fmt: skip
HANGING_COLUMNS: Final = (
    "topic", "partition", "producer_id", "producer_epoch", "coordinator_epoch", "start_offset", "last_timestamp_ms",
    "duration_min",
)  # fmt: skip
MINUTE_MS: Final = 60_000
PartitionArgument = Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="Its number.")]


@app.command("list")
def list_transactions(
    state: Annotated[
        list[str] | None, typer.Option(help="Only in this state, such as Ongoing; may be repeated. Default: all.")
    ] = None,
    producer_id: Annotated[int | None, typer.Option(min=0, help="Only of this producer.")] = None,
    duration_ms: Annotated[int | None, typer.Option(min=0, help="Only those that run for longer, in ms.")] = None,
    pattern: Annotated[str | None, typer.Option(help="Only ids that this regular expression matches.")] = None,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List transactional ids with their coordinator, their producer and the state of their transaction."""
    asked = [("state", each) for each in state or ()]
    more = {"producer_id": producer_id, "duration_ms": duration_ms, "pattern": pattern}
    asked += [(name, str(value)) for name, value in more.items() if value is not None]
    client = Rest(rest, data)
    rows = [_row(each) for each in _listed(client, asked)]
    write_rows(rows, LIST_COLUMNS, as_json=as_json, empty="there are no transactional ids")


@app.command()
def describe(
    transactional_id: Annotated[str, typer.Argument(metavar="ID", help="The transactional.id.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one transactional id: its producer, its transaction, and the partitions that are in it."""
    client = Rest(rest, data)
    found = client.get(client.cluster(f"/transactions/{segment(transactional_id)}"))
    started_ms = found["started_ms"]
    about = _row(found) | {
        "producer_epoch": found["producer_epoch"],
        "timeout_ms": found["timeout_ms"],
        "started_ms": started_ms if started_ms >= 0 else None,
        "duration_ms": _now_ms() - started_ms if started_ms >= 0 else None,
    }
    if as_json:
        write_json({**about, "partitions": found["partitions"]})
        return
    write_pairs(about, as_json=False, title=transactional_id)
    write_rows(found["partitions"], PARTITION_COLUMNS, as_json=False, empty="no transaction is open")


@app.command("describe-producers")
def describe_producers(
    topic: TopicArgument,
    partition: PartitionArgument,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the producers that the leader of a partition knows, and the start of their open transactions."""
    rows = [{name: each[name] for name in PRODUCER_COLUMNS} for each in _producers(Rest(rest, data), topic, partition)]
    write_rows(rows, PRODUCER_COLUMNS, as_json=as_json, empty="no producer is known")


@app.command()
def abort(
    topic: TopicArgument,
    partition: PartitionArgument,
    start_offset: Annotated[int | None, typer.Option(min=0, help="Start offset of the transaction.")] = None,
    producer_id: Annotated[int | None, typer.Option(min=0, help="Instead: its producer,")] = None,
    producer_epoch: Annotated[int | None, typer.Option(min=0, help="the producer's epoch,")] = None,
    coordinator_epoch: Annotated[int, typer.Option(min=0, help="and the epoch of its coordinator.")] = 0,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Abort an open transaction in one partition, without its coordinator: for hanging transactions."""
    if (start_offset is None) == (producer_id is None) or (producer_id is None) != (producer_epoch is None):
        raise typer.BadParameter("name the transaction: --start-offset, or --producer-id with --producer-epoch")
    wanted: dict[str, Any] = {"start_offset": start_offset}
    if producer_id is not None:
        named = {"producer_id": producer_id, "producer_epoch": producer_epoch}
        wanted = {**named, "coordinator_epoch": coordinator_epoch}
    client = Rest(rest, data)
    path = f"/topics/{segment(topic)}/partitions/{partition}/transactions:abort"
    client.send_json("POST", client.cluster(path), wanted)
    if as_json:
        write_json({"topic": topic, "partition": partition, **wanted, "aborted": True})
    else:
        write(f"the transaction in {topic}-{partition} is aborted")


@app.command("find-hanging")
def find_hanging(
    topic: Annotated[str | None, typer.Option(help="Only in this topic. Default: all topics.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only in this partition of the topic.")] = None,
    broker_id: Annotated[int | None, typer.Option(min=0, help="Only where this broker leads.")] = None,
    minutes: Annotated[
        int,
        typer.Option(
            "--max-transaction-timeout", min=0,
            help="In minutes: younger ones are left alone. transaction.max.timeout.ms is 15 by default.",
        ),
    ] = 15,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Find transactions that are open in a partition, and that no coordinator will end."""
    if partition is not None and topic is None:
        raise typer.BadParameter("--partition needs a topic: add --topic")
    client, now_ms = Rest(rest, data), _now_ms()
    names = [topic] if topic is not None else list(client.get("/topics"))
    found: list[dict[str, Any]] = []
    for name in names:
        wanted = [partition] if partition is not None else _led_partitions(client, name, broker_id)
        for number in wanted:
            candidates = [
                each
                for each in _producers(client, name, number)
                if each["transaction_start_offset"] >= 0 and now_ms - each["last_timestamp_ms"] >= minutes * MINUTE_MS
            ]
            found += [
                _hanging(name, number, each, now_ms=now_ms)
                for each in candidates
                if is_hanging(_transaction_of(client, each["producer_id"]), name, number)
            ]
    write_rows(found, HANGING_COLUMNS, as_json=as_json, empty="no transaction hangs")


def is_hanging(transaction: Mapping[str, Any] | None, topic: str, partition: int) -> bool:
    """No coordinator knows the producer, or its transaction does not have this partition: nobody will write a
    marker."""
    if transaction is None:
        return True
    return {"topic_name": topic, "partition_id": partition} not in transaction["partitions"]


def _transaction_of(client: Rest, producer_id: int) -> Mapping[str, Any] | None:
    for each in _listed(client, [("producer_id", str(producer_id))]):
        found: Mapping[str, Any] = client.get(client.cluster(f"/transactions/{segment(each['transactional_id'])}"))
        return found
    return None


def _listed(client: Rest, asked: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    query = "&".join(f"{name}={segment(value)}" for name, value in asked)
    yield from client.get(client.cluster("/transactions" + ("?" + query if query else "")))["data"]


def _producers(client: Rest, topic: str, partition: int) -> list[dict[str, Any]]:
    path = f"/topics/{segment(topic)}/partitions/{partition}/producers"
    found: list[dict[str, Any]] = client.get(client.cluster(path))["data"]
    return found


def _led_partitions(client: Rest, topic: str, broker_id: int | None) -> list[int]:
    if broker_id is None:
        return partitions_of(client, topic)
    entries = client.get(f"/topics/{segment(topic)}/partitions")
    return [int(entry["partition"]) for entry in entries if entry["leader"] == broker_id]


def _hanging(topic: str, partition: int, each: Mapping[str, Any], *, now_ms: int) -> dict[str, Any]:
    return {
        "topic": topic,
        "partition": partition,
        "producer_id": each["producer_id"],
        "producer_epoch": each["producer_epoch"],
        "coordinator_epoch": each["coordinator_epoch"],
        "start_offset": each["transaction_start_offset"],
        "last_timestamp_ms": each["last_timestamp_ms"],
        "duration_min": (now_ms - each["last_timestamp_ms"]) // MINUTE_MS,
    }


def _row(transaction: Mapping[str, Any]) -> dict[str, Any]:
    coordinator = str(transaction["coordinator"]["related"]).rpartition("/")[2]
    return {
        "transactional_id": transaction["transactional_id"],
        "coordinator": coordinator,
        "producer_id": transaction["producer_id"],
        "state": transaction["state"],
    }


def _now_ms() -> int:
    return int(time.time() * 1_000)
