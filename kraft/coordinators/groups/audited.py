"""Group requests of administrators leave a line in the audit, whichever port they come from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from kraft.broker.gateway import Gateway
from kraft.broker.principal import Principal
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol.errors import GroupSubscribedToTopic, KafkaError, for_code

Ask = Callable[[r.Request], Awaitable[a.Answer]]


async def audited(gateway: Gateway, principal: Principal | None, request: r.Request, ask: Ask) -> a.Answer:
    """What `ask` answers; a change that the client has asked for is written down with its errors."""
    what, names = _change(request)
    if not names:
        return await ask(request)
    try:
        answer = await ask(request)
    except KafkaError as error:
        gateway.note_change(principal, what, names, [error.name])
        raise
    gateway.note_change(principal, what, names, _errors(answer))
    return answer


def _change(request: r.Request) -> tuple[str, Sequence[str]]:
    """Kafka's name of the request (ours where Kafka commits), and what it changes; nothing for any other request."""
    group = f"group {request.group}"
    match request:
        case r.DeleteGroup():
            return "DeleteGroups", [group]
        case r.DeleteOffsets():
            return "OffsetDelete", [f"{group}: {topic}-{number}" for topic, number in request.partitions]
        case r.ResetOffsets():
            return "ResetOffsets", [f"{group}: {each.topic}-{each.partition}" for each in request.offsets]
        case r.ResetShareOffsets():
            return "AlterShareGroupOffsets", [f"{group}: {topic}-{number}" for topic, number, _ in request.offsets]
        case r.DeleteShareOffsets():
            return "DeleteShareGroupOffsets", [f"{group}: {topic}" for topic in request.topics]
    return "", ()


def _errors(answer: a.Answer) -> Iterable[str]:
    if isinstance(answer, a.OffsetsDeleted) and answer.refused:
        return [GroupSubscribedToTopic.name]
    if isinstance(answer, a.ShareOffsets):
        return [for_code(row.error_code).name for row in answer.offsets if row.error_code]
    return ()
