"""`ssl.principal.mapping.rules`: the examples of Kafka's documentation, and what is refused."""

from __future__ import annotations

import pytest

from kraft.broker.certificate_names import NAME_LENGTH_MAX, BadRule, mapping_rules, user_of

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
