"""cluster.toml: what is accepted, what it means, and how everything else is refused."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from kraft.config import Address, ClusterConfig, ClusterFile, ConfigError, parse_config
from kraft.config.checks import is_loopback, needs_written_identity, warnings
from kraft.config.describe import key_rows
from kraft.config.positions import key_lines
from kraft.config.render import render
from metadata.settings import BrokerSettings

REPOSITORY = Path(__file__).parents[3]
BUILT_IN = (resources.files("kraft.config") / "cluster.toml").read_text(encoding="utf-8")
LISTENER = "[[nodes]]\nid = 1\n[[nodes.listeners]]\nname = 'OUTSIDE'\n"
THREE = "[[nodes]]\nid = 1\n[[nodes]]\nid = 2\n[[nodes]]\nid = 3\n"


def complete(parsed: ClusterFile) -> ClusterConfig:
    return ClusterConfig(
        cluster_id="c",
        secret=SecretStr("12345678"),
        data="data",
        strict=parsed.strict,
        settings=parsed.settings,
        nodes=parsed.nodes,
    )


def problems(text: str) -> dict[str, str]:
    """Key -> its line of the error."""
    with pytest.raises(ConfigError) as raised:
        parse_config(text, file="f.toml")
    return {problem.key: problem.describe("f.toml") for problem in raised.value.problems}


def test_the_built_in_cluster_is_the_one_of_the_repository():
    assert (REPOSITORY / "cluster.toml").read_text(encoding="utf-8") == BUILT_IN


def test_the_built_in_cluster_is_three_combined_nodes_that_survive_one_failure():
    config = complete(parse_config(BUILT_IN))
    assert [node.id for node in config.nodes] == [1, 2, 3]
    assert all(node.roles == ("broker", "controller") and node.host == "127.0.0.1" for node in config.nodes)
    assert [node.rest_port for node in config.nodes] == [8082, 8083, 8084]
    assert [node.kafka_port for node in config.nodes] == [9092, 9093, 9094]
    assert [node.quorum_port for node in config.nodes] == [9192, 9193, 9194]
    settings = config.broker_settings(1)
    assert settings.default_replication_factor == 3
    assert settings.min_insync_replicas == 2
    assert settings.auto_create_topics_enable is False
    assert warnings(config) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("localhost", True), ("mine.localhost", True),
        ("127.attacker.example", False), ("127.0.0.1.example", False), ("10.0.0.1", False), ("0.0.0.0", False),
        ("::", False), ("localhost.example", False), ("", False),
    ],
)  # fmt: skip
def test_loopback_is_an_address_and_not_the_beginning_of_a_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_ports_and_folders_have_defaults_by_place():
    assert parse_config(THREE, data="/d").nodes == tuple(
        node.model_copy(update={"data": f"/d/node-{node.id}", "log_dirs": (f"/d/node-{node.id}/logs",)})
        for node in parse_config(BUILT_IN).nodes
    )


def test_a_nodes_own_setting_wins_over_the_clusters():
    config = complete(
        parse_config(
            "[settings]\nmin.insync.replicas = 2\nlog.retention.ms = 5\n"
            "[[nodes]]\nid = 1\nsettings.min.insync.replicas = 1\n[[nodes]]\nid = 2\n"
        )
    )
    assert config.static_settings(1) == {"min.insync.replicas": 1, "log.retention.ms": 5}
    assert config.broker_settings(2).min_insync_replicas == 2


def test_settings_may_be_quoted_bare_or_nested():
    parsed = parse_config(
        '[settings]\n"log.retention.ms" = 1\nlog.segment.bytes = 99\n[settings.num]\npartitions = 7\n' + THREE
    )
    assert parsed.settings == {"log.retention.ms": 1, "log.segment.bytes": 99, "num.partitions": 7}


def test_roles_may_be_apart():
    config = complete(
        parse_config('[[nodes]]\nid = 1\nroles = ["controller"]\n[[nodes]]\nid = 2\nroles = ["broker"]\nrack = "a"\n')
    )
    assert [node.id for node in config.voters] == [1]
    assert [node.id for node in config.brokers] == [2]
    assert config.node(2).quorum is None
    with pytest.raises(LookupError, match="the nodes are 1, 2"):
        config.node(9)


def test_a_peer_can_be_reached_elsewhere_for_one_purpose():
    config = complete(parse_config(THREE.replace("id = 1\n", 'id = 1\npeers.2.fetch = "proxy:1234"\n')))
    assert config.address(1, 2, "fetch") == Address("proxy", 1234)
    assert config.address(1, 2, "forward") == Address("127.0.0.1", 9093)
    assert config.address(1, 2, "controller") == Address("127.0.0.1", 9093)
    assert config.address(1, 2, "quorum") == Address("127.0.0.1", 9193)
    assert config.address(3, 2, "fetch") == Address("127.0.0.1", 9093)


def test_all_problems_of_a_file_come_at_once_each_with_its_line():
    found = problems(
        'secrt = "x"\n[settings]\ndefalt.replication.factor = 3\nmin.insync.replicas = 0\n'
        '[[nodes]]\nid = 1\nrest_prt = 9\nkafka_port = 99999\nroles = ["brker"]\n'
        '[[nodes]]\n[nodes.settings]\nlog.segment.bytes = "many"\n[nodes.peers.3]\nfetch = "abc"\n'
    )
    assert found["secrt"] == "f.toml:1: secrt: unknown key; did you mean secret?"
    assert "f.toml:3:" in found["defalt.replication.factor"]
    assert "did you mean default.replication.factor?" in found["defalt.replication.factor"]
    assert "f.toml:4:" in found["min.insync.replicas"]
    assert "greater than or equal to 1" in found["min.insync.replicas"]
    assert found["rest_prt"] == "f.toml:7: rest_prt: unknown key; did you mean rest_port?"
    assert "f.toml:8: kafka_port: 99999" in found["kafka_port"]
    assert "'broker' or 'controller'" in found["roles"]
    assert "f.toml:10:" in found["id"]
    assert "missing" in found["id"]
    assert "f.toml:12:" in found["log.segment.bytes"]
    assert "f.toml:14:" in found["fetch"]
    assert "host:port" in found["fetch"]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[[nodes]]\nid = 1\n[[nodes]]\nid = 1\n", "id", "f.toml:4: id: two nodes have the id 1"),
        ("[[nodes]]\nid = 1\n[[nodes]]\nid = 2\nrest_port = 9092\n", "rest_port", "f.toml:5: rest_port: port 9092"),
        ('[[nodes]]\nid = 1\nroles = ["broker"]\n', "roles", "no node has the role controller"),
        ('[[nodes]]\nid = 1\nroles = ["controller"]\n', "roles", "no node has the role broker"),
        ('[[nodes]]\nid = 1\npeers.4.fetch = "a:1"\n', "peers.4", "f.toml:3: peers.4: no such peer"),
        ("cluster_id = 'a b'\n" + THREE, "cluster_id", "f.toml:1:"),
        ("secret = 'short'\n" + THREE, "secret", "8"),
        ("secret = '12345678'\nsecret_file = 'f'\n" + THREE, "secret_file", "f.toml:2:"),
        ("[[nodes]]\nid = 1\nroles = []\n", "roles", "at least 1"),
        ("[[nodes]]\nid = 1\ndata = 'x'\n[[nodes]]\nid = 2\ndata = 'x'\n", "data", "more than one node"),
        (LISTENER + "port = 1\n[[nodes.listeners]]\nname = 'a b'\nport = 2\n", "name", "f.toml:7: name:"),
        (LISTENER, "port", "missing"),
        (LISTENER + "port = 9092\n", "port", "f.toml:5: port: port 9092 on 127.0.0.1 is also the kafka_port of node 1"),
        (
            LISTENER.replace("OUTSIDE", "plaintext") + "port = 1\n",
            "name",
            "f.toml:4: name: plaintext is a listener that",
        ),
        (LISTENER + "port = 1\n[[nodes.listeners]]\nname = 'outside'\nport = 2\n", "name", "two listeners"),
        (LISTENER + "port = 1\nadvertised = 'h'\n", "advertised", "f.toml:6: advertised:"),
        (LISTENER + "prt = 1\n", "prt", "did you mean port?"),
        ("[[nodes]]\nid = 1\nadvertised = 'h:0'\n", "advertised", "f.toml:3: advertised:"),
        (
            "[[nodes]]\nid = 1\n[[nodes]]\nid = 2\nroles = ['controller']\nadvertised = 'h:1'\n",
            "advertised",
            "no broker role",
        ),
        ("", "nodes", "missing"),
        ("nodes = 3\n", "nodes", "f.toml:1:"),
        ("settings = 3\n" + THREE, "settings", "f.toml:1:"),
        (THREE + "[[users]]\nname = '__cluster__'\npassword = 'p'\n", "name", "the user of the nodes"),
        (
            "[settings]\nssl.principal.mapping.rules = 'RULE:x'\n" + THREE,
            "ssl.principal.mapping.rules",
            "f.toml:2: ssl.principal.mapping.rules: 'RULE:x' is not possible; it should be DEFAULT, or RULE:PATTERN/",
        ),
    ],
)
def test_what_cannot_start_is_refused(text: str, key: str, words: str):
    assert words in problems(text)[key]


def test_a_secret_is_never_in_a_message():
    with pytest.raises(ConfigError) as raised:
        parse_config("secret = 'hunter2'\n" + THREE)
    assert "hunter2" not in str(raised.value)


NO_TOML = (
    ("data 'd'", "f.toml:1: this is not TOML: `data 'd'`: expected '=' after a key", "write `key = value`"),
    ("[settings]\nnum.partitions = \n", "f.toml:2: this is not TOML: `num.partitions =`: invalid value", "number"),
    ("host = localhost # me", "`host = localhost # me`: invalid value at column 8", 'write "localhost" in straight'),
    ("strict = True", "`strict = True`: invalid value", "write true, in small letters"),
    ("roles = ['broker', 'controller'", "unclosed array", "close the list with ]"),
    ("data = 'd", 'expected "\'" where the file ends', "end the text with the quote"),
    ('data = "d\nid = 1', "illegal character", "on its line"),
    ('data = "c:\\q"', "unescaped '\\' in a string", "single quotes"),
    ("data = d/e f", "invalid value", 'write "d/e f"'),
    ("id = 1 2", "expected newline", "one `key = value` per line"),
    ("a = 1\na = 2\n", "f.toml:2: this is not TOML: `a = 2`: cannot overwrite a value", "it is set already"),
    ("[nodes]\n[nodes]\n", "f.toml:2:", "write [[name]] for each of several"),
    ("[[nodes]\nid = 1", "expected ']]'", "[[name]]"),
    ("[settings\nid = 1", "expected ']'", "[name] on a line of its own"),
    ("= 1", "invalid statement", "a line is `key = value`"),
)


@pytest.mark.parametrize(("text", "wrong", "right"), NO_TOML, ids=[text for text, _, _ in NO_TOML])
def test_what_is_not_toml_is_shown_with_its_line_and_what_to_write(text: str, wrong: str, right: str):
    message = problems(text)[""]
    assert wrong in message
    assert right in message
    assert "toml.io" not in message


def test_a_secret_that_is_not_toml_is_not_shown_either():
    with pytest.raises(ConfigError, match=r"f.toml:1: the secret is not TOML") as raised:
        parse_config("secret = hunter2hunter2", file="f.toml")
    assert "hunter2" not in str(raised.value)


def test_models_are_frozen():
    with pytest.raises(ValidationError):
        parse_config(THREE).nodes[0].rest_port = 1


def test_warnings_do_not_stop_a_start():
    found = warnings(parse_config("[settings]\ndefault.replication.factor = 3\n[[nodes]]\nid = 1\n[[nodes]]\nid = 2\n"))
    assert any("default.replication.factor=3 but there are 2 brokers" in text for text in found)
    assert any("2 controllers" in text for text in found)


def test_clients_receive_the_addresses_of_their_listener():
    one, two = parse_config(
        LISTENER
        + "port = 5\n[[nodes.listeners]]\nname = 'NAT'\nport = 6\nhost = '0.0.0.0'\nadvertised = 'k.example:9'\n"
        "[[nodes]]\nid = 2\nhost = 'h'\nadvertised = 'p:7'\n[[nodes.listeners]]\nname = 'OUTSIDE'\nport = 8\n"
    ).nodes
    assert one.client_addresses == {"OUTSIDE": "127.0.0.1:5", "NAT": "k.example:9"}
    assert two.client_addresses == {"PLAINTEXT": "p:7", "OUTSIDE": "h:8"}
    assert str(two.kafka) == "h:9093", "what nodes are told"


def test_a_listener_that_a_broker_lacks_is_worth_a_warning():
    found = warnings(parse_config(LISTENER + "port = 5\n[[nodes]]\nid = 2\n[[nodes]]\nid = 3\n"))
    assert found == ["clients of the listener OUTSIDE cannot reach the nodes 2, 3"]


def test_several_hosts_need_a_written_identity():
    text = THREE.replace("id = 2\n", 'id = 2\nhost = "10.0.0.2"\n')
    assert needs_written_identity(parse_config(text)) == ["cluster_id", "secret or secret_file"]
    assert needs_written_identity(parse_config("cluster_id='a'\nsecret='12345678'\n" + text)) == []
    assert needs_written_identity(parse_config(THREE)) == []


def test_a_rendered_configuration_reads_back_the_same():
    text = '[settings]\nlog.cleanup.policy = "compact"\nauto.create.topics.enable = true\n' + THREE.replace(
        "id = 1\n",
        'id = 1\nrack = "a \\"b\\""\nbind = "0.0.0.0"\npeers.2.fetch = "h:1"\nsettings.num.partitions = 4\n'
        'advertised = "k:1"\n[[nodes.listeners]]\nname = "A"\nport = 1\n'
        '[[nodes.listeners]]\nname = "B"\nport = 2\nhost = "h"\nadvertised = "b:3"\n',
    )
    config = complete(parse_config(text))
    again = parse_config(render(config, secret_file="/s"))
    assert again.nodes == config.nodes
    assert again.settings == config.settings
    assert (again.cluster_id, again.secret_file, again.data) == ("c", "/s", "data")


def test_every_key_has_type_default_and_sentence():
    rows = list(key_rows())
    assert {field.alias for field in BrokerSettings.model_fields.values()} <= {row.key for row in rows}
    for row in rows:
        assert row.type, row
        assert row.default, row
        assert row.text.endswith((".", ")", "?")), row


def test_every_section_is_one_that_a_file_may_have():
    sections = dict.fromkeys(row.section for row in key_rows())
    assert list(sections) == ["top level", "[[nodes]]", "[[nodes.listeners]]", "[[users]]", "[settings]"]
    for section in sections:
        key = 'name = "a"\n' if "users" in section else ""
        given = LISTENER + "port = 1\n" if "nodes" in section else f"{section}\n{key}{THREE}".removeprefix("top level")
        parse_config(given, file="f.toml")


def test_a_node_is_described_with_its_listeners_folders_and_rack():
    text = f"""
