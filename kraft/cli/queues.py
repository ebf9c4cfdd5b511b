"""`kraft queues`: share groups as queues: list, describe, create, alter, peek, redrive, purge, reset, delete."""

from __future__ import annotations

import time
from base64 import b64decode
from typing import Annotated, Any, Final

import msgspec
import typer

from kraft.cli.options import DataOption, Format, FormatOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, say, write, write_json, write_pairs, write_rows
from kraft.cli.partition_reads import Position, ReadRecord, partitions_of, read_partitions
from kraft.cli.rest import Rest
from kraft.cli.topics import DeleteConfigOption, config_changes, parse_settings
from kraft.client.response import segment

app = typer.Typer(
    help="List, describe, create, alter, look into, redrive, purge, reset and delete queues (share groups).",
    no_args_is_help=True,
)

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the share group.")]
TopicsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TOPIC...", help="Topics whose records it hands out.")
]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="TOPIC", help="The same as TOPIC; may be repeated.")
]
COLUMNS = ("share_group_id", "state", "consumer_count", "partition_count")
CONSUMER_COLUMNS = ("consumer_id", "client_id")
LAG_COLUMNS = ("topic_name", "partition_id", "start_offset", "lag", "dead_letters_lost", "last_dead_letter_error")
CONFIG_COLUMNS = ("setting", "value", "source")
ConfigsOption = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="NAME=VALUE", help="A group setting under Kafka's name; may be repeated."),
]
PEEK_COLUMNS = (
    "topic_name", "partition_id", "offset", "state", "delivery_count", "lock_ends_in_s", "due_in_s", "key", "value",
)  # fmt: skip
PEEK_FORMATS: Final = {"text": "STRING", "json": "JSON", "binary": "BINARY"}
DEAD_LETTER_TOPIC: Final = "errors.deadletterqueue.topic.name"
HEADER_PREFIX: Final = "__dlq.errors."
LETTER_COLUMNS = ("topic", "partition", "offset", "delivery.count", "message", "key", "value")
REDRIVE_COLUMNS = (
    "topic_name", "partition_id", "offset", "dead_letter_partition_id", "dead_letter_offset", "state", "message",
)  # fmt: skip
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
    """Show a queue, its consumers, lag and lost dead letters in each partition, and its settings."""
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
    topics: TopicsArgument = None,
    topic: TopicOption = None,
    config: ConfigsOption = None,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a queue that begins with the first record of its topics, as in `kraft queues create mailers mails`."""
    named = _topics("create", queue, topics, topic)
    client = Rest(rest, data)
    configs = [{"name": name, "value": value} for name, value in parse_settings(config)]
    wanted = {"share_group_id": queue, "topics": named, "configs": configs}
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
def peek(
    queue: QueueArgument,
    topic: Annotated[list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Of this topic only.")] = None,
    limit: Annotated[int, typer.Option("--max", min=1, max=500, help="Show so many records at most.")] = 20,
    dead_letters: Annotated[
        bool,
        typer.Option("--dead-letters", help="The last records of each partition of its dead letter topic instead."),
    ] = False,
    form: FormatOption = "text",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show records that wait or are in flight, with their deliveries. Nobody else notices: nothing is locked."""
    client = Rest(rest, data)
    if dead_letters:
        rows = _dead_letters(client, queue, limit=limit, form=form)
        write_rows(rows, LETTER_COLUMNS, as_json=as_json, empty="there are no dead letters")
        return
    found = _peeked(client, queue, {"topics": topic or None, "format": PEEK_FORMATS[form]}, limit=limit)
    rows = [{**row, "key": _text(row["key"]), "value": _text(row["value"])} for row in found]
    for row in rows:
        row["lock_ends_in_s"] = _seconds_left(row.pop("lock_until"))
        row["due_in_s"] = _seconds_left(row.pop("not_before"))
    write_rows(rows, PEEK_COLUMNS, as_json=as_json, empty="nothing waits, and nothing is in flight")


