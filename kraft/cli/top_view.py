"""What `kraft top` shows, as lines of text: pure, from the answers of `/kraft/changes` and of the groups.

A line is a style and a text that is cut to the width. What is bad is marked by a letter or a word too, never by colour
alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

PLAIN, BAD, HEAD, DIM, CHOSEN = "", "bold red", "bold", "dim", "reverse"
STANDINGS: Final = ("OFFLINE", "MIN ISR", "BEHIND", "moving", "ok")
"""The standing of a partition, the worst first, as `/kraft/changes` numbers them."""
KEYS: Final = "up/down enter: a partition  g groups  u queues  c cluster  x end"
NODE_KEYS: Final = "K kill a node  P pause one  R bring one back  H heal all"
LINK_KEYS: Final = "K kill a node  P pause one  R bring one back  C cut a link  H heal all"
NAME: Final = 30
"""Columns of a partition's name."""


class Line(NamedTuple):
    style: str
    text: str


class Partition(NamedTuple):
    name: str
    leader: int
    epoch: int
    replicas: Sequence[int]
    isr: Sequence[int]
    standing: int
    min_isr: int


def partitions_of(state: Mapping[str, Any]) -> list[Partition]:
    """The worst first, then by name."""
    found = [Partition(key[2:], *row) for key, row in state.items() if key.startswith("p/")]
    return sorted(found, key=lambda each: (each.standing, *_place(each.name)))


def shown_partitions(state: Mapping[str, Any]) -> list[Partition]:
    """All but those of internal topics that are well."""
    well = len(STANDINGS) - 1
    return [each for each in partitions_of(state) if each.standing < well or not each.name.startswith("__")]


def replicas_of(state: Mapping[str, Any], name: str) -> dict[int, list[Any]]:
    """Node -> role, leader epoch, log start, last stable offset, high watermark, log end, bytes."""
    prefix = f"r/{name}/"
    return {int(key[len(prefix) :]): row for key, row in sorted(state.items()) if key.startswith(prefix)}


