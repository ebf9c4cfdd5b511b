from __future__ import annotations

import pytest

from metadata.quorum.durable import DamagedFile
from metadata.quorum.library import Voter
from metadata.quorum.snapshots import SnapshotStore, decode_snapshot
from tests.unit.quorum.disk import DIRECTORY, entry, new_disk

PATH = f"{DIRECTORY}/snapshot"


class Images:
    body = b"an image"

    def snapshot(self) -> tuple[int, int, bytes]:
        return 7, 1, self.body

    def install(self, body: bytes, *, index: int) -> None:
        raise AssertionError((body, index))


def _taken() -> tuple[SnapshotStore, Images, list[str], object]:
    disk, files = new_disk()
    images, problems = Images(), list[str]()
    store = SnapshotStore(files, DIRECTORY, images=images, on_taken=lambda *_: None, on_failed=problems.append)
    store.last_applied = lambda: (entry(8), entry(9))
    store.serialize((None, entry(5), entry(4), None), 4)
    return store, images, problems, disk


def test_a_damaged_snapshot_is_never_sent_but_taken_again() -> None:
    store, images, problems, disk = _taken()
    images.body = b"a newer image"
    disk.flip_bit(PATH, offset=40)  # type: ignore[attr-defined]
    piece, is_first, is_last = store.getTransmissionData(Voter(2))
    assert is_first
    assert is_last
    header, body = decode_snapshot(piece, path="sent")
    assert (header.previous, header.last, body) == (entry(8), entry(9), b"a newer image")
    assert "the checksum is wrong" in problems[0]
    assert len(problems) == 1


def test_a_damaged_snapshot_that_cannot_be_taken_again_stops_the_node() -> None:
    store, _, problems, disk = _taken()
    disk.flip_bit(PATH, offset=40)  # type: ignore[attr-defined]
    disk.is_full = True  # type: ignore[attr-defined]
    with pytest.raises(DamagedFile):
        store.getTransmissionData(Voter(2))
    assert "No space" in problems[1]
