"""Faults against real clusters: each does what it says, healing undoes it, and nothing is left running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from kraft.chaos.history import Header, Operation
from kraft.chaos.workload.producer import Producer, ProducerOptions
from kraft.chaos.workload.requests import fetched, produce_request, produce_result, read_request
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.readback import gather_evidence
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ClusterSpec
from kraft.client.transport import Transport
from kraft.launcher.processes import is_alive
from kraft.protocol.errors import NotLeaderOrFollower
from tests.integration.support.waiting import wait_until

THREE = ClusterSpec.of(3, settings={"replica.lag.time.max.ms": 1_500, "replica.fetch.backoff.ms": 50})
DEDICATED = ClusterSpec.of(3, controllers=1, settings={"replica.lag.time.max.ms": 30_000})
T = ("t", 0)
PATIENCE_MS = 30_000
"""Of a client that is to be answered, and of who waits for a state."""

Story = Callable[[Cluster], Awaitable[None]]


def play(story: Story, directory: Path, *, spec: ClusterSpec = THREE, replicas: Sequence[int] = (1, 2, 3)) -> None:
    pids: set[int] = set()

    async def main() -> None:
        async with Cluster.start(spec, directory=directory, seed=1) as cluster:
            try:
                await cluster.admin.create_topic("t", assignment=[list(replicas)], configs={"min.insync.replicas": 2})
                await story(cluster)
            finally:
                pids.update(pid for node in cluster.nodes.ids if (pid := cluster.nodes.pid(node)) is not None)
                pids.add(cluster.proxy_pid)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")], "something still runs"


class Client:
    """One process of the history, asked by hand."""

    def __init__(self, cluster: Cluster, name: str = "c") -> None:
        self._cluster, self._name = cluster, name
        self._count = 0

    async def write(self, node: int, *, count: int = 1, acks: str = "all", timeout_ms: int = PATIENCE_MS) -> str:
        """`ok`, `fail` or `info`."""
        records = [(None, f"{self._name}:{self._count + n}") for n in range(count)]
        self._count += count
        request = produce_request(*T, records, acks=acks, timeout_ms=timeout_ms)  # type: ignore[arg-type]
        async with Transport() as transport:
            address = await self._cluster.links.client_address(self._name, node)
            return produce_result(await transport.send(address, request), acks="all").outcome

    async def read(self, node: int) -> list[str]:
        request = read_request(*T, "earliest", wait_ms=0, bytes_max=10_000_000, timeout_ms=PATIENCE_MS)
        async with Transport() as transport:
            found = fetched(await transport.send(await self._cluster.links.client_address(self._name, node), request))
        assert found.outcome == "ok", found
        return [value for _, value in found.records]


async def until(c: Cluster, holds: Callable[[Snapshot], bool], *, describe: str = "the condition") -> Snapshot:
    return await c.observer.until(holds, deadline_ms=PATIENCE_MS, describe=describe)


def isr(*members: int) -> Callable[[Snapshot], bool]:
    return lambda snapshot: snapshot.isr(*T) == members


def led_by_others(*nodes: int) -> Callable[[Snapshot], bool]:
    """As all others know: one that has not heard of it asks the leader before."""

    def holds(snapshot: Snapshot) -> bool:
        leader = snapshot.leader(*T)
        views = [view for node, view in snapshot.views.items() if node not in nodes]
        return leader not in (-1, *nodes) and all(view.partitions[T].leader == leader for view in views)

    return holds


@pytest.mark.long
def test_nodes_are_killed_stopped_paused_and_back(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        client = Client(c)
        assert await client.write(1, count=3) == "ok"
        begun = time.monotonic()
        await c.nodes.kill(1)
        snapshot = await until(c, led_by_others(1), describe="another leader")
        print(f"another leader after {(time.monotonic() - begun) * 1000:.0f} ms")
        assert snapshot.states[1] == "down"
        assert snapshot.epoch(*T) == 1
        assert await client.write(1) == "fail", "the proxy refuses when its target does"
        await c.nodes.restart(1)
        await until(c, isr(1, 2, 3), describe="node 1 in the ISR")
        before_us = now_us()
        await c.nodes.pause(3)
        assert (await c.observer.status()).states[3] == "paused"
        assert await client.write(2, count=5, acks="1") == "ok"
        await until(c, isr(1, 2), describe="the paused node out of the ISR")
        await c.nodes.resume(3)
        after_us = now_us()
        await until(c, isr(1, 2, 3), describe="the resumed node in the ISR")
        await c.nodes.stop(2)
        await until(c, led_by_others(2))
        await c.mend()
        await until(c, isr(1, 2, 3))
        assert await client.read(2) == [*(f"c:{n}" for n in range(3)), *(f"c:{n}" for n in range(4, 9))]
        texts = [fault.text for fault in c.timeline.faults]
        assert texts[0].startswith("killed node 1 (leader of t-0")
        paused = next(fault for fault in c.timeline.faults if fault.fault == "pause")
        assert paused.until_us is not None
        assert before_us <= paused.at_us < paused.at_us + 1_000_000 < paused.until_us <= after_us

    play(story, tmp_path)
    assert len((tmp_path / "faults.jsonl").read_text().splitlines()) == 5


@pytest.mark.long
def test_links_are_cut_each_on_its_own(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        client = Client(c)
        await c.links.cut(3, 1, purpose="fetch")
        assert await client.write(2, count=2) == "ok", "nodes 1 and 2 are enough"
        await until(c, isr(1, 2), describe="node 3, which cannot fetch, out of the ISR")
        assert (await c.observer.status()).log_end(*T, node=3) == 0
        await c.links.heal()
        await until(c, isr(1, 2, 3), describe="node 3 back")
        await c.links.cut(2, 1, purpose="forward")
        assert await client.write(2, timeout_ms=500) in ("fail", "info")  # short: node 2 cannot pass it on
        assert await client.write(3) == "ok"
        await c.links.heal(2, 1, purpose="forward")
        assert await client.write(2) == "ok"
        await c.links.partition("[1] | [2, 3]")
        cut_at = now_us()
        snapshot = await until(c, led_by_others(1), describe="a leader on the other side")
        print(f"fenced and led by another after {(snapshot.at_us - cut_at) // 1000} ms")
        assert await client.write(1, timeout_ms=500) != "ok"  # short: it cannot come
        assert await client.write(2) == "ok"
        await c.links.heal()
        await until(c, isr(1, 2, 3), describe="one cluster again")
        assert all(fault.until_us for fault in c.timeline.faults if fault.fault == "cut")

    play(story, tmp_path)


@pytest.mark.slow
def test_a_node_is_cut_from_the_controller_only_and_from_the_other_voters_only(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        at_first = await c.observer.status()
        victim = next(node for node in (3, 2) if node != at_first.controller)
        await c.links.cut(victim, purpose="controller")
        await until(c, lambda seen: victim not in seen.active_brokers, describe="who sends no heartbeat is fenced")
        fenced = await c.observer.status()
        assert fenced.controller == at_first.controller, "the quorum's own links carry on"
        assert fenced.views[victim].brokers[victim] == "fenced", "and so the node itself is told"
        await c.links.heal()
        await until(c, isr(1, 2, 3), describe="back in the ISR")

        await c.links.cut(victim, purpose="quorum", both_ways=True)
        created = asyncio.get_running_loop().create_task(c.admin.create_topic("u", assignment=[[1]], configs={}))
        await until(c, lambda seen: seen.leader("u", 0) == 1, describe="the other two know u")
        assert ("u", 0) not in (await c.observer.status()).views[victim].partitions
        assert await Client(c).write(1, count=2) == "ok"
        await until(c, lambda seen: seen.log_end(*T, node=victim) == 2, describe="replication has links of its own")
        assert ("u", 0) not in (await c.observer.status()).views[victim].partitions
        await c.links.heal()
        await created
        await until(c, isr(1, 2, 3), describe="all in the ISR at last")

    settings = {"broker.heartbeat.interval.ms": 300, "broker.session.timeout.ms": 2_500}
    play(story, tmp_path, spec=ClusterSpec.of(3, settings=settings))


@pytest.mark.slow
def test_an_isolated_leader_keeps_its_clients(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        client = Client(c)
        await c.links.isolate(1, from_="quorum")
        await until(c, led_by_others(1), describe="a leader that the controller sees")
        believed = (await c.observer.status()).view(1)
        assert believed is not None
        assert believed.partitions[T].leader == 1, "nobody told it"
        assert await client.write(1, count=4, acks="1") == "ok"
        assert await client.write(1, count=1, timeout_ms=300) == "info"  # short: it cannot come
        await c.links.heal()
        await until(c, isr(1, 2, 3), describe="node 1 follows")
        assert await client.read(1) == [], "what it took alone was cut off"

    play(story, tmp_path, spec=DEDICATED)


@pytest.mark.long
def test_one_way_loss_delay_and_lost_answers(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        client = Client(c)
        await client.write(1)
        await c.links.blackhole("c", 1, purpose="rest", direction="answers")
        assert await client.write(1, timeout_ms=200) == "info"  # short: the answer cannot come
        await until(c, lambda s: s.hw(*T) == 2, describe="the request was carried out")
        await c.links.heal()
        await c.links.drop_answers("c", 1, purpose="rest", count=1)
        assert await client.write(1) == "info"
        await until(c, lambda s: s.hw(*T) == 3, describe="this one too")
        assert await client.write(1) == "ok", "only one answer was dropped"
        await c.links.close_mid_message("c", 1, purpose="rest", count=1)
        assert await client.write(1) == "info"
        assert (await c.observer.status()).log_end(*T) == 4, "half a request does nothing"
        await c.links.heal()
        await c.links.drop_answers(2, 1, purpose="forward", count=1)
        assert await client.write(2) == "info"
        assert (await c.observer.status()).log_end(*T) == 5
        counts = await c.links.counts()
        assert counts["2->1 forward"].dropped_answers == 1
        await c.links.delay("c", 1, purpose="rest", delay_ms=60, jitter_ms=10)
        begun = time.monotonic()
        assert await client.write(1) == "ok"
        assert 0.12 <= time.monotonic() - begun < PATIENCE_MS / 1000
        await c.links.heal()
        assert len(await client.read(1)) == 6

    play(story, tmp_path)


@pytest.mark.slow
def test_power_loss_takes_what_was_not_flushed(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        await c.admin.create_topic("flushed", assignment=[[1, 2, 3]], configs={"flush.messages": 1})
        operations: list[Operation] = []
        options = [
            ProducerOptions(name="lazy", topic="t", limit=40, rate=2_000, batch=10),
            ProducerOptions(name="safe", topic="flushed", limit=40, rate=2_000, batch=10),
        ]
        for each in options:
            producer = Producer(each, client_world=c, record=operations.append)
            await producer.open()
            await producer.start()
            await producer.wait()
            await producer.close()
            assert producer.counts.acked == 40
        losses = await c.disks.power_loss()
        assert any(path.endswith(".log") for path in losses[1].removed), "the segment of t-0 was never synced"
        await c.nodes.restart(*c.nodes.ids)
        await c.until_ready()
        evidence = await gather_evidence(c, header=Header(scenario="power"))
        kept = {each.topic: [record.value for record in each.records()] for each in evidence.readback}
        assert kept == {"t": [], "flushed": [f"safe:{n}" for n in range(40)]}
        assert evidence.notes == {}
        assert {(log.node, log.log_end_offset) for log in evidence.replicas if log.topic == "flushed"} == {
            (1, 40),
            (2, 40),
            (3, 40),
        }
        assert all(voter.image.topic("flushed") for voter in evidence.voters)
        assert evidence.events

    play(story, tmp_path)


def votes_again(directory: Path, node: int) -> bool:
    """A voter whose disk was wiped is a newcomer until a leader has committed something with the others alone."""
    events = (directory / "data" / f"node-{node}" / "events.jsonl").read_text()
    return events.rindex('"quorum_newcomer_settled"') > events.rindex('"quorum_newcomer"')


@pytest.mark.slow
def test_disks_are_spoiled_wiped_and_full(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        client = Client(c)
        assert await client.write(1, count=200) == "ok"
        assert await client.write(1, count=100) == "ok"
        values = [f"c:{n}" for n in range(300)]
        await c.nodes.kill(2, 3)
        await c.disks.tear_tail(2, "t")
        await c.disks.delete_index(3, "t")
        await c.nodes.restart(2, 3)
        await until(c, isr(1, 2, 3), describe="torn and robbed replicas back")
        await c.nodes.kill(2)
        await c.disks.corrupt(2, "t", offset=100)
        await c.nodes.restart(2)
        await until(c, isr(1, 2, 3), describe="the spoiled replica back")
        await c.nodes.kill(3)
        await c.disks.wipe(3)
        await c.nodes.restart(3)
        await until(
            c,
            lambda s: s.isr(*T) == (1, 2, 3) and s.log_end(*T, node=3) == 300,
            describe="the wiped node has copied all",
        )
        assert await client.read(3) == values
        await asyncio.to_thread(wait_until, lambda: votes_again(tmp_path, 3), what="a vote of the wiped node")
        await c.disks.fill(1)
        await client.write(1, timeout_ms=1_000)  # short: whatever comes of it, the partition goes where there is room
        await until(c, led_by_others(1), describe="a leader with room")
        assert await client.write(1) == "ok"
        await c.disks.free(1)
        await c.nodes.kill(1)
        await c.nodes.restart(1)
        await until(c, lambda s: s.leader(*T) > 0 and len(s.isr(*T)) == 3, describe="all well again")
        assert (await client.read(2))[:300] == values

    play(story, tmp_path)


RUNNER = """
import asyncio, sys
from pathlib import Path
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.spec import ClusterSpec

