"""Kafka's APIs by name, also those that nodes do not serve. Pure except for the import of a schema."""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib import import_module
from typing import Final

import kraft.protocol.messages
from kraft.chaos.worlds.spec import ScenarioError
from kraft.protocol.encoding import TopLevel
from kraft.suggestions import nearest_key_hint

BETWEEN_NODES_FROM: Final = 10_000
"""Keys of APIs of our own."""


@cache
def api_names() -> tuple[str, ...]:
    """The names of all APIs, such as `OffsetCommit`."""
    modules = [each.name for each in pkgutil.iter_modules(kraft.protocol.messages.__path__)]
    return tuple("".join(map(str.capitalize, name.split("_")[:-1])) for name in modules if name.endswith("_request"))


@cache
def request_type(api: str) -> type[TopLevel]:
    """The request class of an API. Raises ScenarioError for an unknown API."""
    known = {name.lower(): name for name in api_names()}
    name = known.get(api.lower().removesuffix("request"))
    if name is None:
        raise ScenarioError(f"Kafka has no API {api!r}; {nearest_key_hint(api, api_names(), otherwise='see docs')}")
    module = import_module(f"kraft.protocol.messages.{_snake(name)}_request")
    found: type[TopLevel] = getattr(module, f"{name}RequestData")
    return found


def api_name(request: type[TopLevel]) -> str:
    return request.__name__.removesuffix("RequestData")


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
