"""`<data>/audit.jsonl`: who was refused what, and who has changed the cluster; kept while there is an
authorizer, else for clients that have logged in.

Refusals are limited for each principal, and a line states how many were left out before it. Produces, fetches,
heartbeats and commits that are allowed leave no line. Values never do: a line names what was changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from kraft.broker.principal import Principal
from kraft.protocol.errors import KafkaError
from metadata.acls import WILDCARD, Acl, AclFilter, AclOperation, AclResource
from metadata.controller.requests import (
    AlterClientQuotas,
    AlterConfigs,
    AlterReassignments,
    AlterRoute,
    AlterUsers,
    CreateAcls,
    CreatePartitions,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    ElectLeaders,
    ErrorDetail,
    ReplaceConfigs,
    Request,
    UnregisterBroker,
)
from metadata.environment import Clock
from metadata.events import Events
from metadata.rate_limited_log import RateLimitedLog

AUDIT_FILE: Final = "audit.jsonl"
PRINCIPALS_MAX: Final = 1_000
"""Principals whose refusals are limited each for itself; a further one takes the place of the one refused longest
ago."""
NAMES_MAX: Final = 100
"""Names in one line; of more, their number."""


class Audit:
    """Writes what has to be known later."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._refusals: OrderedDict[tuple[str, str], RateLimitedLog] = OrderedDict()

    def refused(
        self, principal: Principal, what: str, operation: AclOperation, resource: AclResource, name: str
    ) -> None:
        """An operation that the ACLs do not allow. `what` is the API or the route."""
        left_out = self._admit(principal)
        if left_out is not None:
            self._events.emit(
                "refused",
                **_who(principal),
                request=what,
                operation=operation.name,
                resource_type=resource.name,
                resource=name,
                left_out=left_out,
            )

    def changed(self, principal: Principal, request: Request[Any], outcome: object) -> None:
        """A change that was asked of the controller, and its outcome: an answer, or the error of all of it."""
        topics = list(dict.fromkeys(topics_of(request)))[:NAMES_MAX]
        self._change(principal, type(request).__name__, subjects(request), _errors(outcome), topics=topics)

    def noted(self, principal: Principal, what: str, names: Sequence[str], errors: Iterable[str]) -> None:
        """A change of the resources of these names, and the names of its errors. `what` is the request. Topics are in
        texts only: `GET /kraft/events` shows it to super users alone."""
        self._change(principal, what, names, errors)

    def _change(
        self, principal: Principal, what: str, names: Sequence[str], errors: Iterable[str], **more: Sequence[str]
    ) -> None:
        self._events.emit(
            "changed",
            **_who(principal),
            request=what,
            resources=names[:NAMES_MAX],
            count=len(names),
            errors=sorted(set(errors)),
            **more,
        )

    def _admit(self, principal: Principal) -> int | None:
        key = (str(principal), principal.host)
        limited = self._refusals.pop(key, None) or RateLimitedLog()
        self._refusals[key] = limited
        if len(self._refusals) > PRINCIPALS_MAX:
            self._refusals.popitem(last=False)
        return limited.admit(self._clock.monotonic_ms())


def _who(principal: Principal) -> dict[str, str]:
    return {"principal": str(principal), "host": principal.host}


def subjects(request: Request[Any]) -> Sequence[str]:
    """What a request changes, by name."""
    match request:
        case CreateTopics() | DeleteTopics() | CreatePartitions():
            return [f"topic {topic}" for topic in topics_of(request)]
        case AlterConfigs() | ReplaceConfigs():
            return [
                f"{resource.resource_type} {resource.name}: {', '.join(_settings(changes))}"
                for resource, changes in request.resources.items()
            ]
        case CreateAcls():
            return [_acl(each) for each in request.acls]
        case DeleteAcls():
            return [_acl(each) for each in request.filters]
        case AlterClientQuotas():
            return [f"quotas of {dict(each.entity)}: {', '.join(each.quotas)}" for each in request.alterations]
        case AlterUsers():
            return [
                f"user {name}" for name in [*(d.name for d in request.deletions), *(u.name for u in request.upsertions)]
            ]
        case AlterRoute():
            return [f"route {request.name}: {request.operation}"]
        case ElectLeaders():
            return [f"{topic}-{number}" for topic, number in request.partitions or ()]
        case AlterReassignments():
            return [f"{each.topic}-{each.partition}" for each in request.reassignments]
        case UnregisterBroker():
            return [f"broker {request.broker_id}"]
    return ()


def topics_of(request: Request[Any]) -> Sequence[str]:
    """The topics, routes and beginnings of their names that `subjects` has in its texts."""
    match request:
        case CreateTopics():
            return [new.name for new in request.topics]
        case DeleteTopics():
            return [str(topic) for topic in request.topics]
        case CreatePartitions():
            return [grown.topic for grown in request.topics]
        case AlterConfigs() | ReplaceConfigs():
            return [resource.name for resource in request.resources if resource.resource_type == "topic"]
        case CreateAcls():
            return _topics_of_acls(request.acls)
        case DeleteAcls():
            return _topics_of_acls(request.filters)
        case AlterRoute():
            return [request.name]
        case ElectLeaders():
            return [topic for topic, _ in request.partitions or ()]
        case AlterReassignments():
            return [each.topic for each in request.reassignments]
    return ()


def _topics_of_acls(acls: Iterable[Acl | AclFilter]) -> Sequence[str]:
    kinds = (AclResource.TOPIC, AclResource.ANY)
    return [each.name for each in acls if each.resource in kinds and each.name is not None and each.name != WILDCARD]


def _settings(changes: Any) -> Iterable[str]:
    return changes if isinstance(changes, Mapping) else [each.name for each in changes]


def _acl(acl: Acl | AclFilter) -> str:
    return (
        f"{acl.permission.name} {acl.principal or 'anybody'} {acl.operation.name} on {acl.pattern.name} "
        f"{acl.resource.name} {acl.name or 'any'} from {acl.host or 'anywhere'}"
    )


def _errors(outcome: object) -> Iterable[str]:
    if isinstance(outcome, KafkaError):
        yield outcome.name
        return
    outcomes = outcome.values() if isinstance(outcome, Mapping) else outcome if isinstance(outcome, list) else ()
    yield from (each.error.name for each in outcomes if isinstance(each, ErrorDetail))
