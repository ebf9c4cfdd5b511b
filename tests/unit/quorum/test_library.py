from __future__ import annotations

import importlib.util
import marshal
import pickle
import py_compile
import random
import shutil
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pysyncobj.syncobj as shared
import pytest

from metadata.quorum.library import WrongLibrary, load_private_copy, verified
from metadata.quorum.pysyncobj_adapter import HardenedRaft
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


def test_quorum_library_runs_from_verified_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "syncobj.py"
    shutil.copy(shared.__file__, source)
    planted = tmp_path / "planted.py"
    planted.write_text(source.read_text() + "\nPLANTED = True\n")
    # Compiled code of this kind is taken without a look at the source.
    compiled = importlib.util.cache_from_source(str(source))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(planted), cfile=compiled, dfile=str(source), invalidation_mode=mode, doraise=True)
    spec = importlib.util.spec_from_file_location("pysyncobj.planted", source)
    assert spec is not None
    assert b"PLANTED" in marshal.dumps(SourceFileLoader("pysyncobj.planted", str(source)).get_code("pysyncobj.planted"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    verified.cache_clear()
    try:
        module = load_private_copy(clock=Time(), rng=random.Random(0))  # type: ignore[arg-type]
    finally:
        verified.cache_clear()
    assert not hasattr(module, "PLANTED")
    assert module.SyncObj.__init__.__code__.co_filename == str(source)


def test_neither_the_library_nor_our_overrides_have_a_method_to_replicate() -> None:
    names = [(each, name) for each in (shared.SyncObj, HardenedRaft) for name in dir(each)]
    assert len(names) > 100
    assert not [name for each, name in names if hasattr(getattr(each, name), "replicated")]


def test_the_names_that_the_adapter_overrides_are_there() -> None:
    for name in ("doApplyCommand", "parseChangeClusterRequest", "connectedToAnyone", "loadDumpFile"):
        assert callable(getattr(shared.SyncObj, f"_SyncObj__{name}"))
