"""Facts of a cluster of three nodes with one partition, to be broken by a test."""

from __future__ import annotations

from typing import Any

import msgspec

from kraft.explain.explanation import Decider, Explanation
from kraft.explain.facts import FollowerFacts, Found, KnownPartition, NodeEvidence, ReplicaFacts

NOW_MS = 1_000_000
NODES = (1, 2, 3)
FETCHED = FollowerFacts(end_offset=100, fetched_ms_ago=200, caught_up_ms_ago=200)
PARTITION = KnownPartition(
    leader=1, leader_epoch=4, partition_epoch=9, replicas=[1, 2, 3], isr=[1, 2, 3], min_isr=2, is_unclean_allowed=False
)
LOG = ReplicaFacts(
    role="follower",
    leader_epoch=4,
    log_start_offset=0,
    log_end_offset=100,
    latest_epoch=4,
    high_watermark=100,
    last_stable_offset=100,
    isr=[1, 2, 3],
    maximal_isr=[1, 2, 3],
)
LEADING = msgspec.structs.replace(LOG, role="leader", followers={2: FETCHED, 3: FETCHED})


def node(node_id: int, **changes: Any) -> NodeEvidence:
    facts = NodeEvidence(
        node_id=node_id,
        at_ms=NOW_MS,
        awaits="",
        metadata_offset=50,
        controller_id=1,
        term=3,
        voters=[1, 2, 3],
        brokers=dict.fromkeys(NODES, "active"),
        heartbeats_ms_ago=dict.fromkeys(NODES, 300) if node_id == 1 else {},
        partition=PARTITION,
        replica=LEADING if node_id == 1 else LOG,
    )
    return msgspec.structs.replace(facts, **changes)


def found(*nodes: NodeEvidence, unreached: dict[int, str] | None = None) -> Found:
    """`nodes` take the place of those of the healthy cluster; an unreached one is not there."""
    unreached = unreached or {}
    all_nodes = {each: node(each) for each in NODES if each not in unreached} | {each.node_id: each for each in nodes}
    return Found(asked=1, at_ms=NOW_MS, nodes=all_nodes, ages_ms=dict.fromkeys(all_nodes, 5), unreached=unreached)


def event(name: str, **fields: Any) -> dict[str, Any]:
    head = {"event": name, "at_ms": NOW_MS - 60_000, "node_id": 1, "position": 0}
    return head | {"topic": "t", "partition": 0} | fields


def partition(**changes: Any) -> KnownPartition:
    return msgspec.structs.replace(PARTITION, **changes)


def log(**changes: Any) -> ReplicaFacts:
    return msgspec.structs.replace(LEADING if changes.get("role") == "leader" else LOG, **changes)


def decider(explanation: Explanation, cause: str) -> Decider:
    return next(each for each in explanation.deciders if each.cause == cause)


def checked(explanation: Explanation) -> Explanation:
    """The same, after a look at its shape: each question has an answer, a rule, and what has to happen."""
    assert explanation.deciders
    for each in explanation.deciders:
        assert each.question.endswith("?"), each
        assert each.explanation, each
        assert each.rule, each
        assert (each.age_ms is not None) == (each.node >= 0), each
        if each.decision == "no":
            assert each.cause, each
            assert each.next, each
    first = next((each for each in explanation.deciders if each.decision == "no"), None)
    if first is not None:
        assert (explanation.cause, explanation.next) == (first.cause, first.next)
        assert not first.fix or explanation.fix[0] == first.fix
    assert all(each.startswith("kraft ") for each in explanation.fix)
    assert explanation.summary
    return explanation
