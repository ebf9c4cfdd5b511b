"""`kraft users`: list, add and delete users with a password."""

from __future__ import annotations

import os
import sys
from base64 import b16encode
from getpass import getpass
from typing import Annotated, Final

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, write, write_rows
from kraft.cli.rest import Rest
from kraft.client.credentials import read_secret
from kraft.client.response import segment
from kraft.protocol.scram import DIGESTS, ITERATIONS, ITERATIONS_MAX, MECHANISM, SALT_BYTES, salted_password

app = typer.Typer(help="List, add and delete users with a password.", no_args_is_help=True)

PASSWORD_VARIABLE: Final = "KRAFT_NEW_PASSWORD"
UserArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]


@app.command("list")
def list_users(rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the users of the metadata log; those of cluster.toml stand there."""
    rows = [
        {
            "user": user["name"],
            "credentials": ", ".join(f"{each['mechanism']} ({each['iterations']})" for each in user["credentials"]),
        }
        for user in Rest(rest, data).get("/kraft/users")["users"]
    ]
    write_rows(rows, ("user", "credentials"), as_json=as_json, empty="there are no users")


@app.command()
def add(
    name: UserArgument,
    password_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="File with the password, which nobody else may read.")
    ] = None,
    mechanism: Annotated[str, typer.Option(help="SCRAM-SHA-256 or SCRAM-SHA-512.")] = MECHANISM,
    iterations: Annotated[int, typer.Option(min=ITERATIONS, max=ITERATIONS_MAX)] = ITERATIONS,
    rest: RestOption = None,
    data: DataOption = None,
) -> None:
    """Add a user, or change a password. It is read from a file, from KRAFT_NEW_PASSWORD, or asked for; never from the
    command line, which every user of the machine can see."""
    if mechanism not in DIGESTS:
        raise CommandFailed(f"--mechanism is one of {', '.join(DIGESTS)}")
    salt = os.urandom(SALT_BYTES)
    salted = salted_password(_password(name, password_file), salt, iterations, mechanism)
    document = {
        "mechanism": mechanism,
        "iterations": iterations,
        "salt": _hex(salt),
        "salted_password": _hex(salted),
    }
    Rest(rest, data).send_json("PUT", f"/kraft/users/{segment(name)}", document)
    write(f"user {name} can log in with {mechanism}")


@app.command()
def delete(name: UserArgument, rest: RestOption = None, data: DataOption = None) -> None:
    """Delete a user, also one of cluster.toml; its connections end. `kraft users add` makes it again."""
    Rest(rest, data).send_json("DELETE", f"/kraft/users/{segment(name)}")
    write(f"user {name} is deleted")


def _password(name: str, file: str | None) -> str:
    if file is not None:
        return read_secret(file, what="--password-file")
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None:
        if not sys.stdin.isatty():
            raise CommandFailed(f"name the password's file with --password-file, or set {PASSWORD_VARIABLE}")
        password = getpass(f"Password of {name}: ")
        if password != getpass("Again: "):
            raise CommandFailed("the two differ")
    if not password:
        raise CommandFailed("the password is empty")
    return password


def _hex(data: bytes) -> str:
    return b16encode(data).decode().lower()
