"""The cost of TLS with a login, of ACLs, and of 10,000 ACLs: processor time of the nodes, beside a plain cluster.

python -m bench.security [--rounds 3] [--records 40000] [--acls 10000] [--kafka FOLDER]

All clusters run at the same time, and are loaded in turns; each number is the median of the rounds. `admin` is a super
user, of whom no ACL is asked; `alice` has ACLs. `--kafka` measures Apache Kafka, too, whose jars are in the folder:
three nodes plain, and three with TLS everywhere and the same login, with the same client (Java 17 or newer).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from bench.cluster import BenchError, process_cpu_s
from bench.kafka_nodes import KafkaNodes
from kraft.client.credentials import NONE, Credentials
from kraft.client.response import Answer, Request
from kraft.client.transport import Transport
from kraft.testing import Cluster

RECORD: Final = b"x" * 1_024
PASSWORD: Final = "of alice"
PREFIX: Final = "bench-"
ACLS_AT_ONCE: Final = 1_000
REST_RECORDS: Final = 10
REST_AT_ONCE: Final = 4
REST_SHARE: Final = 80
"""One request over HTTP for so many records of the other rows."""
REST_BODY: Final = b'{"records":[' + b",".join([b'{"value":"' + b"x" * 100 + b'"}'] * REST_RECORDS) + b"]}"
JSON: Final = {"Content-Type": "application/vnd.kafka.json.v2+json"}
LIMIT_S: Final = 300.0
WARM_ROUNDS: Final = 2
"""Before Kafka is measured, its compiler has seen so many rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A cluster, and a login on it."""

    name: str
    servers: str
    pids: Sequence[int]
    kafka: Mapping[str, Any]
    """Options of librdkafka."""
    rest_url: str = ""
    """Empty for a cluster that has no HTTP."""
    rest: Credentials = NONE

    @classmethod
    def of(cls, name: str, cluster: Cluster, kafka: Mapping[str, Any], rest: Credentials) -> Side:
        pids = [cluster.node(node).pid for node in cluster.ids]
        servers, url = cluster.bootstrap_servers, cluster.rest_url
        return cls(name=name, servers=servers, pids=pids, kafka=kafka, rest_url=url, rest=rest)

    @property
    def options(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.servers, **self.kafka}

    def cpu_s(self) -> float:
        """Processor time of the nodes so far."""
        return sum(map(process_cpu_s, self.pids))


def produce(side: Side, topic: str, count: int) -> int:
    """Write records; return their number."""
    producer = Producer({**side.options, "linger.ms": 5, "queue.buffering.max.messages": count + 1})
    for _ in range(count):
        producer.produce(topic, RECORD)
        producer.poll(0)
    if left := producer.flush(LIMIT_S):
        raise BenchError(f"{left} records were not acknowledged")
    return count


def fetch(side: Side, topic: str, count: int) -> int:
    """Read as many records as `produce` has written; return their number."""
    consumer = Consumer({**side.options, "group.id": topic + uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    seen, ends = 0, time.monotonic() + LIMIT_S
    while seen < count:
        seen += len(consumer.consume(2_000, timeout=1.0))
        if time.monotonic() > ends:
            raise BenchError(f"{seen} of {count} records were read")
    consumer.close()
    return seen


def rest(side: Side, topic: str, count: int) -> int:
    """Requests with ten records over HTTP, some at a time; return their number."""
    requests = max(1, count // REST_SHARE)

    async def ask(transport: Transport, url: str) -> None:
        for _ in range(requests // REST_AT_ONCE):
            request = Request(method="POST", path=f"/topics/{topic}", body=REST_BODY, headers=JSON)
            outcome = await transport.send(url, request)
            if not (isinstance(outcome, Answer) and outcome.is_success):
                raise BenchError(str(outcome))

    async def main() -> None:
        async with Transport(credentials=side.rest) as transport:
            await asyncio.gather(*(ask(transport, side.rest_url) for _ in range(REST_AT_ONCE)))

    asyncio.run(main())
    return requests // REST_AT_ONCE * REST_AT_ONCE


LOADS: Final[Mapping[str, Callable[[Side, str, int], int]]] = {
    "produce, 1 KiB records": produce,
    "fetch, 1 KiB records": fetch,
    "REST produce, requests of 10": rest,
}


def measure(sides: Sequence[Side], *, rounds: int, count: int) -> dict[str, list[float]]:
    """Load -> microseconds of the nodes' processors for each record or request, by side."""
    loads = {load: act for load, act in LOADS.items() if act is not rest or all(side.rest_url for side in sides)}
    found: dict[str, list[list[float]]] = {load: [[] for _ in sides] for load in loads}
    for number, side in enumerate(sides):  # the first use of a cluster makes topics of its own, and loads code
        for act in loads.values():
            act(side, f"{PREFIX}warm-{number}", REST_SHARE * REST_AT_ONCE)
    for _ in range(rounds):
        for number, side in enumerate(sides):
            topic = f"{PREFIX}{uuid.uuid4().hex[:8]}"
            for load, act in loads.items():
                before = side.cpu_s()
                done = act(side, topic, count)
                found[load][number].append((side.cpu_s() - before) / done * 1e6)
    return {load: [median(values) for values in each] for load, each in found.items()}


