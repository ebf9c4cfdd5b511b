"""Coordinators alone write internal topics; what none of them can have written keeps no group from loading."""

from __future__ import annotations

import json
import random

import pytest

from kraft.chaos.worlds.simulated.cluster import EVENTS, SimulatedCluster, SimulatedNode
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.classic_group import ClassicGroup
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.instance import decode_group_record
from kraft.coordinators.partition_loader import decoded_piece
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import InvalidTopicException
from metadata.image import TopicIdPartition
from replication.producers.origin import COORDINATOR
from replication.requests import ProduceOptions
from tests.unit.coordinators.test_coordinator_cluster import ask, commit, play
from tests.unit.coordinators.test_records_and_assignors import GOLDEN

GARBAGE: list[tuple[bytes, bytes | None]] = [
    (b"k", b"v"),
    (b"", b""),
    (bytes.fromhex("0001 0001 67 0001 74"), b"cut off"),
    (bytes.fromhex("0001 0001 67 0001 74 00000000"), b"\0"),
    (bytes.fromhex("0001 0001 67 0001 74 00000000"), b"\0\3" + b"\xff" * 14),
    (bytes.fromhex("0002 0001 67"), b"\0\3" + b"\x7f" * 40),
    (bytes.fromhex("7d00 0001 67 0001 69"), b"\0\0" + b"{"),
    (bytes.fromhex("7d00 0001 67 0001 69"), b"\0\0" + b'{"group": 1}'),
    (bytes.fromhex("7d00 0001 67 0001 69"), b"\0\0" + b"[" * 100_000),
    (bytes.fromhex("7d00 0001 67 0001 69"), b"\0\0" + b'"\xff"'),
]


def garbage() -> bytes:
    return build_batch([NewRecord(key, value, [], 1_700_000_000_000) for key, value in GARBAGE])


async def home_of(cluster: SimulatedCluster, group: str) -> tuple[SimulatedNode, TopicIdPartition]:
    """The node that coordinates a group, and the partition that keeps it."""
    first = cluster.alive[0].node
    assert first is not None
    coordinator = cluster.nodes[await cluster.alive[0].machine.run(first.groups.coordinator_of(group))]
    assert coordinator.node is not None
    shards = coordinator.node.broker.group_coordinator.shards.loaded()  # type: ignore[union-attr]
    return coordinator, next(shard.partition for shard in shards if group in shard.entries)


def events_of(node: SimulatedNode, name: str) -> list[dict[str, object]]:
    file = node.machine.environment.files.open(EVENTS, read_only=True)
    lines = [json.loads(line) for line in file.pread(0, file.size).splitlines()]
    file.close()
    return [line for line in lines if line["event"] == name]


def test_a_client_is_refused_at_any_node_and_nothing_is_written() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await ask(cluster.alive[0], commit("g", 1))
        home, where = await home_of(cluster, "g")
        for node in cluster.alive:
            assert node.node is not None
            before = home.node.broker.replicas.describe()[where].log_end_offset  # type: ignore[union-attr]
            produced = node.node.gateway.produce({where: garbage()}, ProduceOptions(-1, 5_000))
            outcome = (await node.machine.run(produced))[where]
            assert (outcome.error_code, outcome.is_appended) == (InvalidTopicException.code, False)
            assert "coordinators alone" in outcome.message or node is not home
            assert home.node.broker.replicas.describe()[where].log_end_offset == before  # type: ignore[union-attr]
        deleting = home.node.gateway.delete_records(where, offset=-1, timeout_ms=5_000)  # type: ignore[union-attr]
        with pytest.raises(InvalidTopicException, match="internal topic"):
            await home.machine.run(deleting)

    play(story)


def test_unreadable_group_record_is_skipped() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await ask(cluster.alive[0], commit("g", 1))
        home, where = await home_of(cluster, "g")
        wrote = home.node.broker.replicas.produce.outcomes(  # type: ignore[union-attr]
            {where: garbage()}, ProduceOptions(-1, 5_000), origin=COORDINATOR
        )
        assert (await home.machine.run(wrote))[where].error_code == 0
        await ask(cluster.alive[0], commit("g", 2))
        home.kill()
        survivor = cluster.alive[0]
        answer = await ask(survivor, r.FetchOffsets(group="g"))
        assert [row.offset for row in answer.offsets] == [2]
        await ask(survivor, commit("g", 3))
        await home.start()
        await cluster.wait_ready()
        skipped = {str(each["offset"]) for node in cluster.alive for each in events_of(node, "group_record_skipped")}
        assert len(skipped) == len(GARBAGE)
        loaded = [each["skipped"] for node in cluster.alive for each in events_of(node, "groups_loaded")]
        assert len(GARBAGE) in loaded

    play(story)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_stands_in_a_record_is_applied_or_skipped(seed: int) -> None:
    """No other exception escapes the decoder, and what it lets through can be applied."""
    rng = random.Random(seed)
    good = [(bytes.fromhex(key), bytes.fromhex(value)) for _, _, key, value in GOLDEN]
    for _ in range(2_000):
        key, value = (bytearray(each) for each in rng.choice([*good, *((k, v or b"") for k, v in GARBAGE[:-2])]))
        for data in (key, value):
            for _ in range(rng.randrange(3)):
                if data and rng.random() < 0.7:
                    data[rng.randrange(len(data))] = rng.randrange(256)
                else:
                    del data[rng.randrange(len(data) + 1) :]
        batch = build_batch([NewRecord(bytes(key), bytes(value), [], 1)])
        piece, next_offset = decoded_piece(batch, 0, decode_group_record)
        assert next_offset == 1
        assert len(piece.records) + len(piece.unreadable) <= 1
        for record in piece.records:
            GroupMetadata(group=ClassicGroup(group_id="g")).apply(record, now_ms=0, is_replay=True)
