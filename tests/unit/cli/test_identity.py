"""What a data folder keeps: the cluster's id and its secret, made once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kraft.config import ConfigError
from kraft.config.checks import warnings
from kraft.launcher.configuration import load_config, write_once
from kraft.launcher.runfile import ClusterRun, NodeRun, load_run, run_path, save_run

ONE = "[[nodes]]\nid = 1\n"


def test_id_and_secret_are_made_once_and_kept(tmp_path: Path):
    first = load_config(data=str(tmp_path / "d"))
    again = load_config(data=str(tmp_path / "d"))
    other = load_config(data=str(tmp_path / "e"))
    assert first == again
    assert len(first.cluster_id) == 22
    assert len(first.secret.get_secret_value()) >= 32
    assert other.cluster_id != first.cluster_id
    assert other.secret != first.secret
    kept = tmp_path / "d" / "cluster.secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert first.secret.get_secret_value() not in repr(first)


def test_a_data_folder_of_another_cluster_is_refused(tmp_path: Path):
    file = tmp_path / "cluster.toml"
    file.write_text('cluster_id = "one"\n' + ONE)
    assert load_config(str(file), data=str(tmp_path / "d")).cluster_id == "one"
    file.write_text('cluster_id = "two"\n' + ONE)
    with pytest.raises(ConfigError, match=r"cluster.toml:1: cluster_id: 'two', but .* belongs to cluster 'one'"):
        load_config(str(file), data=str(tmp_path / "d"))


def test_the_secret_may_be_in_a_file_of_its_own(tmp_path: Path):
    secret = tmp_path / "secret"
    file = tmp_path / "cluster.toml"
    file.write_text(f'secret_file = "{secret}"\n' + ONE)
    with pytest.raises(ConfigError, match="No such file"):
        load_config(str(file), data=str(tmp_path / "d"))
    secret.write_text("short\n")
    with pytest.raises(ConfigError, match=r"cluster.toml:1: secret_file: .*too short"):
        load_config(str(file), data=str(tmp_path / "d"))
    secret.write_text("long enough\n")
    assert load_config(str(file), data=str(tmp_path / "d")).secret.get_secret_value() == "long enough"


def test_folders_become_absolute_and_the_command_line_wins(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cluster.toml"
    file.write_text('data = "from-file"\n' + ONE)
    assert load_config(str(file)).node(1).data == str(tmp_path / "from-file" / "node-1")
    assert load_config(str(file), data="given").node(1).log_dirs == (str(tmp_path / "given" / "node-1" / "logs"),)


def test_a_missing_file_is_an_error_and_makes_nothing(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(str(tmp_path / "none.toml"), data=str(tmp_path / "d"))
    assert not (tmp_path / "d").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data DIR"):
        load_config(data=str(tmp_path / "file" / "d"))


def test_of_two_writers_the_first_one_counts(tmp_path: Path):
    path = str(tmp_path / "x")
    assert write_once(path, lambda: "first") == "first"
    assert write_once(path, lambda: "second") == "first"
    assert [child.name for child in tmp_path.iterdir()] == ["x"]


def test_a_run_file_reads_back_and_a_broken_one_is_no_run(tmp_path: Path):
    node = NodeRun(id=1, roles=("broker",), pid=7, rest="http://h:1", kafka="h:2", quorum=None, data="d")
    run = ClusterRun(cluster_id="c", config="f", data=str(tmp_path), launcher_pid=None, nodes=(node,))
    assert load_run(str(tmp_path)) is None
    save_run(run)
    assert load_run(str(tmp_path)) == run
    assert run.with_pid(1, 8).node(1).pid == 8
    for text in ("", "[]", "{}", '{"nodes": [{}]}', "3"):
        Path(run_path(str(tmp_path))).write_text(text)
        assert load_run(str(tmp_path)) is None, text


def test_files_with_secrets_that_everybody_may_read_or_write(tmp_path: Path) -> None:
    file, secret, keys = tmp_path / "cluster.toml", tmp_path / "secret", tmp_path / "jwks.json"
    secret.write_text("a secret of the cluster")
    keys.write_text('{"keys": []}')
    text = f'data = "{tmp_path}/data"\nsecret_file = "{secret}"\n[settings]\n'
    file.write_text(text + f'"sasl.oauthbearer.jwks.endpoint.url" = "file://{keys}"\n[[nodes]]\nid = 1\n')
    for path in (file, secret, keys):
        path.chmod(0o644)
    assert load_config(str(file)).readable_secrets == (str(secret),)
    assert f"chmod o-rwx {secret}" in "".join(warnings(load_config(str(file))))
    secret.chmod(0o600)
    assert load_config(str(file)).readable_secrets == ()
    keys.chmod(0o646)
    with pytest.raises(ConfigError, match=f"chmod o-w {keys}"):
        load_config(str(file))
    keys.chmod(0o640)
    file.write_text(file.read_text() + '[[users]]\nname = "a"\npassword = "b"\n')
    assert load_config(str(file)).readable_secrets == (str(file),)
