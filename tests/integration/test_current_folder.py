"""Nothing that lies in the folder where a person works is run by what we start."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import kraft
from kraft.launcher.processes import NODE_COMMAND
from kraft.launcher.python import PYTHON
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import BOTH, write_config

HOSTILE = ("secrets", "metadata", "kraft", "replication", "msgspec")
"""The standard library's, ours and another's, each of which a node imports."""
MARK = "import os\nopen(os.path.join(os.path.dirname(os.path.abspath(__file__)), __name__ + '.was-run'), 'w').close()\n"
QUIET = '''\
from kraft.chaos.model import Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "quiet",
    question="What runs a scenario?",
    brokers=[1],
    controllers=[1],
    topics=[Topic(name="t", assignment=[[1]])],
    clients=[Producer(name="p", topic="t", limit=20)],
    expect=Expect(),
)
async def quiet(run: ScenarioRun) -> None:
    """Nothing happens."""
    await run.until(lambda now: now.done("p"))
'''
LIMIT_S = 240


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(MARK)
    return folder


def run(*arguments: str, cwd: Path) -> str:
    """The command that pip installs has its own folder on the path of modules, as Python with -P has none."""
    command = [*PYTHON, "-m", "kraft", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def was_run(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.was-run"))


def test_the_folder_would_be_hostile_to_python_without_p(hostile: Path) -> None:
    subprocess.run([PYTHON[0], "-m", "kraft"], cwd=hostile, capture_output=True, timeout=60, check=False)
    assert was_run(hostile)


def test_nodes_start_in_hostile_folder(stopped_cluster: Cluster, hostile: Path, tmp_path: Path) -> None:
    cluster = stopped_cluster
    config = write_config(tmp_path / "cluster.toml", roles={1: BOTH})
    summary = json.loads(run("up", config, "--detach", "--free-ports", "--json", "--data", cluster.data, cwd=hostile))
    cluster.ever_started |= {node["pid"] for node in summary["nodes"]}
    run("node", "restart", "1", "--data", cluster.data, cwd=hostile)
    cluster.ever_started.add(cluster.node(1).pid)
    log = Path(cluster.node(1).log).read_text()
    ours = os.path.dirname(os.path.abspath(kraft.__file__))
    assert log.count(f"node 1 runs kraft {kraft.__version__} from {ours}\n") == 2, log
    assert was_run(hostile) == []


@pytest.mark.long
@pytest.mark.timeout(LIMIT_S)
def test_a_scenario_runs_in_a_hostile_folder(hostile: Path) -> None:
    (hostile / "quiet.py").write_text(QUIET)
    run("scenario", "run", "quiet.py", cwd=hostile)
    assert was_run(hostile) == []


def test_what_python_s_path_names_on_purpose_is_still_loaded(tmp_path: Path) -> None:
    """Faults are planted so."""
    (tmp_path / "sitecustomize.py").write_text("print('planted')")
    command = [*NODE_COMMAND, "--help"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("planted")
