"""Kafka's errors as one tree: each has Kafka's code and name, and whether a retry can help.

A peer or a client can cause every one of these. Broken invariants of our own are `AssertionError`s and
stop the node. HTTP and the wire protocol turn these into answers in one table each.
Source: org.apache.kafka.common.protocol.Errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class KafkaError(Exception):
    """Base of all errors with a Kafka code. `message` states what was wrong and what would be right."""

    code: ClassVar[int] = -1
    name: ClassVar[str] = "UNKNOWN_SERVER_ERROR"
    retriable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, record_errors: Sequence[RecordError] = ()) -> None:
        super().__init__(message or self.name)
        self.message = message or self.name
        self.record_errors = record_errors
        self.wait_ms = 0
        """How long a client that is over its quota has to wait."""


@dataclass(frozen=True, slots=True)
class RecordError:
    """A record for which a batch is refused (KIP-467): its place in the batch, from 0 on, and what is wrong with it."""

    place: int
    message: str


BY_CODE: dict[int, type[KafkaError]] = {-1: KafkaError}


def _error(class_name: str, code: int, *, retriable: bool = False) -> type[KafkaError]:
    name = "".join("_" + c if c.isupper() else c.upper() for c in class_name).lstrip("_")
    attributes = {"code": code, "name": name, "retriable": retriable, "__module__": __name__}
    cls = type(class_name, (KafkaError,), attributes)
    BY_CODE[code] = cls
    return cls


OffsetOutOfRange = _error("OffsetOutOfRange", 1)
CorruptMessage = _error("CorruptMessage", 2, retriable=True)
UnknownTopicOrPartition = _error("UnknownTopicOrPartition", 3, retriable=True)
InvalidFetchSize = _error("InvalidFetchSize", 4)
LeaderNotAvailable = _error("LeaderNotAvailable", 5, retriable=True)
NotLeaderOrFollower = _error("NotLeaderOrFollower", 6, retriable=True)
RequestTimedOut = _error("RequestTimedOut", 7, retriable=True)
BrokerNotAvailable = _error("BrokerNotAvailable", 8)
ReplicaNotAvailable = _error("ReplicaNotAvailable", 9, retriable=True)
MessageTooLarge = _error("MessageTooLarge", 10)
OffsetMetadataTooLarge = _error("OffsetMetadataTooLarge", 12)
NetworkException = _error("NetworkException", 13, retriable=True)
CoordinatorLoadInProgress = _error("CoordinatorLoadInProgress", 14, retriable=True)
CoordinatorNotAvailable = _error("CoordinatorNotAvailable", 15, retriable=True)
NotCoordinator = _error("NotCoordinator", 16, retriable=True)
InvalidTopicException = _error("InvalidTopicException", 17)
RecordListTooLarge = _error("RecordListTooLarge", 18)
NotEnoughReplicas = _error("NotEnoughReplicas", 19, retriable=True)
NotEnoughReplicasAfterAppend = _error("NotEnoughReplicasAfterAppend", 20, retriable=True)
InvalidRequiredAcks = _error("InvalidRequiredAcks", 21)
IllegalGeneration = _error("IllegalGeneration", 22)
InconsistentGroupProtocol = _error("InconsistentGroupProtocol", 23)
InvalidGroupId = _error("InvalidGroupId", 24)
UnknownMemberId = _error("UnknownMemberId", 25)
InvalidSessionTimeout = _error("InvalidSessionTimeout", 26)
RebalanceInProgress = _error("RebalanceInProgress", 27)
InvalidCommitOffsetSize = _error("InvalidCommitOffsetSize", 28)
TopicAuthorizationFailed = _error("TopicAuthorizationFailed", 29)
GroupAuthorizationFailed = _error("GroupAuthorizationFailed", 30)
ClusterAuthorizationFailed = _error("ClusterAuthorizationFailed", 31)
InvalidTimestamp = _error("InvalidTimestamp", 32)
UnsupportedSaslMechanism = _error("UnsupportedSaslMechanism", 33)
IllegalSaslState = _error("IllegalSaslState", 34)
UnsupportedVersion = _error("UnsupportedVersion", 35)
TopicAlreadyExists = _error("TopicAlreadyExists", 36)
InvalidPartitions = _error("InvalidPartitions", 37)
InvalidReplicationFactor = _error("InvalidReplicationFactor", 38)
InvalidReplicaAssignment = _error("InvalidReplicaAssignment", 39)
InvalidConfig = _error("InvalidConfig", 40)
NotController = _error("NotController", 41, retriable=True)
InvalidRequest = _error("InvalidRequest", 42)
UnsupportedForMessageFormat = _error("UnsupportedForMessageFormat", 43)
PolicyViolation = _error("PolicyViolation", 44)
OutOfOrderSequenceNumber = _error("OutOfOrderSequenceNumber", 45)
InvalidProducerEpoch = _error("InvalidProducerEpoch", 47)
InvalidTxnState = _error("InvalidTxnState", 48)
InvalidProducerIdMapping = _error("InvalidProducerIdMapping", 49)
InvalidTransactionTimeout = _error("InvalidTransactionTimeout", 50)
ConcurrentTransactions = _error("ConcurrentTransactions", 51, retriable=True)
TransactionCoordinatorFenced = _error("TransactionCoordinatorFenced", 52)
TransactionalIdAuthorizationFailed = _error("TransactionalIdAuthorizationFailed", 53)
SecurityDisabled = _error("SecurityDisabled", 54)
OperationNotAttempted = _error("OperationNotAttempted", 55)
KafkaStorageError = _error("KafkaStorageError", 56, retriable=True)
LogDirNotFound = _error("LogDirNotFound", 57)
SaslAuthenticationFailed = _error("SaslAuthenticationFailed", 58)
UnknownProducerId = _error("UnknownProducerId", 59)
ReassignmentInProgress = _error("ReassignmentInProgress", 60)
NonEmptyGroup = _error("NonEmptyGroup", 68)
GroupIdNotFound = _error("GroupIdNotFound", 69)
FetchSessionIdNotFound = _error("FetchSessionIdNotFound", 70, retriable=True)
InvalidFetchSessionEpoch = _error("InvalidFetchSessionEpoch", 71, retriable=True)
ListenerNotFound = _error("ListenerNotFound", 72, retriable=True)
FencedLeaderEpoch = _error("FencedLeaderEpoch", 74, retriable=True)
UnknownLeaderEpoch = _error("UnknownLeaderEpoch", 75, retriable=True)
UnsupportedCompressionType = _error("UnsupportedCompressionType", 76)
StaleBrokerEpoch = _error("StaleBrokerEpoch", 77)
OffsetNotAvailable = _error("OffsetNotAvailable", 78, retriable=True)
MemberIdRequired = _error("MemberIdRequired", 79)
PreferredLeaderNotAvailable = _error("PreferredLeaderNotAvailable", 80, retriable=True)
GroupMaxSizeReached = _error("GroupMaxSizeReached", 81)
FencedInstanceId = _error("FencedInstanceId", 82)
EligibleLeadersNotAvailable = _error("EligibleLeadersNotAvailable", 83, retriable=True)
ElectionNotNeeded = _error("ElectionNotNeeded", 84)
NoReassignmentInProgress = _error("NoReassignmentInProgress", 85)
GroupSubscribedToTopic = _error("GroupSubscribedToTopic", 86)
InvalidRecord = _error("InvalidRecord", 87)
UnstableOffsetCommit = _error("UnstableOffsetCommit", 88, retriable=True)
ThrottlingQuotaExceeded = _error("ThrottlingQuotaExceeded", 89, retriable=True)
ProducerFenced = _error("ProducerFenced", 90)
ResourceNotFound = _error("ResourceNotFound", 91)
DuplicateResource = _error("DuplicateResource", 92)
UnacceptableCredential = _error("UnacceptableCredential", 93)
InvalidUpdateVersion = _error("InvalidUpdateVersion", 95)
SnapshotNotFound = _error("SnapshotNotFound", 98)
PositionOutOfRange = _error("PositionOutOfRange", 99)
UnknownTopicId = _error("UnknownTopicId", 100, retriable=True)
DuplicateBrokerRegistration = _error("DuplicateBrokerRegistration", 101)
BrokerIdNotRegistered = _error("BrokerIdNotRegistered", 102)
InconsistentTopicId = _error("InconsistentTopicId", 103, retriable=True)
InconsistentClusterId = _error("InconsistentClusterId", 104)
TransactionalIdNotFound = _error("TransactionalIdNotFound", 105)
FetchSessionTopicIdError = _error("FetchSessionTopicIdError", 106, retriable=True)
IneligibleReplica = _error("IneligibleReplica", 107)
NewLeaderElected = _error("NewLeaderElected", 108)
FencedMemberEpoch = _error("FencedMemberEpoch", 110)
UnreleasedInstanceId = _error("UnreleasedInstanceId", 111)
UnsupportedAssignor = _error("UnsupportedAssignor", 112)
StaleMemberEpoch = _error("StaleMemberEpoch", 113)
MismatchedEndpointType = _error("MismatchedEndpointType", 114)
UnsupportedEndpointType = _error("UnsupportedEndpointType", 115)
UnknownSubscriptionId = _error("UnknownSubscriptionId", 117)
TelemetryTooLarge = _error("TelemetryTooLarge", 118)
TransactionAbortable = _error("TransactionAbortable", 120)
InvalidRecordState = _error("InvalidRecordState", 121)
ShareSessionNotFound = _error("ShareSessionNotFound", 122, retriable=True)
InvalidShareSessionEpoch = _error("InvalidShareSessionEpoch", 123, retriable=True)
FencedStateEpoch = _error("FencedStateEpoch", 124)
InvalidRegularExpression = _error("InvalidRegularExpression", 128)
ShareSessionLimitReached = _error("ShareSessionLimitReached", 133, retriable=True)


class ClassicMembersNotTaken(KafkaError):
    """A group of the consumer protocol that a member of the classic protocol may not join. Kafka answers it before it
    looks at the request, and so without a member id."""

    code: ClassVar[int] = InconsistentGroupProtocol.code
    name: ClassVar[str] = InconsistentGroupProtocol.name


class OutOfDescriptors(KafkaError):
    """The process, or the system, had no descriptor left. Nothing was changed and nothing is wrong with the log: the
    same call may succeed a moment later."""

    code: ClassVar[int] = KafkaStorageError.code
    name: ClassVar[str] = KafkaStorageError.name
    retriable: ClassVar[bool] = True


def for_code(code: int, message: str = "") -> KafkaError:
    """The error of a code read from a peer; a code we do not know becomes the base class."""
    return BY_CODE.get(code, KafkaError)(message)
