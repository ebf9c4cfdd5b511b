"""Checks of a test's records: read them all back, and find out what happened to those that it sent.

sent = []
for number in range(100):
    value = b"order %d" % number
    try:
        metadata = await producer.send_and_wait("orders", value)
    except KafkaError:
        sent.append(Sent("orders", value, outcome="unknown"))
    else:
        sent.append(Sent("orders", value, partition=metadata.partition, offset=metadata.offset))
assert kafka_cluster.verdict(sent).lost == 0
"""

from __future__ import annotations

import json
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from kraft.launcher.python import PYTHON, environment
from kraft.testing.cluster import ClusterFailed

JUDGE: Final = "kraft.testing.judge"
"""A program, because it needs packages that are not imported in the process of other people's tests."""
BINARY: Final = "application/vnd.kafka.binary.v2+json"
JSON: Final = "application/json"
READ_BYTES: Final = 4 * 1024 * 1024
READ_LIMIT_S: Final = 30.0
COMMIT_LIMIT_S: Final = 5.0
"""Longest wait of `records` for a high watermark, which may never arrive with an ISR below `min.insync.replicas`."""
RETRY_S: Final = 0.02
OUTCOME_CODES: Final[Mapping[str, str]] = {"acknowledged": "ok", "failed": "fail", "unknown": "info"}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def _now_us() -> int:
    return time.monotonic_ns() // 1_000


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that a test has sent with its own client, made after the client has returned the outcome."""

    topic: str
    value: bytes | str | None
    key: bytes | str | None = None
    partition: int | None = None
    """None: the client chose, and the test does not know."""
    offset: int | None = None
    outcome: Literal["acknowledged", "failed", "unknown"] = "acknowledged"
    """`failed`: certainly not written. `unknown`: there was no answer, as after a timeout."""
    acks: Literal["0", "1", "all"] = "all"
    at_us: int = field(default_factory=_now_us)

    def to_document(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "value": _base64(self.value),
            "key": _base64(self.key),
            "partition": self.partition,
            "offset": self.offset,
            "outcome": OUTCOME_CODES[self.outcome],
            "acks": self.acks,
            "at_us": self.at_us,
        }


def _base64(value: bytes | str | None) -> str | None:
    if value is None:
        return None
    return b64encode(value.encode() if isinstance(value, str) else bytes(value)).decode("ascii")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The checker's result for the records that a test has sent. Each of them counts in exactly one of these:"""

    kept: int
    lost: int
    """Acknowledged, and missing."""
    failed: int
    """Certainly not written, by the client's report, and missing."""
    phantom: int
    """Certainly not written, by the client's report, but found."""
    unknown_kept: int
    unknown_gone: int
    unread: int
    """Acknowledged, and its partition could not be read so far."""
    duplicated: int
    """Found more than once; counted additionally."""
    reordered: int
    """Found after a record that was sent later; counted additionally."""
    findings: tuple[str, ...]
    """Lost, duplicated or reordered records with the cause, and every anomaly: a sentence each."""
    is_clean: bool
    """No anomaly, and no finding without a cause."""

    def __str__(self) -> str:
        counts = f"{self.kept} kept, {self.lost} lost, {self.duplicated} duplicated, {self.reordered} reordered"
        return "\n".join((counts, *self.findings))


def verdict_of(document: Mapping[str, Any]) -> Verdict:
    counts = document["counts"]
    ranges = [(kind, each) for kind in ("losses", "duplicates", "reorders", "phantoms") for each in document[kind]]
    findings = [f"{kind}: {_shown(each)}" for kind, each in ranges]
    findings += [f"{each['kind']}: {each['text']} ({each['cause']})" for each in document["anomalies"]]
    return Verdict(
        **{name: counts[name] for name in Verdict.__slots__ if name in counts},
        findings=tuple(findings),
        is_clean=not document["anomalies"] and not document["unexplained"],
    )


def _shown(each: Mapping[str, Any]) -> str:
    where = "" if each["first_offset"] is None else f" at offset {each['first_offset']}"
    return f"{each['records']} of {each['topic']}-{each['partition']}{where}: {each['cause']}"


# --- queries to a cluster -------------------------------------------------------------------------------------------


def judged(
    data: str, sent: Iterable[Sent], *, since_us: int, name: str, report: str = "", history: str = ""
) -> dict[str, Any]:
    """The judge's answer; about the operations of the file `history`, or else `sent`. Raises ClusterFailed."""
    question = {
        "data": data,
        "name": name,
        "since_us": since_us,
        "sent": [each.to_document() for each in sent],
        "report": report,
        "history": history,
    }
    command = [*PYTHON, "-m", JUDGE]
    asked = json.dumps(question).encode()
    done = subprocess.run(command, input=asked, capture_output=True, check=False, env=environment())
    if done.returncode != 0:
        raise ClusterFailed(f"the judge failed: {done.stderr.decode('utf-8', 'replace')}")
    found: dict[str, Any] = json.loads(done.stdout)
    if found["error"]:
        raise ClusterFailed(found["error"])
    return found


