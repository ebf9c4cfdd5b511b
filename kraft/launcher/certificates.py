"""Certificates for a cluster: a CA of its own, and what it signs for nodes and users (`cryptography`, kraft[security]).

The CA is made once and kept beside the certificates; its key is needed only to sign more of them.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraft.config.models import ClusterFile, NodeConfig, parse_address
from kraft.launcher.processes import LaunchError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_FILE: Final = "ca.pem"
CA_KEY_FILE: Final = "ca-key.pem"
CA_DAYS: Final = 3_650
DAYS: Final = 397
INSTALL: Final = "pip install 'kraft[security]'"
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_SKEW: Final = timedelta(minutes=5)
"""Clocks of nodes differ: a certificate is valid from a moment before it was made."""


class CertificateAuthority:
    """The CA in a folder; made there if there is none. Raises LaunchError without `cryptography`."""

    def __init__(self, folder: str, *, days: int = DAYS) -> None:
        try:
            import cryptography  # noqa: F401
        except ImportError as error:
            raise LaunchError(f"certificates need the package cryptography: {INSTALL}") from error
        self._folder = Path(folder)
        self._days = days
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key, self._certificate = self._loaded() if self._has_ca() else self._made()

    @property
    def path(self) -> str:
        """File of the CA's certificate: the truststore of nodes and clients."""
        return str(self._folder / CA_FILE)

    def node(self, node: NodeConfig) -> str:
        """Make the certificate of a node, as server and as client; the file has its key, too. With `days` below 0 it
        has expired."""
        return self._leaf(f"node-{node.id}", names_of(node))

    def user(self, name: str) -> str:
        """Make the certificate of a user."""
        return self._leaf(name, ())

    def _has_ca(self) -> bool:
        return (self._folder / CA_FILE).exists() and (self._folder / CA_KEY_FILE).exists()

    def _loaded(self) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key((self._folder / CA_KEY_FILE).read_bytes(), None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise LaunchError(f"{self._folder / CA_KEY_FILE} is no key that `kraft certs create` has made")
        return key, x509.load_pem_x509_certificate((self._folder / CA_FILE).read_bytes())

    def _made(self) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("kraft CA")
        usage = _usage(signs_certificates=True)
        builder = _builder(name, name, key, days=CA_DAYS).add_extension(usage, critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        _write_private(self._folder / CA_KEY_FILE, [_pem_of_key(key)])
        _write_public(self._folder / CA_FILE, _pem_of(certificate))
        return key, certificate

    def _leaf(self, name: str, hosts: Sequence[str]) -> str:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self._certificate.subject, key, days=self._days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        path = self._folder / f"{name}.pem"
        certificate = builder.sign(self._key, hashes.SHA256())
        _write_private(path, [_pem_of_key(key), _pem_of(certificate)])
        return str(path)


def names_of(node: NodeConfig) -> list[str]:
    """Hosts and addresses under which clients and nodes reach a node."""
    hosts = [node.host, *(each.host for each in node.listeners if each.host)]
    hosts += [parse_address(text).host for text in node.client_addresses.values()]
    return list(dict.fromkeys([*hosts, *LOOPBACK_NAMES]))


def create(parsed: ClusterFile, folder: str, *, days: int, users: Iterable[str] = ()) -> dict[str, str]:
    """Make the CA, the certificate of each node, and those of users; name -> file. Raises LaunchError."""
    authority = CertificateAuthority(folder, days=days)
    made = {"ca": authority.path}
    made |= {f"node {node.id}": authority.node(node) for node in parsed.nodes}
    return made | {f"user {name}": authority.user(name) for name in users}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, *, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    ends = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem_of(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _pem_of_key(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_private(path: Path, parts: list[bytes]) -> None:
    """Replaces the file, which only its owner may read."""
    _write(path, b"".join(parts), mode=0o600)


def _write_public(path: Path, text: bytes) -> None:
    _write(path, text, mode=0o644)


def _write(path: Path, text: bytes, *, mode: int) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
        out.write(text)
    os.chmod(temporary, mode)
    os.replace(temporary, path)
