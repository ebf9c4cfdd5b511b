"""The `kraft` command. Imports are late on purpose: a node must not wait for a table printer to be loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from kraft.runtime.umask import write_for_owner_alone

if TYPE_CHECKING:
    import typer

INTERRUPTED: Final = 130
"""128 + SIGINT, as in shells: Ctrl-C arrived while there was nothing to clean up."""

NO_FORKS_OF_ITS_OWN: Final = frozenset({"-h", "--help", "--help-config", "--faults"})
"""With these options `kraft up` and `kraft exec` start nothing, or another process starts it."""
_NODE_OPTIONS: Final = frozenset({"--config", "--id", "--data", "--parent"})


def main() -> None:
    write_for_owner_alone()
    arguments = sys.argv[1:]
    if arguments[:1] == ["node"] and _is_plain_node(arguments[1:]):
        _run_node(dict(zip(arguments[1::2], arguments[2::2], strict=True)))
    if arguments[:1] in (["up"], ["exec"]) and not NO_FORKS_OF_ITS_OWN.intersection(arguments):
        _begin_to_load_nodes()
    _run_app()


def _begin_to_load_nodes() -> None:
    """Start the fork server: it loads while the command is parsed."""
    from kraft.launcher.fork_start import begin

    begin()


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
    from kraft.launcher.actions import NotRunning
    from kraft.launcher.processes import LaunchError
    from kraft.launcher.readiness import StartFailed

    try:
        build_app(sys.argv[1:2])(prog_name="kraft")
    except (CommandFailed, LaunchError, NotRunning, StartFailed) as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has ended: `kraft consume | head`
        sys.exit(0)
    except Exception as error:
        if not _is_config_error(error):
            raise
        fail(str(error))


def _is_config_error(error: Exception) -> bool:
    """Whether it is a ConfigError, without loading its module, which takes as long as a quick command."""
    problems = sys.modules.get("kraft.config.problems")
    return problems is not None and isinstance(error, problems.ConfigError)


_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "up": ("kraft.cli.cluster", "up"),
    "down": ("kraft.cli.cluster", "down"),
    "exec": ("kraft.cli.execute", "execute"),
    "fault": ("kraft.cli.fault", "app"),
    "node": ("kraft.cli.node", "app"),
    "status": ("kraft.cli.cluster", "status"),
    "explain": ("kraft.cli.explain", "app"),
    "top": ("kraft.cli.top", "top"),
    "topics": ("kraft.cli.topics", "app"),
    "groups": ("kraft.cli.groups", "app"),
    "queues": ("kraft.cli.queues", "app"),
    "routes": ("kraft.cli.routes", "app"),
    "transactions": ("kraft.cli.transactions", "app"),
    "acls": ("kraft.cli.acls", "app"),
    "quotas": ("kraft.cli.quotas", "app"),
    "produce": ("kraft.cli.produce_command", "produce"),
    "consume": ("kraft.cli.consume_command", "consume"),
    "reassign": ("kraft.cli.admin", "reassign"),
    "elect": ("kraft.cli.admin", "elect"),
    "metadata": ("kraft.cli.files", "metadata_app"),
    "log": ("kraft.cli.files", "log_app"),
    "export": ("kraft.cli.exchange", "export_app"),
    "import": ("kraft.cli.exchange", "import_app"),
    "config": ("kraft.cli.configuration", "config"),
    "certs": ("kraft.cli.certs", "app"),
    "users": ("kraft.cli.users", "app"),
    "scenario": ("kraft.cli.scenario", "app"),
}
"""Commands in the order of `--help`: the module, and the name of the function, or of the app of its commands."""


def build_app(wanted: Sequence[str] = ()) -> typer.Typer:
    """The app. With one command only if `wanted` begins with its name: no other is loaded."""
    import typer

    app = typer.Typer(
        help="A Kafka cluster that you install with pip. Start with `kraft up`.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_all_commands)
    for name in [wanted[0]] if wanted and wanted[0] in _COMMANDS else _COMMANDS:
        module, attribute = _COMMANDS[name]
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            settings = {"allow_interspersed_args": False} if name == "exec" else {}
            app.command(name, context_settings=settings)(found)
    return app


def _all_commands() -> None:
    """A Kafka cluster that you install with pip. Start with `kraft up`."""
