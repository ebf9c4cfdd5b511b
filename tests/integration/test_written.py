"""Data folders of earlier versions start with this one and lose nothing; one of a later version is refused in words."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kraft.client.response import Answer
from kraft.launcher.processes import is_alive
from metadata.image_codec import NEWEST_VERSION
from metadata.quorum.durable import encode_document
from metadata.quorum.snapshots import SNAPSHOT_MAGIC, decode_snapshot
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import write_config
from tests.integration.support.forks import FORKS
from tests.integration.support.reading import values
from tests.integration.support.waiting import NotYet, wait_until
from tests.integration.written import contents
from tests.integration.written.make import FOLDER, SETTINGS

NAMES = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))
TEXT = "application/vnd.kafka.text.v2+json"
BINARY = "application/vnd.kafka.binary.v2+json"
START_LIMIT_S = 60


@dataclass(frozen=True, kw_only=True)
class Written:
    cluster: Cluster
    produced: list[dict[str, Any]]
    facts: dict[str, Any]


def unpack(name: str, folder: Path) -> Cluster:
    """A copy of the folder; its cluster's id and secret are those that it keeps itself."""
    with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    config = Path(write_config(folder / "cluster.toml", settings=SETTINGS))
    given = {"cluster_id": folder / "data" / "cluster.id", "secret": folder / "data" / "cluster.secret"}
    lines = [line for line in config.read_text().splitlines() if not line.startswith(tuple(given))]
    config.write_text("\n".join([*(f'{key} = "{path.read_text().strip()}"' for key, path in given.items()), *lines]))
    return Cluster(data=str(folder / "data"), config=str(config))


