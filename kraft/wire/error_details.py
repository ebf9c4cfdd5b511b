"""The controller's `ErrorDetail` as the error code and the error message that Kafka's answers have for each item."""

from __future__ import annotations

from kraft.broker.client_quotas import QUOTA_EXCEEDED
from kraft.protocol.errors import BY_CODE, KafkaError, ThrottlingQuotaExceeded
from metadata.controller.requests import ErrorDetail


def detail_code(detail: object) -> int:
    """The error code of an outcome: that of its ErrorDetail, or 0."""
    return detail.error.code if isinstance(detail, ErrorDetail) else 0


def detail_message(detail: object) -> str | None:
    """The error message of an outcome: that of its ErrorDetail, or None."""
    if not isinstance(detail, ErrorDetail) or detail.error is ThrottlingQuotaExceeded:
        return None
    return detail.message


def refusal_message(error: KafkaError) -> str | None:
    """The error message of an item whose request is refused. Kafka has no text for a quota."""
    return None if isinstance(error, ThrottlingQuotaExceeded) else error.message


def to_detail(code: int, message: str | None) -> ErrorDetail | None:
    """The ErrorDetail of a code and message of the wire; None for code 0."""
    if code == 0:
        return None
    error = BY_CODE.get(code, KafkaError)
    return ErrorDetail(error, message or (QUOTA_EXCEEDED if error is ThrottlingQuotaExceeded else ""))
