"""The observer's copy on a disk that fills up and loses power."""

from __future__ import annotations

import pytest

from kraft.chaos.worlds.simulated.disk import SimulatedFiles
from metadata.image import MetadataImage
from metadata.quorum.observer_store import ObserverStore
from metadata.records import ControllerEpochRecord, Record, encode_record
from tests.unit.quorum.cluster import setting
from tests.unit.quorum.disk import new_disk

RECORDS = "/o/records"
HEADER_BYTES = 20


def _open(files: SimulatedFiles) -> ObserverStore:
    return ObserverStore(files, "/o", cluster_id="c", node_id=7, snapshot_bytes=2_000)


def _append(store: ObserverStore, image: MetadataImage, *records: Record) -> MetadataImage:
    after = image.apply(records)
    store.append(after, tuple(encode_record(record) for record in records), records)
    return after


def test_a_full_disk_leaves_no_gap_in_the_copy() -> None:
    disk, files = new_disk()
    store = _open(files)
    image = _append(store, store.load(), ControllerEpochRecord(epoch=1, node_id=1), setting("a"))
    disk.is_full = True
    missed = image.apply([setting("b")])
    with pytest.raises(OSError, match="No space"):
        _append(store, image, setting("b"))
    with pytest.raises(OSError, match="No space"):
        _append(store, missed, setting("c"))
    disk.is_full = False
    image = _append(store, missed.apply([setting("c")]), setting("d"))
    image = _append(store, image, setting("e"))
    store.close()
    again = _open(files)
    assert again.load() == image
    assert again.problem is None


def test_after_a_power_loss_the_copy_is_an_older_image_or_none() -> None:
    for seed in range(60):
        disk, files = new_disk(seed)
        store = _open(files)
        images = [store.load()]
        images.append(_append(store, images[-1], ControllerEpochRecord(epoch=1, node_id=1)))
        for number in range(seed):
            images.append(_append(store, images[-1], setting(f"s{number}")))
        disk.lose_power()
        if files.exists("/o"):
            assert _open(files).load() in images


def test_a_bit_that_flips_anywhere_in_the_records_gives_an_older_image_or_none() -> None:
    disk, files = new_disk()
    store = _open(files)
    images = [store.load()]
    images.append(_append(store, images[-1], ControllerEpochRecord(epoch=1, node_id=1), setting("a"), setting("b")))
    store.save_snapshot(images[-1])  # so the records do not begin at 0
    for name in ("c", "d", "e", "f"):
        images.append(_append(store, images[-1], setting(name)))
    store.close()
    whole = bytes(disk.file(RECORDS).data)
    for offset in range(len(whole)):
        for bit in range(8) if offset < HEADER_BYTES else (offset % 8,):
            disk.file(RECORDS).data[:] = whole
            disk.flip_bit(RECORDS, offset=offset, bit=bit)
            again = _open(files)
            assert again.load() in images[1:], (offset, bit)
            again.close()


@pytest.mark.parametrize("zeros", [1, 8, 512])
def test_zeros_in_place_of_anything_in_the_records_give_an_older_image_or_none(zeros: int) -> None:
    """A loss of power takes sectors, and where in a record one begins is chance."""
    disk, files = new_disk()
    store = _open(files)
    images = [store.load()]
    images.append(_append(store, images[-1], ControllerEpochRecord(epoch=1, node_id=1)))
    for name in ("a", "b", "c"):
        images.append(_append(store, images[-1], setting(name)))
    store.close()
    whole = bytes(disk.file(RECORDS).data)
    for offset in range(len(whole)):
        taken = min(zeros, len(whole) - offset)
        disk.file(RECORDS).data[:] = whole[:offset] + bytes(taken) + whole[offset + taken :]
        again = _open(files)
        assert again.load() in images, offset
        again.close()
