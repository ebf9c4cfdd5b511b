"""`kraft export` and `kraft import`: the data of a stopped cluster as folders of Apache Kafka, and back."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr

from kraft.cli.options import DataOption, JsonOption
from kraft.cli.output import CommandFailed, say, write, write_json, write_words
from kraft.cli.rest import DATA_DEFAULT

if TYPE_CHECKING:
    from kraft.config.models import ClusterConfig, ClusterFile
    from kraft.kafka_data.export import ExportPlan
    from kraft.kafka_data.importing import ImportPlan

import_app = typer.Typer(help="Make a data folder of the data of Apache Kafka.", no_args_is_help=True)
export_app = typer.Typer(help="Write the data of a stopped cluster for Apache Kafka.", no_args_is_help=True)

TERMINAL_EVERY_S = 0.2
LINES_EVERY_S = 10.0


@export_app.callback()
def export() -> None:
    """Write the data of a stopped cluster for Apache Kafka."""


@export_app.command("kafka")
def export_kafka(
    to: Annotated[str, typer.Option("--to", metavar="OUT", help="An empty folder, or one that does not exist.")],
    data: DataOption = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            "--kafka",
            metavar="VERSION",
            help="The oldest Kafka that will start it: 3.9 to 4.4. Default: the oldest that needs nothing left out.",
        ),
    ] = None,
    copy: Annotated[
        bool,
        typer.Option("--copy", help="Copy all files, and share none with the cluster's folder, as to another disk."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list everything; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a folder for each node on which Apache Kafka starts with the same data: OUT/node-ID.

    The cluster has to be stopped with kraft down. Its folder stays as it is: logs that nobody writes again are shared
    by hard links, all other files are copied. What Kafka does not have is listed before anything is written.
    """
    from kraft.kafka_data.export import fill, make_plan
    from kraft.kafka_data.releases import release_of
    from kraft.kafka_data.replica import UnfitData
    from kraft.runtime.files import DiskFiles

    data = data or DATA_DEFAULT
    try:
        release = None if kafka is None else release_of(kafka)
        config = _stopped_cluster(data)
        rng = random.SystemRandom()
        plan = make_plan(DiskFiles(), config, target=to, release=release, copy=copy, rng=rng)
        if not as_json:
            _write_plan(plan)
        if not dry_run:
            with _progress(plan.copied_bytes) as on_bytes:
                fill(DiskFiles(), plan, now_ms=time.time_ns() // 1_000_000, on_bytes=on_bytes)
    except (UnfitData, ValueError) as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"{error}; repeat the command: nothing of {data} was changed") from error
    if as_json:
        write_json(_document(plan, is_written=not dry_run))
    elif dry_run:
        write("nothing was written: this was a dry run")
    else:
        _write_next_steps(plan)


@import_app.callback()
def import_() -> None:
    """Make a data folder of the data of Apache Kafka."""


