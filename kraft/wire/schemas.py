"""Kafka's message schemas, imported when first used: a node pays only for the APIs that it speaks.

kio knows the schemas; the classes that we use are made after them (`kraft.wire.structures`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from kraft.wire.apis import Api
from kraft.wire.structures import maker_of, structure_of

NO_THROTTLE = 0
"""ms."""

EXTENDED = ("AlterPartition", "GroupRequest", "Produce")
"""APIs whose responses carry tagged fields of ours, or are ours (`kraft.wire.extensions`)."""
EXTENDED_REQUESTS = ("BrokerHeartbeat", "GroupRequest")
"""The same for requests."""


class Makers:
    """The functions that make the structures of a module, each under the structure's name."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        make: Callable[..., Any] = maker_of(structure_of(getattr(self._module, name)))
        setattr(self, name, make)
        return make


@cache
def requests_of(api: Api, version: int) -> Any:
    """What makes the request of an API and its nested structures."""
    return Makers(_module(api, version, "request"))


@cache
def responses_of(api: Api, version: int) -> Any:
    return Makers(_module(api, version, "response"))


@cache
def extensions() -> Any:
    return Makers(_extensions())


@cache
def request_class(api: Api, version: int) -> Any:
    return _class(api, version, "request", is_extended=api.name in EXTENDED_REQUESTS)


@cache
def response_class(api: Api, version: int) -> Any:
    return _class(api, version, "response", is_extended=api.name in EXTENDED)


def _class(api: Api, version: int, side: str, *, is_extended: bool) -> Any:
    module = _extensions() if is_extended else _module(api, version, side)
    return structure_of(getattr(module, f"{api.name}{side.capitalize()}"))


def _module(api: Api, version: int, side: str) -> ModuleType:
    return import_module(f"kio.schema.{api.schema}.v{version}.{side}")


def _extensions() -> ModuleType:
    from kraft.wire import extensions

    return extensions
