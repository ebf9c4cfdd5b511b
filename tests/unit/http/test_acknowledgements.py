"""The quick parser of acknowledgements takes nothing that the model refuses, and reads the rest as the model does."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from kraft.http.v3.share_records_models import (
    ACKS_MAX,
    LOCK_MS_MAX,
    REASON_CHARACTERS_MAX,
    AcknowledgeRequest,
    PlainAcknowledgeRequest,
)

PLAIN = msgspec.json.Decoder(PlainAcknowledgeRequest)
FIELDS = ("ack_id", "type", "reason", "lock_ms")


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
        body({"type": "accept"}),
    ],
)
def test_what_the_model_refuses_it_refuses(sent: bytes):
    with pytest.raises(ValidationError):
        AcknowledgeRequest.model_validate_json(sent, strict=True)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        PLAIN.decode(sent)
