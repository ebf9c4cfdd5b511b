"""Bodies of requests about REST consumers: read leniently, refused with the code of what is wrong with them."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from kraft.coordinators.groups.patterns import topic_pattern
from kraft.http.endpoint import Call
from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.v2.consumers_models import NewConsumer

CONSUMER_CONFIG = 42204
CONSUMER_CONFIG_BEGIN = "Invalid consumer configuration: "
"""The beginning of the message, which clients of Confluent's proxy look for."""
CONSUMER_CONSTRAINT = 40001
"""A setting that is a number, and beyond its bounds."""
_BEYOND = ("greater_than_equal", "less_than_equal")

Model = TypeVar("Model", bound=BaseModel)


def body_of(call: Call, model: type[Model], *, code: int = UNPROCESSABLE) -> Model:
    """The body; an empty one is `{}`. Raises HttpError 400, or `code` for JSON that is not the model."""
    if not call.body.strip():
        call.body = b"{}"
    try:
        return call.model(model)
    except HttpError as error:
        if error.code == 400:
            raise
        begin = CONSUMER_CONFIG_BEGIN if code == CONSUMER_CONFIG else ""
        raise HttpError(code, begin + error.message) from error.__cause__


def new_consumer(call: Call) -> NewConsumer:
    """Raises HttpError 400, 42204, 40001."""
    try:
        return body_of(call, NewConsumer, code=CONSUMER_CONFIG)
    except HttpError as error:
        cause = error.__cause__
        problems = cause.errors(include_url=False) if isinstance(cause, ValidationError) else []
        if problems and all(problem["type"] in _BEYOND for problem in problems):
            raise HttpError(CONSUMER_CONSTRAINT, error.message.removeprefix(CONSUMER_CONFIG_BEGIN)) from cause
        raise


def check_pattern(pattern: str) -> None:
    """Raises HttpError 422."""
    try:
        topic_pattern(pattern)
    except ValueError as error:
        raise HttpError(UNPROCESSABLE, f"topic_pattern is no regular expression: {error}") from error