def _alice(cluster: Cluster) -> Side:
    """A user with ACLs."""
    admin = _admin(cluster)
    made = [
        UserScramCredentialUpsertion("alice", ScramCredentialInfo(mechanism, 4_096), PASSWORD.encode())
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
    ]
    for each in made:
        for done in admin.alter_user_scram_credentials([each]).values():
            done.result(LIMIT_S)
    kinds = (ResourceType.TOPIC, ResourceType.GROUP)
    _create(admin, [_acl("alice", kind, PREFIX, ResourcePatternType.PREFIXED) for kind in kinds])
    own = cluster.security.of("alice", PASSWORD)
    return Side.of("ACLs", cluster, own.librdkafka(), own.credentials())


def _admin(cluster: Cluster) -> AdminClient:
    return AdminClient({"bootstrap.servers": cluster.bootstrap_servers, **cluster.security.librdkafka()})


def _acl(user: str, kind: ResourceType, name: str, pattern: ResourcePatternType) -> AclBinding:
    return AclBinding(kind, name, pattern, f"User:{user}", "*", AclOperation.ALL, AclPermissionType.ALLOW)


def _create(admin: AdminClient, acls: Sequence[AclBinding]) -> None:
    for begin in range(0, len(acls), ACLS_AT_ONCE):
        for done in admin.create_acls(list(acls[begin : begin + ACLS_AT_ONCE]), request_timeout=60).values():
            done.result(LIMIT_S)


def _many_acls(cluster: Cluster, count: int) -> None:
    """ACLs of other users, on topics of their own and on prefixes."""
    kinds = (ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED)
    made = [_acl(f"user-{n % 500}", ResourceType.TOPIC, f"bench-{n}", kinds[n % 2]) for n in range(count)]
    _create(_admin(cluster), made)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--acls", type=int, default=10_000)
    parser.add_argument("--kafka", type=Path, metavar="FOLDER", help="the jars of a release of Apache Kafka")
    asked = parser.parse_args()
    with ExitStack() as stack:
        plain, secure = (stack.enter_context(Cluster(nodes=3, secure=secure)) for secure in (False, True))
        admin = secure.security
        sides = [
            Side.of("plain", plain, {}, NONE),
            Side.of("TLS", secure, admin.librdkafka(), admin.credentials()),
            _alice(secure),
        ]
        few = measure(sides, rounds=asked.rounds, count=asked.records)
        _many_acls(secure, asked.acls)
        many = replace(sides[2], name=f"{asked.acls} ACLs")
        more = measure([sides[0], many], rounds=asked.rounds, count=asked.records)
        kafka = _kafka(asked.kafka, stack, rounds=asked.rounds, count=asked.records) if asked.kafka else None
    _print(sides, few)
    _print([sides[0], many], more)
    if kafka is not None:
        _print(*kafka)
    return 0


def _kafka(
    libs: Path, stack: ExitStack, *, rounds: int, count: int
) -> tuple[Sequence[Side], Mapping[str, Sequence[float]]]:
    nodes = [stack.enter_context(KafkaNodes(libs, secure=secure)) for secure in (False, True)]
    names = ("Kafka, plain", "Kafka, TLS")
    sides = [
        Side(name=name, servers=each.servers, pids=each.pids, kafka=each.login)
        for name, each in zip(names, nodes, strict=True)
    ]
    measure(sides, rounds=WARM_ROUNDS, count=count)
    return sides, measure(sides, rounds=rounds, count=count)


def _print(sides: Sequence[Side], found: Mapping[str, Sequence[float]]) -> None:
    """A line for each load, with the ratio to the first side."""
    names = "".join(f"{each.name:>20}" for each in sides)
    sys.stdout.write(f"{'us of three nodes for each':<32}{names}\n")
    for load, values in found.items():
        cells = "".join(f"{f'{value:.1f} ({value / values[0]:.2f})':>20}" for value in values)
        sys.stdout.write(f"{load:<32}{cells}\n")


if __name__ == "__main__":
    sys.exit(main())
