"""/kraft/users: users with a password, as `kraft users` lists, adds and deletes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from aiohttp import web
from pydantic import BaseModel, Field

from kraft.http.endpoint import Body, Call, Route
from kraft.http.errors import HttpError
from kraft.http.responses import plain_json
from kraft.protocol.media_types import PLAIN_JSON
from kraft.protocol.scram import DIGESTS, ITERATIONS, ITERATIONS_MAX, MECHANISM, SALT_BYTES
from metadata.controller.requests import AlterUsers, ErrorDetail, ScramDeletion, ScramUpsertion
from metadata.records import ScramMechanism

SALTED_BYTES: Final = 64
"""A salted password of this length has at least as much chance in it as the longest hash of SCRAM."""


class UserCredential(BaseModel):
    """One credential, without anything that proves are checked with."""

    mechanism: str
    iterations: int


class User(BaseModel):
    """One user."""

    name: str
    credentials: list[UserCredential]


class UserList(BaseModel):
    """What GET /kraft/users answers."""

    users: list[User]


class NewCredential(BaseModel):
    """The credential of a user: what the password is checked with, never the password (RFC 5802)."""

    mechanism: ScramMechanism
    iterations: int = Field(ge=ITERATIONS, le=ITERATIONS_MAX)
    salt: str = Field(pattern=r"^([0-9a-f]{2}){1,1024}$")
    salted_password: str = Field(pattern=r"^([0-9a-f]{2}){32,64}$")


class Changed(BaseModel):
    """The user that was changed."""

    name: str


def user_routes(is_configured: Callable[[str], bool], rng: random.Random) -> tuple[Route, ...]:
    """`is_configured`: whether a user is one of cluster.toml or the environment alone."""
    return (
        Route(
            method="GET",
            path="/kraft/users",
            handler=_list,
            summary="Users with a password.",
            tag="node",
            answers={200: Body(content={PLAIN_JSON: UserList})},
            name="users_list",
        ),
        Route(
            method="PUT",
            path="/kraft/users/{user}",
            handler=_put,
            summary="Add a user, or change a password.",
            tag="node",
            answers={200: Body(content={PLAIN_JSON: Changed})},
            body=Body(content={PLAIN_JSON: NewCredential}),
            errors=(404, 422),
            name="users_put",
        ),
        Route(
            method="DELETE",
            path="/kraft/users/{user}",
            handler=partial(_delete, is_configured, rng),
            summary="Delete a user.",
            tag="node",
            answers={200: Body(content={PLAIN_JSON: Changed})},
            errors=(404, 422),
            name="users_delete",
        ),
    )


async def _list(call: Call) -> web.Response:
    users = call.context.gateway.image.users
    found = [
        User(
            name=name,
            credentials=[
                UserCredential(mechanism=each.mechanism, iterations=each.iterations) for each in users[name].values()
            ],
        )
        for name in sorted(users)
        if users[name]
    ]
    return plain_json(UserList(users=found).model_dump())


async def _put(call: Call) -> web.Response:
    asked = call.model(NewCredential)
    upsertion = ScramUpsertion(
        name=call.path["user"],
        mechanism=asked.mechanism,
        iterations=asked.iterations,
        salt=bytes.fromhex(asked.salt),
        salted_password=bytes.fromhex(asked.salted_password),
    )
    return await _altered(call, AlterUsers(upsertions=(upsertion,)))


async def _delete(is_configured: Callable[[str], bool], rng: random.Random, call: Call) -> web.Response:
    """A user of cluster.toml is hidden by one of the log, also by one that was deleted: it gets a credential that no
    password has, which is deleted then."""
    name = call.path["user"]
    credentials: Collection[str] = call.context.gateway.image.users.get(name, ())
    if is_configured(name):
        lost = ScramUpsertion(
            name=name,
            mechanism=MECHANISM,
            iterations=ITERATIONS,
            salt=rng.randbytes(SALT_BYTES),
            salted_password=rng.randbytes(SALTED_BYTES),
        )
        await _altered(call, AlterUsers(upsertions=(lost,)))
        credentials = (MECHANISM,)
    if not credentials:
        raise HttpError(404, f"there is no user {name!r}, neither in the metadata log nor in the node's cluster.toml")
    deletions = tuple(ScramDeletion(name=name, mechanism=each) for each in DIGESTS if each in credentials)
    return await _altered(call, AlterUsers(deletions=deletions))


async def _altered(call: Call, request: AlterUsers) -> web.Response:
    outcomes = await call.context.control(request)
    name = call.path["user"]
    outcome = outcomes.get(name)
    if isinstance(outcome, ErrorDetail):
        raise outcome.error(outcome.message)
    return plain_json(Changed(name=name).model_dump())
