"""The links of a cluster, and the selection of links for a fault: by source, target and purpose, or by groups. Pure.

A link is directed: from the side that connects to the side that accepts. Each link has its own proxy, so each can be
broken alone. In the quorum the voter with the higher id connects; the other one only checks whether a port refuses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from kraft.chaos.worlds.processes.proxy.rules import Kind
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError

Purpose: TypeAlias = Literal["quorum", "controller", "fetch", "forward", "rest", "kafka"]
End: TypeAlias = int | str
"""A node's id, or the name of a client."""
Ends: TypeAlias = End | Collection[End] | None
"""None: all."""
Purposes: TypeAlias = Purpose | Collection[Purpose] | Literal["all"]

BETWEEN_NODES: Final[tuple[Purpose, ...]] = ("quorum", "controller", "fetch", "forward")
OF_CLIENTS: Final[tuple[Purpose, ...]] = ("rest", "kafka")
"""The purposes of links of clients, by protocol. In a story `rest` means the links of its clients, in any protocol."""
ALL_PURPOSES: Final[tuple[Purpose, ...]] = (*BETWEEN_NODES, *OF_CLIENTS)
OUTSIDE: Final = "clients"
"""The source of links for clients outside of the run: each node advertises its own link to them."""


@dataclass(frozen=True, slots=True)
class LinkId:
    dials: End
    answers: int
    purpose: Purpose

    def __str__(self) -> str:
        return f"{self.dials}->{self.answers} {self.purpose}"

    @property
    def kind(self) -> Kind:
        match self.purpose:
            case "kafka":
                return "clients"
            case "rest":
                return "http"
            case "quorum":
                return "quorum"
            case _:
                return "kafka"


def links_between_nodes(spec: ClusterSpec) -> Iterator[LinkId]:
    """The links that nodes with these roles use."""
    for dials in spec.nodes:
        for answers in spec.nodes:
            if dials != answers:
                yield from (LinkId(dials, answers, purpose) for purpose in _purposes(spec, dials, answers))


def _purposes(spec: ClusterSpec, dials: int, answers: int) -> Iterator[Purpose]:
    brokers, voters = spec.brokers, spec.voters
    if dials in voters and answers in voters:
        yield "quorum"
    if dials in voters or answers in voters:
        yield "controller"  # requests to the controller, and the controller's questions to brokers
    if dials in brokers and (answers in brokers or dials not in voters):
        yield "fetch"  # of partitions, and of metadata by brokers that are no voters
    if answers in brokers:
        yield "forward"


def purposes_of(purposes: Purposes) -> tuple[Purpose, ...]:
    """The purposes; `all` means all purposes between nodes."""
    if purposes == "all":
        return BETWEEN_NODES
    found: tuple[Purpose, ...] = (cast(Purpose, purposes),) if isinstance(purposes, str) else tuple(purposes)
    for purpose in found:
        if purpose not in ALL_PURPOSES:
            raise ScenarioError(f"there are no links for {purpose!r}; there are {', '.join(ALL_PURPOSES)}")
    return (*[purpose for purpose in found if purpose not in OF_CLIENTS], *OF_CLIENTS) if "rest" in found else found


def select(
    links: Iterable[LinkId], *, dials: Ends = None, answers: Ends = None, purpose: Purposes = "all"
) -> list[LinkId]:
    """Raises ScenarioError if no link is selected: the fault would have no effect."""
    purposes, from_ends, to_ends = purposes_of(purpose), _ends(dials), _ends(answers)
    found = [
        link
        for link in links
        if link.purpose in purposes
        and (from_ends is None or link.dials in from_ends)
        and (to_ends is None or link.answers in to_ends)
    ]
    if not found:
        raise ScenarioError(f"no link goes from {dials or 'anybody'} to {answers or 'any node'} for {purpose}")
    return found


def _ends(ends: Ends) -> Collection[End] | None:
    return [ends] if isinstance(ends, int | str) else ends


Groups: TypeAlias = Sequence[Collection[End]]


def parse_groups(text: str) -> list[list[End]]:
    """The groups of `[1] | [2, 3]`; a group may contain clients."""
    groups = []
    for part in text.split("|"):
        match = re.fullmatch(r"\s*\[([\w\s,.-]*)\]\s*", part)
        if match is None:
            raise ScenarioError(f"{text!r} is no partition; write groups of nodes, such as [1] | [2, 3]")
        names = [name.strip() for name in match[1].split(",") if name.strip()]
        groups.append([int(name) if name.isdecimal() else name for name in names])
    return groups


def split(
    links: Iterable[LinkId], groups: Groups, *, nodes: Collection[int], purpose: Purposes = "all"
) -> list[LinkId]:
    """The links between ends that share no group; a node in two groups sees both sides. Raises ScenarioError."""
    named = {end for group in groups for end in group}
    missing = [node for node in nodes if node not in named]
    if missing:
        raise ScenarioError(f"nodes {missing} are in no group: say on which side they are")
    unknown = [end for end in named if isinstance(end, int) and end not in nodes]
    if unknown:
        raise ScenarioError(f"there are no nodes {unknown}; the nodes are {sorted(nodes)}")
    purposes = {*purposes_of(purpose), *OF_CLIENTS}
    return [
        link
        for link in links
        if link.purpose in purposes
        and link.dials in named
        and not any(link.dials in group and link.answers in group for group in groups)
    ]
