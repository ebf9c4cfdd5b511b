"""/kraft/users: users with a password, as `kraft users` lists, adds and deletes them."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, Field

from kraft.http.endpoint import Body, Call, Route
from kraft.http.errors import HttpError
from kraft.http.responses import plain_json
from kraft.protocol.media_types import PLAIN_JSON
from kraft.protocol.scram import DIGESTS, ITERATIONS, ITERATIONS_MAX
from metadata.controller.requests import AlterUsers, ErrorDetail, ScramDeletion, ScramUpsertion
from metadata.records import ScramMechanism


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


def user_routes() -> tuple[Route, ...]:
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
            handler=_delete,
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


async def _delete(call: Call) -> web.Response:
    name = call.path["user"]
    credentials = call.context.gateway.image.users.get(name)
    if not credentials:
        raise HttpError(404, f"there is no user {name!r} in the metadata log")
    deletions = tuple(ScramDeletion(name=name, mechanism=each) for each in DIGESTS if each in credentials)
    return await _altered(call, AlterUsers(deletions=deletions))


async def _altered(call: Call, request: AlterUsers) -> web.Response:
    outcomes = await call.context.control(request)
    name = call.path["user"]
    outcome = outcomes.get(name)
    if isinstance(outcome, ErrorDetail):
        raise outcome.error(outcome.message)
    return plain_json(Changed(name=name).model_dump())