@app.command()
def redrive(
    queue: QueueArgument,
    record: Annotated[
        list[str] | None,
        typer.Option("--record", metavar="TOPIC:PARTITION:OFFSET", help="Only this record; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring dead letters back to the partitions that they came from, each once."""
    client = Rest(rest, data)
    asked = {"records": [_named(each) for each in record] if record else None, "dry_run": dry_run}
    rows: list[dict[str, Any]] = []
    while True:
        done = client.send_json("POST", _path(client, queue) + "/records:redrive", asked)
        rows += done["records"]
        if done["is_complete"] or done["problems"] or dry_run or record:
            break
    write_rows(_columns(rows, REDRIVE_COLUMNS), REDRIVE_COLUMNS, as_json=as_json, empty="there are no dead letters")
    if done["problems"]:
        raise CommandFailed("; ".join(done["problems"]))
    if not done["is_complete"]:
        say(f"more dead letters wait: {'a dry run' if dry_run else 'one redrive'} shows the first {len(rows):,}")


def _named(text: str) -> dict[str, Any]:
    topic, _, place = text.partition(":")
    partition, _, offset = place.partition(":")
    if not (partition.isascii() and partition.isdecimal() and offset.isascii() and offset.isdecimal()):
        raise typer.BadParameter(f"{text!r} is no record: name its topic, partition and offset, as in mails:0:17")
    return {"topic_name": topic, "partition_id": int(partition), "offset": int(offset)}


@app.command()
def purge(
    queue: QueueArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Skip what waits and is in flight: a queue without consumers begins behind the last record of its topics."""
    client = Rest(rest, data)
    path = _path(client, queue)
    lags = client.get(path + "/lags")["data"]
    if not yes:
        topics = ", ".join(sorted({row["topic_name"] for row in lags})) or "no topic"
        question = f"{queue} skips {_waiting(lags)} of {topics}, for ever; the topics keep them. Purge?"
        typer.confirm(question, abort=True)
    document = client.send_json("POST", path + "/offsets:reset", {"to": "latest"})
    write_rows(_columns(document["data"], RESET_COLUMNS), RESET_COLUMNS, as_json=as_json)


@app.command()
def reset(
    queue: QueueArgument,
    to: Annotated[str, typer.Option(metavar="earliest|latest", help="Where it begins.")],
    topics: TopicsArgument = None,
    topic: TopicOption = None,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a queue without consumers begin elsewhere."""
    named = _topics("reset", queue, topics, topic)
    client = Rest(rest, data)
    document = client.send_json("POST", _path(client, queue) + "/offsets:reset", {"to": to, "topics": named})
    write_rows(_columns(document["data"], RESET_COLUMNS), RESET_COLUMNS, as_json=as_json)


@app.command()
def delete(queue: QueueArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Delete a queue without consumers. Its topics stay."""
    client = Rest(rest, data)
    client.send_json("DELETE", _path(client, queue))
    _report(queue, "deleted", as_json=as_json)


def _topics(command: str, queue: str, topics: list[str] | None, more: list[str] | None) -> list[str]:
    """Each topic once, however it was named."""
    named = list(dict.fromkeys([*(topics or ()), *(more or ())]))
    if not named:
        raise typer.BadParameter(f"name the topics of the queue, as in `kraft queues {command} {queue} mails`")
    return named


def _path(client: Rest, queue: str) -> str:
    return client.cluster(f"/share-groups/{segment(queue)}")


def _peeked(client: Rest, queue: str, asked: dict[str, Any], *, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    begin = None
    while True:
        wanted = {**asked, "max_records": limit - len(found), "begin": begin}
        answer = client.send_json("POST", _path(client, queue) + "/records:peek", wanted)
        found += answer["records"]
        begin = answer["next"]
        if begin is None or len(found) >= limit:
            return found


def _columns(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in columns} for row in rows]


def _waiting(lags: list[dict[str, Any]]) -> str:
    if any(row["lag"] < 0 for row in lags):
        return "all records"
    count = sum(row["lag"] for row in lags)
    return f"{count} record{'s' if count != 1 else ''}"


def _dead_letters(client: Rest, queue: str, *, limit: int, form: Format) -> list[dict[str, Any]]:
    """The dead letters of a queue; other queues may have theirs in the same topic."""
    settings = {each["name"]: each["value"] for each in client.get(_path(client, queue) + "/configs")["data"]}
    topic = settings[DEAD_LETTER_TOPIC]
    if not topic:
        how = f"kraft queues alter {queue} --config {DEAD_LETTER_TOPIC}=dlq.{queue}"
        raise CommandFailed(f"{queue} has no dead letter topic: records that are rejected are gone; name one: {how}")
    positions = [_last(client, topic, number, limit) for number in partitions_of(client, topic)]
    rows: list[dict[str, Any]] = []
    for records in read_partitions(client, positions, form=form, isolation="read_committed", timeout_ms=0):
        rows += [_letter(record) for record in records if _headers(record).get("group") == queue]
    return rows


def _last(client: Rest, topic: str, partition: int, count: int) -> Position:
    """Before the last records of a partition."""
    offsets = client.get(f"/topics/{segment(topic)}/partitions/{partition}/offsets")
    first = max(offsets["beginning_offset"], offsets["end_offset"] - count)
    return Position(topic=topic, partition=partition, offset=str(first))


def _letter(record: ReadRecord) -> dict[str, Any]:
    headers = _headers(record)
    key, value = msgspec.json.decode(record.key), msgspec.json.decode(record.value)
    return {**{name: headers.get(name) for name in LETTER_COLUMNS}, "key": key, "value": value}


def _headers(record: ReadRecord) -> dict[str, str]:
    """What the headers of a dead letter (KIP-1191) have, by the end of their names."""
    named = msgspec.json.decode(record.headers)
    return {
        each["key"].removeprefix(HEADER_PREFIX): b64decode(each["value"] or "").decode(errors="replace")
        for each in named
        if each["key"].startswith(HEADER_PREFIX)
    }


def _text(data: dict[str, Any] | None) -> Any:
    return None if data is None else data["data"]


def _seconds_left(until_ms: int | None) -> float | None:
    return None if until_ms is None else round(max(0.0, until_ms / 1_000 - time.time()), 1)


def _report(queue: str, done: str, *, as_json: bool) -> None:
    if as_json:
        write_json({"queue": queue, done: True})
    else:
        write(f"queue {queue} {done}")
