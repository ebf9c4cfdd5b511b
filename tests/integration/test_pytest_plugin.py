"""The plugin of pytest in other people's projects: what its fixtures give, and what is left however a run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kraft.launcher.processes import is_alive
from kraft.launcher.python import PYTHON
from kraft.launcher.runfile import load_run
from kraft.testing.plugin import FIXTURES
from tests.integration.support.waiting import wait_until

pytest_plugins = ("pytester",)
LIMIT_S = 240
PLUGIN = ("-p", "no:kraft", "-p", "kraft.testing.plugin", "-p", "no:schemathesis", "-p", "no:cacheprovider")
"""By its module, whether this installation knows of the entry point or not."""
WRITE = """
    import json, os
    from pathlib import Path

    import pytest
    from aiokafka import AIOKafkaProducer

    def note(name, cluster, **more):
        facts = {"test": name, "data": str(cluster.data), "bootstrap": cluster.bootstrap_servers, "pid": os.getpid()}
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps({**facts, **more}) + "\\n")

    async def write(bootstrap, topic, *values, **options):
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", retry_backoff_ms=50, **options)
        await producer.start()
        try:
            return [await producer.send_and_wait(topic, value) for value in values]
        finally:
            await producer.stop()

    def read(cluster, topic):
        return [record.value for record in cluster.records(topic)]
"""


class Notes:
    """What the tests of a run have told."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def of(self, test: str) -> dict[str, Any]:
        return next(note for note in self.all() if note["test"] == test)

    def folders(self) -> set[str]:
        return {note["data"] for note in self.all()}


@pytest.fixture
def notes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Notes:
    path = pytester.path / "notes.jsonl"
    monkeypatch.setenv("NOTES", str(path))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(support=WRITE)
    return Notes(path)


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(*PLUGIN, *options, timeout=LIMIT_S)


def nothing_is_left(folders: set[str], pids: set[int]) -> bool:
    return not any(is_alive(pid) for pid in pids) and not any(os.path.exists(folder) for folder in folders)


# --- what fixtures give ---------------------------------------------------------------------------------------------


@pytest.mark.long
def test_workers_share_a_cluster_and_break_only_their_own(pytester: pytest.Pytester, notes: Notes):
    """One worker kills leaders all the time; the tests of the other one see nothing."""
    pytester.makepyfile(
        test_calm="""
        import asyncio
        import pytest
        from kraft.testing import Sent
        from support import note, read, write

        @pytest.mark.parametrize("number", range(8))
        def test_calm(kafka_cluster, kafka_bootstrap, kafka_topic, number):
            values = [b"%d" % n for n in range(30)]
            told = asyncio.run(write(kafka_bootstrap, kafka_topic, *values))
            assert read(kafka_cluster, kafka_topic) == values
            assert {each.partition for each in told} == {0}
            note(f"calm {number}", kafka_cluster, leader_epochs=kafka_cluster.leader_of(kafka_topic))

        @pytest.mark.anyio
        @pytest.mark.kafka_topic(partitions=3, configs={"retention.ms": 3_600_000})
        async def test_asyncio(kafka_bootstrap, kafka_topic, kafka_cluster, kafka_rest_url):
            loop = asyncio.get_running_loop()
            (told,) = await write(kafka_bootstrap, kafka_topic, b"x")
            verdict = kafka_cluster.verdict([Sent(kafka_topic, b"x", partition=told.partition, offset=told.offset)])
            assert (verdict.kept, verdict.lost, verdict.is_clean) == (1, 0, True)
            lost = kafka_cluster.verdict([Sent(kafka_topic, b"never", partition=0, offset=7)])
            assert (lost.kept, lost.lost, lost.is_clean) == (0, 1, False), str(lost)
            assert asyncio.get_running_loop() is loop
            import urllib.request
            with urllib.request.urlopen(f"{kafka_rest_url}/topics/{kafka_topic}") as answer:
                described = __import__("json").load(answer)
            assert len(described["partitions"]) == 3
            assert described["configs"]["retention.ms"] == "3600000"
            note("asyncio", kafka_cluster)

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        def test_the_shared_one_cannot_be_broken(kafka_cluster):
            from kraft.testing import ClusterFailed
            with pytest.raises(ClusterFailed, match="kafka_faults"):
                kafka_cluster.kill(1)
        """,
        test_wild="""
        import asyncio
        import pytest
        from support import note, read, write

        @pytest.mark.parametrize("number", range(3))
        def test_wild(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic, number):
            assert kafka_faults.bootstrap_servers == kafka_bootstrap == kafka_cluster.bootstrap_servers
            leader = kafka_faults.leader_of(kafka_topic)
            kafka_faults.kill(leader)
            asyncio.run(write(kafka_bootstrap, kafka_topic, b"after"))
            assert read(kafka_cluster, kafka_topic) == [b"after"]
            note(f"wild {number}", kafka_faults, states=[kafka_faults.state(node) for node in (1, 2, 3)])
        """,
    )
    run(pytester, "-n", "2", "--dist", "loadfile", "-p", "anyio", "-p", "timeout").assert_outcomes(passed=13)
    calm = {note["data"] for note in notes.all() if not note["test"].startswith("wild")}
    wild = {note["data"] for note in notes.all() if note["test"].startswith("wild")}
    assert len(calm) == len(wild) == 1, "started once, and reused when it was whole again"
    assert not calm & wild
    assert notes.of("wild 2")["states"].count("down") == 1, "what other tests broke was healed"
    assert len({note["pid"] for note in notes.all()}) == 2
    assert nothing_is_left(notes.folders(), set())


