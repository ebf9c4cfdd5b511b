"""TLS of links that end it: they show the certificate of the node behind them, and trust that node without a look.

A client that verifies certificates has to see what the node would have shown, an expired one too; the proxy itself
verifies nothing, because it is on the machine of the nodes.
"""

from __future__ import annotations

import ssl

from kraft.runtime.tls import CIPHERS_TLS_1_2


class LinkCertificate:
    """Implements `metadata.environment.Tls`. Each load makes a new context: no session of an older one goes on."""

    takes_plain = False

    def __init__(self, keystore: str) -> None:
        self._keystore = keystore
        self._context = _server_context(keystore)

    def load(self) -> None:
        """Load the file again. Raises OSError."""
        self._context = _server_context(self._keystore)

    def context(self) -> ssl.SSLContext:
        return self._context


def _server_context(keystore: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_TLS_1_2)
    context.load_cert_chain(keystore)
    return context


def client_context() -> ssl.SSLContext:
    """The context of connections to nodes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
