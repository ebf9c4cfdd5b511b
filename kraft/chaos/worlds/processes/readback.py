"""Collect the evidence for the checker after healing: each partition read through REST, logs, metadata, events.

A partition is read as whole record batches, from its log start to its high watermark, into `<folder>/readback/`, so
that a log of any length costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import msgspec

from kraft.chaos.evidence import EPOCH_UNKNOWN, Evidence, GroupOffset, LogRecord, ReadBack, VoterMetadata, read_events
from kraft.chaos.history import Header
from kraft.chaos.workload.requests import TEXT, value_of
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.logs import RunFiles, records_of, replica_logs, voter_metadata
from kraft.chaos.worlds.processes.observer import NotInTime
from kraft.chaos.worlds.processes.pace import every_topic, of_clients
from kraft.chaos.worlds.snapshot import Snapshot, unsettled
from kraft.chaos.worlds.spec import ScenarioError
from kraft.client.response import Answer
from kraft.protocol.media_types import RECORD_BATCH

SETTLE_MS: Final = 20_000
READ_BYTES: Final = 4 * 1024 * 1024
READ_TIMEOUT_MS: Final = 10_000
READ_LIMIT_MS: Final = 30_000
"""How long the read of one partition is retried."""
RETRY_S: Final = 0.05
SAVED_LIMIT_MS: Final = 5_000
EVENTS_FILE: Final = "events.jsonl"


async def gather_evidence(
    cluster: Cluster,
    *,
    header: Header,
    settle_ms: int = SETTLE_MS,
    is_judged: Callable[[str], bool] = of_clients,
    groups: Sequence[str] = (),
) -> Evidence:
    """The evidence of these topics, after clients have finished and faults are healed; problems become notes.

    The records are read from files below `cluster.directory` when the checker iterates.
    """
    missing = await settle(cluster, deadline_ms=settle_ms)
    readback = await read_back(cluster, is_judged)
    committed = [each for group in groups for each in await _committed(cluster, group)]
    replicas = await asyncio.to_thread(replica_logs, cluster.files, cluster.observer.latest, is_judged)
    voters, notes = await _saved_metadata(cluster)
    events = merge_events(cluster.files, lambda topic: is_judged(topic) or not of_clients(topic))
    return Evidence(
        readback=readback,
        replicas=replicas,
        committed=committed if groups else None,
        samples=tuple(sorted(cluster.observer.samples, key=lambda sample: sample.at_us)),
        voters=voters,
        events=read_events(events, header),
        faults=cluster.timeline.faults,
        notes=({"unsettled": missing} if missing else {}) | notes,
    )


async def _committed(cluster: Cluster, group: str) -> list[GroupOffset]:
    """The committed offsets from the coordinator of a group. Raises ScenarioError without an answer."""
    path = f"/v3/clusters/{cluster.admin.cluster_id}/consumer-groups/{quote(group)}/lags"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READ_LIMIT_MS / 1000
    while True:
        for node in cluster.nodes.running():
            answer = await cluster.nodes.ask(node, "GET", path, timeout_ms=READ_TIMEOUT_MS)
            if isinstance(answer, Answer) and answer.is_success:
                rows = msgspec.json.decode(answer.body)["data"]
                return [
                    GroupOffset(group, row["topic_name"], row["partition_id"], row["current_offset"]) for row in rows
                ]
        if loop.time() > deadline:
            raise ScenarioError(f"no answer about the committed offsets of group {group}: {answer}")
        await asyncio.sleep(RETRY_S)


async def _saved_metadata(cluster: Cluster) -> tuple[list[VoterMetadata], dict[str, str]]:
    """The committed metadata of voters. They save their commit index about once a second: wait for the reported
    offset."""
    snapshot = await cluster.observer.status()
    reported = {node: view.metadata_offset for node, view in snapshot.views.items()}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SAVED_LIMIT_MS / 1000
    while True:
        voters, notes = await asyncio.to_thread(voter_metadata, cluster.files)
        is_late = any(voter.image.offset < reported.get(voter.node, -1) for voter in voters)
        if not is_late or loop.time() > deadline:
            return voters, notes
        await asyncio.sleep(RETRY_S)


async def settle(cluster: Cluster, *, deadline_ms: int = SETTLE_MS) -> str:
    """Wait until the records are on all replicas. Returns what is missing at the deadline; empty: nothing."""
    try:
        await cluster.observer.until(lambda snapshot: not unsettled(snapshot), deadline_ms=deadline_ms)
    except NotInTime as error:
        return unsettled(error.snapshot)
    return ""


async def read_back(cluster: Cluster, is_judged: Callable[[str], bool] = every_topic) -> list[ReadBack]:
    """Read every partition of these topics in the newest metadata."""
    snapshot = await cluster.observer.status()
    newest = snapshot.newest
    folder = cluster.directory / "readback"
    folder.mkdir(exist_ok=True)
    wanted = sorted(key for key in newest.partitions if is_judged(key[0])) if newest else []
    return [await _read_partition(cluster, snapshot, topic, number, folder) for topic, number in wanted]


async def _read_partition(cluster: Cluster, snapshot: Snapshot, topic: str, number: int, folder: Path) -> ReadBack:
    path = folder / f"{topic}-{number}.batches"
    with path.open("wb") as out:
        start, high_watermark, problem = await _read_all(cluster, topic, number, out)
    facts = snapshot.partition(topic, number)
    committed, stable = await _read_committed(cluster, topic, number, start)
    return ReadBack(
        topic=topic,
        partition=number,
        records=records_of([path], from_offset=start),
        log_start_offset=start,
        high_watermark=high_watermark,
        committed=None if committed is None else committed.__iter__,
        last_stable_offset=stable,
        leader=snapshot.leader(topic, number),
        leader_epoch=EPOCH_UNKNOWN if facts is None else facts.leader_epoch,
        isr=tuple(node for node in snapshot.isr(topic, number) if snapshot.alive(node)),
        error=problem or None,
    )


async def _read_committed(
    cluster: Cluster, topic: str, number: int, start: int
) -> tuple[list[LogRecord] | None, int | None]:
    """The records that a `read_committed` consumer receives, and its end offset; None without an answer in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READ_LIMIT_MS / 1000
    found, position = list[LogRecord](), start
    while loop.time() < deadline:
        for node in cluster.nodes.running():
            answer = await _ask_committed(cluster, node, topic, number, position)
            if answer is None:
                continue
            rows = msgspec.json.decode(answer.body)
            found += [LogRecord(row["offset"], EPOCH_UNKNOWN, value_of(row["value"] or "")) for row in rows]
            following = int(answer.headers["x-next-offset"])
            if following == position:
                return found, int(answer.headers["x-last-stable-offset"])
            position = following
            break
        else:
            await asyncio.sleep(RETRY_S)
    return None, None


