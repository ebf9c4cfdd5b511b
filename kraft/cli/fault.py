"""`kraft fault`: break the cluster of a data folder, from a suite in any language under `kraft exec`.

Nodes can be killed, paused and restarted in every cluster that `kraft exec` starts. Links and answers are available
only with `kraft exec --faults`: a process beside it runs the cluster, and gets commands over a socket in the data
folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated, Final

import typer

from kraft.cli.output import CommandFailed
from kraft.testing.cluster import Cluster, ClusterFailed
from kraft.testing.faults import CLIENTS, SOCKET_FILE, End, FaultCluster

app = typer.Typer(help="Break the cluster that runs from a data folder: its nodes, its links, its answers.")
LEADER: Final = re.compile(r"leader:(?P<topic>.+?)(?:-(?P<partition>\d+))?")
CONTROLLER: Final = "controller"

FolderOption = Annotated[
    str, typer.Option("--data", metavar="DIR", envvar="KRAFT_DATA", help="Folder of everything the cluster keeps.")
]
NodesArgument = Annotated[
    list[str],
    typer.Argument(metavar="NODE...", help="Ids; leader:TOPIC-PARTITION; controller for the quorum's leader."),
]
ApiArgument = Annotated[str, typer.Argument(metavar="API", help="Kafka's name of it, such as Produce or OffsetCommit.")]
EndsArgument = Annotated[
    str, typer.Argument(metavar="ENDS", help="1-2; 1: it and all other nodes; clients-1; clients.")
]
OnceOption = Annotated[int, typer.Option("--times", min=1, help="Number of requests.")]
TimesOption = Annotated[int | None, typer.Option("--times", min=1, help="Number of requests. Default: until heal.")]
TopicOption = Annotated[str, typer.Option("--topic", help="Only requests that name this topic.")]
ClientOption = Annotated[str, typer.Option("--client-id", help="Only requests of clients with this client.id.")]
NodeOption = Annotated[int | None, typer.Option("--node", help="Only requests to this broker.")]
DATA_DEFAULT: Final = "data"


# --- nodes ----------------------------------------------------------------------------------------------------------


def _node_command(name: str, text: str, act: Callable[[Cluster | FaultCluster, list[int]], None]) -> None:
    """Add a command that acts on nodes: its name, its help, and its function."""

    @app.command(name, help=text)
    def command(nodes: NodesArgument, data: FolderOption = DATA_DEFAULT) -> None:
        cluster = _attached(data)
        _run(lambda: act(cluster, _ids(cluster, nodes)))


_node_command("kill", "Kill nodes at once (SIGKILL).", lambda cluster, ids: cluster.kill(*ids))
_node_command("stop", "Stop nodes cleanly.", lambda cluster, ids: cluster.stop(*ids))
_node_command(
    "pause",
    "Pause nodes (SIGSTOP); their connections stay open.",
    lambda cluster, ids: cluster.pause(*ids),
)
_node_command("resume", "Resume paused nodes.", lambda cluster, ids: cluster.resume(*ids))
_node_command(
    "restart", "Start nodes, after a clean stop of those that run.", lambda cluster, ids: cluster.restart(*ids)
)
_node_command(
    "power-loss",
    "Kill nodes, and remove everything from their disks that no fsync had made durable.",
    lambda cluster, ids: cluster.power_loss(*ids),
)
_node_command(
    "fill-disk",
    "Make the disks of nodes full (ENOSPC).",
    lambda cluster, ids: _having_links(cluster).fill_disk(*ids),
)
_node_command("free-disk", "Give the disks room again.", lambda cluster, ids: _having_links(cluster).free_disk(*ids))


_node_command(
    "expire-certificate",
    "Give nodes certificates that have expired (with --secure).",
    lambda cluster, ids: cluster.expire_certificate(*ids),
)
_node_command(
    "renew-certificate", "Give nodes good certificates again.", lambda cluster, ids: cluster.renew_certificate(*ids)
)


# --- users ----------------------------------------------------------------------------------------------------------


@app.command("delete-user")
def delete_user(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Default: the first user of --secure.")] = None,
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Delete a user: it cannot log in any more, and its connections end within a second."""
    _run(lambda: _attached(data).delete_user(name))


@app.command("restore-user")
def restore_user(data: FolderOption = DATA_DEFAULT) -> None:
    """Let the first user of --secure log in again."""
    _run(_attached(data).restore_user)


# --- links ----------------------------------------------------------------------------------------------------------


