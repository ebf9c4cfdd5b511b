"""From a path to a complete configuration: it reads cluster.toml and adds the identity kept in the data folder.

A data folder belongs to one cluster: `cluster.id` and `cluster.secret` (mode 0600) are generated once, and a file with
other values is refused.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import SecretStr, ValidationError

from kraft.broker.tokens import INSTALL
from kraft.config.models import ClusterConfig, ClusterFile, UserConfig
from kraft.config.parse import parse_config
from kraft.config.positions import key_lines, line_of
from kraft.config.problems import ConfigError, Problem, expected
from kraft.launcher.identity import Identity, new_identity
from kraft.layout import SECRET_FILE
from kraft.protocol.primitives import SettingValue
from kraft.runtime.tls import refuse_readable_by_others
from metadata.settings import broker_settings

BUILT_IN: Final = str(Path(__file__).parent.parent / "config" / "cluster.toml")
IN_NO_FILE: Final = "the configuration"
IN_ENVIRONMENT: Final = "the environment"
ID_FILE: Final = "cluster.id"
SECRET_LENGTH_MIN: Final = 8
USER_VARIABLE: Final = "KRAFT_INITIAL_USER"
PASSWORD_VARIABLE: Final = "KRAFT_INITIAL_PASSWORD"
"""Variables of the environment that name a user which the cluster has from its start."""
JWKS_URL: Final = "sasl.oauthbearer.jwks.endpoint.url"
MECHANISMS: Final = "sasl.enabled.mechanisms"
OAUTHBEARER: Final = "OAUTHBEARER"
PACKAGES_OF_TOKENS: Final = {"jwt": "PyJWT", "cryptography": "cryptography"}
"""Module -> the package of `kraft[security]` that has it."""
PASSWORD_WORDS: Final = "a user has a password, or a password_file with one"
FILE_SETTINGS: Final = frozenset({"ssl.keystore.location", "ssl.truststore.location"})


def load_config(
    path: str | None = None,
    *,
    text: str | None = None,
    data: str | None = None,
    identity: Callable[[], Identity] = new_identity,
) -> ClusterConfig:
    """The configuration of a file, of a `text` that is in none, or the built-in one. `data` overrides the folder in it.
    Raises ConfigError.

    Makes the data folder, and in it the cluster id and the secret of an `identity`, unless the configuration has them
    or they are already there.
    """
    file = path or (BUILT_IN if text is None else IN_NO_FILE)
    text = read_config(file) if text is None else text
    parsed = parse_config(text, file=file, data=data)
    return _identified(parsed, file=file, text=text, identity=cache(identity))


def read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def write_whole(path: str, text: str, *, mode: int = 0o644) -> None:
    """Replace a file wholly or not at all."""
    temporary = _write_temporary(path, text, mode)
    os.replace(temporary, path)


def write_once(path: str, text: Callable[[], str]) -> str:
    """Make a private file if there is none; return its content, also when another process was first."""
    if not os.path.exists(path):
        temporary = _write_temporary(path, text(), 0o600)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        os.unlink(temporary)
    return read_text(path)


def _write_temporary(path: str, text: str, mode: int) -> str:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    return temporary


def read_config(file: str) -> str:
    """The text of a file. Raises ConfigError."""
    try:
        return read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(key="", wrong=f"cannot be read: {error}", right="name the path of a cluster.toml")
        raise ConfigError(file, [problem]) from error


def _identified(parsed: ClusterFile, *, file: str, text: str, identity: Callable[[], Identity]) -> ClusterConfig:
    """Add the identity. `identity` returns the same one at each call."""
    assert parsed.data is not None, "the parser fills in the data folder"
    _check_packages_of_tokens(parsed, file=file, text=text)
    _check_keys_of_tokens(parsed, file=file, text=text)
    folder = Path(parsed.data).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        secret = _secret(parsed, folder, file=file, text=text, identity=identity)
        cluster_id = _cluster_id(parsed, folder, file=file, text=text, identity=identity)
    except (OSError, ValueError) as error:  # a path with a null in it, a secret that is no text
        right = "--data DIR needs a folder that can be written, and secret_file a file that can be read"
        raise ConfigError(file, [Problem(key="", wrong=str(error), right=right)]) from error
    nodes = tuple(
        node.model_copy(
            update={
                "data": _absolute(node.data),
                "log_dirs": tuple(map(_absolute, node.log_dirs)),
                "settings": _with_absolute_files(node.settings),
            }
        )
        for node in parsed.nodes
    )
    return ClusterConfig(
        cluster_id=cluster_id,
        secret=SecretStr(secret),
        data=str(folder),
        strict=parsed.strict,
        tls_mode=parsed.tls_mode,
        settings=_with_absolute_files(parsed.settings),
        nodes=nodes,
        users=_users(parsed, file=file, text=text),
        readable_secrets=tuple(_readable_secrets(parsed, file)),
    )


def _readable_secrets(parsed: ClusterFile, file: str) -> Iterator[str]:
    has_secret = parsed.secret is not None or any(user.password is not None for user in parsed.users)
    for path in (file if has_secret else None, parsed.secret_file):
        if path is not None and os.path.exists(path) and os.stat(path).st_mode & stat.S_IRWXO:
            yield path


def _check_packages_of_tokens(parsed: ClusterFile, *, file: str, text: str) -> None:
    """Raises ConfigError for settings of signed tokens, where a package that checks signatures is missing: each token
    would be refused later."""
    missing = [name for module, name in PACKAGES_OF_TOKENS.items() if importlib.util.find_spec(module) is None]
    for path, name in _settings_of_tokens(parsed) if missing else ():
        wrong = f"tokens with a signature need {' and '.join(missing)}"
        line = line_of(f"{path}.{name}", key_lines(text))
        raise ConfigError(file, [Problem(key=name, wrong=wrong, right=f"run: {INSTALL}", line=line)])


def _settings_of_tokens(parsed: ClusterFile) -> Iterator[tuple[str, str]]:
    """Table and key where the file asks for tokens with a signature."""
    layers = [("settings", parsed.settings)]
    layers += [(f"nodes.{place}.settings", node.settings) for place, node in enumerate(parsed.nodes)]
    for path, settings in layers:
        if settings.get(JWKS_URL):
            yield path, JWKS_URL
    for place, node in enumerate(parsed.nodes):
        if broker_settings(parsed.settings, node.settings).sasl_oauthbearer_unsecured_tokens_enable:
            continue
        for path, settings in (layers[0], layers[place + 1]):
            if OAUTHBEARER in str(settings.get(MECHANISMS, "")).split(","):
                yield path, MECHANISMS
        for number, listener in enumerate(node.listeners):
            if OAUTHBEARER in listener.mechanisms:
                yield f"nodes.{place}.listeners.{number}", "mechanisms"


def _check_keys_of_tokens(parsed: ClusterFile, *, file: str, text: str) -> None:
    """Raises ConfigError for a JWKS file that everybody may write: with a key in it, anybody would be any user."""
    for settings in (parsed.settings, *(node.settings for node in parsed.nodes)):
        path = str(settings.get(JWKS_URL, "")).removeprefix("file://")
        if path and os.path.exists(path) and os.stat(path).st_mode & stat.S_IWOTH:
            wrong = f"{path} may be written by everybody on this machine"
            line = line_of(f"settings.{JWKS_URL}", key_lines(text))
            raise ConfigError(file, [Problem(key=JWKS_URL, wrong=wrong, right=f"chmod o-w {path}", line=line)])


def _password(user: UserConfig) -> SecretStr:
    """Raises OSError for a file that cannot be read or that everybody may read, and ValueError."""
    if (user.password is None) == (user.password_file is None):
        raise ValueError("one of both is needed")
    if user.password is not None:
        return user.password
    path = str(user.password_file)
    refuse_readable_by_others(path, what="password_file")
    return SecretStr(read_text(path).strip())


def _users(parsed: ClusterFile, *, file: str, text: str) -> tuple[UserConfig, ...]:
    """The users of the file with their passwords, and the one that the environment names."""
    found = []
    for place, user in enumerate(parsed.users):
        try:
            password = _password(user)
        except (OSError, ValueError) as error:
            line = line_of(f"users.{place}.name", key_lines(text))
            wrong = f"user {user.name!r}: {error}"
            raise ConfigError(file, [Problem(key="password", wrong=wrong, right=PASSWORD_WORDS, line=line)]) from error
        found.append(user.model_copy(update={"password": password, "password_file": None}))
    name, password_text = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if name and password_text and name not in {user.name for user in found}:
        found.append(_initial_user(name, password_text))
    return tuple(found)


def _initial_user(name: str, password: str) -> UserConfig:
    try:
        return UserConfig(name=name, password=SecretStr(password))
    except ValidationError as error:
        details = error.errors()[0]
        key = USER_VARIABLE if "name" in details["loc"] else PASSWORD_VARIABLE
        problem = Problem(key=key, wrong="the value is not possible", right=f"it {expected(details)}")
        raise ConfigError(IN_ENVIRONMENT, [problem]) from None


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _with_absolute_files(settings: Mapping[str, SettingValue]) -> Mapping[str, SettingValue]:
    """Files are found from where the cluster is started; its nodes run elsewhere."""
    files = {name: _absolute(str(settings[name])) for name in FILE_SETTINGS if settings.get(name)}
    return {**settings, **files}


def _cluster_id(parsed: ClusterFile, folder: Path, *, file: str, text: str, identity: Callable[[], Identity]) -> str:
    kept = write_once(str(folder / ID_FILE), lambda: (parsed.cluster_id or identity().cluster_id) + "\n").strip()
    if parsed.cluster_id not in (None, kept):
        wrong = f"{parsed.cluster_id!r}, but the data folder {folder} belongs to cluster {kept!r}"
        right = "use another --data DIR, or that cluster's id"
        line = line_of("cluster_id", key_lines(text))
        raise ConfigError(file, [Problem(key="cluster_id", wrong=wrong, right=right, line=line)])
    return kept


def _secret(parsed: ClusterFile, folder: Path, *, file: str, text: str, identity: Callable[[], Identity]) -> str:
    if parsed.secret is not None:
        return parsed.secret.get_secret_value()
    kept = parsed.secret_file or str(folder / SECRET_FILE)
    secret = (read_text(kept) if parsed.secret_file else write_once(kept, lambda: identity().secret + "\n")).strip()
    if len(secret) < SECRET_LENGTH_MIN:
        line = line_of("secret_file", key_lines(text))
        right = f"it needs at least {SECRET_LENGTH_MIN} characters"
        problem = Problem(key="secret_file", wrong=f"the secret in {kept} is too short", right=right, line=line)
        raise ConfigError(file, [problem])
    return secret
