"""Signing keys: each verifies what it signed and nothing else, and the public half is all that others need."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.keys import SigningKey, UnusableKey
from core.tokens import InvalidToken, TokenSigner

NOW = datetime(2031, 5, 17, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECRET, FORMER = "a secret of more than thirty-two characters", "the secret that was there before, as long"
Private = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def pem_of(key: Private) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem_of(key: Private) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


RSA, ED25519 = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
KEYS = {
    "HS256": SigningKey.shared(SECRET),
    "RS256": SigningKey.pair(pem_of(RSA)),
    "EdDSA": SigningKey.pair(pem_of(ED25519)),
}


def issue(signer: TokenSigner) -> str:
    return signer.issue("access", uuid4(), now=NOW, lifetime=HOUR, claims={})


@pytest.mark.parametrize("name", KEYS)
def test_a_key_reads_what_it_signed_and_names_itself(name: str) -> None:
    signer = TokenSigner(KEYS[name])
    token = issue(signer)

    assert signer.read(token, "access", now=NOW)["type"] == "access"
    assert jwt.get_unverified_header(token) == {"alg": name, "kid": KEYS[name].kid, "typ": "JWT"}
    for other in KEYS.keys() - {name}:
        with pytest.raises(InvalidToken):
            TokenSigner(KEYS[other]).read(token, "access", now=NOW)


@pytest.mark.parametrize("former", KEYS)
@pytest.mark.parametrize("key", KEYS)
def test_a_former_key_is_believed_until_it_is_taken_away(key: str, former: str) -> None:
    previous = SigningKey.shared(FORMER) if key == former == "HS256" else KEYS[former]
    token = issue(TokenSigner(previous))
    signer = TokenSigner(KEYS[key], previous=[previous])

    assert signer.read(token, "access", now=NOW)
    assert jwt.get_unverified_header(issue(signer))["kid"] == KEYS[key].kid, "the new one signs"
    if previous is not KEYS[key]:
        with pytest.raises(InvalidToken):
            TokenSigner(KEYS[key]).read(token, "access", now=NOW)


def test_tokens_of_earlier_releases_name_no_key() -> None:
    claims = {"sub": str(uuid4()), "type": "access", "exp": int((NOW + HOUR).timestamp())}
    token = jwt.encode(claims, FORMER, algorithm="HS256")

    signer = TokenSigner(KEYS["HS256"], previous=[SigningKey.shared(FORMER)])
    assert signer.read(token, "access", now=NOW)["sub"] == claims["sub"]


@pytest.mark.parametrize("kid", ["unknown", "", "x" * 5000])
def test_an_unknown_key_is_refused(kid: str) -> None:
    claims = {"sub": str(uuid4()), "type": "access", "exp": int((NOW + HOUR).timestamp())}
    token = jwt.encode(claims, SECRET, algorithm="HS256", headers={"kid": kid})
    with pytest.raises(InvalidToken):
        TokenSigner(KEYS["HS256"]).read(token, "access", now=NOW)


def test_a_public_key_is_no_shared_secret() -> None:
    """The classic forgery: HS256 with the public key, which everybody has, in place of a secret."""
    for name, private in (("RS256", RSA), ("EdDSA", ED25519)):
        claims = {"sub": str(uuid4()), "type": "access", "exp": int((NOW + HOUR).timestamp())}
        head = {"alg": "HS256", "typ": "JWT", "kid": KEYS[name].kid}
        token = _hmac_signed(head, claims, public_pem_of(private))
        with pytest.raises(InvalidToken):
            TokenSigner(KEYS[name], previous=[KEYS["HS256"]]).read(token, "access", now=NOW)


def _hmac_signed(head: dict[str, str], claims: dict[str, object], secret: bytes) -> str:
    # By hand, for PyJWT itself refuses to sign with a public key.
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, claims)]
    signature = hmac.new(secret, ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


@pytest.mark.parametrize(("name", "private"), [("RS256", RSA), ("EdDSA", ED25519)], ids=["RS256", "EdDSA"])
def test_what_is_published_verifies_and_holds_nothing_private(name: str, private: Private) -> None:
    signer = TokenSigner(KEYS[name], previous=[SigningKey.shared(FORMER)])
    [published] = signer.public_keys

    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(published)
    assert (published["alg"], published["use"]) == (name, "sig")
    claims = jwt.decode(
        issue(signer), jwt.PyJWK(published).key, algorithms=[name], options={"verify_exp": False, "verify_iat": False}
    )
    assert claims["type"] == "access"
    assert SigningKey.pair(public_pem_of(private)).kid == published["kid"], "both halves have one id"


def test_the_id_is_the_thumbprint_of_the_standard() -> None:
    published = KEYS["EdDSA"].public
    assert published is not None
    text = f'{{"crv":"Ed25519","kty":"OKP","x":"{published["x"]}"}}'
    expected = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    assert KEYS["EdDSA"].kid == expected


def test_a_shared_secret_is_neither_published_nor_shown() -> None:
    key = SigningKey.shared(SECRET)
    assert TokenSigner(key).public_keys == []
    assert SECRET not in repr(key)
    assert key.kid not in SECRET


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"text",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        public_pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - to be refused
    ],
    ids=["empty", "text", "broken", "broken public", "another curve", "another public curve", "short RSA"],
)
def test_what_is_no_such_key_is_refused(pem: bytes) -> None:
    with pytest.raises(UnusableKey):
        SigningKey.pair(pem)
