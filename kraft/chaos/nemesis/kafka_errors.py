"""Kafka's error codes by name, also those that our nodes never send: a test may use any of them. Pure.

Source: org.apache.kafka.common.protocol.Errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kraft.chaos.worlds.spec import ScenarioError
from kraft.protocol.errors import BY_CODE, KafkaError
from kraft.suggestions import nearest_key_hint

_OF_OTHERS: Final[Mapping[str, int]] = {
    "STALE_CONTROLLER_EPOCH": 11,
    "GROUP_AUTHORIZATION_FAILED": 30,
    "DUPLICATE_SEQUENCE_NUMBER": 46,
    "INVALID_PRODUCER_ID_MAPPING": 49,
    "INVALID_TRANSACTION_TIMEOUT": 50,
    "CONCURRENT_TRANSACTIONS": 51,
    "OPERATION_NOT_ATTEMPTED": 55,
    "DELEGATION_TOKEN_AUTH_DISABLED": 61,
    "DELEGATION_TOKEN_NOT_FOUND": 62,
    "DELEGATION_TOKEN_OWNER_MISMATCH": 63,
    "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED": 64,
    "DELEGATION_TOKEN_AUTHORIZATION_FAILED": 65,
    "DELEGATION_TOKEN_EXPIRED": 66,
    "INVALID_PRINCIPAL_TYPE": 67,
    "TOPIC_DELETION_DISABLED": 73,
    "UNSTABLE_OFFSET_COMMIT": 88,
    "PRODUCER_FENCED": 90,
    "UNACCEPTABLE_CREDENTIAL": 93,
    "INCONSISTENT_VOTER_SET": 94,
    "FEATURE_UPDATE_FAILED": 96,
    "PRINCIPAL_DESERIALIZATION_FAILURE": 97,
    "TRANSACTIONAL_ID_NOT_FOUND": 105,
    "OFFSET_MOVED_TO_TIERED_STORAGE": 109,
    "UNKNOWN_CONTROLLER_ID": 116,
    "UNKNOWN_SUBSCRIPTION_ID": 117,
    "TELEMETRY_TOO_LARGE": 118,
    "INVALID_REGISTRATION": 119,
    "TRANSACTION_ABORTABLE": 120,
    "INVALID_RECORD_STATE": 121,
    "SHARE_SESSION_NOT_FOUND": 122,
    "INVALID_SHARE_SESSION_EPOCH": 123,
    "FENCED_STATE_EPOCH": 124,
    "INVALID_VOTER_KEY": 125,
    "DUPLICATE_VOTER": 126,
    "VOTER_NOT_FOUND": 127,
    "REBOOTSTRAP_REQUIRED": 129,
    "STREAMS_INVALID_TOPOLOGY": 130,
    "STREAMS_INVALID_TOPOLOGY_EPOCH": 131,
    "STREAMS_TOPOLOGY_FENCED": 132,
    "SHARE_SESSION_LIMIT_REACHED": 133,
}

CODES: Final[Mapping[str, int]] = {**_OF_OTHERS, **{error.name: code for code, error in BY_CODE.items()}}
NAMES: Final[Mapping[int, str]] = {code: name for name, code in CODES.items()}
CODE_MAX: Final = 32_767


def code_of(error: str | int) -> int:
    """The code of `NOT_LEADER_OR_FOLLOWER`, `6` or 6. Raises ScenarioError for an unknown error."""
    if isinstance(error, str) and not error.lstrip("-").isdecimal():
        code = CODES.get(error.upper())
        if code is None:
            hint = nearest_key_hint(error.upper(), CODES, otherwise="write Kafka's name or number of it")
            raise ScenarioError(f"Kafka has no error {error!r}; {hint}")
        return code
    number = int(error)
    if number == 0 or not -1 <= number <= CODE_MAX:
        raise ScenarioError(f"{number} is no error; Kafka's are -1 and 1 to {CODE_MAX}")
    return number


def error_of(code: int, message: str) -> KafkaError:
    """The error of a code, also of a code that Kafka does not have yet."""
    kind: type[KafkaError] = type("Wanted", (KafkaError,), {"code": code, "name": NAMES.get(code, f"ERROR_{code}")})
    return kind(message)
