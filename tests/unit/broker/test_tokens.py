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


def a_node(path: Path) -> tuple[Tokens, Clock, list[str]]:
    """Tokens of a node with a JWKS file, its clock, and what it reports of the file."""
    clock, said = Clock(), list[str]()
    settings = broker_settings({"sasl.oauthbearer.jwks.endpoint.url": f"file://{path}"})
    around: Any = SimpleNamespace(clock=clock, files=DiskFiles())
    events: Any = SimpleNamespace(emit=lambda event, *, error: said.append(f"{event} {error}"))
    return Tokens(around, lambda: settings, events=events), clock, said


@pytest.fixture(autouse=True)
def no_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the test."""
    monkeypatch.setattr("jwt.api_jwt.PyJWT._validate_exp", lambda *_: None)


def test_a_rotation_of_keys(tmp_path: Path) -> None:
    """Both keys for a while, then the new one alone: who came with the old one has to go."""
    path = tmp_path / "jwks.json"
    tokens, clock, said = a_node(path)
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
    assert not said


def test_a_file_that_everybody_may_write_changes_nothing(tmp_path: Path) -> None:
    """As at the start, where it is refused: with a key in it anybody would be any user."""
    path = tmp_path / "jwks.json"
    tokens, clock, said = a_node(path)
    write(path, "old")
    old = tokens.check(signed("old"))
    other = tmp_path / "other.json"
    write(other, "new")
    other.chmod(0o666)
    other.replace(path)
    for _ in range(3):
        clock.now_ms += LOOK_EVERY_MS
        with pytest.raises(BadToken):
            tokens.check(signed("new"))
        assert tokens.is_current(old)
    assert said == [f"jwks_not_loaded {path} may be written by everybody on this machine: chmod o-w {path}"], (
        "one line for each change"
    )
    path.chmod(0o644)
    clock.now_ms += LOOK_EVERY_MS
    assert tokens.check(signed("new")).name == "alice"
    assert not tokens.is_current(old)
    path.chmod(0o666)
    clock.now_ms += LOOK_EVERY_MS
    tokens.check(signed("new"))
    assert len(said) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [1]}', '{"keys": {}', "[" * 100_000])
def test_a_broken_file_changes_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jwks.json"
    tokens, clock, said = a_node(path)
    write(path, "old")
    tokens.check(signed("old"))
    path.write_text(text)
    for _ in range(2):
        clock.now_ms += LOOK_EVERY_MS
        tokens.check(signed("old"))
    assert said == [f"jwks_not_loaded {path}: it is no JWKS, a JSON object with an array keys"]


def test_a_file_that_everybody_may_write_has_no_keys_at_first(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    tokens, _, said = a_node(path)
    write(path, "old")
    path.chmod(0o646)
    with pytest.raises(BadToken):
        tokens.check(signed("old"))
    assert len(said) == 1
