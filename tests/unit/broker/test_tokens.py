"""Keys of the JWKS file come and go while the node runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from kraft.broker.tokens import LOOK_EVERY_MS, BadToken, Tokens
from kraft.runtime.files import DiskFiles
from metadata.settings import broker_settings

NOW_MS = 1_800_000_000_000
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("old", "new")}


class Clock:
    def __init__(self) -> None:
        self.now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return NOW_MS + self.now_ms


def write(path: Path, *names: str) -> None:
    keys = [{**json.loads(ECAlgorithm.to_jwk(KEYS[name].public_key())), "kid": name, "alg": "ES256"} for name in names]
    path.write_text(json.dumps({"keys": keys}))


def signed(name: str, *, expires_s: int = 600) -> str:
    claims = {"sub": "alice", "exp": NOW_MS // 1_000 + expires_s}
    return jwt.encode(claims, KEYS[name], algorithm="ES256", headers={"kid": name})


def test_a_rotation_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both keys for a while, then the new one alone: who came with the old one has to go."""
    monkeypatch.setattr("jwt.api_jwt.PyJWT._validate_exp", lambda *_: None)  # by the clock of the test
    path, clock = tmp_path / "jwks.json", Clock()
    settings = broker_settings({"sasl.oauthbearer.jwks.endpoint.url": f"file://{path}"})
    around: Any = SimpleNamespace(clock=clock, files=DiskFiles())
    tokens = Tokens(around, lambda: settings)
    write(path, "old")
    old = tokens.check(signed("old"))
    assert old.name == "alice"
    write(path, "old", "new")
    with pytest.raises(BadToken, match=r"no key of the JWKS file|ignature"):
        tokens.check(signed("new"))
    clock.now_ms += LOOK_EVERY_MS
    new = tokens.check(signed("new"))
    assert tokens.is_current(old)
    write(path, "new")
    clock.now_ms += LOOK_EVERY_MS
    assert not tokens.is_current(old)
    assert tokens.is_current(new)
    with pytest.raises(BadToken):
        tokens.check(signed("old"))
    path.unlink()
    clock.now_ms += LOOK_EVERY_MS
    assert not tokens.is_current(new)
    write(path, "new")
    clock.now_ms += LOOK_EVERY_MS
    assert tokens.is_current(new)
    clock.now_ms += 600_000
    assert not tokens.is_current(new)