@import_app.command("kafka")
def import_kafka(
    folders: Annotated[
        list[str],
        typer.Option("--from", metavar="DIR", help="A log directory of a Kafka node, or a folder with some; give all."),
    ],
    data: Annotated[str, typer.Option("--data", metavar="DIR", help="An empty folder, or one that does not exist.")],
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="NAME", help="Leave out something that is not known here.")
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy all files, and share none with Kafka's folders, as to another disk.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list everything; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a data folder of a KRaft cluster of Apache Kafka 3.9 to 4.4 that was shut down cleanly.

    Kafka's folders stay as they are: logs that nobody writes again are shared by hard links, all other files are
    copied. What this cluster does not have is named, and refuses the import unless it is dropped by its name.
    """
    from kraft.kafka_data.importing import fill, make_plan
    from kraft.kafka_data.replica import UnfitData
    from kraft.runtime.files import DiskFiles

    try:
        plan = make_plan(DiskFiles(), folders, target=data, dropped=drop or (), copy=copy)
        if not as_json:
            _write_import(plan)
        if not dry_run:
            with _progress(plan.copied_bytes) as on_bytes:
                fill(DiskFiles(), plan, on_bytes=on_bytes)
    except UnfitData as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"{error}; repeat the command: nothing of Kafka's folders was changed") from error
    if as_json:
        write_json(_import_document(plan, is_written=not dry_run))
    elif dry_run:
        write("nothing was written: this was a dry run")
    else:
        write(f"written to {data}; check the addresses in {data}/cluster.toml, then start it:")
        write(f"  kraft up {data}/cluster.toml --data {data}")


def _write_import(plan: ImportPlan) -> None:
    from kraft.kafka_data.kafka_image import to_add

    partitions = sum(1 for _ in plan.image.all_partitions())
    write_words(
        f"cluster {plan.cluster.cluster_id}: {len(plan.cluster.nodes)} nodes, {partitions} partitions, "
        f"{plan.linked_bytes:,} bytes shared, {plan.copied_bytes:,} bytes copied"
    )
    for line in plan.dropped:
        write_words(f"- dropped: {line}")
    for name in plan.missing:
        write_words(f"- replica {name} has no folder; its leader copies it again")
    for line in to_add(plan.cluster.image):
        write_words(f"- to be added to cluster.toml: {line}")


def _import_document(plan: ImportPlan, *, is_written: bool) -> dict[str, Any]:
    from kraft.kafka_data.kafka_image import to_add

    return {
        "written": is_written,
        "cluster_id": plan.cluster.cluster_id,
        "features": dict(plan.cluster.image.features),
        "linked_bytes": plan.linked_bytes,
        "copied_bytes": plan.copied_bytes,
        "dropped": list(plan.dropped),
        "to_add": list(to_add(plan.cluster.image)),
        "nodes": [{"id": node.node_id, "log_dirs": plan.directories(node)} for node in plan.cluster.nodes],
    }


def _stopped_cluster(data: str) -> ClusterConfig:
    from kraft.config.parse import parse_config
    from kraft.launcher.configuration import read_config
    from kraft.launcher.processes import is_alive
    from kraft.launcher.runfile import RESOLVED_FILE, load_run

    run = load_run(data)
    alive = [node.id for node in run.nodes if is_alive(node.pid)] if run else []
    if alive:
        nodes = ", ".join(map(str, alive))
        raise CommandFailed(f"the cluster in {data} runs (nodes {nodes}); stop it with `kraft down --data {data}`")
    path = os.path.join(data, RESOLVED_FILE)
    if not os.path.exists(path):
        raise CommandFailed(f"there is no {path}: no cluster was started from {data}; name its folder with --data")
    return _as_it_lies(parse_config(read_config(path), file=path), os.path.abspath(data))


def _as_it_lies(parsed: ClusterFile, data: str) -> ClusterConfig:
    """The configuration with the folders where they are now: a data folder may have been moved as a whole. The secret
    is not needed."""
    from kraft.config.models import ClusterConfig

    assert parsed.cluster_id is not None, parsed
    assert parsed.data is not None, parsed
    was = os.path.abspath(parsed.data)

    def moved(path: str) -> str:
        inside = os.path.relpath(path, was)
        return path if inside.startswith("..") else os.path.join(data, inside)

    nodes = tuple(
        node.model_copy(update={"data": moved(node.data), "log_dirs": tuple(map(moved, node.log_dirs))})
        for node in parsed.nodes
    )
    return ClusterConfig(
        cluster_id=parsed.cluster_id,
        secret=SecretStr(""),
        data=data,
        settings=parsed.settings,
        nodes=nodes,
        users=parsed.users,
    )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """How much is copied: on a terminal one line that changes, elsewhere a line now and then."""
    is_terminal = sys.stderr.isatty()
    every_s = TERMINAL_EVERY_S if is_terminal else LINES_EVERY_S
    done, shown, is_begun = 0, time.monotonic(), False

    def show() -> None:
        line = f"{done:,} of {total:,} bytes copied"
        if not is_terminal:
            say(line)
            return
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()

    def on_bytes(count: int) -> None:
        nonlocal done, shown, is_begun
        done += count
        if time.monotonic() - shown >= every_s:
            shown, is_begun = time.monotonic(), True
            show()

    try:
        yield on_bytes
        if is_begun and is_terminal:
            show()
    finally:
        if is_begun and is_terminal:
            say("")


def _write_plan(plan: ExportPlan) -> None:
    from kraft.kafka_data.image_records import topics_of

    partitions = sum(len(topic.partitions) for topic in topics_of(plan.source.image, plan.release))
    write_words(
        f"for Kafka {plan.release.name} and newer (metadata.version {plan.release.metadata_version}): "
        f"{partitions} partitions, {plan.linked_bytes:,} bytes shared, {plan.copied_bytes:,} bytes copied"
    )
    for line in plan.left_out:
        write_words(f"- {line}")


def _write_next_steps(plan: ExportPlan) -> None:
    write(f"written to {plan.target}:")
    for place in plan.places:
        write(f"  node {place.config.id}: {os.path.dirname(place.directories[0])}")
    write("start each node with its server.properties:")
    write(f"  bin/kafka-server-start.sh {os.path.dirname(plan.places[0].directories[0])}/server.properties")


def _document(plan: ExportPlan, *, is_written: bool) -> dict[str, Any]:
    return {
        "written": is_written,
        "kafka": plan.release.name,
        "metadata_version": plan.release.metadata_version,
        "features": dict(plan.release.features),
        "linked_bytes": plan.linked_bytes,
        "copied_bytes": plan.copied_bytes,
        "left_out": list(plan.left_out),
        "nodes": [
            {
                "id": each.config.id,
                "log_dirs": list(each.directories),
                "folder": os.path.dirname(each.directories[0]),
            }
            for each in plan.places
        ],
    }
