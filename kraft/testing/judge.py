"""The outcome of a test's records, and the events meanwhile, for the cluster that runs from a folder.

A program of its own, `python -P -m kraft.testing.judge`: one JSON question in, one JSON answer out. The tested project
may have modules with the same names as ours, and this program needs all of ours.
"""

from __future__ import annotations

import sys
import tempfile
import time
import tomllib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from kraft.chaos.checkers.check import check_history
from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.evidence import Event, Evidence, Fault, LeaderSample, LogRecord, ReadBack, ReplicaLog, read_events
from kraft.chaos.history import Acks, Header, History, HistoryWriter, Produce
from kraft.chaos.report.page import Report, write_report
from kraft.chaos.worlds.processes.logs import RunFiles, replica_logs
from kraft.chaos.worlds.snapshot import NodeView, Snapshot, parse_view, unsettled
from kraft.client.blocking_transport import send
from kraft.client.outcome import Outcome
from kraft.client.response import Answer, Request
from kraft.events import EVENTS_FILE, ROTATED_FILE
from kraft.launcher.processes import is_alive, is_stopped
from kraft.launcher.runfile import ClusterRun, NodeRun, load_run
from kraft.protocol.batches.records import ReadRecord, read_batches
from kraft.protocol.media_types import BINARY_JSON, RECORD_BATCH
from metadata.settings import without_secrets

SETTLE_LIMIT_S: Final = 20.0
READ_LIMIT_S: Final = 30.0
RETRY_S: Final = 0.02
READ_BYTES: Final = 4 * 1024 * 1024
TEST: Final = "test"
"""The one process of the history."""
EVERYTHING: Final = ""


class SentRecord(msgspec.Struct, kw_only=True, frozen=True):
    """A record that a test has sent, and the outcome that its client returned."""

    topic: str
    value: str | None
    """Base64; None: a tombstone."""
    key: str | None = None
    partition: int | None = None
    """None: the client chose, and the test does not know."""
    offset: int | None = None
    outcome: Outcome = "ok"
    acks: Acks = "all"
    at_us: int = 0

    @property
    def identity(self) -> Identity:
        return self.topic, _bytes(self.key), _bytes(self.value)


Identity = tuple[str, bytes | None, bytes | None]


class Question(msgspec.Struct, kw_only=True, frozen=True):
    data: str
    name: str
    """Name of the test."""
    since_us: int
    sent: tuple[SentRecord, ...] = ()
    history: str = ""
    """Path of a history whose producers have ended, in the place of `sent`; its values are those of the records."""
    faults: tuple[Fault, ...] = ()
    report: str = ""
    """Folder for the HTML report; empty: none."""


class Answered(msgspec.Struct, kw_only=True, frozen=True):
    error: str = ""
    verdict: Verdict | None = None
    timeline: tuple[str, ...] = ()
    page: str = ""


class CannotJudge(Exception):
    """The text names what is missing."""


def answer(question: Question, *, samples: Sequence[LeaderSample] = ()) -> Answered:
    """Judge. Blocks for as long as the records take. Raises CannotJudge."""
    run = load_run(question.data)
    if run is None:
        raise CannotJudge(f"no cluster runs from {question.data}")
    given = History(question.history) if question.history else None
    names = _names_of(question.sent) if given is None else _names_in(given)
    readback = _read_back(run, names, reads_committed=given is not None) if names else []
    looked = _look(run)
    header = Header(
        scenario=question.name,
        settings=_settings(run),
        start_us=time.monotonic_ns() // 1_000,
        wall_ms=time.time_ns() // 1_000_000,
    )
    with tempfile.TemporaryDirectory(prefix="kraft-judge-") as folder:
        events = [event for event in _events(run, header, Path(folder)) if event.at_us >= question.since_us]
        faults = [fault for fault in question.faults if (fault.until_us or fault.at_us) >= question.since_us]
        evidence = Evidence(
            readback=[each.for_checker(looked) for each in readback],
            replicas=_replicas(run, readback, names, looked),
            samples=[sample for sample in samples if sample.at_us >= question.since_us],
            events=events,
            faults=faults,
        )
        history = Path(folder) / "history.jsonl"
        if given is None:
            _write_history(history, header, question, readback)
        else:
            _copy_history(given, history, header)
        verdict = check_history(history, evidence)
        report, page = Report(verdict=verdict, history=history, evidence=evidence), ""
        if question.report:
            page = str(write_report(Path(question.report), report))
    return Answered(verdict=verdict, timeline=tuple(timeline(events, faults, since_us=question.since_us)), page=page)


