"""Credentials of users are set and removed (AlterUserScramCredentials; Kafka's `ScramControlManager`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kraft.protocol.errors import (
    DuplicateResource,
    KafkaError,
    ResourceNotFound,
    UnacceptableCredential,
    UnsupportedSaslMechanism,
)
from kraft.protocol.operator_tokens import RESERVED, is_reserved
from kraft.protocol.scram import DIGESTS, ITERATIONS, ITERATIONS_MAX, USER_LENGTH_MAX, Credential, credential_of
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.requests import AlterUsers, ErrorDetail, ScramDeletion, ScramUpsertion
from metadata.records import RemoveUserScramCredentialRecord, UserScramCredentialRecord

USERS_MAX = 100_000
"""Users of a cluster: each is in every snapshot."""
SALT_LENGTH_MAX = 1_024


def alter_users(controller: ControllerState, request: AlterUsers) -> Decision:
    """All changes of one user or none of them. A credential that is named twice is refused, as in Kafka."""
    outcomes: dict[str, ErrorDetail | None] = {}
    records: dict[str, list[UserScramCredentialRecord | RemoveUserScramCredentialRecord]] = {}
    changes: list[ScramDeletion | ScramUpsertion] = [*request.deletions, *request.upsertions]
    times = Counter((each.name, each.mechanism) for each in changes)
    left = USERS_MAX - _count(controller.image.users)
    for each in changes:
        if outcomes.setdefault(each.name, None) is not None:
            continue
        try:
            _check_name(each, times[each.name, each.mechanism])
            if isinstance(each, ScramDeletion):
                record: UserScramCredentialRecord | RemoveUserScramCredentialRecord = _removed(controller, each)
            else:
                record = _set(each)
                if not controller.image.users.get(each.name) and each.name not in records:
                    left -= 1
                    if left < 0:
                        raise UnacceptableCredential(f"a cluster has at most {USERS_MAX} users")
        except KafkaError as error:
            outcomes[each.name] = ErrorDetail(type(error), error.message)
            records.pop(each.name, None)
        else:
            records.setdefault(each.name, []).append(record)
    changed = tuple(record for each in records.values() for record in each)
    return Decision(liveness=controller.liveness, records=changed, is_atomic=True, reply=outcomes)


def _count(users: Mapping[str, Mapping[str, Credential]]) -> int:
    """Users that exist. Deleted ones are looked for only where there are many."""
    return len(users) if len(users) < USERS_MAX else sum(map(bool, users.values()))


def _check_name(each: ScramDeletion | ScramUpsertion, times: int) -> None:
    if not 0 < len(each.name) <= USER_LENGTH_MAX:
        raise UnacceptableCredential(f"Username must not be empty, nor longer than {USER_LENGTH_MAX} characters")
    if is_reserved(each.name):
        raise UnacceptableCredential(RESERVED)
    if each.mechanism not in DIGESTS:
        raise UnsupportedSaslMechanism("Unknown SCRAM mechanism")
    if times > 1:
        raise DuplicateResource("A user credential cannot be altered twice in the same request")


def _removed(controller: ControllerState, each: ScramDeletion) -> RemoveUserScramCredentialRecord:
    if each.mechanism not in controller.image.users.get(each.name, {}):
        raise ResourceNotFound("Attempt to delete a user credential that does not exist")
    return RemoveUserScramCredentialRecord.model_validate({"name": each.name, "mechanism": each.mechanism})


def _set(each: ScramUpsertion) -> UserScramCredentialRecord:
    if each.iterations < ITERATIONS:
        raise UnacceptableCredential("Too few iterations")
    if each.iterations > ITERATIONS_MAX:
        raise UnacceptableCredential("Too many iterations")
    if not 0 < len(each.salt) <= SALT_LENGTH_MAX or not each.salted_password:
        raise UnacceptableCredential("a credential has a salt and a salted password")
    made = credential_of(each.salted_password, salt=each.salt, iterations=each.iterations, mechanism=each.mechanism)
    return UserScramCredentialRecord.model_validate(
        {
            "name": each.name,
            "mechanism": each.mechanism,
            "salt": made.salt.hex(),
            "iterations": made.iterations,
            "stored_key": made.stored_key.hex(),
            "server_key": made.server_key.hex(),
        }
    )
