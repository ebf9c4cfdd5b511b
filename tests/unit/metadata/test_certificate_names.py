"""`ssl.principal.mapping.rules`: the examples of Kafka's documentation, and what is refused."""

from __future__ import annotations

import pytest

from kraft.protocol.errors import InvalidConfig
from kraft.protocol.operator_tokens import OPERATOR
from metadata.certificate_names import NAME_LENGTH_MAX, BadRule, mapping_rules, user_of
from metadata.settings import BrokerSettings, broker_settings, canonical_value

RULES = (
    "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/,"
    "RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L,"
    "RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U,"
    "DEFAULT"
)


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        ("CN=serviceuser,OU=ServiceUsers,O=Unknown,L=Unknown,ST=Unknown,C=Unknown", "serviceuser"),
        ("CN=adminUser,OU=Admin,O=Unknown,L=Unknown,ST=Unknown,C=Unknown", "adminuser@admin"),
        ("CN=alice", "ALICE"),
        ("OU=nobody", "OU=nobody"),
    ],
)
def test_the_first_rule_that_matches_counts(subject: str, user: str) -> None:
    assert user_of(subject, RULES) == user


def test_no_rule_no_user() -> None:
    assert user_of("OU=x", "RULE:^CN=(.*)$/$1/") == ""
    assert user_of("CN=" + "a" * NAME_LENGTH_MAX, "RULE:^CN=(.*)$/$1/") == ""
    assert user_of("CN=a", "DEFAULT") == "CN=a"
    assert user_of("CN=a", "RULE:^CN=(.*)$/$1$2/") == "a"


@pytest.mark.parametrize("text", ["RULE:", "CN=(.*)", "RULE:(/x/", "DEFAULT,nonsense"])
def test_a_wrong_rule_is_refused(text: str) -> None:
    with pytest.raises(BadRule):
        mapping_rules(text)


def test_what_would_be_right_is_said_where_the_setting_is_read() -> None:
    rules = {"ssl.principal.mapping.rules": RULES}
    assert broker_settings(rules).ssl_principal_mapping_rules == RULES
    for text, words in (("CN=(.*)", "no rule begins at 'CN="), ("RULE:(/x/", "are regular expressions; '(' is none")):
        with pytest.raises(InvalidConfig, match="should") as raised:
            canonical_value(BrokerSettings, "ssl.principal.mapping.rules", text)
        assert words in raised.value.message


def test_no_certificate_is_the_user_of_the_nodes() -> None:
    assert user_of(f"CN={OPERATOR}", "RULE:^CN=(.*)$/$1/") == ""
    assert user_of(f"CN={OPERATOR.upper()}", "RULE:^CN=(.*)$/$1/L,DEFAULT") == ""
    assert user_of(f"CN={OPERATOR}", "DEFAULT") == f"CN={OPERATOR}"