# --- the timeline ---------------------------------------------------------------------------------------------------


def timeline(events: Sequence[Event], faults: Sequence[Fault], *, since_us: int) -> Iterator[str]:
    """One line for each event, with the seconds since the beginning of the test. Pure."""
    entries: list[tuple[int, str]] = [(fault.at_us, fault.text) for fault in faults if fault.at_us >= since_us]
    entries += [
        (fault.until_us, f"over: {fault.text}") for fault in faults if fault.until_us and fault.until_us > fault.at_us
    ]
    seen: set[str] = set()
    for event in events:
        text_of = _TEXTS.get(event.event)
        if text_of is not None and (text := text_of(event)) not in seen:
            seen.add(text)  # every voter reports the quorum's leader
            entries.append((event.at_us, text))
    for at_us, text in sorted(entries):
        yield f"{(at_us - since_us) / 1e6:+9.3f} s  {text}"


def _place(event: Event) -> str:
    return f"{event.fields.get('topic')}-{event.fields.get('partition')}"


def _listed(ids: Any) -> str:
    return ", ".join(map(str, ids or ())) or "empty"


def _led(event: Event) -> str:
    fields = event.fields
    who = f"node {fields['leader']} leads" if fields.get("leader", -1) >= 0 else "no node leads"
    return f"{who} {_place(event)} in epoch {fields.get('leader_epoch')}, ISR {_listed(fields.get('isr'))}"


_TEXTS: Final[Mapping[str, Callable[[Event], str]]] = {
    "leader_elected": _led,
    "isr_changed": lambda event: (
        f"ISR of {_place(event)}: {_listed(event.fields.get('old_isr'))} -> {_listed(event.fields.get('isr'))}"
    ),
    "broker_fenced": lambda event: f"node {event.fields.get('broker')} is fenced ({event.fields.get('reason')})",
    "broker_unfenced": lambda event: f"node {event.fields.get('broker')} takes part",
    "quorum_leadership": lambda event: (
        f"node {event.fields.get('leader')} leads the quorum in term {event.fields.get('term')}"
        if event.fields.get("leader") not in (None, -1)
        else f"the quorum has no leader in term {event.fields.get('term')}"
    ),
    "unclean_election": lambda event: f"unclean election of {_place(event)}: node {event.fields.get('leader')}",
    "truncated": lambda event: f"node {event.node} truncated {_place(event)}",
    "replica_offline": lambda event: f"node {event.node}: {_place(event)} is offline ({event.fields.get('reason')})",
    "topic_created": lambda event: f"topic {event.fields.get('topic')} was created",
    "topic_deleted": lambda event: f"topic {event.fields.get('topic')} was deleted",
    "node_serves": lambda event: f"node {event.node} serves",
}


# --- from the cluster -----------------------------------------------------------------------------------------------


def _configuration(run: ClusterRun) -> dict[str, Any]:
    return tomllib.loads(Path(run.config).read_text(encoding="utf-8"))


def _settings(run: ClusterRun) -> dict[str, Any]:
    return without_secrets(_configuration(run).get("settings", {}))


