"""What a client has to be allowed for each API, checked before its handler: all that it may not do is refused here.

A row of `kraft.wire.access_table` has needs of the request as a whole, whose refusal refuses it all, and needs of each
item of an array: items that are refused get the error that Kafka gives them, and the handler gets the others. A row may
also change a request before its handler (a question for all topics becomes one for those that are visible), and an
answer after it. Without `authorizer.class.name` handlers are not wrapped at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from kraft.broker.gateway import Gateway
from kraft.broker.permissions import Permissions, refusal_of
from kraft.protocol import codec
from kraft.protocol.encoding import TopLevel, Written
from kraft.protocol.errors import ClusterAuthorizationFailed, KafkaError
from kraft.values import new
from kraft.wire.api_handler import Answer, ApiHandler, Call, Later
from metadata.acls import CLUSTER_NAME, AclOperation, AclResource
from metadata.image import MetadataImage

Subject: TypeAlias = "tuple[AclResource, str] | None"
"""A resource; None for one that is not known, which the handler refuses."""


@dataclass(frozen=True, slots=True)
class Need:
    """An operation that the request as a whole needs, on all of these names; on none: nothing is needed."""

    operation: AclOperation
    resource: AclResource
    names: Callable[[Any, MetadataImage], Iterable[str]]
    or_operation: AclOperation | None = None
    """Another operation that is enough."""
    or_some: tuple[AclOperation, AclResource] | None = None
    """What is enough on whatever resource there may be (KIP-679)."""

    def is_met(self, message: Any, image: MetadataImage, may: Permissions) -> bool:
        for name in self.names(message, image):
            if self.or_operation is not None and may.silently(self.or_operation, self.resource, name):
                continue
            if self.or_some is not None and may.some(*self.or_some):
                continue
            if not may(self.operation, self.resource, name):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Each:
    """An operation that each item of an array of the request needs."""

    asked: str
    answered: str
    operation: AclOperation
    subject: Callable[[Any, Any, MetadataImage], Subject]
    """(item, request, image) -> the resource."""
    states: str
    """The resource, for the documentation."""
    unless: tuple[AclOperation, AclResource] | None = None
    """What is enough for all items, on the cluster."""
    denied: Callable[[Any, KafkaError], Any] | None = None
    """(item, error) -> its part of the answer, where the refusal of a request has no items."""


Before: TypeAlias = "Callable[[Call[Any], Permissions, Gateway], Call[Any] | TopLevel]"
After: TypeAlias = "Callable[[Any, Call[Any], Permissions, Gateway], None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What one API needs."""

    needs: Sequence[Need] = ()
    each: Sequence[Each] = ()
    before: Before | None = None
    """Changes the request, or answers it."""
    after: After | None = None
    """Changes the answer."""
    is_view: bool = False
    """Whether the handler answers more than its items: it is also asked when all of them are refused."""
    states: str = ""
    """What `before`, `after` or the handler itself check, for the documentation; or why nothing is needed."""


def cluster(message: Any, image: MetadataImage) -> Sequence[str]:
    """The name of the cluster."""
    return (CLUSTER_NAME,)


class Guard:
    """Checks the requests of clients of one node."""

    def __init__(self, gateway: Gateway, table: Callable[[int], Access | None]) -> None:
        """`table` returns the row of an API key; an API without a row is refused."""
        self._gateway = gateway
        self._table = table

    def guarded(self, api: ApiHandler) -> ApiHandler:
        """The handler that answers what the client may ask for."""
        row = self._table(api.request.API_KEY)
        if row is not None and not (row.needs or row.each or row.before or row.after):
            return api  # nothing is needed, or its handler asks
        what = api.request.__name__.removesuffix("RequestData")

        def handle(call: Call[Any]) -> Answer:
            return api.handle(call) if call.connection.is_node else self._checked(api, row, call, what)

        return replace(api, handle=handle)

    def _checked(self, api: ApiHandler, row: Access | None, call: Call[Any], what: str) -> Answer:
        """Raises the error of what the request as a whole may not do."""
        gateway = self._gateway
        may = allowed(call, gateway, what)
        if may is None:
            return api.handle(call)
        if row is None:
            raise ClusterAuthorizationFailed("nobody has declared what this API needs")
        for need in row.needs:
            if not need.is_met(call.message, gateway.image, may):
                raise refusal_of(need.resource)
        if row.before is not None:
            changed = row.before(call, may, gateway)
            if isinstance(changed, TopLevel):
                return changed
            call = changed
        rest, refused = self._split(api, row, call, may)
        if rest is None:
            return _joined(None, refused)
        answer = api.handle(rest)
        if not refused and row.after is None:
            return answer
        return _rendered(answer, lambda response: self._finished(response, api, row, call, may, refused))

    def _split(
        self, api: ApiHandler, row: Access, call: Call[Any], may: Permissions
    ) -> tuple[Call[Any] | None, list[tuple[str, TopLevel]]]:
        """The request without the items that are refused, None when nothing is left; and the answers to those."""
        image, message = self._gateway.image, call.message
        if _allows_all(row, message, image, may):
            return call, []
        refused: list[tuple[str, TopLevel]] = []
        rest = {each.asked: getattr(message, each.asked) for each in row.each}
        for each in row.each:
            allowed, denied = _parted(each, rest[each.asked] or (), message, image, may)
            if denied:
                rest[each.asked] = allowed
            for resource, some in denied.items():
                refused.append((each.answered, _refused(api, each, call, some, refusal_of(resource))))
        if not refused:
            return call, refused
        if not (row.is_view or any(rest.values())):
            return None, refused
        return replace(call, message=changed(message, **rest)), refused

    def _finished(
        self,
        response: TopLevel | None,
        api: ApiHandler,
        row: Access,
        call: Call[Any],
        may: Permissions,
        refused: Sequence[tuple[str, TopLevel]],
    ) -> TopLevel | None:
        if response is None:
            return None
        if isinstance(response, Written):
            response = codec.decode_body(api.response, call.version, memoryview(b"".join(response.parts)), 0)
        if row.after is not None:
            row.after(response, call, may, self._gateway)
        return _joined(response, refused)


