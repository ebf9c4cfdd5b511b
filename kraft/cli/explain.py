"""`kraft explain`: why something is as it is, by which rule, and the command that changes it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import write, write_json
from kraft.cli.rest import Rest
from kraft.client.response import segment

app = typer.Typer(
    help="Why is it so: the state, what decided it, and the command that changes it.", no_args_is_help=True
)
MARKS: Final[Mapping[str, str]] = {"yes": "yes", "no": "NO", "unknown": "?"}
TIMEOUT_MS: Final = 20_000
EVENTS_SHOWN: Final = 8
PartitionArgument = Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="Its number.")]


@app.command()
def partition(
    topic: TopicArgument,
    number: PartitionArgument = 0,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Under-replicated, offline, a high watermark that stands, NOT_ENOUGH_REPLICAS, an unclean election: and why.

    Example: `kraft explain partition flights 0`
    """
    _explain(f"partition/{segment(topic)}/{number}", rest, data, as_json=as_json)


@app.command()
def node(
    node_id: Annotated[int, typer.Argument(metavar="ID", min=0, help="Id of the node, as in cluster.toml.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """A node that is not ready, is fenced, has a disk that failed, or sees no leader of the quorum: and why."""
    _explain(f"node/{node_id}", rest, data, as_json=as_json)


@app.command()
def client(
    name: Annotated[str, typer.Argument(metavar="CLIENT", help="Its user, its client.id or its address.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """A client that is throttled or refused: a login, a connection, a quota or an ACL, and why."""
    _explain(f"client/{segment(name)}", rest, data, as_json=as_json)


@app.command()
def group(
    name: Annotated[str, typer.Argument(metavar="GROUP", help="Name of the consumer group.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """A member that does not join, a partition that nobody reads, a lag that grows: and why."""
    _explain(f"group/{segment(name)}", rest, data, as_json=as_json)


@app.command()
def queue(
    name: Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the share group.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """A queue whose records are all locked, or whose leader does not answer."""
    _explain(f"queue/{segment(name)}", rest, data, as_json=as_json)


@app.command()
def transaction(
    name: Annotated[str, typer.Argument(metavar="ID", help="The transactional.id.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """A transaction that holds up readers, or whose markers are not written."""
    _explain(f"transaction/{segment(name)}", rest, data, as_json=as_json)


@app.command()
def record(
    topic: TopicArgument,
    number: PartitionArgument,
    offset: Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="Its offset.")],
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What became of a record: who has it, whether it is committed, who cut it from its log."""
    _explain(f"record/{segment(topic)}/{number}/{offset}", rest, data, as_json=as_json)


def _explain(path: str, rest: str | None, data: str | None, *, as_json: bool) -> None:
    found = Rest(rest, data).get(f"/kraft/explain/{path}", timeout_ms=TIMEOUT_MS)
    if as_json:
        write_json(found)
    else:
        write("\n".join(lines_of(found, now_ms=time.time_ns() // 1_000_000)))


def lines_of(found: Mapping[str, Any], *, now_ms: int) -> list[str]:
    """An explanation as text for people."""
    since = "" if found["since_ms"] is None else f", since {_clock(found['since_ms'])} ({_ago(found, now_ms)})"
    lines = [f"{found['subject']}: {found['state']}{since}, as node {found['node_id']} finds", "", found["summary"], ""]
    for decider in found["deciders"]:
        lines += _decider(decider)
    for view in found["views"]:
        nodes = ", ".join(map(str, view["nodes"]))
        lines.append(f"  node {nodes} (metadata offset {view['metadata_offset']}) states: {view['states']}")
    lines += [f"  node {node} does not answer: {reason}" for node, reason in found["unreached"].items()]
    if found["events"]:
        lines += ["", "Last events:", *(_event(each) for each in found["events"][-EVENTS_SHOWN:])]
    if found["forgotten"]:
        lines.append("  older events are forgotten; events.jsonl of each node may have them")
    if found["next"]:
        lines += ["", f"What has to happen: {found['next']}"]
    lines += [f"  {command}" for command in found["fix"]]
    return lines


def _decider(decider: Mapping[str, Any]) -> list[str]:
    rule = f" [{decider['rule']}]" if decider["rule"] else ""
    lines = [f"{MARKS[decider['decision']]:>4}  {decider['question']}{rule}", f"      {decider['explanation']}"]
    if decider["evidence"]:
        facts = ", ".join(f"{name}={_short(value)}" for name, value in decider["evidence"].items())
        said = "" if decider["node"] < 0 else f" (node {decider['node']}"
        said += f", {decider['age_ms']} ms old)" if said and decider["age_ms"] is not None else ")" if said else ""
        lines.append(f"      {facts}{said}")
    return lines


def _event(event: Mapping[str, Any]) -> str:
    more = {
        name: value
        for name, value in event.items()
        if name not in ("at_ms", "monotonic_us", "node_id", "sequence", "position", "event", "topic", "topic_id")
    }
    fields = " ".join(f"{name}={_short(value)}" for name, value in more.items())
    return f"  {_clock(event['at_ms'])} node {event['node_id']}: {event['event']} {fields}"


def _short(value: object, width: int = 100) -> str:
    text = str(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, tz=UTC).astimezone().strftime("%H:%M:%S")


def _ago(found: Mapping[str, Any], now_ms: int) -> str:
    return f"{max(0, now_ms - found['since_ms']) / 1_000:.0f} s ago"
