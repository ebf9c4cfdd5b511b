"""The client and the checkers run in programs of other people, whose own modules may have the names of our packages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.unit.http.door import Door, with_door

PROGRAM = """
import sys
from kraft.client import AsyncClient, Client, to_json
import kraft.chaos.checkers.check, kraft.chaos.checkers.expectation, kraft.chaos.evidence, kraft.chaos.history
import kraft.client as library

for name in library.__all__:
    getattr(library, name)
with Client(sys.argv[1]) as client:
    client.admin.create_topic("t", partitions=2)
    with client.producer(compression_type="lz4") as producer:
        sent = [producer.send("t", to_json(number), key=str(number)) for number in range(10)]
    offsets = [each.result().offset for each in sent]
    with client.reader("t", offset="earliest", follows=False) as reader:
        values = sorted(record.json() for record in reader)
assert len(offsets) == 10 and values == list(range(10)), (offsets, values)
import metadata, replication
print(metadata.__file__, replication.__file__)
"""


def test_the_client_imports_no_module_that_a_program_may_have_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "metadata.py").write_text("images = ['a stranger']\n")
    (tmp_path / "replication").mkdir()
    (tmp_path / "replication" / "__init__.py").write_text("slots = 3\n")
    (tmp_path / "program.py").write_text(PROGRAM)

    async def story(door: Door) -> None:
        command = [sys.executable, "program.py", str(door.client.make_url(""))]
        ended = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
        own = [str(tmp_path / "metadata.py"), str(tmp_path / "replication" / "__init__.py")]
        assert ended.stdout.split() == own, ended.stdout

    with_door(story)