def own_modules(pytester: pytest.Pytester) -> None:
    """A project whose modules have the names of ours, and of one of the standard library's."""
    pytester.makepyfile(metadata="OWN = True", secrets="OWN = True")
    pytester.mkpydir("replication").joinpath("__init__.py").write_text("OWN = True")


@pytest.mark.long
def test_a_test_may_have_a_cluster_of_its_own(pytester: pytest.Pytester, notes: Notes):
    """Also in a project that has modules of our names."""
    own_modules(pytester)
    pytester.makepyfile(
        """
        import asyncio, sys
        import metadata, replication, secrets
        import pytest
        from support import note, read, write

        @pytest.mark.kafka_cluster(nodes=1, settings={"num.partitions": 5})
        def test_own(kafka_cluster, kafka_bootstrap, kafka_topic):
            assert kafka_cluster.ids == [1]
            note("own", kafka_cluster)
            kafka_cluster.restart(1)
            asyncio.run(write(kafka_bootstrap, kafka_topic, b"x"))
            assert read(kafka_cluster, kafka_topic) == [b"x"]

        @pytest.mark.kafka_cluster(nodes=1)
        def test_own_with_faults(kafka_faults, kafka_cluster, kafka_topic, kafka_bootstrap):
            assert kafka_faults.ids == [1]
            note("faults", kafka_faults)
            kafka_faults.drop_answer("Produce", topic=kafka_topic)
            asyncio.run(write(kafka_bootstrap, kafka_topic, b"x"))
            assert read(kafka_cluster, kafka_topic) == [b"x", b"x"]
            assert kafka_cluster.verdict([]).is_clean
            assert metadata.OWN and replication.OWN and secrets.OWN
            ours = [name for name in sys.modules if name.partition(".")[0] in ("metadata", "replication", "secrets")]
            assert sorted(ours) == ["metadata", "replication", "secrets"]

        @pytest.mark.kafka_cluster(size=5)
        def test_mistaken(kafka_cluster):
            pass
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*kafka_cluster does not take size; it takes nodes, settings*"])
    assert len(notes.folders()) == 2
    assert nothing_is_left(notes.folders(), set())


@pytest.mark.long
def test_a_cluster_that_cannot_become_whole_again_is_replaced(pytester: pytest.Pytester, notes: Notes):
    """One that was wiped becomes whole again, and is used again."""
    pytester.makepyfile(
        """
        import asyncio, shutil
        import pytest
        from support import note, read, write

        def whole(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic):
            assert [kafka_faults.state(node) for node in (1, 2, 3)] == ["running"] * 3
            asyncio.run(write(kafka_bootstrap, kafka_topic, b"x"))
            assert read(kafka_cluster, kafka_topic) == [b"x"]

        def test_1_wiped(kafka_faults, kafka_topic):
            note("wiped", kafka_faults)
            kafka_faults.kill(2)
            shutil.rmtree(kafka_faults.data / "node-2")

        def test_2_after_wiped(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic):
            whole(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic)
            note("after wiped", kafka_faults)

        def test_3_ends_itself(kafka_faults, kafka_topic):
            note("ends itself", kafka_faults)
            kafka_faults.kill(2)
            logs = kafka_faults.data / "node-2" / "logs"
            shutil.rmtree(logs)
            logs.write_text("in its way")

        def test_4_after_that(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic):
            whole(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic)
            note("after that", kafka_faults)

        def test_5_its_owner_is_killed(kafka_faults, kafka_topic):
            import os, signal
            note("owner killed", kafka_faults)
            os.kill(kafka_faults.host_pid, signal.SIGKILL)

        def test_6_after_that(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic):
            whole(kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic)
            note("last", kafka_faults)
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["*_ test_5_its_owner_is_killed _*", "the process that owns the cluster has ended*"])
    data = {note["test"]: note["data"] for note in notes.all()}
    assert data["wiped"] == data["after wiped"] == data["ends itself"]
    assert data["after that"] == data["owner killed"] != data["ends itself"]
    assert data["last"] != data["owner killed"]
    assert nothing_is_left(notes.folders(), set())


