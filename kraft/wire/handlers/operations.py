"""All that anybody may do with a resource (KIP-430), as bits by Kafka's `AclOperation` codes: the answer without an
authorizer. With one, `kraft.wire.access_table` puts the bits of the client in their place. The operations of each kind
are those of Kafka's `AclEntry.supportedOperations`."""

from __future__ import annotations

from typing import Final

NOT_ASKED: Final = -(1 << 31)
"""What is answered when the request did not ask for them."""

_READ, _WRITE, _CREATE, _DELETE, _ALTER, _DESCRIBE = (1 << code for code in range(3, 9))
_CLUSTER_ACTION, _DESCRIBE_CONFIGS, _ALTER_CONFIGS, _IDEMPOTENT_WRITE = (1 << code for code in range(9, 13))

TOPIC: Final = _READ | _WRITE | _CREATE | _DELETE | _ALTER | _DESCRIBE | _DESCRIBE_CONFIGS | _ALTER_CONFIGS
GROUP: Final = _READ | _DELETE | _DESCRIBE | _DESCRIBE_CONFIGS | _ALTER_CONFIGS
CLUSTER: Final = _CREATE | _ALTER | _DESCRIBE | _CLUSTER_ACTION | _DESCRIBE_CONFIGS | _ALTER_CONFIGS | _IDEMPOTENT_WRITE
