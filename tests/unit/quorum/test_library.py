from __future__ import annotations

import pickle
import random

import pysyncobj.syncobj as shared
import pytest

from metadata.quorum.hardened import HardenedRaft
from metadata.quorum.library import WrongLibrary, load_private_copy
from tests.simulation.quorum.world import Time


def test_each_node_has_a_copy_and_the_shared_module_is_untouched() -> None:
    before = dict(vars(shared))
    first, second = (load_private_copy(clock=Time(), rng=random.Random(i)) for i in range(2))  # type: ignore[arg-type]
    assert first is not second
    assert first.SyncObj is not shared.SyncObj
    assert dict(vars(shared)) == before
    assert first.monotonicTime() == 1000.0


def test_these_tests_refuse_to_unpickle() -> None:
    with pytest.raises(AssertionError, match="the quorum unpickles"):
        pickle.loads(pickle.dumps(1))


def test_the_copy_never_unpickles() -> None:
    module = load_private_copy(clock=Time(), rng=random.Random(0))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="never unpickles"):
        module.pickle.loads(pickle.dumps(1))
    with pytest.raises(AssertionError, match="never pickles"):
        module.pickle.dumps(1)


def test_another_version_of_the_library_is_refused() -> None:
    with pytest.raises(WrongLibrary, match=r"install pysyncobj==0\.3\.17"):
        load_private_copy(clock=Time(), rng=random.Random(0), expected_sha256="0" * 64)  # type: ignore[arg-type]


def test_neither_the_library_nor_our_overrides_have_a_method_to_replicate() -> None:
    names = [(each, name) for each in (shared.SyncObj, HardenedRaft) for name in dir(each)]
    assert len(names) > 100
    assert not [name for each, name in names if hasattr(getattr(each, name), "replicated")]


def test_the_names_that_the_adapter_overrides_are_there() -> None:
    for name in ("doApplyCommand", "parseChangeClusterRequest", "connectedToAnyone", "loadDumpFile"):
        assert callable(getattr(shared.SyncObj, f"_SyncObj__{name}"))
