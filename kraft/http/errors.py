"""The one table that turns Kafka's errors into HTTP answers, and the JSON body of every error.

The status of an answer is the first three digits of its five-digit `error_code` (Confluent's catalogue); codes
without a finer meaning equal the status. `kafka_code` and `retriable` are additions of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from kraft.protocol import errors as kafka
from kraft.protocol.errors import KafkaError

RETRY_AFTER_SECONDS = 1

NOT_FOUND = 404
TOPIC_NOT_FOUND = 40401
PARTITION_NOT_FOUND = 40402
V3_TOPIC_NOT_FOUND = 40403
INSTANCE_NOT_FOUND = 40403
GROUP_NOT_FOUND = 40405
TRANSACTION_NOT_FOUND = 40406
ROUTE_NOT_FOUND = 40407
ILLEGAL_STATE = 40903
FENCED = 40905
BAD_REQUEST = 40002
UNPROCESSABLE = 422
PAYLOAD = 42206
SERIALIZATION = 42207
BATCH = 42208
UNROUTED = 42209
INTERNAL = 500
KAFKA_FATAL = 50002
KAFKA_RETRIABLE = 50003
UNAVAILABLE = 50302

_TABLE: dict[type[KafkaError], int] = {
    kafka.OffsetOutOfRange: BAD_REQUEST,
    kafka.CorruptMessage: SERIALIZATION,
    kafka.UnknownTopicOrPartition: TOPIC_NOT_FOUND,
    kafka.InvalidFetchSize: BAD_REQUEST,
    kafka.LeaderNotAvailable: UNAVAILABLE,
    kafka.NotLeaderOrFollower: UNAVAILABLE,
    kafka.RequestTimedOut: 50401,
    kafka.BrokerNotAvailable: UNAVAILABLE,
    kafka.ReplicaNotAvailable: UNAVAILABLE,
    kafka.MessageTooLarge: 413,
    kafka.NetworkException: UNAVAILABLE,
    kafka.CoordinatorLoadInProgress: UNAVAILABLE,
    kafka.CoordinatorNotAvailable: UNAVAILABLE,
    kafka.NotCoordinator: UNAVAILABLE,
    kafka.InvalidTopicException: PAYLOAD,
    kafka.RecordListTooLarge: 413,
    kafka.NotEnoughReplicas: UNAVAILABLE,
    kafka.NotEnoughReplicasAfterAppend: UNAVAILABLE,
    kafka.InvalidRequiredAcks: BAD_REQUEST,
    kafka.TopicAuthorizationFailed: 40301,
    kafka.GroupAuthorizationFailed: 40301,
    kafka.ClusterAuthorizationFailed: 40301,
    kafka.InvalidTimestamp: SERIALIZATION,
    kafka.UnsupportedSaslMechanism: 40101,
    kafka.IllegalSaslState: 40101,
    kafka.UnsupportedVersion: BAD_REQUEST,
    kafka.TopicAlreadyExists: BAD_REQUEST,
    kafka.InvalidPartitions: BAD_REQUEST,
    kafka.InvalidReplicationFactor: BAD_REQUEST,
    kafka.InvalidReplicaAssignment: BAD_REQUEST,
    kafka.InvalidConfig: BAD_REQUEST,
    kafka.NotController: UNAVAILABLE,
    kafka.InvalidRegularExpression: BAD_REQUEST,
    kafka.InvalidRequest: BAD_REQUEST,
    kafka.UnsupportedForMessageFormat: SERIALIZATION,
    kafka.PolicyViolation: BAD_REQUEST,
    kafka.OutOfOrderSequenceNumber: BAD_REQUEST,
    kafka.InvalidProducerEpoch: FENCED,
    kafka.InvalidTxnState: ILLEGAL_STATE,
    kafka.InvalidProducerIdMapping: TRANSACTION_NOT_FOUND,
    kafka.InvalidTransactionTimeout: BAD_REQUEST,
    kafka.TransactionalIdAuthorizationFailed: 40301,
    kafka.SecurityDisabled: BAD_REQUEST,
    kafka.ProducerFenced: FENCED,
    kafka.TransactionalIdNotFound: TRANSACTION_NOT_FOUND,
    kafka.TransactionAbortable: ILLEGAL_STATE,
    kafka.KafkaStorageError: UNAVAILABLE,
    kafka.LogDirNotFound: UNAVAILABLE,
    kafka.SaslAuthenticationFailed: 40101,
    kafka.UnknownProducerId: BAD_REQUEST,
    kafka.ReassignmentInProgress: BAD_REQUEST,
    kafka.UnsupportedCompressionType: SERIALIZATION,
    kafka.EligibleLeadersNotAvailable: UNAVAILABLE,
    kafka.ElectionNotNeeded: BAD_REQUEST,
    kafka.NoReassignmentInProgress: BAD_REQUEST,
    kafka.InvalidRecord: SERIALIZATION,
    kafka.ThrottlingQuotaExceeded: 42901,
    kafka.UnknownTopicId: TOPIC_NOT_FOUND,
    kafka.InconsistentTopicId: TOPIC_NOT_FOUND,
    kafka.BrokerIdNotRegistered: 404,
    kafka.OffsetMetadataTooLarge: BAD_REQUEST,
    kafka.InvalidCommitOffsetSize: 413,
    kafka.IllegalGeneration: BAD_REQUEST,
    kafka.InconsistentGroupProtocol: BAD_REQUEST,
    kafka.InvalidGroupId: BAD_REQUEST,
    kafka.InvalidSessionTimeout: BAD_REQUEST,
    kafka.UnknownMemberId: INSTANCE_NOT_FOUND,
    kafka.NonEmptyGroup: ILLEGAL_STATE,
    kafka.GroupSubscribedToTopic: ILLEGAL_STATE,
    kafka.GroupIdNotFound: GROUP_NOT_FOUND,
    kafka.InvalidRecordState: ILLEGAL_STATE,
    kafka.ResourceNotFound: NOT_FOUND,
    kafka.DuplicateResource: BAD_REQUEST,
}


_SENTENCES: Mapping[int, str] = {
    kafka.InvalidProducerEpoch.code: "a newer producer has this transactional id; begin again with a new producer",
    kafka.ProducerFenced.code: "a newer producer has this transactional id; begin again with a new producer",
    kafka.InvalidTxnState.code: "no transaction of this producer is open here; begin one before",
    kafka.InvalidProducerIdMapping.code: "the transactional id is forgotten, or has another producer; begin again",
    kafka.ConcurrentTransactions.code: "the transaction before is still being ended; send the same again",
    kafka.TransactionAbortable.code: "the transaction cannot go on; abort it and begin the next one",
    kafka.OutOfOrderSequenceNumber.code: "earlier records of this producer are not in the log; abort and begin again",
    kafka.NotLeaderOrFollower.code: "the partition's leader is changing; send the same again",
    kafka.UnknownTopicOrPartition.code: "there is no such topic or partition",
    kafka.NotEnoughReplicas.code: "fewer replicas are in sync than min.insync.replicas asks for; send the same later",
}
"""Messages for errors that arrive as a code alone, from another node or a peer. Key: Kafka's error code."""


