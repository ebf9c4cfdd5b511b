"""An explanation: a state, a sentence, and what decided it. The answer of `GET /kraft/explain/...`.

Shaped as Elasticsearch's allocation explanation, with which operators are familiar: each decider is a question that is
answered with yes (as it should be), no (this is a reason) or unknown, with the rule and the evidence. The cause of the
whole is that of the first no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

Decision: TypeAlias = Literal["yes", "no", "unknown"]


class Decider(msgspec.Struct, frozen=True, kw_only=True):
    """A question, and the answer that the facts give."""

    question: str
    decision: Decision
    cause: str = ""
    """For programs: `broker_fenced`; empty for a yes."""
    rule: str = ""
    """Its ID in docs/rules.md; empty where no rule of the product decides."""
    explanation: str
    """A sentence."""
    node: int = -1
    """The node that reported the evidence; -1: several, or none."""
    age_ms: int | None = None
    """Time since that node has reported it."""
    evidence: dict[str, Any] = {}
    next: str = ""
    """What has to happen, for a no."""
    fix: str = ""
    """The command that makes it happen; empty where none does."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What some nodes take for true, where nodes disagree."""

    nodes: list[int]
    metadata_offset: int
    states: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    subject: str
    """Such as `partition flights-0`."""
    state: str
    since_ms: int | None
    """Wall clock; None where no event of it is left."""
    summary: str
    cause: str
    """The cause of the first decider that answers no; empty when all is as it should be."""
    next: str
    fix: list[str]
    deciders: list[Decider]
    views: list[View]
    """Both, or all, views where nodes disagree; otherwise empty."""
    node_id: int
    """The node that asked the others."""
    at_ms: int
    unreached: dict[int, str]
    """Nodes that did not answer it -> why: evidence of theirs is missing."""
    events: list[dict[str, Any]] = []
    """The newest events of the subject, oldest first."""
    forgotten: bool = False
    """Nodes have forgotten older events."""


def first_no(deciders: Iterable[Decider]) -> Decider | None:
    return next((each for each in deciders if each.decision == "no"), None)


def fixes(deciders: Iterable[Decider]) -> list[str]:
    """The commands of all deciders that say no, in their order."""
    return list(dict.fromkeys(each.fix for each in deciders if each.decision == "no" and each.fix))


def with_age(decider: Decider, ages_ms: Mapping[int, int]) -> Decider:
    """The decider with the time since its node has answered."""
    age_ms = ages_ms.get(decider.node)
    return decider if age_ms is None else msgspec.structs.replace(decider, age_ms=age_ms)


def spoken(ids: Iterable[object]) -> str:
    """`1`, `1 and 2`, `1, 2 and 3`; `none`."""
    texts = [str(each) for each in ids]
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1]))) if texts else "none"


def seconds(ms: int) -> str:
    """`0.3 s`, `12 s`, `5 min`."""
    if ms < 10_000:
        return f"{ms / 1_000:.1f} s"
    return f"{ms // 1_000} s" if ms < 120_000 else f"{ms // 60_000} min"


def views_of(states: Mapping[int, tuple[int, str]]) -> list[View]:
    """Views from node -> (its metadata offset, what it takes for true); empty while all agree."""
    by_text: dict[str, list[int]] = {}
    for node, (_, text) in sorted(states.items()):
        by_text.setdefault(text, []).append(node)
    if len(by_text) < 2:
        return []
    return [
        View(nodes=nodes, metadata_offset=max(states[node][0] for node in nodes), states=text)
        for text, nodes in sorted(by_text.items(), key=lambda item: -max(states[node][0] for node in item[1]))
    ]
