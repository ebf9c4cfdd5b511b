"""What a configuration needs beside its file: packages, users of the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kraft.config import ClusterConfig, ConfigError
from kraft.launcher.configuration import PASSWORD_VARIABLE, USER_VARIABLE, load_config

NODE = "[[nodes]]\nid = 1\n"
JWKS = '[settings]\nsasl.oauthbearer.jwks.endpoint.url = "file:///none/jwks.json"\n'
MECHANISM = '[settings]\nsasl.enabled.mechanisms = "SCRAM-SHA-256,OAUTHBEARER"\n'
UNSECURED = "sasl.oauthbearer.unsecured.tokens.enable = true\n"
LISTENER = "[[nodes.listeners]]\nname = 'OUTSIDE'\nport = 9999\nmechanisms = ['OAUTHBEARER']\n"
FILE_USER = '[[users]]\nname = "admin"\npassword = "of the file"\n'


def loaded(folder: Path, text: str = NODE) -> ClusterConfig:
    return load_config(text=text, data=str(folder))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (JWKS + NODE, "the configuration:2: sasl.oauthbearer.jwks.endpoint.url: "),
        (MECHANISM + NODE, "the configuration:2: sasl.enabled.mechanisms: "),
        (NODE + "settings.sasl.enabled.mechanisms = 'OAUTHBEARER'\n", "the configuration:3: sasl.enabled.mechanisms: "),
        (NODE + LISTENER, "the configuration:6: mechanisms: "),
        (JWKS + UNSECURED + NODE, "the configuration:2: sasl.oauthbearer.jwks.endpoint.url: "),
    ],
)
def test_tokens_without_their_package_are_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: str
) -> None:
    assert loaded(tmp_path, text).nodes
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    assert str(raised.value) == f"{place}tokens with a signature need PyJWT; run: pip install 'kraft[security]'."


@pytest.mark.parametrize("text", [NODE, MECHANISM + UNSECURED + NODE])
def test_who_takes_no_signed_tokens_needs_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    assert loaded(tmp_path, text).nodes


def test_a_user_of_the_environment_exists_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER_VARIABLE, "first")
    assert loaded(tmp_path).passwords == {}, "a name alone is no user"
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the environment")
    assert loaded(tmp_path).passwords == {"first": "of the environment"}
    assert loaded(tmp_path, NODE + FILE_USER).passwords == {"admin": "of the file", "first": "of the environment"}
    monkeypatch.setenv(USER_VARIABLE, "admin")
    assert loaded(tmp_path, NODE + FILE_USER).passwords == {"admin": "of the file"}


@pytest.mark.parametrize(
    ("name", "password", "words"),
    [
        ("__cluster__", "p", "it should be another name: __cluster__ is the user of the nodes"),
        ("a\nb", "p", "KRAFT_INITIAL_USER: the value is not possible; it should match"),
        ("a", "hidden" * 200, "KRAFT_INITIAL_PASSWORD: the value is not possible; it should have at most 1024"),
    ],
)
def test_a_wrong_user_of_the_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, password: str, words: str
) -> None:
    monkeypatch.setenv(USER_VARIABLE, name)
    monkeypatch.setenv(PASSWORD_VARIABLE, password)
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path)
    assert str(raised.value).startswith("the environment: ")
    assert words in str(raised.value)
    assert "hidden" not in str(raised.value)
