"""Owner of a folder: the file `meta` and the lock, so that no folder serves two nodes or two clusters."""

from __future__ import annotations

import msgspec

from metadata.decode_errors import DECODE_ERRORS
from metadata.durable_directories import make_durable_directories
from metadata.environment import DirectoryLock, Files
from metadata.quorum.durable import (
    RESTORE_ADVICE,
    DamagedFile,
    QuorumStorageError,
    WrittenByNewerVersion,
    decode_document,
    encode_document,
    read_file,
    replace_file,
)

FILE_NAME = "meta"
VERSION = 1
"""Version of everything in the folder: raised with any change that this version could not read."""
_MAGIC = b"KRMETA1\n"


class Owner(msgspec.Struct, kw_only=True, frozen=True):
    version: int = VERSION
    cluster_id: str
    node_id: int


def claim_directory(files: Files, directory: str, *, cluster_id: str, node_id: int) -> DirectoryLock:
    """Lock the folder for this node. Raises QuorumStorageError when another node owns it, OSError when it is not
    usable."""
    make_durable_directories(files, directory)
    try:
        lock = files.lock_directory(directory)
    except BlockingIOError as error:
        raise QuorumStorageError(
            f"{directory} is in use by another process: stop that node, or give this one a data folder of its own"
        ) from error
    try:
        check_owner(files, f"{directory}/{FILE_NAME}", Owner(cluster_id=cluster_id, node_id=node_id))
    except (OSError, QuorumStorageError):
        lock.release()
        raise
    return lock


def check_owner(files: Files, path: str, owner: Owner) -> None:
    """Check the owner, or write it where there is none yet. Raises QuorumStorageError, OSError."""
    if not files.exists(path):
        replace_file(files, path, [encode_document(_MAGIC, msgspec.json.encode(owner))])
        return
    payload, _ = decode_document(read_file(files, path), magic=_MAGIC, path=path)
    try:
        found = msgspec.json.decode(payload, type=Owner)
    except DECODE_ERRORS as error:
        raise DamagedFile(path=path, offset=0, problem=f"no owner ({error})", advice=RESTORE_ADVICE) from error
    if found.version > VERSION:
        raise WrittenByNewerVersion(path=path, found=f"version {found.version}", known=f"version {VERSION}")
    if found != owner:
        raise QuorumStorageError(
            f"{path}: this folder belongs to node {found.node_id} of cluster {found.cluster_id!r} (version "
            f"{found.version}), and this is node {owner.node_id} of cluster {owner.cluster_id!r}: "
            "start the node with its own data folder"
        )
