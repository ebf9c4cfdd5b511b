"""Options that several commands share, with one wording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from kraft.launcher.console import ConsoleOptions

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
ConsoleHostOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--console-host", metavar="ADDRESS", help="Address of the console; beyond loopback its link has a token."
    ),
]
ConsoleReadOnlyOption: TypeAlias = Annotated[
    bool, typer.Option("--console-read-only", help="Nothing can be broken, started or written from the console.")
]
ConsoleNoContentsOption: TypeAlias = Annotated[
    bool, typer.Option("--console-no-contents", help="The console shows no keys, values and headers of records.")
]


def console_options(is_wanted: bool, host: str, *, reads: bool, hides: bool) -> ConsoleOptions | None:
    """None for no console. Ends the command when the host is no address."""
    from kraft.launcher.console import ConsoleOptions

    options = ConsoleOptions(host=host, reads_only=reads, hides_contents=hides)
    try:
        options.check()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return options if is_wanted else None
