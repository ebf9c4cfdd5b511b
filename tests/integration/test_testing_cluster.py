"""`kraft.testing.Cluster`: clusters inside other people's tests, and what is left of them however those end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kraft.client import Client
from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from kraft.launcher.fork_messages import SOCKET_FILE, Inherited
from kraft.launcher.processes import is_alive
from kraft.testing import Cluster, ClusterFailed
from kraft.testing.assertions import create_topic, records_of
from tests.integration.support.waiting import wait_until

LIMIT_S = 120
OWNER = """
import json, sys, time
from kraft.testing import Cluster
cluster = Cluster(nodes=1).start()
ours = [name for name in sys.modules if name.split(".")[0] in ("metadata", "replication", "secrets")]
print(json.dumps({"data": str(cluster.data), "pid": cluster.node(1).pid, "ours": ours}), flush=True)
time.sleep(600)
"""


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()


def is_fork(pid: int) -> bool:
    """A program is called `python -P -m kraft node`."""
    return command_of(pid)[:2] == ["kraft", "node"]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


JSON = "application/vnd.kafka.json.v2+json"


def write(cluster: Cluster, topic: str, value: str, *, acks: str = "all", node: int = 1) -> None:
    body = json.dumps({"records": [{"value": value}]}).encode()
    path = f"/topics/{topic}?acks={acks}"
    request = Request(method="POST", path=path, body=body, headers={"Content-Type": JSON})
    outcome = send(cluster.rest_urls[node], request)
    assert isinstance(outcome, Answer), outcome
    assert outcome.is_success, outcome


def read(cluster: Cluster, topic: str) -> list[str]:
    path = f"/topics/{topic}/partitions/0/records?offset=earliest"
    outcome = send(cluster.rest_url, Request(method="GET", path=path, headers={"Accept": JSON}))
    assert isinstance(outcome, Answer), outcome
    return [record["value"] for record in outcome.json()]


@pytest.fixture(scope="module")
def whole() -> Iterator[Cluster]:
    with Cluster(nodes=3) as cluster:
        yield cluster


def test_the_nodes_are_forks_that_are_known_by_their_ids(whole: Cluster) -> None:
    for node in whole.ids:
        pid = whole.node(node).pid
        assert command_of(pid)[:4] == ["kraft", "node", "--id", str(node)]
        assert Path(f"/proc/{pid}/comm").read_text() == f"kraft-node-{node}\n"
        assert b"PATH=" + os.fsencode(os.environ["PATH"]) in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert len({parent_of(whole.node(node).pid) for node in whole.ids}) == 1


def test_only_its_user_reaches_the_process_that_forks(whole: Cluster) -> None:
    found = (whole.data / SOCKET_FILE).stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(whole.data.stat().st_mode) == 0o700


def test_nodes_are_killed_paused_stopped_and_restarted(whole: Cluster) -> None:
    whole.kill(2)
    whole.pause(3)
    assert [whole.state(node) for node in whole.ids] == ["running", "down", "paused"]
    with pytest.raises(ClusterFailed, match="node 2 does not run"):
        whole.kill(2)
    whole.resume(3)
    whole.stop(3)
    assert whole.state(3) == "down"
    whole.restart(2, 3)
    whole.wait_until_ready(LIMIT_S)
    assert [whole.state(node) for node in whole.ids] == ["running"] * 3
    assert all(is_fork(whole.node(node).pid) for node in whole.ids)
    assert "started" in whole.log_tail(2)


def test_what_a_leader_alone_has_acknowledged_is_waited_for(whole: Cluster) -> None:
    # Every node knows who leads, before one is left that can ask nobody.
    create_topic([*whole.rest_urls.values()], whole.cluster_id, "alone", partitions=1, replicas=None, configs={})
    leader = whole.leader_of("alone", 0)
    followers = [node for node in whole.ids if node != leader]
    whole.pause(*followers)
    later = threading.Timer(0.3, lambda: whole.resume(*followers))
    try:
        write(whole, "alone", "x", acks="1", node=leader)
        later.start()
        assert [record.value for record in records_of([whole.rest_urls[leader]], "alone")] == [b'"x"']
    finally:
        later.cancel()
        later.join()
        whole.resume(*(node for node in followers if whole.state(node) == "paused"))


def test_the_leader_of_a_topic_that_a_client_has_made_is_known(whole: Cluster) -> None:
    with Client(whole.rest_url) as client:
        client.admin.create_topic("led", partitions=2)
    wait_until(lambda: whole.leader_of("led", 1) in whole.brokers, what="a leader of led-1")
    with pytest.raises(ClusterFailed, match="no node reports the leader of led-7"):
        whole.leader_of("led", 7)


@pytest.mark.long
def test_another_process_works_on_the_cluster_by_its_folder_and_ends_nothing(whole: Cluster) -> None:
    attached = Cluster.attach(whole.data)
    assert attached.bootstrap_servers == whole.bootstrap_servers
    attached.restart(1)
    attached.close()
    assert whole.state(1) == "running"
    whole.wait_until_ready(LIMIT_S)


@pytest.mark.long
def test_a_restart_with_other_variables_that_python_reads_is_a_program(
    whole: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    whole.restart(1)
    assert not is_fork(whole.node(1).pid)
    monkeypatch.undo()
    whole.restart(1)
    assert is_fork(whole.node(1).pid)


@pytest.mark.parametrize("name", ["user", "limits", "variables"])
def test_a_fork_is_refused_what_it_cannot_have(name: str) -> None:
    own = Inherited.own()
    others: dict[str, Any] = {
        "user": (own.user[0] + 1, own.user[1]),
        "limits": {**own.limits, "NOFILE": (1, 1)},
        "variables": {**own.variables, "LD_PRELOAD": "another.so"},
    }
    asked = Inherited(**{each: others[each] if each == name else getattr(own, each) for each in (*others, "umask")})
    assert asked.why_not_of(own)
    assert not own.why_not_of(own)


def test_nothing_is_left_at_the_end() -> None:
    with Cluster(nodes=1) as cluster:
        data, pid = cluster.data, cluster.node(1).pid
        assert is_alive(pid)
    assert not is_alive(pid)
    assert not data.exists()
    with pytest.raises(ClusterFailed, match="does not run"):
        assert cluster.bootstrap_servers
    cluster.close()


@pytest.mark.long
def test_a_folder_of_one_s_own_stays_and_its_path_may_be_long(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / "data"
    cluster = Cluster(nodes=1, folder=folder)
    for value in ("first", "second"):
        with cluster:
            write(cluster, "kept", value)
            assert is_fork(cluster.node(1).pid)
    assert "node 1 stopped" in (folder / "node-1" / "node.log").read_text()
    with cluster:
        assert read(cluster, "kept") == ["first", "second"]


@pytest.mark.long
def test_a_power_loss_leaves_what_was_durable() -> None:
    with Cluster(nodes=1, power_loss=True) as cluster:
        write(cluster, "lost", "never flushed")
        cluster.power_loss(1)
        assert cluster.state(1) == "down"
        cluster.restart(1)
        assert read(cluster, "lost") == []
    with Cluster(nodes=1) as cluster, pytest.raises(ClusterFailed, match="power_loss=True"):
        cluster.power_loss(1)


def test_async_tests_have_it_too() -> None:
    async def story() -> None:
        async with Cluster(nodes=1) as cluster:
            assert cluster.state(1) == "running"

    asyncio.run(story())


def test_a_start_that_fails_reports_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ClusterFailed, match=r"min\.insync\.replica\b.*min\.insync\.replicas"):
        Cluster(nodes=1, settings={"min.insync.replica": 1}).start()
    (tmp_path / "node-1").write_text("in its way")
    with pytest.raises(ClusterFailed, match="node 1"):
        Cluster(nodes=1, folder=tmp_path).start()
    assert not list(tmp_path.glob("nodes.sock"))


@pytest.mark.long
def test_after_an_upgrade_new_code_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "sitecustomize.py"
    planted.write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    story = """
