"""A fault that only logins have: a user of a cluster of `--secure` is deleted, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import msgspec

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request, segment, server_error
from kraft.launcher.client_files import USER
from kraft.launcher.processes import LaunchError

SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
JSON: Final = "application/json"


def delete_user(urls: Iterable[str], name: str) -> None:
    """Delete a user. The first user, who is in the configuration, gets a password that nobody knows instead, which
    clients cannot tell from a deleted one. Raises LaunchError."""
    if name != USER:
        _ask(urls, Request(method="DELETE", path=_path(name)))
        return
    hidden = {
        "mechanism": "SCRAM-SHA-256",
        "iterations": 4_096,
        "salt": os.urandom(SALT_BYTES).hex(),
        "salted_password": os.urandom(HASH_BYTES).hex(),
    }
    headers = {"Content-Type": JSON}
    _ask(urls, Request(method="PUT", path=_path(name), body=msgspec.json.encode(hidden), headers=headers))


def restore_first_user(urls: Iterable[str]) -> None:
    """Undo `delete_user` of the first user; nothing happens if it was not deleted. Raises LaunchError."""
    _ask(urls, Request(method="DELETE", path=_path(USER)), allowed=404)


def _path(name: str) -> str:
    return f"/kraft/users/{segment(name)}"


def _ask(urls: Iterable[str], request: Request, *, allowed: int = 200) -> None:
    problem = "no node answers"
    for url in urls:
        outcome = send(url, request)
        if not isinstance(outcome, Answer):
            problem = outcome.reason
            continue
        if outcome.is_success or outcome.status == allowed:
            return
        problem = server_error(outcome).message
    raise LaunchError(problem)
