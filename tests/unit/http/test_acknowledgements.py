"""The quick parsers of receives and acknowledgements take nothing that the models refuse, and read the rest alike."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from kraft.http.v3.share_acknowledgements import rows_of_done
from kraft.http.v3.share_records_models import (
    ACKS_MAX,
    DELAY_MS_MAX,
    LOCK_MS_MAX,
    REASON_CHARACTERS_MAX,
    RECORDS_MAX,
    TOPICS_MAX,
    WAIT_MS_MAX,
    AcknowledgeRequest,
    AcknowledgeResult,
    PlainAcknowledgeRequest,
    PlainReceiveRequest,
    ReceiveRequest,
)

PLAIN_RECEIVE = msgspec.json.Decoder(PlainReceiveRequest)
PLAIN = msgspec.json.Decoder(PlainAcknowledgeRequest)
FIELDS = ("ack_id", "type", "reason", "lock_ms", "delay_ms")


def body(*acks: Any, **more: Any) -> bytes:
    return json.dumps({"acks": acks, **more}).encode()


def ack(**more: Any) -> dict[str, Any]:
    return {"ack_id": "x.0", "type": "accept", **more}


@pytest.mark.parametrize(
    "sent",
    [
        body(ack()),
        body(*[ack()] * ACKS_MAX),
        body(ack(type="renew", lock_ms=LOCK_MS_MAX), ack(type="reject", reason="ü" * REASON_CHARACTERS_MAX)),
        body(ack(lock_ms=None)),
        body(ack(type="release", delay_ms=DELAY_MS_MAX), ack(type="release", delay_ms=0)),
    ],
)
def test_what_it_takes_is_what_the_model_reads(sent: bytes):
    quick, model = PLAIN.decode(sent).acks, AcknowledgeRequest.model_validate_json(sent).acks
    assert [[getattr(each, name) for name in FIELDS] for each in quick] == [
        [getattr(each, name) for name in FIELDS] for each in model
    ]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"[]",
        b'{"acks":[{"ack_id":"\xff","type":"accept"}]}',
        body(),
        body(*[ack()] * (ACKS_MAX + 1)),
        body(ack(), more=1),
        body(ack(more=1)),
        body(ack(type="ACCEPT")),
        body(ack(ack_id="x" * 201)),
        body(ack(reason="x" * (REASON_CHARACTERS_MAX + 1))),
        body(ack(lock_ms=LOCK_MS_MAX + 1)),
        body(ack(lock_ms=999)),
        body(ack(lock_ms=True)),
        body(ack(lock_ms=1500.5)),
        body(ack(type="release", delay_ms=-1)),
        body(ack(type="release", delay_ms=DELAY_MS_MAX + 1)),
        body(ack(type="release", delay_ms=10**30)),
        body(ack(type="release", delay_ms=1.5)),
        body(ack(type="release", delay_ms=True)),
        body(ack(type="release", delay_ms="soon")),
        body({"type": "accept"}),
    ],
)
def test_what_the_model_refuses_it_refuses(sent: bytes):
    with pytest.raises(ValidationError):
        AcknowledgeRequest.model_validate_json(sent, strict=True)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        PLAIN.decode(sent)


def wanted(**more: Any) -> bytes:
    return json.dumps({"topics": ["t"], **more}).encode()


@pytest.mark.parametrize(
    "sent",
    [
        wanted(),
        wanted(topics=["t"] * TOPICS_MAX, max_records=RECORDS_MAX, max_wait_ms=WAIT_MS_MAX, lock_ms=LOCK_MS_MAX),
        wanted(acknowledgement="implicit", format="JSON", acknowledge=[]),
        wanted(acknowledge=[ack(), ack(type="release", delay_ms=0, reason="later")]),
    ],
)
def test_a_receive_that_it_takes_is_what_the_model_reads(sent: bytes):
    quick, model = PLAIN_RECEIVE.decode(sent), ReceiveRequest.model_validate_json(sent)
    read = [
        {name: getattr(each, name) for name in ReceiveRequest.model_fields if name != "acknowledge"}
        for each in (quick, model)
    ]
    assert read[0] == read[1]
    assert [[getattr(each, name) for name in FIELDS] for each in quick.acknowledge] == [
        [getattr(each, name) for name in FIELDS] for each in model.acknowledge
    ]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{}",
        wanted(topics=[]),
        wanted(topics=["t"] * (TOPICS_MAX + 1)),
        wanted(topics="t"),
        wanted(max_records=0),
        wanted(max_records=RECORDS_MAX + 1),
        wanted(max_wait_ms=-1),
        wanted(max_wait_ms=WAIT_MS_MAX + 1),
        wanted(lock_ms=999),
        wanted(acknowledgement="EXPLICIT"),
        wanted(format="XML"),
        wanted(acks=[ack()]),
        wanted(acknowledge=[ack(more=1)]),
        wanted(acknowledge=[ack()] * (ACKS_MAX + 1)),
        wanted(acknowledge=ack()),
    ],
)
def test_a_receive_that_the_model_refuses_it_refuses(sent: bytes):
    with pytest.raises(ValidationError):
        ReceiveRequest.model_validate_json(sent, strict=True)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        PLAIN_RECEIVE.decode(sent)


@pytest.mark.parametrize("ids", [["AQ-_.0"], ["AQ.0", "AQ.1", "Bw.65535"]])
def test_rows_of_what_is_done_are_those_that_the_encoder_writes(ids: list[str]):
    rows = [AcknowledgeResult(each, None, None, None, None, None) for each in ids]
    assert bytes(rows_of_done(ids)) == msgspec.json.encode(rows)
