"""What `kraft top` shows, as lines of text: pure, from the answers of `/kraft/changes` and of the groups.

A line is a style and a text that is cut to the width. What is bad is marked by a letter or a word too, never by colour
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

PLAIN, BAD, HEAD, DIM, CHOSEN = "", "bold red", "bold", "dim", "reverse"
STANDINGS: Final = ("OFFLINE", "MIN ISR", "BEHIND", "moving", "ok")
"""The standing of a partition, the worst first, as `/kraft/changes` numbers them."""
KEYS: Final = "up/down enter: a partition  g groups  u queues  c cluster  x end"
FAULT_KEYS: Final = "K kill  P pause  R bring back  C cut  H heal"


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


def cluster_lines(state: Mapping[str, Any], *, chosen: int, height: int) -> list[Line]:
    """Nodes, totals and the partitions around the chosen one."""
    cluster, totals = state.get("cluster", {}), state.get("totals", {})
    leader = cluster.get("controller", -1)
    title = f"quorum leader {leader if leader >= 0 else 'NONE'}, epoch {cluster.get('epoch', '?')}, "
    lines = [Line(BAD if leader < 0 else HEAD, title + f"metadata offset {cluster.get('offset', '?')}")]
    lines.append(Line(HEAD, f"{'node':<6}{'state':<16}{'leads':>6} {'roles':<18}rest"))
    leads = totals.get("leaders", {})
    for key in sorted((key for key in state if key.startswith("node/")), key=lambda key: int(key[5:])):
        node, number = state[key], int(key[5:])
        shown = node["state"] if node["answers"] else f"{node['state']}, silent"
        is_bad = not node["answers"] or bool(node.get("awaits")) or node["state"] in ("down", "fenced")
        led = leads.get(str(number), leads.get(number, 0))
        text = f"{number:<6}{shown:<16}{led:>6} {'+'.join(node['roles']):<18}{node['rest']}"
        lines.append(Line(BAD if is_bad else PLAIN, text))
        if node.get("awaits"):
            lines.append(Line(BAD, f"      waits: {node['awaits']}"))
    lines.append(Line(HEAD, _totals(totals)))
    lines.append(Line(HEAD, f"{'':<8} {'partition':<30}{'leader':>6}{'epoch':>6} {'ISR':<12}{'replicas':<12}"))
    partitions = shown_partitions(state)
    hidden = len(partitions_of(state)) - len(partitions)
    room = max(1, height - len(lines) - bool(hidden))
    first = max(0, min(chosen - room // 2, len(partitions) - room))
    for place, each in enumerate(partitions[first : first + room], first):
        lines.append(_partition(each, is_chosen=place == chosen))
    if hidden:
        lines.append(Line(DIM, f"ok       {hidden} partitions of internal topics"))
    return lines


def partition_lines(state: Mapping[str, Any], name: str, why: Mapping[str, Any] | None, *, width: int) -> list[Line]:
    """One partition: every replica's offsets on one axis, and the first reasons of its explanation."""
    found = next((each for each in partitions_of(state) if each.name == name), None)
    if found is None:
        return [Line(BAD, f"{name}: no node that answers knows it")]
    lines = [
        Line(BAD if found.standing < len(STANDINGS) - 1 else HEAD, f"{name}: {STANDINGS[found.standing]}"),
        Line(PLAIN, f"leader {_node(found.leader)}, epoch {found.epoch}, ISR {_ids(found.isr)} of "
                    f"{_ids(found.replicas)}, min.insync.replicas {found.min_isr}"),
        Line(HEAD, f"{'node':<5}{'role':<10}{'start':>9}{'stable':>9}{'high wm':>9}{'end':>9}"),
    ]  # fmt: skip
    replicas = replicas_of(state, name)
    for node in found.replicas:
        row = replicas.get(node)
        mark = "" if node in found.isr else "  not in the ISR"
        if row is None:
            lines.append(Line(BAD, f"{node:<5}does not answer{mark}"))
            continue
        text = f"{node:<5}{row[0]:<10}{row[2]:>9}{row[3]:>9}{row[4]:>9}{row[5]:>9}{mark}"
        lines.append(Line(BAD if mark else PLAIN, text))
    lines += _bars(replicas, width=width)
    others = state.get(f"v/{name}", {})
    lines += [Line(BAD, f"node {node} has another view: leader {_node(row[0])}, epoch {row[1]}, ISR {_ids(row[3])}")
              for node, row in others.items()]  # fmt: skip
    if why is not None:
        lines += [Line(PLAIN, ""), Line(HEAD, f"why: {why['state']}"), *_wrapped(why["summary"], width)]
        lines += [Line(PLAIN, f"  {command}") for command in why["fix"]]
    return lines


def group_lines(rows: Sequence[Mapping[str, Any]], *, what: str) -> list[Line]:
    """Groups or queues, those that are furthest behind first."""
    if not rows:
        return [Line(DIM, f"there are no {what}")]
    lines = [Line(HEAD, f"{what[:-1]:<36}{'state':<22}{'members':>8}{'lag':>12}")]
    for row in sorted(rows, key=lambda each: (-(each["lag"] or 0), each["name"])):
        lag = "?" if row["lag"] is None else str(row["lag"])
        is_bad = bool(row["lag"]) and not row["members"]
        lines.append(
            Line(BAD if is_bad else PLAIN, f"{row['name']:<36.35}{row['state']:<22}{row['members']:>8}{lag:>12}")
        )
    return lines


def cut(lines: Iterable[Line], *, width: int, height: int) -> list[Line]:
    """No line is wider, and there are no more of them."""
    return [Line(style, text[:width]) for style, text in list(lines)[:height]]


def _partition(each: Partition, *, is_chosen: bool) -> Line:
    text = f"{STANDINGS[each.standing]:<8} {each.name:<30.29}{_node(each.leader):>6}{each.epoch:>6} "
    text += f"{_ids(each.isr):<12}{_ids(each.replicas):<12}"
    return Line(CHOSEN if is_chosen else BAD if each.standing < 3 else PLAIN, text)


def _totals(totals: Mapping[str, Any]) -> str:
    if not totals:
        return "no node that answers knows the partitions"
    return (
        f"{totals['topics']} topics, {totals['partitions']} partitions: {totals['offline']} offline, "
        f"{totals['under_min_isr']} under min ISR, {totals['under_replicated']} under-replicated"
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


def _wrapped(text: str, width: int) -> list[Line]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(Line(PLAIN, line))
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, Line(PLAIN, line)] if line else lines


def _place(name: str) -> tuple[bool, str, int]:
    topic, _, number = name.rpartition("-")
    return topic.startswith("__"), topic, int(number)


def _node(node: int) -> str:
    return "NONE" if node < 0 else str(node)


def _ids(nodes: Sequence[int]) -> str:
    return ",".join(map(str, nodes)) or "none"