@pytest.mark.long
def test_failing_test_shows_events_and_unused_fault_fails(pytester: pytest.Pytester, notes: Notes):
    pytester.makepyfile(
        """
        import time
        import pytest
        from support import note

        def test_fails(kafka_faults, kafka_topic):
            note("fails", kafka_faults)
            kafka_faults.kill(kafka_faults.leader_of(kafka_topic))
            assert kafka_faults.leader_of(kafka_topic) == "somebody"

        def test_never(kafka_faults, kafka_topic):
            kafka_faults.answer("EndTxn", error="INVALID_TXN_STATE", times=2)

        def test_mistaken(kafka_faults):
            kafka_faults.answer("Produce", error="NOT_A_LEADER")

        @pytest.mark.timeout(2, method="signal")
        def test_hangs(kafka_faults, kafka_topic):
            kafka_faults.pause(1)
            time.sleep(60)

        def test_goes_on(kafka_faults, kafka_topic):
            note("goes on", kafka_faults)
            assert [kafka_faults.state(node) for node in (1, 2, 3)] == ["running"] * 3

        def test_its_owner_is_killed(kafka_faults, kafka_topic):
            import os, signal
            os.kill(kafka_faults.host_pid, signal.SIGKILL)

        def test_has_another(kafka_faults, kafka_topic):
            note("another", kafka_faults)
            assert [kafka_faults.state(node) for node in (1, 2, 3)] == ["running"] * 3
        """
    )
    result = run(pytester, "-p", "timeout", "--kafka-report", "reports")
    result.assert_outcomes(passed=2, failed=5)
    assert notes.of("another")["data"] != notes.of("goes on")["data"], "replaced when it could not be whole again"
    assert notes.of("fails")["data"] == notes.of("goes on")["data"], "used again when it was whole"
    result.stdout.fnmatch_lines(
        ["*kafka cluster*", "*topic test_fails* was created", "*killed node ? (leader of test_fails*"]
    )
    result.stdout.fnmatch_lines(["*no request ever met this*answered EndTxn with INVALID_TXN_STATE 2 times*"])
    result.stdout.fnmatch_lines(["*Kafka has no error 'NOT_A_LEADER'; did you mean *"])
    pages = sorted(path.parent.name for path in (pytester.path / "reports").glob("*/report.html"))
    assert [page.rpartition("_test_")[2] for page in pages] == ["fails", "hangs", "mistaken", "never"]
    page = (pytester.path / "reports" / pages[0] / "report.html").read_text()
    assert "killed node" in page
    assert nothing_is_left(notes.folders(), set())


# --- how runs end ---------------------------------------------------------------------------------------------------


SLOW = """
    import time
    from support import note

    def test_shared(kafka_cluster):
        note("shared", kafka_cluster)
        time.sleep(600)

    def test_broken(kafka_faults):
        note("broken", kafka_faults)
        time.sleep(600)
"""


def node_pids(folders: set[str]) -> set[int]:
    runs = [load_run(folder) for folder in folders]
    return {node.pid for each in runs if each is not None for node in each.nodes}


def started(*tests: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *PLUGIN, *tests]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def kill_and_see_all_of_it_go(run: subprocess.Popen[bytes], folders: set[str]) -> None:
    pids = node_pids(folders)
    assert len(pids) == 3 * len(folders)
    run.send_signal(signal.SIGKILL)
    run.wait(LIMIT_S)
    wait_until(lambda: nothing_is_left(folders, pids), what="nothing is left", deadline_s=LIMIT_S)


def test_a_killed_run_leaves_no_process_and_no_folder(pytester: pytest.Pytester, notes: Notes):
    """The workers, which share a cluster, outlive the process that is killed."""
    pytester.makepyfile(test_slow=SLOW, test_slow_too=SLOW)
    with started("-n", "2", "test_slow.py::test_shared", "test_slow_too.py::test_shared") as run:
        try:
            wait_until(lambda: len(notes.all()) == 2, what="the tests run", deadline_s=LIMIT_S)
            assert len({note["pid"] for note in notes.all()}) == 2
            assert len(notes.folders()) == 1, "one for both"
            kill_and_see_all_of_it_go(run, notes.folders())
        finally:
            run.kill()


