"""A route, declared once: aiohttp's registration and the OpenAPI document are both made from it.

A handler gets a `Call` and returns a response; whatever it raises of ours becomes the JSON error of the table.
`check` runs before the body is read, so that a wrong content type or topic costs nothing; what it has read of the
request it returns for the handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from kraft.broker.permissions import Permissions
from kraft.broker.principal import ANONYMOUS, Principal, owner_of
from kraft.http.body_models import IS_STRICT
from kraft.http.connection import Connection
from kraft.http.errors import (
    PARTITION_NOT_FOUND,
    PAYLOAD,
    TOPIC_NOT_FOUND,
    UNPROCESSABLE,
    V3_TOPIC_NOT_FOUND,
    HttpError,
)
from kraft.http.extension_fields import PREFER, prefers_additions
from kraft.http.media import is_latin_1
from kraft.http.problems import problems_of
from kraft.http.record_counts import check_values, objects_max
from kraft.http.revocations import UNWATCHED
from metadata.acls import AclOperation, AclResource

if TYPE_CHECKING:
    from kraft.http.context import Context

Model = TypeVar("Model", bound=BaseModel)
Row = TypeVar("Row")
Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Call:
    """One request on its way through a handler."""

    __slots__ = ("_objects", "accept", "body", "context", "needs", "request", "route")

    def __init__(self, context: Context, request: web.Request, body: bytes | bytearray = b"") -> None:
        self.context = context
        self.request = request
        self.route = ""
        """Its path as it is declared, once that was checked: it has the names of parameters, and no topic."""
        self.body = body
        self._objects = -1
        self.needs: Sequence[tuple[AclOperation, AclResource, str]] = ()
        """What the route needs, once that was checked."""
        self.accept = request.headers.get("Accept")
        """In the strict profile only what the route describes of it."""

    @property
    def objects(self) -> int:
        """A bound of the objects in the body of JSON, counted once."""
        if self._objects < 0:
            self._objects = objects_max(self.body)
        return self._objects

    @property
    def has_additions(self) -> bool:
        """Does the answer have the fields that no other proxy's has? See `kraft.http.extension_fields`."""
        return not self.context.is_strict or prefers_additions(self.request.headers.get(PREFER))

    @property
    def principal(self) -> Principal:
        """The principal of the request, with the client's host; ANONYMOUS without credentials."""
        connection = self.request.protocol
        return connection.principal if isinstance(connection, Connection) else ANONYMOUS

    @property
    def owner(self) -> str:
        """Whose the consumers, transactions, keys and acknowledgement ids are that the request makes or names."""
        return owner_of(self.principal)

    @property
    def permissions(self) -> Permissions | None:
        """What the principal may do; None: everything."""
        gateway = self.context.gateway
        if gateway.authorizer is None:
            return None
        return gateway.permissions(self.principal, what=f"{self.request.method} {self.route}")

    def check(self, operation: AclOperation, resource: AclResource, name: str) -> None:
        """Raises the authorization error of Kafka for what the principal may not do."""
        if (may := self.permissions) is not None:
            may.check(operation, resource, name)

    def check_topics(self, operation: AclOperation, names: Iterable[str]) -> None:
        """The same for topics that the body names, or what it stands for."""
        if (may := self.permissions) is not None:
            for name in dict.fromkeys(names):
                may.check(operation, AclResource.TOPIC, name)

    def check_again(self) -> None:
        """Raises what the request would be refused with now: its login or what its route needs may have gone."""
        if (authentication := self.context.authentication) is not None:
            authentication.check_again(self.request)
        for need in self.needs:
            self.check(*need)

    def while_allowed(self, check: Callable[[], object] | None = None) -> AbstractContextManager[None]:
        """For whatever waits: it ends soon after `check_again` would raise, or `check`, for what the route's needs do
        not say. Raises that error."""
        context = self.context
        if context.authentication is None and context.gateway.authorizer is None:
            return UNWATCHED

        def both() -> None:
            self.check_again()
            if check is not None:
                check()

        return context.revocations.watching(self.check_again if check is None else both)

    def described(self, resource: AclResource, names: Iterable[str]) -> list[str]:
        """Those of these names that the principal may describe; all groups for one that may describe the cluster."""
        may = self.permissions
        if may is None or (resource is AclResource.GROUP and may.silently(AclOperation.DESCRIBE, AclResource.CLUSTER)):
            return list(names)
        return [name for name in names if may.silently(AclOperation.DESCRIBE, resource, name)]

    def of_described_topics(self, rows: Iterable[Row], topic_of: Callable[[Row], str]) -> list[Row]:
        """Those of these rows whose topic the principal may describe."""
        found = list(rows)
        shown = set(self.described(AclResource.TOPIC, {topic_of(row) for row in found}))
        return [row for row in found if topic_of(row) in shown]

    @property
    def is_v3(self) -> bool:
        return self.request.path.startswith("/v3")

    @property
    def unknown_topic(self) -> int:
        """The code for a topic that does not exist."""
        if self.is_v3:
            return V3_TOPIC_NOT_FOUND
        asks_of_topic = self.request.method in ("GET", "HEAD") and self.request.path.startswith("/topics/")
        return self.context.dialect.unknown_topic if asks_of_topic else TOPIC_NOT_FOUND

    @property
    def is_latin_1(self) -> bool:
        """The body is said to be in ISO-8859-1."""
        return is_latin_1(self.request.headers.get("Content-Type"))

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters that stand in the path, by name."""
        return self.request.match_info

    @property
    def topic(self) -> str:
        """The topic's name in the path."""
        return self.request.match_info["topic"]

    @property
    def partition(self) -> int:
        """The partition's number in the path. Raises HttpError 404 for what is no number."""
        text = self.request.match_info["partition"]
        if not (text.isascii() and text.isdigit() and len(text) <= 10):
            code = 404 if self.is_v3 else PARTITION_NOT_FOUND
            raise HttpError(code, f"Partition not found. {text!r} is none: a partition is a number from 0")
        return int(text)

    def model(self, model: type[Model], *, has_records: bool = False) -> Model:
        """The body as a model. `has_records`: what is in it was counted already.

        Raises HttpError 400 for malformed JSON, 42206 for none, 422 for JSON that is not one, 413 for too many values.

        In v3 JSON that is not one is 400, unless a field that nobody knows is all that is wrong with it (422).
        The strict profile takes no number or truth value that is written as a string.
        """
        is_strict = self.context.is_strict
        if not self.body:
            raise HttpError(PAYLOAD, "the body is empty; send a JSON object")
        if not has_records:
            check_values(self.body, values_max=self.context.limits.body_values_max)
        try:
            return _validate(model, self.body, is_strict=is_strict)
        except ValidationError as error:
            kinds = {problem["type"] for problem in error.errors(include_url=False, include_input=False)}
            is_unfit = "json_invalid" in kinds or (self.is_v3 and kinds != {"extra_forbidden"})
            raise HttpError(400 if is_unfit else UNPROCESSABLE, problems_of(error)) from error


