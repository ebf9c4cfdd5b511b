"""Kafka's message schemas, imported when first used: a node pays only for the APIs that it speaks.

kio's modules come out untyped on purpose. Its phantom integers would ask for a checked construction of every number;
the writers check ranges anyway, when they pack.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import Any

from kraft.wire.apis import Api

NO_THROTTLE = timedelta(0)

EXTENDED = ("AlterPartition", "GroupRequest", "Produce")
"""APIs whose responses carry tagged fields of ours, or are ours (`kraft.wire.extensions`)."""
EXTENDED_REQUESTS = ("BrokerHeartbeat", "GroupRequest")
"""The same for requests."""


@cache
def requests_of(api: Api, version: int) -> Any:
    """The module with the request of an API and its nested structures."""
    return import_module(f"kio.schema.{api.schema}.v{version}.request")


@cache
def responses_of(api: Api, version: int) -> Any:
    return import_module(f"kio.schema.{api.schema}.v{version}.response")


@cache
def request_class(api: Api, version: int) -> Any:
    if api.name in EXTENDED_REQUESTS:
        return getattr(import_module("kraft.wire.extensions"), f"{api.name}Request")
    return getattr(requests_of(api, version), f"{api.name}Request")


@cache
def response_class(api: Api, version: int) -> Any:
    if api.name in EXTENDED:
        return getattr(import_module("kraft.wire.extensions"), f"{api.name}Response")
    return getattr(responses_of(api, version), f"{api.name}Response")


@cache
def _error_codes() -> Any:
    return import_module("kio.schema.errors").ErrorCode


def error_code(code: int) -> Any:
    return _error_codes()(code)


def milliseconds(ms: int) -> timedelta:
    return timedelta(milliseconds=ms)


def to_ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