def _events(run: ClusterRun, header: Header, folder: Path) -> list[Event]:
    lines: list[bytes] = []
    for node in run.nodes:
        for name in (ROTATED_FILE, EVENTS_FILE):
            path = Path(node.data) / name
            if path.exists():
                lines += [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    merged = folder / EVENTS_FILE
    merged.write_bytes(b"".join(line + b"\n" for line in lines))
    return read_events(merged, header)


@dataclass(frozen=True, slots=True)
class Committed:
    """The records that a `read_committed` consumer receives, and the last stable offset."""

    found: tuple[tuple[int, int, str], ...]
    stable: int


def _log_record(found: tuple[int, int, str]) -> LogRecord:
    return LogRecord(*found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition as it was read back, with the place of each of the test's records."""

    topic: str
    number: int
    start: int
    end: int
    problem: str
    found: tuple[tuple[int, int, str], ...]
    """Offset, leader epoch, and the value in the history."""
    committed: Committed | None = None
    """What a `read_committed` consumer receives; None: not read."""

    def for_checker(self, looked: Snapshot) -> ReadBack:
        """`looked`: taken after the read. Members of the ISR then have all that was read."""
        return ReadBack(
            topic=self.topic,
            partition=self.number,
            records=lambda: (LogRecord(*each) for each in self.found),
            log_start_offset=self.start,
            high_watermark=self.end,
            committed=None if self.committed is None else partial(map, _log_record, self.committed.found),
            last_stable_offset=None if self.committed is None else self.committed.stable,
            isr=tuple(filter(looked.alive, looked.isr(self.topic, self.number))),
            error=self.problem or None,
        )


Names = Mapping[Identity, str]
"""Record that the test has sent -> its value in the history."""


def _names_of(sent: Sequence[SentRecord]) -> Names:
    names: dict[Identity, str] = {}
    for number, record in enumerate(sent):
        if record.identity in names:
            raise CannotJudge(
                f"two records of topic {record.topic} have the same key and value: {record.identity[1:]!r}; a verdict "
                "needs distinct records, such as values with a number"
            )
        names[record.identity] = f"{TEST}:{number}"
    return names


def _names_in(history: History) -> Names:
    """The records of a history, whose values are unique in it."""
    names: dict[Identity, str] = {}
    for operation in history.operations():
        if isinstance(operation, Produce):
            for key, value in operation.records:
                names[operation.topic, None if key is None else key.encode(), value.encode()] = value
    return names


def _read_back(run: ClusterRun, names: Names, *, reads_committed: bool) -> list[Partition]:
    topics = sorted({topic for topic, _, _ in names})
    _wait_until_settled(run, topics)
    found = [
        _read_partition(run, topic, number, names) for topic in topics for number in range(_partitions_of(run, topic))
    ]
    if not reads_committed:
        return found
    return [replace(each, committed=_read_committed(run, each, names)) for each in found]


def _replicas(run: ClusterRun, readback: Sequence[Partition], names: Names, looked: Snapshot) -> list[ReplicaLog]:
    """The logs of all replicas, from their files; not of compacted topics, which each replica compacts by itself."""

    def named(topic: str, record: ReadRecord) -> str | None:
        return names.get((topic, record.key, record.value))

    ends = {(each.topic, each.number): each.end for each in readback}
    judged = {topic for topic in {topic for topic, _ in ends} if not _is_compacted(run, topic)}
    nodes = {int(node["id"]): node for node in _configuration(run)["nodes"]}
    brokers = [node.id for node in run.nodes if node.is_broker]
    found: dict[tuple[int, str, int], ReplicaLog] = {}
    for number in range(max((len(nodes[broker]["log_dirs"]) for broker in brokers), default=0)):
        having = [broker for broker in brokers if number < len(nodes[broker]["log_dirs"])]
        files = RunFiles(
            directory=Path(run.data),
            brokers=having,
            voters=(),
            data={broker: Path(nodes[broker]["data"]) for broker in having},
            logs={broker: Path(nodes[broker]["log_dirs"][number]) for broker in having},
        )
        for each in replica_logs(files, looked, judged.__contains__, to_value=named):
            # Records after those that were read back may be written at this moment.
            is_whole = each.log_end_offset >= ends.get((each.topic, each.partition), 0)
            found[each.node, each.topic, each.partition] = replace(each, error=None if is_whole else each.error)
    return list(found.values())


def _is_compacted(run: ClusterRun, topic: str) -> bool:
    for node in _awake(run):
        outcome = send(node.rest, Request(method="GET", path=f"/topics/{quote(topic)}"))
        if isinstance(outcome, Answer) and outcome.is_success:
            return "compact" in outcome.json()["configs"]["cleanup.policy"]
    return True  # not known


def _awake(run: ClusterRun) -> list[NodeRun]:
    return [node for node in run.nodes if is_alive(node.pid) and not is_stopped(node.pid)]


def _look(run: ClusterRun) -> Snapshot:
    views: dict[int, NodeView] = {}
    awake = _awake(run)
    for node in awake:
        outcome = send(node.rest, Request(method="GET", path="/kraft/partitions"))
        if isinstance(outcome, Answer) and outcome.is_success:
            views[node.id] = parse_view(outcome.json())
    return Snapshot(at_us=0, states={node.id: "running" for node in awake}, views=views)


def _wait_until_settled(run: ClusterRun, topics: Sequence[str]) -> None:
    """Wait until all records of leaders are on all replicas. At the limit the readable ones are judged all the same."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while unsettled(_look(run), is_excused=lambda key: key[0] not in topics) and time.monotonic() < deadline:
        time.sleep(RETRY_S)


def _partitions_of(run: ClusterRun, topic: str) -> int:
    problem = "no node answers"
    for node in _awake(run):
        outcome = send(node.rest, Request(method="GET", path=f"/topics/{quote(topic)}/partitions"))
        if isinstance(outcome, Answer) and outcome.is_success:
            return len(outcome.json())
        problem = str(outcome)
    raise CannotJudge(f"the partitions of topic {topic} are not known: {problem}")


def _read_partition(run: ClusterRun, topic: str, number: int, names: Names) -> Partition:
    deadline = time.monotonic() + READ_LIMIT_S
    start, position, problem = -1, -1, "no node runs"
    found: list[tuple[int, int, str]] = []
    while time.monotonic() < deadline:
        for node in _awake(run):
            offset = "earliest" if position < 0 else str(position)
            path = f"/topics/{quote(topic)}/partitions/{number}/records"
            query = f"offset={offset}&timeout=0&max_bytes={READ_BYTES}"
            outcome = send(node.rest, Request(method="GET", path=f"{path}?{query}", headers={"Accept": RECORD_BATCH}))
            if not isinstance(outcome, Answer) or not outcome.is_success:
                problem = f"node {node.id}: {outcome}"
                continue
            start = int(outcome.headers["x-log-start-offset"]) if start < 0 else start
            for record in read_batches(outcome.body, from_offset=max(position, 0)):
                name = names.get((topic, record.key, record.value))
                if name is not None:
                    found.append((record.offset, -1, name))
            position = max(int(outcome.headers["x-next-offset"]), start)
            if position >= int(outcome.headers["x-high-watermark"]):
                return Partition(topic=topic, number=number, start=start, end=position, problem="", found=tuple(found))
            break
        else:
            time.sleep(RETRY_S)
    return Partition(
        topic=topic, number=number, start=max(start, 0), end=max(position, 0), problem=problem, found=tuple(found)
    )


def _read_committed(run: ClusterRun, partition: Partition, names: Names) -> Committed | None:
    deadline, position = time.monotonic() + READ_LIMIT_S, partition.start
    found: list[tuple[int, int, str]] = []
    path = f"/topics/{quote(partition.topic)}/partitions/{partition.number}/records"
    while time.monotonic() < deadline:
        for node in _awake(run):
            query = f"offset={position}&timeout=0&max_bytes={READ_BYTES}&isolation_level=read_committed"
            outcome = send(node.rest, Request(method="GET", path=f"{path}?{query}", headers={"Accept": BINARY_JSON}))
            if not isinstance(outcome, Answer) or not outcome.is_success:
                continue
            for row in outcome.json():
                name = names.get((partition.topic, _bytes(row["key"]), _bytes(row["value"])))
                if name is not None:
                    found.append((row["offset"], -1, name))
            following = int(outcome.headers["x-next-offset"])
            if following == position:
                return Committed(tuple(found), int(outcome.headers["x-last-stable-offset"]))
            position = following
            break
        else:
            time.sleep(RETRY_S)
    return None


# --- the history ----------------------------------------------------------------------------------------------------


def _copy_history(given: History, path: Path, header: Header) -> None:
    with HistoryWriter(path, header) as history:
        for operation in given.operations():
            history.record(operation)


def _write_history(path: Path, header: Header, question: Question, readback: Sequence[Partition]) -> None:
    where = {name: each.number for each in readback for _, _, name in each.found}
    with HistoryWriter(path, header) as history:
        for number, record in enumerate(question.sent):
            name = f"{TEST}:{number}"
            partition = where.get(name, 0) if record.partition is None else record.partition
            history.record(
                Produce(
                    process=TEST,
                    index=number,
                    invoke_us=max(question.since_us, 0),
                    complete_us=record.at_us,
                    topic=record.topic,
                    partition=partition,
                    acks=record.acks,
                    records=((None, name),),
                    outcome=record.outcome,
                    offsets=None if record.offset is None or record.outcome != "ok" else (record.offset,),
                )
            )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def main() -> None:
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        answered = answer(question)
    except CannotJudge as error:
        answered = Answered(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answered))


if __name__ == "__main__":
    main()
