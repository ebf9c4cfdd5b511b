"""Whatever a file says, it is refused in words: nothing but `ConfigError` escapes from what reads it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraft.config.parse import parse_config
from kraft.config.problems import ConfigError
from kraft.config.toml import LEVELS_MAX, parse_toml

DEEP = 100_000
NESTED = {
    "lists": "data = " + "[" * DEEP,
    "closed lists": "data = " + "[" * 5_000 + "]" * 5_000,
    "tables": "data = " + "{a = " * DEEP,
    "closed tables": "data = " + "{a = " * 2_000 + "1" + "}" * 2_000,
    "dots": "settings." + ".".join("a" * 3_000) + " = 1",
    "dots in a table": f"[settings.{'.'.join('a' * 3_000)}]\nb = 1",
    "dots of a node": "[[nodes]]\nid = 1\nsettings." + ".".join("a" * 3_000) + " = 1",
    "a few too many": "settings." + ".".join("a" * (LEVELS_MAX + 1)) + " = 1",
}


@pytest.mark.parametrize("name", NESTED)
def test_what_is_nested_is_refused_in_words(name: str) -> None:
    with pytest.raises(ConfigError, match=f"nested more than {LEVELS_MAX} levels deep"):
        parse_config(NESTED[name])


def test_as_deep_as_may_be_is_read() -> None:
    text = "settings." + ".".join("a" * (LEVELS_MAX - 2)) + " = 1"
    assert "settings" in parse_toml(text, file="f")


def test_a_number_that_python_does_not_read_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="a value cannot be read: Exceeds the limit"):
        parse_config("data = " + "9" * 10_000)


WORDS = st.sampled_from(
    [
        *"[]{}=.,\"'#\\\n\t\x00é\ud800", "[[", "]]", "'''", '"""',
        "nodes", "id", "settings", "secret", "data", "roles", "cluster", "host", "topics", "broker",
        "heartbeat", "true", "inf", "nan", "0x", "1_0", "1e400", "1979-05-27",
        "9999-12-31T23:59:59-23:59",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, max_size=30).map(lambda words: "".join(words)) | st.text(max_size=60))
def test_nothing_but_the_refusal_escapes(text: str) -> None:
    with suppress(ConfigError):
        parse_config(text)
