"""Logs on real disks: kept and dropped by size and time, cut on request, looked up by time, stored as sent, and larger
than the memory of the node."""

from __future__ import annotations

import time
from pathlib import Path

import crc32c
import pytest

from kraft.client.response import Answer
from kraft.protocol.batches.header import CODEC_NAMES, whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import OffsetOutOfRange
from metadata.image import TopicIdPartition
from tests.integration.support.cluster import Cluster
from tests.integration.support.inside import forward
from tests.integration.support.reading import RECORD_BATCH, page, read_all, values, wait_for_values
from tests.integration.support.waiting import wait_until

HEADER_AFTER_EPOCH = 16
"""Base offset, length and leader epoch are the leader's; from the magic byte on a batch is its producer's."""


@pytest.fixture
def nodes(shared_cluster: Cluster) -> Cluster:
    return shared_cluster


def write_raw(nodes: Cluster, topic: str, batch: bytes) -> int:
    """The offset of its first record."""
    path = f"/topics/{topic}/partitions/0"
    outcome = nodes.send(nodes.serving[0], "POST", path, batch, Content_Type=RECORD_BATCH)
    assert isinstance(outcome, Answer), outcome
    (entry,) = outcome.json()["offsets"]
    assert entry["error_code"] is None, entry
    return int(entry["offset"])


def batch_at(timestamp_ms: int, *values: bytes, compression: str = "none") -> bytes:
    return bytes(build_batch([NewRecord(b"k", value, [], timestamp_ms) for value in values], compression=compression))


def log_start(nodes: Cluster, topic: str, node_id: int = 1) -> int:
    return int(page(nodes, node_id, topic, 0, "offset=latest&timeout=0").headers["x-log-start-offset"])


def segment_bases(nodes: Cluster, node_id: int, topic: str) -> list[int]:
    return sorted(int(path.stem) for path in nodes.folder(node_id, topic).glob("*.log"))


def test_retention_by_size_drops_whole_old_segments_on_every_replica(nodes: Cluster):
    nodes.create_topic("sized", segment_bytes="20000", retention_bytes="50000")
    for number in range(60):
        nodes.write_all("sized", [f"{number}-{n}-" + "x" * 80 for n in range(25)])
    wait_until(lambda: log_start(nodes, "sized") > 0, what="old segments to go")
    wait_until(
        lambda: all(len(nodes.log_bytes(node_id, "sized")) < 50_000 + 20_000 for node_id in nodes.ids),
        what="every replica to be as small as it will be",
    )
    start = log_start(nodes, "sized")
    for node_id in nodes.ids:
        assert start in segment_bases(nodes, node_id, "sized"), "S1: whole segments"
    below = page(nodes, 2, "sized", 0, f"offset={start - 1}")
    assert (below.status, below.json()["kafka_code"]) == (400, 1)
    found = read_all(nodes, 3, "sized")
    assert [record.offset for record in found] == list(range(start, 1_500))
    assert str(found[-1].value).startswith("59-24-")


def test_retention_by_time_goes_by_the_largest_timestamp(nodes: Cluster):
    nodes.create_topic("timed", segment_bytes="2000", retention_ms="60000")
    now_ms, hour_ms = time.time_ns() // 1_000_000, 3_600_000
    for _ in range(10):
        write_raw(nodes, "timed", batch_at(now_ms - hour_ms, b"old" * 200))
    write_raw(nodes, "timed", batch_at(now_ms, b"new" * 500))
    wait_until(lambda: log_start(nodes, "timed") > 5, what="what is older than a minute to go")
    assert str(values(nodes, 2, "timed")[-1]) == "new" * 500


def test_delete_records_moves_the_start_of_every_replica(nodes: Cluster):
    nodes.create_assigned("cut", [1, 2, 3])
    nodes.write_all("cut", [f"{n}" for n in range(100)])
    where = TopicIdPartition(nodes.topic_id("cut"), 0)
    low = forward(nodes, 1, lambda way: way.delete_records(where, offset=60, timeout_ms=60_000))
    assert low == 60
    for node_id in nodes.ids:
        assert values(nodes, node_id, "cut") == [f"{n}" for n in range(60, 100)]
    with pytest.raises(OffsetOutOfRange):
        forward(nodes, 1, lambda way: way.delete_records(where, offset=101, timeout_ms=60_000))
    nodes.kill(1)
    nodes.wait_for_leader("cut", other_than=1)
    wait_for_values(nodes, nodes.serving[0], "cut", [f"{n}" for n in range(60, 100)])  # the next leader knows the start
    nodes.restart(1)
    nodes.wait_for_isr("cut", 0, nodes.ids)


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_a_compressed_batch_is_stored_as_sent_everywhere(nodes: Cluster, codec: str):
    topic = f"codec-{codec}"
    nodes.create_topic(topic, retention_ms="-1")
    sent = batch_at(1_700_000_000_000, *(b"value %d " % n * 20 for n in range(50)), compression=codec)
    write_raw(nodes, topic, sent)
    for node_id in nodes.ids:
        got = page(nodes, node_id, topic, 0, "offset=0&timeout=0", accept=RECORD_BATCH).body
        assert got[HEADER_AFTER_EPOCH:] == sent[HEADER_AFTER_EPOCH:]
        wait_until(lambda on=node_id, whole=got: nodes.log_bytes(on, topic) == whole, what="the copy on disk")
        assert values(nodes, node_id, topic)[49] == "value 49 " * 20
    assert int.from_bytes(got[17:21], "big") == crc32c.crc32c(got[21:])


