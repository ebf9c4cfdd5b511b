"""`report.html`: one file that contains everything, and opens offline in any browser, also on a phone.

Its size does not grow with the number of operations: the curve has a fixed number of buckets, and lists have limits.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Final

from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.evidence import Evidence
from kraft.chaos.history import History
from kraft.chaos.report.curve import Curve, curve
from kraft.chaos.report.node_timelines import NodeTimeline, node_timelines
from kraft.chaos.report.tables import banner, cards, events, findings, settings
from kraft.chaos.report.timeline_svg import Scale, axis, curve_svg, faults_svg, node_timelines_svg

REPORT_FILE: Final = "report.html"
VERDICT_FILE: Final = "verdict.json"
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The content of the page of one run."""

    verdict: Verdict
    history: Path
    evidence: Evidence = field(default_factory=Evidence)
    sentence: str = ""
    """What the scenario does."""
    question: str = ""
    """The question of the scenario."""
    command: str = ""
    """The command that repeats the run."""


def write_report(folder: Path, report: Report) -> Path:
    """Writes report.html and verdict.json; returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VERDICT_FILE).write_bytes(report.verdict.to_json())
    page = folder / REPORT_FILE
    page.write_text(render(report), encoding="utf-8")
    return page


def render(report: Report) -> str:
    history = History(report.history)
    scale = _scale(report)
    produces = report.verdict.operations.produces
    writes = curve(history.operations(), from_us=scale.from_us, until_us=scale.until_us, writes=produces)
    drawn = node_timelines(report.evidence, from_us=scale.from_us, until_us=scale.until_us)
    verdict = report.verdict
    sections = [
        _heading(report, scale),
        banner(verdict),
        cards(verdict.counts),
        _section("The fate of the records", findings(verdict, scale)),
        _section("Over time", _timeline(report, drawn, writes, scale)),
        _section("Repeat it", f"<pre>{escape(report.command)}</pre>") if report.command else "",
        _section("Settings", settings({"seed": verdict.seed, **history.header.settings})),
        _section("Events", events(report.evidence.events, scale)),
    ]
    return _page(f"{verdict.scenario}: kraft", "".join(sections))


def _scale(report: Report) -> Scale:
    """The time from the first operation or fault to the last; earlier events, of starting nodes, are not drawn."""
    operations, faults = report.verdict.operations, report.evidence.faults
    begins = [operations.first_us] if operations.last_us else []
    begins += [fault.at_us for fault in faults]
    begins = begins or [event.at_us for event in report.evidence.events[:1]] or [0]
    ends = [operations.last_us, *(fault.until_us or fault.at_us for fault in faults)]
    ends += [event.at_us for event in report.evidence.events[-1:]]
    return Scale(min(begins), max(*ends, min(begins) + 1))


def _heading(report: Report, scale: Scale) -> str:
    verdict, seen = report.verdict, report.verdict.operations
    lines = [f"<h1>{escape(verdict.scenario)}</h1>"]
    lines += [f"<p>{escape(text)}</p>" for text in (report.sentence, report.question) if text]
    seconds = (scale.until_us - scale.from_us) / 1e6
    lines.append(
        f'<p class="quiet">{seconds:.1f} s · {seen.produces:,} writes and {seen.reads:,} reads · {seen.ok:,} ok, '
        f"{seen.fail:,} refused, {seen.info:,} unknown · seed {verdict.seed}</p>"
    )
    return "".join(lines)


def _timeline(report: Report, drawn: list[NodeTimeline], writes: Curve, scale: Scale) -> str:
    parts = []
    if drawn:
        parts += ["<h3>Nodes</h3>", _legend(_NODE_LEGEND), node_timelines_svg(drawn, scale), axis(scale)]
    if report.evidence.faults:
        parts += ["<h3>Faults</h3>", _legend(_FAULT_LEGEND), faults_svg(report.evidence.faults, scale), axis(scale)]
    parts += ["<h3>Writes</h3>", _legend(_CURVE_LEGEND), curve_svg(writes, scale), axis(scale), _gap_note(writes)]
    return "".join(parts)


def _gap_note(writes: Curve) -> str:
    if not writes.highest:
        return '<p class="quiet">No client wrote, so the availability is unknown.</p>'
    rate = f"At most {writes.per_second(writes.highest):,.0f} records/s."
    if not writes.gaps:
        return f'<p class="quiet">{rate} No gap in availability.</p>'
    longest = max(writes.gaps, key=lambda gap: gap.until_us - gap.from_us)
    seconds = (longest.until_us - longest.from_us) / 1e6
    gaps = "One gap" if len(writes.gaps) == 1 else f"{len(writes.gaps)} gaps"
    return f'<p class="quiet">{rate} {gaps} in availability; the longest took {seconds:.2f} s.</p>'


_NODE_LEGEND: Final = (
    ("s-leader", "leader (e: epoch)"),
    ("s-isr", "follower, in the ISR"),
    ("s-out", "outside of the ISR"),
    ("s-alive", "process runs"),
    ("s-fenced", "fenced"),
    ("s-paused", "paused"),
    ("s-dead", "dead"),
)
_FAULT_LEGEND: Final = (("f-node", "of a node or a setting"), ("f-link", "of links"))
_CURVE_LEGEND: Final = (("c-ok", "acknowledged"), ("c-info", "unknown"), ("c-fail", "refused"), ("gap", "unavailable"))


def _legend(entries: tuple[tuple[str, str], ...]) -> str:
    chips = "".join(
        f'<span><svg aria-hidden="true"><rect width="14" height="12" class="{name}"/></svg>{text}</span>'
        for name, text in entries
    )
    return f'<div class="legend">{chips}</div>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def content_policy() -> str:
    """The Content-Security-Policy under which a server may show a report: its own script and style, and nothing else
    (CSP 3, section 2.3.1)."""
    style, script = (f"'sha256-{b64encode(sha256(part.encode()).digest()).decode()}'" for part in _own_parts())
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _own_parts() -> tuple[str, str]:
    """Style and script."""
    return (_HERE / "page.css").read_text("utf-8"), (_HERE / "page.js").read_text("utf-8")


def _page(title: str, body: str) -> str:
    style, script = _own_parts()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>{body}</main>"
        f'<div id="tip" role="tooltip" hidden></div><script>{script}</script></body></html>\n'
    )