@pytest.fixture(scope="module", params=NAMES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    document = json.loads((FOLDER / f"{request.param}.json").read_text())
    cluster = unpack(request.param, tmp_path_factory.mktemp("written"))
    try:
        cluster.start()
        yield Written(cluster=cluster, produced=document["produced"], facts=document["facts"])
    finally:
        cluster.destroy()
        sys.stderr.write(cluster.logs())


def plain(facts: Any) -> Any:
    return json.loads(json.dumps(facts))


def wait_for_facts(cluster: Cluster, facts: dict[str, Any], *, node_id: int) -> None:
    """A node that has just started may have records that it does not show yet, and groups that it loads."""

    def are_there() -> bool:
        found = plain(contents.look(cluster, node_id=node_id))
        if found != facts:
            raise NotYet("\n".join(differences(facts, found)))
        return True

    wait_until(are_there, deadline_s=60, what=f"all that was written at node {node_id}")


def differences(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            yield from differences(wanted.get(key), found.get(key), f"{where}/{key}")
    elif wanted != found:
        yield f"{where}: {found!r} instead of {wanted!r}"


def test_every_record_offset_setting_and_group_is_there_at_every_node(written: Written) -> None:
    written.cluster.heal()
    for node_id in written.cluster.ids:
        wait_for_facts(written.cluster, written.facts, node_id=node_id)


def test_a_repeated_batch_of_that_time_is_a_duplicate(written: Written) -> None:
    wait_for_facts(written.cluster, written.facts, node_id=1)
    for node_id in written.cluster.ids:
        assert contents.send_again(written.cluster, written.produced, node_id=node_id) == written.produced
    wait_for_facts(written.cluster, written.facts, node_id=1)


def test_it_goes_on_where_it_was(written: Written) -> None:
    """The next record, the next read of a consumer, and another start."""
    cluster = written.cluster
    wait_for_facts(cluster, written.facts, node_id=1)
    for partition in range(contents.TOPICS["events"]):
        cluster.write_all("events", ["after"], partition=partition)
        wait_until(lambda of=partition: values(cluster, 2, "events", of)[-1] == "after", what="the new record")
    served = []
    for consumer in contents.GROUPS["alive"]:
        path = f"/consumers/alive/instances/{consumer}/records?timeout=3000"
        answer = cluster.send(2, "GET", path, Accept=BINARY)
        assert isinstance(answer, Answer), answer
        assert answer.is_success, answer
        served += [(record["topic"], record["partition"], record["offset"]) for record in answer.json()]
    committed = written.facts["groups"]["alive"]["committed"]
    firsts = {
        place: min(offset for *where, offset in served if tuple(where) == place) for place in {s[:2] for s in served}
    }
    assert {f"{topic}-{partition}": offset for (topic, partition), offset in firsts.items()} == committed
    cluster.stop_all()
    cluster.start_again()
    for partition in range(contents.TOPICS["events"]):
        wait_until(lambda of=partition: values(cluster, 3, "events", of)[-1] == "after", what="the new record")


# A folder of a later version


def in_journal(folder: Path) -> None:
    path = folder / "__cluster_metadata" / "journal"
    path.write_bytes(b"KRJRNL2\n" + path.read_bytes()[8:])


def in_vote(folder: Path) -> None:
    path = folder / "__cluster_metadata" / "vote"
    path.write_bytes(b"KRVOTE2\n" + path.read_bytes()[8:])


def in_snapshot(folder: Path) -> None:
    path = folder / "__cluster_metadata" / "snapshot"
    path.write_bytes(b"KRSNAP2\n" + path.read_bytes()[8:])


def in_image(folder: Path) -> None:
    """The CRC of the snapshot's body is in its header."""
    path = folder / "__cluster_metadata" / "snapshot"
    header, body = decode_snapshot(path.read_bytes(), path=str(path))
    newer = body[:8] + bytes([NEWEST_VERSION + 1]) + body[9:]
    fields = msgspec.to_builtins(header) | {"crc": zlib.crc32(newer)}
    path.write_bytes(encode_document(SNAPSHOT_MAGIC, msgspec.json.encode(fields)) + newer)


def in_owner(folder: Path) -> None:
    path = folder / "__cluster_metadata" / "meta"
    payload = json.loads(path.read_bytes()[16:])
    path.write_bytes(encode_document(b"KRMETA1\n", json.dumps({**payload, "version": 2, "more": "x"}).encode()))


def in_properties(folder: Path) -> None:
    path = folder / "logs" / "meta.properties"
    path.write_text(path.read_text().replace("version=1", "version=2"))


LATER: dict[str, Callable[[Path], None]] = {
    "journal": in_journal,
    "vote": in_vote,
    "snapshot": in_snapshot,
    "image": in_image,
    "meta": in_owner,
    "meta.properties": in_properties,
}


PROGRAM = "journal"
"""The one whose node is a program, as a person starts it; the others are forks, which start in a tenth of the time."""


@pytest.mark.parametrize("where", LATER)
def test_a_folder_of_a_later_version_is_refused_in_words_and_stays_as_it_is(where: str, tmp_path: Path) -> None:
    cluster = unpack(NAMES[-1], tmp_path)
    folder = Path(cluster.data) / "node-1"
    LATER[where](folder)
    before = {path: path.read_bytes() for path in kept_files(folder)}
    start = start_and_wait if where != PROGRAM else run_in_foreground
    said = start(cluster, tmp_path)
    file = "snapshot" if where == "image" else where
    assert f"/{file}" in said
    assert "a newer version wrote it" in said
    assert "Start that version or a later one" in said
    assert "Traceback" not in said
    changed = [path for path, data in before.items() if not path.exists() or path.read_bytes() != data]
    assert not changed, changed


def run_in_foreground(cluster: Cluster, _folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kraft", "node", "--config", str(cluster.config), "--id", "1", "--data", cluster.data],
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )
    assert done.returncode == 1, done
    return done.stderr


def start_and_wait(cluster: Cluster, folder: Path) -> str:
    log = folder / "node.log"
    pid = FORKS(config=str(cluster.config), node_id=1, data=cluster.data, log=str(log), parent_pid=None, variables={})
    cluster.ever_started.add(pid)
    try:
        wait_until(lambda: not is_alive(pid), deadline_s=START_LIMIT_S, what="the end of the node")
    finally:
        cluster.destroy()
    return log.read_text()


def kept_files(folder: Path) -> list[Path]:
    """The metadata log, all records, and whose they are; the rest a start may write anew from these."""
    logs = folder / "logs"
    return [*(folder / "__cluster_metadata").iterdir(), *logs.rglob("*.log"), logs / "meta.properties"]