def cluster_lines(state: Mapping[str, Any], *, chosen: int, width: int, height: int) -> list[Line]:
    """Nodes, totals and the partitions around the chosen one."""
    cluster, totals = state.get("cluster", {}), state.get("totals", {})
    leader = cluster.get("controller", -1)
    title = f"quorum leader {leader if leader >= 0 else 'NONE'}, epoch {cluster.get('epoch', '?')}, "
    title += f"metadata offset {cluster.get('offset', '?')}, as node {cluster.get('node', '?')} sees it"
    lines = [Line(BAD if leader < 0 else HEAD, title)]
    lines += _node_lines(state, width=width, height=height // 2)
    lines.append(Line(HEAD, _totals(totals)))
    lines.append(Line(HEAD, f"{'':<8} {'partition':<{NAME}}{'leader':>6}{'epoch':>6} {'ISR':<12}{'replicas':<12}"))
    partitions, known = shown_partitions(state), len(partitions_of(state))
    last = [f"{known - len(partitions)} internal ones are ok"] if known > len(partitions) else []
    if (matched := totals.get("matched", 0)) > known:
        last.append(f"the worst {known} of {matched}")
    room = max(1, height - len(lines) - bool(last))
    if len(partitions) > room:
        room = max(1, height - len(lines) - 1)
    first = max(0, min(chosen - room // 2, len(partitions) - room))
    for place, each in enumerate(partitions[first : first + room], first):
        lines.append(_partition(each, is_chosen=place == chosen))
    if len(partitions) > room:
        last.insert(0, f"{first + 1} to {first + room} of {len(partitions)} partitions")
    return [*lines, Line(DIM, "; ".join(last))] if last else lines


def _node_lines(state: Mapping[str, Any], *, width: int, height: int) -> list[Line]:
    """The nodes; the bad ones first if not all have room."""
    lines = [Line(HEAD, f"{'node':<5}{'state':<22}{'leads':>6} {'roles':<18}rest")]
    leads = state.get("totals", {}).get("leaders", {})
    nodes = sorted((int(key[5:]), row) for key, row in state.items() if key.startswith("node/"))
    room = max(1, height - 2)
    if len(nodes) > room:
        nodes.sort(key=lambda each: (not _is_bad(each[1]), each[0]))
    for number, node in nodes[:room]:
        shown = node["state"] if node["answers"] else f"{node['state']}, silent"
        led = leads.get(str(number), leads.get(number, 0))
        text = f"{number:<5}{shown:<22}{led:>6} {'+'.join(node['roles']):<18}"
        text += shortened(node["rest"], max(width - len(text), 10))
        lines.append(Line(BAD if _is_bad(node) else PLAIN, text))
        if node.get("awaits"):
            lines += [Line(BAD, f"      {each}") for each in wrapped(f"waits: {node['awaits']}", width - 6)]
    if left_out := nodes[room:]:
        bad = sum(_is_bad(node) for _, node in left_out)
        lines.append(Line(BAD if bad else DIM, f"      {len(left_out)} more nodes, {bad} of them bad"))
    return lines


def _is_bad(node: Mapping[str, Any]) -> bool:
    return not node["answers"] or bool(node.get("awaits")) or node["state"] in ("down", "fenced")


def partition_lines(state: Mapping[str, Any], name: str, why: Mapping[str, Any] | None, *, width: int) -> list[Line]:
    """One partition: every replica's offsets on one axis, and the first reasons of its explanation."""
    found = next((each for each in partitions_of(state) if each.name == name), None)
    if found is None:
        return [Line(BAD, f"{shortened(name, width - 34)}: no node that answers knows it")]
    leads = f"leader {_node(found.leader)}, epoch {found.epoch}, ISR {_ids(found.isr)} of {_ids(found.replicas)}, "
    leads += f"min.insync.replicas {found.min_isr}"
    head = f"{shortened(name, width - 10)}: {STANDINGS[found.standing]}"
    lines = [
        Line(BAD if found.standing < len(STANDINGS) - 1 else HEAD, head),
        *(Line(PLAIN, each) for each in wrapped(leads, width)),
        Line(HEAD, f"{'node':<5}{'role':<10}{'start':>12}{'stable':>12}{'high wm':>12}{'end':>12}"),
    ]  # fmt: skip
    replicas, asks = replicas_of(state, name), state.get("cluster", {}).get("node", -1)
    asked = f" node {asks}" if asks >= 0 else ""
    for node in found.replicas:
        row = replicas.get(node)
        mark = "" if node in found.isr else "  not in the ISR"
        if row is None:
            lines.append(Line(BAD, f"{node:<5}does not answer{asked}{mark}"))
            continue
        text = f"{node:<5}{row[0]:<10}{row[2]:>12}{row[3]:>12}{row[4]:>12}{row[5]:>12}{mark}"
        lines.append(Line(BAD if mark else PLAIN, text))
    lines += _bars(replicas, width=width)
    others = state.get(f"v/{name}", {})
    lines += [Line(BAD, f"node {node} has another view: leader {_node(row[0])}, epoch {row[1]}, ISR {_ids(row[3])}")
              for node, row in others.items()]  # fmt: skip
    if why is not None:
        said = wrapped(why["summary"], width)
        said += [f"  {each}" for command in why["fix"] for each in wrapped(command, width - 2)]
        lines += [Line(PLAIN, ""), Line(HEAD, f"why: {why['state']}"), *(Line(PLAIN, each) for each in said)]
    return lines


def group_lines(rows: Sequence[Mapping[str, Any]] | None, *, what: str, height: int) -> list[Line]:
    """Groups or queues, those that are furthest behind first. None: nobody has answered."""
    if not rows:
        return [Line(DIM, f"there are no {what}" if rows is not None else f"{what}: not known yet")]
    lines = [Line(HEAD, f"{what[:-1]:<36}{'state':<22}{'members':>8}{'lag':>12}")]
    for row in sorted(rows, key=lambda each: (-(each["lag"] or 0), each["name"])):
        members, lag = ("?" if row[each] is None else str(row[each]) for each in ("members", "lag"))
        is_bad = row["members"] is None or (bool(row["lag"]) and not row["members"])
        text = f"{shortened(row['name'], 35):<36}{row['state']:<22}{members:>8}{lag:>12}"
        lines.append(Line(BAD if is_bad else PLAIN, text))
    if len(lines) > max(height, 2):
        left_out = len(lines) - max(height, 2) + 1
        return [*lines[:-left_out], Line(DIM, f"{left_out} more {what}, which are less far behind")]
    return lines


def cut(lines: Iterable[Line], *, width: int, height: int) -> list[Line]:
    """No line is wider, and there are no more of them."""
    return [Line(style, text[:width]) for style, text in list(lines)[:height]]


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of this width; a word that is longer is cut into parts."""
    return textwrap.wrap(text, max(width, 10), break_on_hyphens=False)


def shortened(name: str, width: int) -> str:
    """A name that is too long without its middle: the end is what differs between partitions."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 2]}..{name[-end:]}"


def _partition(each: Partition, *, is_chosen: bool) -> Line:
    text = f"{STANDINGS[each.standing]:<8} {shortened(each.name, NAME - 1):<{NAME}}"
    text += f"{_node(each.leader):>6}{each.epoch:>6} "
    text += f"{_ids(each.isr):<12}{_ids(each.replicas):<12}"
    return Line(CHOSEN if is_chosen else BAD if each.standing < 3 else PLAIN, text)


def _totals(totals: Mapping[str, Any]) -> str:
    if not totals:
        return "no node that answers knows the partitions"
    return (
        f"{totals['topics']} topics, {totals['partitions']} partitions: {totals['offline']} offline, "
        f"{totals['under_min_isr']} under min ISR, {totals['under_replicated']} behind"
    )


def _bars(replicas: Mapping[int, Sequence[Any]], *, width: int) -> list[Line]:
    """`=` is committed, `-` is not yet, on one axis from the lowest start to the highest end."""
    known = {node: row for node, row in replicas.items() if row[5] >= 0}
    low = min((row[2] for row in known.values()), default=0)
    high = max((row[5] for row in known.values()), default=0)
    room = max(10, width - 8)
    if high <= low:
        return []

    def place(offset: int) -> int:
        return (offset - low) * room // (high - low)

    bars = [Line(DIM, f"     {low} to {high}: = committed, - not yet")]
    for node, row in known.items():
        start, watermark, end = place(row[2]), place(max(row[4], row[2])), place(row[5])
        bars.append(Line(PLAIN, f"{node:<4}[{' ' * start}{'=' * (watermark - start)}{'-' * max(0, end - watermark)}"))
    return bars


def _place(name: str) -> tuple[bool, str, int]:
    topic, _, number = name.rpartition("-")
    return topic.startswith("__"), topic, int(number)


def _node(node: int) -> str:
    return "NONE" if node < 0 else str(node)


def _ids(nodes: Sequence[int]) -> str:
    return ",".join(map(str, nodes)) or "none"