async def _ask_committed(cluster: Cluster, node: int, topic: str, number: int, position: int) -> Answer | None:
    query = f"offset={position}&timeout=0&max_bytes={READ_BYTES}&isolation_level=read_committed"
    path = f"/topics/{quote(topic)}/partitions/{number}/records?{query}"
    outcome = await cluster.nodes.ask(node, "GET", path, headers={"Accept": TEXT}, timeout_ms=READ_TIMEOUT_MS)
    return outcome if isinstance(outcome, Answer) and outcome.is_success else None


async def _read_all(cluster: Cluster, topic: str, number: int, out: IO[bytes]) -> tuple[int, int, str]:
    """Log start offset, end of the read, and the reason if it did not reach the high watermark."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READ_LIMIT_MS / 1000
    start, position, problem = -1, -1, "no node runs"
    while loop.time() < deadline:
        for node in cluster.nodes.running():
            answer = await _read(cluster, node, topic, number, position)
            if isinstance(answer, str):
                problem = f"node {node}: {answer}"
                continue
            out.write(answer.body)
            start = int(answer.headers["x-log-start-offset"]) if start < 0 else start
            # What is asked for from the middle of a batch is answered from its beginning.
            position = max(int(answer.headers["x-next-offset"]), start)
            if position >= int(answer.headers["x-high-watermark"]):
                return start, position, ""
            break
        else:
            await asyncio.sleep(RETRY_S)
    return max(start, 0), max(position, 0), problem


async def _read(cluster: Cluster, node: int, topic: str, number: int, position: int) -> Answer | str:
    offset = "earliest" if position < 0 else str(position)
    path = f"/topics/{quote(topic)}/partitions/{number}/records?offset={offset}&timeout=0&max_bytes={READ_BYTES}"
    outcome = await cluster.nodes.ask(node, "GET", path, headers={"Accept": RECORD_BATCH}, timeout_ms=READ_TIMEOUT_MS)
    if not isinstance(outcome, Answer):
        return outcome.reason
    if not outcome.is_success:
        return f"HTTP status {outcome.status}: {outcome.body[:300].decode('utf-8', 'replace')}"
    return outcome


def merge_events(files: RunFiles, is_judged: Callable[[str], bool] = every_topic) -> Path:
    """Write the events of all nodes, sorted by time, into one file in the folder of the run; only events of these
    topics."""
    lines: list[tuple[int, bytes]] = []
    for data in files.data.values():
        for name in (f"{EVENTS_FILE}.1", EVENTS_FILE):
            path = data / name
            if path.exists():
                lines += _judged_lines(path, is_judged)
    lines.sort(key=lambda each: each[0])
    merged = files.directory / EVENTS_FILE
    merged.write_bytes(b"".join(line + b"\n" for _, line in lines))
    return merged


def _judged_lines(path: Path, is_judged: Callable[[str], bool]) -> Iterator[tuple[int, bytes]]:
    """(time, line) of each complete event that does not belong to another topic."""
    with path.open("rb") as lines:
        for line in map(bytes.rstrip, lines):
            if line.endswith(b"}"):
                event = msgspec.json.decode(line)
                if "topic" not in event or is_judged(event["topic"]):
                    yield event["at_ms"], line