class HttpError(Exception):
    """An answer of our own making: a client's fault, or this node being busy."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})
        self.closes = closes
        """The connection ends with this answer."""

    @property
    def status(self) -> int:
        """The HTTP status: the first three digits of the code."""
        return status_of(self.code)


def status_of(code: int) -> int:
    """The HTTP status of an error code: the first three of five digits; a code of three digits is one."""
    return code if code < 1000 else code // 100


def overloaded(message: str, *, closes: bool = False) -> HttpError:
    """A 503: this node is busy, and has done nothing. `closes` ends the connection as well."""
    return HttpError(UNAVAILABLE, message, extra={"retriable": True}, closes=closes)


def code_of(error: KafkaError) -> int:
    """Errors that the table does not name are retriable (the cluster is changing) or a fault of the cluster."""
    return _TABLE.get(type(error), UNAVAILABLE if error.retriable else KAFKA_FATAL)


def from_kafka(error: KafkaError, *, unknown_topic: int = TOPIC_NOT_FOUND) -> HttpError:
    """`unknown_topic`: the code for a topic that does not exist, in which v3, v2 and its dialects differ."""
    code = code_of(error)
    if code == TOPIC_NOT_FOUND:
        code = unknown_topic
    headers = {"Retry-After": str(-(-error.wait_ms // 1_000))} if error.wait_ms else {}
    extra = {"kafka_code": error.code, "retriable": error.retriable}
    return HttpError(code, worded(error), extra=extra, headers=headers)


def worded(error: KafkaError) -> str:
    """The message of an error, or a sentence of ours where it came as a code alone."""
    if error.message != error.name:
        return error.message
    if (said := _SENTENCES.get(error.code)) is not None:
        return said
    what = "send the same again" if error.retriable else "Kafka's documentation of its protocol explains this code"
    return f"the cluster refused this with {error.name} ({error.code}); {what}"


def error_body(error: HttpError, *, has_additions: bool = True) -> dict[str, Any]:
    """The JSON body. `has_additions`: with the fields that Confluent's proxy does not have."""
    return {"error_code": error.code, "message": error.message, **(error.extra if has_additions else {})}


def error_response(error: HttpError, *, media: str = "application/json", has_additions: bool = True) -> web.Response:
    """The response with the error's status, headers and JSON body."""
    headers = {"Content-Type": media, **error.headers}
    if error.status in (429, 503):
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if error.closes:
        headers["Connection"] = "close"
    body = msgspec.json.encode(error_body(error, has_additions=has_additions))
    response = web.Response(status=error.status, body=body, headers=headers)
    if error.closes:
        response.force_close()
    return response