@app.command()
def cut(
    ends: EndsArgument,
    one_way: Annotated[
        bool, typer.Option("--one-way", help="Only connections that the first end opens to the second.")
    ] = False,
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Disconnect two ends from each other: connections are reset, and ports refuse."""
    _run(lambda: _with_links(data).cut(*_ends(ends), one_way=one_way))


@app.command()
def partition(
    groups: Annotated[str, typer.Argument(metavar="GROUPS", help="Such as '[1] | [2, 3]'.")],
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Disconnect groups of nodes from each other. Clients reach all of them."""
    parsed = [[int(node) for node in re.findall(r"\d+", group)] for group in groups.split("|")]
    _run(lambda: _with_links(data).partition(*parsed))


@app.command()
def slow(
    ends: EndsArgument,
    ms: Annotated[float, typer.Option("--ms", min=0, help="Delay in ms.")] = 0,
    jitter_ms: Annotated[float, typer.Option("--jitter", min=0, help="At most so many ms more, at random.")] = 0,
    bytes_per_second: Annotated[int, typer.Option("--bytes-per-second", min=0, help="Limit of the link's rate.")] = 0,
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Delay the data between two ends, or limit its rate."""
    one, *other = _ends(ends)
    _run(lambda: _with_links(data).slow(one, *other, ms=ms, jitter_ms=jitter_ms, bytes_per_second=bytes_per_second))


# --- answers --------------------------------------------------------------------------------------------------------


@app.command()
def answer(
    api: ApiArgument,
    error: Annotated[str, typer.Option("--error", help="Kafka's name or number: NOT_LEADER_OR_FOLLOWER, 6.")],
    times: OnceOption = 1,
    topic: TopicOption = "",
    client_id: ClientOption = "",
    node: NodeOption = None,
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Answer requests with an error; no broker sees them."""
    _run(lambda: _with_links(data).answer(api, error=error, times=times, topic=topic, client_id=client_id, node=node))


@app.command()
def delay(
    api: ApiArgument,
    ms: Annotated[float, typer.Option("--ms", help="Delay of the answer in ms.")],
    times: TimesOption = None,
    topic: TopicOption = "",
    client_id: ClientOption = "",
    node: NodeOption = None,
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Delay answers, and so all later ones on their connections."""
    _run(lambda: _with_links(data).delay(api, ms=ms, times=times, topic=topic, client_id=client_id, node=node))


@app.command("drop-answer")
def drop_answer(
    api: ApiArgument,
    times: OnceOption = 1,
    topic: TopicOption = "",
    client_id: ClientOption = "",
    node: NodeOption = None,
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Carry requests out, but close the connection instead of sending the answer."""
    _run(lambda: _with_links(data).drop_answer(api, times=times, topic=topic, client_id=client_id, node=node))


@app.command("close-after")
def close_after(
    api: ApiArgument,
    times: OnceOption = 1,
    topic: TopicOption = "",
    client_id: ClientOption = "",
    node: NodeOption = None,
    data: FolderOption = DATA_DEFAULT,
) -> None:
    """Close the connection after the answer."""
    _run(lambda: _with_links(data).close_after(api, times=times, topic=topic, client_id=client_id, node=node))


@app.command()
def heal(data: FolderOption = DATA_DEFAULT) -> None:
    """Repair everything: links, disks, answers, nodes; return when every replica is in sync."""
    cluster = _attached(data)
    if isinstance(cluster, FaultCluster):
        _run(cluster.heal)
        return
    _run(lambda: _bring_back(cluster))


def _bring_back(cluster: Cluster) -> None:
    states = {node: cluster.state(node) for node in cluster.ids}
    cluster.resume(*[node for node, state in states.items() if state == "paused"])
    cluster.restart(*[node for node, state in states.items() if state == "down"])
    if cluster.is_secure:
        cluster.renew_certificate(*cluster.ids)
        cluster.restore_user()
    cluster.wait_until_ready()


# --- the cluster ----------------------------------------------------------------------------------------------------


def _attached(data: str) -> Cluster | FaultCluster:
    try:
        if os.path.exists(os.path.join(data, SOCKET_FILE)):
            return FaultCluster.attach(data)
        return Cluster.attach(data)
    except ClusterFailed as error:
        raise CommandFailed(str(error)) from error


def _with_links(data: str) -> FaultCluster:
    return _having_links(_attached(data))


def _having_links(cluster: Cluster | FaultCluster) -> FaultCluster:
    if not isinstance(cluster, FaultCluster):
        raise CommandFailed("this cluster has no links that could be broken: start it with `kraft exec --faults`")
    return cluster


def _run(act: Callable[[], None]) -> None:
    try:
        act()
    except ClusterFailed as error:
        raise CommandFailed(str(error)) from error


def _ids(cluster: Cluster | FaultCluster, nodes: list[str]) -> list[int]:
    return [_id(cluster, node) for node in nodes]


def _id(cluster: Cluster | FaultCluster, node: str) -> int:
    if node.isdecimal():
        return int(node)
    if node == CONTROLLER:
        found = cluster.controller
        problem = "the quorum has no leader at the moment"
    elif match := LEADER.fullmatch(node):
        found = cluster.leader_of(match["topic"], int(match["partition"] or 0))
        problem = f"no node leads {node.removeprefix('leader:')} at the moment"
    else:
        raise CommandFailed(f"{node!r} is no node; write an id, leader:TOPIC-PARTITION or controller")
    if found < 0:
        raise CommandFailed(problem)
    return found


def _ends(text: str) -> list[End]:
    ends: list[End] = []
    for end in text.split("-"):
        if end != CLIENTS and not end.isdecimal():
            raise CommandFailed(f"{text!r} names no ends of links; write 1-2, 1, clients-1 or clients")
        ends.append(CLIENTS if end == CLIENTS else int(end))
    if len(ends) > 2:
        raise CommandFailed(f"{text!r} has {len(ends)} ends; a link has two, such as 1-2")
    return ends
