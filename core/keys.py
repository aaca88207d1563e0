"""Keys that tokens are signed with: one shared secret (HS256), or a pair whose public half anybody may have.

Each key has an id (`kid`), which stands in the head of what it signed, so that keys can be replaced while tokens of the
former one are still about.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from core import json

Algorithm = Literal["HS256", "RS256", "EdDSA"]

# RFC 7518, 3.3: RS256 with less is forbidden.
_RSA_BITS = 2048
_KID_LENGTH = 16
# What the thumbprint of a key is taken of (RFC 7638, 3.2; RFC 8037, 2).
_THUMBPRINT = {"RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}


class UnusableKey(ValueError):
    """What should be a key is none, or one of another kind; the message says which would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key; `signing` is None when only its public half is known, `public` the JWK of a pair (RFC 7517)."""

    kid: str
    algorithm: Algorithm
    signing: Any = field(repr=False)
    verifying: Any = field(repr=False)
    public: dict[str, str] | None = None

    @classmethod
    def shared(cls, secret: str) -> Self:
        """Return the HS256 key of a secret; its id tells nothing of the secret."""
        kid = hmac.digest(secret.encode(), b"id of the signing key", hashlib.sha256).hex()[:_KID_LENGTH]
        return cls(kid=kid, algorithm="HS256", signing=secret, verifying=secret)

    @classmethod
    def pair(cls, pem: bytes) -> Self:
        """Return the key of a PEM file: RSA makes RS256, Ed25519 makes EdDSA, and a public one only verifies.

        Raises UnusableKey.
        """
        private, public = _load(pem)
        if isinstance(public, RSAPublicKey):
            if public.key_size < _RSA_BITS:
                raise UnusableKey(f"an RSA key needs at least {_RSA_BITS} bits")
            algorithm: Algorithm = "RS256"
            jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
        else:
            algorithm = "EdDSA"
            jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
        kid = _thumbprint(jwk)
        told = {name: str(value) for name, value in jwk.items() if name != "key_ops"}
        return cls(
            kid=kid,
            algorithm=algorithm,
            signing=private,
            verifying=public,
            public={**told, "kid": kid, "alg": algorithm, "use": "sig"},
        )


def _load(
    pem: bytes,
) -> tuple[RSAPrivateKey | Ed25519PrivateKey | None, RSAPublicKey | Ed25519PublicKey]:
    try:
        if b"PUBLIC KEY" in pem:
            public = load_pem_public_key(pem)
            if isinstance(public, RSAPublicKey | Ed25519PublicKey):
                return None, public
        else:
            private = load_pem_private_key(pem, password=None)
            if isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
                return private, private.public_key()
    except (ValueError, TypeError) as error:
        raise UnusableKey("not a PEM file of a key without a password") from error
    raise UnusableKey("an RSA or Ed25519 key is needed")


def _thumbprint(jwk: dict[str, Any]) -> str:
    members = {name: jwk[name] for name in _THUMBPRINT[jwk["kty"]]}
    # The standard wants the members in this order and no white space, which is how ours are written.
    digest = hashlib.sha256(json.dumps(members)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