from kraft.testing import Cluster
with Cluster(nodes=1) as cluster:
    print(open(f"/proc/{cluster.node(1).pid}/cmdline").read().split()[0])
    open(PLANTED, "a").write("print('the new code')\\n")
    cluster.restart(1)
    print("the new code" in cluster.log_tail(1, lines=100))
"""
    text = story.replace("PLANTED", repr(str(planted)))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout.splitlines() == ["kraft", "True"], done.stderr


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A program that has started a cluster, in a folder whose modules have the names of ours."""
    for name in ("metadata", "replication", "secrets"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the tests')")
    (tmp_path / "owner.py").write_text(OWNER)
    with subprocess.Popen([sys.executable, "owner.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_a_test_that_is_killed_leaves_no_process_and_no_folder(
    owner: tuple[subprocess.Popen[str], dict[str, Any]],
) -> None:
    process, reported = owner
    assert reported["ours"] == []
    forking = parent_of(reported["pid"])
    assert command_of(forking)[:2] == ["kraft", "fork-server"]
    process.kill()
    wait_until(lambda: not is_alive(reported["pid"]), what="the end of the node")
    wait_until(lambda: not Path(reported["data"]).exists(), what="the end of the folder")
    wait_until(lambda: not Path(f"/proc/{forking}").exists(), what="the end of the process that forks")


@pytest.mark.long
def test_the_end_of_the_process_that_forks_ends_no_node() -> None:
    story = """
import os, signal
from kraft.testing import Cluster
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
with Cluster(nodes=1) as cluster:
    pid, data = cluster.node(1).pid, cluster.data
    os.kill(parent(pid), signal.SIGKILL)
    print(cluster.state(1))
    cluster.wait_until_ready(60)
    cluster.restart(1)
    print(cluster.node(1).pid != pid, open(f"/proc/{cluster.node(1).pid}/cmdline").read().startswith("kraft"))
    cluster.wait_until_ready(60)
print(data.exists())
with Cluster(nodes=1) as cluster:
    print(open(f"/proc/{cluster.node(1).pid}/cmdline").read().startswith("kraft"))
"""
    done = subprocess.run([sys.executable, "-c", story], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout.splitlines() == ["running", "True False", "False", "True"], done.stderr


@pytest.mark.long
def test_a_cluster_lives_with_the_process_that_it_is_given() -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        cluster = Cluster(nodes=1, owner_pid=other.pid).start()
        data, pid = cluster.data, cluster.node(1).pid
        os.kill(other.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid) and not data.exists(), what="the end of the cluster")
    cluster.close()