def parent_of(pid: int) -> int:
    """Behind the title of the process, which may have spaces and brackets."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.long
def test_of_two_runs_at_the_same_time_one_is_killed_and_the_other_one_goes_on(pytester: pytest.Pytester, notes: Notes):
    """Each with two workers."""
    pytester.makepyfile(test_slow=SLOW)
    with started("-n", "2", "test_slow.py") as one, started("-n", "2", "test_slow.py") as other:
        try:
            wait_until(lambda: len(notes.all()) == 4, what="four tests run", deadline_s=LIMIT_S)
            assert len(notes.folders()) == 4, "no run has a cluster of another one"
            killed = {note["data"] for note in notes.all() if parent_of(note["pid"]) == one.pid}
            others = notes.folders() - killed
            assert len(killed) == len(others) == 2
            other_pids = node_pids(others)
            assert len(other_pids) == 6
            kill_and_see_all_of_it_go(one, killed)
            assert all(is_alive(pid) for pid in other_pids)
            assert all(map(os.path.exists, others))
            other.send_signal(signal.SIGINT)
            other.wait(LIMIT_S)
            wait_until(lambda: nothing_is_left(others, other_pids), what="nothing is left", deadline_s=LIMIT_S)
        finally:
            one.kill()
            other.kill()


# --- other people's projects ----------------------------------------------------------------------------------------

LOADED = """
    import sys

    def pytest_unconfigure(config):
        ours = ("kraft", "metadata", "replication", "msgspec", "aiohttp", "http")
        print("LOADED", *sorted(name for name in sys.modules if name.partition(".")[0] in ours))
"""


def test_a_suite_that_does_not_use_it_loads_one_module(pytester: pytest.Pytester):
    pytester.makeconftest(LOADED)
    pytester.makepyfile("def test_nothing(): pass")
    result = run(pytester)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["LOADED kraft kraft.testing kraft.testing.plugin"])


IMPORT = """
import time
import pytest
from _pytest import main
begun = time.process_time_ns()
import kraft.testing.plugin
print(time.process_time_ns() - begun)
"""


def test_a_suite_that_does_not_use_it_waits_less_than_10_ms_for_it():
    """Processor time, the least of five: some 1.5 ms. What other modules of ours took would be ten times that."""
    command = [*PYTHON, "-c", IMPORT]
    took = [int(subprocess.run(command, capture_output=True, check=True, timeout=LIMIT_S).stdout) for _ in range(5)]
    assert min(took) < 10_000_000


def test_a_suite_that_does_not_use_it_prints_what_it_printed_before(pytester: pytest.Pytester):
    pytester.makepyfile("def test_nothing(): pass")

    def printed(*options: str) -> list[str]:
        result = pytester.runpytest_subprocess(
            "-p", "no:kraft", "-p", "no:schemathesis", "-p", "no:cacheprovider", *options
        )
        result.assert_outcomes(passed=1)
        assert not result.errlines
        return [line for line in result.outlines if " passed in " not in line]

    assert printed() == printed("-p", "kraft.testing.plugin")


def test_its_options_markers_and_fixtures_are_explained(pytester: pytest.Pytester):
    run(pytester, "--help").stdout.fnmatch_lines(
        ["Kafka clusters inside tests (kraft):", "*--kafka-report=FOLDER*", "*HTML report*"]
    )
    run(pytester, "--markers").stdout.fnmatch_lines(
        [
            "@pytest.mark.kafka_cluster(nodes=3, settings={}, secure=False): this test gets a cluster of its own*",
            "@pytest.mark.kafka_topic(partitions=1, replicas=None, configs={}): properties of the topic of *",
        ]
    )
    said = run(pytester, "--fixtures").stdout.str()
    own = said.partition("fixtures defined from kraft.testing.plugin")[2].partition("fixtures defined")[0]
    assert [name for name in FIXTURES if f"\n{name}" not in own] == []
    assert "no docstring" not in own


@pytest.mark.long
def test_a_project_keeps_its_own_metadata_replication_and_secrets(pytester: pytest.Pytester, notes: Notes):
    own_modules(pytester)
    pytester.makepyfile(
        """
        import asyncio, sys
        import metadata, replication, secrets
        from kraft.testing import Sent
        from support import note, read

        def test_own(kafka_cluster, kafka_faults, kafka_topic):
            assert metadata.OWN and replication.OWN and secrets.OWN
            kafka_faults.restart(1)
            assert kafka_cluster.verdict([]).is_clean
            note("own", kafka_faults)

        def test_shared(kafka_cluster, kafka_topic):
            assert read(kafka_cluster, kafka_topic) == []
            assert kafka_cluster.verdict([Sent(kafka_topic, "x", outcome="failed")]).failed == 1
            ours = [name for name in sys.modules if name.partition(".")[0] in ("metadata", "replication", "secrets")]
            assert sorted(ours) == ["metadata", "replication", "secrets"]
            note("shared", kafka_cluster)
        """
    )
    run(pytester).assert_outcomes(passed=2)
    assert nothing_is_left(notes.folders(), set())


def test_it_is_an_entry_point_of_this_distribution():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"kraft": "kraft.testing.plugin"}