[settings]
num.partitions = 3
{LISTENER}port = 9999
[[nodes]]
id = 7
kafka_port = 9095
advertised = "outside:1"
log_dirs = ["a", "b"]
rack = "r"
[[nodes.listeners]]
name = "EXTERNAL"
port = 9998
"""
    facts = complete(parse_config(text)).described_settings(7)
    assert facts["node.id"] == facts["broker.id"] == "7"
    assert facts["listeners"] == "PLAINTEXT://127.0.0.1:9095,EXTERNAL://127.0.0.1:9998"
    assert facts["advertised.listeners"] == "PLAINTEXT://outside:1,EXTERNAL://127.0.0.1:9998"
    assert facts["listener.security.protocol.map"] == "PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT"
    assert (facts["broker.rack"], facts["process.roles"]) == ("r", "broker,controller")
    assert (facts["num.partitions"], facts["log.dirs"]) == ("3", "a,b")
    assert facts["controller.quorum.voters"].startswith("1@127.0.0.1:")
    assert "broker.rack" not in complete(parse_config(text)).described_settings(1)


def test_numbers_have_a_range():
    assert all(row.range for row in key_rows() if row.type in ("integer", "number"))


def test_lines_of_nested_tables_belong_to_the_last_node():
    lines = key_lines("[[nodes]]\nid = 1\n[nodes.settings]\na.b = 1\n[[nodes]]\n[nodes.settings]\na.b = 2\n")
    assert lines["nodes.0.settings.a.b"] == 4
    assert lines["nodes.1.settings.a.b"] == 7
    lines = key_lines(
        "[[nodes]]\n[[nodes.listeners]]\na = 1\n[[nodes.listeners]]\na = 2\n[[nodes]]\n[[nodes.listeners]]\na = 3"
    )
    assert [lines[f"nodes.{at}.a"] for at in ("0.listeners.0", "0.listeners.1", "1.listeners.0")] == [3, 5, 8]


def test_settings_of_share_groups_that_contradict_each_other_are_refused():
    """Source: ShareGroupConfig.validate, Kafka 4.4."""
    few = "[settings]\ngroup.share.max.size = 300\ngroup.share.max.share.sessions = 299\n"
    assert problems(few + THREE) == {
        "group.share.max.share.sessions": "f.toml:3: group.share.max.share.sessions: 299 is less than "
        "group.share.max.size=300: each member of a group has a session; it is at least 300."
    }
    enough = "[settings]\ngroup.share.max.size = 300\ngroup.share.max.share.sessions = 300\n"
    parse_config(enough + THREE)
    of_one = "[[nodes]]\nid = 1\nsettings.group.share.max.size = 3\nsettings.group.share.max.share.sessions = 2\n"
    assert list(problems(of_one + "[[nodes]]\nid = 2\n")) == ["group.share.max.share.sessions"]
    outside = "[settings]\ngroup.share.record.lock.duration.ms = 1000\n"
    (text,) = problems(outside + THREE).values()
    assert "1000 is outside its bounds; it is from 15000 (group.share.min.record.lock.duration.ms) to 60000" in text
    crossed = "[settings]\ngroup.share.min.session.timeout.ms = 60001\n"
    assert "60001 is more than group.share.max.session.timeout.ms=60000" in str(problems(crossed + THREE))


def test_a_port_that_is_open_to_strangers_is_a_warning():
    text = '[[nodes]]\nid = 1\nhost = "10.0.0.7"\nkafka_protocol = "SASL_SSL"\n'
    assert [each for each in warnings(parse_config(text)) if "neither TLS nor users" in each] == [
        "node 1: HTTP port: neither TLS nor users: everybody who reaches it may do everything (docs/security.md)"
    ]
    secured = text + 'rest_protocol = "SASL_SSL"\n'
    assert not [each for each in warnings(parse_config(secured)) if "neither" in each]
