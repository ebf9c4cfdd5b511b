"""Whatever bytes a decoder gets, it takes them or refuses them: nothing else escapes, and nothing takes for ever.

`KRAFT_FUZZ_EXAMPLES` sets how many inputs each decoder gets (default 20, and 60 with `-m long`, the same ones in each
run); with more, other ones are drawn as well.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

import kraft
from tests.support.repetitions import few_and_many
from tests.unit.decoders.hostile import hostile
from tests.unit.decoders.table import DECODERS

FEW, MANY = (int(os.environ.get("KRAFT_FUZZ_EXAMPLES", count)) for count in ("20", "60"))
DECODE_S_MAX = 10
"""A few thousand bytes take milliseconds. What is quadratic, or believes a count of 2^31, takes minutes."""


@pytest.mark.parametrize("name", DECODERS)
@few_and_many("examples", FEW, MANY)
def test_a_decoder_takes_or_refuses(name: str, examples: int) -> None:
    decoder = DECODERS[name]
    for data in decoder.near_misses:
        with contextlib.suppress(*decoder.refuses):
            decoder.decode(data)

    @hypothesis.settings(max_examples=examples)
    @hypothesis.given(data=hostile(decoder.samples, decoder.reseal))
    def fuzz(data: bytes) -> None:
        began = time.perf_counter()
        with contextlib.suppress(*decoder.refuses):
            decoder.decode(data)
        assert time.perf_counter() - began < DECODE_S_MAX, "it takes too long"

    fuzz()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_takes_its_samples(name: str) -> None:
    """Else the fuzzer would try nothing but the first line of it."""
    decoder = DECODERS[name]
    for sample in decoder.samples:
        whole = sample if decoder.reseal is None else decoder.reseal(sample)
        with contextlib.suppress(*(decoder.refuses if name in REFUSED_SAMPLES else ())):
            decoder.decode(whole)


REFUSED_SAMPLES: Mapping[str, str] = {
    "seal": "nobody but the peer can make one",
    "SCRAM of a client": "its proof would be right by chance only",
    "SCRAM of a server": "its signature would be right by chance only",
    "values as json": "one of its samples is text",
    "FetchSnapshot refusal": "the error is in the header, and the body has nothing",
    "NodeFacts refusal": "the error is in the header, and the body has nothing",
    "GroupRequest refusal": "the error is in the header, and the body has nothing",
    "AddPartitionsToTxn refusal": "the error is in the header, and the body has no transaction",
    "DescribeTransactions refusal": "the error of the one that was asked for is raised",
    "ListOffsets refusal": "the error of the partition that was asked for is raised",
    "DeleteRecords refusal": "the error of the partition that was asked for is raised",
    "OffsetForLeaderEpoch refusal": "the error of the partition that was asked for is raised",
    "DescribeProducers refusal": "the error of the partition that was asked for is raised",
    "DescribeQuorum refusal": "the error is in the header, and the body has no partition",
    "ShareFetch refusal": "the error of the request as a whole is raised",
    "ShareAcknowledge refusal": "the error of the request as a whole is raised",
    **{
        f"{name}ShareGroupState{kind} refusal": "it is an error of the only share partition, which is raised"
        for name, kind in (("Initialize", ""), ("Read", ""), ("Write", ""), ("Delete", ""), ("Read", "Summary"))
    },
}

# --- no decoder without a row ---------------------------------------------------------------------------------------

DECODING = frozenset(
    {
        "Decoder",
        "a2b_base64",
        "b64decode",
        "convert",
        "decode",
        "from_bytes",
        "fromhex",
        "fromisoformat",
        "iter_unpack",
        "loads",
        "model_validate",
        "model_validate_json",
        "unpack",
        "unpack_from",
        "urlsafe_b64decode",
        "validate_json",
    }
)
"""Attributes by which bytes or text become something else."""
OUTSIDE = {
    "kraft.cli": "a person's command: it reads what its user wrote, and answers of the user's own cluster",
    "kraft.client": "a program's own side: it reads answers of the cluster that the program has chosen",
    "kraft.launcher": "reads files that it wrote itself",
    "kraft.chaos": "an experiment: it reads what its own nodes and helpers wrote",
    "kraft.testing": "runs clusters inside other people's tests",
    "kraft.protocol.schema": "makes source from our schemas, before the program is installed",
    "kraft.protocol.messages": "read through kraft.protocol.codec: each API's requests and answers are rows",
}
"""Packages that no node runs, or that are read by a row elsewhere."""
COVERED = {
    "metadata.image": "users of records, which pydantic has checked: rows of metadata.records",
    "kraft.http.users": "a body whose model takes hexadecimal digits only",
    "kraft.coordinators.groups.consumer_records": "keys and values of kraft.coordinators.groups.records, see its row",
    "kraft.coordinators.groups.share_records": "keys and values of kraft.coordinators.groups.records, see its row",
    "kraft.protocol.encoding": "what the generated readers are made of, see kraft.protocol.codec",
    "kraft.wire.channels.partitions": "the answer to AlterPartition is a row of kraft.protocol.codec",
    "kraft.http.endpoint": "bodies of requests, in test_bodies",
    "kraft.coordinators.shares.redrive": "text of headers, in which what is no UTF-8 is replaced: test_redrive",
    "kraft.coordinators.copies": "text of headers, as those of redrive: test_copies",
    "kraft.http.v3.produce_route": "text of a record's key; what is no UTF-8 is refused: test_routed_records",
    "replication.record_times": "text of headers, in which what is no UTF-8 is replaced: test_record_times",
    "metadata.quorum.log": "calls what decodes a command, which is a row of metadata.quorum.command",
    "kraft.config.problems": "settings by their names: what a setting may be is a row of metadata.settings",
}
NO_DECODER = {
    "kraft.coordinators.groups.modern_draft": "a number from a hash of ours",
    "kraft.kafka_data.kafka_source": "the state of a quorum, which a unit test damages",
    "kraft.kafka_data.dump": "text of base64 that it has encoded",
    "kraft.http.responses": "an answer of ours, to leave something out of it",
    "kraft.http.readiness": "text that was encoded in the same line",
    "kraft.events": "lines that this process has encoded itself",
    "kraft.http.idempotency": "a number from a hash of ours",
    "kraft.protocol.partitioner": "a hash; any bytes have one",
    "kraft.wire.connection": "text of random bytes of ours",
    "kraft.wire.sasl": "text of random bytes of ours",
    "kraft.wire.throttle_time": "the head of an answer that this node has written",
}


MAY_DECODE = re.compile(rf"\.\s*(?:{'|'.join(sorted(DECODING))})\b")
"""Only such text is parsed: most of it is not, and to parse all takes seconds."""


@functools.cache
def decoding_modules() -> frozenset[str]:
    root = Path(kraft.__file__).parent.parent
    found = set()
    for package in ("kraft", "metadata", "replication"):
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text()
            if MAY_DECODE.search(text) and _decodes(ast.parse(text)):
                found.add(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
    return frozenset(found)


def _decodes(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr in DECODING for node in ast.walk(tree))


def _is_outside(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in OUTSIDE)


def test_every_decoder_is_in_the_table() -> None:
    found = {module for module in decoding_modules() if not _is_outside(module)}
    rows = {decoder.module for decoder in DECODERS.values()}
    missing = found - rows - set(COVERED) - set(NO_DECODER)
    assert not missing, f"these decode and have no row in tests/unit/decoders/table.py: {sorted(missing)}"


def test_no_reason_is_left_over() -> None:
    found = decoding_modules()
    gone = [module for module in (*COVERED, *NO_DECODER) if module not in found]
    assert not gone, f"these decode no more: {gone}"


def test_the_search_sees_a_new_decoder(tmp_path: Path) -> None:
    """As long as it uses one of the ways that there are."""
    assert {"decode", "loads", "unpack_from", "model_validate_json"} <= DECODING
    tree = ast.parse("import msgspec\ndef read(data):\n    return msgspec.json.decode(data)\n")
    assert any(isinstance(node, ast.Attribute) and node.attr in DECODING for node in ast.walk(tree))


def test_hostile_bytes_are_hostile() -> None:
    """They reach what is behind a checksum, and there are samples with one change only."""
    decoder = DECODERS["image"]
    seen: set[str] = set()

    @hypothesis.settings(max_examples=200, phases=[hypothesis.Phase.generate])
    @hypothesis.given(data=st.one_of(hostile(decoder.samples, decoder.reseal)))
    def look(data: bytes) -> None:
        try:
            decoder.decode(data)
            seen.add("taken")
        except decoder.refuses as refusal:
            seen.add("inside" if "does not describe an image" in str(refusal) else "outside")

    look()
    assert {"inside", "outside"} <= seen
