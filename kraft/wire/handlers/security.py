"""Logins of clients (17, 36), and users with a password (50, 51).

At a listener without SASL a login is ILLEGAL_SASL_STATE 34, as at a PLAINTEXT listener of Kafka. Elsewhere a client has
logged in before its session begins, and what comes here is a login that is repeated (KIP-368).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kraft.protocol.errors import (
    DuplicateResource,
    IllegalSaslState,
    KafkaError,
    ResourceNotFound,
)
from kraft.protocol.messages.alter_user_scram_credentials_request import AlterUserScramCredentialsRequestData
from kraft.protocol.messages.alter_user_scram_credentials_response import (
    AlterUserScramCredentialsResponseData,
    AlterUserScramCredentialsResult,
)
from kraft.protocol.messages.describe_user_scram_credentials_request import DescribeUserScramCredentialsRequestData
from kraft.protocol.messages.describe_user_scram_credentials_response import (
    CredentialInfo,
    DescribeUserScramCredentialsResponseData,
    DescribeUserScramCredentialsResult,
)
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from kraft.protocol.scram import Credential
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.client_login import AFTER_LOGIN, ClientLogin
from kraft.wire.error_details import detail_code, detail_message
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import MECHANISM_NUMBERS
from metadata.controller.requests import AlterUsers, ErrorDetail, ScramDeletion, ScramUpsertion

_NO_AUTHENTICATION = IllegalSaslState("clients are served without authentication here: set security.protocol=PLAINTEXT")


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    return (*_authentication(), *_users_apis(_UserHandlers(parts)))


def _authentication() -> tuple[ApiHandler, ...]:
    """Nodes authenticate before any other request, and never reach these handlers."""
    return (
        ApiHandler(
            request=SaslHandshakeRequestData,
            response=SaslHandshakeResponseData,
            handle=_handshake,
            refuse=lambda message, version, error: SaslHandshakeResponseData.make(error_code=error.code),
        ),
        ApiHandler(
            request=SaslAuthenticateRequestData,
            response=SaslAuthenticateResponseData,
            handle=_authenticate,
            refuse=lambda message, version, error: SaslAuthenticateResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
    )


def _users_apis(handlers: _UserHandlers) -> tuple[ApiHandler, ...]:
    return (
        ApiHandler(
            request=DescribeUserScramCredentialsRequestData,
            response=DescribeUserScramCredentialsResponseData,
            handle=handlers.describe,
            refuse=lambda message, version, error: DescribeUserScramCredentialsResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=AlterUserScramCredentialsRequestData,
            response=AlterUserScramCredentialsResponseData,
            handle=handlers.alter,
            refuse=_refuse_users,
        ),
    )


def _handshake(call: Call[SaslHandshakeRequestData]) -> SaslHandshakeResponseData:
    """A login is repeated where its session has an end, and with SaslAuthenticate, so with version 1."""
    login = _login(call)
    if login.ends_ms is None or not call.version:
        raise IllegalSaslState("a login is repeated where its session has an end, after version 1 of SaslHandshake")
    return login.handshake(call.message)


async def _authenticate(call: Call[SaslAuthenticateRequestData]) -> SaslAuthenticateResponseData:
    login = _login(call)
    if not login.awaits_token:
        raise AFTER_LOGIN
    return await login.authenticate(call.message)


def _login(call: Call[Any]) -> ClientLogin:
    if call.connection.login is None:
        raise IllegalSaslState(_NO_AUTHENTICATION.message)
    return call.connection.login


# --- SCRAM users --------------------------------------------------------------------------------------------------


class _UserHandlers:
    def __init__(self, parts: NodeParts) -> None:
        self._gateway = parts.gateway
        self._control = Control(parts)

    def describe(self, call: Call[DescribeUserScramCredentialsRequestData]) -> DescribeUserScramCredentialsResponseData:
        """All users for null or no names."""
        users = {name: found for name, found in self._gateway.image.users.items() if found}
        times = Counter(user.name for user in call.message.users or ()) or Counter(sorted(users))
        return DescribeUserScramCredentialsResponseData.make(
            error_message=None, results=[_described(name, users.get(name), count) for name, count in times.items()]
        )

    async def alter(self, call: Call[AlterUserScramCredentialsRequestData]) -> AlterUserScramCredentialsResponseData:
        message = call.message
        request = AlterUsers(
            deletions=tuple(
                ScramDeletion(name=each.name, mechanism=_name(each.mechanism)) for each in message.deletions
            ),
            upsertions=tuple(
                ScramUpsertion(
                    name=each.name,
                    mechanism=_name(each.mechanism),
                    iterations=each.iterations,
                    salt=bytes(each.salt),
                    salted_password=bytes(each.salted_password),
                )
                for each in message.upsertions
            ),
        )
        return _users(await self._control.ask(call, request))


def _name(number: int) -> str:
    """The mechanism of a number; empty for an unknown one, which the controller refuses."""
    return next((name for name, each in MECHANISM_NUMBERS.items() if each == number), "")


def _described(
    name: str, credentials: Mapping[str, Credential] | None, times: int
) -> DescribeUserScramCredentialsResult:
    error: KafkaError | None = None
    if times > 1:
        error = DuplicateResource(f"SCRAM user {name!r} is named {times} times")
    elif credentials is None:
        error = ResourceNotFound(f"there is no SCRAM user {name!r}")
    if error is not None or credentials is None:
        assert error is not None, name
        return DescribeUserScramCredentialsResult.make(user=name, error_code=error.code, error_message=error.message)
    return DescribeUserScramCredentialsResult.make(
        user=name,
        error_message=None,
        credential_infos=[
            CredentialInfo.make(mechanism=MECHANISM_NUMBERS[mechanism], iterations=each.iterations)
            for mechanism, each in credentials.items()
        ],
    )


def _refuse_users(
    message: AlterUserScramCredentialsRequestData, version: int, error: KafkaError
) -> AlterUserScramCredentialsResponseData:
    names = [*(each.name for each in message.deletions), *(each.name for each in message.upsertions)]
    return _users(dict.fromkeys(names, ErrorDetail(type(error), error.message)))


def _users(outcomes: Mapping[str, ErrorDetail | None]) -> AlterUserScramCredentialsResponseData:
    return AlterUserScramCredentialsResponseData.make(
        results=[
            AlterUserScramCredentialsResult.make(
                user=name, error_code=detail_code(outcomes[name]), error_message=detail_message(outcomes[name])
            )
            for name in sorted(outcomes)
        ]
    )
