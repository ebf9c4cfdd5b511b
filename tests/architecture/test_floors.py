"""`tests/floors.txt` is what pyproject.toml allows at least: CI shows that it works with that."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOOR = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(>=|==)(?P<version>\d[^,;\s]*)")


def test_the_constraints_are_the_floors_of_all_dependencies() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = []
    for dependency in dependencies:
        found = FLOOR.match(dependency)
        assert found, f"{dependency} has no floor: write name>=version"
        floors.append(f"{found['name']}=={found['version']}")
    lines = (ROOT / "tests" / "floors.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == floors, "write the floors of pyproject.toml there"
