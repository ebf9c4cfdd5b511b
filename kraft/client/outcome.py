"""Derives from the answer to a client what it may conclude: `ok`, `fail` (surely not done) or `info` (nobody knows).

Invariant: a code is `fail` only when every place of Kafka and of this project that answers a produce with it does so
before the append. In doubt it is `info`, which promises nothing and so can accuse nobody falsely. When a server
sends `is_appended: false` beside an indefinite code, the code decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Outcome: TypeAlias = Literal["ok", "fail", "info"]

OK: Final[Outcome] = "ok"
FAIL: Final[Outcome] = "fail"
INFO: Final[Outcome] = "info"

SURELY_NOT_DONE: Final[Mapping[int, str]] = MappingProxyType(
    {
        2: "CORRUPT_MESSAGE: the batch did not pass validation, which comes before the append",
        3: "UNKNOWN_TOPIC_OR_PARTITION: nobody to append it",
        5: "LEADER_NOT_AVAILABLE: nobody leads, so nobody was asked to append",
        8: "BROKER_NOT_AVAILABLE: the request was not sent on",
        10: "MESSAGE_TOO_LARGE: validation",  # P12
        17: "INVALID_TOPIC_EXCEPTION: there can be no such topic",
        18: "RECORD_LIST_TOO_LARGE: validation",  # P12
        19: "NOT_ENOUGH_REPLICAS: checked before the append",  # P1
        21: "INVALID_REQUIRED_ACKS: checked before anything else",  # P9
        29: "TOPIC_AUTHORIZATION_FAILED: checked before the append",
        31: "CLUSTER_AUTHORIZATION_FAILED: checked before the request is read",
        32: "INVALID_TIMESTAMP: validation",  # P12
        33: "UNSUPPORTED_SASL_MECHANISM: no request was read",
        34: "ILLEGAL_SASL_STATE: no request was read",
        35: "UNSUPPORTED_VERSION: the request was not understood",
        42: "INVALID_REQUEST: the request was not understood",
        43: "UNSUPPORTED_FOR_MESSAGE_FORMAT: validation",
        44: "POLICY_VIOLATION: checked before the append",
        45: "OUT_OF_ORDER_SEQUENCE_NUMBER: checked before the append",  # D1
        47: "INVALID_PRODUCER_EPOCH: checked before the append",  # D4
        48: "INVALID_TXN_STATE: checked before the append",  # T9
        58: "SASL_AUTHENTICATION_FAILED: no request was read",
        59: "UNKNOWN_PRODUCER_ID: checked before the append",
        74: "FENCED_LEADER_EPOCH: checked before the append",  # R1
        75: "UNKNOWN_LEADER_EPOCH: checked before the append",  # R1
        76: "UNSUPPORTED_COMPRESSION_TYPE: validation",
        87: "INVALID_RECORD: validation",  # P12
        89: "THROTTLING_QUOTA_EXCEEDED: refused before the append",
        90: "PRODUCER_FENCED: checked before the append",  # T2
        100: "UNKNOWN_TOPIC_ID: nobody to append it",
        103: "INCONSISTENT_TOPIC_ID: nobody to append it",
    }
)

INDEFINITE: Final[Mapping[int, str]] = MappingProxyType(
    {
        -1: "UNKNOWN_SERVER_ERROR: may have happened anywhere",
        6: "NOT_LEADER_OR_FOLLOWER: also the answer to a write whose leader was deposed while it waited",  # P7
        7: "REQUEST_TIMED_OUT: the wait is over, the record stays in the log",  # P6
        13: "NETWORK_EXCEPTION: the answer was lost, perhaps not the request",
        20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND: it is in the log",  # P5
        56: "KAFKA_STORAGE_ERROR: a write that failed may have left a part that recovery keeps",
    }
)
"""The codes that one may take for a refusal. A code in neither table is indefinite too."""


def of_code(kafka_code: int) -> Outcome:
    """The outcome for a Kafka error code; 0 is success."""
    if kafka_code == 0:
        return OK
    return FAIL if kafka_code in SURELY_NOT_DONE else INFO


def of_answer(status: int, kafka_code: int | None) -> Outcome:
    """The outcome of an HTTP answer. Kafka's code decides; without one, 4xx was refused before it was carried out."""
    if kafka_code is not None:
        return of_code(kafka_code)
    if 200 <= status < 300:
        return OK
    return FAIL if 400 <= status < 500 and status != REQUEST_TIMEOUT_STATUS else INFO


REQUEST_TIMEOUT_STATUS: Final = 408


def of_refused_connection() -> Outcome:
    """The request never left."""
    return FAIL


def of_broken_connection() -> Outcome:
    """A timeout, or a connection that broke after a byte was sent."""
    return INFO


def of_sent_without_answer() -> Outcome:
    """acks=0: handed over is all that its client asks for, so that counts as acknowledged (P8)."""
    return OK


def of_attempts(outcomes: Iterable[Outcome]) -> Outcome:
    """An operation: done if an attempt was, unknown if one may have been, else surely not done."""
    seen = set(outcomes)
    if OK in seen:
        return OK
    return INFO if INFO in seen or not seen else FAIL
