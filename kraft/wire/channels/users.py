"""AlterUserScramCredentials (51), as nodes ask it of the active controller."""

from __future__ import annotations

from collections.abc import Mapping

from kraft.protocol import apis
from kraft.protocol.messages.alter_user_scram_credentials_request import (
    AlterUserScramCredentialsRequestData,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from kraft.protocol.messages.alter_user_scram_credentials_response import AlterUserScramCredentialsResponseData
from kraft.wire.error_details import to_detail
from kraft.wire.rpc import Rpc
from kraft.wire.terms import MECHANISM_NUMBERS
from metadata.controller.requests import AlterUsers, ErrorDetail


def _to_request(request: AlterUsers, timeout_ms: int) -> AlterUserScramCredentialsRequestData:
    return AlterUserScramCredentialsRequestData.make(
        deletions=tuple(
            ScramCredentialDeletion.make(name=each.name, mechanism=MECHANISM_NUMBERS.get(each.mechanism, 0))
            for each in request.deletions
        ),
        upsertions=tuple(
            ScramCredentialUpsertion.make(
                name=each.name,
                mechanism=MECHANISM_NUMBERS.get(each.mechanism, 0),
                iterations=each.iterations,
                salt=each.salt,
                salted_password=each.salted_password,
            )
            for each in request.upsertions
        ),
    )


ALTER_USERS: Rpc[
    AlterUsers,
    Mapping[str, ErrorDetail | None],
    AlterUserScramCredentialsRequestData,
    AlterUserScramCredentialsResponseData,
] = Rpc(
    api=apis.ALTER_USER_SCRAM_CREDENTIALS,
    response=AlterUserScramCredentialsResponseData,
    to_request=_to_request,
    from_reply=lambda request, message: {
        each.user: to_detail(each.error_code, each.error_message) for each in message.results
    },
)