def _parted(
    each: Each, items: Sequence[Any], message: Any, image: MetadataImage, may: Permissions
) -> tuple[list[Any], dict[AclResource, list[Any]]]:
    if each.unless is not None and may.silently(*each.unless, CLUSTER_NAME):
        return list(items), {}
    allowed: list[Any] = []
    denied: dict[AclResource, list[Any]] = {}
    for item in items:
        subject = each.subject(item, message, image)
        if subject is None or may(each.operation, *subject):
            allowed.append(item)
        else:
            denied.setdefault(subject[0], []).append(item)
    return allowed, denied


def _allows_all(row: Access, message: Any, image: MetadataImage, may: Permissions) -> bool:
    """The usual case, which costs little. Nothing is noted."""
    for each in row.each:
        if each.unless is not None:
            return False
        silently, operation, subject_of = may.silently, each.operation, each.subject
        for item in getattr(message, each.asked) or ():
            subject = subject_of(item, message, image)
            if subject is not None and not silently(operation, *subject):
                return False
    return True


def _refused(api: ApiHandler, each: Each, call: Call[Any], items: list[Any], error: KafkaError) -> TopLevel:
    message = changed(call.message, **{each.asked: items})
    response = api.refuse(message, call.version, error)
    if each.denied is not None:
        response = changed(response, **{each.answered: [each.denied(item, error) for item in items]})
    for field, value in (("error_code", 0), ("error_message", None)):
        if field in response.__slots__:
            setattr(response, field, value)
    return response


def _joined(response: Any, refused: Sequence[tuple[str, Any]]) -> TopLevel | None:
    """The answer with the refused items behind the others. An answer that has failed as a whole stays as it is."""
    if response is None:
        (_, response), *refused = refused
    elif getattr(response, "error_code", 0):
        return response  # type: ignore[no-any-return]
    for name, other in refused:
        response = changed(response, **{name: [*(getattr(response, name) or ()), *getattr(other, name)]})
    return response  # type: ignore[no-any-return]


def _rendered(answer: Answer, finish: Callable[[TopLevel | None], TopLevel | None]) -> Answer:
    if isinstance(answer, Later):
        render = answer.render
        return Later(answer.future, lambda come: finish(render(come)))
    if answer is None or isinstance(answer, TopLevel):
        return finish(answer)

    async def waited() -> TopLevel | None:
        return finish(await answer)

    return waited()


def changed(message: Any, **fields: Any) -> Any:
    """A copy with other values of these fields."""
    copy = new(type(message))
    for name in message.__slots__:
        setattr(copy, name, fields[name] if name in fields else getattr(message, name))
    return copy


def allowed(call: Call[Any], gateway: Gateway, what: str) -> Permissions | None:
    """What the client may do now; None: everything. It is remembered with the connection until any ACL changes."""
    authorizer, connection = gateway.authorizer, call.connection
    if authorizer is None or connection.is_node:
        return gateway.permissions(call.principal, what=what)
    known = connection.permissions
    if known is None or known[0] is not authorizer:
        known = connection.permissions = authorizer, {}
    by_what = known[1]
    if what not in by_what:
        by_what[what] = gateway.permissions(connection.principal, what=what)
    return by_what[what]


def readable(call: Call[Any], gateway: Gateway) -> Callable[[str], bool] | None:
    """Whether the client may read the topic of a name; None: it may read all. For handlers of sessions, which look at
    what was asked for earlier, too."""
    if gateway.authorizer is None or allowed(call, gateway, "Fetch") is None:
        return None

    def is_readable(name: str) -> bool:
        """The ACLs of now decide: a fetch may wait."""
        may = allowed(call, gateway, "Fetch")
        return may is None or may(AclOperation.READ, AclResource.TOPIC, name)

    return is_readable


NOTHING: Final = Access(states="nothing: it is asked before anything is known of the client, or reveals nothing")
"""The row of an API that anybody may ask."""