def create_topic(
    rest_urls: Sequence[str],
    cluster_id: str,
    topic: str,
    *,
    partitions: int,
    replicas: int | None,
    configs: Mapping[str, Any],
) -> None:
    """Create a topic; return when all these nodes know it and its leaders. Raises ClusterFailed."""
    document: dict[str, Any] = {
        "topic_name": topic,
        "partitions_count": partitions,
        "configs": [{"name": name, "value": _text(value)} for name, value in configs.items()],
    }
    if replicas is not None:
        document["replication_factor"] = replicas
    body = json.dumps(document).encode()
    request = Request(
        method="POST",
        path=f"/v3/clusters/{quote(cluster_id)}/topics",
        body=body,
        headers={"Content-Type": "application/json"},
    )
    outcome = send(rest_urls[0], request)
    if not isinstance(outcome, Answer) or not outcome.is_success:
        raise ClusterFailed(f"topic {topic} was not created: {_problem_of(outcome)}")
    deadline = time.monotonic() + READ_LIMIT_S
    for url in rest_urls:
        while not _is_led(url, topic, partitions):
            if time.monotonic() > deadline:
                raise ClusterFailed(f"topic {topic} has no leaders after {READ_LIMIT_S:g} s")
            time.sleep(RETRY_S)


def _is_led(url: str, topic: str, partitions: int) -> bool:
    outcome = send(url, Request(method="GET", path=f"/topics/{quote(topic)}/partitions"))
    if not isinstance(outcome, Answer) or not outcome.is_success:
        return False
    leaders = [each["leader"] for each in outcome.json()]
    return len(leaders) == partitions and all(leader is not None and leader >= 0 for leader in leaders)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def records_of(rest_urls: Sequence[str], topic: str) -> list[Record]:
    """All committed records, by partition and offset. Raises ClusterFailed.

    It waits for the records that leaders have at the call, at most COMMIT_LIMIT_S: with acks=1, the default of several
    clients, an acknowledgement is earlier than the high watermark."""
    appended, deadline = _log_ends(rest_urls, topic), time.monotonic() + COMMIT_LIMIT_S
    while _is_behind(_log_ends(rest_urls, topic), appended) and time.monotonic() < deadline:
        time.sleep(RETRY_S)
    outcome = asked(rest_urls, f"/topics/{quote(topic)}/partitions")
    return [record for each in outcome.json() for record in _records_of_partition(rest_urls, topic, each["partition"])]


@dataclass(frozen=True, slots=True)
class _LogEnd:
    """Log end of a leader, by its own report."""

    leader_epoch: int
    log_end_offset: int
    high_watermark: int


def _log_ends(rest_urls: Sequence[str], topic: str) -> dict[int, _LogEnd]:
    """Log ends by partition. A leader that does not know of its successor has an older epoch."""
    found: dict[int, _LogEnd] = {}
    for url in rest_urls:
        outcome = send(url, Request(method="GET", path="/kraft/partitions"))
        if not isinstance(outcome, Answer) or not outcome.is_success:
            continue
        for each in outcome.json()["replicas"]:
            if each["topic"] == topic and each["role"] == "leader":
                end = _LogEnd(each["leader_epoch"], each["log_end_offset"], each["high_watermark"])
                known = found.get(each["partition"])
                if known is None or known.leader_epoch < end.leader_epoch:
                    found[each["partition"]] = end
    return found


def _is_behind(now: Mapping[int, _LogEnd], appended: Mapping[int, _LogEnd]) -> bool:
    """Whether a record that leaders had appended is not committed yet, but may still be: a new leader may lack it."""
    return any(
        number in now and now[number].high_watermark < min(end.log_end_offset, now[number].log_end_offset)
        for number, end in appended.items()
    )


def _records_of_partition(rest_urls: Sequence[str], topic: str, number: int) -> Iterator[Record]:
    position = "earliest"
    while True:
        path = f"/topics/{quote(topic)}/partitions/{number}/records"
        answer = asked(rest_urls, f"{path}?offset={position}&timeout=0&max_bytes={READ_BYTES}")
        for record in answer.json():
            yield Record(
                topic=topic,
                partition=number,
                offset=record["offset"],
                timestamp_ms=record["timestamp"],
                key=decoded(record["key"]),
                value=decoded(record["value"]),
                headers=tuple((each["key"], decoded(each["value"])) for each in record.get("headers") or ()),
            )
        position = answer.headers["x-next-offset"]
        if int(position) >= int(answer.headers["x-high-watermark"]):
            return


def asked(rest_urls: Sequence[str], path: str, *, accept: str = BINARY, body: bytes = b"") -> Answer:
    """The answer of the first node that can answer, tried again for a while: leaders may be changing."""
    method, headers = "POST" if body else "GET", {"Accept": accept, **({"Content-Type": JSON} if body else {})}
    deadline, problem = time.monotonic() + READ_LIMIT_S, "no node runs"
    while True:
        for url in rest_urls:
            outcome = send(url, Request(method=method, path=path, body=body, headers=headers))
            if isinstance(outcome, Answer) and outcome.is_success:
                return outcome
            problem = _problem_of(outcome)
            if isinstance(outcome, Answer) and 400 <= outcome.status < 500:
                raise ClusterFailed(problem)
        if time.monotonic() > deadline:
            raise ClusterFailed(f"{path} got no answer in {READ_LIMIT_S:g} s: {problem}")
        time.sleep(RETRY_S)


def _problem_of(outcome: object) -> str:
    return outcome.body[:500].decode("utf-8", "replace") if isinstance(outcome, Answer) else str(outcome)


def decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
