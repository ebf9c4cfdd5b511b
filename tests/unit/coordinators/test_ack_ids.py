"""Ids of acknowledgements: what was made for a group is read for it, and nothing else."""

from __future__ import annotations

from uuid import UUID

import pytest

from kraft.coordinators.shares.ack_ids import AckId, AckIds
from kraft.protocol.errors import InvalidRequest
from metadata.image import TopicIdPartition

IDS = AckIds(b"key of the cluster")
LARGEST = AckId(
    TopicIdPartition(UUID(int=2**128 - 1), 2**31 - 1),
    2**63 - 1,
    2**31 - 1,
    2**16 - 1,
    2**63 - 1,
    2**31 - 1,
    UUID(int=7),
)
SMALLEST = AckId(TopicIdPartition(UUID(int=0), 0), 0, 0, 1, 0, 0, UUID(int=0))


@pytest.mark.parametrize("ack_id", [LARGEST, SMALLEST])
def test_an_id_is_read_as_it_was_written(ack_id: AckId):
    text = IDS.text("group", ack_id)
    assert IDS.read("group", text) == ack_id
    assert len(text) <= 120
    assert len(ack_id.member) == 36, "the longest id that a member may have"


def test_each_changed_character_is_refused():
    text = IDS.text("group", LARGEST)
    for at in range(len(text)):
        forged = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        if at == len(text) - 1:
            continue  # its last bits are no part of any byte
        with pytest.raises(InvalidRequest, match="was not made for group"):
            IDS.read("group", forged)


@pytest.mark.parametrize("text", ["", "A", "====", "ä" * 10, "no id", "A" * 200, "\0"])
def test_what_is_no_id_is_refused(text: str):
    with pytest.raises(InvalidRequest):
        IDS.read("group", text)


def test_another_group_and_another_cluster_refuse_it():
    text = IDS.text("group", SMALLEST)
    with pytest.raises(InvalidRequest):
        IDS.read("other", text)
    with pytest.raises(InvalidRequest):
        AckIds(b"another key").read("group", text)
