"""No byte from a disk or a socket is ever unpickled: while these tests run, nothing is."""

from __future__ import annotations

import pickle

import pytest


def _refuse(*_arguments: object, **_options: object) -> object:
    raise AssertionError("the quorum unpickles")


@pytest.fixture(autouse=True)
def unpickling_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, _refuse)
