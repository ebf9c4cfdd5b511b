"""The routes of REST consumers. Bodies on GET and DELETE are tolerated; what needs one there has a POST twin."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from kraft.coordinators.groups.routing import Groups
from kraft.http.embedded_records import ConsumedRecord
from kraft.http.endpoint import Body, Call, Handler, Header, Method, Parameter, Route
from kraft.http.media import EMBEDDED, consumer_format, stream_answer
from kraft.http.streaming.read import STREAM_CONTENT, STREAM_QUERY
from kraft.http.v2 import consumers_models as models
from kraft.http.v2.consumers import NEXT_TOKEN, WARNING, ConsumerHandlers, check
from kraft.protocol.media_types import V2_JSON
from kraft.protocol.primitives import INT32_MAX

GROUP = "/consumers/{group}"
INSTANCE = "/consumers/{group}/instances/{instance}"
_GONE = (40002, 40403, 50302)
_BODY = (400, 413, 415, 422)
_NUMBER = {"type": "integer", "minimum": -1, "maximum": INT32_MAX}
_TOKEN = Header(description="The token to go on with; a stream has none.", schema={"type": "integer"}, is_optional=True)
_WARNING = Header(description="Settings that were ignored.", schema={"type": "string"}, is_optional=True)
_COMMITTED = Annotated[list[Any], Field(max_length=0)]
"""Confluent's proxy makes a list of what it committed and never puts anything into it."""
_QUERY = (
    Parameter(name="timeout", description="Longest wait in ms; at most that of the consumer.", schema=_NUMBER),
    Parameter(name="max_bytes", description="Most bytes; at least one record is answered.", schema=_NUMBER),
    Parameter(
        name="token",
        description="Number of the batch that is wanted: 1, then X-Next-Token. The same again: the same batch again.",
        schema={"type": "integer", "minimum": 1, "maximum": INT32_MAX},
    ),
)


def consumer_routes(groups: Groups, rng: random.Random) -> tuple[Route, ...]:
    handlers = ConsumerHandlers(groups, rng)
    return (
        _records(handlers),
        _route("POST", GROUP, handlers.create_consumer, "Create a consumer.", models.NewConsumer, needs_body=False,
               answer=models.ConsumerCreated, errors=(40001, 40902, 42204), headers={WARNING: _WARNING}),
        _route("DELETE", INSTANCE, handlers.delete_consumer, "Delete a consumer; it leaves its group."),
        *_places(handlers),
        *_positions(handlers),
        *_offsets(handlers),
    )  # fmt: skip


def _records(handlers: ConsumerHandlers) -> Route:
    content = {form.media_type: list[ConsumedRecord] for form in EMBEDDED} | STREAM_CONTENT
    return Route(
        method="GET", path=INSTANCE + "/records", handler=handlers.read_consumer_records, tag="v2",
        check=_check_records, query=(*_QUERY, *STREAM_QUERY),
        summary="Read on, waiting for new records, or stream them.",
        answers={200: Body(content=content, headers={NEXT_TOKEN: _TOKEN})},
        errors=(*_GONE, 40401, 406, 40601, 40903, 40904, 422),
    )  # fmt: skip


def _places(handlers: ConsumerHandlers) -> tuple[Route, ...]:
    path = INSTANCE + "/subscription"
    return (
        _route("POST", path, handlers.subscribe_consumer, "Subscribe to topics or to a pattern.",
               models.SubscriptionBody, errors=(40903,)),
        _route("GET", path, handlers.get_consumer_subscription, "The subscription.", answer=models.SubscriptionInfo),
        _route("DELETE", path, handlers.unsubscribe_consumer, "End subscription and assignment."),
        _route("POST", INSTANCE + "/assignments", handlers.assign_consumer, "Assign partitions by hand.",
               models.Partitions, errors=(40401, 40402, 40903)),
        _route("GET", INSTANCE + "/assignments", handlers.get_consumer_assignments, "Partitions that it reads.",
               answer=models.PartitionList),
    )  # fmt: skip


def _positions(handlers: ConsumerHandlers) -> tuple[Route, ...]:
    path, errors = INSTANCE + "/positions", (404, 40402, 40903)
    return (
        _route("POST", path, handlers.seek_consumer, "Seek to offsets or times.", models.Positions, errors=errors),
        _route("POST", path + "/beginning", handlers.seek_consumer_to_beginning, "Seek to the first records.",
               models.Partitions, errors=errors),
        _route("POST", path + "//beginning", handlers.seek_consumer_to_beginning, "The same, as some clients ask.",
               models.Partitions, errors=errors, name="v2_seek_consumer_to_beginning_twice", is_alias=True),
        _route("POST", path + "/end", handlers.seek_consumer_to_end, "Seek to the end.", models.Partitions,
               errors=errors),
        _route("POST", path + "//end", handlers.seek_consumer_to_end, "The same, as some clients ask.",
               models.Partitions, errors=errors, name="v2_seek_consumer_to_end_twice", is_alias=True),
    )  # fmt: skip


def _offsets(handlers: ConsumerHandlers) -> tuple[Route, ...]:
    path = INSTANCE + "/offsets"
    return (
        _route("POST", path, handlers.commit_consumer_offsets, "Commit; 200 or 204, by `rest.dialect`.",
               models.Commit, needs_body=False, answer=_COMMITTED, is_empty_too=True, errors=(40401, 40402, 40903)),
        _route("GET", path, handlers.get_consumer_offsets, "Committed offsets.", models.OffsetQuestion,
               needs_body=False, answer=models.OffsetInfos, errors=(40401, 40402)),
        _route("POST", path + ":query", handlers.get_consumer_offsets, "Committed offsets.", models.OffsetQuestion,
               needs_body=False, answer=models.OffsetInfos, errors=(40401, 40402), name="v2_query_consumer_offsets"),
    )  # fmt: skip


def _route(
    method: Method,
    path: str,
    handler: Handler,
    summary: str,
    body: Any = None,
    *,
    answer: Any = None,
    errors: tuple[int, ...] = (),
    name: str = "",
    is_alias: bool = False,
    needs_body: bool = True,
    is_empty_too: bool = False,
    headers: Mapping[str, Header] | None = None,
) -> Route:
    answers: dict[int, Body | None] = {}
    if answer is not None:
        answers[200] = Body(content={V2_JSON: answer}, headers=headers or {})
    if answer is None or is_empty_too:
        answers[204] = None
    return Route(
        method=method, path=path, handler=handler, summary=summary, tag="v2", check=check, answers=answers, name=name,
        body=None if body is None else Body(content={V2_JSON: body}, is_optional=not needs_body), is_alias=is_alias,
        errors=(406, *_GONE, *(() if body is None else _BODY), *errors),
    )  # fmt: skip


def _check_records(call: Call) -> None:
    if stream_answer(call.accept) is not None:
        return
    consumer_format(call.accept)
