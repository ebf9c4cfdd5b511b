"""Timelines as SVG, as wide as the page: x positions are percentages, heights and letters are pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from kraft.chaos.evidence import Fault
from kraft.chaos.report.curve import Curve, Gap
from kraft.chaos.report.node_timelines import NodeTimeline, Row, State

ROW_PX: Final = 15
STRIP_PX: Final = 7
TITLE_PX: Final = 18
ROW_NAME_PX: Final = 13
LANE_GAP_PX: Final = 8
FAULT_PX: Final = 31
BAR_PX: Final = 14
FAULT_CHARACTERS_MAX: Final = 46
CURVE_PX: Final = 150
FAULT_ROWS_MAX: Final = 24
FAULTS_MAX: Final = 400
"""The most faults that are drawn; others are in the list of events only."""
LABEL_PERCENT_MIN: Final = 6.0
"""The least width of a segment with a label, for the screen of a phone."""
TICKS: Final = 5

WORDS: Final = {
    State.LEADER: "leader",
    State.IN_ISR: "follower, in the ISR",
    State.FOLLOWER: "replica outside of the ISR",
    State.ALIVE: "running",
    State.FENCED: "fenced",
    State.DEAD: "dead",
    State.PAUSED: "paused",
}


@dataclass(frozen=True, slots=True)
class Scale:
    from_us: int
    until_us: int

    def percent(self, at_us: int) -> float:
        share = (at_us - self.from_us) / max(self.until_us - self.from_us, 1)
        return round(min(max(share, 0.0), 1.0) * 100, 3)

    def seconds(self, at_us: int) -> str:
        return f"{(at_us - self.from_us) / 1e6:.2f} s"

    def span(self, from_us: int, until_us: int) -> str:
        return f"{self.seconds(from_us)} to {self.seconds(until_us)}"

    def width(self, from_us: int, until_us: int) -> float:
        return max(round(self.percent(until_us) - self.percent(from_us), 3), 0.0)


def axis(scale: Scale) -> str:
    """The axis with the seconds of the run."""
    total = (scale.until_us - scale.from_us) / 1e6
    digits = 0 if total >= 100 else 1
    labels = []
    for tick in range(TICKS + 1):
        anchor = "start" if tick == 0 else "end" if tick == TICKS else "middle"
        second = total * tick / TICKS
        labels.append(
            f'<text x="{100 * tick / TICKS:g}%" y="13" text-anchor="{anchor}" class="tick">{second:.{digits}f} s</text>'
        )
    return f'<svg class="axis" width="100%" height="18" aria-hidden="true">{"".join(labels)}</svg>'


def grid(height: int) -> str:
    lines = (f'<line x1="{x}%" x2="{x}%" y1="0" y2="{height}" class="grid"/>' for x in range(0, 101, 100 // TICKS))
    return "".join(lines)


# --- lanes


def node_timelines_svg(node_timelines: Sequence[NodeTimeline], scale: Scale) -> str:
    parts, y = [], 0
    for timeline in node_timelines:
        is_single = len(timeline.partitions) == 1
        only = f'<tspan dx="8" class="row">{escape(timeline.partitions[0].name)}</tspan>' if is_single else ""
        parts.append(f'<text x="0" y="{y + 13}" class="name">node {timeline.node}{only}</text>')
        y += TITLE_PX
        for row in timeline.partitions:
            if not is_single:
                parts.append(f'<text x="0" y="{y + 9}" class="row">{escape(row.name)}</text>')
                y += ROW_NAME_PX
            parts.append(_row(row, timeline.node, y, ROW_PX, scale))
            y += ROW_PX + 2
        parts.append(_row(timeline.process, timeline.node, y, STRIP_PX, scale))
        y += STRIP_PX + LANE_GAP_PX
    height = max(y, 1)
    return (
        f'<svg width="100%" height="{height}" role="img" aria-label="The roles of each node over time">'
        f"{_PATTERNS}{grid(height)}{''.join(parts)}</svg>"
    )


def _row(row: Row, node: int, y: int, height: int, scale: Scale) -> str:
    drawn = []
    for segment in row.segments:
        x, width = scale.percent(segment.from_us), scale.width(segment.from_us, segment.until_us)
        what = WORDS[segment.state] + (f" in epoch {segment.epoch}" if segment.epoch >= 0 else "")
        name = f"node {node}{', ' + row.name if row.name else ''}: {what}"
        tip = escape(f"{name}, {scale.span(segment.from_us, segment.until_us)}", quote=True)
        drawn.append(
            f'<rect x="{x}%" y="{y}" width="{max(width, 0.15)}%" height="{height}" '
            f'class="s-{segment.state}" data-t="{tip}"/>'
        )
        if segment.state is State.LEADER and width >= LABEL_PERCENT_MIN:
            drawn.append(_label(f"e{segment.epoch}", x, y, width, height))
    return "".join(drawn)


def _label(text: str, x: float, y: int, width: float, height: int) -> str:
    return (
        f'<svg x="{x}%" y="{y}" width="{width}%" height="{height}">'
        f'<text x="4" y="{height - 4}" class="in">{escape(text)}</text></svg>'
    )


_PATTERNS: Final = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" class="p-back"/><rect width="2.5" height="6" class="p-dead"/></pattern>'
    '<pattern id="stripe" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect width="6" height="6" class="p-back"/><rect width="2.5" height="6" class="p-paused"/></pattern></defs>'
)


# --- faults


def faults_svg(faults: Sequence[Fault], scale: Scale) -> str:
    """A line with text for each fault; if there are many, bars, with the text in the tooltip only."""
    ordered = sorted(faults, key=lambda each: each.at_us)[:FAULTS_MAX]
    if len(ordered) <= FAULT_ROWS_MAX:
        parts = [_labelled_fault(fault, number * FAULT_PX, scale) for number, fault in enumerate(ordered)]
        height = max(len(ordered), 1) * FAULT_PX
    else:
        parts, rows = _packed(ordered, scale)
        height = rows * BAR_PX
    return (
        f'<svg width="100%" height="{height}" role="img" aria-label="Faults over time">'
        f"{grid(height)}{''.join(parts)}</svg>"
    )


def _labelled_fault(fault: Fault, y: int, scale: Scale) -> str:
    """A fault with its text, which begins at the left edge, where every screen has room."""
    text = f'<tspan class="tick">{scale.seconds(fault.at_us)}</tspan><tspan dx="6">{escape(_short(fault.text))}</tspan>'
    return f'<text x="0" y="{y + 12}" class="fault">{text}</text>{_bar(fault, y + 15, scale)}'


def _packed(faults: Sequence[Fault], scale: Scale) -> tuple[list[str], int]:
    rows: list[int] = []
    parts = []
    for fault in faults:
        at = _free_row(rows, fault.at_us)
        rows[at] = max(_until(fault), fault.at_us + (scale.until_us - scale.from_us) // 50)
        parts.append(_bar(fault, at * BAR_PX, scale))
    return parts, len(rows)


def _free_row(rows: list[int], at_us: int) -> int:
    for number, busy_until_us in enumerate(rows):
        if busy_until_us <= at_us:
            return number
    if len(rows) < FAULT_ROWS_MAX:
        rows.append(0)
        return len(rows) - 1
    return min(range(len(rows)), key=rows.__getitem__)


def _bar(fault: Fault, y: int, scale: Scale) -> str:
    until_us = _until(fault)
    x, width = scale.percent(fault.at_us), scale.width(fault.at_us, until_us)
    kind = "link" if fault.links else "node"
    when = scale.seconds(fault.at_us) if until_us == fault.at_us else scale.span(fault.at_us, until_us)
    links = f" [{', '.join(fault.links)}]" if fault.links else ""
    tip = escape(f"{fault.text}{links}, {when}", quote=True)
    bar = f'<rect x="{x}%" y="{y}" width="{width}%" height="10" rx="2" class="f-{kind}" data-t="{tip}"/>'
    return (bar if width else "") + f'<circle cx="{x}%" cy="{y + 5}" r="5" class="f-{kind}" data-t="{tip}"/>'


def _until(fault: Fault) -> int:
    return fault.at_us if fault.until_us is None else fault.until_us


def _short(text: str) -> str:
    return text if len(text) <= FAULT_CHARACTERS_MAX else text[: FAULT_CHARACTERS_MAX - 1] + "…"


# --- the rate of writes


def curve_svg(curve: Curve, scale: Scale) -> str:
    highest = curve.highest or 1
    layers = []
    below = [0.0] * curve.buckets
    for name, counts in (("ok", curve.ok), ("info", curve.info), ("fail", curve.fail)):
        above = [low + count / highest * 100 for low, count in zip(below, counts, strict=True)]
        if any(counts):
            layers.append(f'<path d="{_steps(below, above)}" class="c-{name}"/>')
        below = above
    gaps = "".join(
        f'<rect x="{scale.percent(gap.from_us)}%" y="0" width="{scale.width(gap.from_us, gap.until_us)}%" '
        f'height="{CURVE_PX}" class="gap" data-t="{_gap_text(gap, scale)}"/>'
        for gap in curve.gaps
    )
    return (
        f'<svg width="100%" height="{CURVE_PX}" role="img" aria-label="Records written per second over time">'
        f"{grid(CURVE_PX)}{gaps}"
        f'<svg viewBox="0 0 {curve.buckets} 100" preserveAspectRatio="none" width="100%" height="{CURVE_PX}">'
        f"{''.join(layers)}</svg></svg>"
    )


def _steps(below: Sequence[float], above: Sequence[float]) -> str:
    """The area between two step curves; y points down."""
    there = "".join(f"L{at} {100 - y:.2f}H{at + 1}" for at, y in enumerate(above))
    back = "".join(f"L{at + 1} {100 - y:.2f}H{at}" for at, y in reversed(list(enumerate(below))))
    return f"M0 {100 - below[0]:.2f}{there}{back}Z"


def _gap_text(gap: Gap, scale: Scale) -> str:
    length = (gap.until_us - gap.from_us) / 1e6
    span = scale.span(gap.from_us, gap.until_us)
    return escape(f"{gap.topic}-{gap.partition}: no write acknowledged for {length:.2f} s, {span}", quote=True)