@pytest.mark.parametrize("kind", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_the_leader_compresses_as_the_topic_asks_and_all_replicas_hold_that(nodes: Cluster, kind: str):
    """`large` is more than an event loop compresses: a worker does it."""
    topic, wanted = f"stored-{kind}", "none" if kind == "uncompressed" else kind
    nodes.create_topic(topic, compression_type=kind, retention_ms="-1")
    small, large = [b"value %d " % n * 20 for n in range(50)], [b"large %d " % n * 40 for n in range(2_000)]
    sent = [*small, *large, *small]
    for values_sent, codec in ((small, "none"), (large, "none"), (small, "gzip")):
        write_raw(nodes, topic, batch_at(1_700_000_000_000, *values_sent, compression=codec))
    for node_id in nodes.ids:
        got = page(nodes, node_id, topic, 0, "offset=0&timeout=0", accept=RECORD_BATCH).body
        assert {header.codec_name for _, header in whole_batches(got)} == {wanted}
        assert [record.value for record in read_batches(got, checks_crc=True)] == sent
        wait_until(lambda on=node_id, whole=got: nodes.log_bytes(on, topic) == whole, what="the copy on disk")


def test_lookup_by_timestamp_over_many_segments(nodes: Cluster):
    nodes.create_topic("clock", segment_bytes="1000", retention_ms="-1")
    first_ms, step_ms = 1_600_000_000_000, 1_000
    for number in range(100):
        write_raw(nodes, "clock", batch_at(first_ms + number * step_ms, b"%d" % number))
    assert len(segment_bases(nodes, 1, "clock")) > 5

    def offset_at(query: str, node_id: int) -> int:
        answer = page(nodes, node_id, "clock", 0, f"offset={query}&timeout=0&max_bytes=1")
        return int(answer.json()[0]["offset"]) if answer.json() else int(answer.headers["x-next-offset"])

    for node_id in nodes.ids:
        for number in (0, 1, 37, 99):
            assert offset_at(f"ts:{first_ms + number * step_ms}", node_id) == number
        assert offset_at(f"ts:{first_ms + 36 * step_ms + 1}", node_id) == 37
        assert offset_at(f"ts:{first_ms - 1}", node_id) == 0
        assert offset_at(f"ts:{first_ms + 100 * step_ms}", node_id) == 100, "later than all: the end"
        assert offset_at("ts:2020-09-13T12:26:40Z", node_id) == 0
        assert (offset_at("earliest", node_id), offset_at("latest", node_id)) == (0, 100)


@pytest.mark.slow
def test_flush_messages_1_survives_kill_of_all(nodes: Cluster):
    nodes.create_topic("flushed", flush_messages="1")
    for number in range(20):
        nodes.write_all("flushed", [f"{number}"])
    nodes.kill_all()
    nodes.start_again()
    wait_for_values(nodes, 2, "flushed", [f"{number}" for number in range(20)])


@pytest.mark.slow
def test_a_lost_index_is_built_again(nodes: Cluster):
    nodes.create_topic("indexed", segment_bytes="20000")
    for number in range(20):
        nodes.write_all("indexed", [f"{number}-{n}-" + "x" * 80 for n in range(20)])
    nodes.stop(2)
    for path in (*nodes.folder(2, "indexed").glob("*.index"), *nodes.folder(2, "indexed").glob("*.timeindex")):
        path.unlink()
    nodes.restart(2)
    nodes.wait_for_isr("indexed", 0, nodes.ids)
    assert len(read_all(nodes, 2, "indexed")) == 400
    log_files = sorted(path.stem for path in nodes.folder(2, "indexed").glob("*.log"))
    assert sorted(path.stem for path in nodes.folder(2, "indexed").glob("*.index")) == log_files


# Larger than memory


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.slow
def test_a_log_far_larger_than_memory_is_written_and_read(nodes: Cluster):
    """Half a gigabyte through nodes of 100 MB; what they hold does not grow with the log."""
    nodes.create_assigned("large", [1, 2, 3], segment_bytes="50000000", retention_ms="-1")
    batch = batch_at(time.time_ns() // 1_000_000, *(b"%07d" % n + b"x" * 993 for n in range(900)))
    for number in range(100):
        assert write_raw(nodes, "large", batch) == number * 900
    early = {node.id: resident_bytes(node.pid) for node in nodes.nodes}
    for number in range(100, 550):
        assert write_raw(nodes, "large", batch) == number * 900
    offset = 0
    while offset < 550 * 900:
        answer = page(nodes, 2, "large", 0, f"offset={offset}&timeout=0&max_bytes=4000000", accept=RECORD_BATCH)
        assert answer.is_success, answer.status
        offset = int(answer.headers["x-next-offset"])
    for node in nodes.nodes:
        assert resident_bytes(node.pid) < early[node.id] + 60_000_000
        assert resident_bytes(node.pid) < 250_000_000
