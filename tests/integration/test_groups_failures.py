"""Groups whose coordinator, members and clients die: what was answered holds, and nobody reads for two."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_FAILURES, write_config
from tests.integration.support.load import Load
from tests.integration.support.members import Churn, Crowd, Member, Seen
from tests.integration.support.ownership import ownership
from tests.integration.support.waiting import wait_until

GO_ON_S = 2.0
CHURN_S = float(os.environ.get("KRAFT_CHURN_SECONDS", "60"))
CHURN_SEED = int(os.environ.get("KRAFT_CHURN_SEED", "1"))

pytestmark = pytest.mark.slow


@pytest.fixture
def groups(stopped_cluster: Cluster, tmp_path: Path) -> Cluster:
    settings = {**QUICK_FAILURES, "group.initial.rebalance.delay.ms": 0}
    stopped_cluster.config = write_config(tmp_path / "cluster.toml", settings=settings)
    stopped_cluster.start()
    return stopped_cluster


def urls_of(cluster: Cluster) -> list[str]:
    return [node.rest for node in cluster.nodes]


def coordinator_of(cluster: Cluster, group: str) -> int:
    described = cluster.call("GET", f"/consumer-groups/{group}").json()
    return int(described["coordinator"]["related"].rpartition("/")[2])


def committed_of(cluster: Cluster, member: Member) -> dict[tuple[str, int], int]:
    """What the group has, asked through a member that reads no more."""
    answer = member.act("GET", member.path + "/offsets")
    assert answer is not None, member.errors[-3:]
    return {(row["topic"], row["partition"]): row["offset"] for row in answer.json()["offsets"]}


def first_after(seen: list[Seen], moment: float) -> dict[tuple[str, int], float]:
    """Seconds from the moment to the first record of each partition."""
    found: dict[tuple[str, int], float] = {}
    for each in seen:
        if each.at > moment:
            found.setdefault(each.partition, each.at - moment)
    return found


@pytest.mark.parametrize("round_number", range(3))
def test_the_coordinators_node_is_killed_under_load(groups: Cluster, round_number: int) -> None:
    partitions = 4
    groups.create_topic("load", partitions=partitions)
    urls, group = urls_of(groups), f"g{round_number}"
    members = [Member(group, f"m{n}", urls[n:] + urls[:n], commits=True) for n in range(3)]
    with Load(groups, "load", partitions=partitions, pause_s=0.01) as load, Crowd(members, "load") as crowd:
        wait_until(lambda: len(crowd.values) > 400, what="the first records")
        coordinator = coordinator_of(groups, group)
        killed_at = time.monotonic()
        groups.kill(coordinator)
        wait_until(lambda: len(first_after(crowd.seen, killed_at + 0.05)) == partitions, what="all partitions")
        gaps = first_after(crowd.seen, killed_at + 0.05)
        load.wait_for_acknowledgements(100)
        written = {value for client in load.clients for value in client.acknowledged.values()}
        wait_until(lambda: written <= crowd.values, what="every acknowledged record at a member")
    assert max(gaps.values()) < GO_ON_S, (gaps, [member.errors[-5:] for member in members])
    answered = {key: offset for member in members for key, offset in member.committed.items()}
    assert answered, "nothing was committed"
    for member in members:
        found = committed_of(groups, member)
        behind = {
            key: (offset, found[key]) for key, offset in member.committed.items() if found.get(key, offset) < offset
        }
        assert not behind, f"answered commits and what the group has: {behind}"
    survivor = next(node_id for node_id in groups.ids if node_id != coordinator)
    account = ownership(groups, group, node_id=survivor)
    assert not account.violations, account.violations[:5]
    assert all(account.committed[key] >= offset for key, offset in answered.items())
    read_twice_by_one(crowd.seen)


def read_twice_by_one(seen: list[Seen]) -> None:
    """A member with tokens reads each partition forwards, without a gap and without a repetition."""
    seen = sorted(seen, key=lambda each: (each.member, each.partition, each.at))
    for _, rows in itertools.groupby(seen, key=lambda each: (each.member, each.partition)):
        offsets = [each.offset for each in rows]
        wrong = [pair for pair in itertools.pairwise(offsets) if pair[1] != pair[0] + 1]
        assert not wrong, wrong[:5]


@dataclass
class Worker:
    """A consumer in a process of its own, and the steps that it wrote down."""

    file: Path
    process: subprocess.Popen[bytes]

    def steps(self, kind: str) -> list[tuple[int, int]]:
        lines = [line.split() for line in self.file.read_text().splitlines()] if self.file.exists() else []
        return [(int(line[1]), int(line[2])) for line in lines if line[0] == kind and len(line) == 3]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextmanager
def worker(
    cluster: Cluster, folder: Path, name: str, *, order: str = "AFTER", group: str = "g", timeout_ms: int = 3_000
) -> Iterator[Worker]:
    file = folder / f"{name}.steps"
    module = "tests.integration.support.worker"
    words = [str(file), order, group, name, "work", str(timeout_ms), *urls_of(cluster)]
    process = subprocess.Popen([sys.executable, "-m", module, *words], stdin=subprocess.DEVNULL)
    try:
        yield Worker(file, process)
    finally:
        process.kill()
        process.wait(10)


def write_work(cluster: Cluster, count: int) -> set[tuple[int, int]]:
    """Partition and offset of each record."""
    cluster.create_topic("work", partitions=2)
    for partition in range(2):
        cluster.write_all("work", [f"{number}".zfill(100) for number in range(count)], partition=partition)
    return {(partition, number) for partition in range(2) for number in range(count)}


def test_what_a_crashed_consumer_had_not_committed_is_delivered_again(groups: Cluster, tmp_path: Path) -> None:
    everything = write_work(groups, 60)
    with worker(groups, tmp_path, "first") as first:
        wait_until(lambda: len(first.steps("committed")) > 3 and len(first.steps("read")) > 20, what="some work")
        first.kill()
        with worker(groups, tmp_path, "second") as second:
            done = lambda: set(first.steps("processed")) | set(second.steps("processed"))  # noqa: E731
            wait_until(lambda: done() == everything, what="all of the work, by one or the other")
            committed = dict(first.steps("committed"))
            again = second.steps("processed")
    assert [step for step in again if step[1] >= committed.get(step[0], 0)] == again, "committed work was done again"
    unsure = {step for step in first.steps("read") if step[1] >= committed.get(step[0], 0)}
    assert unsure <= set(again), "what was read and not committed did not come again"


def test_what_is_committed_before_it_is_processed_is_lost_by_the_consumer(groups: Cluster, tmp_path: Path) -> None:
    """The cluster does what it was told: the loss is the consumer's, and its own account shows it."""
    everything = write_work(groups, 60)
    with worker(groups, tmp_path, "first", order="BEFORE") as first:

        def is_between() -> bool:
            committed = dict(first.steps("committed"))
            return sum(committed.values()) > len(first.steps("processed")) > 10

        wait_until(is_between, what="a commit of what is not processed yet")
        os.kill(first.process.pid, signal.SIGSTOP)
        assert is_between(), "stopped too late; the next read would have to be waited for"
        first.kill()
        committed = dict(first.steps("committed"))
        lost = {(p, n) for p, end in committed.items() for n in range(end)} - set(first.steps("processed"))
        assert lost
        with worker(groups, tmp_path, "second", order="BEFORE") as second:
            done = lambda: set(first.steps("processed")) | set(second.steps("processed"))  # noqa: E731
            wait_until(lambda: done() >= everything - lost, what="all the rest")
    assert not done() & lost, "a record before the committed offset was delivered again"


