"""The keys that the settings name: which of them signs, which are believed, and what is of no use."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.sealing import new_key, read_key
from core.tokens import InvalidToken, TokenSigner
from server.keys import key_ring, token_signer
from server.settings import ConfigurationError, Settings, load_settings

NOW = datetime(2031, 5, 17, 12, 0, 0, tzinfo=UTC)
SECRET = "a secret of more than thirty-two characters"
PRIVATE = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def settings(**values: object) -> Settings:
    return load_settings(_env_file=None, secret_key=SECRET, **values)


def issue(signer: TokenSigner) -> str:
    return signer.issue("access", uuid4(), now=NOW, lifetime=timedelta(hours=1), claims={})


@pytest.fixture
def ed25519_file(tmp_path: Path) -> Path:
    path = tmp_path / "ed25519.pem"
    path.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(*PRIVATE))
    return path


@pytest.fixture
def rsa_file(tmp_path: Path) -> Path:
    path = tmp_path / "rsa.pem"
    path.write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(*PRIVATE))
    return path


def test_a_new_secret_believes_the_former_one_while_it_is_named() -> None:
    token = issue(token_signer(settings()))
    moved = token_signer(load_settings(_env_file=None, secret_key="n" * 32, secret_key_previous=f"older,{SECRET}"))

    assert moved.read(token, "access", now=NOW)
    with pytest.raises(InvalidToken):
        token_signer(load_settings(_env_file=None, secret_key="n" * 32)).read(token, "access", now=NOW)


def test_a_pair_takes_the_place_of_the_secret(ed25519_file: Path, rsa_file: Path) -> None:
    token = issue(token_signer(settings()))
    pair = {"jwt_algorithm": "EdDSA", "jwt_private_key_file": str(ed25519_file)}

    alone = token_signer(settings(**pair))
    with pytest.raises(InvalidToken):
        alone.read(token, "access", now=NOW)
    assert jwt.get_unverified_header(issue(alone))["alg"] == "EdDSA"
    moving = token_signer(settings(**pair, secret_key_previous=SECRET, jwt_previous_key_files=str(rsa_file)))
    assert moving.read(token, "access", now=NOW)
    assert [key["kty"] for key in moving.public_keys] == ["OKP", "RSA"]


def test_what_is_of_no_use_stops_the_start(ed25519_file: Path, rsa_file: Path, tmp_path: Path) -> None:
    public = tmp_path / "public.pem"
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    public.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    with pytest.raises(ConfigurationError, match="JWT_PRIVATE_KEY_FILE is missing"):
        settings(jwt_algorithm="RS256")
    for path, why in (
        (ed25519_file, "one for EdDSA"),
        (tmp_path / "absent.pem", "cannot be read"),
        (public, "one for EdDSA|signs nothing"),
        (Path(__file__), "not a PEM file"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            token_signer(settings(jwt_algorithm="RS256", jwt_private_key_file=str(path)))
    with pytest.raises(ConfigurationError, match="JWT_PREVIOUS_KEY_FILES"):
        token_signer(settings(jwt_previous_key_files=f"{rsa_file},{tmp_path / 'absent.pem'}"))


def test_development_makes_a_sealing_key_and_keeps_it_to_itself(tmp_path: Path) -> None:
    own = settings(data_dir=tmp_path)
    sealed = key_ring(own).seal("secret", subject="x")
    assert key_ring(own).open(sealed, subject="x") == "secret"
    path = tmp_path / "encryption_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_key(path.read_text())) == 32


def test_a_given_sealing_key_writes_nothing_and_former_ones_open(tmp_path: Path) -> None:
    former, newest = new_key(), new_key()
    sealed = key_ring(settings(data_dir=tmp_path, encryption_key=former)).seal("secret", subject="x")
    ring = key_ring(settings(data_dir=tmp_path, encryption_key=newest, encryption_key_previous=former))
    assert ring.open(sealed, subject="x") == "secret"
    assert ring.newest != sealed.key_id
    assert list(tmp_path.iterdir()) == []
