"""Authentication (17, 36) and SCRAM users (50, 51): clients have none of them.

It answers as a Kafka without users: descriptions are empty, and what would
change them is refused in words, so that nobody believes in a rule that nothing enforces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import (
    DuplicateResource,
    IllegalSaslState,
    KafkaError,
    ResourceNotFound,
    UnsupportedSaslMechanism,
)
from kraft.protocol.messages.alter_user_scram_credentials_request import AlterUserScramCredentialsRequestData
from kraft.protocol.messages.alter_user_scram_credentials_response import (
    AlterUserScramCredentialsResponseData,
    AlterUserScramCredentialsResult,
)
from kraft.protocol.messages.describe_user_scram_credentials_request import DescribeUserScramCredentialsRequestData
from kraft.protocol.messages.describe_user_scram_credentials_response import (
    DescribeUserScramCredentialsResponseData,
    DescribeUserScramCredentialsResult,
)
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.node_parts import NodeParts

_NO_AUTHENTICATION = IllegalSaslState("clients are served without authentication here: set security.protocol=PLAINTEXT")
_NO_USERS = UnsupportedSaslMechanism("this cluster has no users: clients are served without authentication")


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    return (*_authentication(), *_users_apis())


def _authentication() -> tuple[ApiHandler, ...]:
    """The answers of a PLAINTEXT listener of Kafka, where no client authenticates. Nodes authenticate before any other
    request, and never reach these handlers."""
    return (
        ApiHandler(
            request=SaslHandshakeRequestData,
            response=SaslHandshakeResponseData,
            handle=_is_not_authenticated,
            refuse=lambda message, version, error: SaslHandshakeResponseData.make(error_code=error.code),
        ),
        ApiHandler(
            request=SaslAuthenticateRequestData,
            response=SaslAuthenticateResponseData,
            handle=_is_not_authenticated,
            refuse=lambda message, version, error: SaslAuthenticateResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
    )


def _users_apis() -> tuple[ApiHandler, ...]:
    return (
        ApiHandler(
            request=DescribeUserScramCredentialsRequestData,
            response=DescribeUserScramCredentialsResponseData,
            handle=_describe_users,
            refuse=lambda message, version, error: DescribeUserScramCredentialsResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=AlterUserScramCredentialsRequestData,
            response=AlterUserScramCredentialsResponseData,
            handle=_alter_users,
            refuse=_refuse_users,
        ),
    )


def _is_not_authenticated(call: Call[TopLevel]) -> TopLevel:
    raise IllegalSaslState(_NO_AUTHENTICATION.message)


# --- SCRAM users --------------------------------------------------------------------------------------------------


def _describe_users(
    call: Call[DescribeUserScramCredentialsRequestData],
) -> DescribeUserScramCredentialsResponseData:
    """None of all (null or no names); each one that is named is not there."""
    times = Counter(user.name for user in call.message.users or ())
    results = []
    for name, count in times.items():
        error = (
            ResourceNotFound(f"there is no SCRAM user {name!r}")
            if count == 1
            else DuplicateResource(f"SCRAM user {name!r} is named {count} times")
        )
        results.append(
            DescribeUserScramCredentialsResult.make(user=name, error_code=error.code, error_message=error.message)
        )
    return DescribeUserScramCredentialsResponseData.make(error_message=None, results=results)


def _alter_users(call: Call[AlterUserScramCredentialsRequestData]) -> AlterUserScramCredentialsResponseData:
    outcomes: dict[str, KafkaError] = {
        each.name: ResourceNotFound(f"there is no SCRAM user {each.name!r}") for each in call.message.deletions
    }
    outcomes |= {each.name: _NO_USERS for each in call.message.upsertions}
    return _users(outcomes)


def _refuse_users(
    message: AlterUserScramCredentialsRequestData, version: int, error: KafkaError
) -> AlterUserScramCredentialsResponseData:
    names = [*(each.name for each in message.deletions), *(each.name for each in message.upsertions)]
    return _users(dict.fromkeys(names, error))


def _users(outcomes: dict[str, KafkaError]) -> AlterUserScramCredentialsResponseData:
    return AlterUserScramCredentialsResponseData.make(
        results=[
            AlterUserScramCredentialsResult.make(
                user=name, error_code=outcomes[name].code, error_message=outcomes[name].message
            )
            for name in sorted(outcomes)
        ]
    )
