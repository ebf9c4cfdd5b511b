"""Questions of clients beyond their quotas, and what is seen of the answers: codes, waits, and connections that are not
read on. Each client id has its own quota and asks alone, so that no answer depends on what another client does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages import alter_client_quotas_request as acq
from kraft.protocol.messages import create_partitions_request as cp
from kraft.protocol.messages import create_topics_request as ct
from kraft.protocol.messages import delete_topics_request as dt
from kraft.protocol.messages import describe_client_quotas_request as dcq
from kraft.protocol.messages import fetch_request as f
from kraft.protocol.messages import metadata_request as m
from kraft.protocol.messages import produce_request as p
from kraft.protocol.messages.api_versions_request import ApiVersionsRequestData
from tests.clients.golden.peer import Peer
from tests.integration.support.waiting import wait_until
from tests.support.dense_frames import request_kind

TABLE: Final = Path(__file__).with_name("quotas-4.4.0.txt")
Address = tuple[str, int]
Rows = dict[str, str]
"""What was asked -> what was seen."""
Shown = Callable[[Any], str]
"""What of an answer is written down, beside its wait."""

CHANGES_PER_S: Final = 0.05
"""Eleven samples hold 0.55 changes: a request of `MANY` overdraws them, and who comes then waits for 29 s."""
MANY: Final = 2
STEPS_PER_S: Final = 0.5
"""Room for 5.5 changes."""
BYTES_PER_S: Final = 1_000.0
LARGE: Final = 30_000
"""Bytes of a batch: 20 s beyond the quota."""
PERCENT: Final = 0.0001
"""Of a second: what any request takes is beyond it."""
TOPIC: Final = "quota"
UNREAD_S: Final = 0.5
"""A connection that does not answer for so long, where the answer before it had a wait, is not read on."""
READ_S: Final = 5.0
"""Without a wait it is answered, also by a busy machine."""
SLACK_S: Final = 8.0
"""What waits may differ by: buckets fill while a busy machine works. One more change is 20 s more."""
ASKERS: Final = 8
THROTTLING_QUOTA_EXCEEDED: Final = 89
QUOTAS: Final = {
    "changes": ("controller_mutation_rate", CHANGES_PER_S),
    "steps": ("controller_mutation_rate", STEPS_PER_S),
    "produces": ("producer_byte_rate", BYTES_PER_S),
    "consumes": ("consumer_byte_rate", BYTES_PER_S),
    "works": ("request_percentage", PERCENT),
}
"""What a client id does, as its first word -> its quota."""
FETCHES: Final = (4, 7, 8, 18)
KNOWN: Final[Mapping[str, str]] = {
    f"Fetch {version}, {what}": "who has read nothing lately gets its first records, where Kafka's client never does"
    for version in FETCHES
    for what in ("at first", "then")
}
"""What was asked -> why the answer differs here."""
NOT_TIMED: Final = {
    *("SaslHandshake", "SaslAuthenticate", "GetTelemetrySubscriptions", "PushTelemetry"),
    *("Produce", "AddPartitionsToTxn", "DescribeAcls"),
}
"""Out of place on a connection without a login, not served by every broker, or without an answer to such a request."""


def play(address: Address) -> Rows:
    """All questions, to one node that has no quotas and no topics."""
    _made(address, TOPIC, 1)
    rows: Rows = {}
    with ThreadPoolExecutor(ASKERS) as threads:
        for found in threads.map(lambda story: story(address), STORIES):
            rows |= found
    return rows


def differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """What is not the same, by what was asked; waits are about the same."""
    found = {}
    for name in {**theirs, **mine}:
        one, other = mine.get(name, "not asked"), theirs.get(name, "not asked")
        waits = [[float(each) for each in _WAIT.findall(text)] for text in (one, other)]
        is_near = all(math.isclose(a, b, abs_tol=SLACK_S) for a, b in zip(*waits, strict=False))
        if not is_near or _WAIT.sub("wait", one) != _WAIT.sub("wait", other):
            found[name] = f"{one}; Kafka's: {other}"
    return found


_WAIT: Final = re.compile(r"wait (\d+\.\d)")


def write(rows: Mapping[str, str], head: Iterable[str], path: Path = TABLE) -> None:
    lines = [*(f"# {line}" for line in head), *(f"{name}: {seen}" for name, seen in rows.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path = TABLE) -> Rows:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {name: seen for name, _, seen in (line.partition(": ") for line in lines)}


# --- how it is asked ----------------------------------------------------------------------------------------------


def seen(
    address: Address, client_id: str, request: TopLevel, version: int, shown: Shown, *, answers: bool = True
) -> str:
    """What `shown` makes of the answer, the wait in it, and whether the connection is read on."""
    peer = Peer(address, client_id=client_id)
    try:
        if not answers:
            peer.send(request, version)
            return _read_on(peer, UNREAD_S)
        answer: Any = peer.ask("", request, version)
        if peer.broken:
            return "closed"
        wait_ms = getattr(answer, "throttle_time_ms", None)
        wait = "no field of a wait" if wait_ms is None else f"wait {wait_ms / 1_000:.1f}" if wait_ms else "no wait"
        read_on = _read_on(peer, UNREAD_S if wait_ms else READ_S)
        return ", ".join(each for each in (shown(answer), wait, read_on) if each)
    finally:
        peer.close()


def _read_on(peer: Peer, timeout_s: float) -> str:
    return "read on" if peer.is_answered_within(ApiVersionsRequestData.make(), 0, timeout_s) else "not read on"


def limited(address: Address, name: str) -> str:
    """A client id with the quota of its first word."""
    key, value = QUOTAS[name.partition(" ")[0]]
    entry = acq.EntryData.make(
        entity=[acq.EntityData.make(entity_type="client-id", entity_name=name)],
        ops=[acq.OpData.make(key=key, value=value)],
    )
    peer = Peer(address)
    answer: Any = peer.ask("", acq.AlterClientQuotasRequestData.make(entries=[entry]), 1)
    assert [each.error_code for each in answer.entries] == [0], answer.entries

    def holds() -> bool:
        """A broker learns of it from the metadata log, after the answer."""
        asked: Any = peer.ask("", dcq.DescribeClientQuotasRequestData.make(components=[], strict=False), 1)
        return any(entity.entity_name == name for entry in asked.entries for entity in entry.entity)

    wait_until(holds, what=f"the quota of {name}")
    peer.close()
    return name


def _codes(answers: str, key: str = "name") -> Shown:
    """The codes of an array of the answer, by name; the text of a quota, which Kafka leaves out."""

    def shown(answer: Any) -> str:
        items = sorted(getattr(answer, answers), key=lambda each: getattr(each, key) or "")
        return " ".join(f"{each.error_code}{_text(each)}" for each in items)

    return shown


def _text(item: Any) -> str:
    text = getattr(item, "error_message", None) if item.error_code == THROTTLING_QUOTA_EXCEEDED else None
    return f" ({text})" if text else ""


# --- changes of metadata ------------------------------------------------------------------------------------------


def _creation(*topics: tuple[str, int], validate_only: bool = False, replicas: int = 1) -> ct.CreateTopicsRequestData:
    made = [
        ct.CreatableTopic.make(name=name, num_partitions=count, replication_factor=replicas) for name, count in topics
    ]
    return ct.CreateTopicsRequestData.make(topics=made, timeout_ms=30_000, validate_only=validate_only)


def _made(address: Address, name: str, partitions: int) -> str:
    """A topic, by a client without a quota."""
    peer = Peer(address)
    answer: Any = peer.ask("", _creation((name, partitions)), 7)
    assert [each.error_code for each in answer.topics] == [0], answer.topics

    def is_known() -> bool:
        asked = m.MetadataRequestData.make(topics=[m.MetadataRequestTopic.make(name=name)])
        found: Any = peer.ask("", asked, 9)
        return [each.error_code for topic in found.topics for each in topic.partitions] == [0] * partitions

    wait_until(is_known, what=f"the topic {name}")
    peer.close()
    return name


Ask = Callable[[str, TopLevel], None]


def _asking(address: Address, rows: Rows, client: str, version: int, shown: Shown) -> Ask:
    """Asks as one client in one version, and notes what is seen."""
    limited(address, client)

    def ask(what: str, request: TopLevel) -> None:
        api = type(request).__name__.removesuffix("RequestData")
        rows[f"{api} {version}, {what}"] = seen(address, client, request, version, shown)

    return ask


def _create(version: int, address: Address) -> Rows:
    rows: Rows = {}
    ask = _asking(address, rows, f"changes create-{version}", version, _codes("topics"))
    ask(f"{MANY} partitions", _creation((f"create-{version}", MANY)))
    ask("then one more", _creation((f"create-{version}-more", 1)))
    return rows


def _create_one_by_one(address: Address) -> Rows:
    rows: Rows = {}
    ask = _asking(address, rows, "steps one-by-one", 7, _codes("topics"))
    ask("3, 4, 1 and 2 partitions", _creation(*((f"one-{place}", count) for place, count in enumerate((3, 4, 1, 2)))))
    return rows


def _create_what_is_checked(address: Address) -> Rows:
    rows: Rows = {}
    ask = _asking(address, rows, "changes checks", 7, _codes("topics"))
    ask(f"only validates {MANY} partitions", _creation((f"checks-{MANY}", MANY), validate_only=True))
    ask(f"only validated, then {MANY} partitions", _creation(("checks", MANY)))
    ask("only validates one more", _creation(("checks-1", 1), validate_only=True))
    ask("beyond the quota, one that exists", _creation((TOPIC, 1)))
    ask("beyond the quota, one that exists and one more", _creation((TOPIC, 1), ("checks-2", 1)))
    ask("beyond the quota, a wrong name", _creation(("a b", 1)))
    ask("beyond the quota, more replicas than brokers", _creation(("checks-3", 1), replicas=3))
    ask("beyond the quota, no topics", _creation())
    return rows


def _create_what_fails(address: Address) -> Rows:
    rows: Rows = {}
    ask = _asking(address, rows, "changes fails", 7, _codes("topics"))
    ask(f"{MANY} partitions and more replicas than brokers", _creation(("fails", MANY), replicas=3))
    ask("that failed, then one more", _creation(("fails-1", 1)))
    return rows


def _grow(version: int, address: Address) -> Rows:
    rows: Rows = {}
    topic = _made(address, f"grow-{version}", 1)
    ask = _asking(address, rows, f"changes grow-{version}", version, _codes("results"))

    def to(count: int, *, validate_only: bool = False) -> cp.CreatePartitionsRequestData:
        wanted = [cp.CreatePartitionsTopic.make(name=topic, count=count, assignments=None)]
        return cp.CreatePartitionsRequestData.make(topics=wanted, timeout_ms=30_000, validate_only=validate_only)

    ask(f"{MANY} more", to(1 + MANY))
    ask("then one more", to(2 + MANY))
    ask("beyond the quota, fewer", to(1))
    if version == apis.BY_NAME["CreatePartitions"].clients[-1]:
        ask("only validates one more", to(3 + MANY, validate_only=True))
    return rows


def _grow_only_validated(address: Address) -> Rows:
    rows: Rows = {}
    topic = _made(address, "grow-checks", 1)
    ask = _asking(address, rows, "changes grow-checks", 3, _codes("results"))
    for what, is_checked in ((f"only validates {MANY} more", True), (f"only validated, then {MANY} more", False)):
        wanted = [cp.CreatePartitionsTopic.make(name=topic, count=1 + MANY, assignments=None)]
        ask(what, cp.CreatePartitionsRequestData.make(topics=wanted, timeout_ms=30_000, validate_only=is_checked))
    return rows


def _delete(version: int, address: Address) -> Rows:
    rows: Rows = {}
    topics = [_made(address, f"delete-{version}-{count}", count) for count in (MANY, 1)]
    ask = _asking(address, rows, f"changes delete-{version}", version, _codes("responses"))

    def of(topic: str) -> dt.DeleteTopicsRequestData:
        if version < 6:
            return dt.DeleteTopicsRequestData.make(topic_names=[topic], timeout_ms=30_000)
        return dt.DeleteTopicsRequestData.make(topics=[dt.DeleteTopicState.make(name=topic)], timeout_ms=30_000)

    ask(f"{MANY} partitions", of(topics[0]))
    ask("then one more", of(topics[1]))
    ask("beyond the quota, one that is not there", of("no-such-topic"))
    return rows


# --- bytes --------------------------------------------------------------------------------------------------------


def _produce(version: int, acks: int, address: Address) -> Rows:
    rows: Rows = {}
    client = limited(address, f"produces {version} {acks}")
    for what in ("at first", "then"):
        request = _produce_request(_id_of(address, TOPIC), acks)
        name = f"Produce {version}, acks={acks}, {what}"
        rows[name] = seen(address, client, request, version, _produced, answers=acks != 0)
    return rows


def _produce_request(topic_id: UUID, acks: int) -> p.ProduceRequestData:
    records = build_batch([NewRecord(None, bytes(LARGE), [], 1_700_000_000_000)])
    data = [p.PartitionProduceData.make(index=0, records=records)]
    named = p.TopicProduceData.make(name=TOPIC, topic_id=topic_id, partition_data=data)
    return p.ProduceRequestData.make(acks=acks, timeout_ms=10_000, topic_data=[named])


def _produced(answer: Any) -> str:
    return " ".join(str(each.error_code) for topic in answer.responses for each in topic.partition_responses)


def _fetch(version: int, address: Address) -> Rows:
    """After a produce of a client without a quota."""
    topic_id = _id_of(address, TOPIC)
    Peer(address).ask("", _produce_request(topic_id, -1), apis.BY_NAME["Produce"].clients[-1])
    part = f.FetchPartition.make(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    named = f.FetchTopic.make(topic=TOPIC, topic_id=topic_id, partitions=[part])
    request = f.FetchRequestData.make(max_wait_ms=0, min_bytes=1, max_bytes=1 << 20, topics=[named])
    client = limited(address, f"consumes {version}")
    return {
        f"Fetch {version}, {what}": seen(address, client, request, version, _fetched) for what in ("at first", "then")
    }


def _fetched(answer: Any) -> str:
    sizes = [len(each.records or b"") for topic in answer.responses for each in topic.partitions]
    return f"{len(answer.responses)} topics, {'records' if any(sizes) else 'no records'}"


def _id_of(address: Address, topic: str) -> UUID:
    peer = Peer(address)
    answer: Any = peer.ask("", m.MetadataRequestData.make(topics=[m.MetadataRequestTopic.make(name=topic)]), 12)
    peer.close()
    found: UUID = answer.topics[0].topic_id
    return found


# --- the time of requests -----------------------------------------------------------------------------------------


def _work(api: apis.Api, address: Address) -> Rows:
    """Of an API in its newest version, without an item: most are refused, which takes time, too."""
    version = api.clients[-1]
    request: TopLevel = request_kind(api.key).make()  # type: ignore[attr-defined]
    client = limited(address, f"works {api.name}")
    return {f"{api.name} {version}, its time": seen(address, client, request, version, lambda answer: "")}


STORIES: Final[Sequence[Callable[[Address], Rows]]] = (
    *(partial(_create, version) for version in apis.BY_NAME["CreateTopics"].clients),
    _create_one_by_one,
    _create_what_is_checked,
    _create_what_fails,
    *(partial(_grow, version) for version in apis.BY_NAME["CreatePartitions"].clients),
    _grow_only_validated,
    *(partial(_delete, version) for version in apis.BY_NAME["DeleteTopics"].clients),
    *(partial(_produce, version, acks) for version in (3, 5, 6, 13) for acks in (-1, 0)),
    *(partial(_fetch, version) for version in FETCHES),
    *(partial(_work, api) for api in apis.BY_KEY.values() if api.clients and api.name not in NOT_TIMED),
)
"""Each has client ids and topics of its own."""
