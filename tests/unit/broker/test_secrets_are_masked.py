"""A setting with a secret is described without its value, over both ports."""

from __future__ import annotations

from kraft.broker.configs import ConfigEntry, Synonym
from kraft.http.v3.config_changes import config_fields
from kraft.wire.handlers.configs import _config
from metadata.settings import HIDDEN, without_secrets


def test_a_secret_is_shown_nowhere() -> None:
    synonym = Synonym("ssl.keystore.key", "secret text", "STATIC_BROKER_CONFIG")
    entry = ConfigEntry(
        name="ssl.keystore.key", value="secret text", synonyms=(synonym,), kind="string", documentation=""
    )
    described = _config(entry, synonyms=True, documentation=True)
    assert (described.value, described.is_sensitive) == (None, True)
    assert [each.value for each in described.synonyms] == [None]
    assert "secret text" not in str(config_fields(entry))
    open_one = ConfigEntry(name="num.partitions", value="3", synonyms=(), kind="int", documentation="")
    assert _config(open_one, synonyms=True, documentation=True).value == "3"


def test_reports_have_settings_without_secrets() -> None:
    flat = without_secrets({"ssl.key.password": "secret text", "num.partitions": 3})
    assert flat == {"ssl.key.password": HIDDEN, "num.partitions": 3}
    nested = without_secrets({"ssl": {"key": {"password": "secret text"}, "client": {"auth": "none"}}})
    assert nested == {"ssl": {"key": {"password": HIDDEN}, "client": {"auth": "none"}}}
