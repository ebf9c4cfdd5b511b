"""The Go client franz-go against three nodes with TLS and users, with each mechanism.

    python -m tests.clients.golang.secured [--cache FOLDER]

Needs Go; the versions stand in go.mod. With each mechanism: a topic, idempotent records, an aborted and a committed
transaction, and a group that reads what is committed.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kraft.testing import Cluster
from tests.clients.golang.__main__ import BUILD_S, HERE
from tests.clients.scripts import Steps, end, parser, run_program

MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER")
SETTINGS: Final = {
    "sasl.enabled.mechanisms": ",".join(MECHANISMS),
    "sasl.oauthbearer.unsecured.tokens.enable": True,
}
PROGRAM_S: Final = 180
TOKEN_S: Final = 3_600


def main() -> None:
    asked = parser(__doc__).parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    binary = asked.cache / "go-secured"
    run_program(["go", "build", "-o", binary, "./secured"], folder=HERE, timeout_s=BUILD_S)
    steps = Steps("franz-go, secured")
    with Cluster(nodes=3, secure=True, settings=SETTINGS) as cluster:
        for mechanism in MECHANISMS:
            steps.run(_step(cluster, binary, mechanism))
        steps.run(_refused(cluster, binary))
    end(steps.verdict())


def _step(cluster: Cluster, binary: Path, mechanism: str) -> Callable[[], None]:
    def step() -> None:
        topic = f"go-{mechanism.lower()}-{uuid.uuid4().hex[:8]}"
        output = _run(cluster, binary, topic, MECHANISM=mechanism)
        assert "ok 501 records" in output, output

    step.__name__ = mechanism
    return step


def _refused(cluster: Cluster, binary: Path) -> Callable[[], None]:
    def wrong_password() -> None:
        output = _run(cluster, binary, "never", code=1, MECHANISM="SCRAM-SHA-512", PASSWORD_FILE=str(HERE / "go.mod"))
        assert "SASL_AUTHENTICATION_FAILED" in output, output

    return wrong_password


def _run(cluster: Cluster, binary: Path, topic: str, *, code: int = 0, **variables: str) -> str:
    login = cluster.security
    own = {
        "USER_NAME": login.user,
        "PASSWORD_FILE": str(login.password_file),
        "CA_FILE": str(login.ca),
        "TOKEN": _token(login.user),
    }
    environment = {**os.environ, **own, **variables}
    return run_program(
        [binary, cluster.bootstrap_servers, topic], environment=environment, code=code, timeout_s=PROGRAM_S
    )


def _token(user: str) -> str:
    """A token without a signature, as Kafka's own unsecured logins send."""
    return f"{_part({'alg': 'none'})}.{_part({'sub': user, 'exp': int(time.time()) + TOKEN_S})}."


def _part(document: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


if __name__ == "__main__":
    main()
