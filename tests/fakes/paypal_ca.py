"""Certificates as PayPal's webhooks use them: an authority of our own, and signers that it vouches for, or not."""

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "messageverificationcerts.sandbox.paypal.com"

# A life long enough for the clock of any test.
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_END = _BEGIN + timedelta(days=3650)


@dataclass(frozen=True)
class Signer:
    """A key, and the name under which the fake serves the certificate that goes with it."""

    name: str
    key: rsa.RSAPrivateKey


@dataclass(frozen=True)
class _Authority:
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate


def roots() -> bytes:
    """The PEM of the authority that vouches for `signer`."""
    return _authority("trusted").certificate.public_bytes(Encoding.PEM)


@functools.cache
def signer(kind: str = "good") -> Signer:
    """A signer: `good`, `stranger` (another authority), `other-host`, `self-signed` or `expired`."""
    name = f"CERT-{kind}"
    key = _key()
    authority = _authority("strange" if kind == "stranger" else "trusted")
    begin, end = (_BEGIN - timedelta(days=90), _BEGIN - timedelta(days=1)) if kind == "expired" else (_BEGIN, _END)
    host = "www.example.com" if kind == "other-host" else HOST
    issuer = _Authority(key, authority.certificate) if kind == "self-signed" else authority
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        _builder(subject, subject if kind == "self-signed" else authority.certificate.subject, key, begin, end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .sign(issuer.key, SHA256())
    )
    _SERVED[name] = certificate.public_bytes(Encoding.PEM)
    return Signer(name, key)


_SERVED: dict[str, bytes] = {}


def served(name: str) -> bytes | None:
    """What stands at a certificate's address."""
    return _SERVED.get(name)


@functools.cache
def _authority(name: str) -> _Authority:
    key = _key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"A {name} authority")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(subject, subject, key, _BEGIN, _END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return _Authority(key, certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
