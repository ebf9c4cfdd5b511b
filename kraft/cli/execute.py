"""`kraft exec -- COMMAND`: a cluster for as long as a command runs, in a temporary folder, on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kraft.cli.options import (
    ConsoleHostOption,
    ConsoleNoContentsOption,
    ConsoleReadOnlyOption,
    TimeoutOption,
    console_options,
)
from kraft.cli.output import say
from kraft.runtime.umask import of_caller
from kraft.testing.cluster import Cluster, ClusterFailed, Setting
from kraft.testing.faults import FaultCluster

if TYPE_CHECKING:
    from kraft.launcher.console import ConsoleOptions, ConsoleProcess

START_FAILED: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""The same code as in env, timeout and shells."""
SIGNALLED: Final = 128
PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FROM_THE_KERNEL: Final = 0
"""A signal of the kernel has an `si_code` above this, such as Ctrl-C, which the command in our process group has got
too."""


class _Ended(BaseException):
    """A signal arrived before there was a command to pass it on to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def execute(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGUMENT]...", help="The command to run.")],
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=100, help="Number of nodes.")] = 3,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A Kafka setting of all nodes; repeatable.")
    ] = None,
    keep_on_failure: Annotated[
        bool, typer.Option("--keep-on-failure", help="Keep the cluster's folder when the command fails, and print it.")
    ] = False,
    faults: Annotated[
        bool, typer.Option("--faults", help="With links that `kraft fault` can break, and answers that it can change.")
    ] = False,
    secure: Annotated[bool, typer.Option("--secure", help="With TLS, a user and ACLs.")] = False,
    console: Annotated[
        bool, typer.Option("--console", help="With a page that shows all nodes, and breaks them by a click.")
    ] = False,
    console_host: ConsoleHostOption = "127.0.0.1",
    console_read_only: ConsoleReadOnlyOption = False,
    console_no_contents: ConsoleNoContentsOption = False,
    timeout: TimeoutOption = None,
) -> None:
    """Start a cluster in a temporary folder, run a command, end the cluster: `kraft exec -- go test ./...`.

    The command finds it by KAFKA_BOOTSTRAP_SERVERS (host:port,host:port), KRAFT_REST (URLs with commas, as in --rest)
    and KRAFT_DATA (its folder, as in --data): `kraft fault kill leader:orders-0`.

    With --secure also by KRAFT_CLIENT, a folder with client.properties, librdkafka.conf, ca.pem, netrc and password,
    and for kraft.client by KRAFT_USER, KRAFT_PASSWORD_FILE and KRAFT_CA.

    Signals are passed on. The exit code is that of the command, and 128 + N when signal N ended it; 125 when the
    cluster does not start, 126 when the command cannot be run, 127 when it does not exist.
    """
    page = console_options(console, console_host, reads=console_read_only, hides=console_no_contents)
    chosen = dict(map(_setting, settings or ()))
    cluster: Cluster | FaultCluster
    if faults:
        cluster = FaultCluster(nodes, settings=chosen, secure=secure, ends_users=True, start_limit_s=timeout)
    else:
        cluster = Cluster(
            nodes, settings=chosen, secure=secure, power_loss=True, ends_users=True, start_limit_s=timeout
        )
    try:
        sys.exit(_run_with(cluster, command, keeps=keep_on_failure, console=page))
    except ClusterFailed as error:
        say(f"error: {error}")
        sys.exit(START_FAILED)
    except _Ended as ended:
        sys.exit(SIGNALLED + ended.number)


def _setting(text: str) -> tuple[str, Setting]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--set {text!r} should be NAME=VALUE, such as --set min.insync.replicas=1")
    try:
        read = json.loads(value)
    except ValueError:
        return name, value
    return name, read if isinstance(read, int | float | bool | str) else value


def _run_with(
    cluster: Cluster | FaultCluster, command: Sequence[str], *, keeps: bool, console: ConsoleOptions | None
) -> int:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _end)
    with cluster:
        page = _console_of(cluster, console) if console else None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
        code = _run(command, _variables(cluster), mask=before)
        if page is not None:
            page.end()
        if code != 0 and keeps:
            cluster.keep()
            say(f"the command failed ({code}); the cluster's folder is kept: {cluster.data}")
    return code


def _console_of(cluster: Cluster | FaultCluster, options: ConsoleOptions) -> ConsoleProcess:
    from kraft.launcher.console import start_console

    page = start_console(str(cluster.data), options=options, is_secure=cluster.is_secure)
    say(f"see it, and break it: {page.url}")
    return page


def _end(number: int, _: FrameType | None) -> None:
    raise _Ended(number)


def _variables(cluster: Cluster | FaultCluster) -> Mapping[str, str]:
    found = {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "KRAFT_REST": ",".join(cluster.rest_urls.values()),
        "KRAFT_DATA": str(cluster.data),
    }
    if cluster.is_secure:
        login = cluster.security
        found |= {
            "KRAFT_CLIENT": str(login.folder),
            "KRAFT_USER": login.user,
            "KRAFT_PASSWORD_FILE": str(login.password_file),
            "KRAFT_CA": str(login.ca),
        }
    return found


def _run(command: Sequence[str], variables: Mapping[str, str], *, mask: set[int | signal.Signals]) -> int:
    """Run a command; return its exit code. Passed-on signals are blocked here; the command begins with our earlier
    mask."""
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            umask=of_caller(),
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask) and None,
        )
    except FileNotFoundError:
        say(f"error: there is no command {command[0]}")
        return NOT_FOUND
    except OSError as error:
        say(f"error: {command[0]} cannot be run: {error.strerror}")
        return NOT_EXECUTABLE
    while process.poll() is None:
        received = signal.sigwaitinfo((*PASSED_ON, signal.SIGCHLD))
        if received.si_signo != signal.SIGCHLD and received.si_code <= _FROM_THE_KERNEL:
            process.send_signal(received.si_signo)
    return process.returncode if process.returncode >= 0 else SIGNALLED - process.returncode
