"""The state of the cluster as one flat map, and the difference between two of them. Pure.

Keys, with a partition written as `orders-0`:

- `cluster`, `totals`: of the newest metadata that any node has
- `node/1`: a node, and its own view
- `p/orders-0`: leader, leader epoch, replicas, ISR, standing (0 is offline, 4 is well), effective min.insync.replicas
- `r/orders-0/1`: a replica, from its own node: role, leader epoch, log start, last stable offset, high watermark,
  log end offset, bytes
- `f/orders-0`: what the leader knows of its followers; `e/orders-0/1`: the leader epochs of a replica
- `v/orders-0`: the rows of other nodes where they differ from `p/orders-0`
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct, structs

from kraft.broker.gateway import NodeInfo
from kraft.broker.node_facts import NodeFacts

State: TypeAlias = dict[str, Any]
Heard: TypeAlias = NodeFacts | str
"""The facts of a node, or why there are none."""
PARTITION_KINDS = "prfev"
T = TypeVar("T")


class Frame(Struct, frozen=True, kw_only=True):
    """What has changed since the frame before; `full`: the whole state, and whatever else was known is gone."""

    full: bool
    at_ms: int
    set: State
    gone: list[str]


def difference(old: Mapping[str, Any], new: State, *, at_ms: int) -> Frame:
    """What leads from the old state to the new one."""
    changed = {key: row for key, row in new.items() if key not in old or old[key] != row}
    return Frame(full=False, at_ms=at_ms, set=changed, gone=[key for key in old if key not in new])


def whole(state: State, *, at_ms: int) -> Frame:
    """All of the state."""
    return Frame(full=True, at_ms=at_ms, set=state, gone=[])


def cluster_state(heard: Mapping[int, Heard], nodes: Mapping[int, NodeInfo], *, cluster_id: str, node_id: int) -> State:
    """The views of all nodes, as one map. `node_id`: the node that answers the page; -1: none of them."""
    facts = [each for each in heard.values() if isinstance(each, NodeFacts)]
    state: State = {}
    newest = max(facts, key=lambda each: each.metadata_offset, default=None)
    state["cluster"] = {"id": cluster_id, "node": node_id} | (
        {}
        if newest is None
        else {
            "controller": _leader(facts),
            "epoch": max(each.controller_epoch for each in facts),
            "offset": newest.metadata_offset,
        }
    )
    for number, info in nodes.items():
        state[f"node/{number}"] = _node(info, heard.get(number, "not asked yet"), newest)
    if newest is None:
        return state
    state["totals"] = structs.asdict(newest.totals)
    for name, row in newest.partitions.items():
        state[f"p/{name}"] = row
        others = _others(facts, newest, name)
        if others:
            state[f"v/{name}"] = others
    for each in facts:
        _add_replicas(state, each, newest.partitions)
    return state


def _leader(facts: Iterable[NodeFacts]) -> int:
    """The active controller of the highest epoch that somebody knows one of."""
    known = [each for each in facts if each.controller_id >= 0]
    return max(known, key=lambda each: (each.controller_epoch, each.metadata_offset)).controller_id if known else -1


def _node(info: NodeInfo, heard: Heard, newest: NodeFacts | None) -> dict[str, Any]:
    found: dict[str, Any] = {"roles": info.roles, "rest": info.rest, "kafka": info.kafka, "rack": info.rack}
    is_broker = "broker" in info.roles
    found["state"] = "controller" if not is_broker else "down"
    if newest is not None and is_broker:
        found["state"] = newest.brokers.get(info.node_id, "down")
    if isinstance(heard, str):
        return found | {"answers": False, "why": heard}
    return found | {
        "answers": True,
        "awaits": heard.awaits,
        "offset": heard.metadata_offset,
        "controller": heard.controller_id,
        "epoch": heard.controller_epoch,
        "links": heard.links,
    }


def _others(facts: Iterable[NodeFacts], newest: NodeFacts, name: str) -> dict[int, Any]:
    row = newest.partitions[name]
    return {
        each.node_id: said
        for each in facts
        if each is not newest and (said := each.partitions.get(name)) is not None and said != row
    }


def _add_replicas(state: State, facts: NodeFacts, shown: Mapping[str, Any]) -> None:
    number = facts.node_id
    for name, row in facts.replicas.items():
        if name in shown:
            state[f"r/{name}/{number}"] = row
    for name, epochs in facts.epochs.items():
        if name in shown:
            state[f"e/{name}/{number}"] = epochs
    for name, followers in facts.followers.items():
        if name in shown:
            state[f"f/{name}"] = followers


def without_topics(state: State, is_visible: Mapping[str, Any]) -> State:
    """The state without the partitions of other topics than these."""
    return {key: row for key, row in state.items() if key[:1] not in PARTITION_KINDS or _topic(key) in is_visible}


def visible_facts(facts: NodeFacts, is_visible: Container[str]) -> NodeFacts:
    """The same without the partitions of other topics than these."""

    def left(rows: Mapping[str, T]) -> dict[str, T]:
        return {name: row for name, row in rows.items() if name.rpartition("-")[0] in is_visible}

    return structs.replace(
        facts,
        partitions=left(facts.partitions),
        replicas=left(facts.replicas),
        followers=left(facts.followers),
        epochs=left(facts.epochs),
    )


def _topic(key: str) -> str:
    if key[1:2] != "/":
        return ""
    return key.split("/")[1].rpartition("-")[0]
