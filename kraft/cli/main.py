"""The `kraft` command. Imports are late on purpose: a node must not wait for a table printer to be loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import typer

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells say it: Ctrl-C came while there was nothing to put in order."""

_NODE_OPTIONS: Final = frozenset({"--config", "--id", "--data", "--parent"})


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["node"] and _is_plain_node(arguments[1:]):
        _run_node(dict(zip(arguments[1::2], arguments[2::2], strict=True)))
    _run_app()


def _is_plain_node(arguments: list[str]) -> bool:
    """Exactly `--option value` pairs of one node in the foreground, as `kraft up` writes them: no parser is needed."""
    options, values = arguments[::2], arguments[1::2]
    known = len(options) == len(values) and set(options) <= _NODE_OPTIONS and {"--config", "--id"} <= set(options)
    return known and len(set(options)) == len(options) and dict(zip(options, values, strict=True))["--id"].isdecimal()


def _run_node(options: dict[str, str]) -> None:
    from kraft.launcher.foreground import run_in_foreground

    parent = options.get("--parent")
    sys.exit(
        run_in_foreground(
            options["--config"],
            node_id=int(options["--id"]),
            data=options.get("--data"),
            parent_pid=int(parent) if parent else None,
        )
    )


def _run_app() -> None:
    from kraft.cli.output import CommandFailed, fail
    from kraft.config.problems import ConfigError
    from kraft.launcher.actions import NotRunning
    from kraft.launcher.readiness import LaunchError, StartFailed

    try:
        build_app()(prog_name="kraft")
    except (CommandFailed, ConfigError, LaunchError, NotRunning, StartFailed) as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: `kraft consume | head`
        sys.exit(0)


def build_app() -> typer.Typer:
    import typer

    from kraft.cli import (
        admin,
        cluster,
        configuration,
        consuming,
        execute,
        fault,
        files,
        groups,
        node,
        producing,
        scenario,
        topics,
        transactions,
    )

    app = typer.Typer(
        help="A Kafka cluster that you install with pip. Start with `kraft up`.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("up")(cluster.up)
    app.command("down")(cluster.down)
    app.add_typer(node.app, name="node")
    app.command("exec", context_settings={"allow_interspersed_args": False})(execute.execute)
    app.add_typer(fault.app, name="fault")
    app.command("status")(cluster.status)
    app.add_typer(topics.app, name="topics")
    app.add_typer(groups.app, name="groups")
    app.add_typer(transactions.app, name="transactions")
    app.command("produce")(producing.produce)
    app.command("consume")(consuming.consume)
    app.command("reassign")(admin.reassign)
    app.command("elect")(admin.elect)
    app.add_typer(files.metadata_app, name="metadata")
    app.add_typer(files.log_app, name="log")
    app.command("config")(configuration.config)
    app.add_typer(scenario.app, name="scenario")
    return app
