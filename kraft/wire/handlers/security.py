"""Authentication (17, 36), ACLs (29 to 31), quotas (48, 49) and SCRAM users (50, 51): clients have none of them.

It answers as a Kafka without an authorizer, without quotas and without users: descriptions are empty, and what would
change them is refused in words, so that nobody believes in a rule that nothing enforces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import (
    DuplicateResource,
    IllegalSaslState,
    InvalidRequest,
    KafkaError,
    ResourceNotFound,
    SecurityDisabled,
    UnsupportedSaslMechanism,
    UnsupportedVersion,
)
from kraft.protocol.messages import alter_client_quotas_response as altered
from kraft.protocol.messages.alter_client_quotas_request import AlterClientQuotasRequestData
from kraft.protocol.messages.alter_client_quotas_response import AlterClientQuotasResponseData
from kraft.protocol.messages.alter_user_scram_credentials_request import AlterUserScramCredentialsRequestData
from kraft.protocol.messages.alter_user_scram_credentials_response import (
    AlterUserScramCredentialsResponseData,
    AlterUserScramCredentialsResult,
)
from kraft.protocol.messages.create_acls_request import CreateAclsRequestData
from kraft.protocol.messages.create_acls_response import AclCreationResult, CreateAclsResponseData
from kraft.protocol.messages.delete_acls_request import DeleteAclsRequestData
from kraft.protocol.messages.delete_acls_response import DeleteAclsFilterResult, DeleteAclsResponseData
from kraft.protocol.messages.describe_acls_request import DescribeAclsRequestData
from kraft.protocol.messages.describe_acls_response import DescribeAclsResponseData
from kraft.protocol.messages.describe_client_quotas_request import DescribeClientQuotasRequestData
from kraft.protocol.messages.describe_client_quotas_response import DescribeClientQuotasResponseData
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

QUOTA_ENTITIES = frozenset({"user", "client-id", "ip"})
"""Source: ClientQuotaEntity."""

_NO_AUTHENTICATION = IllegalSaslState("clients are served without authentication here: set security.protocol=PLAINTEXT")
_NO_AUTHORIZER = SecurityDisabled("this cluster has no authorizer: there are no ACLs")
_NO_QUOTAS = InvalidRequest("this cluster has no quotas: nothing would hold a client to them")
_NO_USERS = UnsupportedSaslMechanism("this cluster has no users: clients are served without authentication")


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    return (*_authentication(), *_acls(), *_quotas_and_users())


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


def _acls() -> tuple[ApiHandler, ...]:
    return (
        ApiHandler(
            request=DescribeAclsRequestData,
            response=DescribeAclsResponseData,
            handle=_no_authorizer,
            refuse=lambda message, version, error: DescribeAclsResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=CreateAclsRequestData,
            response=CreateAclsResponseData,
            handle=_no_authorizer,
            refuse=lambda message, version, error: CreateAclsResponseData.make(
                results=[
                    AclCreationResult.make(error_code=error.code, error_message=error.message)
                    for _ in message.creations
                ]
            ),
        ),
        ApiHandler(
            request=DeleteAclsRequestData,
            response=DeleteAclsResponseData,
            handle=_no_authorizer,
            refuse=lambda message, version, error: DeleteAclsResponseData.make(
                filter_results=[
                    DeleteAclsFilterResult.make(error_code=error.code, error_message=error.message)
                    for _ in message.filters
                ]
            ),
        ),
    )


def _quotas_and_users() -> tuple[ApiHandler, ...]:
    return (
        ApiHandler(
            request=DescribeClientQuotasRequestData,
            response=DescribeClientQuotasResponseData,
            handle=_describe_quotas,
            refuse=lambda message, version, error: DescribeClientQuotasResponseData.make(
                error_code=error.code, error_message=error.message, entries=None
            ),
        ),
        ApiHandler(
            request=AlterClientQuotasRequestData,
            response=AlterClientQuotasResponseData,
            handle=_alter_quotas,
            refuse=_refuse_quotas,
        ),
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


def _no_authorizer(call: Call[TopLevel]) -> TopLevel:
    raise SecurityDisabled(_NO_AUTHORIZER.message)


# --- quotas -------------------------------------------------------------------------------------------------------


def _describe_quotas(call: Call[DescribeClientQuotasRequestData]) -> DescribeClientQuotasResponseData:
    for component in call.message.components:
        if component.entity_type not in QUOTA_ENTITIES:
            raise UnsupportedVersion(
                f"there are no quotas of entity type {component.entity_type!r}; {sorted(QUOTA_ENTITIES)} are known"
            )
    return DescribeClientQuotasResponseData.make(error_message=None)


def _alter_quotas(call: Call[AlterClientQuotasRequestData]) -> AlterClientQuotasResponseData:
    return _refuse_quotas(call.message, call.version, _NO_QUOTAS)


def _refuse_quotas(
    message: AlterClientQuotasRequestData, version: int, error: KafkaError
) -> AlterClientQuotasResponseData:
    return AlterClientQuotasResponseData.make(
        entries=[
            altered.EntryData.make(
                error_code=error.code,
                error_message=error.message,
                entity=[
                    altered.EntityData.make(entity_type=each.entity_type, entity_name=each.entity_name)
                    for each in entry.entity
                ],
            )
            for entry in message.entries
        ]
    )


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
