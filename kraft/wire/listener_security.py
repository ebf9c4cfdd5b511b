"""Security of one listener of Kafka clients: its TLS, and who its clients are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kraft.broker.principal import ANONYMOUS_NAME, UserPrincipal, host_of
from kraft.wire.client_login import LoginRules
from metadata.certificate_names import user_of
from metadata.environment import FrameConnection, Tls

DEFAULT_RULES = "DEFAULT"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSecurity:
    tls: Tls | None = None
    nodes_need_tls: bool = False
    """Nodes that come without TLS are refused, where the port takes both because of clients."""
    clients_need_tls: bool = False
    """Clients that come without TLS are refused, where the port takes both because of nodes."""
    mapping_rules: Callable[[], str] = lambda: DEFAULT_RULES
    """Returns `ssl.principal.mapping.rules`."""

    login: LoginRules | None = None
    """None where clients do not log in."""

    def principal(self, connection: FrameConnection) -> UserPrincipal | None:
        """The user of the connection's certificate, or ANONYMOUS; None if no rule makes a user of the certificate."""
        host, subject = host_of(connection.peer), connection.certificate_name
        if self.login is not None or not subject:
            return UserPrincipal(ANONYMOUS_NAME, host)
        name = user_of(subject, self.mapping_rules())
        return UserPrincipal(name, host) if name else None


PLAINTEXT = ListenerSecurity()
"""A listener without TLS, whose clients are ANONYMOUS."""