def test_late_commit_of_evicted_member_is_refused(groups: Cluster, tmp_path: Path) -> None:
    everything = write_work(groups, 200)
    with worker(groups, tmp_path, "paused") as paused:
        wait_until(lambda: paused.steps("committed"), what="the first commit")
        os.kill(paused.process.pid, signal.SIGSTOP)
        with worker(groups, tmp_path, "other") as other:
            done = lambda: set(paused.steps("processed")) | set(other.steps("processed"))  # noqa: E731
            wait_until(lambda: done() == everything, what="the other to do all that is left", deadline_s=60)
            os.kill(paused.process.pid, signal.SIGCONT)
            wait_until(lambda: "gone" in paused.file.read_text(), what="the paused one to learn that it is out")
        refused = [code for status, code in paused.steps("refused")]
        assert set(refused) <= {22, 25}, refused
    late = Member("g", "paused", urls_of(groups))
    answer = groups.send(groups.ids[0], "POST", late.path + "/offsets", {"partitions": []})
    assert (answer.status, answer.json()["kafka_code"]) == (404, 25)  # type: ignore[union-attr]


def test_a_late_commit_of_a_partition_that_moved_is_refused(groups: Cluster) -> None:
    write_work(groups, 10)
    one, two = (Member("g", name, urls_of(groups), commits=True) for name in ("one", "two"))
    one.join("work")
    assert one.once("GET", one.path + "/records?token=1&timeout=3000", accept="application/vnd.kafka.text.v2+json")
    two.join("work")
    moved = {row["partition"] for row in two.act("GET", two.path + "/assignments").json()["partitions"]}  # type: ignore[union-attr]
    assert len(moved) == 1
    rows = [{"topic": "work", "partition": partition, "offset": 5} for partition in moved]
    answer = groups.send(groups.ids[0], "POST", one.path + "/offsets", {"partitions": rows})
    assert (answer.status, answer.json()["kafka_code"]) == (409, 22)  # type: ignore[union-attr]
    assert all(row["offset"] == -1 for row in two.act("GET", two.path + "/offsets").json()["offsets"])  # type: ignore[union-attr]


def test_members_join_and_leave_at_random(groups: Cluster) -> None:
    """KRAFT_CHURN_SECONDS and KRAFT_CHURN_SEED choose another story."""
    partitions, places = 12, 50
    groups.create_topic("load", partitions=partitions)
    churn = Churn("g", "load", urls_of(groups), places=places, seed=CHURN_SEED)
    with Load(groups, "load", partitions=partitions, pause_s=0.2) as load:
        churn.run(CHURN_S)
    written = {value for client in load.clients for value in client.acknowledged.values()}
    with Crowd([Member("g", "last", urls_of(groups))], "load") as crowd:
        seen = lambda: crowd.values | {each.value for member in churn.members for each in member.seen}  # noqa: E731
        wait_until(lambda: written <= seen(), deadline_s=60, what="every acknowledged record at some member")
    assert not churn.failures, churn.failures[:3]
    assert len(churn.members) > places, "nobody came or went"
    read_twice_by_one([each for member in churn.members for each in member.seen])
    for node_id in groups.ids:
        account = ownership(groups, "g", node_id=node_id)
        assert not account.violations, account.violations[:5]
        assert len(account.generations) > places, "the group did not rebalance"
