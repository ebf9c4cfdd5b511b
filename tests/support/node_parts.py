"""Parts of a node for its handlers: those that a test names, and nothing in the place of the others."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, cast

from kraft.wire.node_parts import BrokerParts, NodeParts
from kraft.wire.refusals import NO_PARTS

_OF_NODE = {each.name for each in fields(NodeParts)} - {"broker"}


def node_parts_of(**parts: Any) -> NodeParts:
    """The parts that a broker has make a broker; without any of them the node has no broker role."""
    of_broker = {name: part for name, part in parts.items() if name not in _OF_NODE}
    assert of_broker.keys() <= {each.name for each in fields(BrokerParts)}, of_broker.keys()
    broker = cast(BrokerParts, SimpleNamespace(**of_broker)) if of_broker else None
    return replace(NO_PARTS, broker=broker, **{name: part for name, part in parts.items() if name in _OF_NODE})
