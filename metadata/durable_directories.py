"""Folders that survive a power loss: a new folder is durable only after its parent is synced, too."""

from __future__ import annotations

from metadata.environment import Files


def make_durable_directories(files: Files, path: str) -> None:
    """Make the folder and its missing parents, and sync every parent that got a new name. Blocking.

    A power loss must not take a folder away with all that was synced in it. The folder's own parent is synced in any
    case: an earlier process may have made the folder and died before it could.
    """
    made = [path]
    while made[-1] and not files.exists(made[-1]):
        made.append(_parent(made[-1]))
    files.make_directories(path)
    for each in made:
        if each not in ("", "/", "."):
            _sync(files, _parent(each))


def _parent(path: str) -> str:
    head, slash, _ = path.rstrip("/").rpartition("/")
    return head or slash


def _sync(files: Files, path: str) -> None:
    try:
        files.sync_directory(path or ".")
    except PermissionError:
        return  # a folder that may not be read cannot be synced; the process that made it has to sync it
