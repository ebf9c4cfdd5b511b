"""What a client can tell its caller: one tree, each error with Kafka's code if it has one, and whether to try again.

Their fault and ours are different types: `ConfigError`, `ClientClosed` and `BufferExhausted` come from the caller's
own process, `ServerError` is a node's answer. `NothingDone` and `OutcomeUnknown` say what a lost request left behind.
"""

from __future__ import annotations

from kraft.protocol.errors import (
    BrokerNotAvailable,
    InvalidConfig,
    KafkaError,
    OffsetOutOfRange,
    RequestTimedOut,
    for_code,
)


class KraftError(Exception):
    """Base of all. `code` is Kafka's, None where Kafka has no word for it; `retriable`: trying again can help."""

    def __init__(self, message: str, *, code: int | None = None, retriable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retriable = retriable

    @property
    def name(self) -> str:
        """Kafka's name of the code, as TOPIC_ALREADY_EXISTS; empty without a code."""
        return "" if self.code is None else for_code(self.code).name


class ConfigError(KraftError):
    """An option that does not exist, is out of its range, or contradicts another."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=InvalidConfig.code)


class ClientClosed(KraftError):
    """The client, producer or consumer was closed before this call."""


class BufferExhausted(KraftError):
    """No room in buffer.memory, or no metadata of the topic, within max.block.ms. The record was not taken."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=RequestTimedOut.code, retriable=True)


class NothingDone(KraftError):
    """No node could be reached within default.api.timeout.ms, and the request surely changed nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=BrokerNotAvailable.code, retriable=True)


class OutcomeUnknown(KraftError):
    """A change was sent and its answer lost: it may have been made. Look before you repeat it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=RequestTimedOut.code)


class ServerError(KraftError):
    """A node refused. `error_code` is that of the REST API, whose first three digits are the HTTP `status`."""

    def __init__(self, message: str, *, status: int, error_code: int, code: int | None, retriable: bool) -> None:
        super().__init__(message, code=code, retriable=retriable)
        self.status = status
        self.error_code = error_code

    @property
    def kafka(self) -> KafkaError | None:
        """The same as a typed error of `kraft.protocol.errors`, for `match`; None without a code."""
        return None if self.code is None else for_code(self.code, self.message)


class NoOffset(KraftError):
    """There is no valid position in a partition, and auto.offset.reset is none."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=OffsetOutOfRange.code)


class DeliveryFailed(KraftError):
    """A record was not acknowledged. The two subclasses name what is known of it."""


class RecordRefused(DeliveryFailed):
    """Surely not written, by any attempt: sending it again cannot write it twice."""


class RecordUnknown(DeliveryFailed):
    """An attempt may have written it, and no answer arrived. Sending it again may write it twice."""
