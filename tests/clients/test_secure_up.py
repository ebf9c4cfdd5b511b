"""`kraft up --secure`: the lines that it shows, run by curl, librdkafka and aiokafka; the commands; a second start."""

from __future__ import annotations

import asyncio
import json
import shlex
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import confluent_kafka
import pytest

from kraft.launcher import live
from kraft.launcher.runfile import ClusterRun, load_run
from tests.integration.support.cluster import kraft

pytestmark = pytest.mark.long
DEADLINE_S = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRun]:
    data = str(tmp_path_factory.mktemp("secure") / "data")
    shown = kraft("up", "--secure", "--free-ports", "--detach", "--data", data).stdout
    run = load_run(data)
    assert run is not None
    assert run.client is not None
    try:
        assert live.first_commands(run) in shown
        assert live.kafka_commands(run) in shown
        assert (Path(run.client) / "password").read_text() not in shown
        yield run
    finally:
        kraft("down", "--data", data)


def _shell(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, timeout=DEADLINE_S, capture_output=True, text=True).stdout


def test_the_lines_of_curl_create_a_topic_and_write_to_it(run: ClusterRun) -> None:
    create, produce, consume = live.first_commands(run).replace(" \\\n", " ").splitlines()
    assert json.loads(_shell(create))["topic_name"] == "hello"
    assert [each["error_code"] for each in json.loads(_shell(produce))["offsets"]] == [None, None]
    assert json.loads(_shell(consume))[0]["value"] == {"n": 1}
    assert "hello" in kraft("topics", "list", "--data", run.data).stdout


def test_a_stranger_is_refused(run: ClusterRun) -> None:
    curl, *_ = live.first_commands(run).split(" --netrc-file")
    assert '"error_code":401' in _shell(f"{curl} {shlex.quote(run.nodes[0].rest + '/topics')}")


def test_the_lines_of_librdkafka_and_aiokafka_log_in(run: ClusterRun) -> None:
    lines = live.kafka_commands(run).splitlines()
    producer = eval(next(line for line in lines if line.startswith("confluent_kafka.")))
    assert isinstance(producer, confluent_kafka.Producer)
    producer.produce("hello", b"of librdkafka", partition=0)
    assert producer.flush(DEADLINE_S) == 0

    async def send() -> None:
        at = next(at for at, line in enumerate(lines) if line.startswith("aiokafka."))
        text = "\n".join(lines[at:])
        async with eval(text, {"aiokafka": aiokafka, "ssl": ssl, "open": open}) as own:
            await own.send_and_wait("hello", b"of aiokafka", partition=0)

    asyncio.run(asyncio.wait_for(send(), DEADLINE_S))
    read = kraft("consume", "hello", "--data", run.data).stdout
    assert "of librdkafka" in read
    assert "of aiokafka" in read


def test_a_second_start_has_the_same_password(run: ClusterRun) -> None:
    assert run.client is not None
    password = Path(run.client, "password").read_text()
    kraft("down", "--data", run.data)
    started = json.loads(kraft("up", "--secure", "--free-ports", "--detach", "--json", "--data", run.data).stdout)
    assert started["client"] == run.client
    assert Path(run.client, "password").read_text() == password
    assert "hello" in kraft("topics", "list", "--data", run.data).stdout
