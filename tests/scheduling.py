"""Which tests run in one process one after the other, and what begins first, when several processes share the run.

The tests of a file stay together, so that they can share what is made once for them. Files that share a cluster, or
the trees of all modules, stay together too. Where tests share nothing and each takes seconds, each goes to whichever
process is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ATTACKS = Path(__file__).parent / "integration" / "attacks"
SHARES: Mapping[str, tuple[str, ...]] = {
    "fragile_cluster": (
        "test_cli_cluster.py",
        "test_cli_produce.py",
        "test_client.py",
        "test_client_groups.py",
        "test_client_queues.py",
        "test_delayed_rest.py",
        "test_failures.py",
        "test_groups.py",
        "test_queue_rest.py",
        "test_routes.py",
        "test_safe_retries.py",
        "test_transaction_flows.py",
        "test_transactions.py",
    ),
    "attacked_cluster": tuple(sorted(f"attacks/{path.name}" for path in ATTACKS.glob("test_*.py"))),
    "shared_cluster": ("test_bad_input.py", "test_busy.py", "test_storage.py", "test_topics.py"),
}
"""The cluster of a `conftest.py` in `tests/integration` -> the files of that folder that use it."""
SHARES_TREES = "tests/architecture/"
"""These tests read all modules; one process parses each once."""
SHARES_NOTHING = (
    "tests/simulation/",
    "tests/integration/test_scenario_cluster.py",
    "tests/integration/test_catalogue.py",
)
FIRST = ("tests/simulation/", "tests/integration/", "tests/architecture/", "tests/unit/wire/handlers/")
"""What takes long begins first, so that no process ends alone with it; the simulation computes while clusters wait."""

_TOGETHER = {f"tests/integration/{file}": cluster for cluster, files in SHARES.items() for file in files}


def together(nodeid: str) -> str:
    """Tests with the same answer run in one process."""
    file = nodeid.partition("::")[0]
    if nodeid.startswith(SHARES_TREES):
        return SHARES_TREES
    return nodeid if nodeid.startswith(SHARES_NOTHING) else _TOGETHER.get(file, file)


def costly_first(nodeid: str) -> int:
    """Sort key; the order is otherwise kept."""
    unit = together(nodeid)
    if unit in SHARES:
        return list(SHARES).index(unit)
    return len(SHARES) + next((place for place, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


class Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)