async def main():
    async with Cluster.start(ClusterSpec.of(1), directory=Path(sys.argv[1])) as c:
        await c.nodes.pause(1)
        print(c.nodes.pid(1), c.proxy_pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_runner_leaves_nothing_behind_not_even_a_paused_node(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        node, proxy = (int(pid) for pid in runner.stdout.readline().split())
        assert is_alive(node)
        runner.send_signal(signal.SIGKILL)
        wait_until(lambda: not _exists(node) and not _exists(proxy), what="the end of both")


def _exists(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False


def test_a_story_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        await c.nodes.pause(1)
        raise KeyError("the story goes wrong")

    with pytest.raises(KeyError, match="the story goes wrong"):
        play(story, tmp_path, spec=ClusterSpec.of(1), replicas=[1])


def test_isolated_deposed_leader_returns_no_out_of_range(
    tmp_path: Path,
) -> None:
    async def story(c: Cluster) -> None:
        client = Client(c)
        assert await client.write(1, count=2) == "ok"
        await until(c, lambda s: s.leader("t", 0) == 1)
        await c.links.isolate(1)
        await until(c, led_by_others(1), describe="a successor")
        assert await client.write(2, count=5) == "ok"
        values = await client.read(2)
        answers = []
        async with Transport() as transport:
            for offset in (len(values), 0):
                request = read_request(*T, offset, wait_ms=0, bytes_max=1_000_000, timeout_ms=PATIENCE_MS)
                answers.append(fetched(await transport.send(await c.links.client_address("c", 1), request)))
        beyond, first = answers
        assert beyond.kafka_code == NotLeaderOrFollower.code, beyond
        assert first.outcome == "ok", "what it has it may still tell"
        await c.links.heal()
        await until(c, lambda s: len(s.isr("t", 0)) == 3)
        assert await client.read(1) == values

    play(story, tmp_path)
