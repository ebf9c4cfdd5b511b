"""Options that several commands share, with one wording."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

DataOption: TypeAlias = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Folder of everything the cluster keeps; default: data.")
]
RestOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rest",
        metavar="URL",
        help="REST address of any node (several with commas). Default: the cluster running from the data folder, "
        "else http://127.0.0.1:8082.",
        envvar="KRAFT_REST",
    ),
]
TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=1, help="Limit of the wait. Default: wait while there is progress."
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="JSON for machines instead of tables.")]
TopicArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TOPIC", help="Name of the topic.")]
Isolation: TypeAlias = Literal["read_uncommitted", "read_committed"]
IsolationOption: TypeAlias = Annotated[
    Isolation, typer.Option("--isolation", help="read_committed: no record of an open or aborted transaction.")
]
Format: TypeAlias = Literal["text", "json", "binary"]
FormatOption: TypeAlias = Annotated[
    Format, typer.Option("--format", help="text; json: each record is JSON; binary: each record is base64.")
]