def _validate(model: type[Model], body: bytes | bytearray, *, is_strict: bool) -> Model:
    context = {IS_STRICT: is_strict}
    if not is_strict:
        return model.model_validate_json(body, context=context)
    try:
        return model.model_validate_json(body, strict=True, context=context)
    except ValidationError as error:
        # 1.0 is an integer in JSON Schema, and to no strict model.
        if any(not _is_whole(problem["input"]) for problem in error.errors(include_url=False)):
            raise
    return model.model_validate_json(body, context=context)


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


Handler: TypeAlias = Callable[..., Awaitable[web.StreamResponse]]
"""Gets the Call and, where the check of its route returns something, that as its second argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter, or a header of a request."""

    name: str
    description: str
    schema: Mapping[str, Any]
    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header of an answer; always there unless it `is_optional`."""

    description: str
    schema: Mapping[str, Any]
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request or an answer may hold: media type -> model, or None for bytes."""

    content: Mapping[str, Any]
    description: str = ""
    is_optional: bool = False
    """The request may have an empty body."""
    headers: Mapping[str, Header] = field(default_factory=dict)
    """Headers of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method and path: its handler, its parameters, and the bodies that it takes and answers."""

    method: Method
    path: str
    handler: Handler
    summary: str
    tag: str
    answers: Mapping[int, Body | None]
    """Status -> body, or None for an empty one."""
    body: Body | None = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    """Headers of a request that mean something to this route alone."""
    errors: tuple[int, ...] = ()
    """Codes that this route can answer; the OpenAPI document groups them by status."""
    check: Callable[[Call], Any] | None = None
    """Raises what can be refused before the body is read. The handler gets what it returns, unless that is None."""
    name: str = field(default="")
    streams_body: bool = False
    """The handler reads the body itself, while it answers; its length is no limit."""
    answers_early: bool = False
    """The route answers before the node's metadata has caught up with the quorum, because it reports this process, or
    what the node waits for. Every other route answers 503 until then, see `kraft.http.readiness`."""
    is_alias: bool = False
    """Another spelling that some clients use; the strict profile does not serve it."""

    @property
    def operation_id(self) -> str:
        """The operationId of the OpenAPI document: the handler's name, as in generated clients."""
        return self.name or f"{self.tag}_{self.handler.__name__}"

    @property
    def is_v3(self) -> bool:
        return self.path.startswith("/v3")
