"""A connection's authentication on the server: SaslHandshake, then two SaslAuthenticate requests (KIP-43, KIP-152).

    START --handshake--> CHOSEN --client-first--> CHALLENGED --client-final--> authenticated

Any other order is ILLEGAL_SASL_STATE 34, a wrong secret SASL_AUTHENTICATION_FAILED 58; both end the connection.
"""

from __future__ import annotations

import random
from base64 import b64encode
from dataclasses import dataclass
from enum import Enum

from kraft.broker.principal import NodePrincipal, node_principal_of
from kraft.protocol import scram
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import IllegalSaslState, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanism
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from kraft.protocol.scram import Credential, ScramFailed, ScramServer


class State(Enum):
    START = "start"
    CHOSEN = "mechanism chosen"
    CHALLENGED = "challenged"
    AUTHENTICATED = "authenticated"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """The response to one SASL request, and whether the connection ends after it."""

    response: TopLevel
    is_last: bool = False


class Authentication:
    """The state of one connection's authentication; each request moves it on or ends it."""

    def __init__(self, credential: Credential, rng: random.Random, *, host: str = "") -> None:
        self.state = State.START
        self.principal: NodePrincipal | None = None
        self.reason = ""
        self._host = host
        nonce = b64encode(rng.randbytes(scram.NONCE_BYTES)).decode()
        self._server = ScramServer(credential, user=scram.CLUSTER_USER, nonce=nonce)

    def handshake(self, message: SaslHandshakeRequestData) -> Step:
        """The answer to SaslHandshake: any mechanism but SCRAM-SHA-256 is UNSUPPORTED_SASL_MECHANISM 33."""
        if self.state is not State.START:
            return self._handshake_failed(IllegalSaslState.code)
        if message.mechanism != scram.MECHANISM:
            return self._handshake_failed(UnsupportedSaslMechanism.code)
        self.state = State.CHOSEN
        return Step(_handshake_response(0))

    def _handshake_failed(self, code: int) -> Step:
        self.state = State.FAILED
        self.reason = f"SASL handshake refused with error {code}"
        return Step(_handshake_response(code), is_last=True)

    def authenticate(self, message: SaslAuthenticateRequestData, client_id: str | None) -> Step:
        """The answer to SaslAuthenticate. After the client's proof `principal` names the client; `client_id` is that of
        the request (see `kraft.broker.principal`).
        """
        try:
            return Step(_authenticate_response(token=self._next(bytes(message.auth_bytes), client_id)))
        except ScramFailed as failure:
            return self._failed(SaslAuthenticationFailed(f"Authentication failed: {failure}"))
        except IllegalSaslState as error:
            return self._failed(error)

    def _next(self, token: bytes, client_id: str | None) -> bytes:
        match self.state:
            case State.CHOSEN:
                answer = self._server.first(token)
                self.state = State.CHALLENGED
            case State.CHALLENGED:
                answer = self._server.final(token)
                self.principal = node_principal_of(client_id, host=self._host)
                if self.principal is None:
                    raise ScramFailed("the client id is not node-<id>-<controller|fetch|forward>")
                self.state = State.AUTHENTICATED
            case _:
                raise IllegalSaslState(f"SaslAuthenticate in state '{self.state.value}'; send SaslHandshake first")
        return answer

    def _failed(self, error: KafkaError) -> Step:
        self.state = State.FAILED
        self.reason = error.message
        return Step(_authenticate_response(error=error), is_last=True)


def _handshake_response(code: int) -> SaslHandshakeResponseData:
    return SaslHandshakeResponseData.make(error_code=code, mechanisms=(scram.MECHANISM,))


def _authenticate_response(*, token: bytes = b"", error: KafkaError | None = None) -> SaslAuthenticateResponseData:
    return SaslAuthenticateResponseData.make(
        error_code=0 if error is None else error.code,
        error_message=None if error is None else error.message,
        auth_bytes=token,
    )
