"""A fault that only logins have: a user of a cluster of `--secure` is deleted, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import msgspec

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request, segment, server_error
from kraft.launcher.client_security import ClientSecurity
from kraft.launcher.processes import LaunchError
from kraft.protocol.scram import DIGESTS, ITERATIONS, SALT_BYTES, salted_password

JSON: Final = "application/json"


def delete_user(urls: Iterable[str], name: str) -> None:
    """Delete a user, also the first one, whom `restore_first_user` brings back. Raises LaunchError."""
    _ask(urls, Request(method="DELETE", path=_path(name)))


def restore_first_user(urls: Iterable[str], login: ClientSecurity) -> None:
    """Undo `delete_user` of the first user; nothing happens if it was not deleted. Raises LaunchError."""
    found = list(urls)
    headers = login.credentials().headers()
    for url in found:
        outcome = send(url, Request(method="GET", path="/topics", headers=headers))
        if isinstance(outcome, Answer) and outcome.is_success:
            return
    for mechanism in DIGESTS:
        _put(found, login.user, login.password, mechanism)


def _put(urls: Iterable[str], name: str, password: str, mechanism: str) -> None:
    salt = os.urandom(SALT_BYTES)
    credential = {
        "mechanism": mechanism,
        "iterations": ITERATIONS,
        "salt": salt.hex(),
        "salted_password": salted_password(password, salt, ITERATIONS, mechanism).hex(),
    }
    headers = {"Content-Type": JSON}
    _ask(urls, Request(method="PUT", path=_path(name), body=msgspec.json.encode(credential), headers=headers))


def _path(name: str) -> str:
    return f"/kraft/users/{segment(name)}"


def _ask(urls: Iterable[str], request: Request) -> None:
    problem = "no node answers"
    for url in urls:
        outcome = send(url, request)
        if not isinstance(outcome, Answer):
            problem = outcome.reason
            continue
        if outcome.is_success:
            return
        problem = server_error(outcome).message
    raise LaunchError(problem)
