"""The metadata folder of a voter of ours that begins with an image, as if it had just taken a snapshot of it."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

from metadata.environment import Files
from metadata.image import MetadataImage
from metadata.image_codec import encode_image
from metadata.quorum.durable import encode_document, replace_file
from metadata.quorum.identity import FILE_NAME as OWNER_FILE_NAME
from metadata.quorum.identity import Owner, check_owner
from metadata.quorum.journal import COMMIT_FILE_NAME, COMMIT_MAGIC
from metadata.quorum.journal import FILE_NAME as JOURNAL_FILE_NAME
from metadata.quorum.journal_format import MAGIC as JOURNAL_MAGIC
from metadata.quorum.journal_format import encode_frame
from metadata.quorum.library import NO_OP_COMMAND
from metadata.quorum.snapshots import FILE_NAME as SNAPSHOT_FILE_NAME
from metadata.quorum.snapshots import SNAPSHOT_MAGIC, SnapshotHeader
from metadata.quorum.votes import VoteStore

LAST_INDEX: Final = 2
"""Index of the last Raft entry that the snapshot covers: a snapshot needs two, and these have no content."""
_INDEX = struct.Struct(">Q")


def write_voter_folder(
    files: Files, directory: str, image: MetadataImage, *, cluster_id: str, node_id: int, term: int
) -> None:
    """All voters of a cluster get the same image and term: each then has what a majority had committed. Raises
    OSError."""
    files.make_directories(directory)
    check_owner(files, f"{directory}/{OWNER_FILE_NAME}", Owner(cluster_id=cluster_id, node_id=node_id))
    votes = VoteStore(files, directory)
    votes.settle()
    votes.save(term=term, voted_for=None)
    previous, last = ((NO_OP_COMMAND, index, term) for index in (LAST_INDEX - 1, LAST_INDEX))
    replace_file(files, f"{directory}/{JOURNAL_FILE_NAME}", [JOURNAL_MAGIC, encode_frame([previous, last])])
    body = encode_image(image)
    header = SnapshotHeader(
        previous=previous,
        last=last,
        end_offset=image.next_offset,
        controller_epoch=image.controller_epoch,
        size=len(body),
        crc=zlib.crc32(body),
    )
    document = encode_document(SNAPSHOT_MAGIC, msgspec.json.encode(header))
    replace_file(files, f"{directory}/{SNAPSHOT_FILE_NAME}", [document, body])
    commit = encode_document(COMMIT_MAGIC, _INDEX.pack(LAST_INDEX))
    replace_file(files, f"{directory}/{COMMIT_FILE_NAME}", [commit])
