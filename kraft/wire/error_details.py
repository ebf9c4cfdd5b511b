"""The controller's `ErrorDetail` as the error code and the error message that Kafka's answers have for each item."""

from __future__ import annotations

from kraft.protocol.errors import BY_CODE, KafkaError
from metadata.controller.requests import ErrorDetail


def detail_code(detail: object) -> int:
    """The error code of an outcome: that of its ErrorDetail, or 0."""
    return detail.error.code if isinstance(detail, ErrorDetail) else 0


def detail_message(detail: object) -> str | None:
    """The error message of an outcome: that of its ErrorDetail, or None."""
    return detail.message if isinstance(detail, ErrorDetail) else None


def to_detail(code: int, message: str | None) -> ErrorDetail | None:
    """The ErrorDetail of a code and message of the wire; None for code 0."""
    if code == 0:
        return None
    return ErrorDetail(BY_CODE.get(code, KafkaError), message or "")
